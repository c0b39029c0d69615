//! The tile in plain Rust: the definition that the vector kernels must equal bit for bit, and the fallback.
use super::{Kernel, View, Write};

pub struct Portable;

impl Kernel for Portable {
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
        for r in 0..rows {
            for j in 0..cols {
                // SAFETY: the caller's tile: k terms of row r and column j, and element (r, j) of C.
                unsafe {
                    let sum = (0..k).fold(0.0f32, |sum, t| {
                        (*a.at(r, t)).mul_add(*b.wrapping_offset(t as isize * b_row).add(j), sum)
                    });
                    let to = c.wrapping_offset(r as isize * c_row).add(j);
                    *to = if w.add { sum.mul_add(w.alpha, *to) } else { w.alpha * sum };
                }
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
        for j in 0..cols {
            // SAFETY: column j of the caller's tile.
            unsafe { Self::tile(rows, 1, k, a, b.wrapping_offset(j as isize * col), 1, c.wrapping_add(j), c_row, w) };
        }
    }

    unsafe fn pack_transposed(k: usize, cols: usize, width: usize, from: *const f32, col: isize, to: *mut f32) {
        for t in 0..k {
            for j in 0..width {
                // SAFETY: column j < cols of `from`; k · COLS elements of `to`.
                unsafe {
                    let x = if j < cols { *from.wrapping_offset(j as isize * col).add(t) } else { 0.0 };
                    *to.add(t * width + j) = x;
                }
            }
        }
    }
}
