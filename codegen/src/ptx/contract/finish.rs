//! What follows the sums: they go through shared memory, where parts of the depth meet, to threads that run along the
//! elements as memory has them; each evaluates the rest of the kernel there and stores it. Sums that do not fit go in
//! rounds.
use super::product::cone;
use super::stage::{less, split};
use super::tile::{Cx, Layout, Side, Sums};
use crate::emit::{Access, Bin, Emit};
use crate::eval::{Gives, SLOTS};
use crate::place::Base;
use crate::ptx::coord::{self, C};
use crate::ptx::inst::*;
use crate::ptx::simt::{Simt, V};
use lolm_ir::DType;
use lolm_ir::kernel::{KAxes, KAxis, KValue};

/// Elements of a thread whose loads all come before their stores.
const TOGETHER: i64 = 4;

/// The lines of a round that a thread finishes: the first, and one in so many.
struct Lines<'a> {
    side: &'a Side,
    first: C,
    step: i64,
    round: C,
}

impl Cx<'_> {
    /// Leaves the sums of a round in shared memory. All threads are done with what lay there.
    fn leave(&mut self, sums: &Sums, l: &Layout, round: C) -> Gives<()> {
        let b = &mut self.g.e.b;
        let (outer, inner) = if l.along_rows { (sums.col, sums.row) } else { (sums.row, sums.col) };
        let (of, outer) = coord::divmod(b, outer, l.sum_words / l.sum_pitch);
        let at = coord::mul(b, outer, l.sum_pitch);
        let at = coord::add(b, at, inner);
        let part = coord::mul(b, sums.part, l.sum_words);
        let at = coord::add(b, at, part);
        let at = coord::mul(b, at, 4);
        let C::Shared(base) = coord::add(b, C::Shared(self.shared), at) else { return Ok(()) };
        let store = |cx: &mut Self| {
            for (a, (row, col)) in sums.registers.iter().zip(&sums.places) {
                let (outer, inner) = if l.along_rows { (col, row) } else { (row, col) };
                let offset = (outer * l.sum_pitch + inner) as i32 * 4;
                cx.g.e.b.op(Op::St { space: Space::Shared, ty: Type::F32, a: *a, at: Address { base, offset } });
            }
            Ok(())
        };
        if l.rounds == 1 {
            store(self)?;
        } else {
            let (of, round) = (coord::int(&mut self.g.e.b, of), coord::int(&mut self.g.e.b, round));
            let mine = self.g.e.b.compare(Cmp::Eq, Type::S32, of, round);
            self.where_holds(mine, store)?;
        }
        self.g.e.b.op(Op::SyncBlock);
        Ok(())
    }

    /// Evaluates and stores the tile.
    pub fn finish(&mut self, sums: &Sums, l: &Layout, sides: &[Side; 2]) -> Gives<()> {
        if l.rounds == 1 {
            return self.finish_round(sums, l, sides, C::Const(0));
        }
        let (round, _) = self.g.e.begin(C::Const(0), C::Const(l.rounds), 1, false, true, &[]);
        self.g.open_scope(KAxes::EMPTY);
        self.finish_round(sums, l, sides, round)?;
        self.g.scopes.pop();
        self.g.e.b.op(Op::SyncBlock);
        self.g.e.end(&[]);
        Ok(())
    }

    fn finish_round(&mut self, sums: &Sums, l: &Layout, sides: &[Side; 2], round: C) -> Gives<()> {
        self.leave(sums, l, round)?;
        let inputs: Vec<KValue> =
            self.p.sinks.iter().flat_map(|s| self.g.sink_inputs(crate::sink::Sink::Write(*s))).collect();
        let mut values = cone(self.g.k, &inputs, |v| v == self.p.result);
        let known = |v: &KValue| !cone(self.g.k, &[*v], |u| u == self.p.result).contains(&self.p.result);
        values.retain(known);
        values.extend(&self.p.sinks);
        self.hoist(&values)?;
        let (inner, outer) = if l.along_rows { (&sides[0], &sides[1]) } else { (&sides[1], &sides[0]) };
        let threads = self.threads();
        // Threads that stand beside each other on one line, and lines at once.
        let beside = threads.min(inner.extent);
        let b = &mut self.g.e.b;
        let (line, place) = coord::divmod(b, self.tid, beside);
        let lines = Lines { side: outer, first: line, step: threads / beside, round };
        for start in (0..inner.extent).step_by(beside as usize) {
            let place = coord::add(&mut self.g.e.b, place, C::Const(start));
            self.columns(&values, l, (inner, place), &lines)?;
        }
        Ok(())
    }

    /// All elements at one place of a line, every so many lines.
    fn columns(&mut self, values: &[KValue], l: &Layout, (inner, place): (&Side, C), lines: &Lines) -> Gives<()> {
        let Lines { side: outer, first: line, step, .. } = *lines;
        self.g.open_scope(inner.lines.iter().copied().collect());
        let inside = self.fix_line(inner, place);
        self.g.only = inside.map(V::Reg);
        self.hoist(values)?;
        let all = outer.extent / l.rounds;
        let together = (all / step).min(TOGETHER);
        let (turn, _) = self.g.e.begin(C::Const(0), C::Const(all / step / together), 1, false, true, &[]);
        let b = &mut self.g.e.b;
        let first = coord::mul(b, turn, step * together);
        let first = coord::add(b, first, line);
        let before = coord::mul(b, lines.round, all);
        let mut stores = vec![];
        for i in 0..together {
            let line = coord::add(&mut self.g.e.b, first, C::Const(i * step));
            let sum = self.sum(l, line, place);
            let line = coord::add(&mut self.g.e.b, before, line);
            stores.extend(self.element_at(outer, line, inside, sum)?);
        }
        for (access, x) in stores {
            self.g.e.store(&access, x);
        }
        self.g.e.end(&[]);
        self.g.only = None;
        self.g.scopes.pop();
        self.clear(&inner.lines);
        Ok(())
    }

    /// Fixes the axes of a line of this tile, and tells whether it exists.
    fn fix_line(&mut self, side: &Side, line: C) -> Option<Reg> {
        let b = &mut self.g.e.b;
        let line = coord::add(b, side.first, line);
        let exists = (side.len % side.extent != 0).then(|| less(b, line, side.len));
        for (a, c) in split(self.g.e, self.g.k, &side.lines, line) {
            self.fix(a, c, 0);
        }
        exists
    }

    /// The sum of the parts of an element.
    fn sum(&mut self, l: &Layout, line: C, place: C) -> V {
        let b = &mut self.g.e.b;
        let at = coord::mul(b, line, l.sum_pitch);
        let at = coord::add(b, at, place);
        let at = coord::mul(b, at, 4);
        let mut sum = V::F32(0.0);
        let C::Shared(base) = coord::add(b, C::Shared(self.shared), at) else { return sum };
        for part in 0..self.t.at_once {
            let d = self.g.e.b.reg(Class::F32);
            let at = Address { base, offset: (part * l.sum_words * 4) as i32 };
            self.g.e.b.op(Op::Ld { space: Space::Shared, ty: Type::F32, d, at });
            sum = match self.t.at_once {
                1 => V::Reg(d),
                _ => self.g.e.binary(Bin::Add, DType::F32, sum, V::Reg(d)),
            };
        }
        sum
    }

    /// What is to be stored at an element, and where.
    fn element_at(&mut self, outer: &Side, line: C, inside: Option<Reg>, sum: V) -> Gives<Vec<(Access<Simt>, V)>> {
        let axes: KAxes = outer.lines.iter().copied().collect();
        self.g.open_scope(axes);
        let exists = self.fix_line(outer, line);
        let exists = self.g.and(exists.map(V::Reg), inside.map(V::Reg));
        let before = std::mem::replace(&mut self.g.only, exists);
        self.g.set(self.p.result, &[0; SLOTS], sum);
        let mut out = vec![];
        for s in &self.p.sinks {
            let stored = self.g.stored(*s);
            let x = self.g.eval(stored, &[0; SLOTS])?;
            let Some((o, view)) = self.g.k.value(*s).access() else { return Err(self.g.nowhere(*s)) };
            self.g.e.note(s.0);
            out.push((self.g.access(*s, Base::Operand(o), view, &[0; SLOTS])?, x));
        }
        self.g.only = before;
        self.g.scopes.pop();
        self.clear(&outer.lines);
        Ok(out)
    }

    fn clear(&mut self, axes: &[KAxis]) {
        for a in axes {
            self.g.at[a.0 as usize] = None;
        }
    }
}
