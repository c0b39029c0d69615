//! The row kernels of an attention: a tile of scores in scratch memory becomes weights, or the slopes of scores.
//!
//! Where the positions of a tile's first and last row say which keys it scores, the kernel reads them from memory: so one
//! kernel serves all tiles, and what it leaves alone are columns that no product reads.
use super::Lowering;
use super::attention_tiles::{ALIGN, Positions, Roles, Tile};
use super::index::{Index, Map};
use super::storage::Storage;
use super::stream::Stream;
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::kernel::{Fold, KAxis, KOp, KValue, Kernel, Mode, View};
use lolm_ir::op::{Binary, Mask, Unary};
use lolm_ir::plan::{Access, BufferId, KernelStage, Span, Stage};
use lolm_ir::{DType, ValueId};

/// Stands for the position in a tile of scores, which is no axis of the graph.
const TILE_ROW: AxisId = AxisId(u8::MAX);

/// A row kernel that is yet to be put at a tile.
pub(super) struct RowKernel {
    kernel: Kernel,
    operands: Vec<Access>,
    /// Operands that are the position of a tile's first or last row.
    ends: Vec<(usize, End)>,
    /// Rows of a unit.
    rows: u32,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum End {
    First,
    Last,
}

/// The same among the kernels of the artifact.
pub(super) struct RowStage {
    kernel: u32,
    of: RowKernel,
}

impl Lowering<'_> {
    pub(super) fn row_stage(&mut self, mut of: RowKernel) -> RowStage {
        RowStage { kernel: self.pool.add(std::mem::take(&mut of.kernel)), of }
    }
}

impl RowStage {
    pub(super) fn at(&self, lw: &Lowering, r: &Roles, t: &Tile) -> Stage {
        let mut operands = self.of.operands.clone();
        if let Some((first, last)) = r.ends(lw, t) {
            for (i, end) in &self.of.ends {
                operands[*i] = if *end == End::First { first.clone() } else { last.clone() };
            }
        }
        let span = Span::Rows { len: self.of.rows, lo: t.lo as u32, hi: t.hi as u32 };
        Stage::Kernel(KernelStage { kernel: self.kernel, operands, span })
    }
}

impl Lowering<'_> {
    /// Scores in scratch become weights, in place, without their denominator: its inverse goes to scratch, its log to
    /// memory.
    pub(super) fn softmax(
        &self,
        r: &Roles,
        v: ValueId,
        scores: BufferId,
        inverse: BufferId,
        lse: &Storage,
    ) -> RowKernel {
        let mut row = Scores::new(self, r, v);
        let (tile, map) = (row.tile(scores), row.rows.map.clone());
        let s = &mut row.rows.s;
        let scale = s.float(r.att.scale());
        let x = s.load(&tile.0, &tile.1, None);
        let x = s.binary(Binary::Mul, x, scale);
        let hidden = s.float(f32::NEG_INFINITY);
        let seen = row.visible(x, hidden);
        let s = &mut row.rows.s;
        let max = s.push(KOp::Reduce(Fold::Max, row.keys), &[seen], DType::F32);
        let shifted = s.binary(Binary::Sub, x, max);
        let e = s.unary(Unary::Exp, shifted);
        let zero = s.float(0.0);
        let e = row.visible(e, zero);
        let s = &mut row.rows.s;
        let sum = s.push(KOp::Reduce(Fold::Sum, row.keys), &[e], DType::F32);
        let log = s.unary(Unary::Log, sum);
        let log = s.binary(Binary::Add, max, log);
        s.store(lse, &map, log);
        // A row that sees no key gives 0.
        let one = s.float(1.0);
        let inv = s.binary(Binary::Div, one, sum);
        let some = s.binary(Binary::Lt, zero, sum);
        let inv = s.select(some, inv, zero);
        let (to, at) = row.rows.column(inverse);
        row.rows.s.store(&to, &at, inv);
        let p = row.dropped(e);
        row.store(&tile, p);
        row.rows.finish(&format!("softmax_{}", r.most_keys), &[(scores, r.pitch()), (inverse, 1)])
    }

    /// Rows of the result times the inverse of their denominators.
    pub(super) fn normalise(&self, r: &Roles, inverse: BufferId, o: &Storage) -> RowKernel {
        let mut row = Rows::new(self, r);
        let (from, at) = row.column(inverse);
        let mut map = row.map.clone();
        for a in &r.wide {
            let k = row.s.axis(*a);
            map.set(*a, Index::axis(k));
        }
        let s = &mut row.s;
        let (x, inv) = (s.load(o, &map, None), s.load(&from, &at, None));
        let y = s.binary(Binary::Mul, x, inv);
        s.store(o, &map, y);
        row.finish("normalise", &[(inverse, 1)])
    }

    /// Scores and dO·Vᵀ in scratch become the (dropped) weights and the gradient of the scores.
    pub(super) fn softmax_grad(&self, r: &Roles, v: ValueId, p: BufferId, ds: BufferId) -> RowKernel {
        let n = self.cx.g.node(v);
        let first = 3 + r.att.extra_args();
        let (o, lse, d_o) = (n.args[first], n.args[first + 1], n.args[first + 2]);
        let mut row = Scores::new(self, r, v);
        let (pm, dsm) = (row.tile(p), row.tile(ds));
        let s = &mut row.rows.s;
        let mut map = row.rows.map.clone();
        let mut axes = vec![];
        for a in &r.wide {
            let k = s.axis(*a);
            map.set(*a, Index::axis(k));
            axes.push(k);
        }
        let (x, y) = (s.value(o, &map, None), s.value(d_o, &map, None));
        let delta = match axes.split_last() {
            Some((last, rest)) if s.k.value(x).axes.has(*last) && s.k.value(y).axes.has(*last) => {
                let d = s.push(KOp::Dot(*last), &[x, y], DType::F32);
                rest.iter().rev().fold(d, |d, a| s.reduce_one(Fold::Sum, *a, d, DType::F32))
            }
            Some(_) => {
                let d = s.binary(Binary::Mul, x, y);
                axes.iter().rev().fold(d, |d, a| s.reduce_one(Fold::Sum, *a, d, DType::F32))
            }
            None => s.binary(Binary::Mul, x, y),
        };
        let l = s.value(lse, &row.rows.map, None);
        let scale = s.float(r.att.scale());
        let x = s.load(&pm.0, &pm.1, None);
        let x = s.binary(Binary::Mul, x, scale);
        let x = s.binary(Binary::Sub, x, l);
        let e = s.unary(Unary::Exp, x);
        let zero = s.float(0.0);
        let e = row.visible(e, zero);
        let kept = row.dropped(e);
        let dp = row.rows.s.load(&dsm.0, &dsm.1, None);
        let dp = row.dropped(dp);
        let s = &mut row.rows.s;
        let diff = s.binary(Binary::Sub, dp, delta);
        let d = s.binary(Binary::Mul, e, diff);
        let d = s.binary(Binary::Mul, d, scale);
        // A key that the row does not see may have any score.
        let d = row.visible(d, zero);
        row.store(&pm, kept);
        row.store(&dsm, d);
        row.rows.finish(&format!("softmax_grad_{}", r.most_keys), &[(p, r.pitch()), (ds, r.pitch())])
    }
}

/// A window as an i32; one that no i32 can hold hides nothing that positions could tell.
fn window(w: usize) -> i64 {
    w.min(i32::MAX as usize) as i64
}

/// Whether a key stands at most so far before the position.
fn in_window(s: &mut Stream, (key, pos): (KValue, KValue), w: usize) -> KValue {
    let w = s.int(window(w));
    let before = s.binary(Binary::Sub, pos, w);
    let (past, near) = (s.binary(Binary::Le, key, pos), s.binary(Binary::Lt, before, key));
    s.binary(Binary::And, past, near)
}

/// Whether a slot of a ring is younger than the window, and filled. The remainder is taken once a row.
fn in_ring(s: &mut Stream, (slot, pos): (KValue, KValue), slots: usize, w: usize) -> KValue {
    let (zero, len, w) = (s.int(0), s.int(slots as i64), s.int(window(w)));
    let newest = s.binary(Binary::Rem, pos, len);
    let since = s.binary(Binary::Sub, newest, slot);
    let round = s.binary(Binary::Add, since, len);
    let this_round = s.binary(Binary::Le, zero, since);
    let age = s.select(this_round, since, round);
    let (near, past) = (s.binary(Binary::Lt, age, w), s.binary(Binary::Le, age, pos));
    s.binary(Binary::And, near, past)
}

/// A kernel over the rows of a unit.
struct Rows<'a> {
    s: Stream<'a>,
    map: Map,
    /// The rows that each unit of the launch has.
    count: usize,
    units: Vec<(KAxis, i64)>,
    /// Operands that are the position of a tile's first or last row.
    ends: Vec<(usize, End)>,
}

impl<'a> Rows<'a> {
    fn new(lw: &'a Lowering<'_>, r: &Roles) -> Self {
        let mut s = Stream::new(&lw.cx, None);
        let numbered: Vec<AxisId> = r.batch.iter().chain(&r.walk).chain(&r.rows).copied().collect();
        let map = s.identity(AxisSet::of(&numbered));
        let mut stride = 1;
        let mut units = vec![];
        for a in numbered.iter().rev() {
            units.push((s.axis(*a), stride));
            stride *= lw.cx.g.len(*a) as i64;
        }
        units.reverse();
        s.k.units = units.iter().map(|u| (u.0, 1)).collect();
        Rows { s, map, count: r.row_count, units, ends: vec![] }
    }

    /// The position of one end of the tile, an operand of its own.
    fn end(&mut self, end: End, positions: BufferId) -> KValue {
        let name = if end == End::First { "first" } else { "last" };
        let o = self.s.k.add_operand(name, DType::I32, 1, Mode::In);
        self.s.buffers.push(positions);
        self.ends.push((o.0 as usize, end));
        self.s.push(KOp::Load(o, View::default()), &[], DType::I32)
    }
    /// The place of this row among all rows, times so many elements a row.
    fn place(&self, each: usize) -> Index {
        let mut at = Index::default();
        for (a, stride) in &self.units {
            at.add_scaled(&Index::axis(*a), stride * each as i64);
        }
        at
    }
    /// A column in scratch, one element a row.
    fn column(&self, buffer: BufferId) -> (Storage, Map) {
        in_scratch(buffer, self.place(1))
    }
    /// The kernel; `tiles` are its operands in scratch, with the elements they hold for each row.
    fn finish(self, name: &str, tiles: &[(BufferId, usize)]) -> RowKernel {
        let rows: u64 = self.units.iter().map(|u| self.s.k.axis(u.0).len as u64).product();
        let mut l = self.s.finish();
        let each = |b: &BufferId| tiles.iter().find(|t| t.0 == *b).map(|t| t.1);
        for (o, b) in l.kernel.operands.iter_mut().zip(&l.buffers) {
            if let Some(n) = each(b) {
                o.len = rows * n as u64;
            }
        }
        l.kernel.name = name.into();
        let whole = |b: &BufferId| Access { rebase: each(b).unwrap_or(0) as i64, ..Access::whole(*b) };
        let operands = l.buffers.iter().map(whole).collect();
        RowKernel { kernel: l.kernel, operands, ends: self.ends, rows: self.count as u32 }
    }
}

/// What is addressed by one index, in scratch.
fn in_scratch(buffer: BufferId, at: Index) -> (Storage, Map) {
    (Storage { buffer, strides: vec![(TILE_ROW, 1)], base: 0 }, Map::default().with(TILE_ROW, at))
}

/// A kernel over rows of scores.
struct Scores<'a> {
    rows: Rows<'a>,
    /// The keys of the tile.
    keys: KAxis,
    pitch: usize,
    /// Whether the tile scores the key, if it does not score all.
    scored: Option<KValue>,
    /// Whether the row sees the key.
    mask: Option<KValue>,
    /// The tile's first key, if it is not the first of all.
    first: Option<KValue>,
    keep: Option<KValue>,
}

impl<'a> Scores<'a> {
    fn new(lw: &'a Lowering<'_>, r: &Roles, v: ValueId) -> Self {
        let g = lw.cx.g;
        let mut rows = Rows::new(lw, r);
        let keys = rows.s.k.add_axis(g.axis(r.att.keys).name.clone(), r.most_keys);
        let mut row = Scores { rows, keys, pitch: r.pitch(), scored: None, mask: None, first: None, keep: None };
        if r.att.has_qpos() {
            row.see(lw, r, v);
        }
        row.keep = r.att.dropout.is_some().then(|| row.draw(lw, r, v));
        row
    }

    /// Which keys the tile scores, and which of them the row sees.
    fn see(&mut self, lw: &Lowering, r: &Roles, v: ValueId) {
        let keys = self.keys;
        let map = self.rows.map.clone();
        let mut pos = self.rows.s.value(lw.cx.g.node(v).args[3], &map, None);
        let end = r.positions.buffer().map(|positions| {
            let last = self.rows.end(End::Last, positions);
            let s = &mut self.rows.s;
            let one = s.int(1);
            let end = s.binary(Binary::Add, last, one);
            let (Positions::Counted(time, _), Mask::Window(w)) = (&r.positions, r.att.mask) else { return end };
            let first = self.rows.end(End::First, positions);
            let s = &mut self.rows.s;
            let all = s.int(r.keys as i64);
            let end = if lw.cx.g.len(*time) > r.keys { s.binary(Binary::Min, end, all) } else { end };
            let (w, zero, align) = (s.int(window(w)), s.int(0), s.int(ALIGN as i64));
            let from = s.binary(Binary::Add, first, one);
            let from = s.binary(Binary::Sub, from, w);
            let from = s.binary(Binary::Max, from, zero);
            let over = s.binary(Binary::Rem, from, align);
            let from = s.binary(Binary::Sub, from, over);
            let from = s.binary(Binary::Min, from, end);
            pos = s.binary(Binary::Sub, pos, from);
            self.first = Some(from);
            s.binary(Binary::Sub, end, from)
        });
        let s = &mut self.rows.s;
        if let Some(end) = end {
            s.k.axes[keys.0 as usize].hi = Some(end);
        }
        let key = s.push(KOp::Index(keys), &[], DType::I32);
        self.scored = end.map(|end| s.binary(Binary::Lt, key, end));
        self.mask = Some(match r.att.mask {
            Mask::Full | Mask::Causal => s.binary(Binary::Le, key, pos),
            Mask::Window(w) => in_window(s, (key, pos), w),
            Mask::Ring(w) => in_ring(s, (key, pos), r.keys, w),
        });
    }

    /// What dropout multiplies the weights by.
    fn draw(&mut self, lw: &Lowering, r: &Roles, v: ValueId) -> KValue {
        let (g, n) = (lw.cx.g, lw.cx.g.node(v));
        let (rate, site) = r.att.dropout.map_or((0.0, 0), |d| (f32::from_bits(d.rate), d.site));
        let (seed, step) = (3 + r.att.has_qpos() as usize, 4 + r.att.has_qpos() as usize);
        let map = self.rows.map.clone();
        let s = &mut self.rows.s;
        let (seed, step) = (s.value(n.args[seed], &map, None), s.value(n.args[step], &map, None));
        let mut at = Index::default();
        let mut stride = 1;
        let weights = AxisSet::of(&[r.batch.as_slice(), &r.walk, &r.rows].concat()).with(r.att.keys);
        for a in weights.iter().rev() {
            let mut i = Index::axis(if a == r.att.keys { self.keys } else { s.axis(a) });
            i.dynamic.extend(self.first.filter(|_| a == r.att.keys).map(|first| (first, 1)));
            at.add_scaled(&i, stride);
            stride *= g.len(a) as i64;
        }
        let i = s.index_value(&at);
        let u = s.push(KOp::Random { site }, &[seed, step, i], DType::F32);
        let (least, factor, zero) = (s.float(rate), s.float(1.0 / (1.0 - rate)), s.float(0.0));
        let c = s.binary(Binary::Le, least, u);
        s.select(c, factor, zero)
    }

    /// The tile in scratch as this kernel addresses it: by the number of the row among all rows.
    fn tile(&self, buffer: BufferId) -> (Storage, Map) {
        let mut at = self.rows.place(self.pitch);
        at.add_scaled(&Index::axis(self.keys), 1);
        in_scratch(buffer, at)
    }
    fn store(&mut self, (to, map): &(Storage, Map), x: KValue) {
        self.rows.s.store_if(to, map, x, self.scored);
    }
    fn visible(&mut self, x: KValue, otherwise: KValue) -> KValue {
        match self.mask {
            Some(c) => self.rows.s.select(c, x, otherwise),
            None => x,
        }
    }
    fn dropped(&mut self, x: KValue) -> KValue {
        match self.keep {
            Some(f) => self.rows.s.binary(Binary::Mul, x, f),
            None => x,
        }
    }
}
