//! Activations of one element.
use lolm_ir::op::Unary;
use lolm_ir::{Builder, ValueId};

/// `x · (1 + erf(x/√2)) / 2`
pub fn gelu(b: &mut Builder, x: ValueId) -> ValueId {
    let scaled = b.scale(x, std::f32::consts::FRAC_1_SQRT_2);
    let erf = b.unary(Unary::Erf, scaled);
    let one = b.num(1.0);
    let cdf2 = b.add(one, erf);
    let half = b.scale(x, 0.5);
    b.mul(half, cdf2)
}

/// `1 / (1 + exp(-x))`
pub fn sigmoid(b: &mut Builder, x: ValueId) -> ValueId {
    let minus = b.neg(x);
    let e = b.exp(minus);
    let one = b.num(1.0);
    let below = b.add(one, e);
    b.div(one, below)
}

/// `x · sigmoid(x)`
pub fn silu(b: &mut Builder, x: ValueId) -> ValueId {
    let s = sigmoid(b, x);
    b.mul(x, s)
}

/// `max(x, 0) + log(1 + exp(-|x|))`: log(1 + exp(x)) in the form that does not overflow.
pub fn softplus(b: &mut Builder, x: ValueId) -> ValueId {
    let (zero, one) = (b.num(0.0), b.num(1.0));
    let positive = b.max(x, zero);
    let abs = b.unary(Unary::Abs, x);
    let minus = b.neg(abs);
    let e = b.exp(minus);
    let sum = b.add(one, e);
    let rest = b.log(sum);
    b.add(positive, rest)
}

/// `min(max(x, lo), hi)`
pub fn clamp(b: &mut Builder, x: ValueId, lo: f32, hi: f32) -> ValueId {
    let (lo, hi) = (b.num(lo), b.num(hi));
    let above = b.max(x, lo);
    b.min(above, hi)
}
