//! What is to be done at one level of the nest, with some axes fixed: which folds become loops, in which phase, which
//! scans need arrays, and along which axis the sinks run next.
use crate::emit::Emit;
use crate::eval::{Fail, Gen, Gives};
use crate::sink::Sink;
use lolm_ir::kernel::{KAxes, KAxis, KOp, KValue};
use std::collections::{BTreeMap, BTreeSet};

pub struct Level {
    /// Folds that become loops here, and their phases.
    folds: Vec<(KValue, usize)>,
    /// Sinks that need further axes, and their phases.
    sinks: Vec<(Sink, usize)>,
    /// Scans whose loops are opened here although their states vary over axes that are not fixed.
    arrays: Vec<KValue>,
    /// Scans that run in arrays over several axes that are not fixed: all that uses them shares a loop along one of these.
    running: Vec<(KValue, KAxis)>,
    /// Of sinks that use a scan which would need an array: the axes that all its users have, which go first.
    first: BTreeMap<Sink, KAxes>,
}

impl Level {
    pub fn phases(&self) -> usize {
        let last = self.folds.iter().map(|f| f.1).chain(self.sinks.iter().map(|s| s.1)).max();
        last.map_or(0, |p| p + 1)
    }
    pub fn folds_of(&self, phase: usize) -> Vec<KValue> {
        self.folds.iter().filter(|f| f.1 == phase).map(|f| f.0).collect()
    }
    pub fn sinks_of(&self, phase: usize) -> Vec<Sink> {
        self.sinks.iter().filter(|s| s.1 == phase).map(|s| s.0).collect()
    }
}

impl<E: Emit> Gen<'_, E> {
    /// A fold along an axis that is not in registers needs a loop, unless an array holds its result.
    pub fn needs_loop(&self, v: KValue) -> bool {
        match &self.k.value(v).op {
            KOp::Reduce(_, a) | KOp::ArgMax(a) | KOp::Dot(a) => !self.s.unroll.contains(a) && !self.is_in_array(v),
            KOp::Last(_) => !self.is_in_array(v),
            KOp::Const(_) | KOp::Index(_) | KOp::Load(..) | KOp::Random { .. } | KOp::Unary(_) => false,
            KOp::Binary(_) | KOp::Fma | KOp::Select | KOp::Cast(_) | KOp::Sample(_) => false,
            KOp::Scan { .. } | KOp::Prev(_) | KOp::Store(..) | KOp::Accumulate(..) => false,
        }
    }

    /// What a value is computed from here: a carried scan needs no initial state, and a result that lies in an array
    /// needs nothing.
    fn inputs(&self, v: KValue) -> Vec<KValue> {
        let value = self.k.value(v);
        match value.op {
            KOp::Scan { axis, .. } if self.is_carried(v) => {
                value.args.iter().take(2).copied().chain(self.k.bounds(axis)).collect()
            }
            _ if self.is_in_array(v) => vec![],
            _ => self.k.uses(v),
        }
    }

    /// Everything that these need and that is not known yet, the values themselves included.
    pub fn slice(&self, values: &[KValue], sinks: &[Sink]) -> BTreeSet<KValue> {
        let mut open = values.to_vec();
        sinks.iter().for_each(|s| open.extend(self.sink_inputs(*s)));
        let mut seen = BTreeSet::new();
        while let Some(v) = open.pop() {
            if !self.is_known(v) && seen.insert(v) {
                open.extend(self.inputs(v));
            }
        }
        seen
    }

    /// Looks at what these values and sinks need; `deep` are the sinks with axes that are not fixed.
    pub fn level(&self, values: &[KValue], sinks: &[Sink], deep: Vec<Sink>) -> Level {
        let fixed = self.fixed();
        let slice = self.slice(values, sinks);
        let mut pending: BTreeSet<KValue> = slice.iter().copied().filter(|v| self.needs_loop(*v)).collect();
        pending.retain(|v| fixed.contains(self.k.value(*v).axes));
        let (arrays, first) = self.stuck(&slice, &pending, &deep);
        let running = self.running(&slice);
        let opened = arrays.iter().filter_map(|s| self.k.value(*s).op.folds().map(|x| (*s, x)));
        for (s, x) in opened.chain(running.iter().copied()) {
            let along = |v: &KValue| self.needs_loop(*v) && self.k.value(*v).op.folds() == Some(x);
            pending.extend(slice.iter().filter(|v| along(v) && self.slice(&[**v], &[]).contains(&s)));
        }
        // One phase more across each fold of this level.
        let mut phases: BTreeMap<KValue, usize> = BTreeMap::new();
        let after = |phases: &BTreeMap<KValue, usize>, inputs: Vec<KValue>| {
            let one = |u: &KValue| phases.get(u).map(|p| p + pending.contains(u) as usize);
            inputs.iter().filter_map(one).max().unwrap_or(0)
        };
        for v in &slice {
            let p = after(&phases, self.inputs(*v));
            phases.insert(*v, p);
        }
        let sinks = deep.into_iter().map(|s| (s, after(&phases, self.sink_inputs(s)))).collect();
        let folds = pending.iter().map(|v| (*v, phases[v])).collect();
        let mut level = Level { folds, sinks, arrays, running, first };
        self.delay_overwrites(&slice, &mut level);
        level
    }

    /// A store to an operand that a later phase reads must wait for it.
    fn delay_overwrites(&self, slice: &BTreeSet<KValue>, level: &mut Level) {
        for n in 0..level.sinks.len() {
            let Some(o) = self.overwrites(level.sinks[n].0) else { continue };
            let reads = |v: &&KValue| matches!(self.k.value(**v).op, KOp::Load(p, _) if p == o);
            let loads: Vec<KValue> = slice.iter().filter(reads).copied().collect();
            let uses = |slice: BTreeSet<KValue>| loads.iter().any(|l| slice.contains(l));
            let folds = level.folds.iter().filter(|f| uses(self.slice(&[f.0], &[]))).map(|f| f.1);
            let sinks = level.sinks.iter().filter(|s| uses(self.slice(&[], &[s.0]))).map(|s| s.1);
            let last = folds.chain(sinks).max().unwrap_or(0);
            level.sinks[n].1 = level.sinks[n].1.max(last);
        }
    }

    /// The scans whose arrays are updated somewhere below, and the axis along which that goes next. They are used in one
    /// nest only, so folds along its outer axes are kept in arrays too.
    fn running(&self, slice: &BTreeSet<KValue>) -> Vec<(KValue, KAxis)> {
        let fixed = self.fixed();
        let next = |s: &KValue| {
            self.array(*s).filter(|a| !a.done)?;
            let open = KAxes(self.k.value(*s).axes.0 & !fixed.0);
            let several = open.iter().count() > 1;
            self.s.order.iter().find(|a| several && open.has(**a)).map(|a| (*s, *a))
        };
        slice.iter().filter_map(next).collect()
    }

    /// Scans that need arrays here, and the axes that sinks must fix before it comes to that.
    fn stuck(
        &self,
        slice: &BTreeSet<KValue>,
        pending: &BTreeSet<KValue>,
        deep: &[Sink],
    ) -> (Vec<KValue>, BTreeMap<Sink, KAxes>) {
        let (mut arrays, mut first) = (vec![], BTreeMap::new());
        let fixed = self.fixed();
        for s in slice {
            let KOp::Scan { axis, .. } = self.k.value(*s).op else { continue };
            if self.is_carried(*s) {
                continue;
            }
            let folds: Vec<KValue> = pending.iter().copied().filter(|f| self.slice(&[*f], &[]).contains(s)).collect();
            let sinks: Vec<Sink> = deep.iter().copied().filter(|d| self.slice(&[], &[*d]).contains(s)).collect();
            let is_stuck = folds.iter().any(|f| self.is_stuck(*s, axis, &[*f], fixed))
                || sinks.iter().any(|d| {
                    let outside = self.axes_outside(*d, axis);
                    self.is_stuck(*s, axis, &self.sink_inputs(*d), fixed.union(outside))
                });
            if !is_stuck {
                continue;
            }
            let of_folds = folds.iter().filter_map(|f| self.k.value(*f).op.folds()).map(|a| KAxes::EMPTY.with(a));
            let of_sinks = sinks.iter().map(|d| self.axes_outside(*d, axis));
            let shared = of_folds.chain(of_sinks).fold(KAxes(u32::MAX), |s, a| KAxes(s.0 & a.0));
            let shared = KAxes(shared.without(axis).0 & !fixed.0);
            if shared == KAxes::EMPTY {
                arrays.push(*s);
            } else {
                first.extend(sinks.into_iter().map(|d| (d, shared)));
            }
        }
        (arrays, first)
    }

    /// The axes of a sink that may be fixed before `x` is: an accumulation goes through the axes that it sums over in
    /// ascending order.
    fn axes_outside(&self, sink: Sink, x: KAxis) -> KAxes {
        let axes = self.sink_axes(sink);
        let summed = self.summed(sink);
        axes.iter().filter(|a| !summed.has(x) || !summed.has(*a) || *a <= x).collect()
    }

    /// The axes that an accumulation sums over.
    fn summed(&self, sink: Sink) -> KAxes {
        let value = self.k.value(sink.value());
        match (sink, &value.op) {
            (Sink::Write(_), KOp::Accumulate(_, view)) => value.axes.iter().filter(|a| view.stride(*a) == 0).collect(),
            _ => KAxes::EMPTY,
        }
    }

    /// Whether some way from these values down to the scan enters its loop before all of its state's axes are fixed. Each
    /// fold on the way fixes its axis, until the axis of the scan is fixed.
    fn is_stuck(&self, scan: KValue, x: KAxis, from: &[KValue], fixed: KAxes) -> bool {
        let state = self.k.value(scan).axes.without(x);
        let mut open: Vec<(KValue, KAxes)> = from.iter().map(|v| (*v, fixed)).collect();
        let mut seen = BTreeSet::new();
        while let Some((v, fixed)) = open.pop() {
            if self.is_known(v) || !seen.insert((v, fixed.0)) {
                continue;
            }
            if v == scan && !fixed.contains(state) {
                return true;
            }
            let folded = self.k.value(v).op.folds().filter(|_| self.needs_loop(v) && !fixed.has(x));
            let fixed = folded.map_or(fixed, |a| fixed.with(a));
            open.extend(self.inputs(v).into_iter().map(|u| (u, fixed)));
        }
        false
    }

    /// The axis along which some of these sinks run next, and which of them.
    pub fn next_loop(&self, level: &Level, sinks: &[Sink]) -> Gives<(KAxis, Vec<Sink>)> {
        let opened = level.arrays.iter().filter_map(|s| self.k.value(*s).op.folds().map(|x| (*s, x)));
        for (s, axis) in opened.chain(level.running.iter().copied()) {
            let uses = |d: &Sink| self.sink_axes(*d).has(axis) && self.slice(&[], &[*d]).contains(&s);
            let uses: Vec<Sink> = sinks.iter().copied().filter(uses).collect();
            if !uses.is_empty() {
                return Ok((axis, uses));
            }
        }
        let fixed = self.fixed();
        let pick = |a: KAxis, may: &dyn Fn(KAxis, Sink) -> bool| -> Vec<Sink> {
            let wanted = |s: &Sink| !fixed.has(a) && self.sink_axes(*s).has(a) && may(a, *s);
            sinks.iter().copied().filter(wanted).collect()
        };
        let leads = |a: KAxis, s: Sink| level.first.get(&s).is_none_or(|first| first.has(a));
        let wise = |a: KAxis, s: Sink| leads(a, s) && self.may_open(a, s);
        // If every order folds inside a loop along the same axis, that fold has a loop of its own there.
        let possible = |a: KAxis, s: Sink| leads(a, s) && self.can_open(a, s);
        let mut found = self.s.order.iter().map(|a| (*a, pick(*a, &wise))).find(|f| !f.1.is_empty());
        found = found.or_else(|| self.s.order.iter().map(|a| (*a, pick(*a, &possible))).find(|f| !f.1.is_empty()));
        found.ok_or_else(|| {
            let lines: Vec<String> = sinks.iter().map(|s| self.k.line(s.value())).collect();
            Fail::Limit(format!("no loop order serves {}", lines.join(" and ")))
        })
    }

    /// Whether it is wise to open a loop along the axis for a sink: no fold along it still waits for other axes.
    fn may_open(&self, a: KAxis, sink: Sink) -> bool {
        let fixed = self.fixed();
        let waits = |v: &KValue| {
            let value = self.k.value(*v);
            value.op.folds() == Some(a) && self.needs_loop(*v) && !fixed.contains(value.axes)
        };
        self.can_open(a, sink) && !self.slice(&[], &[sink]).iter().any(waits)
    }

    /// Whether a loop along the axis can be opened: no scan along it varies over axes that have no coordinate yet, and an
    /// accumulation goes through the axes that it sums over in ascending order.
    fn can_open(&self, a: KAxis, sink: Sink) -> bool {
        let fixed = self.fixed().with(a);
        let summed = self.summed(sink);
        if summed.has(a) && !summed.iter().all(|b| b >= a || fixed.has(b)) {
            return false;
        }
        let along = |v: &KValue| {
            let scan = matches!(self.k.value(*v).op, KOp::Scan { axis, .. } if axis == a);
            scan && !self.is_carried(*v)
        };
        self.slice(&[], &[sink]).iter().filter(|v| along(v)).all(|v| fixed.contains(self.k.value(*v).axes))
    }
}
