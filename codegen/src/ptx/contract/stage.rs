//! One factor on its way to shared memory: 16 bytes at a time by asynchronous copies where memory has just the elements
//! that are multiplied, side by side; four at a time through registers where they are to be rounded to bf16 on the way;
//! otherwise each element is evaluated and stored.
use super::product::{Factor, count, main_view};
use super::tile::{Cx, Side};
use crate::emit::Emit;
use crate::eval::{At, Gives, SLOTS};
use crate::ptx::arith;
use crate::ptx::coord::{self, C};
use crate::ptx::inst::*;
use crate::ptx::simt::{Simt, V};
use lolm_ir::DType;
use lolm_ir::kernel::{KAxes, KAxis, KOp, KValue, Kernel, OperandId, View};

/// How a side comes to shared memory.
#[derive(Clone, Debug)]
pub enum Fill {
    /// Copied, the elements of this view. The last elements of a row may be fewer than are copied together.
    Copy(OperandId, View),
    /// Loaded as f32, the elements of this view, and rounded to bf16.
    Round(OperandId, View),
    /// Evaluated, this value.
    Evaluate(KValue),
}

impl Fill {
    pub fn name(&self) -> &'static str {
        match self {
            Fill::Copy(..) => "copied",
            Fill::Round(..) => "rounded",
            Fill::Evaluate(_) => "evaluated",
        }
    }
}

/// A coordinate and its stride in memory.
type Offset = (C, i64);

/// What a thread brings of a tile: 16 bytes, or what one store holds. All but the place along the depth is known before
/// the loop.
pub struct Piece {
    /// Only for threads for which this holds, if not for all.
    guard: Option<Reg>,
    /// Bytes from the start of a stage.
    to: C,
    /// Along rows or columns, of the whole product, and whether that exists.
    line: C,
    exists: Option<Reg>,
    /// Along the depth, from the start of the step.
    depth: C,
    /// Where the line starts in memory.
    from: Option<C>,
    /// What was loaded and is not stored yet, where it goes through registers.
    held: Option<[Reg; 4]>,
}

/// The layout of a side: `true` where neighbours in shared memory are neighbours along the depth.
pub fn by_depth(k: &Kernel, value: KValue, lines: &[KAxis], depth: &[KAxis]) -> bool {
    let view = main_view(k, value);
    let stride = |a: Option<&KAxis>| a.and_then(|a| Some(view?.stride(*a))).filter(|s| *s != 0);
    stride(depth.last()) == Some(1) || stride(lines.last()) != Some(1)
}

/// How a side is filled: where it can be, from neighbouring elements of memory.
pub fn fill(k: &Kernel, factor: Factor, value: KValue, lines: &[KAxis], depth: &[KAxis]) -> Fill {
    let index = if by_depth(k, value, lines, depth) { depth } else { lines };
    let inner = index.last();
    let neighbours = |v: KValue, dtype: DType, vector: i64, ragged: bool| {
        let KOp::Load(o, view) = &k.value(v).op else { return None };
        let ends = |a: KAxis| k.axis(a).len as i64 % vector == 0 || ragged && index.len() == 1;
        let whole = |(a, stride): &(KAxis, i64)| Some(a) == inner && *stride == 1 && ends(*a) || stride % vector == 0;
        // What is looked up, and whether it is there, is known of a line as a whole.
        let of_lines = |v: KValue| !depth.iter().chain(inner).any(|a| k.value(v).axes.has(*a));
        let looked_up = view.dynamic.iter().all(|(d, stride)| of_lines(*d) && stride % vector == 0);
        let plain = looked_up && view.guard.is_none_or(of_lines) && k.operand(*o).dtype == dtype;
        let along = inner.is_some_and(|a| view.stride(*a) == 1);
        let fits = plain && along && view.base % vector == 0 && view.terms.iter().all(whole);
        fits.then(|| (*o, view.clone()))
    };
    let copied = match factor {
        Factor::F32 => neighbours(value, DType::F32, 4, true),
        Factor::Bf16 => neighbours(value, DType::Bf16, 8, true),
    };
    let rounded = match (factor, &k.value(value).op) {
        (Factor::Bf16, KOp::Cast(_)) => neighbours(k.value(value).args[0], DType::F32, 4, false),
        _ => None,
    };
    match (copied, rounded) {
        (Some((o, view)), _) => Fill::Copy(o, view),
        (None, Some((o, view))) => Fill::Round(o, view),
        (None, None) => Fill::Evaluate(value),
    }
}

impl Cx<'_> {
    /// What each thread brings of a side, in every step.
    pub fn pieces(&mut self, side: &Side) -> Gives<Vec<Piece>> {
        let vector = side.vector;
        let (line_chunks, depth_chunks) = match side.by_depth {
            true => (side.extent, self.t.order.step / vector),
            false => (side.extent / vector, self.t.order.step),
        };
        let of_part = line_chunks * depth_chunks;
        let all = of_part * self.t.at_once;
        let threads = self.threads();
        let mut pieces = vec![];
        for i in 0..super::tiling::ceil(all, threads) {
            let b = &mut self.g.e.b;
            let number = coord::add(b, self.tid, C::Const(i * threads));
            let guard = (all - i * threads < threads).then(|| less(b, number, all));
            let (part, within) = coord::divmod(b, number, of_part);
            let (line, depth) = match side.by_depth {
                true => coord::divmod(b, within, depth_chunks),
                false => {
                    let (depth, line) = coord::divmod(b, within, line_chunks);
                    (line, depth)
                }
            };
            let (line, depth) = match side.by_depth {
                true => (line, coord::mul(b, depth, vector)),
                false => (coord::mul(b, line, vector), depth),
            };
            let to = place(b, side, line, depth);
            let start = coord::mul(b, part, side.part_bytes);
            let to = coord::add(b, to, start);
            let first = coord::mul(b, part, self.t.order.part_steps * self.t.order.step);
            let depth = coord::add(b, depth, first);
            let line = coord::add(b, side.first, line);
            let exists = (side.len % side.extent != 0).then(|| less(b, line, side.len));
            let (from, exists) = match &side.fill {
                Fill::Copy(o, view) | Fill::Round(o, view) => {
                    let (from, there) = self.line_start(*o, view, &side.lines, line, exists)?;
                    (Some(from), self.both(exists, there))
                }
                Fill::Evaluate(_) => (None, exists),
            };
            let rounds = matches!(side.fill, Fill::Round(..));
            let held = rounds.then(|| [(); 4].map(|_| self.g.e.b.reg(Class::F32)));
            pieces.push(Piece { guard, to, line, exists, depth, from, held });
        }
        Ok(pieces)
    }

    /// Where a line of a side starts, at depth 0, and whether its elements are there to be read.
    fn line_start(
        &mut self,
        o: OperandId,
        view: &View,
        lines: &[KAxis],
        line: C,
        exists: Option<Reg>,
    ) -> Gives<(C, Option<Reg>)> {
        let size = self.g.k.operand(o).dtype.bytes() as i64;
        let mut sum = self.g.e.operand(o);
        let mut terms = split(self.g.e, self.g.k, lines, line);
        let looked_up = !view.dynamic.is_empty() || view.guard.is_some();
        let (offsets, there) = if looked_up { self.looked_up(view, &terms, exists)? } else { (vec![], None) };
        for a in &self.p.batch {
            terms.push((*a, self.g.at(*a)?.coord));
        }
        let b = &mut self.g.e.b;
        let strides = terms.into_iter().map(|(a, c)| (c, view.stride(a))).chain(offsets);
        for (c, stride) in strides {
            let part = coord::mul(b, c, stride * size);
            sum = coord::add(b, sum, part);
        }
        Ok((coord::add(b, sum, C::Const(view.base * size)), there))
    }

    /// The offsets of a line that are values, with their strides, and whether its guard holds.
    fn looked_up(&mut self, view: &View, at: &[(KAxis, C)], exists: Option<Reg>) -> Gives<(Vec<Offset>, Option<Reg>)> {
        let axes: KAxes = at.iter().map(|a| a.0).collect();
        self.g.open_scope(axes);
        for (a, c) in at {
            self.fix(*a, *c, 0);
        }
        self.g.only = exists.map(V::Reg);
        let there = view.guard.map(|g| self.g.eval(g, &[0; SLOTS])).transpose()?;
        let mut offsets = vec![];
        for (d, stride) in &view.dynamic {
            let x = self.g.eval(*d, &[0; SLOTS])?;
            offsets.push((self.g.e.widen(x), *stride));
        }
        self.g.only = None;
        self.g.scopes.pop();
        for a in axes.iter() {
            self.g.at[a.0 as usize] = None;
        }
        Ok((offsets, there.map(|p| self.g.e.reg(p))))
    }

    /// Begins to bring a step of a side to the stage that starts there: what can be on its way while the threads go on.
    pub fn begin_step(&mut self, side: &Side, pieces: &[Piece], step: C, stage: Reg) {
        self.g.e.b.note(side.value.0);
        let start = coord::mul(&mut self.g.e.b, step, self.t.order.step);
        for piece in pieces {
            match &side.fill {
                Fill::Copy(o, view) => {
                    let Some((from, exists)) = self.source(*o, view, piece, start) else { continue };
                    let bytes = self.bytes(side, piece, start);
                    let b = &mut self.g.e.b;
                    let read = exists.map(|p| b.selp(Type::B32, p, bytes, Src::Int(0)));
                    let to = self.stage_address(side, piece.to, stage);
                    self.g.e.b.guarded(piece.guard.map(|p| (p, true)), Op::CpAsync { to, from, read });
                }
                Fill::Round(o, view) => {
                    let (Some((at, exists)), Some(d)) = (self.source(*o, view, piece, start), piece.held) else {
                        continue;
                    };
                    let exists = self.both(exists, piece.guard);
                    let b = &mut self.g.e.b;
                    for d in d.iter().filter(|_| exists.is_some()) {
                        b.op(Op::Mov { ty: Type::F32, d: *d, a: Src::F32(0) });
                    }
                    b.guarded(exists.map(|p| (p, true)), Op::Ld4 { space: Space::Global, ty: Type::F32, d, at });
                }
                Fill::Evaluate(_) => {}
            }
        }
    }

    /// Brings the rest of it.
    pub fn end_step(&mut self, side: &Side, pieces: &[Piece], step: C, stage: Reg) -> Gives<()> {
        self.g.e.b.note(side.value.0);
        let start = coord::mul(&mut self.g.e.b, step, self.t.order.step);
        for piece in pieces {
            match &side.fill {
                Fill::Copy(..) => {}
                Fill::Round(..) => {
                    let Some(held) = piece.held else { continue };
                    let at = self.stage_address(side, piece.to, stage);
                    let b = &mut self.g.e.b;
                    let a = [0, 2].map(|i: usize| {
                        let d = b.reg(Class::B32);
                        b.op(Op::CvtPair { d, high: held[i + 1].into(), low: held[i].into() });
                        d
                    });
                    b.guarded(piece.guard.map(|p| (p, true)), Op::St2 { space: Space::Shared, a, at });
                }
                Fill::Evaluate(v) => self.evaluate(side, *v, piece, start, stage)?,
            }
        }
        Ok(())
    }

    /// Bytes of a piece that exist, where it is copied and some of it does: what is left of its row, 16 at most.
    fn bytes(&mut self, side: &Side, piece: &Piece, start: C) -> Src {
        let depth = count(self.g.k, &self.p.depth);
        let len = if side.by_depth { depth } else { side.len };
        if len % side.vector == 0 {
            return Src::Int(16);
        }
        let b = &mut self.g.e.b;
        let at = if side.by_depth { coord::add(b, start, piece.depth) } else { piece.line };
        let minus = coord::mul(b, at, -1);
        let left = coord::add(b, minus, C::Const(len));
        let left = coord::either(b, left, C::Const(side.vector), BinOp::Min);
        let bytes = coord::mul(b, left, side.size);
        coord::int(b, bytes)
    }

    fn both(&mut self, a: Option<Reg>, b: Option<Reg>) -> Option<Reg> {
        match (a, b) {
            (Some(a), Some(b)) => Some(self.g.e.b.binary(BinOp::And, Type::Pred, a, b)),
            (a, b) => a.or(b),
        }
    }

    /// Whether an element is one of the product: in its line, and before the end of the depth.
    fn exists(&mut self, piece: &Piece, depth: C) -> Option<Reg> {
        let end = count(self.g.k, &self.p.depth);
        let pads = self.padded() != end;
        let b = &mut self.g.e.b;
        let inside = pads.then(|| less(b, depth, end));
        self.both(piece.exists, inside)
    }

    /// The neighbours in memory that a piece is made of, and whether they exist.
    fn source(&mut self, o: OperandId, view: &View, piece: &Piece, start: C) -> Option<(Address, Option<Reg>)> {
        let size = self.g.k.operand(o).dtype.bytes() as i64;
        let depth = coord::add(&mut self.g.e.b, start, piece.depth);
        let exists = self.exists(piece, depth);
        let mut from = piece.from?;
        for (a, c) in split(self.g.e, self.g.k, &self.p.depth, depth) {
            let b = &mut self.g.e.b;
            let part = coord::mul(b, c, view.stride(a) * size);
            from = coord::add(b, from, part);
        }
        match from {
            C::Global(base, _) => Some((Address { base, offset: 0 }, exists)),
            _ => None,
        }
    }

    fn stage_address(&mut self, side: &Side, to: C, stage: Reg) -> Address {
        let b = &mut self.g.e.b;
        let c = coord::add(b, C::Shared(stage), to);
        match c {
            C::Shared(base) => Address { base, offset: side.offset as i32 },
            _ => Address { base: stage, offset: 0 },
        }
    }

    fn evaluate(&mut self, side: &Side, v: KValue, piece: &Piece, start: C, stage: Reg) -> Gives<()> {
        let mut packed = vec![];
        for i in 0..side.vector {
            let b = &mut self.g.e.b;
            let (dl, dd) = if side.by_depth { (0, i) } else { (i, 0) };
            let (line, depth) = (coord::add(b, piece.line, C::Const(dl)), coord::add(b, start, piece.depth));
            let depth = coord::add(b, depth, C::Const(dd));
            let exists = match dl {
                0 => piece.exists,
                _ => piece.exists.map(|_| less(b, line, side.len)),
            };
            // Threads without a piece have a place outside of the tile.
            let exists = self.both(exists, piece.guard);
            let exists = self.exists(&Piece { exists, ..*piece }, depth);
            packed.push(self.element(side, v, line, depth, exists)?);
        }
        let at = self.stage_address(side, piece.to, stage);
        let e = &mut *self.g.e;
        let (ty, a) = match packed[..] {
            [low, high] => {
                let (low, high) = (e.src(low), e.src(high));
                let d = e.b.reg(Class::B32);
                e.b.op(Op::CvtPair { d, high, low });
                (Type::B32, d)
            }
            _ => (Type::F32, e.reg(packed[0])),
        };
        self.g.e.b.guarded(piece.guard.map(|p| (p, true)), Op::St { space: Space::Shared, ty, a, at });
        Ok(())
    }

    /// A value at these coordinates; 0 where it does not exist.
    fn element(&mut self, side: &Side, v: KValue, line: C, depth: C, exists: Option<Reg>) -> Gives<V> {
        let mut at = split(self.g.e, self.g.k, &side.lines, line);
        at.extend(split(self.g.e, self.g.k, &self.p.depth, depth));
        let axes: KAxes = at.iter().map(|a| a.0).collect();
        self.g.open_scope(axes);
        for (a, c) in at {
            self.fix(a, c, 0);
        }
        // A rounding to bf16 is that of the packing.
        let v = match self.g.k.value(v).op {
            KOp::Cast(DType::Bf16) => self.g.k.value(v).args[0],
            _ => v,
        };
        self.g.only = exists.map(V::Reg);
        let dtype = self.g.k.value(v).dtype;
        let x = self.g.eval(v, &[0; SLOTS])?;
        self.g.only = None;
        self.g.scopes.pop();
        for a in axes.iter() {
            self.g.at[a.0 as usize] = None;
        }
        let e = &mut *self.g.e;
        let x = arith::cast(e, dtype, DType::F32, x);
        Ok(match exists {
            Some(p) => arith::select(e, V::Reg(p), x, V::F32(0.0)),
            None => x,
        })
    }

    /// Gives an axis a coordinate in the innermost scope.
    pub fn fix(&mut self, a: KAxis, coord: C, offset: i64) {
        let depth = self.g.depth() - 1;
        let at = At { coord, offsets: vec![offset], vector: false, masked: false, tail: vec![], depth };
        self.g.at[a.0 as usize] = Some(at);
    }
}

/// The bytes from the start of a part of a side to an element.
fn place(b: &mut super::super::build::Builder, side: &Side, line: C, depth: C) -> C {
    let (outer, inner) = if side.by_depth { (line, depth) } else { (depth, line) };
    let row = coord::mul(b, outer, side.pitch);
    let col = coord::mul(b, inner, side.size);
    coord::add(b, row, col)
}

/// The coordinates of an index over several axes.
pub fn split(e: &mut Simt, k: &Kernel, axes: &[KAxis], index: C) -> Vec<(KAxis, C)> {
    let mut rest = index;
    let mut out = vec![];
    for (n, a) in axes.iter().enumerate().rev() {
        let mut c = rest;
        if n > 0 {
            (rest, c) = coord::divmod(&mut e.b, rest, k.axis(*a).len as i64);
        }
        out.push((*a, c));
    }
    out
}

pub fn less(b: &mut super::super::build::Builder, c: C, than: i64) -> Reg {
    let x = coord::int(b, c);
    b.setp(Cmp::Lt, Type::S32, x, Src::Int(than))
}
