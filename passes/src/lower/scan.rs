//! The selective scan and its gradient.
//!
//! Forward is one kernel: a recurrence along time whose states stay in registers. Backward keeps no states from forward: a
//! unit takes a tile of channels, computes their states again, and walks time backwards over them. On the CPU they lie in
//! a thread's scratch memory and a unit takes several tiles, one after the other; a GPU does all of it in one kernel
//! (`scan_gpu`). Sums over channels and batch are partial sums, one a unit, added up in a fixed order.
use super::index::{Index, Map};
use super::scan_gpu::{MOST_STATES, channels_of_block, sections};
use super::storage::Storage;
use super::stream::{Lowered, Stream};
use super::{Built, Lowering};
use crate::pipeline::Target;
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::kernel::{Fold, KAxis, KOp, KValue};
use lolm_ir::op::{Binary, Op, Unary};
use lolm_ir::plan::{Access, BufferId, Kind, Launch, Span, Stage, Step};
use lolm_ir::{DType, Graph, ValueId};

/// Units that the launch of a gradient should have.
const UNITS: usize = 16;
/// Stands for the axis of channel groups, which is no axis of the graph, in partial sums.
pub(super) const GROUP: AxisId = AxisId(u8::MAX);
/// Stands for the sections that time is cut in, in partial sums and in states between sections.
pub(super) const SECTION: AxisId = AxisId(u8::MAX - 1);

impl Lowering<'_> {
    pub(super) fn selective_scan(&mut self, v: ValueId) -> Result<(), String> {
        let n = self.cx.g.node(v);
        let Op::SelectiveScan { time, state } = n.op else { return Err("bug: not a scan".into()) };
        let stored: Vec<Storage> = self.cx.storage[v.0 as usize].iter().flatten().cloned().collect();
        let [y_at, last_at] = stored.as_slice() else { return Err("bug: scan without storage".into()) };
        let mut s = Stream::new(&self.cx, None);
        let map = s.identity(n.types[0].axes.union(n.types[1].axes));
        let (t, k) = (s.axis(time), s.axis(state));
        let x = Inputs::new(&mut s, &n.args, &map);
        let init = match n.args.get(5) {
            Some(i) => s.value(*i, &map, None),
            None => s.float(0.0),
        };
        let h = x.states(&mut s, t, init);
        let y = s.push(KOp::Dot(k), &[h, x.c], DType::F32);
        s.store(y_at, &map, y);
        if self.uses_part(v, 1) {
            let last = s.push(KOp::Last(t), &[h], DType::F32);
            s.store(last_at, &map, last);
        }
        let lowered = s.finish();
        let name = format!("selective_scan_{}x{}", self.cx.g.len(time), self.cx.g.elements(n.types[1].axes));
        self.launch(name, Kind::Scan, lowered);
        Ok(())
    }

    pub(super) fn uses_part(&self, v: ValueId, i: usize) -> bool {
        self.parts[v.0 as usize] >> i & 1 == 1
    }

    pub(super) fn selective_scan_grad(&mut self, v: ValueId) -> Result<(), String> {
        let g = self.cx.g;
        let n = g.node(v);
        let Op::SelectiveScanGrad { time, state } = n.op else { return Err("bug: not a scan gradient".into()) };
        let channels = g.axes_of(n.args[1]).without(state);
        let channel = channels.single().ok_or("limit: a differentiated scan has one channel axis")?;
        let all = [0, 4, 2, 3].map(|i| g.axes_of(n.args[i])).into_iter().fold(AxisSet::EMPTY, AxisSet::union);
        let rows: Vec<AxisId> = all.without(time).without(state).minus(channels).iter().collect();
        if [2, 3].iter().any(|i| g.axes_of(n.args[*i]).has(channel)) {
            return Err("limit: b and c of a differentiated scan are the same for every channel".into());
        }
        if self.target == Target::Gpu && g.len(state) > MOST_STATES {
            return Err(format!(
                "limit: a GPU differentiates scans of up to {MOST_STATES} states, not {}",
                g.len(state)
            ));
        }
        let batch: usize = rows.iter().map(|a| g.len(*a)).product();
        let (cut, sections) = match self.target {
            Target::Cpu => (Cut::new(g.len(channel), batch), 1),
            Target::Gpu => {
                let tile = channels_of_block(g.len(channel), g.len(state));
                (Cut::tiles(g.len(channel), tile), sections(g.len(time), batch * g.len(channel)))
            }
        };
        let order = [rows.as_slice(), &[time, state]].concat();
        let b_part = self.partial("db_part", &order, cut.groups);
        let c_part = self.partial("dc_part", &order, cut.groups);
        let a_part = match self.target {
            Target::Cpu => {
                let b = self.temporary("da_part", batch * g.len(channel) * g.len(state));
                Storage::row_major(g, b, rows.iter().copied().chain([channel, state]).collect::<Vec<_>>().into_iter())
            }
            Target::Gpu => self.by_section("da_part", &rows, sections, &[state, channel]),
        };
        let wide = AxisSet::of(&rows).with(time).with(channel);
        let (dt_at, u_at) = (self.own_or_part(v, 0, wide)?, self.own_or_part(v, 4, wide)?);
        let scratch = match self.target {
            Target::Cpu => {
                let each = g.len(time) * g.len(state) * cut.tile;
                Some(Scratch { decays: self.scratch("decays", each), carried: self.scratch("carried", each) })
            }
            Target::Gpu => None,
        };
        let grad = ScanGrad { v, time, state, channel, rows, cut, sections, dt_at, u_at, a_part, b_part, c_part };
        match scratch {
            Some(scratch) => grad.one_launch(self, scratch, batch)?,
            None => grad.walks(self),
        }
        grad.totals(self);
        Ok(())
    }

    /// Where the gradient over `axes` goes: to its place, or, if it is a sum over some of them, to memory of its terms.
    fn own_or_part(&mut self, v: ValueId, result: usize, axes: AxisSet) -> Result<Storage, String> {
        let g = self.cx.g;
        let own = self.cx.storage[v.0 as usize][result].clone().ok_or("bug: scan gradient without storage")?;
        if g.node(v).types[result].axes == axes {
            return Ok(own);
        }
        let b = self.temporary("scan_part", g.elements(axes));
        Ok(Storage::row_major(g, b, axes.iter()))
    }

    /// Memory of one element for each of these rows, each section of time, and each index of the inner axes.
    pub(super) fn by_section(&mut self, name: &str, rows: &[AxisId], sections: usize, inner: &[AxisId]) -> Storage {
        let g = self.cx.g;
        let each = g.elements(AxisSet::of(inner));
        let b = self.temporary(name, g.elements(AxisSet::of(rows)) * sections * each);
        let mut s = Storage::row_major(g, b, inner.iter().copied());
        s.strides.push((SECTION, each as i64));
        let mut stride = (each * sections) as i64;
        for a in rows.iter().rev() {
            s.strides.push((*a, stride));
            stride *= g.len(*a) as i64;
        }
        s
    }

    /// Partial sums over `axes`, one for each group of channels behind the batch axes.
    fn partial(&mut self, name: &str, axes: &[AxisId], groups: usize) -> Storage {
        let g = self.cx.g;
        let inner: usize = axes[axes.len() - 2..].iter().map(|a| g.len(*a)).product();
        let outer = &axes[..axes.len() - 2];
        let b = self.temporary(name, g.elements(AxisSet::of(axes)) * groups);
        let mut s = Storage::row_major(g, b, axes[axes.len() - 2..].iter().copied());
        s.strides.push((GROUP, inner as i64));
        let mut stride = (inner * groups) as i64;
        for a in outer.iter().rev() {
            s.strides.push((*a, stride));
            stride *= g.len(*a) as i64;
        }
        s
    }
}

/// The operands of a scan at one step, as kernel values.
pub(super) struct Inputs {
    pub dt: KValue,
    b: KValue,
    pub c: KValue,
    u: KValue,
    /// exp(dt·a)
    pub decay: KValue,
}

impl Inputs {
    pub fn new(s: &mut Stream, args: &[ValueId], map: &Map) -> Self {
        let [dt, a, b, c, u] = [0, 1, 2, 3, 4].map(|i| s.value(args[i], map, None));
        let x = s.binary(Binary::Mul, dt, a);
        let decay = s.unary(Unary::Exp, x);
        Inputs { dt, b, c, u, decay }
    }
    /// dt·b·u, what a step adds.
    fn input(&self, s: &mut Stream) -> KValue {
        let x = s.binary(Binary::Mul, self.dt, self.u);
        s.binary(Binary::Mul, x, self.b)
    }
    pub fn states(&self, s: &mut Stream, t: KAxis, init: KValue) -> KValue {
        let x = self.input(s);
        s.push(KOp::Scan { axis: t, reverse: false }, &[self.decay, x, init], DType::F32)
    }
}

/// How a gradient cuts the channels: `groups` units, each of `rounds` tiles of `tile` channels. A tile is a few vectors:
/// sums over its channels are mostly of vectors, and its decays and states stay in the second cache.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    pub groups: usize,
    rounds: usize,
    pub tile: usize,
}

impl Cut {
    /// Tiles of so many channels, each a unit's.
    fn tiles(channels: usize, tile: usize) -> Self {
        Cut { groups: channels / tile, rounds: 1, tile }
    }
    fn new(channels: usize, batch: usize) -> Self {
        let tile = [16, 4, 2].into_iter().find(|t| channels.is_multiple_of(*t)).unwrap_or(1);
        let tiles = channels / tile;
        let groups = (1..=tiles).filter(|n| tiles.is_multiple_of(*n)).find(|n| n * batch >= UNITS).unwrap_or(tiles);
        Cut { groups, rounds: tiles / groups, tile }
    }
}

pub(super) struct ScanGrad {
    pub v: ValueId,
    pub time: AxisId,
    pub state: AxisId,
    pub channel: AxisId,
    pub rows: Vec<AxisId>,
    pub cut: Cut,
    /// Parts of time that are walked at once.
    pub sections: usize,
    pub dt_at: Storage,
    pub u_at: Storage,
    pub a_part: Storage,
    pub b_part: Storage,
    pub c_part: Storage,
}

/// Scratch memory of a thread, by time, state and channel of the tile: exp(dt·a), and its product with the state before
/// each step.
#[derive(Clone, Copy)]
struct Scratch {
    decays: BufferId,
    carried: BufferId,
}

/// A kernel of one round: its units are the batch axes and the channel group.
pub(super) struct Round<'a> {
    pub s: Stream<'a>,
    pub map: Map,
    /// The same where partial sums lie, by groups of channels and sections of time.
    pub parts: Map,
    pub tile: KAxis,
    pub time: KAxis,
    pub state: KAxis,
}

/// What a walk back over time gives.
struct Back {
    /// The gradient of the state of each step, and its product with what that kept of the state before.
    slope: KValue,
    d_exp: KValue,
    d_dt: KValue,
    d_u: KValue,
}

impl Back {
    /// With G_t the gradient of S_t: G_t = decay_{t+1} G_{t+1} + dy_t c_t; `init` is decay · G of the step after the last.
    fn new(r: &mut Round, x: [KValue; 6], [decay, carried, init]: [KValue; 3]) -> Self {
        let [dt, a, b, c, u, dy] = x;
        let s = &mut r.s;
        let from_y = s.binary(Binary::Mul, dy, c);
        let decayed = s.binary(Binary::Mul, decay, from_y);
        let scan = s.push(KOp::Scan { axis: r.time, reverse: true }, &[decay, decayed, init], DType::F32);
        let later = s.push(KOp::Prev(r.time), &[scan], DType::F32);
        let slope = s.binary(Binary::Add, later, from_y);
        let d_exp = s.binary(Binary::Mul, slope, carried);
        // Over states: the gradients of dt and u.
        let through_a = s.push(KOp::Dot(r.state), &[d_exp, a], DType::F32);
        let through_b = s.push(KOp::Dot(r.state), &[slope, b], DType::F32);
        let d_dt = s.push(KOp::Fma, &[through_b, u, through_a], DType::F32);
        let d_u = s.binary(Binary::Mul, through_b, dt);
        Back { slope, d_exp, d_dt, d_u }
    }
}

impl ScanGrad {
    /// For threads: a unit walks its tiles one after the other, with decays and states in scratch memory.
    fn one_launch(&self, lw: &mut Lowering, scratch: Scratch, batch: usize) -> Result<(), String> {
        let (g, cut) = (lw.cx.g, self.cut);
        let mut stages = vec![];
        for round in 0..cut.rounds {
            let (states, slopes) = (self.states(lw, scratch, round > 0), self.slopes(lw, scratch, round > 0));
            for kernel in [self.decays(lw, scratch), states, slopes] {
                stages.push(self.stage(lw, kernel, scratch, round)?);
            }
        }
        let grid: Vec<u32> = self.rows.iter().map(|a| g.len(*a) as u32).chain([cut.groups as u32]).collect();
        let steps = (batch * g.len(self.channel) * g.len(self.time)) as u64;
        let (flops, bytes) = (steps * g.len(self.state) as u64 * 20, steps * 4 * 5);
        lw.steps.push(Step::Launch(Launch { name: self.name(g), kind: Kind::Scan, grid, stages, flops, bytes }));
        Ok(())
    }

    pub fn name(&self, g: &Graph) -> String {
        format!("selective_scan_grad_{}x{}x{}", g.len(self.time), g.len(self.channel), g.len(self.state))
    }

    /// exp(dt·a) of a step.
    pub fn decay(&self, r: &mut Round, args: &[ValueId]) -> KValue {
        let [dt, a] = [0, 1].map(|i| r.s.value(args[i], &r.map, None));
        let x = r.s.binary(Binary::Mul, dt, a);
        r.s.unary(Unary::Exp, x)
    }

    fn open<'a>(&self, lw: &'a Lowering<'_>) -> Round<'a> {
        let mut s = Stream::new(&lw.cx, None);
        let mut map = s.identity(AxisSet::of(&self.rows));
        let group = s.k.add_axis("group", self.cut.groups);
        s.k.units = self.rows.iter().map(|a| (s.axis(*a), 1)).chain([(group, 1)]).collect();
        let (time, state) = (s.axis(self.time), s.axis(self.state));
        let tile = s.k.add_axis("tile", self.cut.tile);
        map.set(self.time, Index::axis(time));
        map.set(self.state, Index::axis(state));
        let width = (self.cut.rounds * self.cut.tile) as i64;
        map.set(self.channel, Index { terms: vec![(group, width), (tile, 1)], ..Index::default() });
        let parts = map.with(GROUP, Index::axis(group));
        Round { s, map, parts, tile, time, state }
    }

    /// A tile in scratch, by time, state and channel, as the kernel addresses it: unit by unit.
    fn scratch_at(&self, r: &mut Round, buffer: BufferId) -> (Storage, Map) {
        let (n, w) = (r.s.k.axis(r.state).len as i64, self.cut.tile as i64);
        let mut at = Index { terms: vec![(r.time, n * w), (r.state, w), (r.tile, 1)], ..Index::default() };
        let mut stride = r.s.k.axis(r.time).len as i64 * n * w;
        for (a, _) in r.s.k.units.clone().iter().rev() {
            at.add_scaled(&Index::axis(*a), stride);
            stride *= r.s.k.axis(*a).len as i64;
        }
        let mut map = Map::default();
        map.set(GROUP, at);
        (Storage { buffer, strides: vec![(GROUP, 1)], base: 0 }, map)
    }

    /// exp(dt·a) of every step, without the order in time that the states need.
    fn decays(&self, lw: &Lowering, scratch: Scratch) -> Lowered {
        let mut r = self.open(lw);
        let decay = self.decay(&mut r, &lw.cx.g.node(self.v).args);
        let (to, map) = self.scratch_at(&mut r, scratch.decays);
        r.s.store(&to, &map, decay);
        r.s.finish()
    }

    fn load_scratch(&self, r: &mut Round, from: BufferId) -> KValue {
        let (from, at) = self.scratch_at(r, from);
        r.s.load(&from, &at, None)
    }

    /// The states, forwards: what each keeps of the one before it, and, over the channels of the tile, the gradient of c.
    fn states(&self, lw: &Lowering, scratch: Scratch, add: bool) -> Lowered {
        let mut r = self.open(lw);
        let zero = r.s.float(0.0);
        let args = &lw.cx.g.node(self.v).args;
        let decay = self.load_scratch(&mut r, scratch.decays);
        let (to, there) = self.scratch_at(&mut r, scratch.carried);
        let map = r.map.clone();
        let s = &mut r.s;
        let [dt, b, u, dy] = [0, 2, 4, 5].map(|i| s.value(args[i], &map, None));
        let driven = s.binary(Binary::Mul, dt, u);
        let input = s.binary(Binary::Mul, driven, b);
        let h = s.push(KOp::Scan { axis: r.time, reverse: false }, &[decay, input, zero], DType::F32);
        let before = s.push(KOp::Prev(r.time), &[h], DType::F32);
        let carried = s.binary(Binary::Mul, before, decay);
        s.store(&to, &there, carried);
        let d_c = s.push(KOp::Dot(r.tile), &[h, dy], DType::F32);
        self.add_to(s, &self.c_part, &r.parts, d_c, add);
        r.s.finish()
    }

    /// Time backwards, from nothing.
    fn slopes(&self, lw: &Lowering, scratch: Scratch, add: bool) -> Lowered {
        let mut r = self.open(lw);
        let zero = r.s.float(0.0);
        let decay = self.load_scratch(&mut r, scratch.decays);
        let carried = self.load_scratch(&mut r, scratch.carried);
        self.gradients(&mut r, &lw.cx.g.node(self.v).args, [decay, carried, zero], add);
        r.s.finish()
    }

    /// Time backwards, with the gradients that it gives, where these are exp(dt·a), its product with the state before each
    /// step, and decay · G of the step after the last.
    pub fn gradients(&self, r: &mut Round, args: &[ValueId], [decay, carried, init]: [KValue; 3], add: bool) {
        let map = r.map.clone();
        let x = [0, 1, 2, 3, 4, 5].map(|i| r.s.value(args[i], &map, None));
        let back = Back::new(r, x, [decay, carried, init]);
        let (s, [dt, _, _, _, u, _]) = (&mut r.s, x);
        s.store(&self.dt_at, &map, back.d_dt);
        s.store(&self.u_at, &map, back.d_u);
        // Over time: the gradient of a.
        let d_a = s.push(KOp::Dot(r.time), &[back.d_exp, dt], DType::F32);
        s.store(&self.a_part, &r.parts, d_a);
        // Over the channels of the tile: the gradient of b.
        let driven = s.binary(Binary::Mul, dt, u);
        let d_b = s.push(KOp::Dot(r.tile), &[back.slope, driven], DType::F32);
        self.add_to(s, &self.b_part, &r.parts, d_b, add);
    }

    /// A sum, on top of what was added before.
    fn add_to(&self, s: &mut Stream, to: &Storage, map: &Map, x: KValue, add: bool) {
        if add { s.accumulate(to, map, x, None) } else { s.store(to, map, x) }
    }

    /// A kernel as a stage of one round: what varies over channels starts at the round's tile.
    fn stage(&self, lw: &mut Lowering, mut l: Lowered, scratch: Scratch, round: usize) -> Result<Stage, String> {
        let tile = l.kernel.axes.iter().position(|a| a.name == "tile").map(|i| KAxis(i as u8));
        let tile = tile.ok_or("bug: a round without its tile")?;
        let units: u64 = l.kernel.units.iter().map(|u| l.kernel.axis(u.0).len as u64).product();
        let each = lw.cx.buffer(scratch.carried).len;
        let mut operands: Vec<Access> = l.buffers.iter().map(|b| Access::whole(*b)).collect();
        for (i, o) in operands.iter_mut().enumerate() {
            if [scratch.decays, scratch.carried].contains(&o.buffer) {
                o.rebase = each as i64;
                l.kernel.operands[i].len = units * each;
                continue;
            }
            let views = l.kernel.values.iter().filter_map(|v| v.access()).filter(|(id, _)| id.0 as usize == i);
            let mut strides: Vec<i64> = views.map(|(_, view)| view.stride(tile)).collect();
            strides.dedup();
            match strides.as_slice() {
                [one] => o.base = one * (round * self.cut.tile) as i64,
                _ => return Err("limit: operands of a differentiated scan share a buffer in two layouts".into()),
            }
        }
        l.kernel.name = format!("scan_grad_{}", self.cut.tile);
        let span = Span::Tiles { len: self.cut.groups as u32, tile: 1 };
        Ok(lw.add_stage(Built { kernel: l.kernel, operands, span }))
    }

    /// Partial sums become the gradients of a, b and c, and of dt and u where these are the same for several rows.
    fn totals(&self, lw: &mut Lowering) {
        let stored: Vec<Storage> = lw.cx.storage[self.v.0 as usize].iter().flatten().cloned().collect();
        let b_axes = AxisSet::of(&self.rows).with(self.time).with(self.state);
        let a_axes = AxisSet::of(&self.rows).with(self.channel).with(self.state);
        let wide = AxisSet::of(&self.rows).with(self.time).with(self.channel);
        let parts = [
            (0, &self.dt_at, wide),
            (1, &self.a_part, a_axes),
            (2, &self.b_part, b_axes),
            (3, &self.c_part, b_axes),
            (4, &self.u_at, wide),
        ];
        for (i, part, axes) in parts.into_iter().filter(|(i, part, _)| part.buffer != stored[*i].buffer) {
            let kept = lw.cx.g.node(self.v).types[i].axes;
            let mut s = Stream::new(&lw.cx, None);
            let mut map = s.identity(axes);
            let mut over: Vec<KAxis> = axes.minus(kept).iter().map(|a| s.axis(a)).collect();
            if i == 2 || i == 3 {
                let group = s.k.add_axis("group", self.cut.groups);
                map.set(GROUP, Index::axis(group));
                over.push(group);
            }
            if i == 1 && self.sections > 1 {
                let section = s.k.add_axis("section", self.sections);
                map.set(SECTION, Index::axis(section));
                over.push(section);
            }
            let x = s.load(part, &map, None);
            let sum = over.iter().rev().fold(x, |x, a| s.push(KOp::Reduce(Fold::Sum, *a), &[x], DType::F32));
            s.store(&stored[i], &map, sum);
            let lowered = s.finish();
            lw.launch(format!("scan_grad_total_{}", lw.cx.g.elements(kept)), Kind::Reduce, lowered);
        }
    }
}
