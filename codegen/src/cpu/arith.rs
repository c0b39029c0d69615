//! Arithmetic in Cranelift, in the forms that its lowering turns into single instructions.
use super::clif::{Clif, LANES, V, bytes};
use crate::emit::{Bin, Un};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::*;
use cranelift_codegen::ir::{InstBuilder, Value};
use lolm_ir::DType;

pub fn unary(c: &mut Clif, op: Un, dtype: DType, a: V) -> V {
    let a = c.reg(a);
    let int = dtype == DType::I32;
    V::Val(match op {
        Un::Neg if int => c.b.ins().ineg(a),
        Un::Neg => c.b.ins().fneg(a),
        Un::Abs if int => c.b.ins().iabs(a),
        Un::Abs => c.b.ins().fabs(a),
        Un::Not if c.ty(a).is_vector() => c.b.ins().bnot(a),
        Un::Not => c.b.ins().bxor_imm_u(a, 1),
        Un::Sqrt => c.b.ins().sqrt(a),
        Un::Bits => {
            let ty = if c.ty(a).is_vector() { I32X4 } else { I32 };
            c.b.ins().bitcast(ty, bytes(), a)
        }
        Un::Float => as_float(c, a),
    })
}

pub fn as_float(c: &mut Clif, a: Value) -> Value {
    let ty = if c.ty(a).is_vector() { F32X4 } else { F32 };
    c.b.ins().bitcast(ty, bytes(), a)
}

pub fn binary(c: &mut Clif, op: Bin, dtype: DType, a: V, b: V) -> V {
    match dtype {
        DType::F32 | DType::Bf16 => float(c, op, a, b),
        DType::I32 => int(c, op, a, b),
        DType::Bool => boolean(c, op, a, b),
    }
}

fn float(c: &mut Clif, op: Bin, a: V, b: V) -> V {
    let [a, b] = c.same([a, b]);
    V::Val(match op {
        Bin::Add => c.b.ins().fadd(a, b),
        Bin::Sub => c.b.ins().fsub(a, b),
        Bin::Mul => c.b.ins().fmul(a, b),
        Bin::Div => c.b.ins().fdiv(a, b),
        Bin::Above => less(c, (b, a), (a, b)),
        Bin::Below => less(c, (a, b), (a, b)),
        Bin::Max => {
            let m = less(c, (b, a), (a, b));
            or_nan(c, a, m)
        }
        Bin::Min => {
            let m = less(c, (a, b), (a, b));
            or_nan(c, a, m)
        }
        Bin::Lt => c.b.ins().fcmp(FloatCC::LessThan, a, b),
        Bin::Le => c.b.ins().fcmp(FloatCC::LessThanOrEqual, a, b),
        Bin::Eq => c.b.ins().fcmp(FloatCC::Equal, a, b),
        Bin::Rem | Bin::And | Bin::Or | Bin::Xor | Bin::MulHigh => return wrong(c),
    })
}

/// An operation that no caller asks for on this dtype; the kernel's rules exclude it.
fn wrong(_: &mut Clif) -> V {
    debug_assert!(false, "an operation on the wrong dtype");
    V::I32(0)
}

/// `if p < q { x } else { y }`, one instruction where x and y are p and q.
fn less(c: &mut Clif, (p, q): (Value, Value), (x, y): (Value, Value)) -> Value {
    let cond = c.b.ins().fcmp(FloatCC::LessThan, p, q);
    pick(c, cond, x, y)
}

/// `a` where it is NaN, else `m`.
fn or_nan(c: &mut Clif, a: Value, m: Value) -> Value {
    let nan = c.b.ins().fcmp(FloatCC::Unordered, a, a);
    pick(c, nan, a, m)
}

/// Chooses by a bool or a mask, whose shape is that of the operands.
fn pick(c: &mut Clif, cond: Value, x: Value, y: Value) -> Value {
    if !c.ty(cond).is_vector() {
        return c.b.ins().select(cond, x, y);
    }
    let cond = match c.ty(x) {
        F32X4 => c.b.ins().bitcast(F32X4, bytes(), cond),
        _ => cond,
    };
    c.b.ins().bitselect(cond, x, y)
}

fn int(c: &mut Clif, op: Bin, a: V, b: V) -> V {
    match (op, b) {
        (Bin::Div | Bin::Rem, V::I32(d)) if d > 0 => return divide_by_constant(c, op, a, d),
        (Bin::Div | Bin::Rem, _) => return by_lane(c, a, b, |c, a, b| divide(c, op, a, b)),
        _ => {}
    }
    let [a, b] = c.same([a, b]);
    V::Val(match op {
        Bin::Add => c.b.ins().iadd(a, b),
        Bin::Sub => c.b.ins().isub(a, b),
        Bin::Mul => c.b.ins().imul(a, b),
        Bin::Max | Bin::Above => c.b.ins().smax(a, b),
        Bin::Min | Bin::Below => c.b.ins().smin(a, b),
        Bin::Lt => c.b.ins().icmp(IntCC::SignedLessThan, a, b),
        Bin::Le => c.b.ins().icmp(IntCC::SignedLessThanOrEqual, a, b),
        Bin::Eq => c.b.ins().icmp(IntCC::Equal, a, b),
        Bin::And => c.b.ins().band(a, b),
        Bin::Or => c.b.ins().bor(a, b),
        Bin::Xor => c.b.ins().bxor(a, b),
        Bin::MulHigh => multiply_high(c, a, b),
        Bin::Div | Bin::Rem => return wrong(c),
    })
}

/// Scalars as they are, vectors lane by lane.
fn by_lane(c: &mut Clif, a: V, b: V, f: impl Fn(&mut Clif, Value, Value) -> Value) -> V {
    let [a, b] = c.same([a, b]);
    if !c.ty(a).is_vector() {
        return V::Val(f(c, a, b));
    }
    let mut out = None;
    for l in 0..LANES as u8 {
        let (x, y) = (c.b.ins().extractlane(a, l), c.b.ins().extractlane(b, l));
        let q = f(c, x, y);
        out = Some(match out {
            None => c.b.ins().splat(I32X4, q),
            Some(v) => c.b.ins().insertlane(v, q, l),
        });
    }
    out.map_or(V::I32(0), V::Val)
}

/// Quotient towards -∞ or remainder with the sign of the divisor; in 64 bits, where no quotient overflows.
fn divide(c: &mut Clif, op: Bin, a: Value, b: Value) -> Value {
    let (a, b) = (c.b.ins().sextend(I64, a), c.b.ins().sextend(I64, b));
    let zero = c.b.ins().iconst(I64, 0);
    let one = c.b.ins().iconst(I64, 1);
    let none = c.b.ins().icmp(IntCC::Equal, b, zero);
    let d = c.b.ins().select(none, one, b);
    let q = c.b.ins().sdiv(a, d);
    let back = c.b.ins().imul(q, d);
    let r = c.b.ins().isub(a, back);
    let signs = c.b.ins().bxor(r, d);
    let differ = c.b.ins().icmp(IntCC::SignedLessThan, signs, zero);
    let inexact = c.b.ins().icmp(IntCC::NotEqual, r, zero);
    let adjust = c.b.ins().band(differ, inexact);
    let (up, down) = (c.b.ins().iadd(r, d), c.b.ins().isub(q, one));
    let (x, y) = if op == Bin::Div { (down, q) } else { (up, r) };
    let x = c.b.ins().select(adjust, x, y);
    let x = c.b.ins().select(none, zero, x);
    c.b.ins().ireduce(I32, x)
}

/// A product with 2^s / d in place of the division. For x >= 0 and s = 31 + ⌈log2 d⌉ the error stays below 1/d; where x
/// is negative, ⌊x / d⌋ = !⌊!x / d⌋.
fn divide_by_constant(c: &mut Clif, op: Bin, a: V, d: i32) -> V {
    let log = 32 - (d - 1).leading_zeros();
    let factor = (1u64 << (31 + log)).div_ceil(d as u64);
    let a = c.reg(a);
    let sign = c.b.ins().sshr_imm_u(a, 31);
    let x = c.b.ins().bxor(a, sign);
    let q = if c.ty(a).is_vector() {
        let by = c.vector_const([factor as u32; LANES], I32X4);
        let (low, high) = wide_products(c, x, by);
        // Both halves of the shifted products fit in their low words.
        let (low, high) = (c.b.ins().ushr_imm_u(low, 31 + log as i64), c.b.ins().ushr_imm_u(high, 31 + log as i64));
        words(c, low, high, 0)
    } else {
        let x = c.b.ins().uextend(I64, x);
        let by = c.b.ins().iconst(I64, factor as i64);
        let x = c.b.ins().imul(x, by);
        let x = c.b.ins().ushr_imm_u(x, 31 + log as i64);
        c.b.ins().ireduce(I32, x)
    };
    let q = V::Val(c.b.ins().bxor(q, sign));
    if op == Bin::Div {
        return q;
    }
    let back = int(c, Bin::Mul, q, V::I32(d));
    int(c, Bin::Sub, V::Val(a), back)
}

/// The 64-bit products of the lower two lanes and of the upper two.
fn wide_products(c: &mut Clif, a: Value, b: Value) -> (Value, Value) {
    let (al, bl) = (c.b.ins().uwiden_low(a), c.b.ins().uwiden_low(b));
    let (ah, bh) = (c.b.ins().uwiden_high(a), c.b.ins().uwiden_high(b));
    (c.b.ins().imul(al, bl), c.b.ins().imul(ah, bh))
}

/// The low (0) or high (1) 32 bits of four 64-bit lanes.
fn words(c: &mut Clif, low: Value, high: Value, half: u8) -> Value {
    let low = c.b.ins().bitcast(I8X16, bytes(), low);
    let high = c.b.ins().bitcast(I8X16, bytes(), high);
    let mask: Vec<u8> = (0..4).flat_map(|l| (0..4).map(move |b| 8 * l + 4 * half + b)).collect();
    let mask = c.b.func.dfg.immediates.push(mask.into());
    let both = c.b.ins().shuffle(low, high, mask);
    c.b.ins().bitcast(I32X4, bytes(), both)
}

fn multiply_high(c: &mut Clif, a: Value, b: Value) -> Value {
    if !c.ty(a).is_vector() {
        return c.b.ins().umulhi(a, b);
    }
    let (low, high) = wide_products(c, a, b);
    words(c, low, high, 1)
}

fn boolean(c: &mut Clif, op: Bin, a: V, b: V) -> V {
    let [a, b] = c.same([a, b]);
    V::Val(match op {
        Bin::And => c.b.ins().band(a, b),
        Bin::Or => c.b.ins().bor(a, b),
        Bin::Xor => c.b.ins().bxor(a, b),
        Bin::Eq => c.b.ins().icmp(IntCC::Equal, a, b),
        Bin::Add | Bin::Sub | Bin::Mul | Bin::Div | Bin::Rem | Bin::Max | Bin::Min => return wrong(c),
        Bin::Above | Bin::Below | Bin::Lt | Bin::Le | Bin::MulHigh => return wrong(c),
    })
}

pub fn select(c: &mut Clif, cond: V, a: V, b: V) -> V {
    if let V::Bool(cond) = cond {
        return if cond { a } else { b };
    }
    let [a, b] = if c.is_vector(cond) { [c.vec(a), c.vec(b)] } else { c.same([a, b]) };
    let cond = c.reg(cond);
    V::Val(pick(c, cond, a, b))
}

pub fn cast(c: &mut Clif, from: DType, to: DType, a: V) -> V {
    use DType::*;
    match (from, to) {
        (F32 | Bf16, F32) | (Bf16, Bf16) | (I32, I32) | (Bool, Bool) => a,
        (F32, Bf16) => {
            let a = c.reg(a);
            let bits = round_bf16(c, a);
            let high = c.b.ins().ushr_imm_u(bits, 16);
            let bits = c.b.ins().ishl_imm_u(high, 16);
            V::Val(as_float(c, bits))
        }
        (I32, F32) => {
            let a = c.reg(a);
            let ty = if c.ty(a).is_vector() { F32X4 } else { cranelift_codegen::ir::types::F32 };
            V::Val(c.b.ins().fcvt_from_sint(ty, a))
        }
        (I32, Bf16) => {
            let x = cast(c, I32, F32, a);
            cast(c, F32, Bf16, x)
        }
        (F32 | Bf16, I32) => {
            let a = c.reg(a);
            let ty = if c.ty(a).is_vector() { I32X4 } else { cranelift_codegen::ir::types::I32 };
            V::Val(c.b.ins().fcvt_to_sint_sat(ty, a))
        }
        (Bool, F32 | Bf16) => select(c, a, V::F32(1.0), V::F32(0.0)),
        (Bool, I32) => select(c, a, V::I32(1), V::I32(0)),
        (F32 | Bf16, Bool) => {
            let [a, zero] = c.same([a, V::F32(0.0)]);
            V::Val(c.b.ins().fcmp(FloatCC::NotEqual, a, zero))
        }
        (I32, Bool) => {
            let [a, zero] = c.same([a, V::I32(0)]);
            V::Val(c.b.ins().icmp(IntCC::NotEqual, a, zero))
        }
    }
}

/// The bits of an f32 whose upper half is the nearest bf16, ties to even; NaN stays NaN.
pub fn round_bf16(c: &mut Clif, a: Value) -> Value {
    let bits = unary(c, Un::Bits, DType::F32, V::Val(a));
    let x = c.reg(bits);
    let high = V::Val(c.b.ins().ushr_imm_u(x, 16));
    let odd = int(c, Bin::And, high, V::I32(1));
    let up = int(c, Bin::Add, bits, V::I32(0x7fff));
    let up = int(c, Bin::Add, up, odd);
    let quiet = int(c, Bin::Or, bits, V::I32(0x0040_0000));
    let nan = V::Val(c.b.ins().fcmp(FloatCC::Unordered, a, a));
    let rounded = select(c, nan, quiet, up);
    c.reg(rounded)
}
