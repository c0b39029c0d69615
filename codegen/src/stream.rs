//! The stream generator: a loop nest for any kernel.
//!
//! It is pulled from the stores. At each level, with some axes fixed, it asks what the remaining stores need: folds whose
//! result is fixed here become loops here, in as many *phases* as they depend on each other; folds of one phase along one
//! axis share a loop with each other and with the stores that run along it. Before a loop is opened, everything that it
//! uses and that does not vary along it is computed. A scan's state is carried by the loop along its axis.
use crate::emit::Emit;
use crate::eval::{At, Fail, Gen, Gives, Inst, Tile};
use crate::schedule::Schedule;
use lolm_ir::kernel::{KAxes, KAxis, KOp, KValue, Kernel, Mode};
use std::collections::{BTreeMap, BTreeSet};

/// Emits the whole kernel.
pub fn stream<E: Emit>(k: &Kernel, s: &Schedule, e: &mut E) -> Gives<()> {
    let mut g = Gen::new(k, s, e);
    g.open_scope(KAxes::EMPTY);
    let unit = g.e.begin_units();
    g.open_scope(KAxes::EMPTY);
    g.fix_units(unit);
    g.fix_unrolled();
    let sinks: Vec<KValue> = k.ids().filter(|v| k.value(*v).is_sink()).collect();
    g.prepare(&[], &sinks)?;
    g.leaf(&sinks)?;
    g.e.end_units();
    Ok(())
}

/// A loop to be opened, and what it is for.
struct Group {
    axis: KAxis,
    folds: Vec<KValue>,
    sinks: Vec<KValue>,
}

impl<E: Emit> Gen<'_, E> {
    /// Cuts the number of the unit into coordinates and tiles.
    fn fix_units(&mut self, unit: E::C) {
        let mut rest = unit;
        for (n, (a, tile)) in self.s.units.iter().enumerate().rev() {
            let (len, tile) = (self.k.axis(*a).len as i64, *tile as i64);
            let count = len.div_euclid(tile) + (len % tile != 0) as i64;
            let mut number = rest;
            if n > 0 {
                (rest, number) = self.e.coord_divmod(rest, count);
            }
            if tile == 1 {
                let at = At { coord: number, offsets: vec![0], vector: false, masked: false, depth: self.depth() - 1 };
                self.at[a.0 as usize] = Some(at);
            } else if count > 1 {
                self.tiles[a.0 as usize] = Some(self.tile(number, len, tile));
            }
        }
    }

    /// Part `number` of an axis that is cut in tiles; the last one may be shorter.
    fn tile(&mut self, number: E::C, len: i64, tile: i64) -> Tile<E::C> {
        let lo = self.e.coord_mul(number, tile);
        let mut size = self.e.coord(tile);
        if len % tile != 0 {
            let minus = self.e.coord_mul(lo, -1);
            let end = self.e.coord(len);
            let left = self.e.coord_add(end, minus);
            size = self.e.coord_min(size, left);
        }
        Tile { lo, size, multiple: gcd(len, tile) }
    }

    fn fix_unrolled(&mut self) {
        for a in &self.s.unroll {
            let range = self.k.axis(*a);
            let at = At {
                coord: self.e.coord(0),
                offsets: (0..range.len as i64).collect(),
                vector: false,
                masked: range.lo.is_some() || range.hi.is_some(),
                depth: 0,
            };
            self.at[a.0 as usize] = Some(at);
        }
    }

    /// A fold along an axis that is not in registers needs a loop.
    fn needs_loop(&self, v: KValue) -> bool {
        match &self.k.value(v).op {
            KOp::Reduce(_, a) | KOp::ArgMax(a) | KOp::Dot(a) => !self.s.unroll.contains(a),
            KOp::Last(_) => true,
            KOp::Const(_) | KOp::Index(_) | KOp::Load(..) | KOp::Random { .. } | KOp::Unary(_) => false,
            KOp::Binary(_) | KOp::Fma | KOp::Select | KOp::Cast(_) => false,
            KOp::Scan { .. } | KOp::Prev(_) | KOp::Store(..) | KOp::Accumulate(..) => false,
        }
    }

    /// What a value is computed from here: a carried scan needs no initial state, its `prev` nothing.
    fn inputs(&self, v: KValue) -> Vec<KValue> {
        let value = self.k.value(v);
        match value.op {
            KOp::Scan { .. } if self.is_carried(v) => {
                self.k.uses(v).into_iter().filter(|u| *u != value.args[2]).chain(self.twice(v)).collect()
            }
            KOp::Prev(_) if self.is_carried(value.args[0]) => vec![],
            _ => self.k.uses(v),
        }
    }
    /// The initial state of a scan, if it is an operand in another place too.
    fn twice(&self, scan: KValue) -> Option<KValue> {
        let args = &self.k.value(scan).args;
        args[..2].contains(&args[2]).then_some(args[2])
    }

    /// Everything that these need and that is not known yet, themselves included.
    pub fn slice(&self, of: &[KValue]) -> BTreeSet<KValue> {
        let (mut seen, mut open) = (BTreeSet::new(), of.to_vec());
        while let Some(v) = open.pop() {
            if !self.is_known(v) && seen.insert(v) {
                open.extend(self.inputs(v));
            }
        }
        seen
    }

    /// Emits every loop that these values and stores need, so that the values can be computed and the stores that vary
    /// over fixed axes only can be performed here; the other stores are done.
    pub fn prepare(&mut self, values: &[KValue], sinks: &[KValue]) -> Gives<()> {
        let fixed = self.fixed();
        let slice = self.slice(&[values, sinks].concat());
        let axes = |v: &KValue| self.k.value(*v).axes;
        let pending: Vec<KValue> =
            slice.iter().copied().filter(|v| self.needs_loop(*v) && fixed.contains(axes(v))).collect();
        let deep: Vec<KValue> = sinks.iter().copied().filter(|v| !fixed.contains(axes(v))).collect();
        if pending.is_empty() && deep.is_empty() {
            return Ok(());
        }
        let phases = self.phases(&slice, &pending, &deep);
        let last = pending.iter().chain(&deep).map(|v| phases[v]).max().unwrap_or(0);
        for p in 0..=last {
            let of = |list: &[KValue]| list.iter().copied().filter(|v| phases[v] == p).collect::<Vec<_>>();
            let (folds, sinks) = (of(&pending), of(&deep));
            if folds.is_empty() && sinks.is_empty() {
                continue;
            }
            self.hoist(&[&folds[..], &sinks].concat())?;
            for g in self.groups(folds, sinks)? {
                self.open(g.axis, &g.folds, &g.sinks)?;
            }
        }
        Ok(())
    }

    /// How many loops, one after another, must be done before a value can be: one more across each fold of this level.
    fn phases(&self, slice: &BTreeSet<KValue>, pending: &[KValue], deep: &[KValue]) -> BTreeMap<KValue, usize> {
        let mut phases = BTreeMap::new();
        for v in slice {
            let after = |u: &KValue| phases.get(u).map(|p: &usize| p + pending.contains(u) as usize);
            let p = self.inputs(*v).iter().filter_map(after).max().unwrap_or(0);
            phases.insert(*v, p);
        }
        self.delay_overwrites(slice, pending, deep, &mut phases);
        phases
    }

    /// A store to an operand that a later phase reads must wait for it.
    fn delay_overwrites(
        &self,
        slice: &BTreeSet<KValue>,
        pending: &[KValue],
        deep: &[KValue],
        phases: &mut BTreeMap<KValue, usize>,
    ) {
        for s in deep {
            let Some((o, _)) = self.k.value(*s).access() else { continue };
            let reads = |v: &&KValue| matches!(self.k.value(**v).op, KOp::Load(p, _) if p == o);
            let loads: Vec<KValue> = slice.iter().filter(reads).copied().collect();
            if loads.is_empty() {
                continue;
            }
            for item in pending.iter().chain(deep) {
                let slice = self.slice(&[*item]);
                if loads.iter().any(|l| slice.contains(l)) {
                    let p = phases[item].max(phases[s]);
                    phases.insert(*s, p);
                }
            }
        }
    }

    /// Computes what the loops to come use and do not change.
    fn hoist(&mut self, items: &[KValue]) -> Gives<()> {
        let fixed = self.fixed();
        for v in self.slice(items) {
            let value = self.k.value(v);
            let constant = matches!(value.op, KOp::Const(_));
            if fixed.contains(value.axes) && !constant && !value.is_sink() && !self.needs_loop(v) {
                for i in self.insts(value.axes) {
                    self.eval(v, &i)?;
                }
            }
            self.touch(v)?;
        }
        Ok(())
    }

    /// Which loops to open for the folds and stores of one phase, in an order in which nothing is overwritten too early.
    fn groups(&self, folds: Vec<KValue>, mut sinks: Vec<KValue>) -> Gives<Vec<Group>> {
        let mut groups: Vec<Group> = vec![];
        for f in folds {
            let axis = self.k.value(f).op.folds().ok_or_else(|| Fail::Bug(format!("%{} is no fold", f.0)))?;
            match groups.iter_mut().find(|g| g.axis == axis) {
                Some(g) => g.folds.push(f),
                None => groups.push(Group { axis, folds: vec![f], sinks: vec![] }),
            }
        }
        while !sinks.is_empty() {
            let axis = self.next_axis(&sinks)?;
            let wise = sinks.iter().any(|v| self.k.value(*v).axes.has(axis) && self.may_open(axis, *v));
            let may = |v: &KValue| if wise { self.may_open(axis, *v) } else { self.can_open(axis, *v) };
            let along = |v: &KValue| self.k.value(*v).axes.has(axis) && may(v);
            let (mine, rest): (Vec<_>, Vec<_>) = sinks.into_iter().partition(along);
            sinks = rest;
            // A fold runs over all of an axis, a store over the unit's part of it.
            let shares = self.tiles[axis.0 as usize].is_none();
            match groups.iter_mut().find(|g| g.axis == axis && shares) {
                Some(g) => g.sinks.extend(mine),
                None => groups.push(Group { axis, folds: vec![], sinks: mine }),
            }
        }
        let overwrites = |v: &KValue| match self.k.value(*v).access() {
            Some((o, _)) => self.k.operand(o).mode == Mode::InOut,
            None => false,
        };
        groups.sort_by_key(|g| g.sinks.iter().any(overwrites));
        Ok(groups)
    }

    /// The axis along which some of these stores run next.
    fn next_axis(&self, sinks: &[KValue]) -> Gives<KAxis> {
        let fixed = self.fixed();
        let wanted = |a: &KAxis, v: &KValue| !fixed.has(*a) && self.k.value(*v).axes.has(*a);
        let good = |a: &&KAxis| sinks.iter().any(|v| wanted(a, v) && self.may_open(**a, *v));
        // If every order folds inside a loop along the same axis, that fold has a loop of its own there.
        let possible = |a: &&KAxis| sinks.iter().any(|v| wanted(a, v) && self.can_open(**a, *v));
        let order = &self.s.order;
        order.iter().find(good).or_else(|| order.iter().find(possible)).copied().ok_or_else(|| {
            let lines: Vec<String> = sinks.iter().map(|v| self.k.line(*v)).collect();
            Fail::Limit(format!("no loop order serves {}", lines.join(" and ")))
        })
    }

    /// Whether it is wise to open a loop along the axis for a store: no fold along it still waits for other axes.
    fn may_open(&self, a: KAxis, sink: KValue) -> bool {
        let fixed = self.fixed();
        let waits = |v: &KValue| {
            let value = self.k.value(*v);
            value.op.folds() == Some(a) && self.needs_loop(*v) && !fixed.contains(value.axes)
        };
        self.can_open(a, sink) && !self.slice(&[sink]).iter().any(waits)
    }

    /// Whether a loop along the axis can be opened: no scan along it varies over axes that have no coordinate yet, and an
    /// accumulation goes through the axes that it sums over in ascending order.
    fn can_open(&self, a: KAxis, sink: KValue) -> bool {
        let fixed = self.fixed().with(a);
        let value = self.k.value(sink);
        if let (KOp::Accumulate(..), Some((_, view))) = (&value.op, value.access()) {
            let lacks = |b: &KAxis| view.stride(*b) == 0;
            if lacks(&a) && !value.axes.iter().filter(lacks).all(|b| b >= a || fixed.has(b)) {
                return false;
            }
        }
        let scan = |v: &KValue| matches!(self.k.value(*v).op, KOp::Scan { axis, .. } if axis == a);
        self.slice(&[sink]).iter().filter(|v| scan(v)).all(|v| fixed.contains(self.k.value(*v).axes))
    }

    /// Performs the stores, all of whose axes are fixed, of one lane instance after the other. Where an operand is both
    /// read and written, all of the values are computed before the first is stored.
    pub fn leaf(&mut self, sinks: &[KValue]) -> Gives<()> {
        self.each_lane_inst(|g, q| g.leaf_of(sinks, q))
    }

    /// Once for each vector in flight. What one of them writes the others do not read: they are other coordinates.
    pub fn each_lane_inst(&mut self, mut f: impl FnMut(&mut Self, u8) -> Gives<()>) -> Gives<()> {
        let before = self.written.clone();
        let mut written = before.clone();
        for q in 0..self.lane_insts() {
            self.written = before.clone();
            f(self, q)?;
            written.append(&mut self.written);
        }
        self.written = written;
        Ok(())
    }

    pub fn leaf_of(&mut self, sinks: &[KValue], q: u8) -> Gives<()> {
        let fixed = self.fixed();
        let here: Vec<KValue> = sinks.iter().copied().filter(|v| fixed.contains(self.k.value(*v).axes)).collect();
        let stored = |v: &KValue| self.k.value(*v).access().map(|a| a.0);
        if here.iter().any(|v| stored(v).is_some_and(|o| self.k.operand(o).mode == Mode::InOut)) {
            for v in &here {
                for i in self.insts_of_lane(self.k.value(*v).axes, q) {
                    self.eval(self.stored(*v), &i)?;
                    for u in self.k.uses(*v).into_iter().skip(1) {
                        self.eval(u, &i)?;
                    }
                }
            }
        }
        for v in here {
            for i in self.insts_of_lane(self.k.value(v).axes, q) {
                self.sink(v, &i)?;
            }
        }
        Ok(())
    }

    /// Vectors in flight along the lane axis.
    pub fn lane_insts(&self) -> u8 {
        let at = self.s.lane.and_then(|a| self.at[a.0 as usize].as_ref());
        at.map_or(1, |at| at.offsets.len() as u8)
    }

    /// The instances of these axes with number `q` along the lane axis; none if they lack it and q is not the first.
    pub fn insts_of_lane(&self, axes: KAxes, q: u8) -> Vec<Inst> {
        let slot = self.s.lane.and_then(|a| self.s.slot(a));
        let mine = |i: &Inst| slot.map_or(0, |s| i[s]) == q;
        let mut all = self.insts(axes);
        all.retain(mine);
        all
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
