//! Matrix products: C = alpha · A · B, or C += alpha · A · B, in f32 with any strides, one order of summation for all.
//!
//! The order is this, and depends on nothing but k: the terms are cut in blocks of [`BLOCK`] from the start; each block is
//! a chain of fused multiply-adds from zero in ascending order; blocks are added in ascending order, `c = fma(alpha, block,
//! c)`, the first one as `alpha · block` unless C accumulates. So an element has the same bits whatever tile, batch,
//! thread or instruction set computed it, and a longer k whose further terms are zero changes nothing: prefill, decode and
//! a causal attention cut in any tiles agree exactly.
//!
//! Panels of B are packed to the width of a tile; A is read in place where its rows are contiguous, and packed
//! otherwise. Up to [`FEW_ROWS`] rows, a B with contiguous rows is read in place too.
mod avx2;
mod avx512;
mod portable;

/// Terms of a sum that form one chain.
pub const BLOCK: usize = 256;
/// Rows of A that are packed together where A must be packed.
const ROW_BLOCK: usize = 192;
/// Columns of B that are packed together.
const COLUMN_BLOCK: usize = 512;
/// Up to this many rows, the time goes into reading B.
const FEW_ROWS: usize = 16;
/// f32 elements that [`multiply`] needs to work in.
pub const WORKSPACE: usize = BLOCK * (ROW_BLOCK + COLUMN_BLOCK);

/// A matrix in memory: element (r, c) at `ptr + r·row + c·col`, in elements.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub ptr: *mut f32,
    pub row: isize,
    pub col: isize,
}

impl View {
    fn at(self, r: usize, c: usize) -> *mut f32 {
        self.ptr
            .wrapping_offset((r as isize).wrapping_mul(self.row))
            .wrapping_offset((c as isize).wrapping_mul(self.col))
    }
    fn from(self, r: usize, c: usize) -> View {
        View { ptr: self.at(r, c), ..self }
    }
    fn transposed(self) -> View {
        View { ptr: self.ptr, row: self.col, col: self.row }
    }
}

/// One product: A is m×k, B is k×n, C is m×n.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: View,
    pub b: View,
    pub c: View,
    pub alpha: f32,
    pub accumulate: bool,
}

/// The instruction sets that have a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Isa {
    Avx512,
    Avx2,
    Portable,
}

impl Isa {
    /// The best one that this CPU has.
    pub fn detect() -> Isa {
        Isa::available().first().copied().unwrap_or(Isa::Portable)
    }

    /// Those that this CPU has, best first.
    pub fn available() -> Vec<Isa> {
        let mut all = vec![];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                all.push(Isa::Avx512);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.push(Isa::Avx2);
            }
        }
        all.push(Isa::Portable);
        all
    }
}

/// How a tile of C is written.
#[derive(Clone, Copy)]
struct Write {
    alpha: f32,
    /// Add to what C holds.
    add: bool,
}

/// One instruction set's tile and packing. A tile is `rows` ≤ ROWS by `cols` ≤ COLS elements of C.
trait Kernel {
    const ROWS: usize;
    const COLS: usize;
    /// Columns of a panel that is packed for few rows: at most COLS, a multiple of 16.
    const NARROW: usize;
    /// Rows that `stream` takes.
    const STREAM_ROWS: usize;

    /// C tile (rows of `c_row` elements, contiguous columns) from A at `a` and B's rows at `b`, `b_row` apart.
    ///
    /// # Safety
    /// `a` is readable at rows × k, C at rows × cols; B's rows are readable to the next multiple of 16 columns.
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
    );

    /// As `tile`, of at most STREAM_ROWS rows and NARROW columns, from a B whose columns are contiguous and `col` apart.
    ///
    /// # Safety
    /// As for `tile`; B's columns are readable exactly.
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
    );

    /// `to[t · width + j] = from[j · col + t]` for t < k, j < cols, and 0 for the other j < width, a multiple of 16.
    ///
    /// # Safety
    /// `from` is readable there, `to` is writable for k · width elements.
    unsafe fn pack_transposed(k: usize, cols: usize, width: usize, from: *const f32, col: isize, to: *mut f32);
}

/// Computes one product.
///
/// # Safety
/// A is readable, C readable and writable at every element named by the extents, C's elements are distinct and overlap
/// neither A nor B; `work` is [`WORKSPACE`] elements of this thread's own, aligned to 64 bytes; `isa` is one of
/// [`Isa::available`].
pub unsafe fn multiply(isa: Isa, p: &Product, work: *mut f32) {
    // SAFETY: the caller's promises are those of `product`, and `isa` is present on this CPU.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => product::<avx512::Avx512>(p, work),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => product::<avx2::Avx2>(p, work),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx512 | Isa::Avx2 => product::<portable::Portable>(p, work),
            Isa::Portable => product::<portable::Portable>(p, work),
        }
    }
}

/// Lanes run along the columns of C, so a C that is contiguous the other way is computed transposed: a·b = b·a, the bits
/// do not change.
unsafe fn product<K: Kernel>(p: &Product, work: *mut f32) {
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
        if q.k == 0 {
            clear(&q);
        } else if q.m <= FEW_ROWS {
            few_rows::<K>(&q, work);
        } else {
            packed::<K>(&q, work);
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
unsafe fn few_rows<K: Kernel>(p: &Product, work: *mut f32) {
    let (in_place, stream) = (p.b.col == 1, p.b.row == 1 && p.c.col == 1 && p.m <= 2 * K::STREAM_ROWS);
    let width = if in_place { K::COLS } else { K::NARROW };
    let group = if stream { p.m.div_ceil(p.m.div_ceil(K::STREAM_ROWS)) } else { K::ROWS };
    for col in (0..p.n).step_by(width) {
        let cols = width.min(p.n - col);
        for from in (0..p.k).step_by(BLOCK) {
            let k = BLOCK.min(p.k - from);
            let (mut b, mut b_row) = (p.b.at(from, col).cast_const(), p.b.row);
            if !(stream || in_place && cols.is_multiple_of(16)) {
                let width = cols.next_multiple_of(16);
                // SAFETY: the panel lies within B, the workspace holds a panel.
                unsafe { pack_panel(k, cols, width, p.b.from(from, col), work, K::pack_transposed) };
                (b, b_row) = (work, width as isize);
            }
            for row in (0..p.m).step_by(group) {
                let rows = group.min(p.m - row);
                let write = Write { alpha: p.alpha, add: p.accumulate || from > 0 };
                let (a, c) = (p.a.from(row, from), p.c.from(row, col));
                // SAFETY: the tile lies within the product.
                unsafe {
                    match stream {
                        true => K::stream(rows, cols, k, a, b, p.b.col, c.ptr, c.row, write),
                        false => tile::<K>(rows, cols, k, a, b, b_row, c, write),
                    }
                }
            }
        }
    }
}

/// The usual nest: column blocks, blocks of k, row blocks, panels, tiles. B is packed when the first row block meets it.
unsafe fn packed<K: Kernel>(p: &Product, work: *mut f32) {
    let b_work = work.wrapping_add(BLOCK * ROW_BLOCK);
    for col0 in (0..p.n).step_by(COLUMN_BLOCK) {
        let width = COLUMN_BLOCK.min(p.n - col0);
        for from in (0..p.k).step_by(BLOCK) {
            let k = BLOCK.min(p.k - from);
            let write = Write { alpha: p.alpha, add: p.accumulate || from > 0 };
            for row0 in (0..p.m).step_by(ROW_BLOCK) {
                let height = ROW_BLOCK.min(p.m - row0);
                let pack_a = p.a.col != 1 && width > K::COLS;
                if pack_a {
                    // SAFETY: the block lies within A, the workspace holds ROW_BLOCK rows of BLOCK elements.
                    unsafe { pack_rows::<K>(height, k, p.a.from(row0, from), work) };
                }
                for (panel, col) in (0..width).step_by(K::COLS).enumerate() {
                    let cols = K::COLS.min(width - col);
                    let b = b_work.wrapping_add(panel * BLOCK * K::COLS);
                    if row0 == 0 {
                        // SAFETY: the panel lies within B, the workspace holds COLUMN_BLOCK / COLS panels.
                        unsafe { pack_panel(k, cols, K::COLS, p.b.from(from, col0 + col), b, K::pack_transposed) };
                    }
                    for row in (0..height).step_by(K::ROWS) {
                        let rows = K::ROWS.min(height - row);
                        let a = match pack_a {
                            true => View { ptr: work.wrapping_add(row * k), row: 1, col: K::ROWS as isize },
                            false => p.a.from(row0 + row, from),
                        };
                        let c = p.c.from(row0 + row, col0 + col);
                        // SAFETY: the tile lies within the product; the packed panel is COLS wide, zeros included.
                        unsafe { tile::<K>(rows, cols, k, a, b, K::COLS as isize, c, write) };
                    }
                }
            }
        }
    }
}

/// A tile, through a buffer where C's columns are not contiguous.
unsafe fn tile<K: Kernel>(rows: usize, cols: usize, k: usize, a: View, b: *const f32, b_row: isize, c: View, w: Write) {
    if c.col == 1 {
        // SAFETY: the caller's tile.
        return unsafe { K::tile(rows, cols, k, a, b, b_row, c.ptr, c.row, w) };
    }
    #[repr(align(64))]
    struct Tile([f32; 6 * 64]);
    let mut t = Tile([0.0; 6 * 64]);
    // SAFETY: a tile of at most 6 rows of 64 columns; then elements of C.
    unsafe {
        K::tile(rows, cols, k, a, b, b_row, t.0.as_mut_ptr(), 64, Write { alpha: 1.0, add: false });
        for (r, line) in t.0.chunks_exact(64).take(rows).enumerate() {
            for (j, sum) in line.iter().take(cols).enumerate() {
                let to = c.at(r, j);
                *to = if w.add { sum.mul_add(w.alpha, *to) } else { w.alpha * sum };
            }
        }
    }
}

/// `Kernel::pack_transposed`.
type Transpose = unsafe fn(usize, usize, usize, *const f32, isize, *mut f32);

/// Packs k × cols elements of B, padded with zero columns to `width`: element (t, j) at `t · width + j`.
unsafe fn pack_panel(k: usize, cols: usize, width: usize, b: View, to: *mut f32, transpose: Transpose) {
    if b.row == 1 && b.col != 1 {
        // SAFETY: the panel is within B and the workspace.
        return unsafe { transpose(k, cols, width, b.ptr, b.col, to) };
    }
    for t in 0..k {
        let line = to.wrapping_add(t * width);
        // SAFETY: row t of the panel, `width` elements of the workspace.
        unsafe {
            if b.col == 1 {
                std::ptr::copy_nonoverlapping(b.at(t, 0), line, cols);
            } else {
                (0..cols).for_each(|j| *line.add(j) = *b.at(t, j));
            }
            std::ptr::write_bytes(line.add(cols), 0, width - cols);
        }
    }
}

/// Packs rows × k elements of A in groups of ROWS rows: element (r, t) at `group · k + t · ROWS + r`. Where this is needed,
/// the rows of a column are neighbours, so columns are taken one after the other.
unsafe fn pack_rows<K: Kernel>(rows: usize, k: usize, a: View, to: *mut f32) {
    for t in 0..k {
        for row in (0..rows).step_by(K::ROWS) {
            let n = K::ROWS.min(rows - row);
            let line = to.wrapping_add(row * k + t * K::ROWS);
            // SAFETY: elements (row, t) to (row + n - 1, t) of A; a group holds ROWS · k elements.
            unsafe {
                match a.row {
                    1 if n == K::ROWS => std::ptr::copy_nonoverlapping(a.at(row, t), line, K::ROWS),
                    _ => (0..n).for_each(|r| *line.add(r) = *a.at(row + r, t)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
