//! The attention generator: scores, softmax and results of a tile of rows in registers, while keys and values pass by.
//!
//! Dao et al. 2022 and 2023. A block has a tile of rows that share keys and values; each warp has 16 rows of it, or 32.
//! Tiles of keys and values come to shared memory in turn: the values while scores are computed, the next keys while the
//! values are used. A row keeps its greatest score so far and its sum relative to that; when a greater one comes, the sum
//! and the results are scaled down. Tiles that no row sees are left out, and only tiles that some row sees in part look at
//! what is visible.
//!
//! **Order of summation.** Keys in tiles of 64 (bf16), 32, or 16 (f32, heads wider than 128), from the first on, whichever
//! rows are computed with them. Scores in f32 are chains of fma along the head. A lane adds up the exponentials of its
//! columns of each tile in ascending order; the sums of four lanes are added in pairs at the end. Results in f32 are chains
//! of fma along the keys. So a row's bits do not depend on the rows beside it, and those of decoding are those of a prompt.
//!
//! **Rounding.** With bf16 operands the weights are rounded to bf16 before they meet the values, relative to the greatest
//! score so far and before they are divided by the sum; scores, exponentials, sums and results are f32. In f32 nothing is
//! rounded on the way, and no approximate function is used.
mod copy;
mod plan;
mod products;
mod rows;
mod shape;
mod softmax;

use super::compile::{Code, STATIC_SHARED};
use super::coord::{self, C};
use super::inst::*;
use super::print;
use super::simt::{Simt, V};
use crate::emit::Emit;
use crate::eval::{Fail, Gen, Gives};
use crate::schedule::Schedule;
use copy::{Matrix, dims};
use lolm_ir::DType;
use lolm_ir::artifact::Block;
use lolm_ir::kernel::{KAxes, KAxis, KValue, Kernel};
use plan::{Plan, THREADS, plan};
use rows::{Row, bounds};
use shape::{Shape, Source, cone, shape};

/// What a lane has of several fragments of rows: for every eight columns, two of its upper and two of its lower row.
type Fragments = Vec<Vec<[Reg; 4]>>;

struct Cx<'a> {
    g: Gen<'a, Simt>,
    s: &'a Shape,
    p: Plan,
    tid: C,
    warp: C,
    lane: C,
    /// `lane / 4` and `lane % 4`.
    group: C,
    quad: C,
    /// Where shared memory starts.
    shared: Reg,
}

/// The code of a kernel that is an attention.
pub fn attention(k: &Kernel, name: &str) -> Result<Option<(String, Code)>, Fail> {
    let Some(s) = shape(k) else { return Ok(None) };
    let Some(p) = plan(k, &s) else { return Ok(None) };
    let schedule = Schedule { units: vec![], order: vec![], unroll: vec![], lane: None, vectors: 1, team: None };
    let mut simt = Simt::threads(k);
    generate(k, &s, p, &schedule, &mut simt)?;
    if let Some(what) = simt.bug() {
        return Err(Fail::Bug(what.clone()));
    }
    let (b, _) = simt.finish(false);
    let bytes = p.bytes as u32;
    let dynamic = bytes > STATIC_SHARED;
    let entry = Entry {
        name: name.into(),
        params: k.operands.len() as u32,
        threads: THREADS as u32,
        shared: if dynamic { Shared::Dynamic } else { Shared::Static(bytes) },
        registers: b.registers,
        body: [b.head, b.body].concat(),
    };
    let block = Block { threads: THREADS as u32, units: 1, shared: if dynamic { bytes } else { 0 } };
    let unit_dims = vec![p.batches as u32, p.tiles as u32];
    Ok(Some((p.to_string(), Code { text: print::entry(&entry, k), block, unit_dims })))
}

fn generate(k: &Kernel, s: &Shape, p: Plan, schedule: &Schedule, simt: &mut Simt) -> Gives<()> {
    let mut g = Gen::new(k, schedule, simt);
    g.open_scope(KAxes::EMPTY);
    let lane = g.e.lane();
    let b = &mut g.e.b;
    let tid = b.at_head(|b| b.mov(Type::U32, Src::Special(Special::Tid)));
    let start = if p.bytes as u32 > STATIC_SHARED { Src::DynamicShared } else { Src::Shared };
    let shared = b.at_head(|b| b.mov(Type::U32, start));
    let tid = C::Int { reg: tid, lo: 0, hi: THREADS - 1 };
    let lane = C::Int { reg: lane, lo: 0, hi: 31 };
    let (warp, _) = coord::divmod(b, tid, 32);
    let (group, quad) = coord::divmod(b, lane, 4);
    let mut cx = Cx { g, s, p, tid, warp, lane, group, quad, shared };
    cx.block()?;
    cx.g.e.b.op(Op::Ret);
    Ok(())
}

impl Cx<'_> {
    fn block(&mut self) -> Gives<()> {
        let Plan { tiles, batches, .. } = self.p;
        let b = &mut self.g.e.b;
        let block = b.mov(Type::U32, Src::Special(Special::Block));
        let block = C::Int { reg: block, lo: 0, hi: tiles * batches - 1 };
        let (batch, tile) = coord::divmod(b, block, tiles);
        // The last rows see the most keys, so they are begun first.
        let tile = coord::mul(b, tile, -1);
        let tile = coord::add(b, tile, C::Const(tiles - 1));
        let first = coord::mul(b, tile, self.p.block());
        let axes = self.s.batch.clone();
        for (a, c) in self.digits(&axes, batch) {
            self.fix(a, c);
        }
        let roots: Vec<KValue> = self.s.visible.into_iter().chain(self.s.kept).collect();
        self.hoist(&cone(self.g.k, &roots, &[]), axes.iter().copied().collect())?;
        let keys = [self.s.keys];
        let over = (self.s.over.clone(), self.p.over, self.p.over_padded, self.p.over_pitch);
        let wide = (self.s.wide.clone(), self.p.wide, self.p.wide_padded, self.p.wide_pitch);
        let q = self.matrix_of(&self.s.q, &self.s.rows, &over, self.p.q_at);
        let k = self.matrix_of(&self.s.k, &keys, &over, self.p.k_at);
        let v = self.matrix_of(&self.s.v, &keys, &wide, self.p.v_at);
        let bounds = bounds(self.g.k, self.s.visible, self.s.keys);
        let rows = self.rows(first, &bounds)?;
        let range = self.range(&rows, &bounds);
        self.bring(&q, first, self.p.block());
        self.bring(&k, range.lo, self.p.tile);
        self.g.e.b.op(Op::CpCommit);
        self.landed();
        let queries = self.queries();
        let registers = |cx: &mut Self, columns: i64| -> Fragments {
            let four = |cx: &mut Self| std::array::from_fn(|_| cx.g.e.b.variable(Type::F32, Src::F32(0)));
            (0..cx.p.fragments).map(|_| (0..columns / 8).map(|_| four(cx)).collect()).collect()
        };
        let scores = registers(self, self.p.tile);
        let results = registers(self, self.p.wide_padded);
        let idle = self.idle(first);
        let (key, _) = self.g.e.begin(range.lo, range.hi, self.p.tile, false, false, &[]);
        self.landed();
        self.bring(&v, key, self.p.tile);
        self.g.e.b.op(Op::CpCommit);
        let skip = self.skip(idle);
        self.scores(queries.as_ref(), &scores);
        self.hide(&scores, &rows, key, &range)?;
        let mut weights = self.softmax(&scores, &rows, &results);
        self.keep(&mut weights, &rows, key)?;
        self.end_skip(skip);
        self.landed();
        self.next_keys(&k, key, range.hi);
        let skip = self.skip(idle);
        self.values(&weights, &results);
        self.end_skip(skip);
        self.g.e.end(&[]);
        self.g.e.b.op(Op::CpWait(0));
        self.store_rows(&rows, &results)
    }

    fn store_rows(&mut self, rows: &[Row], results: &Fragments) -> Gives<()> {
        for (i, row) in rows.iter().enumerate() {
            let half = i % 2 * 2;
            let of_row: Vec<[Reg; 2]> = results[i / 2].iter().map(|r| [r[half], r[half + 1]]).collect();
            self.finish(row, &of_row)?;
        }
        Ok(())
    }

    /// What was copied is there, and all threads are done with what it replaces next.
    fn landed(&mut self) {
        self.g.e.b.op(Op::CpWait(0));
        self.g.e.b.op(Op::SyncBlock);
    }

    /// The keys of the next tile, if there is one.
    fn next_keys(&mut self, k: &Matrix, key: C, end: C) {
        let next = coord::add(&mut self.g.e.b, key, C::Const(self.p.tile));
        let none = self.g.e.b.label();
        let b = &mut self.g.e.b;
        let (at, end) = (coord::int(b, next), coord::int(b, end));
        let over = b.compare(Cmp::Ge, Type::S32, at, end);
        b.bra(none, Some((over, true)));
        b.open();
        self.bring(k, next, self.p.tile);
        self.g.e.b.op(Op::CpCommit);
        self.g.e.b.close();
        self.g.e.b.place(none);
    }

    /// Whether a warp has no row, if that can be.
    fn idle(&mut self, first: C) -> Option<Reg> {
        let of_warp = plan::ROWS * self.p.fragments;
        if (self.p.rows - 1) % self.p.block() >= self.p.block() - of_warp {
            return None;
        }
        let warp = coord::mul(&mut self.g.e.b, self.warp, of_warp);
        let row = coord::add(&mut self.g.e.b, first, warp);
        let row = coord::int(&mut self.g.e.b, row);
        Some(self.g.e.b.setp(Cmp::Ge, Type::S32, row, Src::Int(self.p.rows)))
    }
    fn skip(&mut self, idle: Option<Reg>) -> Option<Label> {
        let idle = idle?;
        let over = self.g.e.b.label();
        self.g.e.b.bra(over, Some((idle, true)));
        self.g.e.b.open();
        Some(over)
    }
    fn end_skip(&mut self, over: Option<Label>) {
        if let Some(over) = over {
            self.g.e.b.close();
            self.g.e.b.place(over);
        }
    }

    /// Queries, keys or values of the batch that is fixed.
    fn matrix_of(&mut self, s: &Source, lines: &[KAxis], along: &(Vec<KAxis>, i64, i64, i64), at: i64) -> Matrix {
        let k = self.g.k;
        let dtype = k.operand(s.operand).dtype;
        let bytes = dtype.bytes() as i64;
        let mut base = self.g.e.operand(s.operand);
        base = coord::add(&mut self.g.e.b, base, C::Const(s.view.base * bytes));
        for a in &self.s.batch {
            let Some(at) = self.g.at[a.0 as usize].as_ref().map(|a| a.coord) else { continue };
            let part = coord::mul(&mut self.g.e.b, at, s.view.stride(*a) * bytes);
            base = coord::add(&mut self.g.e.b, base, part);
        }
        let (axes, width, padded, pitch) = along;
        let (lines, along) = (dims(k, lines, &s.view), dims(k, axes, &s.view));
        let fits = |stride: i64| stride * bytes % 16 == 0;
        let batch = self.s.batch.iter().filter(|a| k.axis(**a).len > 1).all(|a| fits(s.view.stride(*a)));
        let neighbours = along.is_empty() || along.len() == 1 && along[0].1 == 1;
        let as_is = bytes == self.p.size && (dtype == DType::Bf16 || !s.rounded);
        let aligned = batch && fits(s.view.base) && fits(*width) && lines.iter().all(|d| fits(d.1));
        let in_pieces = as_is && neighbours && aligned;
        let (rounded, width, padded, pitch) = (s.rounded, *width, *padded, *pitch);
        Matrix { base, dtype, rounded, lines, along, width, padded, pitch, at, in_pieces }
    }
}

/// Stores an f32 in so many bytes of shared memory.
fn arith_store(s: &mut Simt, size: i64, guard: Option<Reg>, at: Address, x: V) {
    let (ty, a) = match size {
        2 => (Type::B16, super::arith::round_bf16(s, x)),
        _ => (Type::F32, s.reg(x)),
    };
    s.b.guarded(guard.map(|p| (p, true)), Op::St { space: Space::Shared, ty, a, at });
}
