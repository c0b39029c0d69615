//! The tile with 512-bit vectors: 6 rows by 4 vectors, 24 chains of fused multiply-adds.
#![cfg(target_arch = "x86_64")]
use super::{Kernel, View, Write};
use std::arch::x86_64::*;

pub struct Avx512;

const LANES: usize = 16;
/// Up to this many rows, reading B takes longer than computing with it.
const PACED_BY_MEMORY: usize = 2;

impl Kernel for Avx512 {
    const ROWS: usize = 6;
    const COLS: usize = 64;
    const NARROW: usize = 16;
    const STREAM_ROWS: usize = 8;

    #[rustfmt::skip]
    unsafe fn tile(rows: usize, cols: usize, k: usize, a: View, b: *const f32, b_row: isize, c: *mut f32, c_row: isize, w: Write) {
        macro_rules! run {
            ($m:literal, $v:literal) => { tile::<$m, $v>(cols, k, a, b, b_row, c, c_row, w) };
        }
        // SAFETY: the caller's tile, of this many rows and vectors; the CPU has the instructions.
        unsafe {
        match (rows, cols.div_ceil(LANES)) {
            (1, 1) => run!(1, 1), (1, 2) => run!(1, 2), (1, 3) => run!(1, 3), (1, _) => run!(1, 4),
            (2, 1) => run!(2, 1), (2, 2) => run!(2, 2), (2, 3) => run!(2, 3), (2, _) => run!(2, 4),
            (3, 1) => run!(3, 1), (3, 2) => run!(3, 2), (3, 3) => run!(3, 3), (3, _) => run!(3, 4),
            (4, 1) => run!(4, 1), (4, 2) => run!(4, 2), (4, 3) => run!(4, 3), (4, _) => run!(4, 4),
            (5, 1) => run!(5, 1), (5, 2) => run!(5, 2), (5, 3) => run!(5, 3), (5, _) => run!(5, 4),
            (_, 1) => run!(6, 1), (_, 2) => run!(6, 2), (_, 3) => run!(6, 3), (_, _) => run!(6, 4),
        } }
    }

    unsafe fn stream(
        rows: usize,
        cols: usize,
        k: usize,
        a: View,
        b: *const f32,
        col: isize,
        c: *mut f32,
        c_row: isize,
        w: Write,
    ) {
        // SAFETY: the caller's tile, of this many rows; the CPU has the instructions.
        unsafe {
            match (rows, cols == LANES) {
                (1, true) => stream::<1, true>(cols, k, a, b, col, c, c_row, w),
                (1, false) => stream::<1, false>(cols, k, a, b, col, c, c_row, w),
                (2, true) => stream::<2, true>(cols, k, a, b, col, c, c_row, w),
                (2, false) => stream::<2, false>(cols, k, a, b, col, c, c_row, w),
                (3, true) => stream::<3, true>(cols, k, a, b, col, c, c_row, w),
                (3, false) => stream::<3, false>(cols, k, a, b, col, c, c_row, w),
                (4, true) => stream::<4, true>(cols, k, a, b, col, c, c_row, w),
                (4, false) => stream::<4, false>(cols, k, a, b, col, c, c_row, w),
                (5, true) => stream::<5, true>(cols, k, a, b, col, c, c_row, w),
                (5, false) => stream::<5, false>(cols, k, a, b, col, c, c_row, w),
                (6, true) => stream::<6, true>(cols, k, a, b, col, c, c_row, w),
                (6, false) => stream::<6, false>(cols, k, a, b, col, c, c_row, w),
                (7, true) => stream::<7, true>(cols, k, a, b, col, c, c_row, w),
                (7, false) => stream::<7, false>(cols, k, a, b, col, c, c_row, w),
                (_, true) => stream::<8, true>(cols, k, a, b, col, c, c_row, w),
                (_, false) => stream::<8, false>(cols, k, a, b, col, c, c_row, w),
            }
        }
    }

    unsafe fn pack_transposed(k: usize, cols: usize, width: usize, from: *const f32, col: isize, to: *mut f32) {
        for j in (0..width).step_by(LANES) {
            let n = cols.saturating_sub(j).min(LANES);
            let column = from.wrapping_offset((j as isize).wrapping_mul(col));
            for t in (0..k).step_by(LANES) {
                let depth = LANES.min(k - t);
                // SAFETY: n columns of depth elements, and depth rows of the panel, as the caller promises.
                unsafe { transpose(depth, n, column.wrapping_add(t), col, to.add(t * width + j), width) };
            }
        }
    }
}

/// Packed panels have whole vectors and B read in place has whole panels, so loads of B need no mask; stores do.
#[target_feature(enable = "avx512f")]
unsafe fn tile<const M: usize, const V: usize>(
    cols: usize,
    k: usize,
    a: View,
    mut b: *const f32,
    b_row: isize,
    c: *mut f32,
    c_row: isize,
    w: Write,
) {
    let mut acc = [[_mm512_setzero_ps(); V]; M];
    for t in 0..k {
        // SAFETY: row t of B holds V vectors; element (r, t) of A.
        unsafe {
            let mut row = [_mm512_setzero_ps(); V];
            for (v, x) in row.iter_mut().enumerate() {
                *x = _mm512_loadu_ps(b.add(v * LANES));
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*a.at(r, t));
                for v in 0..V {
                    acc[v] = _mm512_fmadd_ps(x, row[v], acc[v]);
                }
            }
        }
        b = b.wrapping_offset(b_row);
    }
    // SAFETY: the caller's tile.
    unsafe { write(&acc, cols, c, c_row, w) }
}

/// The lowest n lanes, all of them from 16 on.
fn mask(n: usize) -> __mmask16 {
    if n >= LANES { !0 } else { (1 << n) - 1 }
}

/// `to[t · to_row + j] = from[j · col + t]` for t < depth and j < n, and 0 for n <= j < 16.
#[target_feature(enable = "avx512f")]
unsafe fn transpose(depth: usize, n: usize, from: *const f32, col: isize, to: *mut f32, to_row: usize) {
    // SAFETY: the caller's columns.
    let rows = transposed(unsafe { load(depth, n, from, col) });
    for (t, row) in rows.into_iter().enumerate().take(depth) {
        // SAFETY: row t < depth of the panel.
        unsafe { _mm512_storeu_ps(to.add(t * to_row), row) };
    }
}

/// `depth` ≤ 16 elements of each of n ≤ 16 columns that are `col` apart; zeros for the rest.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load(depth: usize, n: usize, from: *const f32, col: isize) -> [__m512; LANES] {
    let mut x = [_mm512_setzero_ps(); LANES];
    let mask = mask(depth);
    for (j, x) in x.iter_mut().enumerate().take(n) {
        // SAFETY: the first `depth` elements of column j < n.
        *x = unsafe { _mm512_maskz_loadu_ps(mask, from.wrapping_offset((j as isize).wrapping_mul(col))) };
    }
    x
}

/// 16 elements of each of 16 columns that are `col` apart.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load_whole(from: *const f32, col: isize) -> [__m512; LANES] {
    let mut x = [_mm512_setzero_ps(); LANES];
    for (j, x) in x.iter_mut().enumerate() {
        // SAFETY: the first 16 elements of column j.
        *x = unsafe { _mm512_loadu_ps(from.wrapping_offset((j as isize).wrapping_mul(col))) };
    }
    x
}

/// Asks for the same elements of the next 16 columns: 16 short streams are more than the hardware follows by itself.
#[inline]
#[target_feature(enable = "avx512f")]
fn fetch(from: *const f32, col: isize) {
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

/// A tile whose B has contiguous columns: they are transposed in registers and used at once, so that reading them, not
/// the chain of one sum, sets the pace.
#[target_feature(enable = "avx512f")]
unsafe fn stream<const M: usize, const WHOLE: bool>(
    cols: usize,
    k: usize,
    a: View,
    b: *const f32,
    col: isize,
    c: *mut f32,
    c_row: isize,
    w: Write,
) {
    let mut acc = [[_mm512_setzero_ps(); 1]; M];
    let whole = k / LANES * LANES;
    for t in (0..whole).step_by(LANES) {
        // SAFETY: 16 elements of each column, of k in all; elements (r, t + i) of A.
        unsafe {
            let x = if WHOLE { load_whole(b.add(t), col) } else { load(LANES, cols, b.add(t), col) };
            if M <= PACED_BY_MEMORY {
                fetch(b.wrapping_add(t), col);
            }
            let rows = transposed(x);
            for (i, row) in rows.into_iter().enumerate() {
                for (r, acc) in acc.iter_mut().enumerate() {
                    acc[0] = _mm512_fmadd_ps(_mm512_set1_ps(*a.at(r, t + i)), row, acc[0]);
                }
            }
        }
    }
    if whole < k {
        // SAFETY: as above, for the k - whole elements that are left.
        unsafe {
            let rows = transposed(load(k - whole, cols, b.add(whole), col));
            for (i, row) in rows.into_iter().enumerate().take(k - whole) {
                for (r, acc) in acc.iter_mut().enumerate() {
                    acc[0] = _mm512_fmadd_ps(_mm512_set1_ps(*a.at(r, whole + i)), row, acc[0]);
                }
            }
        }
    }
    // SAFETY: the caller's tile.
    unsafe { write(&acc, cols, c, c_row, w) }
}

/// Writes sums to a tile of C.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn write<const M: usize, const V: usize>(
    acc: &[[__m512; V]; M],
    cols: usize,
    c: *mut f32,
    c_row: isize,
    w: Write,
) {
    let alpha = _mm512_set1_ps(w.alpha);
    for (r, sums) in acc.iter().enumerate() {
        for (v, sum) in sums.iter().enumerate() {
            let mask = mask(cols - v * LANES);
            let to = c.wrapping_offset((r as isize).wrapping_mul(c_row)).wrapping_add(v * LANES);
            // SAFETY: the masked elements are columns of row r of the tile.
            unsafe {
                let out = match w.add {
                    true => _mm512_fmadd_ps(*sum, alpha, _mm512_maskz_loadu_ps(mask, to)),
                    false => _mm512_mul_ps(*sum, alpha),
                };
                _mm512_mask_storeu_ps(to, mask, out);
            }
        }
    }
}
