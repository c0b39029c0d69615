//! The approximate functions, computed in f64 and rounded to f32.
//!
//! The hardware's documented errors (PTX ISA): `ex2.approx` 2 ulp; `lg2.approx` absolute 2^-22 where the argument lies in
//! (0.5, 2), else relative 2^-22; `rcp.approx`, `sqrt.approx` and `rsqrt.approx` 1 to 2 ulp; `div.approx` and `div.full` 2 ulp;
//! `sin` and `cos` absolute 2^-20.5 in (-2π, 2π); `tanh.approx` relative 2^-11. What is computed here errs by half an ulp, so
//! it lies inside all of them. `Options::perturb` moves results inside of them, so a test can show that it does not depend
//! on their last bits.
use crate::inst::FloatFn;

pub(super) fn apply(f: FloatFn, x: f32) -> f32 {
    let x = x as f64;
    (match f {
        FloatFn::Ex2 => exp2(x),
        FloatFn::Lg2 => x.log2(),
        FloatFn::Sin => x.sin(),
        FloatFn::Cos => x.cos(),
        FloatFn::Tanh => x.tanh(),
        FloatFn::Rsqrt => 1.0 / x.sqrt(),
        FloatFn::Rcp => 1.0 / x,
        FloatFn::Sqrt => x.sqrt(),
        _ => x,
    }) as f32
}

/// 2^x in f64, good to 1e-15, in the range that f32 has use for; made of arithmetic alone, so rows of it are vector code.
#[inline(always)]
pub(super) fn exp2(x: f64) -> f64 {
    // NaN survives the clamp.
    let x = x.clamp(-200.0, 200.0);
    // Adding 1.5·2^52 rounds to an integer, which then stands in the low bits.
    const SHIFT: f64 = 6_755_399_441_055_744.0;
    let shifted = x + SHIFT;
    let r = (x - (shifted - SHIFT)) * std::f64::consts::LN_2;
    // The Taylor series of e^r for |r| ≤ ln 2 / 2 ends below 1e-16 at the thirteenth term.
    const C: [f64; 13] = [
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ];
    let mut p = C[0];
    for c in &C[1..] {
        p = p * r + c;
    }
    let scale = f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    p * scale
}

/// How far a result may be moved: in units of the last place.
pub(super) fn slack(f: FloatFn) -> u32 {
    match f {
        FloatFn::Tanh => 1 << 12,
        FloatFn::Sin | FloatFn::Cos | FloatFn::Rcp => 1,
        _ => 2,
    }
}

/// Moves a finite, normal result by up to `slack` units, as the random bits say.
pub(super) fn perturb(x: f32, slack: u32, random: u32) -> f32 {
    let by = random % (2 * slack + 1);
    let moved = f32::from_bits(x.to_bits().wrapping_add(by).wrapping_sub(slack));
    if x.is_normal() && moved.is_normal() && (x < 0.0) == (moved < 0.0) { moved } else { x }
}
