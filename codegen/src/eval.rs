//! The shared evaluator: "the value %v at these coordinates".
//!
//! An axis is *fixed* where it has a coordinate. Several coordinates may be in flight at once: all indices of an unrolled
//! axis, a few vectors of the lane axis. An [`Inst`] picks one of them along each such axis. What was computed is
//! remembered in scopes that follow the loops, so a value is computed once for each set of coordinates it varies over.
use crate::array::Array;
use crate::emit::{Bin, Emit, Un};
use crate::expand;
use crate::place::Prefix;
use crate::schedule::Schedule;
use crate::sink::Written;
use lolm_ir::DType;
use lolm_ir::kernel::{KAxes, KAxis, KOp, KValue, Kernel};
use lolm_ir::op::{Binary, Unary};
use std::collections::{BTreeMap, BTreeSet};

/// Axes that can be in flight at once.
pub const SLOTS: usize = 8;
/// Which of the coordinates in flight, along each slot of the schedule.
pub type Inst = [u8; SLOTS];
/// A value at one instance.
pub type Key = (KValue, Inst);
/// Something for each of some values.
pub type Keyed<T> = Vec<(Key, T)>;

/// Why no code could be generated.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fail {
    #[error("limit: {0}")]
    Limit(String),
    #[error("bug: {0}")]
    Bug(String),
}
pub type Gives<T> = Result<T, Fail>;

/// A fixed axis: coordinate + offset of the instance (+ lane).
pub struct At<E: Emit> {
    pub coord: E::C,
    pub offsets: Vec<i64>,
    /// The lanes run along this axis.
    pub vector: bool,
    /// Some coordinates may lie outside the axis' range, so folds and scans must look.
    pub masked: bool,
    /// For each offset the lanes that have a coordinate before the end of the loop, where some have not.
    pub tail: Vec<Option<E::V>>,
    /// The scope that fixed it.
    pub depth: usize,
}

/// A unit's part of an axis; its size is a multiple of `multiple`.
#[derive(Clone, Copy)]
pub struct Tile<C> {
    pub lo: C,
    pub size: C,
    pub multiple: i64,
}

/// The partial result of a fold; an argmax also knows where.
#[derive(Clone, Copy)]
pub struct Acc<V> {
    pub x: V,
    pub at: Option<V>,
}

/// What is known inside one loop.
pub struct Scope<E: Emit> {
    /// Values that vary over these axes and are known outside stand for other coordinates.
    pub hides: KAxes,
    pub values: BTreeMap<Key, E::V>,
    /// States of scans before this step.
    states: BTreeMap<Key, E::V>,
    pub addresses: BTreeMap<Prefix, E::C>,
    pub arrays: BTreeMap<KValue, Array<E::C>>,
}

pub struct Gen<'a, E: Emit> {
    pub k: &'a Kernel,
    pub s: &'a Schedule,
    pub e: &'a mut E,
    pub at: Vec<Option<At<E>>>,
    pub scopes: Vec<Scope<E>>,
    /// The part of an axis that belongs to the unit, where it is not all of it.
    pub tiles: Vec<Option<Tile<E::C>>>,
    /// What code before this point has written at the coordinates that are fixed here.
    pub written: BTreeSet<Written>,
    /// Arrays made so far.
    pub arrays: u32,
    /// Memory is accessed only where this holds.
    pub only: Option<E::V>,
}

impl<'a, E: Emit> Gen<'a, E> {
    pub fn new(k: &'a Kernel, s: &'a Schedule, e: &'a mut E) -> Self {
        let at = k.axes.iter().map(|_| None).collect();
        let tiles = k.axes.iter().map(|_| None).collect();
        Gen { k, s, e, at, scopes: vec![], tiles, written: BTreeSet::new(), arrays: 0, only: None }
    }

    pub fn open_scope(&mut self, hides: KAxes) {
        let scope = Scope {
            hides,
            values: BTreeMap::new(),
            states: BTreeMap::new(),
            addresses: BTreeMap::new(),
            arrays: BTreeMap::new(),
        };
        self.scopes.push(scope);
    }
    pub fn depth(&self) -> usize {
        self.scopes.len()
    }

    /// The axes that have a coordinate.
    pub fn fixed(&self) -> KAxes {
        (0..self.k.axes.len()).filter(|a| self.at[*a].is_some()).map(|a| KAxis(a as u8)).collect()
    }
    pub fn at(&self, a: KAxis) -> Gives<&At<E>> {
        let name = || format!("axis `{}` has no coordinate", self.k.axis(a).name);
        self.at[a.0 as usize].as_ref().ok_or_else(|| Fail::Bug(name()))
    }
    /// The lane axis, where lanes run along it now.
    pub fn vector_axis(&self) -> Option<KAxis> {
        self.s.lane.filter(|a| self.at[a.0 as usize].as_ref().is_some_and(|at| at.vector))
    }
    /// True if a value over these axes differs from lane to lane here.
    pub fn varies(&self, axes: KAxes) -> bool {
        self.vector_axis().is_some_and(|a| axes.has(a))
    }

    /// Every instance of these axes, that of the lane axis changing slowest.
    pub fn insts(&self, axes: KAxes) -> Vec<Inst> {
        let mut all = vec![[0; SLOTS]];
        for (slot, a) in self.s.slots() {
            let Some(at) = self.at[a.0 as usize].as_ref().filter(|_| axes.has(a)) else { continue };
            let n = at.offsets.len() as u8;
            all = all.iter().flat_map(|i| (0..n).map(move |q| with(*i, slot, q))).collect();
        }
        all
    }

    pub fn key(&self, v: KValue, inst: &Inst) -> Key {
        let axes = self.k.value(v).axes;
        let mut i = [0; SLOTS];
        for (slot, _) in self.s.slots().filter(|(_, a)| axes.has(*a)) {
            i[slot] = inst[slot];
        }
        (v, i)
    }
    pub fn set(&mut self, v: KValue, inst: &Inst, x: E::V) {
        let key = self.key(v, inst);
        if let Some(s) = self.scopes.last_mut() {
            s.values.insert(key, x);
        }
    }
    pub fn set_state(&mut self, scan: KValue, inst: &Inst, x: E::V) {
        let key = self.key(scan, inst);
        if let Some(s) = self.scopes.last_mut() {
            s.states.insert(key, x);
        }
    }

    /// Searches the scopes that hold values for these coordinates, and tells the depth of the one that has it.
    pub fn search<T>(&self, axes: KAxes, get: impl Fn(&Scope<E>) -> Option<T>) -> Option<(usize, T)> {
        for (depth, s) in self.scopes.iter().enumerate().rev() {
            if let Some(x) = get(s) {
                return Some((depth, x));
            }
            if s.hides.0 & axes.0 != 0 {
                return None;
            }
        }
        None
    }
    pub fn lookup(&self, v: KValue, inst: &Inst) -> Option<(usize, E::V)> {
        let key = self.key(v, inst);
        self.search(self.k.value(v).axes, |s| s.values.get(&key).copied())
    }
    fn carried_state(&self, scan: KValue, inst: &Inst) -> Option<E::V> {
        let key = self.key(scan, inst);
        self.search(self.k.value(scan).axes, |s| s.states.get(&key).copied()).map(|s| s.1)
    }
    /// The state of a scan before this step, from a register or an array.
    fn state(&mut self, scan: KValue, inst: &Inst) -> Gives<E::V> {
        match self.carried_state(scan, inst) {
            Some(h) => Ok(h),
            None => self.array_state(scan, inst),
        }
    }
    /// True if all instances of the value were computed.
    pub fn is_known(&self, v: KValue) -> bool {
        let axes = self.k.value(v).axes;
        self.fixed().contains(axes) && self.insts(axes).iter().all(|i| self.lookup(v, i).is_some())
    }
    /// True if a loop around here carries the scan, in registers or in an array.
    pub fn is_carried(&self, scan: KValue) -> bool {
        let axes = self.k.value(scan).axes;
        let in_registers =
            self.fixed().contains(axes) && self.insts(axes).iter().all(|i| self.carried_state(scan, i).is_some());
        in_registers || self.array(scan).is_some_and(|a| !a.done)
    }

    pub fn eval(&mut self, v: KValue, inst: &Inst) -> Gives<E::V> {
        if let Some((_, x)) = self.lookup(v, inst) {
            return Ok(x);
        }
        let x = self.compute(v, inst)?;
        self.set(v, inst, x);
        Ok(x)
    }

    fn compute(&mut self, v: KValue, inst: &Inst) -> Gives<E::V> {
        let value = self.k.value(v);
        let op = match &value.op {
            KOp::Const(c) => return Ok(self.constant(*c)),
            KOp::Index(a) => return self.index(*a, inst),
            KOp::Load(o, view) => return self.load(v, *o, view, inst),
            KOp::Reduce(_, a) | KOp::ArgMax(a) | KOp::Dot(a) if self.s.unroll.contains(a) => {
                return self.fold_registers(v, *a, inst);
            }
            KOp::Scan { axis, .. } => return self.scan_step(v, *axis, inst),
            KOp::Prev(_) => return self.state(value.args[0], inst),
            KOp::Reduce(..) | KOp::ArgMax(_) | KOp::Dot(_) | KOp::Last(_) => return self.array_result(v, inst),
            KOp::Sample(_) => return Err(Fail::Limit("a draw has code for CUDA alone".into())),
            KOp::Store(..) | KOp::Accumulate(..) => return Err(self.nowhere(v)),
            op @ (KOp::Random { .. } | KOp::Unary(_) | KOp::Binary(_) | KOp::Fma | KOp::Select | KOp::Cast(_)) => op,
        };
        let args = value.args.iter().map(|a| self.eval(*a, inst)).collect::<Gives<Vec<_>>>()?;
        let dtype = self.k.value(value.args[0]).dtype;
        self.e.note(v.0);
        let e = &mut *self.e;
        Ok(match op {
            KOp::Random { site } => expand::random(e, args[0], *site, args[1], args[2]),
            KOp::Unary(u) => unary(e, *u, dtype, args[0]),
            KOp::Binary(b) => e.binary(machine(*b), dtype, args[0], args[1]),
            KOp::Fma => e.fma(args[0], args[1], args[2]),
            KOp::Select => e.select(args[0], args[1], args[2]),
            KOp::Cast(to) => e.cast(dtype, *to, args[0]),
            _ => return Err(self.nowhere(v)),
        })
    }

    pub fn nowhere(&self, v: KValue) -> Fail {
        Fail::Bug(format!("`{}` has no value where it is wanted", self.k.line(v)))
    }

    fn constant(&mut self, c: lolm_ir::Scalar) -> E::V {
        match c {
            lolm_ir::Scalar::F32(bits) => self.e.f32(f32::from_bits(bits)),
            lolm_ir::Scalar::I32(i) => self.e.i32(i),
            lolm_ir::Scalar::Bool(b) => self.e.bool(b),
        }
    }

    /// The coordinate along an axis, as i32.
    pub fn index(&mut self, a: KAxis, inst: &Inst) -> Gives<E::V> {
        let at = self.at(a)?;
        let (coord, vector) = (at.coord, at.vector);
        let offset = at.offsets[self.s.slot(a).map_or(0, |s| inst[s] as usize)];
        let offset = self.e.coord(offset);
        let c = self.e.coord_add(coord, offset);
        let x = self.e.index(c);
        if !vector {
            return Ok(x);
        }
        let iota = self.e.iota();
        Ok(self.e.binary(Bin::Add, DType::I32, x, iota))
    }

    /// The lanes that have not come to the end of a loop along the axis; nothing if all of them are before it.
    pub fn tail(&self, a: KAxis, inst: &Inst) -> Gives<Option<E::V>> {
        let q = self.s.slot(a).map_or(0, |s| inst[s] as usize);
        Ok(self.at(a)?.tail.get(q).copied().flatten())
    }

    /// Both, where either may be nothing, which always holds.
    pub fn and(&mut self, a: Option<E::V>, b: Option<E::V>) -> Option<E::V> {
        match (a, b) {
            (Some(a), Some(b)) => Some(self.e.binary(Bin::And, DType::Bool, a, b)),
            (a, b) => a.or(b),
        }
    }

    /// Whether the coordinate along an axis is in its range and before the end of the loop; nothing if it always is.
    pub fn mask(&mut self, a: KAxis, inst: &Inst) -> Gives<Option<E::V>> {
        let tail = self.tail(a, inst)?;
        let range = self.range_mask(a, inst)?;
        Ok(self.and(range, tail))
    }

    /// Whether the coordinate along a masked axis is in its range.
    fn range_mask(&mut self, a: KAxis, inst: &Inst) -> Gives<Option<E::V>> {
        if !self.at(a)?.masked {
            return Ok(None);
        }
        let range = self.k.axis(a);
        let i = self.index(a, inst)?;
        let lo = range.lo.map(|lo| self.eval(lo, inst)).transpose()?;
        let lo = lo.map(|lo| self.e.binary(Bin::Le, DType::I32, lo, i));
        let hi = range.hi.map(|hi| self.eval(hi, inst)).transpose()?;
        let hi = hi.map(|hi| self.e.binary(Bin::Lt, DType::I32, i, hi));
        Ok(self.and(lo, hi))
    }

    /// One step of a scan that a loop carries.
    fn scan_step(&mut self, v: KValue, axis: KAxis, inst: &Inst) -> Gives<E::V> {
        let h = self.state(v, inst)?;
        let args = &self.k.value(v).args;
        let (a, b) = (self.eval(args[0], inst)?, self.eval(args[1], inst)?);
        self.e.note(v.0);
        let next = self.e.fma(a, h, b);
        Ok(match self.mask(axis, inst)? {
            None => next,
            Some(m) => self.e.select(m, next, h),
        })
    }
}

/// The instance with another index in one slot.
pub fn with(mut inst: Inst, slot: usize, q: u8) -> Inst {
    inst[slot] = q;
    inst
}

fn unary<E: Emit>(e: &mut E, op: Unary, dtype: DType, x: E::V) -> E::V {
    match (op, dtype) {
        (Unary::Neg, DType::I32) => e.unary(Un::Neg, dtype, x),
        (Unary::Abs, DType::I32) => e.unary(Un::Abs, dtype, x),
        _ => expand::unary(e, op, x),
    }
}

fn machine(b: Binary) -> Bin {
    match b {
        Binary::Add => Bin::Add,
        Binary::Sub => Bin::Sub,
        Binary::Mul => Bin::Mul,
        Binary::Div => Bin::Div,
        Binary::Rem => Bin::Rem,
        Binary::Max => Bin::Max,
        Binary::Min => Bin::Min,
        Binary::Lt => Bin::Lt,
        Binary::Le => Bin::Le,
        Binary::Eq => Bin::Eq,
        Binary::And => Bin::And,
    }
}
