//! Matrix products: C = alpha · A · B, or C += alpha · A · B, with any strides: A and B in f32 or bf16, sums and C in f32,
//! one order of summation for all.
//!
//! The order is this, and depends on nothing but k: the terms are cut in blocks of [`BLOCK`] from the start; each block is
//! a chain of fused multiply-adds from zero in ascending order; blocks are added in ascending order, `c = fma(alpha, block,
//! c)`, the first one as `alpha · block` unless C accumulates. So an element has the same bits whatever tile, batch,
//! thread or instruction set computed it, and a longer k whose further terms are zero changes nothing: prefill, decode and
//! a causal attention cut in any tiles agree exactly. A bf16 is an f32 with 16 zero bits below, so where it is widened
//! changes nothing either.
//!
//! Panels of B are packed to the width of a tile; A is read in place where its rows are contiguous f32, and packed
//! otherwise. Up to [`FEW_ROWS`] rows, a B with contiguous rows or columns is read in place too.
mod avx2;
mod avx512;
mod nest;
mod pack;
mod portable;

/// Terms of a sum that form one chain.
pub const BLOCK: usize = 256;
/// Rows of A that are packed together where A must be packed.
const ROW_BLOCK: usize = 192;
/// Columns of B that are packed together.
const COLUMN_BLOCK: usize = 512;
/// Up to this many rows, the time goes into reading B.
const FEW_ROWS: usize = 16;
/// Columns of a panel that is packed for few rows, and of a tile that is streamed.
const NARROW: usize = 16;
/// f32 elements that [`multiply`] needs to work in.
pub const WORKSPACE: usize = BLOCK * (ROW_BLOCK + COLUMN_BLOCK);

/// The upper half of an f32.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Bf16(pub u16);

/// What the elements of an operand are stored as.
trait Element: Copy + Vectors {
    fn widen(self) -> f32;

    /// Widens n elements that lie side by side.
    ///
    /// # Safety
    /// `from` is readable and `to` writable for n elements; they do not overlap.
    unsafe fn widen_all(n: usize, from: *const Self, to: *mut f32) {
        for i in 0..n {
            // SAFETY: the caller's elements.
            unsafe { *to.add(i) = (*from.add(i)).widen() };
        }
    }
}
impl Element for f32 {
    fn widen(self) -> f32 {
        self
    }
    unsafe fn widen_all(n: usize, from: *const f32, to: *mut f32) {
        // SAFETY: the caller's elements.
        unsafe { std::ptr::copy_nonoverlapping(from, to, n) };
    }
}
impl Element for Bf16 {
    fn widen(self) -> f32 {
        f32::from_bits((self.0 as u32) << 16)
    }
}

/// Elements that every instruction set of this CPU family can load as vectors of f32.
#[cfg(target_arch = "x86_64")]
trait Vectors: avx512::Load + avx2::Load {}
#[cfg(target_arch = "x86_64")]
impl<E: avx512::Load + avx2::Load> Vectors for E {}
#[cfg(not(target_arch = "x86_64"))]
trait Vectors {}
#[cfg(not(target_arch = "x86_64"))]
impl<E> Vectors for E {}

/// A matrix in memory: element (r, c) at `ptr + r·row + c·col`, in elements.
#[derive(Clone, Copy, Debug)]
pub struct View<E = f32> {
    pub ptr: *mut E,
    pub row: isize,
    pub col: isize,
}

impl<E: Copy> View<E> {
    fn at(self, r: usize, c: usize) -> *mut E {
        self.ptr
            .wrapping_offset((r as isize).wrapping_mul(self.row))
            .wrapping_offset((c as isize).wrapping_mul(self.col))
    }
    fn from(self, r: usize, c: usize) -> Self {
        View { ptr: self.at(r, c), ..self }
    }
    fn transposed(self) -> Self {
        View { ptr: self.ptr, row: self.col, col: self.row }
    }
}

/// A matrix that is read.
#[derive(Clone, Copy, Debug)]
pub enum Operand {
    F32(View),
    Bf16(View<Bf16>),
}

impl From<View> for Operand {
    fn from(v: View) -> Self {
        Operand::F32(v)
    }
}
impl From<View<Bf16>> for Operand {
    fn from(v: View<Bf16>) -> Self {
        Operand::Bf16(v)
    }
}

impl Operand {
    fn transposed(self) -> Self {
        match self {
            Operand::F32(v) => Operand::F32(v.transposed()),
            Operand::Bf16(v) => Operand::Bf16(v.transposed()),
        }
    }
}

/// One product: A is m×k, B is k×n, C is m×n.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: Operand,
    pub b: Operand,
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
            if ["avx512f", "avx512bw", "avx512vl"].into_iter().all(has) {
                all.push(Isa::Avx512);
            }
            if ["avx2", "fma"].into_iter().all(has) {
                all.push(Isa::Avx2);
            }
        }
        all.push(Isa::Portable);
        all
    }
}

#[cfg(target_arch = "x86_64")]
fn has(feature: &str) -> bool {
    match feature {
        "avx512f" => is_x86_feature_detected!("avx512f"),
        "avx512bw" => is_x86_feature_detected!("avx512bw"),
        "avx512vl" => is_x86_feature_detected!("avx512vl"),
        "avx2" => is_x86_feature_detected!("avx2"),
        "fma" => is_x86_feature_detected!("fma"),
        _ => false,
    }
}

/// How a tile of C is written.
#[derive(Clone, Copy)]
struct Write {
    alpha: f32,
    /// Add to what C holds.
    add: bool,
}

/// A tile of C over one block of k. Its number of rows is known where it is computed.
#[derive(Clone, Copy)]
struct Tile<E> {
    cols: usize,
    k: usize,
    a: View,
    b: View<E>,
    c: *mut f32,
    /// Elements from a row of C to the next; its columns are contiguous.
    c_row: isize,
    w: Write,
}

/// One instruction set's tiles and packing, for every number of rows and vectors.
trait Kernel {
    /// f32 elements of a vector.
    const LANES: usize;
    /// A tile has at most this many rows and vectors.
    const ROWS: usize;
    const VECTORS: usize;
    const COLS: usize = Self::LANES * Self::VECTORS;
    /// Rows that `stream` takes.
    const STREAM_ROWS: usize;

    /// A tile of M rows and V vectors, from a B whose rows are contiguous.
    ///
    /// # Safety
    /// The CPU has the instructions. A is readable at M × k, C at M × cols; B's rows are readable for V vectors.
    unsafe fn tile<E: Element, const M: usize, const V: usize>(t: Tile<E>);

    /// A tile of M rows and at most [`NARROW`] columns, exactly as many if WHOLE, from a B whose columns are contiguous.
    ///
    /// # Safety
    /// As for `tile`, but that B's columns are readable exactly.
    unsafe fn stream<E: Element, const M: usize, const WHOLE: bool>(t: Tile<E>);

    /// `to[t · width + j] = b[t, j]` for t < k, j < cols, and 0 for the other j < width, a multiple of 16, where B's
    /// columns are contiguous.
    ///
    /// # Safety
    /// The CPU has the instructions. B is readable there, `to` is writable for k · width elements.
    unsafe fn pack_transposed<E: Element>(k: usize, cols: usize, width: usize, b: View<E>, to: *mut f32);
}

/// Evaluates an expression with a number as a constant, which is what loops over registers are unrolled by.
macro_rules! as_constant {
    ($n:expr, [$($value:literal)+], $name:ident => $body:expr) => {
        match $n {
            $($value => { const $name: usize = $value; $body })+
            n => panic!("bug: no kernel for {n} rows or vectors"),
        }
    };
}

/// A tile of up to ROWS rows and VECTORS vectors.
///
/// # Safety
/// As for [`Kernel::tile`].
unsafe fn tile<K: Kernel, E: Element>(rows: usize, t: Tile<E>) {
    as_constant!(rows, [1 2 3 4 5 6], M => as_constant!(t.cols.div_ceil(K::LANES), [1 2 3 4], V => {
        // SAFETY: the caller's promises.
        unsafe { K::tile::<E, M, V>(t) }
    }))
}

/// A streamed tile of up to STREAM_ROWS rows.
///
/// # Safety
/// As for [`Kernel::stream`].
unsafe fn stream<K: Kernel, E: Element>(rows: usize, t: Tile<E>) {
    as_constant!(rows, [1 2 3 4 5 6 7 8], M => {
        // SAFETY: the caller's promises.
        unsafe {
            match t.cols == NARROW {
                true => K::stream::<E, M, true>(t),
                false => K::stream::<E, M, false>(t),
            }
        }
    })
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
            Isa::Avx512 => nest::product::<avx512::Avx512>(p, work),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => nest::product::<avx2::Avx2>(p, work),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx512 | Isa::Avx2 => nest::product::<portable::Portable>(p, work),
            Isa::Portable => nest::product::<portable::Portable>(p, work),
        }
    }
}

#[cfg(test)]
mod tests;
