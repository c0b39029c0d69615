//! Operations on rows along one axis: softmax, norms and rotations.
use super::elementwise::maximum;
use super::{Call, Tensor};
use crate::axis::AxisId;

pub(super) fn softmax(c: &Call, axis: AxisId) -> Tensor {
    let lse = logsumexp(c, axis);
    let mut out = c.args[0].clone();
    for (x, o) in out.data.iter_mut().zip(lse.offsets(c.g, c.out(0))) {
        *x = (*x - lse.data[o]).exp();
    }
    out
}

/// log Σ exp along the axis, which the result lacks.
pub(super) fn logsumexp(c: &Call, axis: AxisId) -> Tensor {
    let axes = c.args[0].set().without(axis);
    let (rows, along) = (c.offsets(0, axes), c.offsets(0, axis.into()));
    let x = &c.args[0].data;
    let f = |row: usize| log_sum_exp(along.iter().map(|o| x[row + o]));
    Tensor { axes: axes.iter().collect(), data: rows.into_iter().map(f).collect() }
}

/// log Σ exp of some numbers: the largest is taken out, so that nothing overflows; -∞ if all of them are.
pub(super) fn log_sum_exp(xs: impl Iterator<Item = f64> + Clone) -> f64 {
    let max = xs.clone().fold(f64::NEG_INFINITY, maximum);
    if max.is_infinite() {
        return max;
    }
    max + xs.map(|x| (x - max).exp()).sum::<f64>().ln()
}

/// (x - center) · scale, which depend on the row, then the weight and the bias.
fn normalize(c: &Call, axis: AxisId, center_and_scale: impl Fn(&[f64]) -> (f64, f64)) -> Tensor {
    let x = &c.args[0];
    let (rows, along) = (c.offsets(0, x.set().without(axis)), c.offsets(0, axis.into()));
    let mut y = (*x).clone();
    for row in rows {
        let values: Vec<f64> = along.iter().map(|o| x.data[row + o]).collect();
        let (center, scale) = center_and_scale(&values);
        for (o, v) in along.iter().zip(values) {
            y.data[row + o] = (v - center) * scale;
        }
    }
    affine(c, &y)
}

/// y · weight + bias, each where it is given as operand 1 and 2.
fn affine(c: &Call, y: &Tensor) -> Tensor {
    let mut out = c.zeros(0);
    for (z, o) in out.data.iter_mut().zip(y.offsets(c.g, c.out(0))) {
        *z = y.data[o];
    }
    for (i, w) in c.args.iter().enumerate().skip(1) {
        for (z, o) in out.data.iter_mut().zip(c.offsets(i, c.out(0))) {
            *z = if i == 1 { *z * w.data[o] } else { *z + w.data[o] };
        }
    }
    out
}

pub(super) fn layer_norm(c: &Call, axis: AxisId, eps: f64) -> Tensor {
    normalize(c, axis, |x| {
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let var = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        (mean, 1.0 / (var + eps).sqrt())
    })
}

pub(super) fn rms_norm(c: &Call, axis: AxisId, eps: f64) -> Tensor {
    normalize(c, axis, |x| {
        let mean_square = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        (0.0, 1.0 / (mean_square + eps).sqrt())
    })
}

pub(super) fn rope(c: &Call, pair: AxisId) -> Tensor {
    let mut out = c.zeros(0);
    let space = c.out(0).without(pair);
    let (rows, step) = (out.offsets(c.g, space), out.layout(c.g).stride(pair));
    let (xs, cos, sin) = (c.offsets(0, space), c.offsets(1, space), c.offsets(2, space));
    let x_step = c.layout(0).stride(pair);
    for (i, o) in rows.into_iter().enumerate() {
        let (x0, x1) = (c.args[0].data[xs[i]], c.args[0].data[xs[i] + x_step]);
        let (cos, sin) = (c.args[1].data[cos[i]], c.args[2].data[sin[i]]);
        out.data[o] = x0 * cos - x1 * sin;
        out.data[o + step] = x0 * sin + x1 * cos;
    }
    out
}
