//! Derivatives of fused operations: fused ones where the language has them, and otherwise few row kernels.
use super::{Backward, DiffError, Local};
use lolm_ir::axis::AxisId;
use lolm_ir::graph::ValueId;
use lolm_ir::op::{Attention, Op, Unary};

impl Backward {
    /// dx = y (g - Σ g y)
    pub(super) fn softmax(&mut self, n: &Local, axis: AxisId, g: ValueId) {
        let weighted = self.b.mul(g, n.y);
        let total = self.b.sum(&[axis], weighted);
        let centred = self.b.sub(g, total);
        let share = self.b.mul(n.y, centred);
        self.give(n.args[0], share, n.axes);
    }

    /// dx = g exp(x - y)
    pub(super) fn logsumexp(&mut self, n: &Local, g: ValueId) {
        let x = n.args[0];
        let below = self.b.sub(x, n.y);
        let weight = self.b.exp(below);
        let share = self.b.mul(g, weight);
        self.give(x, share, self.axes(x));
    }

    /// With x̂ = (x - μ)·r and e = g·weight: dx = r (e - mean e - x̂ mean(e x̂)).
    pub(super) fn layer_norm(&mut self, n: &Local, axis: AxisId, eps: u32, g: ValueId) {
        let x = n.args[0];
        let mean = self.b.mean(&[axis], x);
        let centred = self.b.sub(x, mean);
        let (normal, rstd) = self.normalised(centred, axis, eps);
        let e = self.weighted(n, g, normal);
        if self.wants(x) {
            let shift = self.mean_along(e, axis);
            let apart = self.b.sub(e, shift);
            self.give_norm(n, axis, apart, e, normal, rstd);
        }
        if let Some(bias) = n.args.get(2) {
            self.give(*bias, g, n.axes);
        }
    }

    /// With x̂ = x·r and e = g·weight: dx = r (e - x̂ mean(e x̂)).
    pub(super) fn rms_norm(&mut self, n: &Local, axis: AxisId, eps: u32, g: ValueId) {
        let (normal, rstd) = self.normalised(n.args[0], axis, eps);
        let e = self.weighted(n, g, normal);
        if self.wants(n.args[0]) {
            self.give_norm(n, axis, e, e, normal, rstd);
        }
    }

    /// x·r and r = 1/sqrt(mean(x²) + eps), computed again rather than kept.
    fn normalised(&mut self, x: ValueId, axis: AxisId, eps: u32) -> (ValueId, ValueId) {
        let squared = self.b.mul(x, x);
        let spread = self.b.mean(&[axis], squared);
        let eps = self.num(x, f32::from_bits(eps) as f64);
        let padded = self.b.add(spread, eps);
        let rstd = self.b.unary(Unary::Rsqrt, padded);
        (self.b.mul(x, rstd), rstd)
    }

    /// Gives the weight of a norm its share and returns the adjoint of the normalised value.
    fn weighted(&mut self, n: &Local, g: ValueId, normal: ValueId) -> ValueId {
        let Some(weight) = n.args.get(1).copied() else { return g };
        if self.wants(weight) {
            let share = self.b.mul(g, normal);
            self.give(weight, share, n.axes);
        }
        self.b.mul(g, weight)
    }

    /// Gives x its share r (apart - x̂ mean(e x̂)).
    fn give_norm(&mut self, n: &Local, axis: AxisId, apart: ValueId, e: ValueId, normal: ValueId, rstd: ValueId) {
        let product = self.b.mul(e, normal);
        let along = self.b.mean(&[axis], product);
        let component = self.b.mul(normal, along);
        let rest = self.b.sub(apart, component);
        let share = self.b.mul(rest, rstd);
        self.give(n.args[0], share, n.axes);
    }

    /// The adjoint turns by the opposite angle.
    pub(super) fn rope(&mut self, n: &Local, pair: AxisId, g: ValueId) {
        let (x, cos, sin) = (n.args[0], n.args[1], n.args[2]);
        let g = self.broadcast(g, pair.into());
        if self.wants(x) {
            let back = self.b.neg(sin);
            let share = self.b.op(Op::Rope { pair }, &[g, cos, back]);
            self.give(x, share, n.axes);
        }
        if self.wants(cos) {
            let product = self.b.mul(g, x);
            self.give(cos, product, n.axes);
        }
        if self.wants(sin) {
            let [(x0, x1), (g0, g1)] = [x, g].map(|v| (self.b.at(v, pair, 0), self.b.at(v, pair, 1)));
            let (forth, back) = (self.b.mul(g1, x0), self.b.mul(g0, x1));
            let share = self.b.sub(forth, back);
            self.give(sin, share, n.axes.without(pair));
        }
    }

    /// y_t = Σ_j w_j x_{t-lag}, with lag = taps - 1 - j: the input gets a correlation as a sum of shifts, and each tap of
    /// the weight the product with the input at its lag.
    pub(super) fn causal_conv(&mut self, n: &Local, time: AxisId, tap: AxisId, g: ValueId) {
        let (x, weight) = (n.args[0], n.args[1]);
        let taps = self.len(tap);
        if let Some(bias) = n.args.get(2) {
            self.give(*bias, g, n.axes);
        }
        let g = self.broadcast(g, time.into());
        if self.wants(x) {
            let mut sum = None;
            for j in 0..taps {
                let w = self.b.at(weight, tap, j);
                let later = self.b.shift(g, time, -((taps - 1 - j) as i64));
                let term = self.b.mul(later, w);
                sum = Some(sum.map_or(term, |s| self.b.add(s, term)));
            }
            if let Some(share) = sum {
                self.give(x, share, n.axes);
            }
        }
        if self.wants(weight) {
            let lacking = n.axes.minus(self.axes(weight));
            for j in 0..taps {
                let earlier = self.b.shift(x, time, (taps - 1 - j) as i64);
                let product = self.b.mul(g, earlier);
                let share = self.sum_over(product, lacking);
                self.give_element(weight, tap, j, share);
            }
        }
    }

    pub(super) fn cross_entropy(&mut self, n: &Local, results: &[Option<ValueId>]) -> Result<(), DiffError> {
        let Op::CrossEntropy { vocab, over, cap } = n.op else { return self.refuse(n, "bug: not a cross-entropy") };
        let [Some(g), None] = results else {
            return self.refuse(n, "the log of the sum of exponentials must carry no gradient");
        };
        let lse = self.b.part(n.y, 1);
        let op = Op::CrossEntropyGrad { vocab, over, cap };
        let grads = self.b.op(op, &[n.args[0], n.args[1], n.args[2], lse, *g]);
        self.give_parts(&n.args[..2], grads);
        Ok(())
    }

    pub(super) fn attention(&mut self, n: &Local, a: &Attention, results: &[Option<ValueId>]) -> Result<(), DiffError> {
        let [Some(g), None] = results else {
            return self.refuse(n, "the log of the softmax's denominator must carry no gradient");
        };
        let lse = self.b.part(n.y, 1);
        let g = self.broadcast(*g, n.axes);
        let mut args = n.args.clone();
        args.extend([n.y, lse, g]);
        let grads = self.b.op(Op::AttentionGrad(*a), &args);
        self.give_parts(&n.args[..3], grads);
        Ok(())
    }

    pub(super) fn selective_scan(
        &mut self,
        n: &Local,
        time: AxisId,
        state: AxisId,
        results: &[Option<ValueId>],
    ) -> Result<(), DiffError> {
        let [Some(g), None] = results else {
            return self.refuse(n, "the last state must carry no gradient");
        };
        if n.args.len() > 5 {
            return self.refuse(n, "a scan with an initial state has no gradient");
        }
        let g = self.broadcast(*g, n.axes);
        let mut args = n.args.clone();
        args.push(g);
        let grads = self.b.op(Op::SelectiveScanGrad { time, state }, &args);
        self.give_parts(&n.args, grads);
        Ok(())
    }

    /// The states are a result of the forward operation, so they are kept rather than computed again.
    pub(super) fn gated_recurrence(
        &mut self,
        n: &Local,
        time: AxisId,
        results: &[Option<ValueId>],
    ) -> Result<(), DiffError> {
        let [Some(g), None] = results else {
            return self.refuse(n, "the last state must carry no gradient");
        };
        if n.args.len() > 3 {
            return self.refuse(n, "a recurrence with an initial state has no gradient");
        }
        let [log_a, x, dh] = [n.args[0], n.args[1], *g].map(|v| self.broadcast(v, n.axes));
        let grads = self.b.op(Op::GatedRecurrenceGrad { time }, &[log_a, x, n.args[2], n.y, dh]);
        for i in 0..2 {
            if self.wants(n.args[i]) {
                let share = self.b.part(grads, i);
                self.give(n.args[i], share, n.axes);
            }
        }
        Ok(())
    }

    /// Gives operand i result i of `grads`, which has the operand's axes.
    fn give_parts(&mut self, operands: &[ValueId], grads: ValueId) {
        for (i, x) in operands.iter().enumerate() {
            if self.wants(*x) {
                let share = self.b.part(grads, i);
                self.give(*x, share, self.axes(*x));
            }
        }
    }
}
