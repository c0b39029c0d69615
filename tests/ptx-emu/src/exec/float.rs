//! Float arithmetic: f32 and f64 as they are, the small ones through f32 and f64 with one rounding at the end.
use super::half::{NAN32, from_f64, to_f32};
use super::predicate::flush;
use super::{Cx, approx, exact};
use crate::fault::Done;
use crate::inst::{FloatFn, FloatMode, Slot};
use crate::lanes::{Row, map1, map2, map3};
use crate::ty::{Round, Ty};
use crate::warp::Warp;

/// The bits of a result; every NaN is the one that the hardware gives.
#[inline(always)]
fn bits(x: f32) -> u32 {
    if x.is_nan() { NAN32 } else { x.to_bits() }
}

#[inline(always)]
fn bits64(x: f64) -> u64 {
    if x.is_nan() { 0x7fff_ffff_ffff_ffff } else { x.to_bits() }
}

#[inline(always)]
fn min(x: f32, y: f32) -> f32 {
    // -0 is less than +0.
    if x < y || y.is_nan() || x == y && x.is_sign_negative() { x } else { y }
}

#[inline(always)]
fn max(x: f32, y: f32) -> f32 {
    if x > y || y.is_nan() || x == y && x.is_sign_positive() { x } else { y }
}

fn saturate(x: f32) -> f32 {
    // NaN becomes +0.
    if x > 0.0 { x.min(1.0) } else { 0.0 }
}

/// One f32 function, without what the mode adds.
#[inline(always)]
fn apply(f: FloatFn, x: f32, y: f32, m: FloatMode) -> f32 {
    let nearest = m.round == Round::Nearest;
    match f {
        FloatFn::Add if nearest => x + y,
        FloatFn::Sub if nearest => x - y,
        FloatFn::Mul if nearest => x * y,
        FloatFn::Div if nearest || m.approx => x / y,
        FloatFn::Add => exact::round(exact::sum_to_odd(x as f64, y as f64), m.round),
        FloatFn::Sub => exact::round(exact::sum_to_odd(x as f64, -y as f64), m.round),
        FloatFn::Mul => exact::round(x as f64 * y as f64, m.round),
        FloatFn::Div => exact::round(exact::quotient_to_odd(x, y), m.round),
        FloatFn::Min => min(x, y),
        FloatFn::Max => max(x, y),
        FloatFn::MinNan => {
            if x.is_nan() || y.is_nan() {
                f32::NAN
            } else {
                min(x, y)
            }
        }
        FloatFn::MaxNan => {
            if x.is_nan() || y.is_nan() {
                f32::NAN
            } else {
                max(x, y)
            }
        }
        FloatFn::Neg => -x,
        FloatFn::Abs => x.abs(),
        FloatFn::Copysign => y.copysign(x),
        FloatFn::Sqrt if m.approx || nearest => x.sqrt(),
        FloatFn::Rcp if m.approx || nearest => 1.0 / x,
        FloatFn::Sqrt => exact::round(exact::root_to_odd(x), m.round),
        FloatFn::Rcp => exact::round(exact::quotient_to_odd(1.0, x), m.round),
        FloatFn::Rsqrt | FloatFn::Ex2 | FloatFn::Lg2 | FloatFn::Sin | FloatFn::Cos | FloatFn::Tanh => {
            approx::apply(f, x)
        }
    }
}

#[inline(always)]
fn row(x: &Row, y: &Row, f: impl Fn(f32, f32) -> f32) -> Row {
    map2(x, y, |x, y| bits(f(f32::from_bits(x), f32::from_bits(y))))
}

/// A function of two f32 rows.
fn single(f: FloatFn, m: FloatMode, x: &Row, y: &Row) -> Row {
    if !m.ftz && !m.sat && (m.round == Round::Nearest || m.approx) {
        // The plain forms, one loop each.
        return match f {
            FloatFn::Add => row(x, y, |x, y| x + y),
            FloatFn::Sub => row(x, y, |x, y| x - y),
            FloatFn::Mul => row(x, y, |x, y| x * y),
            FloatFn::Div => row(x, y, |x, y| x / y),
            FloatFn::Min => row(x, y, min),
            FloatFn::Max => row(x, y, max),
            FloatFn::Neg => map1(x, |x| x ^ 1 << 31),
            FloatFn::Abs => map1(x, |x| x & !(1 << 31)),
            FloatFn::Copysign => map2(x, y, |x, y| y & !(1 << 31) | x & 1 << 31),
            FloatFn::Sqrt => row(x, y, |x, _| x.sqrt()),
            FloatFn::Rcp => row(x, y, |x, _| 1.0 / x),
            FloatFn::Ex2 => row(x, y, |x, _| approx::exp2(x as f64) as f32),
            FloatFn::Rsqrt => row(x, y, |x, _| (1.0 / (x as f64).sqrt()) as f32),
            FloatFn::MinNan | FloatFn::MaxNan | FloatFn::Lg2 | FloatFn::Sin | FloatFn::Cos | FloatFn::Tanh => {
                row(x, y, |x, y| apply(f, x, y, m))
            }
        };
    }
    if m.ftz && !m.sat && f == FloatFn::Ex2 {
        return row(x, y, |x, _| flush(approx::exp2(flush(x) as f64) as f32));
    }
    row(x, y, |x, y| {
        let (x, y) = if m.ftz { (flush(x), flush(y)) } else { (x, y) };
        let r = apply(f, x, y, m);
        let r = if m.ftz { flush(r) } else { r };
        if m.sat { saturate(r) } else { r }
    })
}

fn double(f: FloatFn, m: FloatMode, x: f64, y: f64) -> f64 {
    let less = |x: f64, y: f64| x < y || y.is_nan() || x == y && x.is_sign_negative();
    let r = match f {
        FloatFn::Add => x + y,
        FloatFn::Sub => x - y,
        FloatFn::Mul => x * y,
        FloatFn::Div => x / y,
        FloatFn::MinNan | FloatFn::MaxNan if x.is_nan() || y.is_nan() => f64::NAN,
        FloatFn::Min | FloatFn::MinNan => {
            if less(x, y) {
                x
            } else {
                y
            }
        }
        FloatFn::Max | FloatFn::MaxNan => {
            if less(-x, -y) {
                x
            } else {
                y
            }
        }
        FloatFn::Neg => -x,
        FloatFn::Abs => x.abs(),
        FloatFn::Copysign => y.copysign(x),
        FloatFn::Sqrt => x.sqrt(),
        FloatFn::Rcp => 1.0 / x,
        FloatFn::Rsqrt => 1.0 / x.sqrt(),
        // The decoder lets no other function of f64 through.
        FloatFn::Ex2 | FloatFn::Lg2 | FloatFn::Sin | FloatFn::Cos | FloatFn::Tanh => approx::apply(f, x as f32) as f64,
    };
    match m.sat {
        true if r > 0.0 => r.min(1.0),
        true => 0.0,
        false => r,
    }
}

/// A function of small floats: computed in f32, which is wide enough for one rounding to be the right one.
fn small(f: FloatFn, ty: Ty, m: FloatMode, x: u32, y: u32) -> u32 {
    let (a, b) = (to_f32(ty, x), to_f32(ty, y));
    let r = match f {
        FloatFn::Neg => return x ^ 0x8000,
        FloatFn::Abs => return x & 0x7fff,
        FloatFn::Add => exact::sum_to_odd(a as f64, b as f64),
        FloatFn::Sub => exact::sum_to_odd(a as f64, -b as f64),
        FloatFn::Mul => a as f64 * b as f64,
        _ => apply(f, a, b, m) as f64,
    };
    finish(ty, m, r)
}

fn finish(ty: Ty, m: FloatMode, r: f64) -> u32 {
    let r = if m.sat { if r > 0.0 { r.min(1.0) } else { 0.0 } } else { r };
    let r = if m.relu && r < 0.0 { 0.0 } else { r };
    let bits = from_f64(ty, r, m.round);
    let subnormal = bits & if matches!(ty, Ty::F16 | Ty::F16x2) { 0x7c00 } else { 0x7f80 } == 0;
    if m.ftz && subnormal { bits & 0x8000 } else { bits }
}

/// Applies a function of 16-bit values to one or to both halves.
fn halves(ty: Ty, v: [u32; 3], f: impl Fn([u32; 3]) -> u32) -> u32 {
    let low = f(v.map(|x| x & 0xffff));
    match ty {
        Ty::F16x2 | Ty::BF16x2 => f(v.map(|x| x >> 16)) << 16 | low,
        _ => low,
    }
}

#[inline(always)]
pub(super) fn binary(
    cx: &mut Cx<'_, '_>,
    w: &mut Warp,
    (f, ty, m): (FloatFn, Ty, FloatMode),
    d: Slot,
    a: Slot,
    b: Slot,
    mask: u32,
) -> Done {
    if ty == Ty::F64 {
        let v =
            map2(w.wide(a, mask)?, w.wide(b, mask)?, |x, y| bits64(double(f, m, f64::from_bits(x), f64::from_bits(y))));
        w.put_wide(d, &v, mask);
        return Ok(());
    }
    let (x, y) = (w.row(a, mask)?, w.row(b, mask)?);
    let mut v = match ty {
        Ty::F32 => single(f, m, x, y),
        _ => map2(x, y, |x, y| halves(ty, [x, y, 0], |[x, y, _]| small(f, ty, m, x, y))),
    };
    if m.approx && ty == Ty::F32 && cx.machine.options.perturb {
        let slack = approx::slack(f);
        v = v.map(|x| approx::perturb(f32::from_bits(x), slack, cx.machine.random.next() as u32).to_bits());
    }
    w.put(d, &v, mask);
    Ok(())
}

#[inline(always)]
pub(super) fn fma(w: &mut Warp, ty: Ty, m: FloatMode, d: Slot, [a, b, c]: [Slot; 3], mask: u32) -> Done {
    if ty == Ty::F64 {
        let v = map3(w.wide(a, mask)?, w.wide(b, mask)?, w.wide(c, mask)?, |x, y, z| {
            bits64(f64::from_bits(x).mul_add(f64::from_bits(y), f64::from_bits(z)))
        });
        w.put_wide(d, &v, mask);
        return Ok(());
    }
    let (x, y, z) = (w.row(a, mask)?, w.row(b, mask)?, w.row(c, mask)?);
    let plain = m.round == Round::Nearest && !m.ftz && !m.sat && !m.relu;
    let v = match ty {
        Ty::F32 if plain => {
            map3(x, y, z, |x, y, z| bits(exact::fma(f32::from_bits(x), f32::from_bits(y), f32::from_bits(z))))
        }
        Ty::F32 => map3(x, y, z, |x, y, z| {
            let [x, y, z] = [x, y, z].map(|v| if m.ftz { flush(f32::from_bits(v)) } else { f32::from_bits(v) });
            let r = exact::round(exact::fma_to_odd(x, y, z), m.round);
            let r = if m.ftz { flush(r) } else { r };
            bits(if m.sat { saturate(r) } else { r })
        }),
        _ => map3(x, y, z, |x, y, z| {
            halves(ty, [x, y, z], |v| {
                let [x, y, z] = v.map(|v| to_f32(ty, v));
                finish(ty, m, exact::fma_to_odd(x, y, z))
            })
        }),
    };
    w.put(d, &v, mask);
    Ok(())
}

/// A sum as an atomic makes it: f32 flushes subnormals in neither memory nor registers here.
pub(super) fn atomic_add(ty: Ty, old: u64, b: u64) -> u64 {
    let m = FloatMode { round: Round::Nearest, ftz: false, sat: false, relu: false, approx: false };
    match ty {
        Ty::F64 => bits64(f64::from_bits(old) + f64::from_bits(b)),
        Ty::F32 => bits(f32::from_bits(old as u32) + f32::from_bits(b as u32)) as u64,
        _ => halves(ty, [old as u32, b as u32, 0], |[x, y, _]| small(FloatFn::Add, ty, m, x, y)) as u64,
    }
}
