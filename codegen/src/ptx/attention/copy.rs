//! Tiles of queries, keys and values on their way to shared memory: in pieces of 16 bytes while the threads go on, where
//! memory has them so, and element by element elsewhere. Lines that do not exist, and what is added to their width, are 0.
use super::parts::Source;
use super::plan::Region;
use super::{Cx, arith_store};
use crate::emit::{Access, Emit, Lane};
use crate::ptx::coord::{self, C};
use crate::ptx::inst::*;
use crate::ptx::memory;
use crate::ptx::simt::V;
use lolm_ir::DType;
use lolm_ir::kernel::{KAxis, Kernel, View};

/// A matrix in memory of which tiles are wanted.
pub struct Matrix {
    /// The address of its first element.
    pub base: C,
    pub dtype: DType,
    /// Elements are rounded to bf16 on the way.
    pub rounded: bool,
    /// Lengths and strides along lines and along a line, outer ones first.
    pub lines: Vec<(i64, i64)>,
    pub along: Vec<(i64, i64)>,
    /// Where a tile of it lies in shared memory.
    pub region: Region,
    /// It can be copied in pieces of 16 bytes.
    pub in_pieces: bool,
}

/// Lengths and strides of these axes, without those of one element, and merged where memory allows.
pub fn dims(k: &Kernel, axes: &[KAxis], view: &View) -> Vec<(i64, i64)> {
    let mut out: Vec<(i64, i64)> = vec![];
    for a in axes {
        let (len, stride) = (k.axis(*a).len as i64, view.stride(*a));
        match out.last_mut() {
            _ if len == 1 => {}
            Some(last) if last.1 == stride * len => *last = (last.0 * len, stride),
            _ => out.push((len, stride)),
        }
    }
    out
}

impl Matrix {
    pub fn count(&self) -> i64 {
        self.lines.iter().map(|d| d.0).product()
    }
}

/// The elements from the first one to that with this number, along these dimensions.
fn spread(cx: &mut Cx, number: C, dims: &[(i64, i64)]) -> C {
    let b = &mut cx.g.e.b;
    let (mut rest, mut sum) = (number, C::Const(0));
    for (i, (len, stride)) in dims.iter().enumerate().rev() {
        let part = if i == 0 {
            rest
        } else {
            let (outer, inner) = coord::divmod(b, rest, *len);
            rest = outer;
            inner
        };
        let part = coord::mul(b, part, *stride);
        sum = coord::add(b, sum, part);
    }
    sum
}

impl Cx<'_> {
    /// Queries, keys or values of the batch that is fixed.
    pub fn matrix_of(&mut self, s: &Source, lines: &[KAxis], axes: &[KAxis], region: Region) -> Matrix {
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
        let (lines, along) = (dims(k, lines, &s.view), dims(k, axes, &s.view));
        let fits = |stride: i64| stride * bytes % 16 == 0;
        let batch = self.s.batch.iter().filter(|a| k.axis(**a).len > 1).all(|a| fits(s.view.stride(*a)));
        let neighbours = along.is_empty() || along.len() == 1 && along[0].1 == 1;
        let as_is = bytes == self.p.size && (dtype == DType::Bf16 || !s.rounded);
        let aligned = batch && fits(s.view.base) && fits(region.width) && lines.iter().all(|d| fits(d.1));
        let in_pieces = as_is && neighbours && aligned;
        Matrix { base, dtype, rounded: s.rounded, lines, along, region, in_pieces }
    }

    /// Brings so many lines from this one on to shared memory, where regions are counted from `to`.
    pub fn bring(&mut self, m: &Matrix, first: C, lines: i64, to: Reg) {
        // Where pieces go is computed anew each time: it would take the registers of results.
        self.g.e.b.open();
        if m.in_pieces {
            self.in_pieces(m, first, lines, to)
        } else {
            self.in_elements(m, first, lines, to)
        }
        self.g.e.b.close();
    }

    /// True where the number is below the end; nothing if it always is.
    pub fn below(&mut self, x: C, end: i64) -> Option<Reg> {
        if x.range().is_some_and(|r| r.1 < end) {
            return None;
        }
        let x = coord::int(&mut self.g.e.b, x);
        Some(self.g.e.b.setp(Cmp::Lt, Type::S32, x, Src::Int(end)))
    }
    fn both(&mut self, a: Option<Reg>, b: Option<Reg>) -> Option<Reg> {
        match (a, b) {
            (Some(x), Some(y)) => Some(self.g.e.b.binary(BinOp::And, Type::Pred, x, y)),
            (a, b) => a.or(b),
        }
    }

    fn in_pieces(&mut self, m: &Matrix, first: C, lines: i64, stage: Reg) {
        let size = self.p.size;
        let piece = 16 / size;
        let (pieces, wanted) = (m.region.padded / piece, m.region.width / piece);
        let total = lines * pieces;
        for start in (0..total).step_by(self.p.threads() as usize) {
            let id = coord::add(&mut self.g.e.b, self.tid, C::Const(start));
            let mine = self.below(id, total);
            let (line, place) = coord::divmod(&mut self.g.e.b, id, pieces);
            let to = self.shared_at(m.region, stage, line, place, 16);
            let line = coord::add(&mut self.g.e.b, first, line);
            let exists = self.below(line, m.count());
            let inside = self.below(place, wanted);
            let read = self.both(exists, inside);
            let b = &mut self.g.e.b;
            let line = coord::either(b, line, C::Const(m.count() - 1), BinOp::Min);
            let place = coord::either(b, place, C::Const(wanted - 1), BinOp::Min);
            let line = spread(self, line, &m.lines);
            let b = &mut self.g.e.b;
            let line = coord::mul(b, line, size);
            let place = coord::mul(b, place, 16);
            let from = coord::add(b, m.base, line);
            let C::Global(from, _) = coord::add(b, from, place) else { return };
            let read = read.map(|p| b.selp(Type::B32, p, Src::Int(16), Src::Int(0)));
            let from = Address { base: from, offset: 0 };
            b.guarded(mine.map(|p| (p, true)), Op::CpAsync { to, from, read });
        }
    }

    fn in_elements(&mut self, m: &Matrix, first: C, lines: i64, stage: Reg) {
        let threads = self.p.threads();
        let total = lines * m.region.padded;
        let rounds = (total + threads - 1) / threads;
        let (round, _) = self.g.e.begin(C::Const(0), C::Const(rounds), 1, false, true, &[]);
        let id = coord::mul(&mut self.g.e.b, round, threads);
        let id = coord::add(&mut self.g.e.b, id, self.tid);
        let mine = self.below(id, total);
        let (line, place) = coord::divmod(&mut self.g.e.b, id, m.region.padded);
        let to = self.shared_at(m.region, stage, line, place, self.p.size);
        let line = coord::add(&mut self.g.e.b, first, line);
        let (exists, inside) = (self.below(line, m.count()), self.below(place, m.region.width));
        let there = self.both(exists, inside);
        let there = self.both(there, mine);
        let (line, place) = (spread(self, line, &m.lines), spread(self, place, &m.along));
        let bytes = m.dtype.bytes() as i64;
        let b = &mut self.g.e.b;
        let line = coord::mul(b, line, bytes);
        let place = coord::mul(b, place, bytes);
        let from = coord::add(b, m.base, line);
        let address = coord::add(b, from, place);
        let guard = there.map(V::Reg);
        let x = memory::load(self.g.e, &Access { dtype: m.dtype, address, offset: 0, lane: Lane::Uniform, guard });
        let x = if m.rounded && self.p.size == 4 { self.g.e.cast(DType::F32, DType::Bf16, x) } else { x };
        arith_store(self.g.e, self.p.size, mine, to, x);
        self.g.e.end(&[]);
    }

    /// Where an element of a line lies in shared memory; it takes so many bytes.
    fn shared_at(&mut self, region: Region, stage: Reg, line: C, place: C, bytes: i64) -> Address {
        let b = &mut self.g.e.b;
        let line = coord::mul(b, line, region.pitch);
        let place = coord::mul(b, place, bytes);
        let at = coord::add(b, line, place);
        let base = match coord::add(b, C::Shared(stage), at) {
            C::Shared(r) => r,
            _ => stage,
        };
        Address { base, offset: region.at as i32 }
    }
}
