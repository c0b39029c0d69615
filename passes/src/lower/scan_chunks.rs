//! The gradient of a selective scan for a GPU, over chunks of time.
//!
//! What a state keeps of the one before it must be known on the way back, and for all steps that is far more than memory
//! has. So the states are walked once to keep where each chunk starts, and then chunks are taken from the last to the
//! first: the states of one are computed again from its start, and time walks back over them. The gradient that crosses
//! from a chunk to the one before it lies in memory in between.
//!
//! Each tile of channels is a warp's. Where channels and batch are few, time is cut in *sections* that are walked at once:
//! each is walked from nothing first, for its end alone, and what it makes of a state that it starts from follows from
//! the sum of dt, since exp(dt·a) is multiplied along it. So where each section starts is a scan over sections.
use super::Lowering;
use super::index::Index;
use super::scan::{GROUP, Inputs, Round, SECTION, ScanGrad};
use super::storage::Storage;
use super::stream::{Lowered, Stream};
use lolm_ir::DType;
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::kernel::{Fold, KAxis, KOp};
use lolm_ir::op::{Binary, Unary};
use lolm_ir::plan::{Access, Kind, Launch, Span, Stage, Step};

/// Steps of a chunk at most: the starts of chunks and the states of one chunk take about as much memory at a few thousand
/// steps.
const CHUNK: usize = 64;
/// Channels, over all of the batch, with which a GPU needs no sections.
const ENOUGH: usize = 1 << 15;
/// Stands for the number of a chunk in its section.
const NUMBER: AxisId = AxisId(u8::MAX - 2);

/// Sections of so many steps, where so many channels are walked side by side.
pub(super) fn sections(steps: usize, channels: usize) -> usize {
    let mut n = 1;
    while n * channels < ENOUGH && steps.is_multiple_of(2 * n) && steps / (2 * n) >= 2 * CHUNK {
        n *= 2;
    }
    n
}

/// Steps of a chunk of a section.
pub(super) fn chunk(steps: usize) -> usize {
    steps.min(CHUNK)
}

/// Memory between the launches.
struct Kept {
    /// States where each chunk starts, if there are several.
    starts: Option<Storage>,
    /// States where each section starts, if there are several.
    first: Option<Storage>,
    /// decay · G of the step after the chunk.
    later: Storage,
    /// Steps of a section, and chunks of it.
    steps: usize,
    chunks: usize,
}

/// Which chunk a launch takes: its steps, and whether it is the last one of time.
#[derive(Clone, Copy)]
struct Part {
    steps: usize,
    last: bool,
}

impl ScanGrad {
    /// Launches for the whole of time.
    pub fn chunks(&self, lw: &mut Lowering) -> Result<(), String> {
        let kept = self.kept(lw);
        if let Some(first) = &kept.first {
            self.sections(lw, &kept, first);
        }
        if let Some(starts) = &kept.starts {
            let lowered = self.walk_to_starts(lw, &kept, starts);
            lw.launch(format!("{}_starts", self.name(lw.cx.g)), Kind::Scan, lowered);
        }
        let rest = kept.steps - (kept.chunks - 1) * chunk(kept.steps);
        for l in self.part(lw, &kept, Part { steps: rest, last: true })? {
            lw.steps.push(Step::Launch(l));
        }
        if kept.chunks > 1 {
            let body = self.part(lw, &kept, Part { steps: chunk(kept.steps), last: false })?;
            lw.steps.push(Step::Repeat { times: kept.chunks as u32 - 1, body: body.into() });
        }
        Ok(())
    }

    fn kept(&self, lw: &mut Lowering) -> Kept {
        let g = lw.cx.g;
        let steps = g.len(self.time) / self.sections;
        let chunks = steps.div_ceil(chunk(steps));
        let inner = [self.state, self.channel];
        let starts = (chunks > 1).then(|| {
            let each = g.elements(AxisSet::of(&inner)) * chunks;
            let rows: usize = self.rows.iter().map(|a| g.len(*a)).product();
            let b = lw.temporary("starts", rows * self.sections * each);
            let mut s = Storage::row_major(g, b, inner.into_iter());
            s.strides.push((NUMBER, g.elements(AxisSet::of(&inner)) as i64));
            s.strides.push((SECTION, each as i64));
            let mut stride = (each * self.sections) as i64;
            for a in self.rows.iter().rev() {
                s.strides.push((*a, stride));
                stride *= g.len(*a) as i64;
            }
            s
        });
        let first = (self.sections > 1).then(|| lw.by_section("section_starts", &self.rows, self.sections, &inner));
        let later = lw.by_section("later", &self.rows, self.sections, &inner);
        Kept { starts, first, later, steps, chunks }
    }

    /// A kernel over so many steps of every section, with a warp for each tile of channels.
    fn open_steps<'a>(&self, lw: &'a Lowering<'_>, steps: usize) -> Round<'a> {
        let mut s = Stream::new(&lw.cx, None);
        let mut map = s.identity(AxisSet::of(&self.rows));
        let mut units: Vec<KAxis> = self.rows.iter().map(|a| s.axis(*a)).collect();
        let section = (self.sections > 1).then(|| s.k.add_axis("section", self.sections));
        let group = s.k.add_axis("group", self.cut.groups);
        units.extend(section.into_iter().chain([group]));
        s.k.units = units.into_iter().map(|a| (a, 1)).collect();
        let time = s.k.add_axis("step", steps);
        let state = s.axis(self.state);
        let tile = s.k.add_axis("tile", self.cut.tile);
        let mut at = Index::axis(time);
        if let Some(section) = section {
            let whole = (lw.cx.g.len(self.time) / self.sections) as i64;
            at.terms.insert(0, (section, whole));
        }
        map.set(self.time, at);
        map.set(self.state, Index::axis(state));
        let width = self.cut.tile as i64;
        map.set(self.channel, Index { terms: vec![(group, width), (tile, 1)], ..Index::default() });
        let mut parts = map.with(GROUP, Index::axis(group));
        if let Some(section) = section {
            parts.set(SECTION, Index::axis(section));
        }
        Round { s, map, parts, tile, time, state }
    }

    /// Where each section starts, and what comes to it from later ones.
    fn sections(&self, lw: &mut Lowering, kept: &Kept, first: &Storage) {
        let name = self.name(lw.cx.g);
        let spans = lw.by_section("section_dt", &self.rows, self.sections, &[self.channel]);
        let ends = lw.by_section("section_ends", &self.rows, self.sections, &[self.state, self.channel]);
        let alone = self.section_ends(lw, kept, &ends, &spans);
        lw.launch(format!("{name}_section_ends"), Kind::Scan, alone);
        let forward = self.join(lw, [&ends, first], &spans, false);
        lw.launch(format!("{name}_section_starts"), Kind::Scan, forward);
        let alone = self.section_gradients(lw, kept, &ends);
        lw.launch(format!("{name}_section_gradients"), Kind::Scan, alone);
        let back = self.join(lw, [&ends, &kept.later], &spans, true);
        lw.launch(format!("{name}_section_later"), Kind::Scan, back);
    }

    /// The state at the end of each section that starts from nothing, and the sum of its dt.
    fn section_ends(&self, lw: &Lowering, kept: &Kept, ends: &Storage, spans: &Storage) -> Lowered {
        let mut r = self.open_steps(lw, kept.steps);
        let args = &lw.cx.g.node(self.v).args;
        let x = Inputs::new(&mut r.s, args, &r.map);
        let zero = r.s.float(0.0);
        let h = x.states(&mut r.s, r.time, zero);
        let last = r.s.push(KOp::Last(r.time), &[h], DType::F32);
        r.s.store(ends, &r.parts, last);
        let sum = r.s.push(KOp::Reduce(Fold::Sum, r.time), &[x.dt], DType::F32);
        r.s.store(spans, &r.parts, sum);
        r.s.finish()
    }

    /// decay · G of the first step of each section, with nothing from later ones.
    fn section_gradients(&self, lw: &Lowering, kept: &Kept, ends: &Storage) -> Lowered {
        let mut r = self.open_steps(lw, kept.steps);
        let args = &lw.cx.g.node(self.v).args;
        let decay = self.decay(&mut r, args);
        let [c, dy] = [3, 5].map(|i| r.s.value(args[i], &r.map, None));
        let from_y = r.s.binary(Binary::Mul, dy, c);
        let decayed = r.s.binary(Binary::Mul, decay, from_y);
        let zero = r.s.float(0.0);
        let back = r.s.push(KOp::Scan { axis: r.time, reverse: true }, &[decay, decayed, zero], DType::F32);
        let last = r.s.push(KOp::Last(r.time), &[back], DType::F32);
        r.s.store(ends, &r.parts, last);
        r.s.finish()
    }

    /// A scan over sections: from what each gives alone to what comes to it.
    fn join(&self, lw: &Lowering, [ends, starts]: [&Storage; 2], spans: &Storage, reverse: bool) -> Lowered {
        let mut s = Stream::new(&lw.cx, None);
        let map = s.identity(AxisSet::of(&self.rows).with(self.state).with(self.channel));
        let section = s.k.add_axis("section", self.sections);
        let a = s.value(lw.cx.g.node(self.v).args[1], &map, None);
        let map = map.with(SECTION, Index::axis(section));
        let span = s.load(spans, &map, None);
        let x = s.binary(Binary::Mul, span, a);
        let decay = s.unary(Unary::Exp, x);
        let end = s.load(ends, &map, None);
        let zero = s.float(0.0);
        let scan = s.push(KOp::Scan { axis: section, reverse }, &[decay, end, zero], DType::F32);
        let start = s.push(KOp::Prev(section), &[scan], DType::F32);
        s.store(starts, &map, start);
        s.finish()
    }

    /// The state before the first step of each chunk.
    fn walk_to_starts(&self, lw: &Lowering, kept: &Kept, starts: &Storage) -> Lowered {
        let mut r = self.open_steps(lw, kept.steps);
        let args = &lw.cx.g.node(self.v).args;
        let s = &mut r.s;
        let x = Inputs::new(s, args, &r.map);
        let init = match &kept.first {
            Some(first) => s.load(first, &r.parts, None),
            None => s.float(0.0),
        };
        let h = x.states(s, r.time, init);
        let before = s.push(KOp::Prev(r.time), &[h], DType::F32);
        let step = s.push(KOp::Index(r.time), &[], DType::I32);
        let (len, zero) = (s.int(chunk(kept.steps) as i64), s.int(0));
        let number = s.binary(Binary::Div, step, len);
        let within = s.binary(Binary::Rem, step, len);
        let begins = s.binary(Binary::Eq, within, zero);
        let at = r.parts.with(NUMBER, Index::value(number));
        s.store_if(starts, &at, before, Some(begins));
        r.s.finish()
    }

    /// The two launches of a chunk: its states, and the way back. All but the last chunk are taken in turn.
    fn part(&self, lw: &mut Lowering, kept: &Kept, p: Part) -> Result<[Launch; 2], String> {
        let name = self.name(lw.cx.g);
        let states = self.chunk_states(lw, kept, p);
        let states = self.chunk_launch(lw, kept, p, format!("{name}_states"), states)?;
        let back = self.chunk_back(lw, kept, p);
        Ok([states, self.chunk_launch(lw, kept, p, name, back)?])
    }

    fn chunk_states(&self, lw: &Lowering, kept: &Kept, p: Part) -> Lowered {
        let mut r = self.open_steps(lw, p.steps);
        let init = match kept.starts.as_ref().or(kept.first.as_ref()) {
            Some(from) => r.s.load(from, &r.parts, None),
            None => r.s.float(0.0),
        };
        self.walk(lw, &mut r, init, false);
        r.s.finish()
    }

    fn chunk_back(&self, lw: &Lowering, kept: &Kept, p: Part) -> Lowered {
        let mut r = self.open_steps(lw, p.steps);
        let init = match p.last && self.sections == 1 {
            true => r.s.float(0.0),
            false => r.s.load(&kept.later, &r.parts, None),
        };
        let back = self.walk_back(lw, &mut r, init, false, !p.last);
        if kept.chunks > 1 {
            let last = r.s.push(KOp::Last(r.time), &[back.scan], DType::F32);
            r.s.store(&kept.later, &r.parts, last);
        }
        r.s.finish()
    }

    /// A kernel that numbers the steps of a chunk, as a launch: what lies along time starts at the chunk.
    fn chunk_launch(
        &self,
        lw: &mut Lowering,
        kept: &Kept,
        p: Part,
        name: String,
        l: Lowered,
    ) -> Result<Launch, String> {
        let number = kept.chunks as i64 - if p.last { 1 } else { 2 };
        let len = chunk(kept.steps) as i64;
        let time = l.kernel.axes.iter().position(|a| a.name == "step").map(|i| KAxis(i as u8));
        let time = time.ok_or("bug: a chunk without its steps")?;
        let mut moves = vec![];
        for (i, b) in l.buffers.iter().enumerate() {
            let of_starts = kept.starts.as_ref().filter(|s| s.buffer == *b);
            moves.push(match of_starts {
                Some(s) => s.stride(NUMBER),
                None if *b == self.carried => 0,
                None => len * stride_of(&l, i, time)?,
            });
        }
        let (flops, bytes) = super::cost::of(&l.kernel);
        let mut stage = lw.stage(&name, l, Span::Same);
        if let Stage::Kernel(k) = &mut stage {
            for (o, by) in k.operands.iter_mut().zip(moves) {
                *o = Access { base: number * by, iter: if p.last { 0 } else { -by }, ..o.clone() };
            }
        }
        Ok(Launch { name, kind: Kind::Scan, grid: vec![], stages: vec![stage], flops, bytes })
    }
}

/// How far apart neighbouring steps lie in an operand.
fn stride_of(l: &Lowered, operand: usize, time: KAxis) -> Result<i64, String> {
    let views = l.kernel.values.iter().filter_map(|v| v.access()).filter(|(id, _)| id.0 as usize == operand);
    let mut strides: Vec<i64> = views.map(|(_, view)| view.stride(time)).collect();
    strides.dedup();
    match strides.as_slice() {
        [one] => Ok(*one),
        _ => Err("limit: operands of a differentiated scan share a buffer in two layouts".into()),
    }
}
