//! The loops around the tiles: how a product is cut, and which of its operands are packed.
use super::pack::{pack_panel, pack_rows, widen_rows};
use super::{
    BLOCK, COLUMN_BLOCK, Element, FEW_ROWS, Kernel, NARROW, Operand, Product, ROW_BLOCK, Tile, View, Write, stream,
};

/// Lanes run along the columns of C, so a C that is contiguous the other way is computed transposed: a·b = b·a, the bits
/// do not change.
///
/// # Safety
/// As for [`super::multiply`].
pub unsafe fn product<K: Kernel>(p: &Product, work: *mut f32) {
    let flip = (p.c.col != 1 && p.c.row == 1) || (p.n == 1 && p.m > 1);
    let q = match flip {
        false => *p,
        true => Product { m: p.n, n: p.m, a: p.b.transposed(), b: p.a.transposed(), c: p.c.transposed(), ..*p },
    };
    if q.m == 0 || q.n == 0 {
        return;
    }
    // SAFETY: the transposed problem touches the same elements.
    unsafe {
        match q.b {
            _ if q.k == 0 => clear(&q),
            Operand::F32(b) => of_rows::<K, f32>(&q, b, work),
            Operand::Bf16(b) => of_rows::<K, super::Bf16>(&q, b, work),
        }
    }
}

unsafe fn of_rows<K: Kernel, E: Element>(p: &Product, b: View<E>, work: *mut f32) {
    // SAFETY: the caller's problem.
    unsafe {
        match p.a {
            Operand::F32(a) if p.m <= FEW_ROWS => few_rows::<K, E>(p, a, b, work),
            Operand::F32(_) | Operand::Bf16(_) => packed::<K, E>(p, b, work),
        }
    }
}

/// An empty sum is 0.
unsafe fn clear(p: &Product) {
    if p.accumulate {
        return;
    }
    for r in 0..p.m {
        for c in 0..p.n {
            // SAFETY: an element of C.
            unsafe { *p.c.at(r, c) = 0.0 };
        }
    }
}

/// Few rows: B is read once, in the order of its memory, so that the prefetcher keeps up. Panels whose columns are
/// contiguous, as weights are, go through registers; panels whose rows are contiguous are read where they lie; others, and
/// those of broken vectors, are packed into a narrow panel that stays in the cache.
unsafe fn few_rows<K: Kernel, E: Element>(p: &Product, a: View, b: View<E>, work: *mut f32) {
    let (in_place, streamed) = (b.col == 1, b.row == 1 && p.c.col == 1 && p.m <= 2 * K::STREAM_ROWS);
    let width = if in_place { K::COLS } else { NARROW };
    let group = if streamed { p.m.div_ceil(p.m.div_ceil(K::STREAM_ROWS)) } else { K::ROWS };
    for col in (0..p.n).step_by(width) {
        let cols = width.min(p.n - col);
        for from in (0..p.k).step_by(BLOCK) {
            let k = BLOCK.min(p.k - from);
            let b = b.from(from, col);
            let packed = !(streamed || in_place && cols.is_multiple_of(NARROW));
            let width = cols.next_multiple_of(NARROW);
            if packed {
                // SAFETY: the panel lies within B, the workspace holds a panel.
                unsafe { pack_panel::<K, E>(k, cols, width, b, work) };
            }
            for row in (0..p.m).step_by(group) {
                let rows = group.min(p.m - row);
                let w = Write { alpha: p.alpha, add: p.accumulate || from > 0 };
                let (a, c) = (a.from(row, from), p.c.from(row, col));
                // SAFETY: the tile lies within the product; a packed panel has whole vectors.
                unsafe {
                    if streamed {
                        stream::<K, E>(rows, Tile { cols, k, a, b, c: c.ptr, c_row: c.row, w });
                    } else if packed {
                        let b = View { ptr: work, row: width as isize, col: 1 };
                        tile::<K, f32>(rows, cols, k, a, b, c, w);
                    } else {
                        tile::<K, E>(rows, cols, k, a, b, c, w);
                    }
                }
            }
        }
    }
}

/// The usual nest: column blocks, blocks of k, row blocks, panels, tiles. B is packed when the first row block meets it.
unsafe fn packed<K: Kernel, E: Element>(p: &Product, b: View<E>, work: *mut f32) {
    let b_work = work.wrapping_add(BLOCK * ROW_BLOCK);
    for col0 in (0..p.n).step_by(COLUMN_BLOCK) {
        let width = COLUMN_BLOCK.min(p.n - col0);
        for from in (0..p.k).step_by(BLOCK) {
            let k = BLOCK.min(p.k - from);
            let w = Write { alpha: p.alpha, add: p.accumulate || from > 0 };
            for row0 in (0..p.m).step_by(ROW_BLOCK) {
                let height = ROW_BLOCK.min(p.m - row0);
                // SAFETY: the block lies within A, the workspace holds ROW_BLOCK rows of BLOCK elements.
                let a = unsafe { rows_of::<K>(p.a, (row0, from), (height, k), width > K::COLS, work) };
                for (panel, col) in (0..width).step_by(K::COLS).enumerate() {
                    let cols = K::COLS.min(width - col);
                    let to = b_work.wrapping_add(panel * BLOCK * K::COLS);
                    if row0 == 0 {
                        // SAFETY: the panel lies within B, the workspace holds COLUMN_BLOCK / COLS panels.
                        unsafe { pack_panel::<K, E>(k, cols, K::COLS, b.from(from, col0 + col), to) };
                    }
                    let b = View { ptr: to, row: K::COLS as isize, col: 1 };
                    for row in (0..height).step_by(K::ROWS) {
                        let (rows, c) = (K::ROWS.min(height - row), p.c.from(row0 + row, col0 + col));
                        // SAFETY: the tile lies within the product; the packed panel is COLS wide, zeros included.
                        unsafe { tile::<K, f32>(rows, cols, k, a.group(row), b, c, w) };
                    }
                }
            }
        }
    }
}

/// Rows of A as tiles read them.
enum Rows {
    InPlace(View),
    /// Groups of ROWS rows, each of this many elements and an element a row beside the next.
    Packed {
        ptr: *mut f32,
        k: usize,
        group: usize,
    },
}

impl Rows {
    /// The tile's rows from this one on, which begins a group.
    fn group(&self, row: usize) -> View {
        match *self {
            Rows::InPlace(a) => a.from(row, 0),
            Rows::Packed { ptr, k, group } => View { ptr: ptr.wrapping_add(row * k), row: 1, col: group as isize },
        }
    }
}

/// A block of A, packed where its rows are not contiguous f32; rows of f32 that few columns use are read as they are.
unsafe fn rows_of<K: Kernel>(
    a: Operand,
    (row, from): (usize, usize),
    (rows, k): (usize, usize),
    many: bool,
    work: *mut f32,
) -> Rows {
    let packed = Rows::Packed { ptr: work, k, group: K::ROWS };
    // SAFETY: the caller's block and workspace.
    unsafe {
        match a {
            Operand::F32(a) if a.col == 1 || !many => return Rows::InPlace(a.from(row, from)),
            Operand::F32(a) => pack_rows(rows, k, K::ROWS, a.from(row, from), work),
            Operand::Bf16(a) if a.col == 1 => {
                widen_rows(rows, k, a.from(row, from), work);
                return Rows::InPlace(View { ptr: work, row: k as isize, col: 1 });
            }
            Operand::Bf16(a) => pack_rows(rows, k, K::ROWS, a.from(row, from), work),
        }
    }
    packed
}

/// A tile, through a buffer where C's columns are not contiguous.
unsafe fn tile<K: Kernel, E: Element>(rows: usize, cols: usize, k: usize, a: View, b: View<E>, c: View, w: Write) {
    if c.col == 1 {
        // SAFETY: the caller's tile.
        return unsafe { super::tile::<K, E>(rows, Tile { cols, k, a, b, c: c.ptr, c_row: c.row, w }) };
    }
    #[repr(align(64))]
    struct Buffer([f32; 6 * 64]);
    let mut t = Buffer([0.0; 6 * 64]);
    let w0 = Write { alpha: 1.0, add: false };
    // SAFETY: a tile of at most 6 rows of 64 columns; then elements of C.
    unsafe {
        super::tile::<K, E>(rows, Tile { cols, k, a, b, c: t.0.as_mut_ptr(), c_row: 64, w: w0 });
        for (r, line) in t.0.chunks_exact(64).take(rows).enumerate() {
            for (j, sum) in line.iter().take(cols).enumerate() {
                let to = c.at(r, j);
                *to = if w.add { sum.mul_add(w.alpha, *to) } else { w.alpha * sum };
            }
        }
    }
}
