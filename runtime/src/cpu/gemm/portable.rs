//! The tile in plain Rust: the definition that the vector kernels must equal bit for bit, and the fallback.
use super::{Element, Kernel, Tile, View};

pub struct Portable;

impl Kernel for Portable {
    const LANES: usize = 16;
    const ROWS: usize = 6;
    const VECTORS: usize = 1;
    const STREAM_ROWS: usize = 4;

    unsafe fn tile<E: Element, const M: usize, const V: usize>(p: Tile<E>) {
        for r in 0..M {
            for j in 0..p.cols {
                // SAFETY: the caller's tile: k terms of row r and column j, and element (r, j) of C.
                unsafe {
                    let term = |sum: f32, t: usize| (*p.a.at(r, t)).mul_add((*p.b.at(t, j)).widen(), sum);
                    let sum = (0..p.k).fold(0.0, term);
                    let to = p.c.wrapping_offset(r as isize * p.c_row).add(j);
                    *to = if p.w.add { sum.mul_add(p.w.alpha, *to) } else { p.w.alpha * sum };
                }
            }
        }
    }

    unsafe fn stream<E: Element, const M: usize, const WHOLE: bool>(p: Tile<E>) {
        // SAFETY: the caller's tile; its elements are addressed by both strides.
        unsafe { Self::tile::<E, M, 1>(p) }
    }

    unsafe fn pack_transposed<E: Element>(k: usize, cols: usize, width: usize, b: View<E>, to: *mut f32) {
        for t in 0..k {
            for j in 0..width {
                // SAFETY: element (t, j < cols) of B; k · width elements of `to`.
                unsafe { *to.add(t * width + j) = if j < cols { (*b.at(t, j)).widen() } else { 0.0 } };
            }
        }
    }
}
