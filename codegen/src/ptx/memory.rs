//! Memory in PTX: where each lane's element lies, and who writes it.
//!
//! Lanes that write what others read must meet in between. Shared memory of a warp and operands that are read and written
//! are watched for that, and a barrier of the warp stands wherever such a pair may follow each other.
use super::coord::C;
use super::inst::*;
use super::simt::{LANES, Simt, V};
use super::{arith, coord};
use crate::emit::{Access, Emit, Lane};
use lolm_ir::DType;
use lolm_ir::kernel::Mode;

/// What was done to shared memory since the lanes last met. Where neighbouring lanes have neighbouring elements of an
/// array, each element has one lane, which comes back to it in its own time; otherwise others may be meant.
#[derive(Clone, Copy, Default)]
pub struct Pending {
    pub read: bool,
    pub written: bool,
    pub read_by_others: bool,
    pub written_by_others: bool,
}

struct Place {
    space: Space,
    at: Address,
}

/// The predicate of a guard: nothing if it always holds.
enum Guard {
    Always,
    Never,
    Where(Reg),
}

fn guard(access: &Access<Simt>) -> Guard {
    match access.guard {
        None | Some(V::Bool(true)) => Guard::Always,
        Some(V::Reg(p)) if p.class == Class::Pred => Guard::Where(p),
        Some(_) => Guard::Never,
    }
}

fn both(s: &mut Simt, a: Guard, b: Reg) -> Guard {
    match a {
        Guard::Always => Guard::Where(b),
        Guard::Never => Guard::Never,
        Guard::Where(a) => Guard::Where(s.b.binary(BinOp::And, Type::Pred, a, b)),
    }
}

/// The address of this lane's element.
fn place(s: &mut Simt, access: &Access<Simt>) -> Option<Place> {
    let size = access.dtype.bytes() as i64;
    let (mut base, space) = match access.address {
        C::Global(r, o) if s.modes[o as usize] == Mode::In => (r, Space::ReadOnly),
        C::Global(r, _) => (r, Space::Global),
        C::Shared(r) => (r, Space::Shared),
        C::Const(_) | C::Int { .. } | C::Long(_) => {
            s.wrong("an access without an operand");
            return None;
        }
    };
    let (stride, offsets) = match &access.lane {
        Lane::Uniform => (0, &[][..]),
        Lane::Contiguous => (1, &[][..]),
        Lane::Strided(n) => (*n, &[][..]),
        Lane::Each { stride, offsets } => (*stride, &offsets[..]),
    };
    if stride != 0 {
        let lanes = s.lane_offset(space, stride * size);
        base = sum(s, space, base, lanes);
    }
    for (v, n) in offsets {
        let c = widen(s, *v);
        let c = coord::mul(&mut s.b, c, n * size);
        let x = match space {
            Space::Global | Space::ReadOnly => coord::long(&mut s.b, c),
            Space::Shared => coord::int(&mut s.b, c),
        };
        base = sum(s, space, base, x);
    }
    let offset = i32::try_from(access.offset).unwrap_or_else(|_| {
        base = sum(s, space, base, Src::Int(access.offset));
        0
    });
    Some(Place { space, at: Address { base, offset } })
}

fn sum(s: &mut Simt, space: Space, a: Reg, b: impl Into<Src>) -> Reg {
    let ty = if space == Space::Shared { Type::S32 } else { Type::S64 };
    s.b.binary(BinOp::Add, ty, a, b)
}

/// An i32 as a coordinate.
pub fn widen(s: &mut Simt, v: V) -> C {
    match v {
        V::I32(x) => C::Const(x as i64),
        v => C::Int { reg: s.reg(v), lo: i32::MIN as i64, hi: i32::MAX as i64 },
    }
}

pub fn load(s: &mut Simt, access: &Access<Simt>) -> V {
    let guard = guard(access);
    if let Guard::Never = guard {
        return nothing(access.dtype);
    }
    before_load(s, access);
    let Some(p) = place(s, access) else { return nothing(access.dtype) };
    let guard = if let Guard::Where(p) = guard { Some((p, true)) } else { None };
    V::Reg(load_at(s, access.dtype, p, guard))
}

fn nothing(dtype: DType) -> V {
    match dtype {
        DType::F32 | DType::Bf16 => V::F32(0.0),
        DType::I32 => V::I32(0),
        DType::Bool => V::Bool(false),
    }
}

/// Loads where the guard holds, 0 elsewhere.
fn load_at(s: &mut Simt, dtype: DType, p: Place, guard: Option<(Reg, bool)>) -> Reg {
    let ty = match dtype {
        DType::F32 => Type::F32,
        DType::I32 => Type::B32,
        DType::Bf16 => Type::U16,
        DType::Bool => Type::U8,
    };
    let d = s.b.reg(super::build::Builder::class(ty));
    if guard.is_some() {
        let (ty, a) = if dtype == DType::F32 { (Type::F32, Src::F32(0)) } else { (Type::B32, Src::Int(0)) };
        s.b.op(Op::Mov { ty, d, a });
    }
    s.b.guarded(guard, Op::Ld { space: p.space, ty, d, at: p.at });
    match dtype {
        DType::F32 | DType::I32 => d,
        DType::Bf16 => arith::widen_bf16(&mut s.b, d),
        DType::Bool => s.b.setp(Cmp::Ne, Type::S32, d, Src::Int(0)),
    }
}

pub fn store(s: &mut Simt, access: &Access<Simt>, v: V) {
    let mut guard = guard(access);
    if one_place(&access.lane) && !s.alone {
        let first = s.first_lane();
        guard = both(s, guard, first);
    }
    if let Guard::Never = guard {
        return;
    }
    before_store(s, access);
    let Some(p) = place(s, access) else { return };
    let guard = if let Guard::Where(p) = guard { Some((p, true)) } else { None };
    store_at(s, access.dtype, p, guard, v);
}

/// All lanes have the same element.
fn one_place<V>(lane: &Lane<V>) -> bool {
    matches!(lane, Lane::Uniform | Lane::Strided(0))
}

fn store_at(s: &mut Simt, dtype: DType, p: Place, guard: Option<(Reg, bool)>, v: V) {
    let (ty, a) = match dtype {
        DType::F32 => (Type::F32, s.reg(v)),
        DType::I32 => (Type::B32, s.reg(v)),
        DType::Bf16 => (Type::B16, arith::round_bf16(s, v)),
        DType::Bool => {
            let x = arith::cast(s, DType::Bool, DType::I32, v);
            (Type::U8, s.reg(x))
        }
    };
    s.b.guarded(guard, Op::St { space: p.space, ty, a, at: p.at });
}

/// Adds to memory. Where lanes may have the same element they take turns, the first one first.
pub fn accumulate(s: &mut Simt, access: &Access<Simt>, v: V) {
    let guard = guard(access);
    if let Guard::Never = guard {
        return;
    }
    // Another lane may have added to this element before.
    s.b.op(Op::SyncWarp);
    match &access.lane {
        Lane::Uniform => {
            let first = s.first_lane();
            let guard = both(s, guard, first);
            add_at(s, access, guard, v);
        }
        Lane::Contiguous => add_at(s, access, guard, v),
        Lane::Strided(n) if *n != 0 => add_at(s, access, guard, v),
        Lane::Strided(_) | Lane::Each { .. } => in_turns(s, access, guard, v),
    }
}

fn in_turns(s: &mut Simt, access: &Access<Simt>, guard: Guard, v: V) {
    let v = V::Reg(s.reg(v));
    let turn = s.b.variable(Type::B32, Src::Int(0));
    let again = s.b.label();
    s.b.place(again);
    s.b.open();
    let lane = s.lane();
    let mine = s.b.setp(Cmp::Eq, Type::S32, lane, turn);
    let mine = both(s, guard, mine);
    add_at(s, access, mine, v);
    s.b.op(Op::SyncWarp);
    s.b.op(Op::Binary { op: BinOp::Add, ty: Type::S32, d: turn, a: turn.into(), b: Src::Int(1) });
    s.b.close();
    let more = s.b.compare(Cmp::Lt, Type::S32, turn, Src::Int(LANES as i64));
    s.b.bra(again, Some((more, true)));
}

fn add_at(s: &mut Simt, access: &Access<Simt>, guard: Guard, v: V) {
    let Some(p) = place(s, access) else { return };
    let guard = if let Guard::Where(p) = guard { Some((p, true)) } else { None };
    let at = Place { space: p.space, at: p.at };
    let old = V::Reg(load_at(s, access.dtype, p, guard));
    let sum = arith::binary(s, crate::emit::Bin::Add, access.dtype, old, v);
    store_at(s, access.dtype, at, guard, sum);
}

/// Gives every warp of the block the values of all of them: each writes its own, lane by lane, and after they have met reads
/// everyone's.
pub fn exchange(s: &mut Simt, values: &[V]) -> Vec<Vec<V>> {
    let warps = s.share().warps;
    let row = 4 * LANES as i64;
    let slots: Vec<C> = values.iter().map(|_| s.slot((warps * row) as u32)).collect();
    let (warp, lanes) = (s.warp(), s.lane_offset(Space::Shared, 4));
    let mine = s.b.binary(BinOp::MulLo, Type::S32, warp, Src::Int(row));
    let mine = s.b.binary(BinOp::Add, Type::S32, mine, lanes);
    let bases: Vec<Reg> = slots.into_iter().filter_map(|c| if let C::Shared(r) = c { Some(r) } else { None }).collect();
    for (v, base) in values.iter().zip(&bases) {
        let a = s.reg(*v);
        let base = s.b.binary(BinOp::Add, Type::S32, *base, mine);
        s.b.op(Op::St { space: Space::Shared, ty: word(a.class), a, at: Address { base, offset: 0 } });
    }
    s.b.op(Op::SyncBlock);
    let mut all = vec![];
    for w in 0..warps {
        let of = |(v, base): (&V, &Reg)| {
            let d = s.b.reg(s.class(*v));
            let base = s.b.binary(BinOp::Add, Type::S32, *base, lanes);
            let at = Address { base, offset: (w * row) as i32 };
            s.b.op(Op::Ld { space: Space::Shared, ty: word(d.class), d, at });
            V::Reg(d)
        };
        all.push(values.iter().zip(&bases).map(of).collect());
    }
    // The next time around nobody writes before all have read.
    if s.in_loop() {
        s.b.op(Op::SyncBlock);
    }
    all
}

fn word(c: Class) -> Type {
    if c == Class::F32 { Type::F32 } else { Type::B32 }
}

/// Shared memory that was written may have been written by another lane.
fn before_load(s: &mut Simt, access: &Access<Simt>) {
    match access.address {
        C::Shared(_) => {
            let own = access.lane == Lane::Contiguous;
            if s.pending.written_by_others || s.pending.written && !own {
                s.meet();
            }
            s.pending.read = true;
            s.pending.read_by_others |= !own;
        }
        C::Global(_, o) => s.read_by_all[o as usize] |= access.lane == Lane::Uniform,
        C::Const(_) | C::Int { .. } | C::Long(_) => {}
    }
}

/// What is overwritten may not have been read, or written, by another lane yet.
fn before_store(s: &mut Simt, access: &Access<Simt>) {
    match access.address {
        C::Shared(_) => {
            let own = access.lane == Lane::Contiguous;
            let others = s.pending.read_by_others || s.pending.written_by_others;
            if others || (s.pending.read || s.pending.written) && !own {
                s.meet();
            }
            s.pending.written = true;
            s.pending.written_by_others |= !own;
        }
        // An element is read, if at all, before it is written, and by the lane that writes it unless all lanes read it or
        // one writes for all.
        C::Global(_, o) => {
            let o = o as usize;
            if !s.alone && s.modes[o] == Mode::InOut && (s.read_by_all[o] || one_place(&access.lane)) {
                s.b.op(Op::SyncWarp);
            }
        }
        C::Const(_) | C::Int { .. } | C::Long(_) => {}
    }
}
