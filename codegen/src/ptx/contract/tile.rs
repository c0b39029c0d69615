//! One block's tile of a product: the loop over the depth, with stages of shared memory that fill while others are used.
use super::product::{Factor, Product, count};
use super::stage::{self, Fill, Piece};
use super::tiling::{Tiling, ceil};
use crate::emit::Emit;
use crate::eval::{Fail, Gen, Gives, SLOTS};
use crate::ptx::coord::{self, C};
use crate::ptx::inst::*;
use crate::ptx::simt::Simt;
use lolm_ir::kernel::{KAxes, KAxis, KOp, KValue};

/// One factor of the product, as blocks see it.
pub struct Side {
    /// The axes of its lines, which are rows or columns of the product, how many there are, and how many a tile has.
    pub lines: Vec<KAxis>,
    pub len: i64,
    pub extent: i64,
    pub fill: Fill,
    /// The factor; what brings it is said to serve it.
    pub value: KValue,
    /// Neighbours in shared memory are neighbours along the depth; otherwise along the lines.
    pub by_depth: bool,
    /// Elements that are brought together, and bytes of one in shared memory.
    pub vector: i64,
    pub size: i64,
    /// Bytes from one row of shared memory to the next, of one part, and from the start of a stage.
    pub pitch: i64,
    pub part_bytes: i64,
    pub offset: i64,
    /// The first line of this block's tile.
    pub first: C,
}

/// The sums that a thread has.
pub struct Sums {
    pub registers: Vec<Reg>,
    /// The row and column of each, from `row` and `col`.
    pub places: Vec<(i64, i64)>,
    pub row: C,
    pub col: C,
    /// The part of the depth that this thread has, if it has not all.
    pub part: C,
}

/// How a thread adds the products of a step to its sums.
pub trait Multiply {
    /// Loads what it multiplies first of a stage that is there.
    fn lead(&self, cx: &mut Cx, sides: &[Side; 2], stage: Reg, guard: Option<Reg>);
    /// Loads what it multiplies next, before copies to another stage begin: loads wait for copies that stand before them.
    fn follow(&self, cx: &mut Cx, sides: &[Side; 2], stage: Reg);
    /// Adds all but what waits for the next stage's lead.
    fn most(&self, cx: &mut Cx, sides: &[Side; 2], stage: Reg);
    /// Adds what is loaded already, once it has led the next stage, if there is one.
    fn rest(&self, cx: &mut Cx, sides: &[Side; 2], next: Reg, guard: Reg);
}

pub struct Cx<'a> {
    pub g: Gen<'a, Simt>,
    pub p: &'a Product,
    pub t: Tiling,
    pub tid: C,
    /// Where shared memory starts.
    pub shared: Reg,
}

/// Bytes of shared memory that a block should have at most, and how many stages at most.
const SHARED: i64 = 99 << 10;
const STAGES: i64 = 4;
/// Bytes by which rows of shared memory are longer than a multiple of 32: so eight rows of 16 bytes lie in all banks.
const SKEW: i64 = 16;

/// Shared memory: stages, and after them, in the same place, sums.
pub struct Layout {
    pub stage_bytes: i64,
    pub stages: i64,
    /// Rounds in which sums are finished, each as many lines of them as fit.
    pub rounds: i64,
    /// Words from one line of sums to the next, and words of one part in a round.
    pub sum_pitch: i64,
    pub sum_words: i64,
    /// Threads run along rows when they finish, so neighbouring sums are of neighbouring rows.
    pub along_rows: bool,
}

impl Layout {
    pub fn bytes(&self, t: &Tiling) -> i64 {
        (self.stage_bytes * self.stages).max(self.sum_words * 4 * t.at_once)
    }
}

pub fn side(g: &Gen<Simt>, p: &Product, t: &Tiling, is_a: bool, first: C) -> Side {
    let k = g.k;
    let (value, lines, extent) = if is_a { (p.a, &p.rows, t.rows) } else { (p.b, &p.cols, t.cols) };
    let by_depth = stage::by_depth(k, value, lines, &p.depth);
    let fill = stage::fill(k, p.factor, value, lines, &p.depth);
    let size = if p.factor == Factor::F32 { 4 } else { 2 };
    let vector = match (&fill, p.factor) {
        (Fill::Copy(..), _) => 16 / size,
        (Fill::Round(..), _) => 4,
        (Fill::Evaluate(_), Factor::F32) => 1,
        (Fill::Evaluate(_), Factor::Bf16) => 2,
    };
    let (rows, row) = if by_depth { (extent, t.order.step) } else { (t.order.step, extent) };
    let pitch = row * size + if by_depth || p.factor == Factor::Bf16 { SKEW } else { 0 };
    let len = count(k, lines);
    let part_bytes = rows * pitch;
    Side { lines: lines.clone(), len, extent, fill, value, by_depth, vector, size, pitch, part_bytes, offset: 0, first }
}

/// Neighbouring sums lie as the first store has them in memory.
pub fn layout(g: &Gen<Simt>, p: &Product, t: &Tiling, a: &Side, b: &Side) -> Layout {
    let stage_bytes = (a.part_bytes + b.part_bytes) * t.at_once;
    let view = p.sinks.first().and_then(|s| g.k.value(*s).access()).map(|s| s.1);
    let stride = |a: Option<&KAxis>| a.and_then(|a| Some(view?.stride(*a)));
    let along_rows = stride(p.cols.last()) != Some(1) && stride(p.rows.last()) == Some(1);
    // Lanes of a fragment have eight lines in steps of one and four pairs of columns: these lie in different banks.
    let (outer, warps, sum_pitch) = match along_rows {
        false => (t.rows, t.along.0, ceil(t.cols, 32) * 32 + 8),
        true => (t.cols, t.along.1, ceil(t.rows, 32) * 32 + 4),
    };
    // A warp's sums are all of one round.
    let fits = |rounds: &i64| warps % rounds == 0 && outer / rounds * sum_pitch * 4 * t.at_once <= SHARED;
    let rounds = [1, 2, 4].into_iter().find(fits).unwrap_or(1);
    let steps = if t.at_once > 1 { t.order.part_steps } else { t.order.steps };
    let stages = (SHARED / stage_bytes).min(STAGES).min(steps.max(2));
    Layout { stage_bytes, stages, rounds, sum_pitch, sum_words: outer / rounds * sum_pitch, along_rows }
}

impl Cx<'_> {
    pub fn threads(&self) -> i64 {
        let warp = if self.p.factor == Factor::F32 { 1 } else { 32 };
        self.t.along.0 * self.t.along.1 * self.t.at_once * warp
    }
    /// Steps of the loop.
    pub fn steps(&self) -> i64 {
        if self.t.at_once > 1 { self.t.order.part_steps } else { self.t.order.steps }
    }
    /// The depth with what is added to make whole steps.
    pub fn padded(&self) -> i64 {
        self.steps() * self.t.order.step * self.t.at_once
    }

    /// Fixes the batch from the number of the block, and gives the first row and column of its tile. Tiles that follow
    /// each other share columns for a few rows, so that both factors are found in the cache.
    pub fn place_block(&mut self) -> (C, C) {
        let (down, across) = self.t.tiles;
        let batch = count(self.g.k, &self.p.batch);
        let b = &mut self.g.e.b;
        let block = b.mov(Type::U32, Src::Special(Special::Block));
        let block = C::Int { reg: block, lo: 0, hi: batch * down * across - 1 };
        let (batch, tile) = coord::divmod(b, block, down * across);
        let group = [8, 4, 2].into_iter().find(|g| down % g == 0).unwrap_or(1);
        let (row_group, within) = coord::divmod(b, tile, group * across);
        let (col, row) = coord::divmod(b, within, group);
        let row_group = coord::mul(b, row_group, group);
        let row = coord::add(b, row_group, row);
        let first = (coord::mul(b, row, self.t.rows), coord::mul(b, col, self.t.cols));
        for (a, c) in stage::split(self.g.e, self.g.k, &self.p.batch, batch) {
            self.fix(a, c, 0);
        }
        first
    }

    /// Computes what these values need and is known of them here, once.
    pub fn hoist(&mut self, values: &[KValue]) -> Gives<()> {
        let fixed = self.g.fixed();
        for v in values {
            let value = self.g.k.value(*v);
            if *v != self.p.result
                && fixed.contains(value.axes)
                && !matches!(value.op, KOp::Const(_))
                && !value.is_sink()
            {
                self.g.eval(*v, &[0; SLOTS])?;
            }
            self.g.touch(*v)?;
        }
        Ok(())
    }

    /// The whole loop. A step ends with the barrier after which the next stage is there and this one may be filled: so
    /// threads multiply on both sides of it.
    pub fn main_loop(
        &mut self,
        sides: &[Side; 2],
        l: &Layout,
        m: &dyn Multiply,
        mut part_ends: impl FnMut(&mut Self),
    ) -> Gives<()> {
        if l.stages < 2 {
            return Err(Fail::Bug(format!("a stage of {} bytes", l.stage_bytes)));
        }
        let pieces = [self.pieces(&sides[0])?, self.pieces(&sides[1])?];
        let (ahead, steps) = (l.stages - 1, self.steps());
        for s in 0..ahead {
            if s < steps {
                let at = Src::Int(s * l.stage_bytes);
                let stage = self.g.e.b.binary(BinOp::Add, Type::S32, self.shared, at);
                self.begin_sides(sides, &pieces, C::Const(s), stage)?;
                self.end_sides(sides, &pieces, C::Const(s), stage)?;
            }
            self.g.e.b.op(Op::CpCommit);
        }
        let b = &mut self.g.e.b;
        let used = b.variable(Type::B32, self.shared);
        let start = b.binary(BinOp::Add, Type::S32, self.shared, Src::Int(ahead * l.stage_bytes));
        let next = b.variable(Type::B32, start);
        let end = b.binary(BinOp::Add, Type::S32, self.shared, Src::Int(l.stages * l.stage_bytes));
        // Steps that are left of a part, where one thread does several.
        let several = self.t.order.parts > 1 && self.t.at_once == 1;
        let left = b.variable(Type::B32, Src::Int(self.t.order.part_steps));
        b.op(Op::CpWait((ahead - 1) as u8));
        b.op(Op::SyncBlock);
        m.lead(self, sides, used, None);
        let (step, _) = self.g.e.begin(C::Const(0), C::Const(steps), 1, false, true, &[]);
        m.follow(self, sides, used);
        let (more, coming) = self.later(step, ahead);
        self.where_holds(more, |cx| cx.begin_sides(sides, &pieces, coming, next))?;
        self.g.e.b.op(Op::CpCommit);
        self.g.e.b.note(self.p.result.0);
        m.most(self, sides, used);
        self.where_holds(more, |cx| cx.end_sides(sides, &pieces, coming, next))?;
        for at in [used, next] {
            let b = &mut self.g.e.b;
            b.op(Op::Binary { op: BinOp::Add, ty: Type::S32, d: at, a: at.into(), b: Src::Int(l.stage_bytes) });
            let around = b.compare(Cmp::Eq, Type::S32, at, end);
            b.guarded(Some((around, true)), Op::Mov { ty: Type::B32, d: at, a: self.shared.into() });
        }
        let (another, _) = self.later(step, 1);
        let b = &mut self.g.e.b;
        b.op(Op::CpWait((ahead - 1) as u8));
        b.op(Op::SyncBlock);
        b.note(self.p.result.0);
        m.rest(self, sides, used, another);
        if several {
            let b = &mut self.g.e.b;
            b.op(Op::Binary { op: BinOp::Add, ty: Type::S32, d: left, a: left.into(), b: Src::Int(-1) });
            let over = b.compare(Cmp::Eq, Type::S32, left, Src::Int(0));
            self.where_holds(over, |cx| {
                part_ends(cx);
                cx.g.e.b.op(Op::Mov { ty: Type::B32, d: left, a: Src::Int(cx.t.order.part_steps) });
                Ok(())
            })?;
        }
        self.g.e.end(&[]);
        if several && self.t.order.steps % self.t.order.part_steps != 0 {
            part_ends(self);
        }
        self.g.e.b.op(Op::CpWait(0));
        self.g.e.b.op(Op::SyncBlock);
        Ok(())
    }

    /// The step that comes so many steps later, and whether it exists.
    fn later(&mut self, step: C, by: i64) -> (Reg, C) {
        let steps = self.steps();
        let b = &mut self.g.e.b;
        let later = coord::add(b, step, C::Const(by));
        let exists = stage::less(b, later, steps);
        match later {
            C::Int { reg, .. } => (exists, C::Int { reg, lo: 0, hi: (steps - 1).max(0) }),
            c => (exists, c),
        }
    }

    fn begin_sides(&mut self, sides: &[Side; 2], pieces: &[Vec<Piece>; 2], step: C, stage: Reg) -> Gives<()> {
        for (side, pieces) in sides.iter().zip(pieces) {
            self.begin_step(side, pieces, step, stage);
        }
        Ok(())
    }
    fn end_sides(&mut self, sides: &[Side; 2], pieces: &[Vec<Piece>; 2], step: C, stage: Reg) -> Gives<()> {
        sides.iter().zip(pieces).try_for_each(|(side, pieces)| self.end_step(side, pieces, step, stage))
    }

    /// Emits code that all threads of the block skip together unless this holds.
    pub fn where_holds(&mut self, p: Reg, f: impl FnOnce(&mut Self) -> Gives<()>) -> Gives<()> {
        let before = self.g.e.b.body.len();
        let skip = self.g.e.b.label();
        self.g.e.b.bra(skip, Some((p, false)));
        let start = self.g.e.b.body.len();
        self.g.open_scope(KAxes::EMPTY);
        self.g.e.b.open();
        f(self)?;
        self.g.e.b.close();
        self.g.scopes.pop();
        if self.g.e.b.body.len() == start {
            self.g.e.b.body.truncate(before);
        } else {
            self.g.e.b.place(skip);
        }
        Ok(())
    }
}
