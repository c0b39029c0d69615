//! Runs a plan: every thread walks the same list of launches, computes its fixed share of each, and meets the others.
//!
//! At load everything is resolved to addresses and byte strides in flat arrays ([`resolve`]), so that the loop here looks
//! nothing up and allocates nothing. The manifest was checked before (`artifact::check`), which is what makes it safe.
use super::code::KernelFn;
use super::gemm::{self, Bf16, Isa, Operand, Product, View};
use super::pool::Member;
use crate::artifact::{MAX_DIMS, MAX_OPERANDS};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

mod resolve;
mod routed;
pub use resolve::resolve;

/// A plan, ready to run.
pub struct Exec {
    isa: Isa,
    steps: Vec<Step>,
    launches: Vec<Launch>,
    stages: Vec<Stage>,
    pointers: Vec<Pointer>,
    /// Bytes for each grid dimension, of all pointers.
    strides: Vec<i64>,
}

// SAFETY: the addresses in it are of regions and text that the model owns beside it and that are Send and Sync; what
// happens to the memory behind them is the contract of `run`.
unsafe impl Send for Exec {}
// SAFETY: as above; nothing in it changes.
unsafe impl Sync for Exec {}

struct Step {
    launches: Range<usize>,
    times: u32,
}

struct Launch {
    dims: [u32; MAX_DIMS],
    rank: usize,
    units: u64,
    stages: Range<usize>,
    /// The launch is one kernel whose pointers do not move: each thread calls it once.
    whole: bool,
    /// Threads must meet before it. Not so between two launches of one unit, which the same thread computes.
    meet: bool,
}

enum Stage {
    Kernel { code: KernelFn, pointers: Range<usize>, span: Span },
    Gemm(Gemm),
    Group(routed::Group),
    Routed(Box<routed::Routed>),
}

/// `lolm_ir::plan::Span` with its divisions done: the grid is cut into rows of `row` units.
#[derive(Clone, Copy)]
enum Span {
    Same,
    Tiles { row: u64, len: u64, tile: u64 },
    Rows { len: u64, lo: u64, hi: u64 },
}

/// An address that moves with the unit, the iteration and the kernel's first unit; all in bytes.
struct Pointer {
    base: Base,
    strides: Range<usize>,
    iter: i64,
    rebase: i64,
}

#[derive(Clone, Copy)]
enum Base {
    Fixed(*mut u8),
    /// An offset into the thread's scratch memory; before its start where a plan's base says so.
    Scratch(i64),
}

struct Gemm {
    extents: [Extent; 3],
    matrices: [Matrix; 3],
    alpha: f32,
    accumulate: bool,
}

struct Matrix {
    pointer: usize,
    row: isize,
    col: isize,
    /// Stored as bf16, or else as f32.
    half: bool,
}

enum Extent {
    Fixed(u32),
    Tile { dim: usize, tile: u32, len: u32 },
    Seen { len: u32, position: usize },
}

/// Memory of one thread: scratch for the plan's tiles and a workspace for matrix products, each aligned to 64 bytes.
#[derive(Clone, Copy)]
pub struct Worker {
    pub scratch: *mut u8,
    pub workspace: *mut f32,
}

// SAFETY: an address; who may use the memory behind it is the contract of `Exec::run`.
unsafe impl Send for Worker {}
// SAFETY: as above.
unsafe impl Sync for Worker {}

/// Nanoseconds of each launch, summed over runs, in the order of the plan.
pub struct Times(pub Vec<AtomicU64>);

/// Where a thread stands: the iteration and the unit's index along each grid dimension.
struct Place {
    iteration: i64,
    index: [u32; MAX_DIMS],
}

impl Exec {
    /// Launches of the plan, those of loops counted once.
    pub fn launches(&self) -> usize {
        self.launches.len()
    }

    /// Runs the plan as one member of a team, all of which must do so.
    ///
    /// # Safety
    /// The manifest was checked; the addresses given to [`resolve`] are still valid and nothing else uses the memory
    /// behind them during the call; `worker` is this member's own, of the sizes that the plan and `gemm` ask for.
    pub unsafe fn run(&self, me: &Member, worker: Worker, times: Option<&Times>) {
        let mut operands = [std::ptr::null_mut(); MAX_OPERANDS];
        for step in &self.steps {
            for iteration in 0..step.times {
                for (i, l) in step.launches.clone().zip(&self.launches[step.launches.clone()]) {
                    if l.meet || times.is_some() {
                        me.meet();
                    }
                    let start = times.filter(|_| me.index == 0).map(|t| (t, Instant::now()));
                    // SAFETY: the caller's promises.
                    unsafe { self.launch(l, iteration as i64, me, worker, &mut operands) };
                    if times.is_some() {
                        me.meet();
                    }
                    if let Some((t, start)) = start {
                        t.0[i].fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
                    }
                }
            }
        }
    }

    unsafe fn launch(&self, l: &Launch, iteration: i64, me: &Member, w: Worker, ops: &mut [*mut u8; MAX_OPERANDS]) {
        let (begin, end) = me.share(l.units);
        if begin == end {
            return;
        }
        let mut at = Place { iteration, index: [0; MAX_DIMS] };
        if l.whole {
            // SAFETY: the caller's promises; the kernel's own units.
            return unsafe { self.kernel(l, &self.stages[l.stages.start], begin..end, &at, w, ops) };
        }
        unravel(begin, &l.dims[..l.rank], &mut at.index);
        for unit in begin..end {
            for stage in &self.stages[l.stages.clone()] {
                // SAFETY: the caller's promises; a unit of this member's share.
                unsafe {
                    match stage {
                        Stage::Kernel { .. } => self.kernel(l, stage, unit..unit + 1, &at, w, ops),
                        Stage::Gemm(g) => self.gemm(g, &at, w),
                        Stage::Group(g) => self.group(g, &at, w),
                        Stage::Routed(r) => self.routed(r, &at, w),
                    }
                }
            }
            advance(&l.dims[..l.rank], &mut at.index);
        }
    }

    unsafe fn kernel(&self, l: &Launch, s: &Stage, units: Range<u64>, at: &Place, w: Worker, ops: &mut [*mut u8]) {
        let Stage::Kernel { code, pointers, span } = s else { return };
        let (begin, end) = match *span {
            Span::Same => (units.start, units.end),
            Span::Tiles { row, len, tile } => {
                let (outer, i) = (units.start / row, units.start % row);
                (outer * len + i * tile, outer * len + len.min((i + 1) * tile))
            }
            Span::Rows { len, lo, hi } => (units.start * len + lo, units.start * len + hi),
        };
        debug_assert!(l.units >= units.end);
        for (to, p) in ops.iter_mut().zip(&self.pointers[pointers.clone()]) {
            *to = self.pointer(p, at, w).wrapping_offset((-p.rebase * begin as i64) as isize);
        }
        // SAFETY: the code is a kernel with this many operands, each in bounds for these units.
        unsafe { code(ops.as_ptr(), begin as i64, end as i64) }
    }

    unsafe fn gemm(&self, g: &Gemm, at: &Place, w: Worker) {
        // SAFETY: the position is an i32 of a buffer that was checked.
        let [m, n, k] = [0, 1, 2].map(|i| unsafe { self.extent(&g.extents[i], at, w) });
        let [a, b] = [0, 1].map(|i| self.operand(&g.matrices[i], at, w));
        let c = self.view(&g.matrices[2], at, w);
        let p = Product { m, n, k, a, b, c, alpha: g.alpha, accumulate: g.accumulate };
        // SAFETY: the matrices were checked to lie in their buffers for all units; the workspace is this thread's.
        unsafe { gemm::multiply(self.isa, &p, w.workspace) }
    }

    fn view<E>(&self, x: &Matrix, at: &Place, w: Worker) -> View<E> {
        View { ptr: self.pointer(&self.pointers[x.pointer], at, w).cast(), row: x.row, col: x.col }
    }

    fn operand(&self, x: &Matrix, at: &Place, w: Worker) -> Operand {
        match x.half {
            true => self.view::<Bf16>(x, at, w).into(),
            false => self.view::<f32>(x, at, w).into(),
        }
    }

    fn pointer(&self, p: &Pointer, at: &Place, w: Worker) -> *mut u8 {
        let moved: i64 = self.strides[p.strides.clone()].iter().zip(&at.index).map(|(s, i)| s * *i as i64).sum();
        let (base, offset) = match p.base {
            Base::Fixed(base) => (base, 0),
            Base::Scratch(offset) => (w.scratch, offset),
        };
        base.wrapping_offset((offset + moved + p.iter * at.iteration) as isize)
    }

    unsafe fn extent(&self, e: &Extent, at: &Place, w: Worker) -> usize {
        match *e {
            Extent::Fixed(n) => n as usize,
            Extent::Tile { dim, tile, len } => {
                (len as u64).saturating_sub(at.index[dim] as u64 * tile as u64).min(tile as u64) as usize
            }
            Extent::Seen { len, position } => {
                // SAFETY: the caller's word.
                let position = unsafe { *self.pointer(&self.pointers[position], at, w).cast::<i32>() };
                (position as i64 + 1).clamp(0, len as i64) as usize
            }
        }
    }
}

/// The index of a unit along each dimension, row-major.
fn unravel(mut unit: u64, dims: &[u32], index: &mut [u32; MAX_DIMS]) {
    for (i, d) in index.iter_mut().zip(dims).take(dims.len()).rev() {
        *i = (unit % *d as u64) as u32;
        unit /= *d as u64;
    }
}

/// The next unit.
fn advance(dims: &[u32], index: &mut [u32; MAX_DIMS]) {
    for (i, d) in index.iter_mut().zip(dims).rev() {
        *i += 1;
        if *i < *d {
            return;
        }
        *i = 0;
    }
}
