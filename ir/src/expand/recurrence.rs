//! Expansions of the gated linear recurrence and its gradient.
use super::Expander;
use crate::axis::AxisId;
use crate::graph::ValueId;
use crate::op::{Op, Unary};

/// The parts of a gated recurrence, over the axes of its operands.
struct Gated {
    /// exp(log_a) and 1 - a², as they are without a reset.
    a: ValueId,
    rest: ValueId,
    /// What the recurrence multiplies the state by, and x by: 0 and 1 at a reset.
    decay: ValueId,
    scale: ValueId,
}

impl Expander {
    fn gated(&mut self, log_a: ValueId, reset: ValueId) -> Gated {
        let a = self.b.exp(log_a);
        let twice = self.b.scale(log_a, 2.0);
        let square = self.b.exp(twice);
        let (zero, one) = (self.b.num(0.0), self.b.num(1.0));
        let rest = self.b.sub(one, square);
        let root = self.b.unary(Unary::Sqrt, rest);
        let decay = self.b.select(reset, zero, a);
        let scale = self.b.select(reset, one, root);
        Gated { a, rest, decay, scale }
    }

    pub(super) fn gated_recurrence(&mut self, x: &[ValueId], time: AxisId) -> Vec<ValueId> {
        let Gated { decay, scale, .. } = self.gated(x[0], x[2]);
        let drive = self.b.mul(x[1], scale);
        let args: Vec<ValueId> = [decay, drive].into_iter().chain(x.get(3).copied()).collect();
        let h = self.b.op(Op::Recurrence { axis: time, reverse: false }, &args);
        let last = self.b.at(h, time, self.len(time) - 1);
        vec![h, last]
    }

    /// With G_t the gradient of h_t: G_t = dh_t + a_{t+1} G_{t+1}, a recurrence from the end. dx is G times the root; log_a
    /// gets G h_{t-1} a from the decay, and from the root G x times its slope times -2 a²; nothing at a reset.
    pub(super) fn gated_recurrence_grad(&mut self, x: &[ValueId], time: AxisId) -> Vec<ValueId> {
        let [log_a, input, reset, h] = [x[0], x[1], x[2], x[3]];
        let all = self.axes(input);
        let (h, dh) = (self.spread_to(h, all), self.spread_to(x[4], all));
        let Gated { a, rest, decay, scale } = self.gated(log_a, reset);
        let next = self.b.shift(decay, time, -1);
        let g = self.b.op(Op::Recurrence { axis: time, reverse: true }, &[next, dh]);
        let dx = self.b.mul(g, scale);

        let before = self.b.shift(h, time, 1);
        let carried = self.b.mul(a, before); // a_t h_{t-1}
        let four = self.b.scale(rest, 4.0);
        let floor = self.b.num(1e-6);
        let safe = self.b.max(four, floor);
        let slope = self.b.unary(Unary::Rsqrt, safe); // of the root
        let square = self.b.mul(a, a);
        let bend = self.b.mul(square, slope);
        let bend = self.b.scale(bend, 2.0);
        let lost = self.b.mul(input, bend);
        let rise = self.b.sub(carried, lost);
        let zero = self.b.num(0.0);
        let rise = self.b.select(reset, zero, rise);
        vec![self.b.mul(g, rise), dx]
    }
}
