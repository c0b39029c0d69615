//! Time backwards: the states of a chunk again, and their gradients from its last step to its first.
use super::bring::{Wanted, step};
use super::plan::*;
use super::shape::Grad;
use super::starts::Starts;
use super::walk::registers;
use super::{Cx, below};
use crate::emit::Emit;
use crate::eval::Gives;
use crate::ptx::build::Builder;
use crate::ptx::coord::{self, C as Coord};
use crate::ptx::inst::*;
use crate::ptx::simt::V;

/// States with which all decays but those of the first step stay in registers.
const FEW_STATES: i64 = 16;

/// What goes from step to step: decay · G, the sum for the gradient of the rates, and the states after the step.
struct Gone {
    r: Vec<Reg>,
    d_a: Vec<Reg>,
    after: Vec<Reg>,
}

/// What a step gives, of which each lane has a part.
struct Sums {
    through_a: Vec<Reg>,
    through_b: Vec<Reg>,
    d_b: Vec<Reg>,
    d_c: Vec<Reg>,
}

fn wanted(g: &Grad) -> Wanted {
    Wanted { u: true, dy: Some(g.dy), c: Some(g.c) }
}

impl Cx<'_> {
    /// Walks the chunks from the last, which starts with these states, to the first.
    pub fn backwards(&mut self, grad: &Grad, a: &[Reg], starts: &Starts, last: Vec<Reg>) -> Gives<()> {
        let p = self.p;
        let later = self.of_slots(grad.later)?;
        let brought = self.load_chunk(Coord::Const(p.chunks - 1), p.rest(), wanted(grad))?;
        self.leave(&brought);
        self.keep_states(0, &last);
        self.g.e.meet();
        let nothing = later.iter().map(|_| V::F32(0.0));
        let carry: Vec<V> = later.iter().map(|r| V::Reg(*r)).chain(nothing).collect();
        let (chunk, inside) = self.g.e.begin(Coord::Const(0), Coord::Const(p.chunks), 1, true, true, &carry);
        let mut inside = registers(&inside)?;
        let d_a = inside.split_off(later.len());
        let mut gone = Gone { r: inside, d_a, after: vec![] };
        self.chunk_back(grad, a, starts, chunk, &mut gone)?;
        let next: Vec<V> = gone.r.into_iter().chain(gone.d_a).map(V::Reg).collect();
        let out = registers(&self.g.e.end(&next))?;
        self.store_slots(grad.d_a, &out[later.len()..])
    }

    fn chunk_back(&mut self, grad: &Grad, a: &[Reg], starts: &Starts, chunk: Coord, gone: &mut Gone) -> Gives<()> {
        let p = self.p;
        let mut h = self.kept_states(0);
        let mut decays = vec![];
        for j in 0..p.chunk {
            if j > 0 {
                self.keep_states(j, &h);
            }
            let (after, of_step) = self.state_after(a, j, &h);
            h = after;
            // The decays of the first step are wanted last. Many states leave no registers for those of the second.
            match j {
                0 => self.keep_states(p.chunk, &of_step),
                1 if p.padded > FEW_STATES => {}
                _ => decays.push(of_step),
            }
        }
        gone.after = h;
        let mut coming = None;
        for j in (0..p.chunk).rev() {
            let of_step = match decays.pop() {
                Some(of_step) => of_step,
                None if j == 0 => self.kept_states(p.chunk),
                None => self.decays(a, j),
            };
            let sums = self.step_back(grad, a, j, &of_step, gone);
            self.finish_step(grad, chunk, j, sums)?;
            // Half of the decays are used up, so there are registers for what comes next; if that is much, almost all of them.
            if j == (if p.padded <= LANES { p.chunk / 2 } else { 1 }) && p.chunks > 1 {
                let next = coord::add(&mut self.g.e.b, chunk, Coord::Const(-1));
                let next = coord::either(&mut self.g.e.b, next, Coord::Const(0), BinOp::Max);
                coming = Some((self.load_chunk(next, p.chunk, wanted(grad))?, self.load_starts(starts, next)));
            }
        }
        // All warps have left their sums.
        self.g.e.b.op(Op::SyncBlock);
        if let Some((brought, states)) = coming {
            self.leave(&brought);
            self.keep_states(0, &states);
        }
        self.store_sums(grad, chunk)?;
        self.g.e.b.op(Op::SyncBlock);
        Ok(())
    }

    /// The decays of a step, once more.
    fn decays(&mut self, a: &[Reg], j: i64) -> Vec<Reg> {
        let dt = self.of_channels(DT, j);
        let build = &mut self.g.e.b;
        let decay = |(n, a): (usize, &Reg)| {
            let exponent = build.binary(BinOp::MulRn, Type::F32, dt[n % dt.len()], *a);
            build.unary(UnOp::Ex2Flushed, Type::F32, exponent)
        };
        a.iter().enumerate().map(decay).collect()
    }

    /// One step back.
    fn step_back(&mut self, grad: &Grad, a: &[Reg], j: i64, decays: &[Reg], gone: &mut Gone) -> Sums {
        self.g.e.note(grad.back.0);
        let [dt, driven, dy] = [DT, DRIVEN, DY].map(|array| self.of_channels(array, j));
        let [b, c] = [B, C].map(|array| self.of_states(array, j));
        let before = self.kept_states(j);
        let channels = dt.len();
        let build = &mut self.g.e.b;
        let mut sums = Sums { through_a: vec![], through_b: vec![], d_b: vec![], d_c: vec![] };
        // The first of a sum is a product, the others are added to it.
        let add = |build: &mut Builder, to: &mut Vec<Reg>, i: usize, x: Reg, y: Reg| match to.get(i).copied() {
            Some(sum) => to[i] = build.fma(x.into(), y.into(), sum.into()),
            None => to.push(build.binary(BinOp::MulRn, Type::F32, x, y)),
        };
        for n in 0..decays.len() {
            let (i, k) = (n / channels, n % channels);
            let slope = build.fma(dy[k].into(), c[i].into(), gone.r[n].into());
            let r = build.binary(BinOp::MulRn, Type::F32, decays[n], slope);
            let d_exp = build.binary(BinOp::MulRn, Type::F32, r, before[n]);
            gone.d_a[n] = build.fma(d_exp.into(), dt[k].into(), gone.d_a[n].into());
            add(build, &mut sums.through_a, k, d_exp, a[n]);
            add(build, &mut sums.through_b, k, slope, b[i]);
            add(build, &mut sums.d_b, i, slope, driven[k]);
            add(build, &mut sums.d_c, i, gone.after[n], dy[k]);
            gone.r[n] = r;
        }
        gone.after = before;
        sums
    }

    /// Joins what the lanes have of a step, and stores the gradients of dt and u.
    fn finish_step(&mut self, grad: &Grad, chunk: Coord, j: i64, sums: Sums) -> Gives<()> {
        let p = self.p;
        let through_a = self.over_states(sums.through_a);
        let through_b = self.over_states(sums.through_b);
        let [dt, u] = [DT, U].map(|array| self.of_own(array, j));
        let build = &mut self.g.e.b;
        // The rates were exponents of 2.
        let ln_2 = Src::F32(std::f32::consts::LN_2.to_bits());
        let through_a = build.binary(BinOp::MulRn, Type::F32, through_a, ln_2);
        let d_dt = build.fma(through_b.into(), u.into(), through_a.into());
        let d_u = build.binary(BinOp::MulRn, Type::F32, through_b, dt);
        let first = coord::mul(build, chunk, p.chunk);
        let mut holds = self.both(self.exists, self.is_first);
        if j >= p.rest() {
            let at = coord::add(&mut self.g.e.b, first, Coord::Const(j));
            let is_step = below(&mut self.g.e.b, at, p.steps);
            holds = self.both(holds, is_step);
        }
        let s = self.s;
        self.g.open_scope([s.time, s.tile].into_iter().collect());
        self.fix(s.time, first, (0..p.chunk).collect());
        self.fix(s.tile, self.channel, vec![0]);
        self.store(grad.d_dt, &step(j), d_dt, holds)?;
        self.store(grad.d_u, &step(j), d_u, holds)?;
        self.g.scopes.pop();
        self.unfix(&[s.time, s.tile]);
        self.leave_sums(j, [sums.d_b, sums.d_c].concat());
        Ok(())
    }
}
