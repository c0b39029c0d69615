//! cvt: between integers and floats of every size.
use super::exact;
use super::half::{NAN32, bf16_nearest, bf16_to_f32, from_f32, from_f64, tf32, to_f32};
use super::predicate::flush;
use crate::fault::Done;
use crate::inst::{Cvt, Slot};
use crate::lanes::{Row, Wide, map1, map2};
use crate::ty::{Round, Ty};
use crate::warp::Warp;

/// A value between its two types: all integers fit the one, all floats the other.
enum Value {
    Int(i128),
    Float(f64),
}

fn read(ty: Ty, bits: u64) -> Value {
    match ty {
        Ty::U8 | Ty::B8 => Value::Int(bits as u8 as i128),
        Ty::U16 | Ty::B16 => Value::Int(bits as u16 as i128),
        Ty::U32 | Ty::B32 => Value::Int(bits as u32 as i128),
        Ty::S8 => Value::Int(bits as i8 as i128),
        Ty::S16 => Value::Int(bits as i16 as i128),
        Ty::S32 => Value::Int(bits as i32 as i128),
        Ty::S64 => Value::Int(bits as i64 as i128),
        Ty::F16 | Ty::BF16 | Ty::F16x2 | Ty::BF16x2 => Value::Float(to_f32(ty, bits as u32) as f64),
        Ty::F32 | Ty::TF32 => Value::Float(f32::from_bits(bits as u32) as f64),
        Ty::F64 => Value::Float(f64::from_bits(bits)),
        Ty::U64 | Ty::B64 | Ty::B128 | Ty::Pred => Value::Int(bits as i128),
    }
}

fn integral(x: f64, round: Round) -> f64 {
    match round {
        Round::Nearest => x.round_ties_even(),
        Round::Away => x.round(),
        Round::Zero => x.trunc(),
        Round::Down => x.floor(),
        Round::Up => x.ceil(),
    }
}

/// The least and the greatest of an integer type.
fn range(ty: Ty) -> (i128, i128) {
    let bits = ty.bytes() as u32 * 8;
    match ty.signed() {
        true => (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1),
        false => (0, (1i128 << bits) - 1),
    }
}

fn to_int(v: Value, c: &Cvt, round: Round) -> u64 {
    let (low, high) = range(c.to);
    match v {
        Value::Int(i) if c.sat => i.clamp(low, high) as u64,
        Value::Int(i) => i as u64,
        // NaN is zero, or the highest bit alone where either side has 64.
        Value::Float(x) if x.is_nan() => {
            if c.from == Ty::F64 || c.to.bytes() == 8 {
                1 << (c.to.bytes() * 8 - 1)
            } else {
                0
            }
        }
        Value::Float(x) => {
            let x = if c.ftz && c.from == Ty::F32 { flush(x as f32) as f64 } else { x };
            (integral(x, round) as i128).clamp(low, high) as u64
        }
    }
}

/// An integer to f32, rounded once.
fn int_to_f32(i: i128, round: Round) -> f32 {
    let near = i as f32;
    let back = near as i128;
    match round {
        Round::Down if back > i => near.next_down(),
        Round::Up if back < i => near.next_up(),
        Round::Zero if back.abs() > i.abs() => f32::from_bits(near.to_bits() - 1),
        _ => near,
    }
}

fn to_float(v: Value, c: &Cvt, round: Round) -> u64 {
    let x = match v {
        Value::Int(i) => match c.to {
            Ty::F32 => return int_to_f32(i, round).to_bits() as u64,
            Ty::F64 => return (i as f64).to_bits(),
            // Integers of more than 53 bits overflow or are rounded far above their last bits anyway.
            _ => i as f64,
        },
        Value::Float(x) if c.integral || c.from == c.to && c.round.is_some() => integral(x, round),
        Value::Float(x) => x,
    };
    let x = if c.ftz && c.from == Ty::F32 { flush(x as f32) as f64 } else { x };
    let x = if c.sat { if x > 0.0 { x.min(1.0) } else { 0.0 } } else { x };
    let x = if c.relu && x < 0.0 { 0.0 } else { x };
    match c.to {
        Ty::F64 => x.to_bits(),
        Ty::F32 if x.is_nan() => NAN32 as u64,
        Ty::F32 => {
            let r = exact::round(x, round);
            (if c.ftz { flush(r) } else { r }).to_bits() as u64
        }
        Ty::TF32 => tf32(x as f32, round) as u64,
        _ => from_f64(c.to, x, round) as u64,
    }
}

/// One value, from bits to bits; an integer is extended to the width of its register.
fn one(c: &Cvt, bits: u64) -> u64 {
    let round = c.round.unwrap_or(Round::Nearest);
    let v = read(c.from, bits);
    let v = if c.to.float() { to_float(v, c, round) } else { to_int(v, c, round) };
    if c.to.float() {
        return v;
    }
    let Value::Int(i) = read(c.to, v) else {
        return v;
    };
    match c.to_register {
        8 => i as u64,
        4 => i as u32 as u64,
        _ => i as u16 as u64,
    }
}

/// The conversions that kernels are full of, a loop each.
fn quick(c: &Cvt, x: &Row) -> Option<Row> {
    let plain = !c.sat && !c.relu && !c.ftz && !c.integral;
    let nearest = c.round == Some(Round::Nearest);
    Some(match (c.to, c.from) {
        (Ty::BF16, Ty::F32) if plain && nearest => map1(x, |x| bf16_nearest(f32::from_bits(x))),
        (Ty::F32, Ty::BF16) if plain => map1(x, |x| bf16_to_f32(x & 0xffff).to_bits()),
        (Ty::F32, Ty::S32) if plain && nearest => map1(x, |x| (x as i32 as f32).to_bits()),
        (Ty::F32, Ty::U32) if plain && nearest => map1(x, |x| (x as f32).to_bits()),
        (Ty::S32 | Ty::U32, Ty::S32 | Ty::U32) if !c.sat => *x,
        _ => return None,
    })
}

#[inline(always)]
pub(super) fn cvt(w: &mut Warp, c: &Cvt, mask: u32) -> Done {
    match (c.from_register == 8, c.to_register == 8) {
        (false, false) => {
            let x = w.row(c.a, mask)?;
            let v = quick(c, x).unwrap_or_else(|| map1(x, |x| one(c, x as u64) as u32));
            w.put(c.d, &v, mask);
        }
        (false, true) => {
            let x = w.row(c.a, mask)?;
            let v: Wide = match (c.to, c.from) {
                (Ty::U64 | Ty::S64, Ty::U32) if !c.sat => map1(x, |x| x as u64),
                (Ty::U64 | Ty::S64, Ty::S32) if !c.sat => map1(x, |x| x as i32 as u64),
                _ => map1(x, |x| one(c, x as u64)),
            };
            w.put_wide(c.d, &v, mask);
        }
        (true, false) => {
            let x = w.wide(c.a, mask)?;
            let v: Row = match c.to {
                Ty::U32 | Ty::S32 if !c.sat && !c.from.float() && c.from.bytes() >= 4 => map1(x, |x| x as u32),
                _ => map1(x, |x| one(c, x) as u32),
            };
            w.put(c.d, &v, mask);
        }
        (true, true) => {
            let v = map1(w.wide(c.a, mask)?, |x| one(c, x));
            w.put_wide(c.d, &v, mask);
        }
    }
    Ok(())
}

/// Two f32 to a pair, the first operand upper.
#[inline(always)]
pub(super) fn pair(w: &mut Warp, to: Ty, round: Round, relu: bool, d: Slot, [a, b]: [Slot; 2], mask: u32) -> Done {
    let (x, y) = (w.row(a, mask)?, w.row(b, mask)?);
    let v = if to == Ty::BF16x2 && round == Round::Nearest && !relu {
        map2(x, y, |x, y| bf16_nearest(f32::from_bits(x)) << 16 | bf16_nearest(f32::from_bits(y)))
    } else {
        let half = |v: u32| {
            let v = f32::from_bits(v);
            from_f32(to, if relu && v < 0.0 { 0.0 } else { v }, round)
        };
        map2(x, y, |x, y| half(x) << 16 | half(y))
    };
    w.put(d, &v, mask);
    Ok(())
}
