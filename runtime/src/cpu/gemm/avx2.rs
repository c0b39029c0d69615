//! The tile with 256-bit vectors: 6 rows by 2 vectors, 12 chains of fused multiply-adds.
#![cfg(target_arch = "x86_64")]
use super::{Kernel, View, Write};
use std::arch::x86_64::*;

pub struct Avx2;

const LANES: usize = 8;

impl Kernel for Avx2 {
    const ROWS: usize = 6;
    const COLS: usize = 16;

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

    unsafe fn pack_transposed(k: usize, cols: usize, from: *const f32, col: isize, to: *mut f32) {
        for j in (0..Self::COLS).step_by(LANES) {
            let n = cols.saturating_sub(j).min(LANES);
            let column = from.wrapping_offset(j as isize * col);
            for t in (0..k).step_by(LANES) {
                let depth = LANES.min(k - t);
                // SAFETY: n columns of depth elements, and depth rows of the panel, as the caller promises.
                unsafe { transpose(depth, n, column.wrapping_add(t), col, to.add(t * Self::COLS + j), Self::COLS) };
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
    let mut at = [a.ptr.cast_const(); M];
    for (r, at) in at.iter_mut().enumerate() {
        *at = at.wrapping_offset(r as isize * a.row);
    }
    for _ in 0..k {
        // SAFETY: row t of B holds two vectors; element (r, t) of A.
        unsafe {
            let row = [_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(LANES))];
            for r in 0..M {
                let x = _mm256_set1_ps(*at[r]);
                at[r] = at[r].wrapping_offset(a.col);
                for v in 0..2 {
                    acc[r][v] = _mm256_fmadd_ps(x, row[v], acc[r][v]);
                }
            }
        }
        b = b.wrapping_offset(b_row);
    }
    let alpha = _mm256_set1_ps(w.alpha);
    for (r, sums) in acc.iter().enumerate() {
        for (v, sum) in sums.iter().enumerate() {
            let mask = mask(cols.saturating_sub(v * LANES));
            let to = c.wrapping_offset(r as isize * c_row).wrapping_add(v * LANES);
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

/// The lowest n lanes, all of them from 8 on.
#[target_feature(enable = "avx2")]
fn mask(n: usize) -> __m256i {
    _mm256_cmpgt_epi32(_mm256_set1_epi32(n.min(LANES) as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
}

/// `to[t · to_row + j] = from[j · col + t]` for t < depth and j < n, and 0 for n <= j < 8.
#[target_feature(enable = "avx2,fma")]
unsafe fn transpose(depth: usize, n: usize, from: *const f32, col: isize, to: *mut f32, to_row: usize) {
    let mask = mask(depth);
    let mut x = [_mm256_setzero_ps(); LANES];
    for (j, x) in x.iter_mut().enumerate().take(n) {
        // SAFETY: the first `depth` elements of column j < n.
        *x = unsafe { _mm256_maskload_ps(from.wrapping_offset(j as isize * col), mask) };
    }
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
    for q in 0..4 {
        let rows = [
            _mm256_permute2f128_ps::<0x20>(quads[q], quads[4 + q]),
            _mm256_permute2f128_ps::<0x31>(quads[q], quads[4 + q]),
        ];
        for (l, row) in rows.into_iter().enumerate() {
            if 4 * l + q < depth {
                // SAFETY: row 4l + q < depth of the panel.
                unsafe { _mm256_storeu_ps(to.add((4 * l + q) * to_row), row) };
            }
        }
    }
}
