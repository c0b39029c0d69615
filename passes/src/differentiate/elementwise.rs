//! Derivatives of functions of one element at a time.
use super::{Backward, Local};
use lolm_ir::graph::ValueId;
use lolm_ir::op::{Binary, Unary};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

impl Backward {
    pub(super) fn unary(&mut self, n: &Local, u: Unary, g: ValueId) {
        let (x, y) = (n.args[0], n.y);
        if !self.wants(x) {
            return;
        }
        let share = match u {
            Unary::Not => return,
            Unary::Neg => self.b.neg(g),
            Unary::Abs => self.abs(x, g),
            Unary::Exp => self.b.mul(g, y),
            Unary::Log => self.b.div(g, x),
            Unary::Sqrt => {
                let half = self.scaled(g, 0.5);
                self.b.div(half, y)
            }
            Unary::Rsqrt => {
                let squared = self.b.mul(y, y);
                let cubed = self.b.mul(squared, y);
                let slope = self.scaled(cubed, -0.5); // -1/2 x^(-3/2)
                self.b.mul(g, slope)
            }
            Unary::Erf => {
                let bell = self.exp_of_square(x, -1.0);
                let slope = self.scaled(bell, FRAC_2_SQRT_PI);
                self.b.mul(g, slope)
            }
            Unary::Tanh => {
                let squared = self.b.mul(y, y);
                let rest = self.b.mul(g, squared);
                self.b.sub(g, rest)
            }
            Unary::Sigmoid => {
                let squared = self.b.mul(y, y);
                let slope = self.b.sub(y, squared);
                self.b.mul(g, slope)
            }
            Unary::Silu => self.silu(x, y, g),
            Unary::Gelu => self.gelu(x, g),
            Unary::GeluTanh => self.gelu_tanh(x, y, g),
            Unary::Softplus => {
                let slope = self.b.unary(Unary::Sigmoid, x);
                self.b.mul(g, slope)
            }
        };
        self.give(x, share, n.axes);
    }

    /// The sign of x times g, 0 at 0.
    fn abs(&mut self, x: ValueId, g: ValueId) -> ValueId {
        let zero = self.num(x, 0.0);
        let (above, below) = (self.b.lt(zero, x), self.b.lt(x, zero));
        let negative = self.b.neg(g);
        let rest = self.b.select(below, negative, zero);
        self.b.select(above, g, rest)
    }

    /// exp(factor · x²)
    fn exp_of_square(&mut self, x: ValueId, factor: f64) -> ValueId {
        let squared = self.b.mul(x, x);
        let scaled = self.scaled(squared, factor);
        self.b.exp(scaled)
    }

    /// silu' = s + y (1 - s), with s = sigmoid(x) and y = x s.
    fn silu(&mut self, x: ValueId, y: ValueId, g: ValueId) -> ValueId {
        let s = self.b.unary(Unary::Sigmoid, x);
        let one = self.num(x, 1.0);
        let rest = self.b.sub(one, s);
        let bent = self.b.mul(y, rest);
        let slope = self.b.add(s, bent);
        self.b.mul(g, slope)
    }

    /// gelu' = Φ(x) + x φ(x), of the normal distribution.
    fn gelu(&mut self, x: ValueId, g: ValueId) -> ValueId {
        let inner = self.scaled(x, FRAC_1_SQRT_2);
        let erf = self.b.unary(Unary::Erf, inner);
        let half = self.scaled(erf, 0.5);
        let shift = self.num(x, 0.5);
        let below = self.b.add(half, shift); // Φ
        let bell = self.exp_of_square(x, -0.5);
        let density = self.scaled(bell, 0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2); // φ
        let bent = self.b.mul(x, density);
        let slope = self.b.add(below, bent);
        self.b.mul(g, slope)
    }

    /// With s = (1 + tanh u) / 2 = sigmoid(2u), u = c (x + k x³) and y = x s: gelu_tanh' = s + y (1 - s) 2c (1 + 3k x²).
    fn gelu_tanh(&mut self, x: ValueId, y: ValueId, g: ValueId) -> ValueId {
        const K: f64 = 0.044715;
        let c2 = 2.0 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
        let one = self.num(x, 1.0);
        let squared = self.b.mul(x, x);
        let bend = self.scaled(squared, K);
        let bend = self.b.add(one, bend);
        let inner = self.b.mul(x, bend);
        let inner = self.scaled(inner, c2); // 2u
        let s = self.b.unary(Unary::Sigmoid, inner);
        let rest = self.b.sub(one, s);
        let bent = self.b.mul(y, rest);
        let rise = self.scaled(squared, 3.0 * K * c2);
        let start = self.num(x, c2);
        let rise = self.b.add(start, rise); // 2u'
        let bent = self.b.mul(bent, rise);
        let slope = self.b.add(s, bent);
        self.b.mul(g, slope)
    }

    pub(super) fn binary(&mut self, n: &Local, b: Binary, g: ValueId) {
        let (x, y) = (n.args[0], n.args[1]);
        match b {
            Binary::Add => {
                self.give(x, g, n.axes);
                self.give(y, g, n.axes);
            }
            Binary::Sub => {
                self.give(x, g, n.axes);
                let negative = self.b.neg(g);
                self.give(y, negative, n.axes);
            }
            Binary::Mul => {
                self.give_product(x, g, y, n);
                self.give_product(y, g, x, n);
            }
            Binary::Div => {
                let share = self.b.div(g, y);
                self.give(x, share, n.axes);
                if self.wants(y) {
                    let bent = self.b.mul(share, n.y);
                    let negative = self.b.neg(bent); // -g x / y²
                    self.give(y, negative, n.axes);
                }
            }
            Binary::Max => self.route(n, g, |back, x, y| back.b.le(y, x)),
            Binary::Min => self.route(n, g, |back, x, y| back.b.le(x, y)),
            // Integers and booleans carry no gradient.
            Binary::Rem | Binary::Lt | Binary::Le | Binary::Eq | Binary::And => {}
        }
    }

    /// Gives v the product g·other.
    fn give_product(&mut self, v: ValueId, g: ValueId, other: ValueId, n: &Local) {
        if self.wants(v) {
            let share = self.b.mul(g, other);
            self.give(v, share, n.axes);
        }
    }

    /// The larger (or smaller) operand gets all of g. A tie goes to the first, or to the only one that carries gradient:
    /// so a clamp to constant bounds has derivative 1 on its bounds in either order of operands.
    fn route(&mut self, n: &Local, g: ValueId, wins: fn(&mut Self, ValueId, ValueId) -> ValueId) {
        let (first, second) = if self.wants(n.args[0]) { (n.args[0], n.args[1]) } else { (n.args[1], n.args[0]) };
        let zero = self.num(g, 0.0);
        let won = wins(self, first, second);
        let share = self.b.select(won, g, zero);
        self.give(first, share, n.axes);
        if self.wants(second) {
            let share = self.b.select(won, zero, g);
            self.give(second, share, n.axes);
        }
    }

    pub(super) fn select(&mut self, n: &Local, g: ValueId) {
        let (cond, x, y) = (n.args[0], n.args[1], n.args[2]);
        let zero = self.num(g, 0.0);
        if self.wants(x) {
            let share = self.b.select(cond, g, zero);
            self.give(x, share, n.axes);
        }
        if self.wants(y) {
            let share = self.b.select(cond, zero, g);
            self.give(y, share, n.axes);
        }
    }

    pub(super) fn cast(&mut self, n: &Local, g: ValueId) {
        let x = n.args[0];
        if self.wants(x) {
            let to = self.dtype(x);
            let share = self.b.cast(g, to);
            self.give(x, share, n.axes);
        }
    }

    /// y = m·a + (1 - m)·b
    pub(super) fn mix(&mut self, n: &Local, g: ValueId) {
        let (m, a, b) = (n.args[0], n.args[1], n.args[2]);
        if self.wants(m) {
            let apart = self.b.sub(a, b);
            let share = self.b.mul(g, apart);
            self.give(m, share, n.axes);
        }
        self.give_product(a, g, m, n);
        if self.wants(b) {
            let one = self.num(m, 1.0);
            let rest = self.b.sub(one, m);
            let share = self.b.mul(g, rest);
            self.give(b, share, n.axes);
        }
    }
}
