//! Arithmetic in PTX: what `emit` says of each operation, in instructions that round as it does.
use super::build::Builder;
use super::inst::*;
use super::simt::{Simt, V};
use crate::emit::{Bin, Shift, Un};
use lolm_ir::DType;

pub fn unary(s: &mut Simt, op: Un, dtype: DType, a: V) -> V {
    let int = dtype == DType::I32;
    match (op, a) {
        (Un::Not, V::Bool(x)) => return V::Bool(!x),
        (Un::Bits, V::F32(x)) => return V::I32(x.to_bits() as i32),
        (Un::Float, V::I32(x)) => return V::F32(f32::from_bits(x as u32)),
        (Un::Neg, V::I32(x)) => return V::I32(x.wrapping_neg()),
        (Un::Neg, V::F32(x)) => return V::F32(-x),
        _ => {}
    }
    let a = s.reg(a);
    let b = &mut s.b;
    V::Reg(match op {
        Un::Neg if int => b.unary(UnOp::Neg, Type::S32, a),
        Un::Neg => b.unary(UnOp::Neg, Type::F32, a),
        Un::Abs if int => b.unary(UnOp::Abs, Type::S32, a),
        Un::Abs => b.unary(UnOp::Abs, Type::F32, a),
        Un::Not => b.unary(UnOp::Not, Type::Pred, a),
        Un::Sqrt => b.unary(UnOp::SqrtRn, Type::F32, a),
        Un::Bits => b.bits(Class::B32, a),
        Un::Float => b.bits(Class::F32, a),
    })
}

pub fn binary(s: &mut Simt, op: Bin, dtype: DType, a: V, b: V) -> V {
    match dtype {
        DType::F32 | DType::Bf16 => float(s, op, a, b),
        DType::I32 => int(s, op, a, b),
        DType::Bool => boolean(s, op, a, b),
    }
}

fn float(s: &mut Simt, op: Bin, a: V, b: V) -> V {
    let (a, b) = (s.src(a), s.src(b));
    let arithmetic = |s: &mut Simt, op| V::Reg(s.b.binary(op, Type::F32, a, b));
    let compare = |s: &mut Simt, cmp| V::Reg(s.b.setp(cmp, Type::F32, a, b));
    let pick = |s: &mut Simt, cmp| {
        let p = s.b.setp(cmp, Type::F32, a, b);
        V::Reg(s.b.selp(Type::F32, p, a, b))
    };
    match op {
        Bin::Add => arithmetic(s, BinOp::AddRn),
        Bin::Sub => arithmetic(s, BinOp::SubRn),
        Bin::Mul => arithmetic(s, BinOp::MulRn),
        Bin::Div => arithmetic(s, BinOp::DivRn),
        Bin::Max => arithmetic(s, BinOp::MaxNan),
        Bin::Min => arithmetic(s, BinOp::MinNan),
        Bin::Above => pick(s, Cmp::Gt),
        Bin::Below => pick(s, Cmp::Lt),
        Bin::Lt => compare(s, Cmp::Lt),
        Bin::Le => compare(s, Cmp::Le),
        Bin::Eq => compare(s, Cmp::Eq),
        Bin::Rem | Bin::And | Bin::Or | Bin::Xor | Bin::MulHigh => s.wrong("an operation on the wrong dtype"),
    }
}

fn int(s: &mut Simt, op: Bin, a: V, b: V) -> V {
    if let (V::I32(x), V::I32(y)) = (a, b)
        && let Some(v) = known(op, x, y)
    {
        return v;
    }
    match (op, b) {
        (Bin::Add | Bin::Sub | Bin::Or | Bin::Xor, V::I32(0)) => return a,
        (Bin::Add, b) if a == V::I32(0) => return b,
        (Bin::Div | Bin::Rem, V::I32(d)) if d > 0 => return divide_by_constant(s, op, a, d),
        (Bin::Div | Bin::Rem, _) => return divide(s, op, a, b),
        _ => {}
    }
    let (a, b) = (s.src(a), s.src(b));
    let arithmetic = |s: &mut Simt, op, ty| V::Reg(s.b.binary(op, ty, a, b));
    let compare = |s: &mut Simt, cmp| V::Reg(s.b.setp(cmp, Type::S32, a, b));
    match op {
        Bin::Add => arithmetic(s, BinOp::Add, Type::S32),
        Bin::Sub => arithmetic(s, BinOp::Sub, Type::S32),
        Bin::Mul => arithmetic(s, BinOp::MulLo, Type::S32),
        Bin::Max | Bin::Above => arithmetic(s, BinOp::Max, Type::S32),
        Bin::Min | Bin::Below => arithmetic(s, BinOp::Min, Type::S32),
        Bin::And => arithmetic(s, BinOp::And, Type::B32),
        Bin::Or => arithmetic(s, BinOp::Or, Type::B32),
        Bin::Xor => arithmetic(s, BinOp::Xor, Type::B32),
        Bin::MulHigh => arithmetic(s, BinOp::MulHi, Type::U32),
        Bin::Lt => compare(s, Cmp::Lt),
        Bin::Le => compare(s, Cmp::Le),
        Bin::Eq => compare(s, Cmp::Eq),
        Bin::Div | Bin::Rem => s.wrong("a division that is not one"),
    }
}

/// What an operation gives on constants.
fn known(op: Bin, a: i32, b: i32) -> Option<V> {
    Some(match op {
        Bin::Add => V::I32(a.wrapping_add(b)),
        Bin::Sub => V::I32(a.wrapping_sub(b)),
        Bin::Mul => V::I32(a.wrapping_mul(b)),
        Bin::Max | Bin::Above => V::I32(a.max(b)),
        Bin::Min | Bin::Below => V::I32(a.min(b)),
        Bin::And => V::I32(a & b),
        Bin::Or => V::I32(a | b),
        Bin::Xor => V::I32(a ^ b),
        Bin::Lt => V::Bool(a < b),
        Bin::Le => V::Bool(a <= b),
        Bin::Eq => V::Bool(a == b),
        Bin::MulHigh => V::I32(((a as u32 as u64 * b as u32 as u64) >> 32) as i32),
        Bin::Div | Bin::Rem => return None,
    })
}

/// By d > 0: where x is negative, ⌊x / d⌋ = !⌊!x / d⌋, and a division of what is not negative is by the bits alone.
fn divide_by_constant(s: &mut Simt, op: Bin, a: V, d: i32) -> V {
    let a = s.reg(a);
    let b = &mut s.b;
    let by = d as i64;
    if d & (d - 1) == 0 {
        return V::Reg(match op {
            Bin::Div => b.binary(BinOp::Shr, Type::S32, a, Src::Int(by.trailing_zeros() as i64)),
            _ => b.binary(BinOp::And, Type::B32, a, Src::Int(by - 1)),
        });
    }
    let sign = b.binary(BinOp::Shr, Type::S32, a, Src::Int(31));
    let x = b.binary(BinOp::Xor, Type::B32, a, sign);
    let q = b.binary(BinOp::Div, Type::U32, x, Src::Int(by));
    let q = b.binary(BinOp::Xor, Type::B32, q, sign);
    if op == Bin::Div {
        return V::Reg(q);
    }
    let back = b.binary(BinOp::MulLo, Type::S32, q, Src::Int(by));
    V::Reg(b.binary(BinOp::Sub, Type::S32, a, back))
}

/// Quotient towards -∞ or remainder with the sign of the divisor; both 0 where that is 0. The machine divides by
/// neither 0 nor -1, whose quotient may overflow: by 1 in their place.
fn divide(s: &mut Simt, op: Bin, a: V, d: V) -> V {
    let (a, d) = (s.reg(a), s.reg(d));
    let b = &mut s.b;
    let none = b.setp(Cmp::Eq, Type::S32, d, Src::Int(0));
    let minus = b.setp(Cmp::Eq, Type::S32, d, Src::Int(-1));
    let odd = b.binary(BinOp::Or, Type::Pred, none, minus);
    let by = b.selp(Type::B32, odd, Src::Int(1), d);
    let q = b.binary(BinOp::Div, Type::S32, a, by);
    let back = b.binary(BinOp::MulLo, Type::S32, q, by);
    let r = b.binary(BinOp::Sub, Type::S32, a, back);
    let signs = b.binary(BinOp::Xor, Type::B32, r, by);
    let differ = b.setp(Cmp::Lt, Type::S32, signs, Src::Int(0));
    let inexact = b.setp(Cmp::Ne, Type::S32, r, Src::Int(0));
    let adjust = b.binary(BinOp::And, Type::Pred, differ, inexact);
    let x = if op == Bin::Div {
        let down = b.binary(BinOp::Add, Type::S32, q, Src::Int(-1));
        let q = b.selp(Type::B32, adjust, down, q);
        let negative = b.unary(UnOp::Neg, Type::S32, a);
        b.selp(Type::B32, minus, negative, q)
    } else {
        // Modulo 1 and -1 nothing is left, as of the division by 1.
        let up = b.binary(BinOp::Add, Type::S32, r, by);
        b.selp(Type::B32, adjust, up, r)
    };
    V::Reg(b.selp(Type::B32, none, Src::Int(0), x))
}

fn boolean(s: &mut Simt, op: Bin, a: V, b: V) -> V {
    match (op, a, b) {
        (Bin::And, V::Bool(true), x) | (Bin::And, x, V::Bool(true)) => return x,
        (Bin::Or, V::Bool(false), x) | (Bin::Or, x, V::Bool(false)) => return x,
        (Bin::Xor, V::Bool(false), x) | (Bin::Xor, x, V::Bool(false)) => return x,
        _ => {}
    }
    let (a, b) = (s.reg(a), s.reg(b));
    let logic = |s: &mut Simt, op| s.b.binary(op, Type::Pred, a, b);
    match op {
        Bin::And => V::Reg(logic(s, BinOp::And)),
        Bin::Or => V::Reg(logic(s, BinOp::Or)),
        Bin::Xor => V::Reg(logic(s, BinOp::Xor)),
        Bin::Eq => {
            let x = logic(s, BinOp::Xor);
            V::Reg(s.b.unary(UnOp::Not, Type::Pred, x))
        }
        Bin::Add | Bin::Sub | Bin::Mul | Bin::Div | Bin::Rem | Bin::Max | Bin::Min => s.wrong("arithmetic of bools"),
        Bin::Above | Bin::Below | Bin::Lt | Bin::Le | Bin::MulHigh => s.wrong("arithmetic of bools"),
    }
}

pub fn shift(s: &mut Simt, op: Shift, a: V, by: u8) -> V {
    if let V::I32(x) = a {
        return V::I32(match op {
            Shift::Left => x.wrapping_shl(by as u32),
            Shift::Right => (x as u32).wrapping_shr(by as u32) as i32,
            Shift::Arithmetic => x.wrapping_shr(by as u32),
        });
    }
    let a = s.reg(a);
    let (op, ty) = match op {
        Shift::Left => (BinOp::Shl, Type::B32),
        Shift::Right => (BinOp::Shr, Type::U32),
        Shift::Arithmetic => (BinOp::Shr, Type::S32),
    };
    V::Reg(s.b.binary(op, ty, a, Src::Int(by as i64)))
}

pub fn select(s: &mut Simt, cond: V, a: V, b: V) -> V {
    let p = match cond {
        V::Bool(c) => return if c { a } else { b },
        V::Reg(p) => p,
        V::F32(_) | V::I32(_) => return s.wrong("a choice by a number"),
    };
    match (a, b) {
        _ if a == b => a,
        _ if s.class(a) == Class::Pred => {
            let (a, b) = (s.reg(a), s.reg(b));
            let first = s.b.binary(BinOp::And, Type::Pred, p, a);
            let not = s.b.unary(UnOp::Not, Type::Pred, p);
            let second = s.b.binary(BinOp::And, Type::Pred, not, b);
            V::Reg(s.b.binary(BinOp::Or, Type::Pred, first, second))
        }
        _ => {
            let ty = if s.class(a) == Class::F32 { Type::F32 } else { Type::B32 };
            let (a, b) = (s.src(a), s.src(b));
            V::Reg(s.b.selp(ty, p, a, b))
        }
    }
}

pub fn cast(s: &mut Simt, from: DType, to: DType, a: V) -> V {
    use DType::*;
    match (from, to) {
        (F32 | Bf16, F32) | (Bf16, Bf16) | (I32, I32) | (Bool, Bool) => a,
        (F32, Bf16) => {
            let h = round_bf16(s, a);
            let bits = s.b.cvt(Type::U32, Type::U16, Rounding::None, h);
            V::Reg(widen_bf16(&mut s.b, bits))
        }
        (I32, F32) => {
            let a = s.reg(a);
            V::Reg(s.b.cvt(Type::F32, Type::S32, Rounding::Rn, a))
        }
        (I32, Bf16) => {
            let x = cast(s, I32, F32, a);
            cast(s, F32, Bf16, x)
        }
        (F32 | Bf16, I32) => {
            let a = s.reg(a);
            V::Reg(s.b.cvt(Type::S32, Type::F32, Rounding::Rzi, a))
        }
        (Bool, F32 | Bf16) => select(s, a, V::F32(1.0), V::F32(0.0)),
        (Bool, I32) => select(s, a, V::I32(1), V::I32(0)),
        (F32 | Bf16, Bool) => {
            let a = s.src(a);
            V::Reg(s.b.setp(Cmp::Neu, Type::F32, a, Src::F32(0)))
        }
        (I32, Bool) => {
            let a = s.src(a);
            V::Reg(s.b.setp(Cmp::Ne, Type::S32, a, Src::Int(0)))
        }
    }
}

/// The nearest bf16, ties to even, in 16 bits.
pub fn round_bf16(s: &mut Simt, a: V) -> Reg {
    let a = s.reg(a);
    s.b.cvt(Type::Bf16, Type::F32, Rounding::Rn, a)
}

/// The f32 whose upper half these 16 bits are.
pub fn widen_bf16(b: &mut Builder, bits: Reg) -> Reg {
    let x = b.binary(BinOp::Shl, Type::B32, bits, Src::Int(16));
    b.bits(Class::F32, x)
}
