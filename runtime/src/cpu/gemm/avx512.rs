//! The tile with 512-bit vectors: 6 rows by 4 vectors, 24 chains of fused multiply-adds.
#![cfg(target_arch = "x86_64")]
use super::{Bf16, Element, Kernel, NARROW, Tile, View};
use std::arch::x86_64::*;

pub struct Avx512;

const LANES: usize = 16;

/// How elements become vectors of 16 f32. A *word* is 32 bits of memory: one term of f32, two of bf16.
pub trait Load: Copy {
    const TERMS: usize;

    /// The first n ≤ 16 elements, zeros for the rest.
    ///
    /// # Safety
    /// The CPU has AVX-512 F, BW and VL; n elements are readable.
    unsafe fn load(from: *const Self, n: usize) -> __m512;

    /// Term i < TERMS of each word.
    ///
    /// # Safety
    /// The CPU has AVX-512 F.
    unsafe fn term(words: __m512, i: usize) -> __m512;
}

impl Load for f32 {
    const TERMS: usize = 1;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn load(from: *const f32, n: usize) -> __m512 {
        // SAFETY: the caller's elements.
        unsafe { _mm512_maskz_loadu_ps(mask(n), from) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn term(words: __m512, _: usize) -> __m512 {
        words
    }
}

impl Load for Bf16 {
    const TERMS: usize = 2;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn load(from: *const Bf16, n: usize) -> __m512 {
        // SAFETY: the caller's elements.
        let x = unsafe { _mm256_maskz_loadu_epi16(mask(n), from.cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(x)))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn term(words: __m512, i: usize) -> __m512 {
        let words = _mm512_castps_si512(words);
        let upper = _mm512_set1_epi32(0xffff_0000u32 as i32);
        _mm512_castsi512_ps(if i == 0 { _mm512_slli_epi32::<16>(words) } else { _mm512_and_si512(words, upper) })
    }
}

impl Kernel for Avx512 {
    const LANES: usize = LANES;
    const ROWS: usize = 6;
    const VECTORS: usize = 4;
    const STREAM_ROWS: usize = 8;

    /// Packed panels have whole vectors and B read in place has whole panels, so loads of B need no mask; stores do.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn tile<E: Element, const M: usize, const V: usize>(p: Tile<E>) {
        let mut acc = [[_mm512_setzero_ps(); V]; M];
        let mut b = p.b.ptr.cast_const();
        for t in 0..p.k {
            // SAFETY: row t of B holds V vectors; element (r, t) of A.
            unsafe {
                let mut row = [_mm512_setzero_ps(); V];
                for (v, x) in row.iter_mut().enumerate() {
                    *x = <E as Load>::load(b.add(v * LANES), LANES);
                }
                for (r, acc) in acc.iter_mut().enumerate() {
                    let x = _mm512_set1_ps(*p.a.at(r, t));
                    for v in 0..V {
                        acc[v] = _mm512_fmadd_ps(x, row[v], acc[v]);
                    }
                }
            }
            b = b.wrapping_offset(p.b.row);
        }
        // SAFETY: the caller's tile.
        unsafe { write(&acc, &p) }
    }

    /// Columns of B are transposed in registers and used at once, so that reading them, not the chain of one sum, sets the
    /// pace.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn stream<E: Element, const M: usize, const WHOLE: bool>(p: Tile<E>) {
        let mut acc = [[_mm512_setzero_ps(); 1]; M];
        let step = LANES * <E as Load>::TERMS;
        let whole = p.k / step * step;
        for t in (0..whole).step_by(step) {
            // SAFETY: 16 words of each column, of k elements in all; elements (r, t + i) of A.
            unsafe {
                let b = p.b.ptr.wrapping_add(t).cast_const();
                let words = transposed(load_words::<E, WHOLE>(b, p.b.col, p.cols));
                fetch(b, p.b.col);
                for (i, words) in words.into_iter().enumerate() {
                    for j in 0..<E as Load>::TERMS {
                        let row = <E as Load>::term(words, j);
                        for (r, acc) in acc.iter_mut().enumerate() {
                            let x = _mm512_set1_ps(*p.a.at(r, t + i * <E as Load>::TERMS + j));
                            acc[0] = _mm512_fmadd_ps(x, row, acc[0]);
                        }
                    }
                }
            }
        }
        for t in (whole..p.k).step_by(LANES) {
            let depth = LANES.min(p.k - t);
            // SAFETY: as above, for `depth` more elements.
            unsafe {
                let rows = transposed(load(depth, p.cols, p.b.ptr.wrapping_add(t), p.b.col));
                for (i, row) in rows.into_iter().enumerate().take(depth) {
                    for (r, acc) in acc.iter_mut().enumerate() {
                        acc[0] = _mm512_fmadd_ps(_mm512_set1_ps(*p.a.at(r, t + i)), row, acc[0]);
                    }
                }
            }
        }
        // SAFETY: the caller's tile.
        unsafe { write(&acc, &p) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn pack_transposed<E: Element>(k: usize, cols: usize, width: usize, b: View<E>, to: *mut f32) {
        for j in (0..width).step_by(LANES) {
            let n = cols.saturating_sub(j).min(LANES);
            for t in (0..k).step_by(LANES) {
                let depth = LANES.min(k - t);
                // SAFETY: n columns of depth elements, and depth rows of the panel, as the caller promises.
                unsafe {
                    let rows = transposed(load(depth, n, b.at(t, j), b.col));
                    for (i, row) in rows.into_iter().enumerate().take(depth) {
                        _mm512_storeu_ps(to.add((t + i) * width + j), row);
                    }
                }
            }
        }
    }
}

/// The lowest n lanes, all of them from 16 on.
fn mask(n: usize) -> __mmask16 {
    if n >= LANES { !0 } else { (1 << n) - 1 }
}

/// `depth` ≤ 16 elements of each of n ≤ 16 columns that are `col` apart; zeros for the rest.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn load<E: Element>(depth: usize, n: usize, from: *const E, col: isize) -> [__m512; LANES] {
    let mut x = [_mm512_setzero_ps(); LANES];
    for (j, x) in x.iter_mut().enumerate().take(n) {
        // SAFETY: the first `depth` elements of column j < n.
        *x = unsafe { <E as Load>::load(from.wrapping_offset((j as isize).wrapping_mul(col)), depth) };
    }
    x
}

/// 16 words of each of 16 columns that are `col` elements apart, or of n of them if they are not WHOLE.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn load_words<E: Element, const WHOLE: bool>(from: *const E, col: isize, n: usize) -> [__m512; LANES] {
    let mut x = [_mm512_setzero_ps(); LANES];
    for (j, x) in x.iter_mut().enumerate().take(if WHOLE { NARROW } else { n }) {
        // SAFETY: the first 16 words of column j.
        *x = unsafe { _mm512_loadu_ps(from.wrapping_offset((j as isize).wrapping_mul(col)).cast()) };
    }
    x
}

/// Asks for the same elements of the next 16 columns: 16 short streams are more than the hardware follows by itself.
#[inline]
#[target_feature(enable = "avx512f")]
fn fetch<E>(from: *const E, col: isize) {
    for j in LANES..2 * LANES {
        // A prefetch of any address does nothing but, perhaps, fill a cache line.
        _mm_prefetch::<_MM_HINT_T1>(from.wrapping_offset((j as isize).wrapping_mul(col)).cast());
    }
}

/// Lane j of row t is lane t of x\[j\].
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed(x: [__m512; LANES]) -> [__m512; LANES] {
    let mut pairs = x;
    for i in (0..LANES).step_by(2) {
        pairs[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
    }
    // quads[4g + q], lane l: elements 4l + q of columns 4g .. 4g + 3.
    let mut quads = pairs;
    for i in (0..LANES).step_by(4) {
        for h in 0..2 {
            let (lo, hi) = (_mm512_castps_pd(pairs[i + h]), _mm512_castps_pd(pairs[i + h + 2]));
            quads[i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(lo, hi));
            quads[i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(lo, hi));
        }
    }
    let mut rows = quads;
    for q in 0..4 {
        let even = _mm512_shuffle_f32x4::<0x88>(quads[q], quads[4 + q]);
        let odd = _mm512_shuffle_f32x4::<0xdd>(quads[q], quads[4 + q]);
        let even2 = _mm512_shuffle_f32x4::<0x88>(quads[8 + q], quads[12 + q]);
        let odd2 = _mm512_shuffle_f32x4::<0xdd>(quads[8 + q], quads[12 + q]);
        rows[q] = _mm512_shuffle_f32x4::<0x88>(even, even2);
        rows[4 + q] = _mm512_shuffle_f32x4::<0x88>(odd, odd2);
        rows[8 + q] = _mm512_shuffle_f32x4::<0xdd>(even, even2);
        rows[12 + q] = _mm512_shuffle_f32x4::<0xdd>(odd, odd2);
    }
    rows
}

/// Writes sums to a tile of C.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn write<E, const M: usize, const V: usize>(acc: &[[__m512; V]; M], p: &Tile<E>) {
    let alpha = _mm512_set1_ps(p.w.alpha);
    for (r, sums) in acc.iter().enumerate() {
        for (v, sum) in sums.iter().enumerate() {
            let mask = mask(p.cols - v * LANES);
            let to = p.c.wrapping_offset((r as isize).wrapping_mul(p.c_row)).wrapping_add(v * LANES);
            // SAFETY: the masked elements are columns of row r of the tile.
            unsafe {
                let out = match p.w.add {
                    true => _mm512_fmadd_ps(*sum, alpha, _mm512_maskz_loadu_ps(mask, to)),
                    false => _mm512_mul_ps(*sum, alpha),
                };
                _mm512_mask_storeu_ps(to, mask, out);
            }
        }
    }
}
