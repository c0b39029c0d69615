//! Memory in Cranelift. What a guard forbids goes to private memory: zeros for loads, junk for stores; so a guard needs no
//! branch, and one that differs from lane to lane chooses the address of each lane.
use super::arith::round_bf16;
use super::clif::{C, Clif, LANES, V, bytes, trusted};
use crate::emit::{Access, Lane};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::*;
use cranelift_codegen::ir::{InstBuilder, Value};
use lolm_ir::DType;

/// An address: a register and a constant.
type Place = (Value, i32);

/// How an access is carried out.
enum Plan {
    Scalar(Place),
    Vector(Place),
    Lanes(Vec<Place>),
}

pub fn load(c: &mut Clif, access: &Access<Clif>) -> V {
    match mask_of_neighbours(c, access) {
        Some(mask) => V::Val(load_masked(c, access, mask)),
        None => load_planned(c, access),
    }
}

/// The mask of an access to neighbours that happens on some lanes.
fn mask_of_neighbours(c: &mut Clif, access: &Access<Clif>) -> Option<Value> {
    let guard = access.guard.filter(|g| c.is_vector(*g) && access.lane == Lane::Contiguous)?;
    Some(c.reg(guard))
}

/// Most masks are all true or all false, as where one part of a concat ends and the next begins: then the access is one
/// instruction or none.
fn load_masked(c: &mut Clif, access: &Access<Clif>, mask: Value) -> Value {
    let ty = match access.dtype {
        DType::F32 | DType::Bf16 => F32X4,
        DType::I32 | DType::Bool => I32X4,
    };
    let [all, some, lanes, done] = [(); 4].map(|_| c.b.create_block());
    let out = c.b.append_block_param(done, ty);
    let full = c.b.ins().vall_true(mask);
    c.b.ins().brif(full, all, &[], some, &[]);
    c.b.switch_to_block(all);
    let p = place(c, access, 0);
    let x = load_vector(c, access.dtype, p);
    c.b.ins().jump(done, &[x.into()]);
    c.b.switch_to_block(some);
    let nothing = c.vector_const([0; LANES], ty);
    let any = c.b.ins().vany_true(mask);
    c.b.ins().brif(any, lanes, &[], done, &[nothing.into()]);
    c.b.switch_to_block(lanes);
    let x = load_planned(c, access);
    let x = c.vec(x);
    c.b.ins().jump(done, &[x.into()]);
    c.b.switch_to_block(done);
    out
}

fn load_planned(c: &mut Clif, access: &Access<Clif>) -> V {
    let zeros = c.zeros;
    match plan(c, access, zeros) {
        Plan::Scalar(p) => V::Val(load_scalar(c, access.dtype, p)),
        Plan::Vector(p) => V::Val(load_vector(c, access.dtype, p)),
        Plan::Lanes(places) => {
            let mut out = None;
            for (l, p) in places.into_iter().enumerate() {
                let mut x = load_scalar(c, access.dtype, p);
                if access.dtype == DType::Bool {
                    x = c.b.ins().bmask(I32, x);
                }
                let ty = if c.ty(x) == F32 { F32X4 } else { I32X4 };
                out = Some(match out {
                    None => c.b.ins().splat(ty, x),
                    Some(v) => c.b.ins().insertlane(v, x, l as u8),
                });
            }
            out.map_or(V::I32(0), V::Val)
        }
    }
}

pub fn store(c: &mut Clif, access: &Access<Clif>, v: V) {
    let Some(mask) = mask_of_neighbours(c, access) else { return store_planned(c, access, v) };
    let v = V::Val(c.vec(v));
    let [all, some, lanes, done] = [(); 4].map(|_| c.b.create_block());
    let full = c.b.ins().vall_true(mask);
    c.b.ins().brif(full, all, &[], some, &[]);
    c.b.switch_to_block(all);
    let p = place(c, access, 0);
    let x = c.vec(v);
    store_vector(c, access.dtype, p, x);
    c.b.ins().jump(done, &[]);
    c.b.switch_to_block(some);
    let any = c.b.ins().vany_true(mask);
    c.b.ins().brif(any, lanes, &[], done, &[]);
    c.b.switch_to_block(lanes);
    store_planned(c, access, v);
    c.b.ins().jump(done, &[]);
    c.b.switch_to_block(done);
}

fn store_planned(c: &mut Clif, access: &Access<Clif>, v: V) {
    let junk = c.junk;
    match plan(c, access, junk) {
        Plan::Scalar(p) => {
            let x = c.reg(v);
            store_scalar(c, access.dtype, p, x);
        }
        Plan::Vector(p) => {
            let x = c.vec(v);
            store_vector(c, access.dtype, p, x);
        }
        Plan::Lanes(places) => {
            for (l, p) in places.into_iter().enumerate() {
                let x = lane(c, v, l);
                store_scalar(c, access.dtype, p, x);
            }
        }
    }
}

pub fn accumulate(c: &mut Clif, access: &Access<Clif>, v: V) {
    let junk = c.junk;
    let add = |c: &mut Clif, a: Value, b: Value| match access.dtype {
        DType::I32 => c.b.ins().iadd(a, b),
        DType::F32 | DType::Bf16 | DType::Bool => c.b.ins().fadd(a, b),
    };
    match plan(c, access, junk) {
        Plan::Scalar(p) => {
            let (old, x) = (load_scalar(c, access.dtype, p), c.reg(v));
            let sum = add(c, old, x);
            store_scalar(c, access.dtype, p, sum);
        }
        Plan::Vector(p) => {
            let (old, x) = (load_vector(c, access.dtype, p), c.vec(v));
            let sum = add(c, old, x);
            store_vector(c, access.dtype, p, sum);
        }
        Plan::Lanes(places) => {
            for (l, p) in places.into_iter().enumerate() {
                let (old, x) = (load_scalar(c, access.dtype, p), lane(c, v, l));
                let sum = add(c, old, x);
                store_scalar(c, access.dtype, p, sum);
            }
        }
    }
}

/// One lane as a scalar; a bool becomes 0 or not 0.
fn lane(c: &mut Clif, v: V, l: usize) -> Value {
    match v {
        V::Val(x) if c.ty(x).is_vector() => c.b.ins().extractlane(x, l as u8),
        v => c.reg(v),
    }
}

fn plan(c: &mut Clif, access: &Access<Clif>, elsewhere: Option<Value>) -> Plan {
    let guard = match access.guard {
        Some(V::Bool(true)) | None => None,
        Some(g) => elsewhere.map(|e| (g, e)),
    };
    let by_lane = guard.is_some_and(|(g, _)| c.is_vector(g));
    match (&access.lane, by_lane) {
        (Lane::Uniform, false) => {
            let p = place(c, access, 0);
            Plan::Scalar(guarded(c, p, guard))
        }
        (Lane::Contiguous, false) => {
            let p = place(c, access, 0);
            Plan::Vector(guarded(c, p, guard))
        }
        _ => Plan::Lanes((0..LANES).map(|l| lane_place(c, access, guard, l)).collect()),
    }
}

/// The address of one lane.
fn lane_place(c: &mut Clif, access: &Access<Clif>, guard: Option<(V, Value)>, l: usize) -> Place {
    let size = access.dtype.bytes() as i64;
    let mut p = match &access.lane {
        Lane::Uniform => place(c, access, 0),
        Lane::Contiguous => place(c, access, l as i64 * size),
        Lane::Strided(s) | Lane::Each { stride: s, .. } => place(c, access, s * l as i64 * size),
    };
    if let Lane::Each { offsets, .. } = &access.lane {
        for (v, s) in offsets {
            let x = lane(c, *v, l);
            let x = c.b.ins().sextend(I64, x);
            let x = c.b.ins().imul_imm_s(x, s * size);
            p.0 = c.b.ins().iadd(p.0, x);
        }
    }
    let guard = guard.map(|(g, e)| (V::Val(lane(c, g, l)), e));
    guarded(c, p, guard)
}

fn place(c: &mut Clif, access: &Access<Clif>, more: i64) -> Place {
    let base = match access.address {
        C::Val(x) => x,
        constant => c.coordinate(constant),
    };
    match i32::try_from(access.offset + more) {
        Ok(offset) => (base, offset),
        Err(_) => (c.b.ins().iadd_imm_s(base, access.offset + more), 0),
    }
}

fn guarded(c: &mut Clif, p: Place, guard: Option<(V, Value)>) -> Place {
    let Some((g, elsewhere)) = guard else { return p };
    let g = c.reg(g);
    let here = if p.1 == 0 { p.0 } else { c.b.ins().iadd_imm_s(p.0, p.1 as i64) };
    (c.b.ins().select(g, here, elsewhere), 0)
}

fn load_scalar(c: &mut Clif, dtype: DType, (p, offset): Place) -> Value {
    match dtype {
        DType::F32 => c.b.ins().load(F32, trusted(), p, offset),
        DType::I32 => c.b.ins().load(I32, trusted(), p, offset),
        DType::Bf16 => {
            let x = c.b.ins().uload16(I32, trusted(), p, offset);
            let x = c.b.ins().ishl_imm_u(x, 16);
            c.b.ins().bitcast(F32, bytes(), x)
        }
        DType::Bool => {
            let x = c.b.ins().load(I8, trusted(), p, offset);
            c.b.ins().icmp_imm_u(IntCC::NotEqual, x, 0)
        }
    }
}

fn load_vector(c: &mut Clif, dtype: DType, (p, offset): Place) -> Value {
    match dtype {
        DType::F32 => c.b.ins().load(F32X4, trusted(), p, offset),
        DType::I32 => c.b.ins().load(I32X4, trusted(), p, offset),
        DType::Bf16 => {
            let x = c.b.ins().uload16x4(trusted(), p, offset);
            let x = c.b.ins().ishl_imm_u(x, 16);
            c.b.ins().bitcast(F32X4, bytes(), x)
        }
        DType::Bool => {
            // Four bytes and not eight, which would reach past the end.
            let x = c.b.ins().load(I32, trusted(), p, offset);
            let x = c.b.ins().scalar_to_vector(I32X4, x);
            let x = c.b.ins().bitcast(I8X16, bytes(), x);
            let x = c.b.ins().uwiden_low(x);
            let x = c.b.ins().uwiden_low(x);
            let zero = c.vector_const([0; LANES], I32X4);
            c.b.ins().icmp(IntCC::NotEqual, x, zero)
        }
    }
}

fn store_scalar(c: &mut Clif, dtype: DType, (p, offset): Place, x: Value) {
    match dtype {
        DType::F32 | DType::I32 => {
            c.b.ins().store(trusted(), x, p, offset);
        }
        DType::Bf16 => {
            let x = round_bf16(c, x);
            let x = c.b.ins().ushr_imm_u(x, 16);
            c.b.ins().istore16(trusted(), x, p, offset);
        }
        DType::Bool => {
            let x = c.b.ins().icmp_imm_u(IntCC::NotEqual, x, 0);
            c.b.ins().store(trusted(), x, p, offset);
        }
    }
}

fn store_vector(c: &mut Clif, dtype: DType, (p, offset): Place, x: Value) {
    match dtype {
        DType::F32 | DType::I32 => {
            c.b.ins().store(trusted(), x, p, offset);
        }
        DType::Bf16 => {
            let x = round_bf16(c, x);
            let x = c.b.ins().ushr_imm_u(x, 16);
            let x = c.b.ins().unarrow(x, x);
            let x = c.b.ins().bitcast(I64X2, bytes(), x);
            let x = c.b.ins().extractlane(x, 0);
            c.b.ins().store(trusted(), x, p, offset);
        }
        DType::Bool => {
            let one = c.vector_const([1; LANES], I32X4);
            let x = c.b.ins().band(x, one);
            let x = c.b.ins().unarrow(x, x);
            let x = c.b.ins().unarrow(x, x);
            let x = c.b.ins().bitcast(I32X4, bytes(), x);
            let x = c.b.ins().extractlane(x, 0);
            c.b.ins().store(trusted(), x, p, offset);
        }
    }
}
