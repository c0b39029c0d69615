//! Packing: parts of operands copied to where tiles read them fast, widened to f32 on the way.
use super::{Element, Kernel, View};

/// Packs k × cols elements of B, padded with zero columns to `width`: element (t, j) at `t · width + j`.
///
/// # Safety
/// B is readable there, `to` is writable for k · width elements, the CPU has K's instructions.
pub unsafe fn pack_panel<K: Kernel, E: Element>(k: usize, cols: usize, width: usize, b: View<E>, to: *mut f32) {
    if b.row == 1 && b.col != 1 {
        // SAFETY: the panel is within B and the workspace.
        return unsafe { K::pack_transposed(k, cols, width, b, to) };
    }
    for t in 0..k {
        let line = to.wrapping_add(t * width);
        // SAFETY: row t of the panel, `width` elements of the workspace.
        unsafe {
            match b.col {
                1 => E::widen_all(cols, b.at(t, 0), line),
                _ => (0..cols).for_each(|j| *line.add(j) = (*b.at(t, j)).widen()),
            }
            std::ptr::write_bytes(line.add(cols), 0, width - cols);
        }
    }
}

/// Packs rows × k elements of A in groups: element (r, t) at `first row of the group · k + t · group + r`. Where this is
/// needed, the rows of a column are neighbours, so columns are taken one after the other.
///
/// # Safety
/// A is readable there, `to` is writable for as many elements as whole groups have.
pub unsafe fn pack_rows<E: Element>(rows: usize, k: usize, group: usize, a: View<E>, to: *mut f32) {
    for t in 0..k {
        for row in (0..rows).step_by(group) {
            let n = group.min(rows - row);
            let line = to.wrapping_add(row * k + t * group);
            // SAFETY: elements (row, t) to (row + n - 1, t) of A; a group holds `group` · k elements.
            unsafe {
                match a.row {
                    1 => E::widen_all(n, a.at(row, t), line),
                    _ => (0..n).for_each(|r| *line.add(r) = (*a.at(row + r, t)).widen()),
                }
            }
        }
    }
}

/// Copies rows × k elements of an A with contiguous rows: element (r, t) at `r · k + t`.
///
/// # Safety
/// A is readable there, `to` is writable for rows · k elements.
pub unsafe fn widen_rows<E: Element>(rows: usize, k: usize, a: View<E>, to: *mut f32) {
    for r in 0..rows {
        // SAFETY: k elements of row r, and of its copy.
        unsafe { E::widen_all(k, a.at(r, 0), to.wrapping_add(r * k)) };
    }
}
