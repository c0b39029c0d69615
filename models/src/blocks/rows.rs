//! Functions of a row: a whole axis at a time.
use lolm_ir::op::Unary;
use lolm_ir::{AxisId, Builder, ValueId};

/// `(x - mean) / sqrt(var + 1e-5) · weight + bias` with the biased variance.
pub fn layer_norm(b: &mut Builder, axis: AxisId, x: ValueId, (weight, bias): (ValueId, ValueId)) -> ValueId {
    let mean = b.mean(&[axis], x);
    let centred = b.sub(x, mean);
    let square = b.mul(centred, centred);
    let var = b.mean(&[axis], square);
    let eps = b.num(1e-5);
    let safe = b.add(var, eps);
    let inv = b.unary(Unary::Rsqrt, safe);
    let normal = b.mul(centred, inv);
    let scaled = b.mul(normal, weight);
    b.add(scaled, bias)
}

/// What a norm multiplies its rows by.
#[derive(Clone, Copy, Debug)]
pub enum Gain {
    One,
    Weight(ValueId),
    /// `1 + weight`, for weights that start at zero.
    OnePlus(ValueId),
}

/// `x / sqrt(mean(x²) + eps)`, times the gain.
pub fn rms_norm(b: &mut Builder, axis: AxisId, x: ValueId, gain: Gain, eps: f32) -> ValueId {
    let square = b.mul(x, x);
    let mean = b.mean(&[axis], square);
    let eps = b.num(eps);
    let safe = b.add(mean, eps);
    let inv = b.unary(Unary::Rsqrt, safe);
    let normal = b.mul(x, inv);
    match gain {
        Gain::One => normal,
        Gain::Weight(weight) => b.mul(normal, weight),
        Gain::OnePlus(weight) => {
            let one = b.num(1.0);
            let gain = b.add(one, weight);
            b.mul(normal, gain)
        }
    }
}

/// `exp(x - max) / Σ exp(x - max)`
pub fn softmax(b: &mut Builder, axis: AxisId, x: ValueId) -> ValueId {
    let max = b.reduce_max(&[axis], x);
    let shifted = b.sub(x, max);
    let e = b.exp(shifted);
    let sum = b.sum(&[axis], e);
    b.div(e, sum)
}

/// `max + log Σ exp(x - max)`
pub fn log_sum_exp(b: &mut Builder, axis: AxisId, x: ValueId) -> ValueId {
    let max = b.reduce_max(&[axis], x);
    let shifted = b.sub(x, max);
    let e = b.exp(shifted);
    let sum = b.sum(&[axis], e);
    let log = b.log(sum);
    b.add(max, log)
}

/// `-Σ p log max(p, 1e-7)`
pub fn entropy(b: &mut Builder, axis: AxisId, p: ValueId) -> ValueId {
    let floor = b.num(1e-7);
    let safe = b.max(p, floor);
    let log = b.log(safe);
    let term = b.mul(p, log);
    let sum = b.sum(&[axis], term);
    b.neg(sum)
}

/// `x / max(‖x‖, 1e-6)`. The clamp stands under the root, so that the gradient at zero is zero and not a number over
/// zero; the cosine of two values is the sum of the products of their units.
pub fn unit(b: &mut Builder, axis: AxisId, x: ValueId) -> ValueId {
    let square = b.mul(x, x);
    let sum = b.sum(&[axis], square);
    let floor = b.num(1e-12);
    let safe = b.max(sum, floor);
    let inv = b.unary(Unary::Rsqrt, safe);
    b.mul(x, inv)
}
