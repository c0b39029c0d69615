//! The stages of a mixture of experts: rows grouped by expert, and products of the rows that each expert has.
//!
//! Rows are brought together in scratch memory, so that every product is one of plain matrices (`gemm`), whose sums have
//! one order whatever rows there are: a row's bits depend on the row and its expert alone.
use super::{Exec, Extent, Place, Worker};
use crate::cpu::gemm::{self, Bf16, Operand, Product, View};
use lolm_ir::plan::{Gives, ROUTED_COLUMNS};

pub(super) struct Group {
    pub rows: usize,
    pub experts: usize,
    /// Pointers to `i32`s.
    pub index: usize,
    pub order: usize,
    pub starts: usize,
}

pub(super) struct Routed {
    pub gives: Gives,
    pub rows: usize,
    pub experts: usize,
    pub order: usize,
    pub starts: usize,
    pub taken: Extent,
    pub depth: Extent,
    pub width: Extent,
    pub x: Rows,
    pub w: Matrices,
    pub y: Rows,
    pub block: usize,
    pub tiles: [usize; 2],
}

pub(super) struct Rows {
    pub pointer: usize,
    pub dims: Box<[(u32, i64)]>,
    pub col: isize,
}

#[derive(Clone, Copy)]
pub(super) struct Matrices {
    pub pointer: usize,
    pub expert: isize,
    pub row: isize,
    pub col: isize,
    /// Stored as bf16, or else as f32.
    pub half: bool,
}

/// The rows of a tensor in memory.
#[derive(Clone, Copy)]
struct Lines<'a> {
    ptr: *mut f32,
    dims: &'a [(u32, i64)],
    col: isize,
}

impl Lines<'_> {
    fn row(&self, mut r: usize) -> *mut f32 {
        let mut at = 0;
        for (len, stride) in self.dims.iter().rev() {
            at += (r % *len as usize) as isize * *stride as isize;
            r /= *len as usize;
        }
        self.ptr.wrapping_offset(at)
    }
}

/// The grouped rows of one unit.
struct Grouping {
    order: *const i32,
    starts: *const i32,
    rows: usize,
    /// The positions that the unit takes.
    lo: usize,
    hi: usize,
}

impl Grouping {
    /// The row at a position. Whatever stands in memory, it is one of the rows.
    unsafe fn row(&self, position: usize) -> usize {
        // SAFETY: a position below `rows`, which is the length of the buffer.
        let r = unsafe { *self.order.add(position) };
        (r.max(0) as usize).min(self.rows - 1)
    }
    /// Where the rows of an expert begin, within what is taken.
    unsafe fn start(&self, expert: usize) -> usize {
        // SAFETY: at most the number of experts, and the buffer is one longer.
        let s = unsafe { *self.starts.add(expert) };
        (s.max(0) as usize).clamp(self.lo, self.hi)
    }
}

impl Exec {
    /// A stable counting sort, by one thread.
    ///
    /// # Safety
    /// As for `run`; the buffers are of the lengths that the stage says.
    pub(super) unsafe fn group(&self, g: &Group, at: &Place, w: Worker) {
        let pointer = |i: usize| self.pointer(&self.pointers[i], at, w).cast::<i32>();
        let (index, order, starts) = (pointer(g.index).cast_const(), pointer(g.order), pointer(g.starts));
        // Rows outside are those of one more expert, which has no matrix.
        // SAFETY: `r` is below the number of rows.
        let expert = |r: usize| unsafe { usize::try_from(*index.add(r)).unwrap_or(g.experts).min(g.experts) };
        // SAFETY: positions of `starts` are at most `experts`, those of `order` below `rows`: they count rows.
        unsafe {
            (0..=g.experts).for_each(|e| *starts.add(e) = 0);
            (0..g.rows).map(expert).filter(|e| *e < g.experts).for_each(|e| *starts.add(e + 1) += 1);
            (0..g.experts).for_each(|e| *starts.add(e + 1) += *starts.add(e));
            // Each start moves on as its rows are placed, up to the start of the next expert.
            for r in 0..g.rows {
                let next = starts.add(expert(r));
                *order.add((*next as usize).min(g.rows - 1)) = r as i32;
                *next += 1;
            }
            (1..=g.experts).rev().for_each(|e| *starts.add(e) = *starts.add(e - 1));
            *starts = 0;
        }
    }

    /// # Safety
    /// As for `run`; the stage was checked.
    pub(super) unsafe fn routed(&self, r: &Routed, at: &Place, w: Worker) {
        // SAFETY: the extents of this stage are not read from memory.
        let [taken, depth, width] = [&r.taken, &r.depth, &r.width].map(|e| unsafe { self.extent(e, at, w) });
        let lo = match r.taken {
            Extent::Tile { dim, tile, .. } => (at.index[dim] as usize * tile as usize).min(r.rows),
            Extent::Fixed(_) | Extent::Seen { .. } => 0,
        };
        let pointer = |i: usize| self.pointer(&self.pointers[i], at, w);
        let lines = |x: &'_ Rows| (pointer(x.pointer).cast::<f32>(), x.col);
        let g = Grouping {
            order: pointer(r.order).cast::<i32>().cast_const(),
            starts: pointer(r.starts).cast::<i32>().cast_const(),
            rows: r.rows,
            lo,
            hi: (lo + taken).min(r.rows),
        };
        let [(xp, xc), (yp, yc)] = [lines(&r.x), lines(&r.y)];
        let job = Job {
            exec: self,
            g,
            x: Lines { ptr: xp, dims: &r.x.dims, col: xc },
            y: Lines { ptr: yp, dims: &r.y.dims, col: yc },
            w: (pointer(r.w.pointer), r.w),
            experts: r.experts,
            depth,
            width,
            block: r.block,
            tiles: r.tiles.map(|i| pointer(i).cast()),
            work: w.workspace,
        };
        // SAFETY: rows, columns and matrices of this unit lie in their buffers, blocks of rows in scratch memory.
        unsafe {
            match r.gives {
                Gives::Rows => job.rows(),
                Gives::Experts => job.sums(),
            }
        }
    }
}

/// A routed product of one unit.
struct Job<'a> {
    exec: &'a Exec,
    g: Grouping,
    x: Lines<'a>,
    y: Lines<'a>,
    /// The first matrix, and where the others are.
    w: (*mut u8, Matrices),
    experts: usize,
    depth: usize,
    width: usize,
    block: usize,
    tiles: [*mut f32; 2],
    work: *mut f32,
}

impl Job<'_> {
    /// The matrix of an expert from a column on.
    fn matrix<E>(&self, expert: usize, col: usize) -> View<E> {
        let (ptr, w) = self.w;
        let ptr = ptr.cast::<E>().wrapping_offset(w.expert * expert as isize + w.col * col as isize);
        View { ptr, row: w.row, col: w.col }
    }

    fn operand(&self, expert: usize, col: usize) -> Operand {
        match self.w.1.half {
            true => self.matrix::<Bf16>(expert, col).into(),
            false => self.matrix::<f32>(expert, col).into(),
        }
    }

    /// `y = x · w` for the rows taken. A row is computed by one product of its expert, with columns in ranges.
    unsafe fn rows(&self) {
        let [x_tile, y_tile] = self.tiles;
        for e in 0..self.experts {
            // SAFETY: experts, and one more, have a start.
            let (from, to) = unsafe { (self.g.start(e), self.g.start(e + 1)) };
            for first in (from..to).step_by(self.block) {
                let m = self.block.min(to - first);
                // SAFETY: the tile holds a block of rows.
                unsafe { self.bring(self.x, first, m, self.depth, x_tile) };
                for col in (0..self.width).step_by(ROUTED_COLUMNS as usize) {
                    let n = (ROUTED_COLUMNS as usize).min(self.width - col);
                    let (a, b) = (View { ptr: x_tile, row: self.depth as isize, col: 1 }, self.operand(e, col));
                    let c = View { ptr: y_tile, row: n as isize, col: 1 };
                    let p = Product { m, n, k: self.depth, a: a.into(), b, c, alpha: 1.0, accumulate: false };
                    // SAFETY: columns of one matrix, and tiles of this thread.
                    unsafe {
                        gemm::multiply(self.exec.isa, &p, self.work);
                        self.hand_out(first, m, col, n, y_tile);
                    }
                }
            }
        }
        // SAFETY: rows outside stand after those of the last expert.
        unsafe {
            for i in self.g.start(self.experts)..self.g.hi {
                let to = self.y.row(self.g.row(i));
                (0..self.width).for_each(|c| *to.wrapping_offset(c as isize * self.y.col) = 0.0);
            }
        }
    }

    /// `w = xᵀ · y`, expert by expert, from blocks of rows that add up in ascending order.
    unsafe fn sums(&self) {
        let [x_tile, y_tile] = self.tiles;
        let (m, n) = (self.depth, self.width);
        let a = View { ptr: x_tile, row: 1, col: m as isize }.into();
        let b = View { ptr: y_tile, row: n as isize, col: 1 }.into();
        for e in 0..self.experts {
            // SAFETY: experts, and one more, have a start.
            let (from, to) = unsafe { (self.g.start(e), self.g.start(e + 1)) };
            let mut p = Product { m, n, k: 0, a, b, c: self.matrix(e, 0), alpha: 1.0, accumulate: false };
            if from >= to {
                // SAFETY: a sum of no rows, which is 0 everywhere in the matrix.
                unsafe { gemm::multiply(self.exec.isa, &p, self.work) };
            }
            for first in (from..to).step_by(self.block) {
                p.k = self.block.min(to - first);
                p.accumulate = first > from;
                // SAFETY: the tiles hold a block of rows; the matrix lies in its buffer.
                unsafe {
                    self.bring(self.x, first, p.k, m, x_tile);
                    self.bring(self.y, first, p.k, n, y_tile);
                    gemm::multiply(self.exec.isa, &p, self.work);
                }
            }
        }
    }

    /// Rows at consecutive positions, one after the other.
    unsafe fn bring(&self, from: Lines, first: usize, count: usize, columns: usize, to: *mut f32) {
        for i in 0..count {
            // SAFETY: a row of the tensor and one of the tile.
            unsafe {
                let (row, line) = (from.row(self.g.row(first + i)), to.add(i * columns));
                match from.col {
                    1 => std::ptr::copy_nonoverlapping(row, line, columns),
                    by => (0..columns).for_each(|c| *line.add(c) = *row.wrapping_offset(c as isize * by)),
                }
            }
        }
    }

    /// The rows of a tile to where they belong in y.
    unsafe fn hand_out(&self, first: usize, count: usize, col: usize, columns: usize, from: *const f32) {
        for i in 0..count {
            // SAFETY: a row of the tile and one of y.
            unsafe {
                let row = self.y.row(self.g.row(first + i)).wrapping_offset(col as isize * self.y.col);
                let line = from.add(i * columns);
                match self.y.col {
                    1 => std::ptr::copy_nonoverlapping(line, row, columns),
                    by => (0..columns).for_each(|c| *row.wrapping_offset(c as isize * by) = *line.add(c)),
                }
            }
        }
    }
}
