//! The small floats: f16, bf16 and tf32, to f32 and back with one rounding.
use crate::ty::{Round, Ty};

/// NaN as the hardware gives it.
pub(super) const NAN32: u32 = 0x7fff_ffff;
pub(super) const NAN16: u32 = 0x7fff;

#[inline(always)]
pub(super) fn bf16_to_f32(x: u32) -> f32 {
    f32::from_bits(x << 16)
}

#[inline(always)]
pub(super) fn f16_to_f32(x: u32) -> f32 {
    let (sign, exponent, mantissa) = ((x & 0x8000) << 16, x >> 10 & 31, x & 0x3ff);
    match exponent {
        // Subnormals are multiples of 2^-24, which is exact in f32.
        0 => {
            let v = mantissa as f32 * f32::from_bits(0x3380_0000);
            f32::from_bits(v.to_bits() | sign)
        }
        31 => f32::from_bits(sign | 0x7f80_0000 | mantissa << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | mantissa << 13),
    }
}

pub(super) fn to_f32(ty: Ty, x: u32) -> f32 {
    match ty {
        Ty::F16 | Ty::F16x2 => f16_to_f32(x & 0xffff),
        _ => bf16_to_f32(x & 0xffff),
    }
}

/// bf16 to nearest even.
#[inline(always)]
pub(super) fn bf16_nearest(x: f32) -> u32 {
    let b = x.to_bits();
    let rounded = b.wrapping_add(0x7fff + (b >> 16 & 1)) >> 16;
    if x.is_nan() { NAN16 } else { rounded }
}

/// An f64 to a float of `exponent` and `mantissa` bits, rounded once.
pub(super) fn narrow(x: f64, exponent: i32, mantissa: i32, round: Round) -> u32 {
    let sign = ((x.to_bits() >> 63) as u32) << (exponent + mantissa);
    let infinity = ((1u32 << exponent) - 1) << mantissa;
    if x.is_nan() {
        return NAN16;
    }
    if x.is_infinite() {
        return sign | infinity;
    }
    let bias = (1 << (exponent - 1)) - 1;
    let size = x.abs();
    let own = ((size.to_bits() >> 52) as i32 - 1023).max(1 - bias);
    // In units of the last place; the scale is a power of two, so this is exact for all that f32 holds.
    let units = size * 2f64.powi(mantissa - own);
    let down = units.floor();
    let rest = units - down;
    let negative = sign != 0;
    let up = match round {
        Round::Nearest => rest > 0.5 || rest == 0.5 && down % 2.0 == 1.0,
        Round::Away => rest >= 0.5,
        Round::Zero => false,
        Round::Down => negative && rest > 0.0,
        Round::Up => !negative && rest > 0.0,
    };
    let whole = down as u32 + up as u32;
    let bits = whole as i64 + (((own + bias - 1) as i64) << mantissa);
    let bits = if whole == 0 { 0 } else { bits.max(0) as u32 };
    if bits >= infinity {
        let stays = matches!(round, Round::Zero) || round == Round::Down && !negative || round == Round::Up && negative;
        return sign | if stays { infinity - 1 } else { infinity };
    }
    sign | bits
}

/// A small float from an f64, rounded once.
pub(super) fn from_f64(ty: Ty, x: f64, round: Round) -> u32 {
    match ty {
        Ty::F16 | Ty::F16x2 => narrow(x, 5, 10, round),
        _ => narrow(x, 8, 7, round),
    }
}

#[inline(always)]
pub(super) fn from_f32(ty: Ty, x: f32, round: Round) -> u32 {
    match (ty, round) {
        (Ty::BF16 | Ty::BF16x2, Round::Nearest) => bf16_nearest(x),
        _ => from_f64(ty, x as f64, round),
    }
}

/// tf32 from f32: ten bits of mantissa, kept in an f32.
pub(super) fn tf32(x: f32, round: Round) -> u32 {
    let b = x.to_bits();
    if x.is_nan() {
        return NAN32;
    }
    if x.is_infinite() {
        return b;
    }
    let bump = match round {
        Round::Nearest => 0xfff + (b >> 13 & 1),
        Round::Away => 0x1000,
        Round::Zero => 0,
        Round::Down => 0x1fff * (b >> 31),
        Round::Up => 0x1fff * (1 - (b >> 31)),
    };
    b.wrapping_add(bump) & !0x1fff
}
