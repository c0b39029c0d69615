//! Functions of one element at a time, in their numerically safe forms.
use super::{Call, InterpError, Tensor};
use crate::dtype::DType;
use crate::op::{Binary, Unary};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, SQRT_2};

pub(super) fn unary(c: &Call, u: Unary) -> Tensor {
    let x = c.args[0];
    Tensor { axes: x.axes.clone(), data: x.data.iter().map(|x| unary_scalar(u, c.dtype(0), *x)).collect() }
}

/// A function of one element of this dtype.
pub(crate) fn unary_scalar(u: Unary, of: DType, x: f64) -> f64 {
    if of == DType::I32 { wrap(apply(u, x)) } else { apply(u, x) }
}

pub(super) fn apply(u: Unary, x: f64) -> f64 {
    match u {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Not => 1.0 - x,
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Erf => libm::erf(x),
        Unary::Tanh => x.tanh(),
        Unary::Sigmoid => sigmoid(x),
        Unary::Silu => x * sigmoid(x),
        // erfc keeps its relative accuracy in the tail, where 1 + erf cancels.
        Unary::Gelu => x * 0.5 * libm::erfc(-x / SQRT_2),
        // (1 + tanh u) / 2 is sigmoid(2u), which does not cancel. The constants are f32, as models write them.
        Unary::GeluTanh => {
            let (root, bend) = ((FRAC_2_SQRT_PI * FRAC_1_SQRT_2) as f32, 0.044715f32);
            x * sigmoid(2.0 * root as f64 * (x + bend as f64 * x * x * x))
        }
        Unary::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
    }
}

/// `1 / (1 + exp(-x))` without an overflow on either side.
pub(super) fn sigmoid(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    if x >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
}

/// An exact integer brought back to 32 bits, as two's complement does it.
fn wrap(x: f64) -> f64 {
    x as i64 as i32 as f64
}

pub(super) fn binary(c: &Call, b: Binary) -> Result<Tensor, InterpError> {
    let int = c.dtype(0) == DType::I32;
    let (xs, ys) = (broadcast(c, 0), broadcast(c, 1));
    if int && matches!(b, Binary::Div | Binary::Rem) && ys.contains(&0.0) {
        return Err(InterpError::DivisionByZero { node: c.id });
    }
    Ok(result(c, xs.into_iter().zip(ys).map(|(x, y)| binary_scalar(b, c.dtype(0), x, y)).collect()))
}

/// A function of two elements of this dtype. An integer divided by zero gives 0, and its remainder 0.
pub(crate) fn binary_scalar(b: Binary, of: DType, x: f64, y: f64) -> f64 {
    match of {
        DType::I32 if y == 0.0 && matches!(b, Binary::Div | Binary::Rem) => 0.0,
        DType::I32 => wrap(int_binary(b, x, y)),
        DType::F32 | DType::Bf16 | DType::Bool => float_binary(b, x, y),
    }
}

fn float_binary(b: Binary, x: f64, y: f64) -> f64 {
    match b {
        Binary::Add => x + y,
        Binary::Sub => x - y,
        Binary::Mul => x * y,
        Binary::Div => x / y,
        Binary::Rem => x - (x / y).floor() * y,
        Binary::Max => maximum(x, y),
        Binary::Min => -maximum(-x, -y),
        Binary::Lt => (x < y) as u8 as f64,
        Binary::Le => (x <= y) as u8 as f64,
        Binary::Eq => (x == y) as u8 as f64,
        Binary::And => x * y,
    }
}

/// The same on integers, exactly: the product of two needs more bits than an f64 has.
fn int_binary(b: Binary, x: f64, y: f64) -> f64 {
    let (i, j) = (x as i64, y as i64);
    match b {
        Binary::Mul => (i * j) as i32 as f64,
        Binary::Div => (x / y).floor(),
        Binary::Rem => (i - (x / y).floor() as i64 * j) as f64,
        Binary::Add | Binary::Sub | Binary::Max | Binary::Min => float_binary(b, x, y),
        Binary::Lt | Binary::Le | Binary::Eq | Binary::And => float_binary(b, x, y),
    }
}

/// The larger one; NaN if either is, so that a clamp does not hide it.
pub(crate) fn maximum(x: f64, y: f64) -> f64 {
    if x.is_nan() || x > y { x } else { y }
}

pub(super) fn select(c: &Call) -> Tensor {
    let picked = broadcast(c, 0).into_iter().zip(broadcast(c, 1)).zip(broadcast(c, 2));
    result(c, picked.map(|((cond, x), y)| if cond != 0.0 { x } else { y }).collect())
}

pub(super) fn mix(c: &Call) -> Tensor {
    let abc = broadcast(c, 0).into_iter().zip(broadcast(c, 1)).zip(broadcast(c, 2));
    result(c, abc.map(|((g, a), b)| g * a + (1.0 - g) * b).collect())
}

pub(super) fn cast(c: &Call, to: DType) -> Tensor {
    result(c, c.args[0].data.iter().map(|x| cast_scalar(to, *x)).collect())
}

pub(crate) fn cast_scalar(to: DType, x: f64) -> f64 {
    match to {
        DType::F32 => x,
        DType::Bf16 => round_bf16(x),
        DType::I32 => x as i32 as f64,
        DType::Bool => (x != 0.0) as u8 as f64,
    }
}

/// The nearest bf16, ties to even: 8 bits of significand with the exponents of f32.
pub fn round_bf16(x: f64) -> f64 {
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    let exponent = (x.to_bits() >> 52 & 0x7ff) as i32 - 1023;
    let quantum = 2f64.powi(exponent.max(-126) - 7);
    let rounded = (x / quantum).round_ties_even() * quantum;
    if rounded.abs() >= 2f64.powi(128) { f64::INFINITY.copysign(x) } else { rounded }
}

/// Operand `i` over the axes of the result.
fn broadcast(c: &Call, i: usize) -> Vec<f64> {
    let x = c.args[i];
    if x.set() == c.out(0) {
        return x.data.clone();
    }
    c.offsets(i, c.out(0)).into_iter().map(|o| x.data[o]).collect()
}

fn result(c: &Call, data: Vec<f64>) -> Tensor {
    Tensor { axes: c.out(0).iter().collect(), data }
}
