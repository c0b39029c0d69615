//! What the steps of a chunk have of channels and of states: loaded while another chunk is walked, each value by one lane,
//! and left in shared memory for all lanes of the warp.
use super::plan::*;
use super::{Cx, below};
use crate::eval::{Gives, Inst, SLOTS, with};
use crate::ptx::coord::{self, C as Coord};
use crate::ptx::inst::*;
use crate::ptx::simt::V;
use lolm_ir::kernel::KValue;

/// Values on their way: which array, step and part of it they are.
pub struct Brought {
    of_channel: Vec<(i64, i64, Reg)>,
    /// With the bytes from this lane's place.
    of_state: Vec<(i64, Reg)>,
}

/// What is wanted besides dt, b, and dt·u; that is u itself where time goes backwards.
#[derive(Clone, Copy, Default)]
pub struct Wanted {
    pub u: bool,
    pub dy: Option<KValue>,
    pub c: Option<KValue>,
}

/// The instance of a step of a chunk.
pub fn step(j: i64) -> Inst {
    with([0; SLOTS], 0, j as u8)
}

impl Cx<'_> {
    /// Loads what the first steps of a chunk have; the others add nothing.
    pub fn load_chunk(&mut self, chunk: Coord, steps: i64, what: Wanted) -> Gives<Brought> {
        let first = coord::mul(&mut self.g.e.b, chunk, self.p.chunk);
        let of_channel = self.load_channel(first, steps, what)?;
        let of_state = self.load_states(first, steps, what)?;
        Ok(Brought { of_channel, of_state })
    }

    fn load_channel(&mut self, first: Coord, steps: i64, what: Wanted) -> Gives<Vec<(i64, i64, Reg)>> {
        let s = self.s;
        let mut out = vec![];
        self.g.open_scope([s.time, s.tile].into_iter().collect());
        self.fix(s.time, first, (0..self.p.chunk).collect());
        self.fix(s.tile, self.channel, vec![0]);
        for j in 0..self.p.chunk {
            let of = |cx: &mut Self, v: KValue| -> Gives<Reg> {
                if j >= steps {
                    return Ok(cx.g.e.b.mov(Type::F32, Src::F32(0)));
                }
                let x = cx.g.eval(v, &step(j))?;
                Ok(cx.or_zero(x, cx.exists))
            };
            let (dt, u) = (of(self, s.dt)?, of(self, s.u)?);
            out.push((DT, j, dt));
            if what.u {
                out.push((U, j, u));
            }
            if let Some(dy) = what.dy {
                out.push((DY, j, of(self, dy)?));
            }
            let driven = if s.reverse { u } else { self.g.e.b.binary(BinOp::MulRn, Type::F32, dt, u) };
            out.push((DRIVEN, j, driven));
        }
        self.g.scopes.pop();
        self.unfix(&[s.time, s.tile]);
        Ok(out)
    }

    /// Steps by states, row by row, go to the lanes in turn.
    fn load_states(&mut self, first: Coord, steps: i64, what: Wanted) -> Gives<Vec<(i64, Reg)>> {
        let (s, p) = (self.s, self.p);
        let wide = p.padded.min(LANES);
        let apart = LANES / wide;
        let (step_of_lane, state) = coord::divmod(&mut self.g.e.b, self.lane, wide);
        let mut out = vec![];
        for part in (0..p.padded).step_by(LANES as usize) {
            let state = coord::add(&mut self.g.e.b, state, Coord::Const(part));
            let is_state = below(&mut self.g.e.b, state, p.states);
            let state = coord::either(&mut self.g.e.b, state, Coord::Const(p.states - 1), BinOp::Min);
            self.g.open_scope([s.time, s.state].into_iter().collect());
            let at = coord::add(&mut self.g.e.b, first, step_of_lane);
            self.fix(s.time, at, (0..p.chunk).step_by(apart as usize).collect());
            self.fix(s.state, state, vec![0]);
            for (i, j) in (0..p.chunk).step_by(apart as usize).enumerate() {
                let last = coord::add(&mut self.g.e.b, step_of_lane, Coord::Const(j));
                let is_step = below(&mut self.g.e.b, last, steps);
                let exists = self.both(is_state, is_step);
                self.g.only = is_step.map(V::Reg);
                for (array, v) in [(B, s.b)].into_iter().chain(what.c.map(|c| (C, c))) {
                    let x = self.g.eval(v, &step(i as i64))?;
                    let place = (array * p.chunk + j) * p.padded + part;
                    out.push((place * WORD, self.or_zero(x, exists)));
                }
                self.g.only = None;
            }
            self.g.scopes.pop();
            self.unfix(&[s.time, s.state]);
        }
        Ok(out)
    }

    /// Leaves them in shared memory.
    pub fn leave(&mut self, brought: &Brought) {
        for (array, j, x) in &brought.of_channel {
            let offset = (array * self.p.chunk + j) * self.p.of_warp * WORD;
            self.put(Space::Shared, self.of_own, offset, &[*x], self.is_first);
        }
        for (offset, x) in &brought.of_state {
            self.put(Space::Shared, self.of_lane, *offset, &[*x], None);
        }
    }

    /// What a step has of this lane's channels.
    pub fn of_channels(&mut self, array: i64, j: i64) -> Vec<Reg> {
        let offset = (array * self.p.chunk + j) * self.p.of_warp * WORD;
        self.get(Space::Shared, self.of_channels, offset, self.p.channels as usize, None)
    }
    /// The same of its own one.
    pub fn of_own(&mut self, array: i64, j: i64) -> Reg {
        let offset = (array * self.p.chunk + j) * self.p.of_warp * WORD;
        self.get(Space::Shared, self.of_own, offset, 1, None)[0]
    }
    /// What a step has of this lane's states.
    pub fn of_states(&mut self, array: i64, j: i64) -> Vec<Reg> {
        let offset = (array * self.p.chunk + j) * self.p.padded * WORD;
        self.get(Space::Shared, self.of_states, offset, STATES as usize, None)
    }

    /// Keeps the states of this lane before a step; the decays of the first step come after those of all steps.
    pub fn keep_states(&mut self, j: i64, h: &[Reg]) {
        let n = self.p.channels as usize;
        for (i, row) in h.chunks(n).enumerate() {
            let offset = (j * STATES + i as i64) * self.p.channels * LANES * WORD;
            self.put(Space::Shared, self.history, offset, row, None);
        }
    }
    pub fn kept_states(&mut self, j: i64) -> Vec<Reg> {
        let mut out = vec![];
        for i in 0..STATES {
            let offset = (j * STATES + i) * self.p.channels * LANES * WORD;
            out.extend(self.get(Space::Shared, self.history, offset, self.p.channels as usize, None));
        }
        out
    }
}
