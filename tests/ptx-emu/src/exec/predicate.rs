//! Comparisons, tests and selections: predicates are one bit a lane.
use super::half;
use crate::fault::Done;
use crate::inst::{BoolFn, Cmp, PredRef, Test};
use crate::lanes::{map1, mask1, mask2};
use crate::op::Op;
use crate::ty::Ty;
use crate::warp::Warp;

/// The bits of a comparison over two rows of numbers.
#[inline(always)]
fn numbers<T: Copy + PartialOrd>(cmp: Cmp, a: &[T; 32], b: &[T; 32]) -> u32 {
    let ordered = |x: T, y: T| x.partial_cmp(&y).is_some();
    match cmp {
        Cmp::Eq => mask2(a, b, |x, y| x == y),
        // An ordered "not equal" is false for NaN, as all ordered comparisons are.
        Cmp::Ne => mask2(a, b, |x, y| x != y && ordered(x, y)),
        Cmp::Lt => mask2(a, b, |x, y| x < y),
        Cmp::Le => mask2(a, b, |x, y| x <= y),
        Cmp::Gt => mask2(a, b, |x, y| x > y),
        Cmp::Ge => mask2(a, b, |x, y| x >= y),
        Cmp::Equ => !mask2(a, b, |x, y| x != y && ordered(x, y)),
        Cmp::Neu => mask2(a, b, |x, y| x != y),
        Cmp::Ltu => !mask2(a, b, |x, y| x >= y),
        Cmp::Leu => !mask2(a, b, |x, y| x > y),
        Cmp::Gtu => !mask2(a, b, |x, y| x <= y),
        Cmp::Geu => !mask2(a, b, |x, y| x < y),
        Cmp::Num => mask2(a, b, ordered),
        Cmp::Nan => !mask2(a, b, ordered),
    }
}

pub(super) fn flush(x: f32) -> f32 {
    if x.is_subnormal() { f32::from_bits(x.to_bits() & 1 << 31) } else { x }
}

fn compare(w: &Warp, cmp: Cmp, ty: Ty, ftz: bool, a: u16, b: u16, mask: u32) -> Done<u32> {
    if ty.bytes() == 8 {
        let (x, y) = (w.wide(a, mask)?, w.wide(b, mask)?);
        return Ok(match ty {
            Ty::S64 => numbers(cmp, &map1(x, |v| v as i64), &map1(y, |v| v as i64)),
            Ty::F64 => numbers(cmp, &map1(x, f64::from_bits), &map1(y, f64::from_bits)),
            _ => numbers(cmp, x, y),
        });
    }
    let (x, y) = (w.row(a, mask)?, w.row(b, mask)?);
    Ok(match ty {
        Ty::S32 => numbers(cmp, &map1(x, |v| v as i32), &map1(y, |v| v as i32)),
        Ty::S16 => numbers(cmp, &map1(x, |v| v as i16), &map1(y, |v| v as i16)),
        Ty::F32 if ftz => {
            let f = |v| flush(f32::from_bits(v));
            numbers(cmp, &map1(x, f), &map1(y, f))
        }
        Ty::F32 => numbers(cmp, &map1(x, f32::from_bits), &map1(y, f32::from_bits)),
        Ty::F16 => numbers(cmp, &map1(x, half::f16_to_f32), &map1(y, half::f16_to_f32)),
        Ty::BF16 => numbers(cmp, &map1(x, half::bf16_to_f32), &map1(y, half::bf16_to_f32)),
        _ => numbers(cmp, x, y),
    })
}

fn combine(f: BoolFn, a: u32, b: u32) -> u32 {
    match f {
        BoolFn::And => a & b,
        BoolFn::Or => a | b,
        BoolFn::Xor => a ^ b,
    }
}

fn with(w: &Warp, value: u32, with: Option<(BoolFn, PredRef)>, mask: u32) -> Done<u32> {
    match with {
        None => Ok(value),
        Some((f, p)) => Ok(combine(f, value, w.pred(p, mask)?)),
    }
}

#[inline(always)]
pub(super) fn run(w: &mut Warp, op: &Op, mask: u32) -> Done {
    match *op {
        Op::Setp { cmp, ty, ftz, d, q, a, b, with: other } => {
            let v = compare(w, cmp, ty, ftz, a, b, mask)?;
            let result = with(w, v, other, mask)?;
            if let Some(q) = q {
                let negated = with(w, !v, other, mask)?;
                w.put_pred(q, negated, mask);
            }
            w.put_pred(d, result, mask);
        }
        Op::Set { cmp, ty, ftz, float, d, a, b, with: other } => {
            let v = compare(w, cmp, ty, ftz, a, b, mask)?;
            let v = with(w, v, other, mask)?;
            let yes = if float { 1f32.to_bits() } else { !0 };
            let row = std::array::from_fn(|i| if v >> i & 1 != 0 { yes } else { 0 });
            w.put(d, &row, mask);
        }
        Op::Selp { wide: false, d, a, b, p } => {
            let p = w.pred(p, mask)?;
            let (x, y) = (w.row(a, mask)?, w.row(b, mask)?);
            let v = std::array::from_fn(|i| if p >> i & 1 != 0 { x[i] } else { y[i] });
            w.put(d, &v, mask);
        }
        Op::Selp { wide: true, d, a, b, p } => {
            let p = w.pred(p, mask)?;
            let (x, y) = (w.wide(a, mask)?, w.wide(b, mask)?);
            let v = std::array::from_fn(|i| if p >> i & 1 != 0 { x[i] } else { y[i] });
            w.put_wide(d, &v, mask);
        }
        Op::PredLogic { f, d, a, b } => {
            let v = combine(f, w.pred(a, mask)?, w.pred(b, mask)?);
            w.put_pred(d, v, mask);
        }
        Op::PredMov { d, a } => {
            let v = w.pred(a, mask)?;
            w.put_pred(d, v, mask);
        }
        Op::PredConst { d, value } => w.put_pred(d, if value { !0 } else { 0 }, mask),
        Op::Testp { test, wide, d, a } => {
            let v = match wide {
                true => mask1(w.wide(a, mask)?, |x| tested(test, f64::from_bits(x).classify())),
                false => mask1(w.row(a, mask)?, |x| tested(test, f32::from_bits(x).classify())),
            };
            w.put_pred(d, v, mask);
        }
        Op::Isspacep { space, d, a } => {
            let (start, size) = super::load_store::window(space);
            let v = mask1(w.wide(a, mask)?, |x| x.wrapping_sub(start) < size);
            w.put_pred(d, v, mask);
        }
        _ => super::int::run(w, op, mask)?,
    }
    Ok(())
}

fn tested(test: Test, class: std::num::FpCategory) -> bool {
    use std::num::FpCategory::{Infinite, Nan, Normal, Subnormal, Zero};
    match test {
        Test::Finite => matches!(class, Zero | Subnormal | Normal),
        Test::Infinite => class == Infinite,
        Test::Number => class != Nan,
        Test::NotANumber => class == Nan,
        Test::Normal => class == Normal,
        Test::Subnormal => class == Subnormal,
    }
}
