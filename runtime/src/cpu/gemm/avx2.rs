//! The tile with 256-bit vectors: 6 rows by 2 vectors, 12 chains of fused multiply-adds.
#![cfg(target_arch = "x86_64")]
use super::{Bf16, Element, Kernel, Tile, View};
use std::arch::x86_64::*;

pub struct Avx2;

const LANES: usize = 8;

/// How elements become vectors of 8 f32. A *word* is 32 bits of memory: one term of f32, two of bf16.
pub trait Load: Copy {
    const TERMS: usize;

    /// 8 elements.
    ///
    /// # Safety
    /// The CPU has AVX2; 8 elements are readable.
    unsafe fn load_all(from: *const Self) -> __m256;

    /// The first n ≤ 8 elements, zeros for the rest.
    ///
    /// # Safety
    /// The CPU has AVX2; n elements are readable.
    unsafe fn load(from: *const Self, n: usize) -> __m256;

    /// Term i < TERMS of each word.
    ///
    /// # Safety
    /// The CPU has AVX2.
    unsafe fn term(words: __m256, i: usize) -> __m256;
}

impl Load for f32 {
    const TERMS: usize = 1;

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn load_all(from: *const f32) -> __m256 {
        // SAFETY: the caller's elements.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn load(from: *const f32, n: usize) -> __m256 {
        // SAFETY: the caller's elements.
        unsafe { _mm256_maskload_ps(from, mask(n)) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn term(words: __m256, _: usize) -> __m256 {
        words
    }
}

impl Load for Bf16 {
    const TERMS: usize = 2;

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn load_all(from: *const Bf16) -> __m256 {
        // SAFETY: the caller's elements.
        let x = unsafe { _mm_loadu_si128(from.cast()) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(x)))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn load(from: *const Bf16, n: usize) -> __m256 {
        // There is no masked load of 16 bits.
        let mut x = [Bf16(0); LANES];
        // SAFETY: the caller's elements; 8 elements of x.
        unsafe {
            std::ptr::copy_nonoverlapping(from, x.as_mut_ptr(), n.min(LANES));
            Self::load_all(x.as_ptr())
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn term(words: __m256, i: usize) -> __m256 {
        let words = _mm256_castps_si256(words);
        let upper = _mm256_set1_epi32(0xffff_0000u32 as i32);
        _mm256_castsi256_ps(if i == 0 { _mm256_slli_epi32::<16>(words) } else { _mm256_and_si256(words, upper) })
    }
}

impl Kernel for Avx2 {
    const LANES: usize = LANES;
    const ROWS: usize = 6;
    const VECTORS: usize = 2;
    const STREAM_ROWS: usize = 4;

    /// Packed panels have whole vectors and B read in place has whole panels, so loads of B need no mask; stores do.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile<E: Element, const M: usize, const V: usize>(p: Tile<E>) {
        let mut acc = [[_mm256_setzero_ps(); V]; M];
        let mut b = p.b.ptr.cast_const();
        for t in 0..p.k {
            // SAFETY: row t of B holds V vectors; element (r, t) of A.
            unsafe {
                let mut row = [_mm256_setzero_ps(); V];
                for (v, x) in row.iter_mut().enumerate() {
                    *x = <E as Load>::load_all(b.add(v * LANES));
                }
                for (r, acc) in acc.iter_mut().enumerate() {
                    let x = _mm256_set1_ps(*p.a.at(r, t));
                    for v in 0..V {
                        acc[v] = _mm256_fmadd_ps(x, row[v], acc[v]);
                    }
                }
            }
            b = b.wrapping_offset(p.b.row);
        }
        // SAFETY: the caller's tile.
        unsafe { write(&acc, &p) }
    }

    /// Columns of B are transposed in registers and used at once, so that reading them, not the chain of one sum, sets the
    /// pace. Two halves of 8 columns, whose chains run side by side.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn stream<E: Element, const M: usize, const WHOLE: bool>(p: Tile<E>) {
        let mut acc = [[_mm256_setzero_ps(); 2]; M];
        let right = p.b.ptr.wrapping_offset(p.b.col.wrapping_mul(LANES as isize));
        let halves = [(p.b.ptr, p.cols.min(LANES)), (right, p.cols.saturating_sub(LANES))];
        let step = LANES * <E as Load>::TERMS;
        let whole = p.k / step * step;
        for t in (0..whole).step_by(step) {
            for (h, (b, n)) in halves.into_iter().enumerate() {
                // SAFETY: 8 words of each of n columns, of k elements in all; elements (r, t + i) of A.
                unsafe {
                    let words = transposed(load_words::<E, WHOLE>(b.wrapping_add(t), p.b.col, n));
                    for (i, words) in words.into_iter().enumerate() {
                        for j in 0..<E as Load>::TERMS {
                            let row = <E as Load>::term(words, j);
                            for (r, acc) in acc.iter_mut().enumerate() {
                                let x = _mm256_set1_ps(*p.a.at(r, t + i * <E as Load>::TERMS + j));
                                acc[h] = _mm256_fmadd_ps(x, row, acc[h]);
                            }
                        }
                    }
                }
            }
        }
        for t in (whole..p.k).step_by(LANES) {
            let depth = LANES.min(p.k - t);
            for (h, (b, n)) in halves.into_iter().enumerate() {
                // SAFETY: as above, for `depth` more elements.
                unsafe {
                    let rows = transposed(load(depth, n, b.wrapping_add(t), p.b.col));
                    for (i, row) in rows.into_iter().enumerate().take(depth) {
                        for (r, acc) in acc.iter_mut().enumerate() {
                            acc[h] = _mm256_fmadd_ps(_mm256_set1_ps(*p.a.at(r, t + i)), row, acc[h]);
                        }
                    }
                }
            }
        }
        // SAFETY: the caller's tile.
        unsafe { write(&acc, &p) }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn pack_transposed<E: Element>(k: usize, cols: usize, width: usize, b: View<E>, to: *mut f32) {
        for j in (0..width).step_by(LANES) {
            let n = cols.saturating_sub(j).min(LANES);
            for t in (0..k).step_by(LANES) {
                let depth = LANES.min(k - t);
                // SAFETY: n columns of depth elements, and depth rows of the panel, as the caller promises.
                unsafe {
                    let rows = transposed(load(depth, n, b.at(t, j), b.col));
                    for (i, row) in rows.into_iter().enumerate().take(depth) {
                        _mm256_storeu_ps(to.add((t + i) * width + j), row);
                    }
                }
            }
        }
    }
}

/// The lowest n lanes, all of them from 8 on.
#[target_feature(enable = "avx2")]
fn mask(n: usize) -> __m256i {
    _mm256_cmpgt_epi32(_mm256_set1_epi32(n.min(LANES) as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
}

/// `depth` ≤ 8 elements of each of n ≤ 8 columns that are `col` apart; zeros for the rest.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn load<E: Element>(depth: usize, n: usize, from: *const E, col: isize) -> [__m256; LANES] {
    let mut x = [_mm256_setzero_ps(); LANES];
    for (j, x) in x.iter_mut().enumerate().take(n) {
        let column = from.wrapping_offset((j as isize).wrapping_mul(col));
        // SAFETY: the first `depth` elements of column j < n.
        *x = unsafe { if depth == LANES { <E as Load>::load_all(column) } else { <E as Load>::load(column, depth) } };
    }
    x
}

/// 8 words of each of 8 columns that are `col` elements apart, or of n of them if they are not WHOLE.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn load_words<E: Element, const WHOLE: bool>(from: *const E, col: isize, n: usize) -> [__m256; LANES] {
    let mut x = [_mm256_setzero_ps(); LANES];
    for (j, x) in x.iter_mut().enumerate().take(if WHOLE { LANES } else { n }) {
        // SAFETY: the first 8 words of column j.
        *x = unsafe { _mm256_loadu_ps(from.wrapping_offset((j as isize).wrapping_mul(col)).cast()) };
    }
    x
}

/// Lane j of row t is lane t of x\[j\].
#[inline]
#[target_feature(enable = "avx2,fma")]
fn transposed(x: [__m256; LANES]) -> [__m256; LANES] {
    let mut pairs = x;
    for i in (0..LANES).step_by(2) {
        pairs[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
    }
    // quads[4g + q], lane l: elements 4l + q of columns 4g .. 4g + 3.
    let mut quads = pairs;
    for i in (0..LANES).step_by(4) {
        for h in 0..2 {
            let (lo, hi) = (_mm256_castps_pd(pairs[i + h]), _mm256_castps_pd(pairs[i + h + 2]));
            quads[i + 2 * h] = _mm256_castpd_ps(_mm256_unpacklo_pd(lo, hi));
            quads[i + 2 * h + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(lo, hi));
        }
    }
    let mut rows = quads;
    for q in 0..4 {
        rows[q] = _mm256_permute2f128_ps::<0x20>(quads[q], quads[4 + q]);
        rows[4 + q] = _mm256_permute2f128_ps::<0x31>(quads[q], quads[4 + q]);
    }
    rows
}

/// Writes sums to a tile of C.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn write<E, const M: usize, const V: usize>(acc: &[[__m256; V]; M], p: &Tile<E>) {
    let alpha = _mm256_set1_ps(p.w.alpha);
    for (r, sums) in acc.iter().enumerate() {
        for (v, sum) in sums.iter().enumerate() {
            let mask = mask(p.cols.saturating_sub(v * LANES));
            let to = p.c.wrapping_offset((r as isize).wrapping_mul(p.c_row)).wrapping_add(v * LANES);
            // SAFETY: the masked elements are columns of row r of the tile.
            unsafe {
                let out = match p.w.add {
                    true => _mm256_fmadd_ps(*sum, alpha, _mm256_maskload_ps(to, mask)),
                    false => _mm256_mul_ps(*sum, alpha),
                };
                _mm256_maskstore_ps(to, mask, out);
            }
        }
    }
}
