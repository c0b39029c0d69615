//! A scan forwards, with what c makes of the states at each step.
use super::Cx;
use super::bring::{Wanted, step};
use super::plan::C as OF_C;
use super::shape::Forward;
use super::walk::registers;
use crate::emit::Emit;
use crate::eval::Gives;
use crate::place::Base;
use crate::ptx::coord::{self, C};
use crate::ptx::inst::*;
use crate::ptx::simt::V;
use lolm_ir::kernel::KValue;

impl Cx<'_> {
    /// Walks all of time: whole chunks, and what is left.
    pub fn results(&mut self, f: &Forward) -> Gives<()> {
        let p = self.p;
        let (mut h, a) = (self.of_slots(f.scan.first)?, self.exponents()?);
        let (whole, rest) = (p.steps / p.chunk, p.steps % p.chunk);
        let wanted = Wanted { c: Some(f.c), ..Wanted::default() };
        if whole > 0 {
            let brought = self.load_chunk(C::Const(0), p.chunk, wanted)?;
            self.leave(&brought);
            self.g.e.meet();
            let carry: Vec<V> = h.iter().map(|h| V::Reg(*h)).collect();
            let (chunk, inside) = self.g.e.begin(C::Const(0), C::Const(whole), 1, false, true, &carry);
            h = registers(&inside)?;
            let b = &mut self.g.e.b;
            let next = coord::add(b, chunk, C::Const(1));
            let next = coord::either(b, next, C::Const(whole - 1), BinOp::Min);
            let brought = self.load_chunk(next, p.chunk, wanted)?;
            h = self.results_of_chunk(f, &a, chunk, p.chunk, h)?;
            self.g.e.meet();
            self.leave(&brought);
            self.g.e.meet();
            let next: Vec<V> = h.iter().map(|h| V::Reg(*h)).collect();
            h = registers(&self.g.e.end(&next))?;
        }
        if rest > 0 {
            let brought = self.load_chunk(C::Const(whole), rest, wanted)?;
            self.leave(&brought);
            self.g.e.meet();
            h = self.results_of_chunk(f, &a, C::Const(whole), rest, h)?;
        }
        match f.last {
            Some(last) => self.store_slots(last, &h),
            None => Ok(()),
        }
    }

    /// The first steps of the chunk that is in shared memory.
    fn results_of_chunk(&mut self, f: &Forward, a: &[Reg], chunk: C, steps: i64, mut h: Vec<Reg>) -> Gives<Vec<Reg>> {
        for j in 0..steps {
            (h, _) = self.state_after(a, j, &h);
            let c = self.of_states(OF_C, j);
            let channels = self.p.channels as usize;
            let b = &mut self.g.e.b;
            let mut y: Vec<Reg> = vec![];
            for (n, h) in h.iter().enumerate() {
                let (state, channel) = (n / channels, n % channels);
                match y.get(channel).copied() {
                    Some(sum) => y[channel] = b.fma((*h).into(), c[state].into(), sum.into()),
                    None => y.push(b.binary(BinOp::MulRn, Type::F32, *h, c[state])),
                }
            }
            let y = self.over_states(y);
            self.store_result(f, chunk, j, y)?;
        }
        Ok(h)
    }

    /// Stores what is made of the result of a step, by the lane whose channel it is of.
    fn store_result(&mut self, f: &Forward, chunk: C, j: i64, y: Reg) -> Gives<()> {
        let s = self.s;
        let first = coord::mul(&mut self.g.e.b, chunk, self.p.chunk);
        let holds = self.both(self.exists, self.is_first);
        self.g.open_scope([s.time, s.tile].into_iter().collect());
        self.fix(s.time, first, (0..self.p.chunk).collect());
        self.fix(s.tile, self.channel, vec![0]);
        self.g.set(f.y, &step(j), V::Reg(y));
        self.g.only = holds.map(V::Reg);
        f.stores.iter().try_for_each(|store| self.store_made(*store, j))?;
        self.g.only = None;
        self.g.scopes.pop();
        self.unfix(&[s.time, s.tile]);
        Ok(())
    }

    fn store_made(&mut self, store: KValue, j: i64) -> Gives<()> {
        let stored = self.g.stored(store);
        let x = self.g.eval(stored, &step(j))?;
        let k = self.g.k;
        let Some((o, view)) = k.value(store).access() else { return Err(self.g.nowhere(store)) };
        self.g.e.note(store.0);
        let access = self.g.access(store, Base::Operand(o), view, &step(j))?;
        self.g.e.store(&access, x);
        Ok(())
    }
}
