//! The gradient of a selective scan for a GPU: one kernel that walks time forwards and then backwards.
//!
//! What a state keeps of the one before it must be known on the way back, and for all steps that is far more than memory
//! has. So the states are kept where each chunk of a few steps starts, and on the way back those within a chunk are
//! computed again: code generation keeps them in registers. The kernel says what is stored, a state every few steps among
//! it; that this is where the way back starts from is its schedule.
//!
//! Where channels and batch are few, time is cut in *sections* that are walked at once: each is walked from nothing first,
//! for its end alone, and what it makes of a state that it starts from follows from the sum of dt, since exp(dt·a) is
//! multiplied along it. So where each section starts is a scan over sections.
use super::Lowering;
use super::index::Index;
use super::scan::{GROUP, Inputs, Round, SECTION, ScanGrad};
use super::storage::Storage;
use super::stream::{Lowered, Stream};
use lolm_ir::DType;
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::kernel::{Fold, KAxis, KOp, KValue};
use lolm_ir::op::{Binary, Unary};
use lolm_ir::plan::Kind;

/// Steps of a chunk: twice the bytes of a state move for each, and the states of all its steps are in registers.
const CHUNK: usize = 8;
/// Steps that a section has at least.
const SECTION_STEPS: usize = 128;
/// States there are at most, and channels of a block of so many states: as many as its shared memory and registers have room
/// for, so that there are few partial sums over them.
pub(super) const MOST_STATES: usize = 128;
const CHANNELS: [(usize, usize); 4] = [(16, 128), (32, 64), (64, 16), (MOST_STATES, 8)];
/// Channels, over all of the batch, with which a GPU needs no sections.
const ENOUGH: usize = 1 << 14;
/// Stands for the number of a chunk in its section.
const NUMBER: AxisId = AxisId(u8::MAX - 2);

/// Sections of so many steps, where so many channels are walked side by side.
pub(super) fn sections(steps: usize, channels: usize) -> usize {
    let mut n = 1;
    while n * channels < ENOUGH && steps.is_multiple_of(2 * n) && steps / (2 * n) >= SECTION_STEPS {
        n *= 2;
    }
    n
}

/// Channels that a block takes of so many: as many as fit, whole warps of them if possible.
pub(super) fn channels_of_block(channels: usize, states: usize) -> usize {
    let most = CHANNELS.iter().find(|c| states <= c.0).map_or(1, |c| c.1);
    let fits = |n: &usize| channels.is_multiple_of(*n);
    (1..=most).rev().filter(fits).find(|n| n % 32 == 0).or_else(|| (1..=most).rev().find(fits)).unwrap_or(1)
}

/// Memory between the launches.
struct Kept {
    /// States where each section starts, and decay · G of the step after it, if there are several.
    ends: Option<[Storage; 2]>,
    /// Steps of a section.
    steps: usize,
}

impl ScanGrad {
    /// Launches for the whole of time.
    pub fn walks(&self, lw: &mut Lowering) {
        let kept = self.kept(lw);
        if let Some([first, later]) = &kept.ends {
            self.sections(lw, &kept, [first, later]);
        }
        let starts = self.starts(lw, &kept);
        let lowered = self.both_ways(lw, &kept, &starts);
        lw.launch(self.name(lw.cx.g), Kind::Scan, lowered);
    }

    fn kept(&self, lw: &mut Lowering) -> Kept {
        let inner = [self.state, self.channel];
        let mut of = |name: &str| lw.by_section(name, &self.rows, self.sections, &inner);
        let ends = (self.sections > 1).then(|| [of("section_starts"), of("later")]);
        Kept { ends, steps: lw.cx.g.len(self.time) / self.sections }
    }

    /// Memory of the state before the first step of each chunk.
    fn starts(&self, lw: &mut Lowering, kept: &Kept) -> Storage {
        let g = lw.cx.g;
        let inner = [self.state, self.channel];
        let each = g.elements(AxisSet::of(&inner));
        let chunks = kept.steps.div_ceil(CHUNK);
        let rows: usize = self.rows.iter().map(|a| g.len(*a)).product();
        let b = lw.temporary("starts", rows * self.sections * chunks * each);
        let mut s = Storage::row_major(g, b, inner.into_iter());
        s.strides.push((NUMBER, each as i64));
        s.strides.push((SECTION, (chunks * each) as i64));
        let mut stride = (chunks * each * self.sections) as i64;
        for a in self.rows.iter().rev() {
            s.strides.push((*a, stride));
            stride *= g.len(*a) as i64;
        }
        s
    }

    /// A kernel over the steps of every section, with a unit for each tile of channels.
    fn open_tiles<'a>(&self, lw: &'a Lowering<'_>, kept: &Kept) -> Round<'a> {
        let cut = self.cut;
        let mut s = Stream::new(&lw.cx, None);
        let mut map = s.identity(AxisSet::of(&self.rows));
        let mut units: Vec<KAxis> = self.rows.iter().map(|a| s.axis(*a)).collect();
        let section = (self.sections > 1).then(|| s.k.add_axis("section", self.sections));
        let group = s.k.add_axis("group", cut.groups);
        units.extend(section.into_iter().chain([group]));
        s.k.units = units.into_iter().map(|a| (a, 1)).collect();
        let time = s.k.add_axis("step", kept.steps);
        let state = s.axis(self.state);
        let tile = s.k.add_axis("tile", cut.tile);
        let at = self.step_of(section, time, kept);
        map.set(self.time, at);
        map.set(self.state, Index::axis(state));
        let width = cut.tile as i64;
        map.set(self.channel, Index { terms: vec![(group, width), (tile, 1)], ..Index::default() });
        let mut parts = map.with(GROUP, Index::axis(group));
        if let Some(section) = section {
            parts.set(SECTION, Index::axis(section));
        }
        Round { s, map, parts, tile, time, state }
    }

    /// The place in all of time of a step of a section, if there are several.
    fn step_of(&self, section: Option<KAxis>, step: KAxis, kept: &Kept) -> Index {
        let mut at = Index::axis(step);
        if let Some(section) = section {
            at.terms.insert(0, (section, kept.steps as i64));
        }
        at
    }

    /// A kernel over the steps of every section, and all channels.
    fn open_sections<'a>(&self, lw: &'a Lowering<'_>, kept: &Kept) -> Round<'a> {
        let mut s = Stream::new(&lw.cx, None);
        let mut map = s.identity(AxisSet::of(&self.rows));
        let section = s.k.add_axis("section", self.sections);
        let time = s.k.add_axis("step", kept.steps);
        let (state, tile) = (s.axis(self.state), s.axis(self.channel));
        map.set(self.time, self.step_of(Some(section), time, kept));
        map.set(self.state, Index::axis(state));
        map.set(self.channel, Index::axis(tile));
        let parts = map.with(SECTION, Index::axis(section));
        Round { s, map, parts, tile, time, state }
    }

    /// Where each section starts, and what comes to it from later ones.
    fn sections(&self, lw: &mut Lowering, kept: &Kept, [first, later]: [&Storage; 2]) {
        let name = self.name(lw.cx.g);
        let spans = lw.by_section("section_dt", &self.rows, self.sections, &[self.channel]);
        let ends = lw.by_section("section_ends", &self.rows, self.sections, &[self.state, self.channel]);
        let sums = self.section_spans(lw, kept, &spans);
        lw.launch(format!("{name}_section_dt"), Kind::Reduce, sums);
        let alone = self.section_ends(lw, kept, &ends);
        lw.launch(format!("{name}_section_ends"), Kind::Scan, alone);
        let forward = self.join(lw, [&ends, first], &spans, false);
        lw.launch(format!("{name}_section_starts"), Kind::Scan, forward);
        let alone = self.section_gradients(lw, kept, &ends);
        lw.launch(format!("{name}_section_gradients"), Kind::Scan, alone);
        let back = self.join(lw, [&ends, later], &spans, true);
        lw.launch(format!("{name}_section_later"), Kind::Scan, back);
    }

    /// The sum of dt in each section.
    fn section_spans(&self, lw: &Lowering, kept: &Kept, spans: &Storage) -> Lowered {
        let mut r = self.open_sections(lw, kept);
        let dt = r.s.value(lw.cx.g.node(self.v).args[0], &r.map, None);
        let sum = r.s.reduce_one(Fold::Sum, r.time, dt, DType::F32);
        r.s.store(spans, &r.parts, sum);
        r.s.finish()
    }

    /// The state at the end of each section that starts from nothing.
    fn section_ends(&self, lw: &Lowering, kept: &Kept, ends: &Storage) -> Lowered {
        let mut r = self.open_sections(lw, kept);
        let x = Inputs::new(&mut r.s, &lw.cx.g.node(self.v).args, &r.map);
        let zero = r.s.float(0.0);
        let h = x.states(&mut r.s, r.time, zero);
        let last = r.s.push(KOp::Last(r.time), &[h], DType::F32);
        r.s.store(ends, &r.parts, last);
        r.s.finish()
    }

    /// decay · G of the first step of each section, with nothing from later ones.
    fn section_gradients(&self, lw: &Lowering, kept: &Kept, ends: &Storage) -> Lowered {
        let mut r = self.open_sections(lw, kept);
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

    /// All states, forwards, kept at the start of each chunk; then the gradients, backwards.
    fn both_ways(&self, lw: &Lowering, kept: &Kept, starts: &Storage) -> Lowered {
        let mut r = self.open_tiles(lw, kept);
        let args = &lw.cx.g.node(self.v).args;
        let ends = kept.ends.as_ref().map(|ends| ends.each_ref().map(|e| r.s.load(e, &r.parts, None)));
        let nothing = r.s.float(0.0);
        let [first, later] = ends.unwrap_or([nothing; 2]);
        let x = Inputs::new(&mut r.s, args, &r.map);
        let h = x.states(&mut r.s, r.time, first);
        let before = r.s.push(KOp::Prev(r.time), &[h], DType::F32);
        self.keep_starts(&mut r, before, starts);
        let dy = r.s.value(args[5], &r.map, None);
        let d_c = r.s.push(KOp::Dot(r.tile), &[h, dy], DType::F32);
        r.s.store(&self.c_part, &r.parts, d_c);
        let carried = r.s.binary(Binary::Mul, before, x.decay);
        self.gradients(&mut r, args, [x.decay, carried, later], false);
        r.s.finish()
    }

    /// Stores the state before each step that is the first of a chunk.
    fn keep_starts(&self, r: &mut Round, before: KValue, starts: &Storage) {
        let s = &mut r.s;
        let step = s.push(KOp::Index(r.time), &[], DType::I32);
        let (len, zero) = (s.int(CHUNK as i64), s.int(0));
        let number = s.binary(Binary::Div, step, len);
        let within = s.binary(Binary::Rem, step, len);
        let begins = s.binary(Binary::Eq, within, zero);
        let at = r.parts.with(NUMBER, Index::value(number));
        s.store_if(starts, &at, before, Some(begins));
    }
}
