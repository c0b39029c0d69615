//! The row kernels of an attention: a tile of scores in scratch memory becomes weights, or the slopes of scores.
use super::attention::{Roles, Tile};
use super::index::{Index, Map};
use super::storage::Storage;
use super::stream::Stream;
use super::{Built, Lowering};
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::kernel::{Fold, KAxis, KOp, KValue};
use lolm_ir::op::{Binary, Mask, Unary};
use lolm_ir::plan::{Access, BufferId, Extent, Span};
use lolm_ir::{DType, ValueId};

/// Stands for the position in a tile of scores, which is no axis of the graph.
const TILE_ROW: AxisId = AxisId(u8::MAX);

impl Lowering<'_> {
    /// Scores in scratch become weights, in place, without their denominator: its inverse goes to scratch, its log to
    /// memory.
    pub(super) fn softmax(
        &self,
        r: &Roles,
        v: ValueId,
        t: &Tile,
        scores: BufferId,
        inverse: BufferId,
        lse: &Storage,
    ) -> Built {
        let mut row = RowKernel::new(self, r, v, t);
        let (tile, map) = (row.scores(scores), row.map.clone());
        let s = &mut row.s;
        let scale = s.float(r.att.scale());
        let x = s.load(&tile.0, &tile.1, None);
        let x = s.binary(Binary::Mul, x, scale);
        let hidden = s.float(f32::NEG_INFINITY);
        let seen = row.visible(x, hidden);
        let s = &mut row.s;
        let max = s.push(KOp::Reduce(Fold::Max, row.keys), &[seen], DType::F32);
        let shifted = s.binary(Binary::Sub, x, max);
        let e = s.unary(Unary::Exp, shifted);
        let zero = s.float(0.0);
        let e = row.visible(e, zero);
        let s = &mut row.s;
        let sum = s.push(KOp::Reduce(Fold::Sum, row.keys), &[e], DType::F32);
        let log = s.unary(Unary::Log, sum);
        let log = s.binary(Binary::Add, max, log);
        s.store(lse, &map, log);
        // A row that sees no key gives 0.
        let one = s.float(1.0);
        let inv = s.binary(Binary::Div, one, sum);
        let some = s.binary(Binary::Lt, zero, sum);
        let inv = s.select(some, inv, zero);
        let (to, at) = row.row_of(inverse);
        row.s.store(&to, &at, inv);
        let p = row.dropped(e);
        row.s.store(&tile.0, &tile.1, p);
        row.finish("softmax", &[(scores, t.keys), (inverse, 1)], t)
    }

    /// Rows of the result times the inverse of their denominators.
    pub(super) fn normalise(&self, r: &Roles, v: ValueId, t: &Tile, inverse: BufferId, o: &Storage) -> Built {
        let mut row = RowKernel::new(self, r, v, t);
        let (from, at) = row.row_of(inverse);
        let mut map = row.map.clone();
        for a in &r.wide {
            let k = row.s.axis(*a);
            map.set(*a, Index::axis(k));
        }
        let s = &mut row.s;
        let (x, inv) = (s.load(o, &map, None), s.load(&from, &at, None));
        let y = s.binary(Binary::Mul, x, inv);
        s.store(o, &map, y);
        row.finish("normalise", &[(inverse, 1)], t)
    }

    /// Scores and dO·Vᵀ in scratch become the (dropped) weights and the gradient of the scores.
    pub(super) fn softmax_grad(&self, r: &Roles, v: ValueId, t: &Tile, p: BufferId, ds: BufferId) -> Built {
        let n = self.cx.g.node(v);
        let first = 3 + r.att.extra_args();
        let (o, lse, d_o) = (n.args[first], n.args[first + 1], n.args[first + 2]);
        let wide = r.wide.clone();
        let mut row = RowKernel::new(self, r, v, t);
        let (pm, dsm) = (row.scores(p), row.scores(ds));
        let s = &mut row.s;
        let mut map = row.map.clone();
        let mut axes = vec![];
        for a in &wide {
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
        let l = s.value(lse, &row.map, None);
        let scale = s.float(r.att.scale());
        let x = s.load(&pm.0, &pm.1, None);
        let x = s.binary(Binary::Mul, x, scale);
        let x = s.binary(Binary::Sub, x, l);
        let e = s.unary(Unary::Exp, x);
        let zero = row.s.float(0.0);
        let e = row.visible(e, zero);
        let kept = row.dropped(e);
        let dp = row.s.load(&dsm.0, &dsm.1, None);
        let dp = row.dropped(dp);
        let s = &mut row.s;
        let diff = s.binary(Binary::Sub, dp, delta);
        let d = s.binary(Binary::Mul, e, diff);
        let d = s.binary(Binary::Mul, d, scale);
        // Columns that no row of the tile sees hold no scores.
        let d = row.visible(d, zero);
        row.s.store(&pm.0, &pm.1, kept);
        row.s.store(&dsm.0, &dsm.1, d);
        row.finish("softmax_grad", &[(p, t.keys), (ds, t.keys)], t)
    }
}

/// A kernel over rows of scores.
struct RowKernel<'a> {
    s: Stream<'a>,
    map: Map,
    /// The keys of the tile; reductions cover those that the row sees.
    keys: KAxis,
    key_count: usize,
    /// Whether the row sees the key.
    mask: Option<KValue>,
    keep: Option<KValue>,
    row_count: usize,
    units: Vec<(KAxis, i64)>,
}

impl<'a> RowKernel<'a> {
    fn new(lw: &'a Lowering<'_>, r: &Roles, v: ValueId, t: &Tile) -> Self {
        let g = lw.cx.g;
        let n = g.node(v);
        let mut s = Stream::new(&lw.cx, None);
        let numbered: Vec<AxisId> = r.batch.iter().chain(&r.walk).chain(&r.rows).copied().collect();
        let map = s.identity(AxisSet::of(&numbered));
        let mut stride = 1;
        let mut units = vec![];
        for a in numbered.iter().rev() {
            units.push((s.axis(*a), stride));
            stride *= g.len(*a) as i64;
        }
        units.reverse();
        s.k.units = units.iter().map(|u| (u.0, 1)).collect();
        let name = &g.axis(r.att.keys).name;
        let keys = s.k.add_axis(name.clone(), t.keys);
        let mut mask = None;
        // Where positions are data, most keys of the tile may be beyond them.
        let ranged = matches!(t.extent, Extent::Seen { .. });
        if r.att.has_qpos() {
            let pos = s.value(n.args[3], &map, None);
            let one = s.int(1);
            let hi = s.binary(Binary::Add, pos, one);
            if ranged {
                s.k.axes[keys.0 as usize].hi = Some(hi);
            }
            let key = s.push(KOp::Index(keys), &[], DType::I32);
            let mut c = s.binary(Binary::Le, key, pos);
            if let Mask::Window(w) = r.att.mask {
                let w = s.int(w as i64);
                let lo = s.binary(Binary::Sub, hi, w);
                if ranged {
                    s.k.axes[keys.0 as usize].lo = Some(lo);
                }
                let inside = s.binary(Binary::Le, lo, key);
                c = s.binary(Binary::And, c, inside);
            }
            mask = Some(c);
        }
        let keep = r.att.dropout.map(|d| {
            let first = 3 + r.att.has_qpos() as usize;
            let (seed, step) = (s.value(n.args[first], &map, None), s.value(n.args[first + 1], &map, None));
            let mut at = Index::default();
            let mut stride = 1;
            let weights = AxisSet::of(&numbered).with(r.att.keys);
            for a in weights.iter().rev() {
                let i = if a == r.att.keys { Index::axis(keys) } else { Index::axis(s.axis(a)) };
                at.add_scaled(&i, stride);
                stride *= g.len(a) as i64;
            }
            let i = s.index_value(&at);
            let u = s.push(KOp::Random { site: d.site }, &[seed, step, i], DType::F32);
            let rate = f32::from_bits(d.rate);
            let (least, factor, zero) = (s.float(rate), s.float(1.0 / (1.0 - rate)), s.float(0.0));
            let c = s.binary(Binary::Le, least, u);
            s.select(c, factor, zero)
        });
        RowKernel { s, map, keys, key_count: t.keys, mask, keep, row_count: r.row_count, units }
    }

    /// The tile in scratch as this kernel addresses it: by its number of the row among all rows.
    fn scores(&self, buffer: BufferId) -> (Storage, Map) {
        let mut at = Index::default();
        for (a, stride) in &self.units {
            at.add_scaled(&Index::axis(*a), stride * self.key_count as i64);
        }
        at.add_scaled(&Index::axis(self.keys), 1);
        (Storage { buffer, strides: vec![(TILE_ROW, 1)], base: 0 }, Map::default().with(TILE_ROW, at))
    }
    /// The place of this row in a column of one element a row.
    fn row_of(&self, buffer: BufferId) -> (Storage, Map) {
        let mut at = Index::default();
        for (a, stride) in &self.units {
            at.add_scaled(&Index::axis(*a), *stride);
        }
        (Storage { buffer, strides: vec![(TILE_ROW, 1)], base: 0 }, Map::default().with(TILE_ROW, at))
    }
    fn visible(&mut self, x: KValue, otherwise: KValue) -> KValue {
        match self.mask {
            Some(c) => self.s.select(c, x, otherwise),
            None => x,
        }
    }
    fn dropped(&mut self, x: KValue) -> KValue {
        match self.keep {
            Some(f) => self.s.binary(Binary::Mul, x, f),
            None => x,
        }
    }
    /// The kernel as a stage; `tiles` are its operands in scratch, with the elements they hold for each row.
    fn finish(self, name: &str, tiles: &[(BufferId, usize)], t: &Tile) -> Built {
        let rows: u64 = self.units.iter().map(|u| self.s.k.axis(u.0).len as u64).product();
        let (keys, len) = (self.key_count, self.row_count);
        let mut l = self.s.finish();
        let each = |b: &BufferId| tiles.iter().find(|t| t.0 == *b).map(|t| t.1);
        for (o, b) in l.kernel.operands.iter_mut().zip(&l.buffers) {
            if let Some(n) = each(b) {
                o.len = rows * n as u64;
            }
        }
        l.kernel.name = format!("{name}_{keys}");
        let rebase = |b: &BufferId| each(b).unwrap_or(0) as i64;
        let operands = l.buffers.iter().map(|b| Access { rebase: rebase(b), ..Access::whole(*b) }).collect();
        let span = Span::Rows { len: len as u32, lo: t.lo as u32, hi: t.hi as u32 };
        Built { kernel: l.kernel, operands, span }
    }
}
