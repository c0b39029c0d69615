//! The tile with 256-bit vectors: 6 rows by 2 vectors, 12 chains of fused multiply-adds.
#![cfg(target_arch = "x86_64")]
use super::{Kernel, View, Write};
use std::arch::x86_64::*;

pub struct Avx2;

const LANES: usize = 8;

impl Kernel for Avx2 {
    const ROWS: usize = 6;
    const COLS: usize = 16;
    const NARROW: usize = 16;
    const STREAM_ROWS: usize = 4;

    unsafe fn tile(
        rows: usize,
        cols: usize,
        k: usize,
        a: View,
        b: *const f32,
        b_row: isize,
        c: *mut f32,
        c_row: isize,
        w: Write,
    ) {
        // SAFETY: the caller's tile, of this many rows; the CPU has the instructions.
        unsafe {
            match rows {
                1 => tile::<1>(cols, k, a, b, b_row, c, c_row, w),
                2 => tile::<2>(cols, k, a, b, b_row, c, c_row, w),
                3 => tile::<3>(cols, k, a, b, b_row, c, c_row, w),
                4 => tile::<4>(cols, k, a, b, b_row, c, c_row, w),
                5 => tile::<5>(cols, k, a, b, b_row, c, c_row, w),
                _ => tile::<6>(cols, k, a, b, b_row, c, c_row, w),
            }
        }
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
            match (rows, cols == 2 * LANES) {
                (1, true) => stream::<1, true>(cols, k, a, b, col, c, c_row, w),
                (1, false) => stream::<1, false>(cols, k, a, b, col, c, c_row, w),
                (2, true) => stream::<2, true>(cols, k, a, b, col, c, c_row, w),
                (2, false) => stream::<2, false>(cols, k, a, b, col, c, c_row, w),
                (3, true) => stream::<3, true>(cols, k, a, b, col, c, c_row, w),
                (3, false) => stream::<3, false>(cols, k, a, b, col, c, c_row, w),
                (_, true) => stream::<4, true>(cols, k, a, b, col, c, c_row, w),
                (_, false) => stream::<4, false>(cols, k, a, b, col, c, c_row, w),
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
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const M: usize>(
    cols: usize,
    k: usize,
    a: View,
    mut b: *const f32,
    b_row: isize,
    c: *mut f32,
    c_row: isize,
    w: Write,
) {
    let mut acc = [[_mm256_setzero_ps(); 2]; M];
    for t in 0..k {
        // SAFETY: row t of B holds two vectors; element (r, t) of A.
        unsafe {
            let row = [_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(LANES))];
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = _mm256_set1_ps(*a.at(r, t));
                for v in 0..2 {
                    acc[v] = _mm256_fmadd_ps(x, row[v], acc[v]);
                }
            }
        }
        b = b.wrapping_offset(b_row);
    }
    // SAFETY: the caller's tile.
    unsafe { write(&acc, cols, c, c_row, w) }
}

/// The lowest n lanes, all of them from 8 on.
#[target_feature(enable = "avx2")]
fn mask(n: usize) -> __m256i {
    _mm256_cmpgt_epi32(_mm256_set1_epi32(n.min(LANES) as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
}

/// `to[t · to_row + j] = from[j · col + t]` for t < depth and j < n, and 0 for n <= j < 8.
#[target_feature(enable = "avx2,fma")]
unsafe fn transpose(depth: usize, n: usize, from: *const f32, col: isize, to: *mut f32, to_row: usize) {
    // SAFETY: the caller's columns.
    let rows = transposed(unsafe { load(depth, n, from, col) });
    for (t, row) in rows.into_iter().enumerate().take(depth) {
        // SAFETY: row t < depth of the panel.
        unsafe { _mm256_storeu_ps(to.add(t * to_row), row) };
    }
}

/// `depth` ≤ 8 elements of each of n ≤ 8 columns that are `col` apart; zeros for the rest.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn load(depth: usize, n: usize, from: *const f32, col: isize) -> [__m256; LANES] {
    let mut x = [_mm256_setzero_ps(); LANES];
    let mask = mask(depth);
    for (j, x) in x.iter_mut().enumerate().take(n) {
        // SAFETY: the first `depth` elements of column j < n.
        *x = unsafe { _mm256_maskload_ps(from.wrapping_offset((j as isize).wrapping_mul(col)), mask) };
    }
    x
}

/// 8 elements of each of 8 columns that are `col` apart.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn load_whole(from: *const f32, col: isize) -> [__m256; LANES] {
    let mut x = [_mm256_setzero_ps(); LANES];
    for (j, x) in x.iter_mut().enumerate() {
        // SAFETY: the first 8 elements of column j.
        *x = unsafe { _mm256_loadu_ps(from.wrapping_offset((j as isize).wrapping_mul(col))) };
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

/// A tile whose B has contiguous columns: they are transposed in registers and used at once, so that reading them, not
/// the chain of one sum, sets the pace. Two halves of 8 columns, whose chains run side by side.
#[target_feature(enable = "avx2,fma")]
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
    let mut acc = [[_mm256_setzero_ps(); 2]; M];
    let right = b.wrapping_offset(col.wrapping_mul(LANES as isize));
    let halves = [(b, cols.min(LANES)), (right, cols.saturating_sub(LANES))];
    let whole = k / LANES * LANES;
    for t in (0..whole).step_by(LANES) {
        for (h, (b, n)) in halves.into_iter().enumerate() {
            // SAFETY: 8 elements of each of n columns, of k in all; elements (r, t + i) of A.
            unsafe {
                let b = b.wrapping_add(t);
                let x = if WHOLE { load_whole(b, col) } else { load(LANES, n, b, col) };
                for (i, row) in transposed(x).into_iter().enumerate() {
                    for (r, acc) in acc.iter_mut().enumerate() {
                        acc[h] = _mm256_fmadd_ps(_mm256_set1_ps(*a.at(r, t + i)), row, acc[h]);
                    }
                }
            }
        }
    }
    if whole < k {
        for (h, (b, n)) in halves.into_iter().enumerate() {
            // SAFETY: as above, for the k - whole elements that are left.
            unsafe {
                let x = load(k - whole, n, b.wrapping_add(whole), col);
                for (i, row) in transposed(x).into_iter().enumerate().take(k - whole) {
                    for (r, acc) in acc.iter_mut().enumerate() {
                        acc[h] = _mm256_fmadd_ps(_mm256_set1_ps(*a.at(r, whole + i)), row, acc[h]);
                    }
                }
            }
        }
    }
    // SAFETY: the caller's tile.
    unsafe { write(&acc, cols, c, c_row, w) }
}

/// Writes sums to a tile of C.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn write<const M: usize, const V: usize>(
    acc: &[[__m256; V]; M],
    cols: usize,
    c: *mut f32,
    c_row: isize,
    w: Write,
) {
    let alpha = _mm256_set1_ps(w.alpha);
    for (r, sums) in acc.iter().enumerate() {
        for (v, sum) in sums.iter().enumerate() {
            let mask = mask(cols.saturating_sub(v * LANES));
            let to = c.wrapping_offset((r as isize).wrapping_mul(c_row)).wrapping_add(v * LANES);
            // SAFETY: the masked elements are columns of row r of the tile.
            unsafe {
                let out = match w.add {
                    true => _mm256_fmadd_ps(*sum, alpha, _mm256_maskload_ps(to, mask)),
                    false => _mm256_mul_ps(*sum, alpha),
                };
                _mm256_maskstore_ps(to, mask, out);
            }
        }
    }
}
