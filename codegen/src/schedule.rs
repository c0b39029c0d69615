//! Which axes are units of work, which are loops, which lie in registers, and along which the lanes run.
//!
//! The schedule is chosen from the kernel's accesses and sizes; it decides no result, except that a fold along the lane
//! axis has another order of summation than one along a loop (see `nest`). So that the lane axis does not depend on the
//! batch or on the length of a sequence, only strides are counted for it, and each access once.
pub use crate::machine::{CPU, GPU, Machine};
use lolm_ir::kernel::{KAxes, KAxis, KOp, KValue, Kernel, Mode, Value};
use lolm_ir::op::Unary;
use std::fmt;

/// How a kernel's axes map to the machine. Axes that are in none of the lists are loops where they are needed.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Schedule {
    /// The partition: the unit index runs row-major over these axes, each cut in tiles of so many coordinates.
    pub units: Vec<(KAxis, u32)>,
    /// All axes, those whose loops shall stand outside first.
    pub order: Vec<KAxis>,
    /// Axes all of whose indices are in registers at once.
    pub unroll: Vec<KAxis>,
    pub lane: Option<KAxis>,
    /// Vectors in flight along the lane axis.
    pub vectors: u32,
    /// Several warps do a unit together.
    pub team: Option<Team>,
}

/// The axis that the members of a team share, how many they are, and the coordinates of each; the last may have fewer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Team {
    pub axis: KAxis,
    pub members: u32,
    pub share: u32,
}

impl Schedule {
    /// The place of an axis among those with several coordinates in flight; the lane axis comes first.
    pub fn slot(&self, a: KAxis) -> Option<usize> {
        self.slots().find(|s| s.1 == a).map(|s| s.0)
    }
    pub fn slots(&self) -> impl Iterator<Item = (usize, KAxis)> + use<'_> {
        self.lane.iter().chain(&self.unroll).copied().enumerate()
    }
    /// Units along each unit axis.
    pub fn unit_dims(&self, k: &Kernel) -> Vec<u32> {
        self.units.iter().map(|(a, tile)| k.axis(*a).len.div_ceil(*tile)).collect()
    }
    /// The lanes run along the last unit axis, although each unit is one coordinate: neighbouring units are done together.
    pub fn runs(&self) -> bool {
        self.units.last().is_some_and(|(a, tile)| *tile == 1 && self.lane == Some(*a))
    }
    /// The schedule as text, with the names of the kernel's axes.
    pub fn display<'a>(&'a self, k: &'a Kernel) -> impl fmt::Display + 'a {
        Named(self, k)
    }
}

struct Named<'a>(&'a Schedule, &'a Kernel);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Named(s, k) = self;
        let name = |a: &KAxis| k.axis(*a).name.as_str();
        write!(f, "schedule {{")?;
        s.units.iter().try_for_each(|(a, tile)| write!(f, " unit {} {tile};", name(a)))?;
        let inner = |a: &&KAxis| !s.unroll.contains(a) && s.lane != Some(**a) && !s.units.contains(&(**a, 1));
        s.order.iter().filter(inner).try_for_each(|a| write!(f, " loop {};", name(a)))?;
        s.unroll.iter().try_for_each(|a| write!(f, " unroll {};", name(a)))?;
        if let Some(a) = &s.lane {
            write!(f, " lane {} x{};", name(a), s.vectors)?;
        }
        if let Some(t) = &s.team {
            write!(f, " team {} of {};", name(&t.axis), t.members)?;
        }
        write!(f, " }}")
    }
}

/// Chooses a schedule for the CPU. Units that the kernel gives are kept.
pub fn schedule(k: &Kernel) -> Schedule {
    schedule_for(k, &CPU)
}

/// The same for any machine.
pub fn schedule_for(k: &Kernel, m: &Machine) -> Schedule {
    let c = Chooser { k, m };
    let lane = c.lane();
    let unroll = c.unroll(lane);
    let crossed = c.crossed(lane);
    let order = c.order(lane, crossed);
    // Lanes that jump meet in few sets of the cache, so there are no more of them in flight than a vector has.
    let vectors = if crossed.is_some() { 1 } else { c.vectors(lane, &unroll) };
    let units = match k.units.is_empty() {
        true => c.units(lane, vectors, crossed, &unroll, &order),
        false => k.units.clone(),
    };
    let schedule = Schedule { units, order, unroll, lane, vectors, team: None };
    if m.threads && schedule.runs() {
        // A thread for each unit, so a warp has no second vector of them.
        return Schedule { vectors: 1, ..schedule };
    }
    Schedule { team: c.team(&schedule), ..schedule }
}

struct Chooser<'a> {
    k: &'a Kernel,
    m: &'a Machine,
}

impl Chooser<'_> {
    fn axes(&self) -> impl Iterator<Item = KAxis> + use<> {
        (0..self.k.axes.len() as u8).map(KAxis)
    }
    fn len(&self, a: KAxis) -> u32 {
        self.k.axis(a).len
    }
    fn is_scanned(&self, a: KAxis) -> bool {
        self.k.values.iter().any(|v| matches!(v.op, KOp::Scan { axis, .. } if axis == a))
    }
    /// Axes that an accumulation sums over, which must be gone through in order.
    fn is_summed(&self, a: KAxis) -> bool {
        let lacks = |v: &Value| {
            matches!(v.op, KOp::Accumulate(..)) && v.axes.has(a) && v.access().is_some_and(|(_, w)| w.stride(a) == 0)
        };
        self.k.values.iter().any(lacks)
    }
    /// A unit fixes these axes at a single coordinate. Along the last one lanes can do neighbouring units together, which
    /// pays where their memory is neighbouring too.
    fn is_lone(&self, a: KAxis) -> bool {
        let last = self.k.units.last() == Some(&(a, 1));
        let pays = last && (self.m.threads || !self.k.values.iter().any(|v| jumps(v, a)));
        self.k.units.contains(&(a, 1)) && !pays
    }

    /// Everything that a value is computed from.
    fn sources(&self, v: KValue) -> Vec<bool> {
        let mut seen = vec![false; self.k.values.len()];
        let mut open = vec![v];
        while let Some(v) = open.pop() {
            if !std::mem::replace(&mut seen[v.0 as usize], true) {
                open.extend(self.k.uses(v));
            }
        }
        seen
    }
    /// True if some value that depends on a scan is folded along the axis, so inside the loop of the scan.
    fn is_folded_in_scan(&self, a: KAxis) -> bool {
        self.k.ids().any(|v| {
            let value = self.k.value(v);
            let fold = matches!(value.op, KOp::Reduce(..) | KOp::Dot(_) | KOp::ArgMax(_));
            fold && value.op.folds() == Some(a) && {
                let from = self.sources(v);
                let scan = |u: KValue| matches!(self.k.value(u).op, KOp::Scan { .. }) && self.k.value(u).axes.has(a);
                self.k.ids().any(|u| from[u.0 as usize] && scan(u))
            }
        })
    }

    /// The axis along which most accesses are contiguous and fewest jump.
    fn lane(&self) -> Option<KAxis> {
        let may = |a: &KAxis| {
            let shortest = if self.is_folded(*a) { self.m.shortest_fold } else { self.m.shortest_lanes };
            self.len(*a) >= shortest && !self.is_scanned(*a) && !self.is_lone(*a)
        };
        let score = |a: &KAxis| -> (bool, i64, KAxis) {
            let all = self.k.values.iter().map(|v| self.lane_score(v, *a)).sum::<i64>();
            let bound = |b: KValue| self.k.value(b).axes.has(*a);
            let bounds = self.axes().flat_map(|x| self.k.bounds(x)).filter(|b| bound(*b)).count() as i64;
            // A fold along the lanes at each step of a scan is slow, but better than no lanes.
            let far = self.is_folded_in_scan(*a);
            (!far, all - 100 * bounds - 4 * self.is_summed(*a) as i64, *a)
        };
        let gains = |a: &KAxis| score(a).1 > 0 || self.k.values.iter().all(|v| !jumps(v, *a));
        let best = self.axes().filter(may).filter(gains).max_by_key(score);
        if !self.m.threads || best.is_some_and(|a| self.is_folded(a) || self.use_of_lanes(a) >= FULL_ENOUGH) {
            return best;
        }
        // No fold has the lanes, so any other axis may take them without changing a bit: threads that jump are better than
        // threads that rest.
        let other = |a: &KAxis| may(a) && !self.is_folded(*a);
        self.axes().filter(other).max_by_key(|a| (self.use_of_lanes(*a).min(FULL_ENOUGH), score(a)))
    }

    /// Some value is folded along the axis.
    fn is_folded(&self, a: KAxis) -> bool {
        let fold = |op: &KOp| matches!(op, KOp::Reduce(..) | KOp::Dot(_) | KOp::ArgMax(_));
        self.k.values.iter().any(|v| fold(&v.op) && v.op.folds() == Some(a))
    }

    /// The share of lanes that have something to do along an axis, in 32nds.
    fn use_of_lanes(&self, a: KAxis) -> u64 {
        let len = self.len(a) as u64;
        32 * len / len.next_multiple_of(self.m.lanes as u64)
    }

    /// An access counts for what it moves: four times as much with each axis it varies over. Lengths do not count, so that
    /// the same operation has the same lanes whatever its batch.
    fn lane_score(&self, v: &Value, a: KAxis) -> i64 {
        let Some((_, view)) = v.access().filter(|_| v.axes.has(a)) else { return 0 };
        let weight = 1 << (2 * view.terms.len().min(12));
        let offsets = view.dynamic.iter().any(|(d, _)| self.k.value(*d).axes.has(a));
        let guarded = view.guard.is_some_and(|g| self.k.value(g).axes.has(a));
        match view.stride(a) {
            _ if offsets => -weight,
            1 if guarded => 1,
            1 => 2 * weight,
            0 => -(v.is_sink() as i64) * weight,
            _ => -weight,
        }
    }

    /// A fold in registers needs no loop, and an index in registers is a constant.
    fn gains_by_unrolling(&self, a: KAxis) -> bool {
        // States of units that are given have no other place than registers, or memory that is slower.
        let state = self.m.threads && !self.k.units.is_empty() && self.is_in_state(a);
        state || self.k.values.iter().any(|v| v.op.folds() == Some(a) || v.op == KOp::Index(a))
    }

    /// The state of a scan has a number for each coordinate along the axis.
    fn is_in_state(&self, a: KAxis) -> bool {
        self.k.values.iter().any(|v| matches!(v.op, KOp::Scan { axis, .. } if axis != a) && v.axes.has(a))
    }

    /// Short axes that gain by it.
    fn unroll(&self, lane: Option<KAxis>) -> Vec<KAxis> {
        let may = |a: &KAxis| {
            let range = self.k.axis(*a);
            Some(*a) != lane
                && !self.is_scanned(*a)
                && !self.is_summed(*a)
                && self.k.units.iter().all(|u| u.0 != *a)
                && range.lo.is_none()
                && range.hi.is_none()
        };
        let mut out = vec![];
        let mut product = 1;
        for a in self.axes().filter(may).filter(|a| self.gains_by_unrolling(*a)) {
            let longest = if self.is_in_state(a) { self.m.short_state } else { self.m.short };
            let fits = self.len(a) <= longest && product * self.len(a) <= self.m.short_product;
            if fits && out.len() < 6 {
                product *= self.len(a);
                out.push(a);
            }
        }
        out.sort();
        out
    }

    /// An axis along which some large operand is contiguous that jumps along the lanes, as in a transposition. Short tiles of
    /// it inside the lanes' loop use every cache line that they touch.
    fn crossed(&self, lane: Option<KAxis>) -> Option<KAxis> {
        let lane = lane?;
        if !self.k.units.is_empty() || self.k.values.iter().any(|v| v.op.folds().is_some()) {
            return None;
        }
        let across = |v: &Value| {
            let (_, view) = v.access().filter(|(_, view)| view.stride(lane).abs() >= self.m.cache_line)?;
            let along =
                |t: &&(KAxis, i64)| t.1 == 1 && self.len(t.0) as i64 >= self.m.cache_line && self.is_in_sinks(t.0);
            view.terms.iter().find(along).map(|t| t.0)
        };
        self.k.values.iter().find_map(across)
    }

    /// Loops with large steps in memory stand outside; the lane axis innermost, unless another one is crossed with it.
    fn order(&self, lane: Option<KAxis>, crossed: Option<KAxis>) -> Vec<KAxis> {
        let step = |a: KAxis| {
            let strides = self.k.values.iter().filter_map(|v| v.access()).map(|(_, w)| w.stride(a).abs());
            strides.max().unwrap_or(0)
        };
        let mut order: Vec<KAxis> = self.axes().collect();
        order.sort_by_key(|a| (Some(*a) == crossed, Some(*a) == lane, std::cmp::Reverse(step(*a)), *a));
        order
    }

    fn elements(&self, axes: KAxes) -> f64 {
        axes.iter().map(|a| self.len(a) as f64).product()
    }

    /// A rough time of the whole kernel on one core, in nanoseconds.
    fn work(&self) -> f64 {
        let of = |v: &Value| {
            let axes = v.op.folds().map_or(v.axes, |a| v.axes.with(a));
            self.elements(axes) * nanoseconds(&v.op)
        };
        self.k.values.iter().map(of).sum()
    }

    /// Every sink runs along the axis, so that it can be cut in units.
    fn is_in_sinks(&self, a: KAxis) -> bool {
        self.k.values.iter().filter(|v| v.is_sink()).all(|v| match &v.op {
            KOp::Accumulate(_, view) => view.stride(a) != 0,
            _ => v.axes.has(a),
        })
    }

    /// Outer axes are cut first, until units are small or nothing is left to cut.
    fn units(
        &self,
        lane: Option<KAxis>,
        vectors: u32,
        crossed: Option<KAxis>,
        unroll: &[KAxis],
        order: &[KAxis],
    ) -> Vec<(KAxis, u32)> {
        let may = |a: &&KAxis| {
            self.is_in_sinks(**a)
                && Some(**a) != crossed
                && !self.is_scanned(**a)
                && !unroll.contains(a)
                && self.len(**a) > 1
                && !(self.m.threads && self.is_whole(**a))
        };
        let total = self.work();
        let target = (total / self.m.enough_units).clamp(self.m.least_ns, self.m.most_ns);
        let mut left = total;
        let mut units = vec![];
        if let Some(a) = crossed.filter(|a| self.len(*a) as i64 > self.m.cache_line) {
            units.push((a, self.m.cache_line as u32));
            left *= self.m.cache_line as f64 / self.len(a) as f64;
        }
        for a in order.iter().filter(may) {
            if left <= 1.5 * target {
                break;
            }
            let len = self.len(*a);
            let tile = if left / len as f64 >= target { 1 } else { (target * len as f64 / left).ceil() as u32 };
            let tile = if Some(*a) == lane { self.lane_tile(len, tile, vectors) } else { tile.min(len) };
            if tile < len {
                units.push((*a, tile));
                left *= tile as f64 / len as f64;
            }
        }
        units.sort_by_key(|u| u.0);
        units
    }

    /// Every unit would fold all of the axis again, or has a range of its own along it.
    fn is_whole(&self, a: KAxis) -> bool {
        let range = self.k.axis(a);
        self.is_folded(a) || range.lo.is_some() || range.hi.is_some()
    }

    /// Whole cache lines; a power of two, so that most lengths are a multiple.
    fn lane_tile(&self, len: u32, tile: u32, vectors: u32) -> u32 {
        let least = self.m.lane_tile * if self.m.threads { vectors } else { 1 };
        let tile = tile.max(least).next_power_of_two();
        if len <= tile { len } else { tile }
    }

    /// Folds need several independent sums; much state or a long body leaves no registers for that.
    fn vectors(&self, lane: Option<KAxis>, unroll: &[KAxis]) -> u32 {
        let product: u32 = unroll.iter().map(|a| self.len(*a)).product();
        let values = self.k.values.len() as u32;
        let fits = match lane {
            None => 1,
            Some(_) if product >= 4 || values > 128 => 1,
            Some(_) if product >= 2 || values > 64 => 2,
            Some(_) => 4,
        };
        let Some(lane) = lane.filter(|_| self.m.threads) else { return fits };
        let fits = fits.min(self.len(lane).div_ceil(self.m.lanes).next_power_of_two());
        // The order of a fold is a matter of its length. Other lanes spread over as many threads as there are.
        let spread = self.spread() / self.m.lanes as f64 / self.m.enough_units;
        if self.is_folded(lane) { fits } else { fits.min((spread.max(1.0) as u32).next_power_of_two()) }
    }

    /// The longest axis that is folded, if it is long enough to be shared, in a kernel whose units leave no trace that
    /// another member could meet: no states, no sums in memory, nothing that is both read and written.
    fn team(&self, s: &Schedule) -> Option<Team> {
        let traces = |v: &Value| matches!(v.op, KOp::Scan { .. } | KOp::Accumulate(..));
        let updates = self.k.operands.iter().any(|o| o.mode == Mode::InOut);
        if self.m.members == 1 || updates || self.k.values.iter().any(traces) {
            return None;
        }
        let most = if self.k.operands.len() > MANY_OPERANDS { self.m.members / 2 } else { self.m.members };
        let one = |axis: KAxis| {
            let lanes = s.lane == Some(axis);
            let (least, step) = match lanes {
                true => (self.m.member_lanes, s.vectors * self.m.lanes),
                false => (self.m.member_loop, 1),
            };
            let members = (self.len(axis) / least).min(most).max(1);
            let share = self.len(axis).div_ceil(members).next_multiple_of(step);
            Team { axis, members: self.len(axis).div_ceil(share), share }
        };
        let may = |a: &KAxis| self.is_folded(*a) && !s.unroll.contains(a) && s.units.iter().all(|u| u.0 != *a);
        let teams = self.axes().filter(may).map(one).filter(|t| t.members >= FEWEST_MEMBERS);
        teams.max_by_key(|t| (t.members, self.len(t.axis)))
    }

    /// Elements that can be done side by side.
    fn spread(&self) -> f64 {
        let may = |a: &KAxis| self.is_in_sinks(*a) && !self.is_scanned(*a) && !self.is_whole(*a);
        self.axes().filter(may).map(|a| self.len(a) as f64).product()
    }
}

/// Operands whose addresses alone fill most registers that a thread of a full team has: there half of the team is left,
/// with twice the registers.
const MANY_OPERANDS: usize = 24;
/// A smaller team costs more than it gains.
const FEWEST_MEMBERS: u32 = 4;
/// Lanes in use, of 32, from which on an axis is as good as any: as many neighbours as memory moves at once.
const FULL_ENOUGH: u64 = 8;

/// True if neighbours along the axis are not neighbours in memory.
fn jumps(v: &Value, a: KAxis) -> bool {
    v.access().is_some_and(|(_, view)| view.stride(a).abs() > 1)
}

fn nanoseconds(op: &KOp) -> f64 {
    match op {
        KOp::Const(_) | KOp::Index(_) | KOp::Prev(_) | KOp::Last(_) => 0.0,
        KOp::Random { .. } => 10.0,
        KOp::Unary(Unary::Neg | Unary::Abs | Unary::Not) => 0.1,
        KOp::Unary(Unary::Sqrt | Unary::Rsqrt) => 0.8,
        KOp::Unary(Unary::Exp) => 1.0,
        KOp::Unary(_) => 2.0,
        KOp::Load(..) | KOp::Store(..) => 0.3,
        KOp::Accumulate(..) => 0.6,
        KOp::Binary(_) | KOp::Fma | KOp::Select | KOp::Cast(_) => 0.1,
        KOp::Reduce(..) | KOp::ArgMax(_) | KOp::Dot(_) | KOp::Scan { .. } => 0.15,
        KOp::Sample(_) => 2.0,
    }
}
