//! Time forwards: all of it for the states where chunks start.
use super::Cx;
use super::bring::Wanted;
use super::plan::{B, DRIVEN, DT};
use super::starts::Starts;
use crate::emit::Emit;
use crate::eval::{Fail, Gives};
use crate::ptx::coord::{self, C};
use crate::ptx::inst::*;
use crate::ptx::simt::V;

impl Cx<'_> {
    /// Walks all chunks but the last, stores the states at the start of each, and gives those of the last one.
    pub fn forwards(&mut self, a: &[Reg], starts: &Starts, first: Vec<Reg>) -> Gives<Vec<Reg>> {
        let last = self.p.chunks - 1;
        let mut h = first;
        if last > 0 {
            let brought = self.load_chunk(C::Const(0), self.p.chunk, Wanted::default())?;
            self.leave(&brought);
            self.g.e.meet();
            let carry: Vec<V> = h.iter().map(|h| V::Reg(*h)).collect();
            let (chunk, inside) = self.g.e.begin(C::Const(0), C::Const(last), 1, false, true, &carry);
            h = registers(&inside)?;
            self.store_starts(starts, chunk, &h);
            let b = &mut self.g.e.b;
            let next = coord::add(b, chunk, C::Const(1));
            let next = coord::either(b, next, C::Const(last - 1), BinOp::Min);
            let brought = self.load_chunk(next, self.p.chunk, Wanted::default())?;
            for j in 0..self.p.chunk {
                (h, _) = self.state_after(a, j, &h);
            }
            self.g.e.meet();
            self.leave(&brought);
            self.g.e.meet();
            let next: Vec<V> = h.iter().map(|h| V::Reg(*h)).collect();
            h = registers(&self.g.e.end(&next))?;
        }
        self.store_starts(starts, C::Const(last), &h);
        Ok(h)
    }

    /// The states after a step of the chunk that is in shared memory, and their decays.
    pub fn state_after(&mut self, a: &[Reg], j: i64, h: &[Reg]) -> (Vec<Reg>, Vec<Reg>) {
        self.g.e.note(self.s.h.0);
        let (dt, driven, b) = (self.of_channels(DT, j), self.of_channels(DRIVEN, j), self.of_states(B, j));
        let channels = dt.len();
        let build = &mut self.g.e.b;
        let (mut after, mut decays) = (vec![], vec![]);
        for (n, (a, h)) in a.iter().zip(h).enumerate() {
            let (state, channel) = (n / channels, n % channels);
            let exponent = build.binary(BinOp::MulRn, Type::F32, dt[channel], *a);
            let decay = build.unary(UnOp::Ex2Flushed, Type::F32, exponent);
            after.push(if self.s.reverse {
                let sum = build.fma(driven[channel].into(), b[state].into(), (*h).into());
                build.binary(BinOp::MulRn, Type::F32, decay, sum)
            } else {
                let input = build.binary(BinOp::MulRn, Type::F32, driven[channel], b[state]);
                build.fma(decay.into(), (*h).into(), input.into())
            });
            decays.push(decay);
        }
        (after, decays)
    }
}

/// The registers that these are.
pub fn registers(values: &[V]) -> Gives<Vec<Reg>> {
    let one = |v: &V| match v {
        V::Reg(r) => Ok(*r),
        V::F32(_) | V::I32(_) | V::Bool(_) => Err(Fail::Bug("a loop carries a constant".into())),
    };
    values.iter().map(one).collect()
}
