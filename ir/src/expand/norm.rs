//! Expansions of softmax, norms and rotations.
use super::Expander;
use crate::axis::AxisId;
use crate::graph::ValueId;
use crate::op::{Op, Unary};

impl Expander {
    pub(super) fn softmax(&mut self, x: ValueId, axis: AxisId) -> ValueId {
        let max = self.b.reduce_max(&[axis], x);
        let shifted = self.b.sub(x, max);
        let e = self.b.exp(shifted);
        let sum = self.b.sum(&[axis], e);
        self.b.div(e, sum)
    }

    /// The maximum along the axis, or 0 where it is infinite and subtracting it would give NaN.
    pub(super) fn finite_max(&mut self, x: ValueId, axis: AxisId) -> ValueId {
        let max = self.b.reduce_max(&[axis], x);
        let abs = self.b.unary(Unary::Abs, max);
        let (inf, zero) = (self.b.num(f32::INFINITY), self.b.num(0.0));
        let infinite = self.b.eq(abs, inf);
        self.b.select(infinite, zero, max)
    }

    pub(super) fn logsumexp(&mut self, x: ValueId, axis: AxisId) -> ValueId {
        let max = self.finite_max(x, axis);
        let shifted = self.b.sub(x, max);
        let e = self.b.exp(shifted);
        let sum = self.b.sum(&[axis], e);
        let log = self.b.log(sum);
        self.b.add(max, log)
    }

    /// x / sqrt(mean(x²) + eps), then times operand 1 and plus operand 2, where there are any.
    fn normalized(&mut self, x: ValueId, axis: AxisId, eps: f32, affine: &[ValueId]) -> ValueId {
        let square = self.b.mul(x, x);
        let mean = self.b.mean(&[axis], square);
        let eps = self.b.num(eps);
        let sum = self.b.add(mean, eps);
        let scale = self.b.unary(Unary::Rsqrt, sum);
        let mut y = self.b.mul(x, scale);
        if let Some(weight) = affine.first() {
            y = self.b.mul(y, *weight);
        }
        if let Some(bias) = affine.get(1) {
            y = self.b.add(y, *bias);
        }
        y
    }

    pub(super) fn layer_norm(&mut self, args: &[ValueId], axis: AxisId, eps: f32) -> ValueId {
        let mean = self.b.mean(&[axis], args[0]);
        let centered = self.b.sub(args[0], mean);
        self.normalized(centered, axis, eps, &args[1..])
    }

    pub(super) fn rms_norm(&mut self, args: &[ValueId], axis: AxisId, eps: f32) -> ValueId {
        self.normalized(args[0], axis, eps, &args[1..])
    }

    pub(super) fn rope(&mut self, x: ValueId, cos: ValueId, sin: ValueId, pair: AxisId) -> ValueId {
        let (x0, x1) = (self.b.at(x, pair, 0), self.b.at(x, pair, 1));
        let (x0c, x1s) = (self.b.mul(x0, cos), self.b.mul(x1, sin));
        let (x0s, x1c) = (self.b.mul(x0, sin), self.b.mul(x1, cos));
        let (y0, y1) = (self.b.sub(x0c, x1s), self.b.add(x0s, x1c));
        self.b.op(Op::Stack { axis: pair }, &[y0, y1])
    }
}
