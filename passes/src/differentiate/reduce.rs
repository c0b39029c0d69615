//! Derivatives of reductions, dot and the linear recurrence.
use super::{Backward, Local};
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::graph::ValueId;
use lolm_ir::op::{Op, Reduction};

impl Backward {
    pub(super) fn reduce(&mut self, n: &Local, kind: Reduction, axes: AxisSet, g: ValueId) {
        let x = n.args[0];
        if !self.wants(x) {
            return;
        }
        let domain = self.axes(x);
        let share = match kind {
            Reduction::Sum => g,
            Reduction::Mean => {
                // A division, because the count is exact in f32 and its inverse is not; g has one element a row.
                let count = self.num(g, self.b.graph().elements(axes) as f64);
                self.b.div(g, count)
            }
            Reduction::Max => {
                // Equal maxima share the gradient, which makes it a subgradient.
                let (one, zero) = (self.num(x, 1.0), self.num(x, 0.0));
                let hit = self.b.eq(x, n.y);
                let ones = self.b.select(hit, one, zero); // [x]
                let count = self.b.op(Op::Reduce { kind: Reduction::Sum, axes }, &[ones]);
                let each = self.b.div(g, count);
                self.b.select(hit, each, zero)
            }
        };
        self.give(x, share, domain);
    }

    /// Each operand gets the adjoint dotted with the other one over the axes which only the other one has.
    pub(super) fn dot(&mut self, n: &Local, g: ValueId) {
        for (v, other) in [(n.args[0], n.args[1]), (n.args[1], n.args[0])] {
            if !self.wants(v) {
                continue;
            }
            let over = self.axes(other).minus(self.axes(v));
            let shared = over.intersection(self.axes(g));
            let other = self.sum_over(other, over.minus(shared));
            let share =
                if shared.is_empty() { self.b.mul(g, other) } else { self.b.op(Op::Dot { axes: shared }, &[g, other]) };
            self.give(v, share, AxisSet::EMPTY);
        }
    }

    /// S_t = a_t S_{t-1} + b_t has the adjoint λ_t = g_t + a_{t+1} λ_{t+1}, a recurrence the other way.
    pub(super) fn recurrence(&mut self, n: &Local, axis: AxisId, reverse: bool, g: ValueId) {
        let (a, b, init) = (n.args[0], n.args[1], n.args.get(2).copied());
        let (step, first) = if reverse { (-1, self.len(axis) - 1) } else { (1, 0) };
        let next = if self.axes(a).has(axis) { self.b.shift(a, axis, -step) } else { a };
        let lambda = self.b.op(Op::Recurrence { axis, reverse: !reverse }, &[next, g]);
        self.give(b, lambda, n.axes);
        if self.wants(a) {
            let shifted = self.b.shift(n.y, axis, step); // S_{t-1}, zero at the start
            let before = match init {
                None => shifted,
                Some(init) => {
                    let (index, start) = (self.b.iota(axis), self.b.int(first as i32));
                    let at_start = self.b.eq(index, start); // [axis]
                    self.b.select(at_start, init, shifted)
                }
            };
            let share = self.b.mul(lambda, before);
            self.give(a, share, n.axes);
        }
        if let Some(init) = init
            && self.wants(init)
        {
            let begin = self.b.at(lambda, axis, first);
            let decay = if self.axes(a).has(axis) { self.b.at(a, axis, first) } else { a };
            let share = self.b.mul(begin, decay);
            self.give(init, share, n.axes.without(axis));
        }
    }
}
