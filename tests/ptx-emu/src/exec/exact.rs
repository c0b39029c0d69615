//! Results that are rounded once, in every direction: sums, products, quotients and roots of f32 through f64.
//!
//! A f64 whose last bit is set wherever something was lost ("rounded to odd") rounds to f32 as the exact value would.
use crate::ty::Round;

/// `s`, moved to its odd neighbour if the error says that it is not the exact value.
#[inline(always)]
fn to_odd(s: f64, error: f64) -> f64 {
    let bits = s.to_bits();
    // NaN, where something is infinite, is no error.
    let inexact = error.abs() > 0.0;
    let up = (error > 0.0) == (s > 0.0);
    let moved = if up { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
    f64::from_bits(if inexact && bits & 1 == 0 { moved } else { bits })
}

/// A sum to odd.
#[inline(always)]
pub(super) fn sum_to_odd(a: f64, b: f64) -> f64 {
    let s = a + b;
    let part = s - a;
    to_odd(s, (a - (s - part)) + (b - part))
}

/// `a·b + c` of f32 values, to odd: the product of two f32 is exact in f64.
#[inline(always)]
pub(super) fn fma_to_odd(a: f32, b: f32, c: f32) -> f64 {
    sum_to_odd(a as f64 * b as f64, c as f64)
}

/// `a·b + c` of f32, rounded once.
#[inline(always)]
pub(super) fn fma(a: f32, b: f32, c: f32) -> f32 {
    fma_to_odd(a, b, c) as f32
}

pub(super) fn quotient_to_odd(a: f32, b: f32) -> f64 {
    let (a, b) = (a as f64, b as f64);
    let q = a / b;
    let rest = libm::fma(-q, b, a);
    let error = if b > 0.0 { rest } else { -rest };
    to_odd(q, if q.is_finite() && b.is_finite() { error } else { 0.0 })
}

pub(super) fn root_to_odd(a: f32) -> f64 {
    let r = (a as f64).sqrt();
    to_odd(r, if r.is_finite() { libm::fma(-r, r, a as f64) } else { 0.0 })
}

/// An f64 to f32 in a direction.
pub(super) fn round(x: f64, mode: Round) -> f32 {
    let r = x as f32;
    if x.is_nan() || x.is_infinite() || r as f64 == x {
        return r;
    }
    let above = r as f64 > x;
    match mode {
        Round::Nearest | Round::Away => r,
        Round::Down if above => r.next_down(),
        Round::Up if !above => r.next_up(),
        Round::Zero if above && x > 0.0 => r.next_down(),
        Round::Zero if !above && x < 0.0 => r.next_up(),
        _ => r,
    }
}
