//! Attention and its gradient: one launch each, a unit a batch index and head, in which tiles of queries are scored by a
//! matrix product into scratch memory, normalised by a row kernel, and multiplied with the values.
//!
//! Dao et al. 2022 without the tiling of keys: a row of scores fits the cache. Gradients of keys and values add up over
//! the tiles of queries in a fixed order, inside one unit, so there are no atomics.
use super::index::{Index, Map};
use super::storage::{Storage, merged};
use super::stream::Stream;
use super::{Built, Lowering};
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::kernel::{Fold, KAxis, KOp, KValue};
use lolm_ir::op::{Attention, Binary, Mask, Op, Unary};
use lolm_ir::plan::{Access, BufferId, Extent, Gemm, Kind, Launch, Matrix, Span, Stage, Step};
use lolm_ir::{DType, ValueId};

/// Queries scored at once.
const TILE: usize = 128;
/// Stands for the position in a tile of scores, which is no axis of the graph.
const TILE_ROW: AxisId = AxisId(u8::MAX);

/// The axes of an attention by role, with the strides that its matrix products need.
struct Roles {
    att: Attention,
    /// Axes that number separate attentions.
    batch: Vec<AxisId>,
    /// Query rows, outermost first, as one dimension.
    rows: Vec<AxisId>,
    row_count: usize,
    keys: usize,
    /// Contracted axes of query and key, and the value's own axes.
    over: Vec<AxisId>,
    wide: Vec<AxisId>,
}

/// A tile of rows and the keys it may see.
#[derive(Clone)]
struct Tile {
    lo: usize,
    hi: usize,
    /// Keys in the tile's kernels: all that any of its rows sees, as far as that is known before the run.
    keys: usize,
    extent: Extent,
}

impl Lowering<'_> {
    pub(super) fn attention(&mut self, v: ValueId) -> Result<(), String> {
        let n = self.cx.g.node(v);
        let Op::Attention(att) = n.op else { return Err("bug: not an attention".into()) };
        let [q, k, w] = [0, 1, 2].map(|i| self.operand(n.args[i]));
        let (q, k, w) = (q?, k?, w?);
        let o = self.cx.storage[v.0 as usize][0].clone().ok_or("bug: attention without storage")?;
        let lse = self.cx.storage[v.0 as usize][1].clone().ok_or("bug: attention without storage")?;
        let r = self.roles(att, v)?;
        let tiles = self.tiles(&r, n.args.get(3).copied());
        let scores = self.scratch("scores", r.tile_rows() * r.keys);
        let inverse = self.scratch("inverse", r.tile_rows());
        let mut stages = vec![];
        for t in &tiles {
            let (rows, s) = (t.hi - t.lo, tile_matrix(scores, t.keys));
            stages.push(product(
                [rows, 0, r.len(&self.cx, &r.over)],
                Some((1, &t.extent)),
                r.query(self, &q, t.lo)?,
                r.key(self, &k, true)?,
                s.clone(),
                false,
            ));
            let weights = self.softmax(&r, v, t, scores, inverse, &lse);
            stages.push(self.add_stage(weights));
            let (out, values) = (r.row_matrix(self, &o, t.lo, &r.wide)?, r.value(self, &w, false)?);
            stages.push(product([rows, r.len(&self.cx, &r.wide), 0], Some((2, &t.extent)), s, values, out, false));
            let rows = self.normalise(&r, v, t, inverse, &o);
            stages.push(self.add_stage(rows));
        }
        let pairs: usize = tiles.iter().map(|t| (t.hi - t.lo) * t.keys).sum();
        self.push_attention("attention", &r, stages, pairs * 2);
        Ok(())
    }

    pub(super) fn attention_grad(&mut self, v: ValueId) -> Result<(), String> {
        let n = self.cx.g.node(v);
        let Op::AttentionGrad(att) = n.op else { return Err("bug: not an attention gradient".into()) };
        let [q, k, w] = [0, 1, 2].map(|i| self.operand(n.args[i]));
        let (q, k, w) = (q?, k?, w?);
        let d_o = self.operand(n.args[5 + att.extra_args()])?;
        let grads: Vec<Storage> = self.cx.storage[v.0 as usize].iter().flatten().cloned().collect();
        let [dq, dk, dv] = grads.as_slice() else { return Err("bug: attention gradient without storage".into()) };
        let r = self.roles(att, v)?;
        let mut tiles = self.tiles(&r, n.args.get(3).copied().filter(|_| att.has_qpos()));
        // The tile that sees every key comes first and sets the gradients of keys and values; the others add.
        tiles.reverse();
        if tiles.first().is_none_or(|t| t.keys != r.keys) {
            return Err("limit: the last queries of a differentiated attention must see every key".into());
        }
        let (p, ds) = (self.scratch("p", r.tile_rows() * r.keys), self.scratch("ds", r.tile_rows() * r.keys));
        let (head, wide) = (r.len(&self.cx, &r.over), r.len(&self.cx, &r.wide));
        let mut stages = vec![];
        for (i, t) in tiles.iter().enumerate() {
            let (rows, keys, add) = (t.hi - t.lo, t.keys, i > 0);
            let (pm, dsm) = (tile_matrix(p, keys), tile_matrix(ds, keys));
            let (qm, dom) = (r.query(self, &q, t.lo)?, r.row_matrix(self, &d_o, t.lo, &r.wide)?);
            stages.push(product([rows, keys, head], None, qm.clone(), r.key(self, &k, true)?, pm.clone(), false));
            stages.push(product([rows, keys, wide], None, dom.clone(), r.value(self, &w, true)?, dsm.clone(), false));
            let slopes = self.softmax_grad(&r, v, t, p, ds);
            stages.push(self.add_stage(slopes));
            let dqm = r.row_matrix(self, dq, t.lo, &r.over)?;
            stages.push(product([rows, head, keys], None, dsm.clone(), r.key(self, &k, false)?, dqm, false));
            stages.push(product([keys, head, rows], None, turned(dsm), qm, r.key(self, dk, false)?, add));
            stages.push(product([keys, wide, rows], None, turned(pm), dom, r.value(self, dv, false)?, add));
        }
        let pairs: usize = tiles.iter().map(|t| (t.hi - t.lo) * t.keys).sum();
        self.push_attention("attention_grad", &r, stages, pairs * 5);
        Ok(())
    }

    fn operand(&self, v: ValueId) -> Result<Storage, String> {
        self.cx.view(v).ok_or(format!("bug: operand %{} of an attention is not in memory", v.0))
    }

    /// Which axis does what. Rows are the query's own axes; an axis of rows that does not merge with the others in
    /// memory numbers separate attentions, which a gradient cannot have (its keys would be shared).
    fn roles(&self, att: Attention, v: ValueId) -> Result<Roles, String> {
        let g = self.cx.g;
        let n = g.node(v);
        let (q, k, w) = (g.axes_of(n.args[0]), g.axes_of(n.args[1]), g.axes_of(n.args[2]));
        let all = q.union(k).minus(att.over).without(att.keys);
        let own = all.minus(k.union(w));
        let q_view = self.operand(n.args[0])?;
        let by_stride = |axes: AxisSet, s: &Storage| {
            let mut v: Vec<AxisId> = axes.iter().collect();
            v.sort_by_key(|a| std::cmp::Reverse(s.stride(*a)));
            v
        };
        let rows = by_stride(own, &q_view);
        if merged(g, &rows, |a| q_view.stride(a)).is_none() {
            return Err("limit: an attention whose query rows are not one dimension of memory".into());
        }
        Ok(Roles {
            att,
            batch: all.minus(own).iter().collect(),
            row_count: rows.iter().map(|a| g.len(*a)).product(),
            rows,
            keys: g.len(att.keys),
            over: by_stride(att.over, &q_view),
            wide: w.minus(k).minus(all).without(att.keys).iter().collect(),
        })
    }

    fn tiles(&self, r: &Roles, qpos: Option<ValueId>) -> Vec<Tile> {
        let g = self.cx.g;
        let causal = match (r.att.mask, qpos.map(|p| &g.node(p).op), r.rows.as_slice()) {
            (Mask::Causal | Mask::Window(_), Some(Op::Iota(a)), [t]) => a == t,
            _ => false,
        };
        let seen = qpos.filter(|_| r.att.has_qpos() && !causal).and_then(|p| self.cx.view(p));
        let tile = |lo: usize| {
            let hi = (lo + TILE).min(r.row_count);
            let keys = if causal { hi.min(r.keys) } else { r.keys };
            let extent = match &seen {
                Some(s) => Extent::Seen { len: r.keys as u32, position: r.last_position(self, s, hi - 1) },
                None => Extent::Fixed(keys as u32),
            };
            Tile { lo, hi, keys, extent }
        };
        (0..r.row_count).step_by(TILE).map(tile).collect()
    }

    fn push_attention(&mut self, name: &str, r: &Roles, stages: Vec<Stage>, products: usize) {
        let g = self.cx.g;
        // Without a batch axis there is one unit.
        let mut grid: Vec<u32> = r.batch.iter().map(|a| g.len(*a) as u32).collect();
        if grid.is_empty() {
            grid.push(1);
        }
        let units: usize = grid.iter().map(|x| *x as usize).product();
        let width = r.len(&self.cx, &r.over).max(r.len(&self.cx, &r.wide));
        let flops = (2 * units * products * width) as u64;
        let bytes = (units * 4 * width * (2 * r.row_count + 2 * r.keys)) as u64;
        let name = format!("{name}_{}x{}x{width}", r.row_count, r.keys);
        self.steps.push(Step::Launch(Launch { name, kind: Kind::Attention, grid, stages, flops, bytes }));
    }

    /// Scores in scratch become weights, in place, without their denominator: its inverse goes to scratch, its log to
    /// memory.
    fn softmax(&self, r: &Roles, v: ValueId, t: &Tile, scores: BufferId, inverse: BufferId, lse: &Storage) -> Built {
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
    fn normalise(&self, r: &Roles, v: ValueId, t: &Tile, inverse: BufferId, o: &Storage) -> Built {
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
    fn softmax_grad(&self, r: &Roles, v: ValueId, t: &Tile, p: BufferId, ds: BufferId) -> Built {
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
            Some((last, rest)) => {
                let d = s.push(KOp::Dot(*last), &[x, y], DType::F32);
                rest.iter().rev().fold(d, |d, a| s.push(KOp::Reduce(Fold::Sum, *a), &[d], DType::F32))
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

impl Roles {
    fn tile_rows(&self) -> usize {
        self.row_count.min(TILE)
    }
    fn len(&self, cx: &super::Cx, axes: &[AxisId]) -> usize {
        axes.iter().map(|a| cx.g.len(*a)).product()
    }
    fn unit(&self, s: &Storage) -> Vec<i64> {
        self.batch.iter().map(|a| s.stride(*a)).collect()
    }
    fn stride(&self, lw: &Lowering, s: &Storage, axes: &[AxisId]) -> Result<i64, String> {
        let g = lw.cx.g;
        let m = merged(g, axes, |a| s.stride(a));
        m.map(|m| m.1).ok_or("limit: axes of an attention that are not one dimension of memory".into())
    }
    /// Rows of the query side from `lo`, over `axes` as columns.
    fn row_matrix(&self, lw: &Lowering, s: &Storage, lo: usize, axes: &[AxisId]) -> Result<Matrix, String> {
        let (row, col) = (self.stride(lw, s, &self.rows)?, self.stride(lw, s, axes)?);
        Ok(Matrix { buffer: s.buffer, base: s.base + lo as i64 * row, unit: self.unit(s), iter: 0, row, col })
    }
    fn query(&self, lw: &Lowering, s: &Storage, lo: usize) -> Result<Matrix, String> {
        self.row_matrix(lw, s, lo, &self.over)
    }
    fn key_matrix(&self, lw: &Lowering, s: &Storage, axes: &[AxisId], turn: bool) -> Result<Matrix, String> {
        let (row, col) = (s.stride(self.att.keys), self.stride(lw, s, axes)?);
        let m = Matrix { buffer: s.buffer, base: s.base, unit: self.unit(s), iter: 0, row, col };
        Ok(if turn { turned(m) } else { m })
    }
    fn key(&self, lw: &Lowering, s: &Storage, turn: bool) -> Result<Matrix, String> {
        self.key_matrix(lw, s, &self.over, turn)
    }
    fn value(&self, lw: &Lowering, s: &Storage, turn: bool) -> Result<Matrix, String> {
        self.key_matrix(lw, s, &self.wide, turn)
    }
    /// Where the position of one row lies, for each unit.
    fn last_position(&self, lw: &Lowering, s: &Storage, row: usize) -> Access {
        let g = lw.cx.g;
        let mut rest = row;
        let mut base = s.base;
        for a in self.rows.iter().rev() {
            base += (rest % g.len(*a)) as i64 * s.stride(*a);
            rest /= g.len(*a);
        }
        Access { buffer: s.buffer, base, unit: self.unit(s), iter: 0, rebase: 0 }
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
        let numbered: Vec<AxisId> = r.batch.iter().chain(&r.rows).copied().collect();
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

/// A tile of scores in scratch: row-major, `keys` columns.
fn tile_matrix(buffer: BufferId, keys: usize) -> Matrix {
    Matrix { buffer, base: 0, unit: vec![], iter: 0, row: keys as i64, col: 1 }
}

fn turned(m: Matrix) -> Matrix {
    Matrix { row: m.col, col: m.row, ..m }
}

/// A product of these lengths (rows, columns, contracted), one of which may follow data.
fn product(
    len: [usize; 3],
    data: Option<(usize, &Extent)>,
    a: Matrix,
    b: Matrix,
    c: Matrix,
    accumulate: bool,
) -> Stage {
    let mut e = len.map(|l| Extent::Fixed(l as u32));
    if let Some((i, x)) = data {
        e[i] = x.clone();
    }
    let [m, n, k] = e;
    Stage::Gemm(Box::new(Gemm { m, n, k, a, b, c, alpha: 1.0, accumulate }))
}
