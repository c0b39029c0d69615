//! Functions that no machine has, made of those that every machine has. One expansion for every target.
//!
//! Relative errors, measured by `tests/functions.rs`: exp 1.2e-7, log 7e-8, erf 7e-8, tanh 1.1e-7, sigmoid, silu and
//! softplus 1.6e-7, gelu and gelu_tanh 2e-7 and up to 1e-5 where they have almost underflowed. Results below the normal range may be 0.
use crate::emit::{Bin, Emit, Shift, Un};
use lolm_ir::DType::{F32, I32};
use lolm_ir::op::Unary;

/// A function of the kernel language on an f32.
pub fn unary<E: Emit>(e: &mut E, op: Unary, x: E::V) -> E::V {
    match op {
        Unary::Neg => e.unary(Un::Neg, F32, x),
        Unary::Abs => e.unary(Un::Abs, F32, x),
        Unary::Not => e.unary(Un::Not, lolm_ir::DType::Bool, x),
        Unary::Sqrt => e.unary(Un::Sqrt, F32, x),
        Unary::Rsqrt => {
            let root = e.unary(Un::Sqrt, F32, x);
            reciprocal(e, root)
        }
        Unary::Exp => exp(e, x),
        Unary::Log => log(e, x),
        Unary::Erf => erf(e, x),
        Unary::Tanh => tanh(e, x),
        Unary::Sigmoid => {
            let d = one_plus_exp_neg(e, x);
            reciprocal(e, d)
        }
        Unary::Silu => {
            let d = one_plus_exp_neg(e, x);
            e.binary(Bin::Div, F32, x, d)
        }
        Unary::Gelu => gelu(e, x),
        Unary::GeluTanh => gelu_tanh(e, x),
        Unary::Softplus => softplus(e, x),
    }
}

fn add<E: Emit>(e: &mut E, a: E::V, b: E::V) -> E::V {
    e.binary(Bin::Add, F32, a, b)
}
fn sub<E: Emit>(e: &mut E, a: E::V, b: E::V) -> E::V {
    e.binary(Bin::Sub, F32, a, b)
}
fn mul<E: Emit>(e: &mut E, a: E::V, b: E::V) -> E::V {
    e.binary(Bin::Mul, F32, a, b)
}
fn add_const<E: Emit>(e: &mut E, a: E::V, c: f32) -> E::V {
    let c = e.f32(c);
    add(e, a, c)
}
fn mul_const<E: Emit>(e: &mut E, a: E::V, c: f32) -> E::V {
    let c = e.f32(c);
    mul(e, a, c)
}
fn reciprocal<E: Emit>(e: &mut E, x: E::V) -> E::V {
    let one = e.f32(1.0);
    e.binary(Bin::Div, F32, one, x)
}
/// a·b + c with constants b and c.
fn fma_const<E: Emit>(e: &mut E, a: E::V, b: f32, c: f32) -> E::V {
    let (b, c) = (e.f32(b), e.f32(c));
    e.fma(a, b, c)
}
/// Horner's scheme, highest power first.
fn polynomial<E: Emit>(e: &mut E, x: E::V, coefficients: &[f32]) -> E::V {
    let (first, rest) = (coefficients[0], &coefficients[1..]);
    let mut y = e.f32(first);
    for c in rest {
        let c = e.f32(*c);
        y = e.fma(y, x, c);
    }
    y
}

/// ln 2 in two parts; the first has few enough bits that its multiples up to 2^8 are exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// 1.5 · 2^23: adding it rounds to a whole number, which then stands in the low bits.
const ROUND: f32 = 12_582_912.0;

/// e^x = 2^n · e^r with n = round(x / ln 2). The factor 2^n is applied as 2 · 2^(n-1), so that it exists wherever the
/// result does; the comparisons keep NaN.
fn exp<E: Emit>(e: &mut E, x: E::V) -> E::V {
    let (low, high) = (e.f32(-87.6), e.f32(89.0));
    // The constant comes first: where x is NaN the second operand is taken.
    let x = e.binary(Bin::Above, F32, low, x);
    let x = e.binary(Bin::Below, F32, high, x);
    let t = fma_const(e, x, std::f32::consts::LOG2_E, ROUND);
    let n = add_const(e, t, -ROUND);
    let (minus_high, minus_low) = (e.f32(-LN2_HIGH), e.f32(-LN2_LOW));
    let r = e.fma(n, minus_high, x);
    let r = e.fma(n, minus_low, r);
    // 2·(e^r - 1 - r) / r² on |r| <= ln 2 / 2.
    let p = polynomial(e, r, &EXP);
    let r2 = mul(e, r, r);
    let two_r = fma_const(e, r, 2.0, 2.0);
    let y = e.fma(p, r2, two_r);
    let bits = e.unary(Un::Bits, F32, t);
    let bias = e.i32(126);
    let exponent = e.binary(Bin::Add, I32, bits, bias);
    let exponent = e.shift(Shift::Left, exponent, 23);
    let factor = e.unary(Un::Float, I32, exponent);
    mul(e, y, factor)
}
const EXP: [f32; 5] = [2.763_011e-3, 1.673_740_5e-2, 8.333_676e-2, 0.333_330_42, 0.999_999_9];

/// ln x, with numbers below the normal range scaled into it, and the edges.
fn log<E: Emit>(e: &mut E, x: E::V) -> E::V {
    let smallest = e.f32(f32::MIN_POSITIVE);
    let tiny = e.binary(Bin::Lt, F32, x, smallest);
    let scaled = mul_const(e, x, 8_388_608.0);
    let m = e.select(tiny, scaled, x);
    let (shift, none) = (e.f32(-23.0), e.f32(0.0));
    let shift = e.select(tiny, shift, none);
    let y = log_normal(e, m, Some(shift));
    log_edges(e, x, y)
}

/// ln x = k·ln 2 + ln m with m in [√½, √2), for positive normal x; `shift` is added to k.
fn log_normal<E: Emit>(e: &mut E, x: E::V, shift: Option<E::V>) -> E::V {
    let bits = e.unary(Un::Bits, F32, x);
    let root_half = e.i32(0x3f35_04f3);
    let above = e.binary(Bin::Sub, I32, bits, root_half);
    let k = e.shift(Shift::Arithmetic, above, 23);
    let lifted = e.shift(Shift::Left, k, 23);
    let m = e.binary(Bin::Sub, I32, bits, lifted);
    let m = e.unary(Un::Float, I32, m);
    let k = e.cast(I32, F32, k);
    let k = shift.map_or(k, |shift| add(e, k, shift));
    let f = add_const(e, m, -1.0);
    let y = log1p_small(e, f);
    // The low part of k·ln 2 is added to the small terms first.
    let low = e.f32(LN2_LOW);
    let y = e.fma(k, low, y);
    let y = add(e, y, f);
    let high = e.f32(LN2_HIGH);
    e.fma(k, high, y)
}

/// ln(1 + f) - f for f in [√½ - 1, √2 - 1).
fn log1p_small<E: Emit>(e: &mut E, f: E::V) -> E::V {
    let p = polynomial(e, f, &LOG);
    let f2 = mul(e, f, f);
    let f3 = mul(e, f2, f);
    let square = mul_const(e, f2, -0.5);
    e.fma(p, f3, square)
}
const LOG: [f32; 9] = [
    6.747_229e-2,
    -0.116_751_5,
    0.118_875_81,
    -0.124_056_38,
    0.142_196_48,
    -0.166_679_96,
    0.200_021_13,
    -0.250_000_1,
    0.333_333_13,
];

/// ln 0 = -∞, ln ∞ = ∞, and NaN of what is negative or NaN.
fn log_edges<E: Emit>(e: &mut E, x: E::V, y: E::V) -> E::V {
    let (zero, inf) = (e.f32(0.0), e.f32(f32::INFINITY));
    let finite = e.binary(Bin::Lt, F32, x, inf);
    let y = e.select(finite, y, x);
    let positive = e.binary(Bin::Lt, F32, zero, x);
    let is_zero = e.binary(Bin::Eq, F32, x, zero);
    let (minus_inf, nan) = (e.f32(f32::NEG_INFINITY), e.f32(f32::NAN));
    let y_or = e.select(is_zero, minus_inf, nan);
    e.select(positive, y, y_or)
}

/// 1 + e^-x, which is ∞ where x is very negative.
fn one_plus_exp_neg<E: Emit>(e: &mut E, x: E::V) -> E::V {
    let x = e.unary(Un::Neg, F32, x);
    let y = exp(e, x);
    add_const(e, y, 1.0)
}

/// `1 - 2 / (e^2|x| + 1)` with the sign of x; an odd polynomial where that would cancel.
fn tanh<E: Emit>(e: &mut E, x: E::V) -> E::V {
    let size = e.unary(Un::Abs, F32, x);
    let twice = add(e, size, size);
    let y = exp(e, twice);
    let y = add_const(e, y, 1.0);
    let two = e.f32(-2.0);
    let y = e.binary(Bin::Div, F32, two, y);
    let y = add_const(e, y, 1.0);
    let large = copy_sign(e, y, x);
    let x2 = mul(e, x, x);
    let p = polynomial(e, x2, &TANH);
    let p = mul(e, p, x2);
    let small = e.fma(p, x, x);
    let limit = e.f32(0.625);
    let is_small = e.binary(Bin::Lt, F32, size, limit);
    e.select(is_small, small, large)
}
const TANH: [f32; 5] = [-5.717_495_5e-3, 2.065_104_2e-2, -5.374_366e-2, 0.133_314_94, -0.333_332_84];

/// A value that is not negative, with the sign of x.
fn copy_sign<E: Emit>(e: &mut E, y: E::V, x: E::V) -> E::V {
    let mask = e.i32(i32::MIN);
    let x = e.unary(Un::Bits, F32, x);
    let sign = e.binary(Bin::And, I32, x, mask);
    let y = e.unary(Un::Bits, F32, y);
    let y = e.binary(Bin::Or, I32, y, sign);
    e.unary(Un::Float, I32, y)
}

/// max(x, 0) + ln(1 + u) with u = e^-|x|. The rounding of w = 1 + u is made good by (u - (w - 1)) / w.
fn softplus<E: Emit>(e: &mut E, x: E::V) -> E::V {
    let size = e.unary(Un::Abs, F32, x);
    let size = e.unary(Un::Neg, F32, size);
    let u = exp(e, size);
    let w = add_const(e, u, 1.0);
    let l = log_normal(e, w, None);
    let back = add_const(e, w, -1.0);
    let lost = sub(e, u, back);
    let lost = e.binary(Bin::Div, F32, lost, w);
    let l = add(e, l, lost);
    let zero = e.f32(0.0);
    let positive = e.binary(Bin::Max, F32, x, zero);
    add(e, positive, l)
}

/// The complementary error function of z >= 0 with full relative accuracy: e^-z² · t · Q(t), t = 1 / (1 + z/2). `z2` is z².
fn erfc<E: Emit>(e: &mut E, z: E::V, z2: E::V) -> E::V {
    let d = fma_const(e, z, 0.5, 1.0);
    let t = reciprocal(e, d);
    let q = polynomial(e, t, &ERFC);
    let q = mul(e, q, t);
    let z2 = e.unary(Un::Neg, F32, z2);
    let decay = exp(e, z2);
    mul(e, q, decay)
}
const ERFC: [f32; 9] = [
    -5.938_658e-2,
    0.286_124_53,
    -0.490_407_56,
    0.281_734_62,
    -2.914_945_4e-2,
    0.203_752_92,
    0.242_835_02,
    0.282_412_1,
    0.282_084_32,
];

/// An odd polynomial below 1, `1 - erfc(|x|)` with the sign of x above.
fn erf<E: Emit>(e: &mut E, x: E::V) -> E::V {
    let size = e.unary(Un::Abs, F32, x);
    let x2 = mul(e, x, x);
    let tail = erfc(e, size, x2);
    let one = e.f32(1.0);
    let large = sub(e, one, tail);
    let large = copy_sign(e, large, x);
    let p = polynomial(e, x2, &ERF);
    let small = e.fma(p, x, x);
    let is_small = e.binary(Bin::Lt, F32, size, one);
    e.select(is_small, small, large)
}
/// erf(x) / x - 1 as a polynomial of x².
const ERF: [f32; 7] =
    [7.889_119e-5, -8.020_841e-4, 5.189_535e-3, -2.685_444_4e-2, 0.112_836, -0.376_126_26, 0.128_379_17];

/// x·(1 + erf(x/√2))/2 = max(x, 0) - |x|·erfc(|x|/√2)/2, which does not cancel in the left tail. The second term is 0
/// long before |x| = 20, where it is cut off because ∞·0 is NaN.
fn gelu<E: Emit>(e: &mut E, x: E::V) -> E::V {
    let size = e.unary(Un::Abs, F32, x);
    let end = e.f32(20.0);
    let size = e.binary(Bin::Below, F32, end, size);
    let z = mul_const(e, size, std::f32::consts::FRAC_1_SQRT_2);
    let half = mul_const(e, size, 0.5);
    let z2 = mul(e, half, size);
    let tail = erfc(e, z, z2);
    let tail = mul(e, tail, half);
    let zero = e.f32(0.0);
    let positive = e.binary(Bin::Max, F32, x, zero);
    sub(e, positive, tail)
}

/// x·(1 + tanh u)/2 = x / (1 + e^-2u) with u = √(2/π)·(x + 0.044715 x³).
fn gelu_tanh<E: Emit>(e: &mut E, x: E::V) -> E::V {
    const SCALE: f64 = 2.0 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
    let square = mul(e, x, x);
    let slope = fma_const(e, square, (SCALE * 0.044715) as f32, SCALE as f32);
    let twice = mul(e, slope, x);
    let d = one_plus_exp_neg(e, twice);
    e.binary(Bin::Div, F32, x, d)
}

/// One element of a random tensor; see `lolm_ir::philox`, which this follows word by word.
pub fn random<E: Emit>(e: &mut E, seed: E::V, site: u32, step: E::V, index: E::V) -> E::V {
    let zero = e.i32(0);
    let site = e.i32(site as i32);
    let word = e.shift(Shift::Right, index, 2);
    let mut counter = [word, step, zero, zero];
    let mut key = [seed, site];
    for round in 0..10 {
        counter = philox_round(e, counter, key);
        if round < 9 {
            key = [0, 1].map(|i| {
                let w = e.i32([0x9E37_79B9u32, 0xBB67_AE85][i] as i32);
                e.binary(Bin::Add, I32, key[i], w)
            });
        }
    }
    let bits = pick(e, counter, index);
    let bits = e.shift(Shift::Right, bits, 9);
    let x = e.cast(I32, F32, bits);
    let x = add_const(e, x, 0.5);
    mul_const(e, x, 1.0 / 8_388_608.0)
}

fn philox_round<E: Emit>(e: &mut E, c: [E::V; 4], key: [E::V; 2]) -> [E::V; 4] {
    let mut product = |c: E::V, by: u32| {
        let by = e.i32(by as i32);
        (e.binary(Bin::MulHigh, I32, c, by), e.binary(Bin::Mul, I32, c, by))
    };
    let (high0, low0) = product(c[0], 0xD251_1F53);
    let (high1, low1) = product(c[2], 0xCD9E_8D57);
    let mut mix = |high: E::V, c: E::V, key: E::V| {
        let x = e.binary(Bin::Xor, I32, high, c);
        e.binary(Bin::Xor, I32, x, key)
    };
    [mix(high1, c[1], key[0]), low1, mix(high0, c[3], key[1]), low0]
}

/// The word `index % 4` of four.
fn pick<E: Emit>(e: &mut E, words: [E::V; 4], index: E::V) -> E::V {
    let three = e.i32(3);
    let lane = e.binary(Bin::And, I32, index, three);
    let mut x = words[3];
    for i in (0..3).rev() {
        let n = e.i32(i as i32);
        let here = e.binary(Bin::Eq, I32, lane, n);
        x = e.select(here, words[i], x);
    }
    x
}
