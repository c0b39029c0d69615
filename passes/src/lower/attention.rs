//! Attention and its gradient: one launch each, a unit a batch index and head, in which tiles of queries are scored by a
//! matrix product into scratch memory, normalised by a row kernel, and multiplied with the values.
//!
//! Dao et al. 2022 without the tiling of keys: a row of scores fits the cache. Gradients of keys and values add up over
//! the tiles of queries in a fixed order, inside one unit, so there are no atomics: what several query heads share is
//! walked by the unit of the shared head.
use super::Lowering;
use super::storage::{Storage, merged};
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::op::{Attention, Binary, Mask, Op};
use lolm_ir::plan::{Access, BufferId, Extent, Gemm, Kind, Launch, Matrix, Stage, Step};
use lolm_ir::{Graph, ValueId};
use std::collections::BTreeSet;

/// Queries scored at once.
const TILE: usize = 128;

/// The axes of an attention by role.
pub(super) struct Roles {
    pub att: Attention,
    /// Axes that number the units.
    pub batch: Vec<AxisId>,
    /// Axes that a unit goes through one index at a time, because a gradient is a sum over them.
    pub walk: Vec<AxisId>,
    /// Query rows, outermost first, as one dimension.
    pub rows: Vec<AxisId>,
    /// Rows of a unit: of one index of the walked axes, and of all.
    run: usize,
    pub row_count: usize,
    keys: usize,
    /// Contracted axes of query and key, and the value's own axes.
    over: Vec<AxisId>,
    pub wide: Vec<AxisId>,
}

/// A tile of rows and the keys it may see.
#[derive(Clone)]
pub(super) struct Tile {
    /// Rows among all rows of the unit.
    pub lo: usize,
    pub hi: usize,
    /// The index along each walked axis.
    at: Vec<usize>,
    /// The first row among those of this index.
    from: usize,
    /// Keys in the tile's kernels: all that any of its rows sees, as far as that is known before the run.
    pub keys: usize,
    pub extent: Extent,
}

impl Lowering<'_> {
    pub(super) fn attention(&mut self, v: ValueId) -> Result<(), String> {
        let n = self.cx.g.node(v);
        let Op::Attention(att) = n.op else { return Err("bug: not an attention".into()) };
        let r = self.roles(att, v, AxisSet::EMPTY)?;
        let (q, k, w) = self.sources(&r, v)?;
        let o = self.result_as(v, 0, &[&r.rows, &r.wide])?;
        let lse = self.cx.storage[v.0 as usize][1].clone().ok_or("bug: attention without storage")?;
        let tiles = self.tiles(&r, n.args.get(3).copied(), true);
        let scores = self.scratch("scores", r.tile_rows() * r.keys);
        let inverse = self.scratch("inverse", r.tile_rows());
        let mut stages = vec![];
        for t in &tiles {
            let (rows, s) = (t.hi - t.lo, tile_matrix(scores, t.keys));
            stages.push(product(
                [rows, 0, r.len(&self.cx, &r.over)],
                Some((1, &t.extent)),
                r.row_matrix(self, &q, t, &r.over)?,
                turned(r.key_matrix(self, &k, t, &r.over)?),
                s.clone(),
                false,
            ));
            let weights = self.softmax(&r, v, t, scores, inverse, &lse);
            stages.push(self.add_stage(weights));
            let (out, values) = (r.row_matrix(self, &o, t, &r.wide)?, r.key_matrix(self, &w, t, &r.wide)?);
            stages.push(product([rows, r.len(&self.cx, &r.wide), 0], Some((2, &t.extent)), s, values, out, false));
            let rows = self.normalise(&r, v, t, inverse, &o);
            stages.push(self.add_stage(rows));
        }
        let pairs: usize = tiles.iter().map(|t| (t.hi - t.lo) * t.keys).sum();
        self.push_attention("attention", &r, stages, pairs * 2);
        Ok(())
    }

    pub(super) fn attention_grad(&mut self, v: ValueId) -> Result<(), String> {
        let g = self.cx.g;
        let n = g.node(v);
        let Op::AttentionGrad(att) = n.op else { return Err("bug: not an attention gradient".into()) };
        let shared = [0, 1, 2].map(|i| g.axes_of(n.args[i])).into_iter().reduce(AxisSet::intersection);
        let r = self.roles(att, v, shared.unwrap_or_default())?;
        let (q, k, w) = self.sources(&r, v)?;
        let d_o = self.operand_as(n.args[5 + att.extra_args()], &[&r.rows, &r.wide])?;
        let dq = self.result_as(v, 0, &[&r.rows, &r.over])?;
        let dk = self.result_as(v, 1, &[&[att.keys], &r.over])?;
        let dv = self.result_as(v, 2, &[&[att.keys], &r.wide])?;
        let tiles = self.tiles(&r, n.args.get(3).copied().filter(|_| att.has_qpos()), false);
        let (p, ds) = (self.scratch("p", r.tile_rows() * r.keys), self.scratch("ds", r.tile_rows() * r.keys));
        let (head, wide) = (r.len(&self.cx, &r.over), r.len(&self.cx, &r.wide));
        let (mut set, mut stages) = (BTreeSet::new(), vec![]);
        // The first product for a part of a gradient sets it, the others add. The first tile sees every key.
        let mut add = |m: &Matrix| !set.insert((m.buffer, m.base));
        for t in &tiles {
            let (rows, keys) = (t.hi - t.lo, t.keys);
            let (pm, dsm) = (tile_matrix(p, keys), tile_matrix(ds, keys));
            let (qm, dom) = (r.row_matrix(self, &q, t, &r.over)?, r.row_matrix(self, &d_o, t, &r.wide)?);
            let (km, wm) = (r.key_matrix(self, &k, t, &r.over)?, r.key_matrix(self, &w, t, &r.wide)?);
            stages.push(product([rows, keys, head], None, qm.clone(), turned(km.clone()), pm.clone(), false));
            stages.push(product([rows, keys, wide], None, dom.clone(), turned(wm), dsm.clone(), false));
            let slopes = self.softmax_grad(&r, v, t, p, ds);
            stages.push(self.add_stage(slopes));
            let dqm = r.row_matrix(self, &dq, t, &r.over)?;
            let (dkm, dvm) = (r.key_matrix(self, &dk, t, &r.over)?, r.key_matrix(self, &dv, t, &r.wide)?);
            let adds = [&dqm, &dkm, &dvm].map(&mut add);
            stages.push(product([rows, head, keys], None, dsm.clone(), km, dqm, adds[0]));
            stages.push(product([keys, head, rows], None, turned(dsm), qm, dkm, adds[1]));
            stages.push(product([keys, wide, rows], None, turned(pm), dom, dvm, adds[2]));
        }
        let pairs: usize = tiles.iter().map(|t| (t.hi - t.lo) * t.keys).sum();
        self.push_attention("attention_grad", &r, stages, pairs * 5);
        Ok(())
    }

    /// Query, key and value as matrices.
    fn sources(&mut self, r: &Roles, v: ValueId) -> Result<(Storage, Storage, Storage), String> {
        let (args, keys) = (&self.cx.g.node(v).args, [r.att.keys]);
        let q = self.operand_as(args[0], &[&r.rows, &r.over])?;
        Ok((q, self.operand_as(args[1], &[&keys, &r.over])?, self.operand_as(args[2], &[&keys, &r.wide])?))
    }

    /// Which axis does what. Rows are axes that the query alone has, as many as are one dimension of it in memory. Of the
    /// others, a gradient walks those that are not `shared` by query, key and value, since some gradient lacks them.
    fn roles(&self, att: Attention, v: ValueId, shared: AxisSet) -> Result<Roles, String> {
        let g = self.cx.g;
        let n = g.node(v);
        let (q, k, w) = (g.axes_of(n.args[0]), g.axes_of(n.args[1]), g.axes_of(n.args[2]));
        let all = q.union(k).minus(att.over).without(att.keys);
        let view = |i: usize| self.cx.view(n.args[i]).ok_or("bug: an operand of an attention is not in memory");
        let (query, value) = (view(0)?, view(2)?);
        let own = by_stride(all.minus(k.union(w)), &query);
        let merges = |run: &&[AxisId]| merged(g, run, |a| query.stride(a)).is_some();
        let len = |run: &[AxisId]| run.iter().map(|a| g.len(*a)).product::<usize>();
        let runs = (0..own.len()).flat_map(|i| (i + 1..=own.len()).map(move |j| (i, j)));
        let longest = runs.map(|(i, j)| &own[i..j]).filter(merges).max_by_key(|run| len(run));
        let rows = longest.unwrap_or_default().to_vec();
        let rest = all.minus(AxisSet::of(&rows));
        let forward = matches!(n.op, Op::Attention(_));
        let walk: Vec<AxisId> = if forward { vec![] } else { rest.minus(shared).iter().collect() };
        let (run, steps) = (len(&rows), len(&walk));
        Ok(Roles {
            att,
            batch: rest.minus(AxisSet::of(&walk)).iter().collect(),
            walk,
            rows,
            run,
            row_count: run * steps,
            keys: g.len(att.keys),
            over: by_stride(att.over, &query),
            wide: by_stride(w.minus(k).minus(all).without(att.keys), &value),
        })
    }

    /// The tiles of a unit in order. Backwards, each index of the walked axes begins with a tile that sees every key.
    fn tiles(&self, r: &Roles, qpos: Option<ValueId>, forward: bool) -> Vec<Tile> {
        let g = self.cx.g;
        let causal = match (r.att.mask, qpos.map(|p| &g.node(p).op), r.rows.as_slice()) {
            (Mask::Causal | Mask::Window(_), Some(Op::Iota(a)), [t]) => a == t,
            _ => false,
        };
        // The last row of a tile sees the most keys.
        let ordered = |p: &ValueId| match r.rows.as_slice() {
            [t] => increases(g, *p, *t),
            rows => g.axes_of(*p).disjoint(AxisSet::of(rows)),
        };
        let seen = qpos.filter(|p| forward && r.att.has_qpos() && !causal && ordered(p)).and_then(|p| self.cx.view(p));
        let tile = |step: usize, from: usize| {
            let to = (from + TILE).min(r.run);
            let all = !forward && to == r.run;
            let keys = if causal && !all { to.min(r.keys) } else { r.keys };
            let at = indices(g, &r.walk, step);
            let extent = match &seen {
                Some(s) => Extent::Seen { len: r.keys as u32, position: r.last_position(self, s, to - 1) },
                None => Extent::Fixed(keys as u32),
            };
            Tile { lo: step * r.run + from, hi: step * r.run + to, at, from, keys, extent }
        };
        let one = |step: usize| {
            let mut tiles: Vec<Tile> = (0..r.run).step_by(TILE).map(|from| tile(step, from)).collect();
            if !forward {
                tiles.reverse();
            }
            tiles
        };
        (0..r.row_count / r.run).flat_map(one).collect()
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
}

impl Roles {
    fn tile_rows(&self) -> usize {
        self.run.min(TILE)
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
        m.map(|m| m.1).ok_or("bug: axes of an attention are not one dimension of memory".into())
    }
    /// Where a tensor begins for the indices of the walked axes.
    fn base(&self, s: &Storage, t: &Tile) -> i64 {
        s.base + self.walk.iter().zip(&t.at).map(|(a, i)| s.stride(*a) * *i as i64).sum::<i64>()
    }
    /// The tile's rows on the query side, over `axes` as columns.
    fn row_matrix(&self, lw: &Lowering, s: &Storage, t: &Tile, axes: &[AxisId]) -> Result<Matrix, String> {
        let (row, col) = (self.stride(lw, s, &self.rows)?, self.stride(lw, s, axes)?);
        let base = self.base(s, t) + t.from as i64 * row;
        Ok(Matrix { buffer: s.buffer, base, unit: self.unit(s), iter: 0, row, col })
    }
    /// Keys as rows, over `axes` as columns.
    fn key_matrix(&self, lw: &Lowering, s: &Storage, t: &Tile, axes: &[AxisId]) -> Result<Matrix, String> {
        let (row, col) = (s.stride(self.att.keys), self.stride(lw, s, axes)?);
        Ok(Matrix { buffer: s.buffer, base: self.base(s, t), unit: self.unit(s), iter: 0, row, col })
    }
    /// Where the position of one row lies, for each unit.
    fn last_position(&self, lw: &Lowering, s: &Storage, row: usize) -> Access {
        let g = lw.cx.g;
        let at = indices(g, &self.rows, row);
        let base = s.base + self.rows.iter().zip(at).map(|(a, i)| s.stride(*a) * i as i64).sum::<i64>();
        Access { buffer: s.buffer, base, unit: self.unit(s), iter: 0, rebase: 0 }
    }
}

fn by_stride(axes: AxisSet, s: &Storage) -> Vec<AxisId> {
    let mut v: Vec<AxisId> = axes.iter().collect();
    v.sort_by_key(|a| std::cmp::Reverse(s.stride(*a)));
    v
}

/// The index along each axis of number `n`, row-major.
fn indices(g: &Graph, axes: &[AxisId], n: usize) -> Vec<usize> {
    let mut rest = n;
    let mut at: Vec<usize> = axes
        .iter()
        .rev()
        .map(|a| {
            let i = rest % g.len(*a);
            rest /= g.len(*a);
            i
        })
        .collect();
    at.reverse();
    at
}

/// True if a value never falls along an axis, as far as its operations say.
fn increases(g: &Graph, v: ValueId, a: AxisId) -> bool {
    let n = g.node(v);
    match n.op {
        _ if !g.axes_of(v).has(a) => true,
        Op::Iota(x) => x == a,
        Op::Binary(Binary::Add | Binary::Max | Binary::Min) => n.args.iter().all(|x| increases(g, *x, a)),
        Op::Binary(Binary::Sub) => increases(g, n.args[0], a) && !g.axes_of(n.args[1]).has(a),
        _ => false,
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
