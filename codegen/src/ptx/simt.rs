//! A warp as an [`Emit`]: its 32 threads are the lanes, uniform values are computed by all of them alike.
//!
//! Registers are written once, except what a loop carries. All branches are taken by all lanes together.
use super::build::Builder;
use super::coord::C;
use super::inst::*;
use super::memory::Pending;
use super::{arith, coord, memory};
use crate::emit::{Access, Bin, Emit, Shift, Un};
use lolm_ir::DType;
use lolm_ir::kernel::{Kernel, Mode, OperandId};
use std::collections::BTreeMap;

/// Threads of a warp.
pub const LANES: usize = 32;

/// A value: a constant until an instruction needs a register.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum V {
    F32(f32),
    I32(i32),
    Bool(bool),
    Reg(Reg),
}

/// How the units go to the warps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// Units of the kernel.
    pub units: i64,
    /// Warps of a block.
    pub warps: i64,
    /// Units of a warp.
    pub of_warp: i64,
    /// A warp does all of its units at once, and never meets the end of the last unit axis in between.
    pub whole: bool,
    /// The warps of a block do one unit together.
    pub team: bool,
}

/// A loop that is open: its labels, coordinate, bounds, step (negative when it counts down), and what it carries.
struct Open {
    header: Label,
    exit: Label,
    coord: C,
    lo: C,
    hi: C,
    step: i64,
    carried: Vec<Reg>,
}

pub struct Simt {
    pub b: Builder,
    share: Share,
    operands: Vec<Reg>,
    pub modes: Vec<Mode>,
    /// Operands of which all lanes have read the same element.
    pub read_by_all: Vec<bool>,
    lane: Reg,
    warp: Reg,
    first: Option<Reg>,
    offsets: BTreeMap<(bool, i64), Reg>,
    units: Option<(Label, Label, C, C)>,
    loops: Vec<Open>,
    /// Where this warp's part of shared memory starts, and the bytes of it that are given away.
    shared: Option<Reg>,
    pub shared_bytes: u32,
    pub pending: Pending,
    /// Every thread is on its own: a single lane, with coordinates that are its own.
    pub alone: bool,
    bug: Option<String>,
}

impl Simt {
    /// Threads that are on their own, for a generator that gives each its coordinates.
    pub fn threads(k: &Kernel) -> Self {
        let share = Share { units: 1, warps: 1, of_warp: 1, whole: false, team: false };
        Simt { alone: true, ..Simt::new(k, share) }
    }
    pub fn new(k: &Kernel, share: Share) -> Self {
        let mut b = Builder::new();
        let (lane, warp, operands) = b.at_head(|b| {
            let tid = b.mov(Type::U32, Src::Special(Special::Tid));
            let lane = b.binary(BinOp::And, Type::B32, tid, Src::Int(LANES as i64 - 1));
            let warp = b.binary(BinOp::Shr, Type::U32, tid, Src::Int(LANES.trailing_zeros() as i64));
            let pointer = |param| {
                let d = b.reg(Class::B64);
                b.op(Op::LdParam { d, param });
                let a = b.reg(Class::B64);
                b.op(Op::ToGlobal { d: a, a: d });
                a
            };
            let operands: Vec<Reg> = (0..k.operands.len() as u32).map(pointer).collect();
            (lane, warp, operands)
        });
        Simt {
            b,
            share,
            operands,
            modes: k.operands.iter().map(|o| o.mode).collect(),
            read_by_all: vec![false; k.operands.len()],
            lane,
            warp,
            first: None,
            offsets: BTreeMap::new(),
            units: None,
            loops: vec![],
            shared: None,
            shared_bytes: 0,
            pending: Pending::default(),
            alone: false,
            bug: None,
        }
    }

    /// What the generator asked for and must not, if it did.
    pub fn bug(&self) -> Option<&String> {
        self.bug.as_ref()
    }
    /// Something that no caller asks for; the kernel's rules exclude it.
    pub fn wrong(&mut self, what: &str) -> V {
        self.bug.get_or_insert_with(|| what.into());
        V::I32(0)
    }

    pub fn class(&self, v: V) -> Class {
        match v {
            V::F32(_) => Class::F32,
            V::I32(_) => Class::B32,
            V::Bool(_) => Class::Pred,
            V::Reg(r) => r.class,
        }
    }
    /// The value as an operand of an instruction.
    pub fn src(&mut self, v: V) -> Src {
        match v {
            V::F32(x) => Src::F32(x.to_bits()),
            V::I32(x) => Src::Int(x as i64),
            V::Bool(_) => self.reg(v).into(),
            V::Reg(r) => r.into(),
        }
    }
    /// The value in a register.
    pub fn reg(&mut self, v: V) -> Reg {
        match v {
            V::F32(x) => self.b.mov(Type::F32, Src::F32(x.to_bits())),
            V::I32(x) => self.b.mov(Type::B32, Src::Int(x as i64)),
            V::Bool(x) => self.b.setp(if x { Cmp::Eq } else { Cmp::Ne }, Type::S32, self.lane, self.lane),
            V::Reg(r) => r,
        }
    }
    pub fn share(&self) -> Share {
        self.share
    }
    /// Inside a loop.
    pub fn in_loop(&self) -> bool {
        !self.loops.is_empty()
    }
    pub fn warp(&self) -> Reg {
        self.warp
    }
    pub fn lane(&self) -> Reg {
        self.lane
    }
    /// True on the lane that writes for all.
    pub fn first_lane(&mut self) -> Reg {
        let lane = self.lane;
        let at_head = |b: &mut Builder| b.setp(Cmp::Eq, Type::S32, lane, Src::Int(0));
        *self.first.get_or_insert_with(|| self.b.at_head(at_head))
    }
    /// The bytes from the first lane's element to this one's.
    pub fn lane_offset(&mut self, space: Space, stride: i64) -> Reg {
        let lane = C::Int { reg: self.lane, lo: 0, hi: LANES as i64 - 1 };
        let b = &mut self.b;
        let global = space != Space::Shared;
        *self.offsets.entry((global, stride)).or_insert_with(|| {
            b.at_head(|b| {
                let c = coord::mul(b, lane, stride);
                let (ty, x) = if global { (Type::B64, coord::long(b, c)) } else { (Type::B32, coord::int(b, c)) };
                match x {
                    Src::Reg(r) => r,
                    x => b.mov(ty, x),
                }
            })
        })
    }
    /// The lanes meet: what they wrote is seen by all.
    pub fn meet(&mut self) {
        self.b.op(Op::SyncWarp);
        self.pending = Pending::default();
    }

    /// What is read or written around a loop may have been in the iteration before.
    fn forget(&mut self) {
        let any = self.shared.is_some();
        self.pending = Pending { read: any, written: any, read_by_others: any, written_by_others: any };
    }

    /// The instructions in order. The base of shared memory is known now that its size is.
    pub fn finish(self, dynamic: bool) -> (Builder, u32) {
        let Simt { mut b, shared, warp, shared_bytes, share, .. } = self;
        if let Some(d) = shared {
            let start = if dynamic { Src::DynamicShared } else { Src::Shared };
            b.at_head(|b| {
                let start = b.mov(Type::U32, start);
                let apart = if share.team { 0 } else { shared_bytes as i64 };
                let mine = b.binary(BinOp::MulLo, Type::S32, warp, Src::Int(apart));
                b.op(Op::Binary { op: BinOp::Add, ty: Type::S32, d, a: start.into(), b: mine.into() });
            });
        }
        (b, shared_bytes)
    }
}

impl Emit for Simt {
    type V = V;
    type C = C;

    fn lanes(&self) -> usize {
        if self.alone { 1 } else { LANES }
    }
    fn masks_tail(&self) -> bool {
        true
    }
    fn whole_share(&self) -> Option<i64> {
        self.share.whole.then_some(self.share.of_warp)
    }
    fn member(&mut self) -> C {
        if self.share.team { C::Int { reg: self.warp, lo: 0, hi: self.share.warps - 1 } } else { C::Const(0) }
    }
    fn first_member(&mut self) -> Option<V> {
        let warp = self.warp;
        let first = |b: &mut Builder| b.setp(Cmp::Eq, Type::S32, warp, Src::Int(0));
        self.share.team.then(|| V::Reg(self.b.at_head(first)))
    }
    fn exchange(&mut self, values: &[V]) -> Vec<Vec<V>> {
        memory::exchange(self, values)
    }
    fn note(&mut self, line: u32) {
        self.b.note(line);
    }

    fn f32(&mut self, x: f32) -> V {
        V::F32(x)
    }
    fn i32(&mut self, x: i32) -> V {
        V::I32(x)
    }
    fn bool(&mut self, x: bool) -> V {
        V::Bool(x)
    }
    fn iota(&mut self) -> V {
        if self.alone { V::I32(0) } else { V::Reg(self.lane) }
    }
    fn vary(&mut self, v: V) -> V {
        V::Reg(self.reg(v))
    }
    fn extract(&mut self, v: V, lane: usize) -> V {
        match v {
            V::Reg(r) => V::Reg(self.b.shfl(Shuffle::Idx, r, Src::Int(lane as i64))),
            v => v,
        }
    }
    fn lanes_exchange(&self) -> bool {
        !self.alone
    }
    fn swap(&mut self, v: V, distance: usize) -> Option<V> {
        Some(match v {
            V::Reg(r) => V::Reg(self.b.shfl(Shuffle::Bfly, r, Src::Int(distance as i64))),
            v => v,
        })
    }

    fn unary(&mut self, op: Un, dtype: DType, a: V) -> V {
        arith::unary(self, op, dtype, a)
    }
    fn binary(&mut self, op: Bin, dtype: DType, a: V, b: V) -> V {
        arith::binary(self, op, dtype, a, b)
    }
    fn shift(&mut self, op: Shift, a: V, by: u8) -> V {
        arith::shift(self, op, a, by)
    }
    fn fma(&mut self, a: V, b: V, c: V) -> V {
        let (a, b, c) = (self.src(a), self.src(b), self.src(c));
        V::Reg(self.b.fma(a, b, c))
    }
    fn select(&mut self, cond: V, a: V, b: V) -> V {
        arith::select(self, cond, a, b)
    }
    fn cast(&mut self, from: DType, to: DType, a: V) -> V {
        arith::cast(self, from, to, a)
    }

    fn coord(&mut self, x: i64) -> C {
        C::Const(x)
    }
    fn known(&self, c: C) -> Option<i64> {
        match c {
            C::Const(x) => Some(x),
            C::Int { .. } | C::Long(_) | C::Global(..) | C::Shared(_) => None,
        }
    }
    fn range(&self, c: C) -> Option<(i64, i64)> {
        c.range()
    }
    fn coord_add(&mut self, a: C, b: C) -> C {
        coord::add(&mut self.b, a, b)
    }
    fn coord_mul(&mut self, a: C, by: i64) -> C {
        coord::mul(&mut self.b, a, by)
    }
    fn coord_min(&mut self, a: C, b: C) -> C {
        coord::either(&mut self.b, a, b, BinOp::Min)
    }
    fn coord_max(&mut self, a: C, b: C) -> C {
        coord::either(&mut self.b, a, b, BinOp::Max)
    }
    fn coord_divmod(&mut self, a: C, by: i64) -> (C, C) {
        coord::divmod(&mut self.b, a, by)
    }
    fn index(&mut self, c: C) -> V {
        match coord::int(&mut self.b, c) {
            Src::Reg(r) => V::Reg(r),
            Src::Int(x) => V::I32(x as i32),
            Src::F32(_) | Src::Special(_) | Src::Shared | Src::DynamicShared => self.wrong("no coordinate"),
        }
    }
    fn widen(&mut self, v: V) -> C {
        memory::widen(self, v)
    }

    fn operand(&mut self, o: OperandId) -> C {
        C::Global(self.operands[o.0 as usize], o.0)
    }
    fn slot(&mut self, bytes: u32) -> C {
        let base = *self.shared.get_or_insert_with(|| self.b.reg(Class::B32));
        let at = self.shared_bytes;
        // Slots start in the same bank, so that lanes along them never meet in one.
        self.shared_bytes += bytes.next_multiple_of(128);
        coord::add(&mut self.b, C::Shared(base), C::Const(at as i64))
    }
    fn load(&mut self, access: &Access<Self>) -> V {
        memory::load(self, access)
    }
    fn store(&mut self, access: &Access<Self>, v: V) {
        memory::store(self, access, v);
    }
    fn accumulate(&mut self, access: &Access<Self>, v: V) {
        memory::accumulate(self, access, v);
    }

    fn begin(&mut self, lo: C, hi: C, step: i64, down: bool, always: bool, carry: &[V]) -> (C, Vec<V>) {
        let (header, exit) = (self.b.label(), self.b.label());
        let classes: Vec<Class> = carry.iter().map(|v| self.class(*v)).collect();
        let carried: Vec<Reg> = classes.into_iter().map(|c| self.b.reg(c)).collect();
        self.move_all(&carried, carry);
        let first = if down { coord::add(&mut self.b, hi, C::Const(-step)) } else { lo };
        // One step beyond the end is still within the range of the counter.
        let range = lo.range().zip(hi.range()).map(|((lo, _), (_, hi))| (lo, hi.max(lo)));
        let room = range.map(|(lo, hi)| (lo - step, hi + step));
        let counter = self.counter(first, room);
        if !always {
            let none = self.compare(Cmp::Ge, lo, hi);
            self.b.bra(exit, Some((none, true)));
        }
        self.b.place(header);
        self.b.open();
        self.forget();
        let inside = match (counter, range) {
            (C::Int { reg, .. }, Some((lo, hi))) => C::Int { reg, lo, hi: (hi - 1).max(lo) },
            (c, _) => c,
        };
        let values = carried.iter().map(|r| V::Reg(*r)).collect();
        let step = if down { -step } else { step };
        self.loops.push(Open { header, exit, coord: counter, lo, hi, step, carried });
        (inside, values)
    }

    fn end(&mut self, next: &[V]) -> Vec<V> {
        let Some(Open { header, exit, coord, lo, hi, step, carried }) = self.loops.pop() else { return vec![] };
        self.b.close();
        self.move_all(&carried, next);
        self.step(coord, Src::Int(step));
        let again = match step > 0 {
            true => self.compare(Cmp::Lt, coord, hi),
            false => self.compare(Cmp::Ge, coord, lo),
        };
        self.b.bra(header, Some((again, true)));
        self.b.place(exit);
        self.forget();
        carried.iter().map(|r| V::Reg(*r)).collect()
    }

    fn begin_units(&mut self) -> (C, C) {
        let Share { units, warps, of_warp, whole, team } = self.share;
        let block = self.b.mov(Type::U32, Src::Special(Special::Block));
        if team {
            // A block for each unit.
            let unit = C::Int { reg: block, lo: 0, hi: units - 1 };
            let (header, exit) = (self.b.label(), self.b.label());
            let end = coord::add(&mut self.b, unit, C::Const(1));
            self.units = Some((header, exit, C::Const(0), end));
            return (unit, end);
        }
        let last = (units + warps * of_warp - 1) / (warps * of_warp);
        let block = C::Int { reg: block, lo: 0, hi: last - 1 };
        let warp = C::Int { reg: self.warp, lo: 0, hi: warps - 1 };
        let first = coord::mul(&mut self.b, block, warps);
        let warp = coord::add(&mut self.b, first, warp);
        let unit = coord::mul(&mut self.b, warp, of_warp);
        let exit = self.b.label();
        if units % (warps * of_warp) != 0 {
            let none = self.compare(Cmp::Ge, unit, C::Const(units));
            self.b.bra(exit, Some((none, true)));
        }
        let end = match units % of_warp {
            0 => coord::add(&mut self.b, unit, C::Const(of_warp)),
            _ => {
                let end = coord::add(&mut self.b, unit, C::Const(of_warp));
                coord::either(&mut self.b, end, C::Const(units), BinOp::Min)
            }
        };
        let header = self.b.label();
        if whole || of_warp == 1 {
            self.units = Some((header, exit, C::Const(0), end));
            return (within(unit, units), end);
        }
        let counter = self.counter(unit, Some((0, units + of_warp)));
        self.b.place(header);
        self.b.open();
        self.forget();
        self.units = Some((header, exit, counter, end));
        (within(counter, units), end)
    }

    fn end_units(&mut self, done: C) {
        let Some((header, exit, counter, end)) = self.units.take() else { return };
        if counter != C::Const(0) {
            let by = coord::int(&mut self.b, done);
            self.b.close();
            self.step(counter, by);
            let more = self.compare(Cmp::Lt, counter, end);
            self.b.bra(header, Some((more, true)));
        }
        self.b.place(exit);
        self.b.op(Op::Ret);
    }
}

/// A unit that exists.
fn within(unit: C, units: i64) -> C {
    match unit {
        C::Int { reg, .. } => C::Int { reg, lo: 0, hi: units - 1 },
        other => other,
    }
}
