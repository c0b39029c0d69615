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

/// `x · (1 + tanh(√(2/π) · (x + 0.044715 x³))) / 2`
pub fn gelu_tanh(b: &mut Builder, x: ValueId) -> ValueId {
    let square = b.mul(x, x);
    let cube = b.mul(square, x);
    let bent = b.scale(cube, 0.044715);
    let inner = b.add(x, bent);
    let scaled = b.scale(inner, (std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2) as f32);
    let tanh = b.unary(Unary::Tanh, scaled);
    let one = b.num(1.0);
    let twice = b.add(one, tanh);
    let half = b.scale(x, 0.5);
    b.mul(half, twice)
}

/// `cap · tanh(x / cap)`
pub fn soft_cap(b: &mut Builder, x: ValueId, cap: f32) -> ValueId {
    let limit = b.num(cap);
    let part = b.div(x, limit);
    let tanh = b.unary(Unary::Tanh, part);
    b.mul(limit, tanh)
}

/// `√x` with a derivative of at most 1000: `1/√max(4x, 1e-6)`. The line through the value with that slope is added as
/// `slope · (x - x)`, which is zero, and whose derivative is the slope.
pub fn sqrt_bounded(b: &mut Builder, x: ValueId) -> ValueId {
    let root = b.unary(Unary::Sqrt, x);
    let value = b.stop_gradient(root);
    let four = b.scale(x, 4.0);
    let floor = b.num(1e-6);
    let safe = b.max(four, floor);
    let slope = b.unary(Unary::Rsqrt, safe);
    let slope = b.stop_gradient(slope);
    let here = b.stop_gradient(x);
    let apart = b.sub(x, here);
    let line = b.mul(slope, apart);
    b.add(value, line)
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
