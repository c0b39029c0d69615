//! Expansions of the elementwise fused operations.
use super::Expander;
use crate::graph::ValueId;
use crate::op::Unary;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

impl Expander {
    pub(super) fn sigmoid(&mut self, x: ValueId) -> ValueId {
        let minus = self.b.neg(x);
        let e = self.b.exp(minus);
        let one = self.b.num(1.0);
        let denominator = self.b.add(one, e);
        self.b.div(one, denominator)
    }

    pub(super) fn silu(&mut self, x: ValueId) -> ValueId {
        let s = self.sigmoid(x);
        self.b.mul(x, s)
    }

    /// The root of 2 is taken in the graph, where it is not rounded to f32 by the oracle.
    pub(super) fn gelu(&mut self, x: ValueId) -> ValueId {
        let two = self.b.num(2.0);
        let root = self.b.unary(Unary::Sqrt, two);
        let scaled = self.b.div(x, root);
        let erf = self.b.unary(Unary::Erf, scaled);
        let one = self.b.num(1.0);
        let sum = self.b.add(one, erf);
        let product = self.b.mul(x, sum);
        self.b.scale(product, 0.5)
    }

    /// The root of 2/π is rounded to f32, as a model writes it.
    pub(super) fn gelu_tanh(&mut self, x: ValueId) -> ValueId {
        let square = self.b.mul(x, x);
        let cube = self.b.mul(square, x);
        let bent = self.b.scale(cube, 0.044715);
        let inner = self.b.add(x, bent);
        let scaled = self.b.scale(inner, (FRAC_2_SQRT_PI * FRAC_1_SQRT_2) as f32);
        let tanh = self.b.unary(Unary::Tanh, scaled);
        let one = self.b.num(1.0);
        let sum = self.b.add(one, tanh);
        let product = self.b.mul(x, sum);
        self.b.scale(product, 0.5)
    }

    pub(super) fn softplus(&mut self, x: ValueId) -> ValueId {
        let (zero, one) = (self.b.num(0.0), self.b.num(1.0));
        let positive = self.b.max(x, zero);
        let abs = self.b.unary(Unary::Abs, x);
        let minus = self.b.neg(abs);
        let e = self.b.exp(minus);
        let sum = self.b.add(one, e);
        let log = self.b.log(sum);
        self.b.add(positive, log)
    }

    pub(super) fn mix(&mut self, g: ValueId, a: ValueId, b: ValueId) -> ValueId {
        let one = self.b.num(1.0);
        let rest = self.b.sub(one, g);
        let (x, y) = (self.b.mul(g, a), self.b.mul(rest, b));
        self.b.add(x, y)
    }
}
