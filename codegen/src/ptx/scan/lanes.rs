//! What a lane has: its states of its channels, and values of these from memory.
use super::plan::{LANES, STATES};
use super::shape::Stored;
use super::{Cx, below};
use crate::emit::Emit;
use crate::eval::{At, Gives, Inst, SLOTS};
use crate::place::Base;
use crate::ptx::coord::{self, C};
use crate::ptx::inst::*;
use crate::ptx::simt::V;
use lolm_ir::kernel::{KAxis, KValue};

/// A coordinate along an axis, and whether it exists; nothing if it always does.
pub type Place = (C, Option<Reg>);

/// The states of a lane and its channels.
#[derive(Default)]
pub struct Slots {
    pub states: Vec<Place>,
    pub channels: Vec<Place>,
}

impl Cx<'_> {
    pub fn fix(&mut self, a: KAxis, coord: C, offsets: Vec<i64>) {
        let depth = self.g.depth() - 1;
        let tail = vec![None; offsets.len()];
        self.g.at[a.0 as usize] = Some(At { coord, offsets, vector: false, masked: false, tail, depth });
    }
    pub fn unfix(&mut self, axes: &[KAxis]) {
        axes.iter().for_each(|a| self.g.at[a.0 as usize] = None);
    }

    /// The coordinates of this lane's states and channels; where there is none, of the last one. They come from a number
    /// of the thread that went through a shuffle: an assembler that saw that it is always the same one would keep all that is made
    /// of it in registers, from the first use to the last.
    pub fn slots(&mut self) -> Slots {
        let p = self.p;
        let lane = self.g.e.lane();
        let b = &mut self.g.e.b;
        let C::Int { reg, lo, hi } = self.tid else { return Slots::default() };
        let tid = C::Int { reg: b.shfl(Shuffle::Idx, reg, lane), lo, hi };
        let (warp, lane) = coord::divmod(b, tid, LANES);
        let (row, place) = coord::divmod(b, lane, p.across);
        let first_state = coord::mul(b, place, STATES);
        let of_warp = coord::mul(b, warp, p.of_warp);
        let first = coord::mul(b, row, p.channels);
        let first_channel = coord::add(b, of_warp, first);
        let first_channel = coord::add(b, self.block_channel, first_channel);
        let mut place = |first: C, i: i64, len: i64| {
            let c = coord::add(b, first, C::Const(i));
            let exists = below(b, c, len);
            (coord::either(b, c, C::Const(len - 1), BinOp::Min), exists)
        };
        let states = (0..STATES).map(|i| place(first_state, i, p.states)).collect();
        let channels = (0..p.channels).map(|j| place(first_channel, j, p.tile)).collect();
        Slots { states, channels }
    }

    /// Does something at each of the lane's states of its channels, in a scope where their coordinates are computed: between
    /// its uses these would take registers.
    fn at_slots(&mut self, mut f: impl FnMut(&mut Self, usize, Place, Place) -> Gives<()>) -> Gives<()> {
        self.g.e.b.open();
        let s = self.slots();
        let axes = [self.s.state, self.s.tile];
        let channels = s.channels.len();
        for (i, state) in s.states.iter().enumerate() {
            for (j, channel) in s.channels.iter().enumerate() {
                self.g.open_scope(axes.into_iter().collect());
                self.fix(axes[0], state.0, vec![0]);
                self.fix(axes[1], channel.0, vec![0]);
                f(self, i * channels + j, *state, *channel)?;
                self.g.scopes.pop();
            }
        }
        self.unfix(&axes);
        self.g.e.b.close();
        Ok(())
    }

    /// A value at each of them, 0 for states that only fill up.
    pub fn of_slots(&mut self, v: KValue) -> Gives<Vec<Reg>> {
        let mut out = vec![];
        self.at_slots(|cx, _, state, channel| {
            cx.g.only = cx.both(state.1, channel.1).map(V::Reg);
            let x = cx.g.eval(v, &[0; SLOTS])?;
            cx.g.only = None;
            out.push(cx.or_zero(x, state.1));
            Ok(())
        })?;
        Ok(out)
    }

    /// The rates as exponents of 2.
    pub fn exponents(&mut self) -> Gives<Vec<Reg>> {
        let a = self.of_slots(self.s.a)?;
        let by = Src::F32(std::f32::consts::LOG2_E.to_bits());
        Ok(a.into_iter().map(|a| self.g.e.b.binary(BinOp::MulRn, Type::F32, a, by)).collect())
    }

    /// The value where this holds, and 0 elsewhere.
    pub fn or_zero(&mut self, x: V, holds: Option<Reg>) -> Reg {
        let x = self.g.e.reg(x);
        match holds {
            Some(p) => self.g.e.b.selp(Type::F32, p, x, Src::F32(0)),
            None => x,
        }
    }
    pub fn both(&mut self, a: Option<Reg>, b: Option<Reg>) -> Option<Reg> {
        match (a, b) {
            (Some(a), Some(b)) => Some(self.g.e.b.binary(BinOp::And, Type::Pred, a, b)),
            (a, b) => a.or(b),
        }
    }

    /// Stores a value of the kernel at the coordinates that are fixed, where this holds.
    pub fn store(&mut self, what: Stored, inst: &Inst, x: Reg, holds: Option<Reg>) -> Gives<()> {
        let k = self.g.k;
        let Some((o, view)) = k.value(what.store).access() else { return Err(self.g.nowhere(what.store)) };
        self.g.e.note(what.store.0);
        let mut access = self.g.access(what.store, Base::Operand(o), view, inst)?;
        access.guard = holds.map(V::Reg);
        self.g.e.store(&access, V::Reg(x));
        Ok(())
    }

    /// Stores a value at each of the lane's states of its channels.
    pub fn store_slots(&mut self, what: Stored, x: &[Reg]) -> Gives<()> {
        self.at_slots(|cx, n, state, channel| {
            let exists = cx.both(state.1, channel.1);
            cx.store(what, &[0; SLOTS], x[n], exists)
        })
    }

    /// Loads neighbours, one, two or four; 0 where they do not exist.
    pub fn get(&mut self, space: Space, base: Reg, offset: i64, count: usize, exists: Option<Reg>) -> Vec<Reg> {
        let at = self.address(base, offset);
        let b = &mut self.g.e.b;
        let d: Vec<Reg> = (0..count).map(|_| b.reg(Class::F32)).collect();
        if exists.is_some() {
            d.iter().for_each(|d| b.op(Op::Mov { ty: Type::F32, d: *d, a: Src::F32(0) }));
        }
        let ty = Type::F32;
        let op = match d[..] {
            [d] => Op::Ld { space, ty, d, at },
            [x, y] => Op::Ld2 { space, ty, d: [x, y], at },
            [x, y, z, w] => Op::Ld4 { space, ty, d: [x, y, z, w], at },
            _ => return d,
        };
        b.guarded(exists.map(|p| (p, true)), op);
        d
    }

    /// Stores neighbours, one, two or four, where they exist.
    pub fn put(&mut self, space: Space, base: Reg, offset: i64, x: &[Reg], exists: Option<Reg>) {
        let at = self.address(base, offset);
        let op = match x[..] {
            [a] => Op::St { space, ty: Type::F32, a, at },
            [x, y] => Op::St2 { space, a: [x, y], at },
            [x, y, z, w] => Op::St4 { space, a: [x, y, z, w], at },
            _ => return,
        };
        self.g.e.b.guarded(exists.map(|p| (p, true)), op);
    }

    /// So many bytes behind the base, which may be too many for an instruction.
    fn address(&mut self, base: Reg, offset: i64) -> Address {
        match i32::try_from(offset) {
            Ok(offset) => Address { base, offset },
            Err(_) => Address { base: self.g.e.b.binary(BinOp::Add, Type::S64, base, Src::Int(offset)), offset: 0 },
        }
    }
}
