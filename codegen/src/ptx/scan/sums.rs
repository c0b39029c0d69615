//! Sums over lanes and warps. Of several values each lane gives half away at every distance, and goes on with the other half.
use super::plan::*;
use super::shape::Grad;
use super::{Cx, below};
use crate::eval::{Gives, SLOTS};
use crate::ptx::coord::{self, C as Coord};
use crate::ptx::inst::*;

impl Cx<'_> {
    /// Sums over the lanes whose numbers differ in the bit of this distance. Of several values the lanes with that bit go on
    /// with the upper half, the others with the lower one.
    fn over_distance(&mut self, mut x: Vec<Reg>, distance: i64) -> Vec<Reg> {
        let lane = coord::int(&mut self.g.e.b, self.lane);
        let b = &mut self.g.e.b;
        let kept = match x.len() {
            1 => x.clone(),
            n => {
                let Src::Reg(lane) = lane else { return x };
                let bit = b.binary(BinOp::And, Type::B32, lane, Src::Int(distance));
                let upper = b.setp(Cmp::Ne, Type::S32, bit, Src::Int(0));
                let high = x.split_off(n / 2);
                let kept = x.iter().zip(&high).map(|(l, h)| b.selp(Type::F32, upper, *h, *l)).collect();
                x = x.iter().zip(&high).map(|(l, h)| b.selp(Type::F32, upper, *l, *h)).collect();
                kept
            }
        };
        let add = |(mine, given): (Reg, Reg)| {
            let got = b.shfl(Shuffle::Bfly, given, Src::Int(distance));
            b.binary(BinOp::AddRn, Type::F32, mine, got)
        };
        kept.into_iter().zip(x).map(add).collect()
    }

    /// The sum over states of this lane's own channel.
    pub fn over_states(&mut self, of_channels: Vec<Reg>) -> Reg {
        let p = self.p;
        let halves = distances(1, p.channels).rev();
        let rest = distances(p.channels, p.across).rev();
        halves.chain(rest).fold(of_channels, |x, d| self.over_distance(x, d))[0]
    }

    /// Leaves the sums over the channels of the warp in shared memory: of each state for the gradient of b, and for that of c.
    pub fn leave_sums(&mut self, j: i64, x: Vec<Reg>) {
        let p = self.p;
        let of_lane = x.len() as i64;
        let along = p.along();
        let left = distances(p.across, LANES).rev().fold(x, |x, d| self.over_distance(x, d));
        // Which of them are left: as many bits of the lane's row as there were halvings say it.
        let halvings = of_lane.min(along);
        let b = &mut self.g.e.b;
        let (upper, lower) = coord::divmod(b, self.row, along / halvings);
        let first = coord::mul(b, upper, of_lane / halvings);
        let (array, state) = coord::divmod(b, first, STATES);
        let mut at = self.warp_sums;
        let of_place = coord::mul(b, self.place, STATES * WORD);
        for (c, stride) in [(array, p.sums_of), (state, WORD)] {
            let part = coord::mul(b, c, stride);
            at = coord::add(b, at, part);
        }
        let Coord::Shared(base) = coord::add(b, at, of_place) else { return };
        let one = below(b, lower, 1);
        for (n, x) in left.into_iter().enumerate() {
            let (array, state) = (n as i64 / STATES, n as i64 % STATES);
            let offset = array * p.sums_of + (j * p.padded + state) * WORD;
            self.put(Space::Shared, base, offset, &[x], one);
        }
    }

    /// Adds up what the warps have left of a chunk, and stores it.
    pub fn store_sums(&mut self, grad: &Grad, chunk: Coord) -> Gives<()> {
        let (p, s) = (self.p, self.s);
        let first = coord::mul(&mut self.g.e.b, chunk, p.chunk);
        let count = p.chunk * p.padded;
        for (array, what) in [(B, grad.d_b), (C, grad.d_c)] {
            for part in (0..count).step_by(p.threads() as usize) {
                let b = &mut self.g.e.b;
                let number = coord::add(b, self.tid, Coord::Const(part));
                let mine = below(b, number, count);
                let number = coord::either(b, number, Coord::Const(count - 1), BinOp::Min);
                let byte = coord::mul(b, number, WORD);
                let Coord::Shared(from) = coord::add(b, self.sums, byte) else { return Ok(()) };
                let (step, state) = coord::divmod(b, number, p.padded);
                let (is_state, time) = (below(b, state, p.states), coord::add(b, first, step));
                let is_step = if p.rest() < p.chunk { below(b, time, p.steps) } else { None };
                let state = coord::either(b, state, Coord::Const(p.states - 1), BinOp::Min);
                let mut sum = None;
                for warp in 0..p.warps {
                    let x = self.get(Space::Shared, from, warp * p.sums + array * p.sums_of, 1, None)[0];
                    sum = Some(sum.map_or(x, |s| self.g.e.b.binary(BinOp::AddRn, Type::F32, s, x)));
                }
                let Some(sum) = sum else { continue };
                let exists = self.both(mine, is_state);
                let exists = self.both(exists, is_step);
                self.g.open_scope([s.time, s.state].into_iter().collect());
                self.fix(s.time, time, vec![0]);
                self.fix(s.state, state, vec![0]);
                self.store(what, &[0; SLOTS], sum, exists)?;
                self.g.scopes.pop();
                self.unfix(&[s.time, s.state]);
            }
        }
        Ok(())
    }
}

/// Powers of two from `from` on, below `to`.
fn distances(from: i64, to: i64) -> impl DoubleEndedIterator<Item = i64> {
    let bits = |n: i64| n.ilog2() as i64;
    (bits(from)..bits(to)).map(|i| 1 << i)
}
