//! One loop of the nest: its bounds, its lanes, what it carries, its body.
//!
//! Along the lane axis a loop has up to three parts: tiles of several vectors, single vectors, single elements. A fold keeps
//! one partial result for each lane and vector of the tile; they are joined pairwise between the parts, and the tail is
//! added at the end. So the order depends on the length of the axis and on nothing else: an element's place in a tile is
//! its index modulo the tile, even where the range of the axis starts or ends inside one. Other folds are chains.
//!
//! Where lanes can be masked there are whole tiles and one more, whose last lanes rest; partial results stay where they are.
use crate::emit::Emit;
use crate::eval::{Acc, At, Fail, Gen, Gives, Keyed, Tile};
use crate::partial::{Partial, Shape};
use crate::sink::Sink;
use lolm_ir::kernel::{KAxes, KAxis, KOp, KValue, View};
use lolm_ir::op::Binary;
use std::collections::BTreeMap;

/// A piece of a loop.
pub struct Part<C> {
    pub lo: C,
    pub hi: C,
    pub shape: Shape,
    /// The shape of the partial results, which a masked tail only has some of.
    pub accs: Shape,
    pub masked: bool,
    /// Lanes rest from `hi` on.
    pub tail: Tail,
    /// Iterations, if they are known.
    pub count: Option<i64>,
}

/// Which lanes of a step go beyond the end of a loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tail {
    None,
    /// All after so many elements.
    After(i64),
    Unknown,
}

/// What a loop carries: the states of scans, the partial results of folds.
struct Carried<V> {
    states: Keyed<V>,
    partial: Partial<V>,
}

impl<E: Emit> Gen<'_, E> {
    /// Emits a loop along an axis: the folds are known afterwards, the sinks are done.
    pub fn open(&mut self, x: KAxis, folds: &[KValue], sinks: &[Sink]) -> Gives<()> {
        let fixed = self.fixed();
        let fits = |g: &Self, v: &KValue| fixed.contains(g.k.value(*v).axes.without(x));
        let is_last = |g: &Self, v: &KValue| matches!(g.k.value(*v).op, KOp::Last(_));
        let (scans, far_scans): (Vec<_>, Vec<_>) =
            self.scans(x, folds, sinks)?.into_iter().partition(|v| fits(self, v));
        let (lasts, folds): (Vec<KValue>, Vec<KValue>) = folds.iter().partition(|v| is_last(self, v));
        let (folds, far_folds): (Vec<_>, Vec<_>) = folds.into_iter().partition(|v| fits(self, v));
        let parts = self.parts(x, sinks, scans.len() + far_scans.len() > 0)?;
        let inner = self.start_arrays(x, &far_scans, &far_folds)?;
        self.open_parts(x, parts, (&scans, &lasts), &folds, &[sinks, &inner].concat())?;
        far_folds.iter().for_each(|f| self.finish_array(*f, None));
        for s in far_scans {
            let mine = |l: &&KValue| self.k.value(**l).args[0] == s;
            lasts
                .iter()
                .filter(mine)
                .copied()
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|l| self.finish_array(s, Some(l)));
            self.drop_array(s);
        }
        Ok(())
    }

    /// Makes arrays for what does not fit in registers, fills them, and gives the sinks that update them in the loop.
    fn start_arrays(&mut self, x: KAxis, scans: &[KValue], folds: &[KValue]) -> Gives<Vec<Sink>> {
        for v in scans.iter().chain(folds) {
            self.make_array(*v, x)?;
        }
        let starts: Vec<Sink> = scans.iter().chain(folds).map(|v| Sink::Start(*v)).collect();
        self.prepare(&[], &starts)?;
        self.leaf(&starts)?;
        Ok(folds.iter().map(|v| Sink::Fold(*v)).chain(scans.iter().map(|v| Sink::State(*v))).collect())
    }

    fn open_parts(
        &mut self,
        x: KAxis,
        parts: Vec<Part<E::C>>,
        (scans, lasts): (&[KValue], &[KValue]),
        folds: &[KValue],
        sinks: &[Sink],
    ) -> Gives<()> {
        let down = self.is_down(x, sinks, scans);
        let outer = self.at[x.0 as usize].take();
        let before = self.written.clone();
        let mut written = before.clone();
        let mut partial: Option<Partial<E::V>> = None;
        let mut states = self.initial_states(x, scans)?;
        for part in parts {
            self.written = before.clone();
            let partial_in = self.partial(x, folds, partial.take(), part.accs)?;
            let into = Carried { states, partial: partial_in };
            let out = self.run_part(x, &part, down, into, sinks)?;
            (states, partial) = (out.states, Some(out.partial));
            written.append(&mut self.written);
        }
        self.written = written;
        self.at[x.0 as usize] = outer;
        for ((s, i), h) in states {
            for last in lasts.iter().filter(|f| self.k.value(**f).args[0] == s) {
                self.set(*last, &i, h);
            }
        }
        let mut single = self.partial(x, folds, partial, Shape::Single)?.accs;
        if self.team_along(x).is_some() && !single.is_empty() {
            single = self.join_team(single)?;
        }
        for ((f, i), acc) in single {
            self.set(f, &i, acc.at.unwrap_or(acc.x));
        }
        Ok(())
    }

    /// Whether a scan of the loop, in registers or in an array, runs downwards; all of them do, or none.
    fn is_down(&self, x: KAxis, sinks: &[Sink], scans: &[KValue]) -> bool {
        let states = sinks.iter().filter(|s| matches!(s, Sink::State(_))).map(|s| s.value());
        let down = |v: KValue| self.k.value(v).op == KOp::Scan { axis: x, reverse: true };
        states.chain(scans.iter().copied()).any(down)
    }

    /// The scans along the axis that the loop must carry.
    fn scans(&self, x: KAxis, folds: &[KValue], sinks: &[Sink]) -> Gives<Vec<KValue>> {
        let along = |v: &KValue| matches!(self.k.value(*v).op, KOp::Scan { axis, .. } if axis == x);
        let scans: Vec<KValue> = self.slice(folds, sinks).into_iter().filter(along).collect();
        let reverse = |v: &KValue| matches!(self.k.value(*v).op, KOp::Scan { reverse: true, .. });
        if scans.iter().any(reverse) && !scans.iter().all(reverse) {
            let name = &self.k.axis(x).name;
            return Err(Fail::Limit(format!("one loop along `{name}` would have to run in both directions")));
        }
        Ok(scans)
    }

    fn initial_states(&mut self, x: KAxis, scans: &[KValue]) -> Gives<Keyed<E::V>> {
        let mut states = vec![];
        for s in scans {
            let value = self.k.value(*s);
            for i in self.insts(value.axes.without(x)) {
                let mut h = self.eval(value.args[2], &i)?;
                if self.varies(value.axes.without(x)) {
                    h = self.e.vary(h);
                }
                states.push(((*s, i), h));
            }
        }
        Ok(states)
    }

    /// The parts of a loop that have iterations, in order.
    fn parts(&mut self, x: KAxis, sinks: &[Sink], scans: bool) -> Gives<Vec<Part<E::C>>> {
        let range = self.k.axis(x);
        let bounded = range.lo.is_some() || range.hi.is_some();
        let tile = self.tiles[x.0 as usize].filter(|_| !sinks.is_empty());
        let whole = Tile { lo: self.e.coord(0), size: self.e.coord(range.len as i64), multiple: range.len as i64 };
        let team = self.team_along(x);
        // Stores cover all of the axis, but for those that its end guards; and bounds that differ between instances cannot
        // bound one loop.
        let confined = sinks.iter().all(|s| self.ends_with(*s, x));
        let clip = bounded && confined && self.k.bounds(x).all(|b| self.is_single(b));
        let mut clip_to = if clip { Some(self.clip(x)?) } else { None };
        let mut has_lo = range.lo.is_some();
        let Tile { lo, size, multiple } = match (team, clip_to) {
            (Some(t), Some(to)) => {
                (clip_to, has_lo) = (Some(self.member_clip(t, to)), true);
                whole
            }
            (Some(t), None) => self.member_tile(t),
            (None, _) => tile.unwrap_or(whole),
        };
        let mut parts = vec![];
        if self.e.masks_tail() && self.has_lanes(x, scans) {
            match clip_to {
                Some(to) => self.clipped_masked(&mut parts, size, multiple, to, has_lo),
                None => self.whole_masked(&mut parts, Tile { lo, size, multiple }, bounded),
            }
            return Ok(parts);
        }
        let mut at = self.e.coord(0);
        for shape in self.shapes(x, scans) {
            let step = self.step(shape);
            let end = if multiple % step == 0 { size } else { self.whole_steps(at, size, step) };
            match clip_to {
                Some(to) => self.clipped(&mut parts, (at, end), to, shape, has_lo),
                None => {
                    let count = self.count(at, end, step);
                    let (lo, hi) = (self.e.coord_add(lo, at), self.e.coord_add(lo, end));
                    parts.push(Part { lo, hi, shape, accs: shape, masked: bounded, tail: Tail::None, count });
                }
            }
            at = end;
            if multiple % step == 0 {
                break;
            }
        }
        parts.retain(|p| p.count != Some(0));
        Ok(parts)
    }

    /// A store whose guard says that the axis has not ended, where its range has no other bound.
    fn ends_with(&self, s: Sink, x: KAxis) -> bool {
        let Sink::Write(v) = s else { return false };
        self.k.value(v).access().is_some_and(|(_, view)| self.guarded_by_end(view) == Some(x))
    }

    /// The axis whose end is all that the guard of a view looks at.
    pub fn guarded_by_end(&self, view: &View) -> Option<KAxis> {
        let guard = self.k.value(view.guard?);
        let (KOp::Binary(Binary::Lt), KOp::Index(x)) = (&guard.op, &self.k.value(*guard.args.first()?).op) else {
            return None;
        };
        let range = self.k.axis(*x);
        (range.lo.is_none() && range.hi == guard.args.get(1).copied()).then_some(*x)
    }

    /// How a loop along the axis may step, large steps first.
    fn shapes(&self, x: KAxis, scans: bool) -> Vec<Shape> {
        match self.s.vectors as usize {
            _ if !self.has_lanes(x, scans) => vec![Shape::Single],
            1 => vec![Shape::Vectors(1), Shape::Single],
            n => vec![Shape::Vectors(n), Shape::Vectors(1), Shape::Single],
        }
    }

    /// The lanes run along the loop: it is along their axis and carries no scan.
    fn has_lanes(&self, x: KAxis, scans: bool) -> bool {
        self.s.lane == Some(x) && !scans
    }

    pub fn step(&self, shape: Shape) -> i64 {
        match shape {
            Shape::Vectors(n) => (n * self.e.lanes()) as i64,
            Shape::Single => 1,
        }
    }

    /// The number of steps, if both ends are known.
    fn count(&self, lo: E::C, hi: E::C, step: i64) -> Option<i64> {
        let (lo, hi) = (self.e.known(lo)?, self.e.known(hi)?);
        Some((hi - lo).max(0).div_euclid(step))
    }

    /// lo + the greatest multiple of the step that fits below hi.
    pub fn whole_steps(&mut self, lo: E::C, hi: E::C, step: i64) -> E::C {
        if step == 1 {
            return hi;
        }
        let minus = self.e.coord_mul(lo, -1);
        let size = self.e.coord_add(hi, minus);
        let (count, _) = self.e.coord_divmod(size, step);
        let size = self.e.coord_mul(count, step);
        self.e.coord_add(lo, size)
    }

    /// The part lo..end of the axis cut to from..to. Steps stay where they are, so the first and last may be partial.
    fn clipped(
        &mut self,
        parts: &mut Vec<Part<E::C>>,
        (lo, end): (E::C, E::C),
        (from, to): (E::C, E::C),
        shape: Shape,
        has_lo: bool,
    ) {
        let step = self.step(shape);
        let mut push = |g: &mut Self, lo: E::C, hi: E::C, masked: bool| {
            let count = g.count(lo, hi, step);
            parts.push(Part { lo, hi, shape, accs: shape, masked, tail: Tail::None, count });
        };
        let (from, to) = (self.e.coord_max(lo, from), self.e.coord_min(end, to));
        if step == 1 {
            return push(self, from, to, false);
        }
        let to = self.e.coord_max(lo, to);
        let last = self.e.coord(step - 1);
        let above = self.e.coord_add(to, last);
        let stop = self.whole_steps(lo, above, step);
        if has_lo {
            let from = self.e.coord_min(end, from);
            let start = self.whole_steps(lo, from, step);
            push(self, start, stop, true);
        } else {
            let full = self.whole_steps(lo, to, step);
            push(self, lo, full, false);
            push(self, full, stop, true);
        }
    }

    /// A value that is one number here: the same for all lanes and instances.
    fn is_single(&self, v: KValue) -> bool {
        let axes = self.k.value(v).axes;
        self.fixed().contains(axes) && !self.varies(axes) && self.insts(axes).len() == 1
    }

    /// The range of an axis, cut to 0..len.
    fn clip(&mut self, x: KAxis) -> Gives<(E::C, E::C)> {
        let range = self.k.axis(x);
        let (zero, len) = (self.e.coord(0), self.e.coord(range.len as i64));
        let mut bound = |b: Option<KValue>, or: E::C| -> Gives<E::C> {
            let Some(b) = b else { return Ok(or) };
            let inst = self.insts(self.k.value(b).axes)[0];
            let x = self.eval(b, &inst)?;
            let c = self.e.widen(x);
            let c = self.e.coord_max(c, zero);
            Ok(self.e.coord_min(c, len))
        };
        Ok((bound(range.lo, zero)?, bound(range.hi, len)?))
    }

    /// Emits one part and gives what is carried out of it.
    fn run_part(
        &mut self,
        x: KAxis,
        part: &Part<E::C>,
        down: bool,
        into: Carried<E::V>,
        sinks: &[Sink],
    ) -> Gives<Carried<E::V>> {
        let carry = into.values();
        let once = part.count == Some(1);
        let (coord, inside) = match once {
            true => (part.lo, carry),
            false => self.e.begin(part.lo, part.hi, self.step(part.shape), down, part.count.is_some(), &carry),
        };
        self.fix(x, part, coord);
        let inside = into.with(inside)?;
        for ((s, i), h) in &inside.states {
            self.set_state(*s, i, *h);
        }
        let next = self.body(x, inside, sinks)?;
        self.scopes.pop();
        self.at[x.0 as usize] = None;
        let out = if once { next.values() } else { self.e.end(&next.values()) };
        next.with(out)
    }

    /// Gives the axis its coordinates inside the loop.
    fn fix(&mut self, x: KAxis, part: &Part<E::C>, coord: E::C) {
        self.open_scope(KAxes::EMPTY.with(x));
        let offsets: Vec<i64> = match part.shape {
            Shape::Vectors(n) => (0..n).map(|q| (q * self.e.lanes()) as i64).collect(),
            Shape::Single => vec![0],
        };
        let vector = part.shape != Shape::Single;
        let depth = self.depth() - 1;
        let tail = offsets.iter().map(|o| self.before(part.tail, coord, *o, part.hi)).collect();
        self.at[x.0 as usize] = Some(At { coord, offsets, vector, masked: part.masked, tail, depth });
    }

    /// One iteration: deeper loops first, then folds, stores and scans of this level.
    fn body(&mut self, x: KAxis, mut c: Carried<E::V>, sinks: &[Sink]) -> Gives<Carried<E::V>> {
        let mut values: Vec<KValue> = c.states.iter().map(|s| s.0.0).collect();
        for (f, _) in c.partial.accs.keys() {
            values.extend(self.k.value(*f).args.iter().take(2));
        }
        self.prepare(&values, sinks)?;
        let slot = self.s.lane.and_then(|a| self.s.slot(a));
        self.each_lane_inst(|g, q| {
            for (key, acc) in c.partial.accs.iter_mut().filter(|(k, _)| slot.map_or(0, |s| k.1[s]) == q) {
                *acc = g.fold_step(key.0, x, *acc, &key.1)?;
                let args = g.k.value(key.0).args.iter().take(2);
                if g.varies(args.fold(KAxes::EMPTY, |s, a| s.union(g.k.value(*a).axes))) {
                    *acc = Acc { x: g.e.vary(acc.x), at: acc.at.map(|at| g.e.vary(at)) };
                }
            }
            g.leaf_of(sinks, q)
        })?;
        for ((s, i), h) in &mut c.states {
            *h = self.eval(*s, i)?;
            if self.varies(self.k.value(*s).axes) {
                *h = self.e.vary(*h);
            }
        }
        Ok(c)
    }
}

impl<V: Copy> Carried<V> {
    /// All values, in a fixed order.
    fn values(&self) -> Vec<V> {
        let accs = self.partial.accs.values().flat_map(|a| [Some(a.x), a.at]).flatten();
        self.states.iter().map(|s| s.1).chain(accs).collect()
    }

    /// The same with other values.
    fn with(&self, values: Vec<V>) -> Gives<Self> {
        let mut values = values.into_iter();
        let mut next = || values.next().ok_or_else(|| Fail::Bug("a loop lost a carried value".into()));
        let mut states = vec![];
        for (key, _) in &self.states {
            states.push((*key, next()?));
        }
        let mut accs = BTreeMap::new();
        for (key, acc) in &self.partial.accs {
            let x = next()?;
            let at = acc.at.map(|_| next()).transpose()?;
            accs.insert(*key, Acc { x, at });
        }
        Ok(Carried { states, partial: Partial { shape: self.partial.shape, accs } })
    }
}
