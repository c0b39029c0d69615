//! A scan, with what c makes of the states at each step, in the order of time or against it.
use super::Cx;
use super::bring::{Wanted, step};
use super::plan::C as OF_C;
use super::shape::{Made, Walk};
use super::walk::registers;
use crate::emit::Emit;
use crate::eval::Gives;
use crate::place::Base;
use crate::ptx::coord::{self, C};
use crate::ptx::inst::*;
use crate::ptx::simt::V;
use lolm_ir::kernel::KValue;

impl Cx<'_> {
    /// Walks all of time: whole chunks, and what is left, which comes first on the way back.
    pub fn results(&mut self, w: &Walk) -> Gives<()> {
        let p = self.p;
        let (mut h, a) = (self.of_slots(w.scan.first)?, self.exponents()?);
        let (whole, rest) = (p.steps / p.chunk, p.steps % p.chunk);
        for is_rest in [w.scan.reverse, !w.scan.reverse] {
            h = match is_rest {
                true if rest > 0 => self.rest(w, &a, (whole, rest), h)?,
                false if whole > 0 => self.whole_chunks(w, &a, whole, h)?,
                _ => h,
            };
        }
        match w.last {
            Some(last) => self.store_slots(last, &h),
            None => Ok(()),
        }
    }

    fn whole_chunks(&mut self, w: &Walk, a: &[Reg], whole: i64, h: Vec<Reg>) -> Gives<Vec<Reg>> {
        let (p, down) = (self.p, w.scan.reverse);
        let (first, by) = if down { (whole - 1, -1) } else { (0, 1) };
        self.load_and_leave(w, C::Const(first), p.chunk)?;
        if whole == 1 {
            let h = self.results_of_chunk(w, a, (C::Const(0), p.chunk), h)?;
            if !down && p.steps > p.chunk {
                self.g.e.meet();
            }
            return Ok(h);
        }
        let carry: Vec<V> = h.iter().map(|h| V::Reg(*h)).collect();
        let (chunk, inside) = self.g.e.begin(C::Const(0), C::Const(whole), 1, down, true, &carry);
        let b = &mut self.g.e.b;
        let next = coord::add(b, chunk, C::Const(by));
        let next = coord::either(b, next, C::Const(whole - 1), BinOp::Min);
        let next = coord::either(b, next, C::Const(0), BinOp::Max);
        let brought = self.load_chunk(next, p.chunk, wanted(w))?;
        let h = self.results_of_chunk(w, a, (chunk, p.chunk), registers(&inside)?)?;
        self.g.e.meet();
        self.leave(&brought);
        self.g.e.meet();
        let next: Vec<V> = h.iter().map(|h| V::Reg(*h)).collect();
        registers(&self.g.e.end(&next))
    }

    /// The steps of the last chunk, which is none of the whole ones.
    fn rest(&mut self, w: &Walk, a: &[Reg], (chunk, steps): (i64, i64), h: Vec<Reg>) -> Gives<Vec<Reg>> {
        self.load_and_leave(w, C::Const(chunk), steps)?;
        let h = self.results_of_chunk(w, a, (C::Const(chunk), steps), h)?;
        if w.scan.reverse && chunk > 0 {
            self.g.e.meet();
        }
        Ok(h)
    }

    fn load_and_leave(&mut self, w: &Walk, chunk: C, steps: i64) -> Gives<()> {
        let brought = self.load_chunk(chunk, steps, wanted(w))?;
        self.leave(&brought);
        self.g.e.meet();
        Ok(())
    }

    /// The first steps of the chunk that is in shared memory.
    fn results_of_chunk(&mut self, w: &Walk, a: &[Reg], (chunk, steps): (C, i64), mut h: Vec<Reg>) -> Gives<Vec<Reg>> {
        for j in 0..steps {
            let j = if w.scan.reverse { steps - 1 - j } else { j };
            (h, _) = self.state_after(a, j, &h);
            if let Some(made) = &w.y {
                let y = self.result(made, &h, j);
                self.store_result(made, chunk, j, y)?;
            }
        }
        Ok(h)
    }

    /// What c makes of the states of this lane's own channel.
    fn result(&mut self, made: &Made, h: &[Reg], j: i64) -> Reg {
        self.g.e.note(made.y.0);
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
        self.over_states(y)
    }

    /// Stores what is made of the result of a step, by the lane whose channel it is of.
    fn store_result(&mut self, made: &Made, chunk: C, j: i64, y: Reg) -> Gives<()> {
        let s = self.s;
        let first = coord::mul(&mut self.g.e.b, chunk, self.p.chunk);
        let holds = self.both(self.exists, self.is_first);
        self.g.open_scope([s.time, s.tile].into_iter().collect());
        self.fix(s.time, first, (0..self.p.chunk).collect());
        self.fix(s.tile, self.channel, vec![0]);
        self.g.set(made.y, &step(j), V::Reg(y));
        self.g.only = holds.map(V::Reg);
        made.stores.iter().try_for_each(|store| self.store_made(*store, j))?;
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

fn wanted(w: &Walk) -> Wanted {
    Wanted { c: w.y.as_ref().map(|y| y.c), ..Wanted::default() }
}
