//! Attention and its gradient: one launch each, a unit a batch index and head, in which tiles of queries are scored by a
//! matrix product into scratch memory, normalised by a row kernel, and multiplied with the values.
//!
//! Dao et al. 2022 without the tiling of keys: a row of scores fits the cache. Gradients of keys and values add up over
//! the tiles of queries in a fixed order, inside one unit, so there are no atomics: what several query heads share is
//! walked by the unit of the shared head. The row kernels read from memory where a tile stands, so all tiles share them.
use super::Lowering;
use super::attention_tiles::{Roles, Tile};
use super::storage::Storage;
use lolm_ir::ValueId;
use lolm_ir::axis::AxisSet;
use lolm_ir::op::Op;
use lolm_ir::plan::{BufferId, Extent, Gemm, Kind, Launch, Matrix, Stage, Step};
use std::collections::{BTreeMap, BTreeSet};

impl Lowering<'_> {
    pub(super) fn attention(&mut self, v: ValueId) -> Result<(), String> {
        let n = self.cx.g.node(v);
        let Op::Attention(att) = n.op else { return Err("bug: not an attention".into()) };
        let (r, tiles) = self.roles(att, v, AxisSet::EMPTY)?;
        let (q, k, w) = self.sources(&r, v)?;
        let o = self.result_as(v, 0, &[&r.rows, &r.wide])?;
        let lse = self.cx.storage[v.0 as usize][1].clone().ok_or("bug: attention without storage")?;
        let scores = self.scratch("scores", r.tile_rows() * r.pitch());
        let inverse = self.scratch("inverse", r.tile_rows());
        let weights = self.row_stage(self.softmax(&r, v, scores, inverse, &lse));
        let results = self.row_stage(self.normalise(&r, inverse, &o));
        let mut stages = vec![];
        for t in &tiles {
            let (rows, s) = (t.hi - t.lo, r.score_matrix(scores, 0));
            stages.push(product(
                [rows, 0, r.len(&self.cx, &r.over)],
                Some((1, &t.extent)),
                r.row_matrix(self, &q, t, &r.over)?,
                turned(r.key_matrix(self, &k, t, t.key, &r.over)?),
                s.clone(),
                false,
            ));
            stages.push(weights.at(self, &r, t));
            let out = r.row_matrix(self, &o, t, &r.wide)?;
            let values = r.key_matrix(self, &w, t, t.key, &r.wide)?;
            stages.push(product([rows, r.len(&self.cx, &r.wide), 0], Some((2, &t.extent)), s, values, out, false));
            stages.push(results.at(self, &r, t));
        }
        self.push_attention("attention", &r, stages, pairs(&tiles) * 2);
        Ok(())
    }

    pub(super) fn attention_grad(&mut self, v: ValueId) -> Result<(), String> {
        let g = self.cx.g;
        let n = g.node(v);
        let Op::AttentionGrad(att) = n.op else { return Err("bug: not an attention gradient".into()) };
        let shared = [0, 1, 2].map(|i| g.axes_of(n.args[i])).into_iter().reduce(AxisSet::intersection);
        let (r, tiles) = self.roles(att, v, shared.unwrap_or_default())?;
        let (q, k, w) = self.sources(&r, v)?;
        let d_o = self.operand_as(n.args[5 + att.extra_args()], &[&r.rows, &r.wide])?;
        let dq = self.result_as(v, 0, &[&r.rows, &r.over])?;
        let dk = self.result_as(v, 1, &[&[att.keys], &r.over])?;
        let dv = self.result_as(v, 2, &[&[att.keys], &r.wide])?;
        let size = r.tile_rows() * r.pitch();
        let (p, ds) = (self.scratch("p", size), self.scratch("ds", size));
        let (head, wide) = (r.len(&self.cx, &r.over), r.len(&self.cx, &r.wide));
        let slopes = self.row_stage(self.softmax_grad(&r, v, p, ds));
        let mut covered = Covered::default();
        let mut stages = vec![];
        // From the last tile to the first, so that the keys which have a gradient grow downwards.
        for t in tiles.iter().rev() {
            let (rows, keys) = (t.hi - t.lo, t.keys);
            let (pm, dsm) = (r.score_matrix(p, 0), r.score_matrix(ds, 0));
            let (qm, dom) = (r.row_matrix(self, &q, t, &r.over)?, r.row_matrix(self, &d_o, t, &r.wide)?);
            let km = r.key_matrix(self, &k, t, t.key, &r.over)?;
            let wm = r.key_matrix(self, &w, t, t.key, &r.wide)?;
            stages.push(product([rows, keys, head], None, qm.clone(), turned(km.clone()), pm, false));
            stages.push(product([rows, keys, wide], None, dom.clone(), turned(wm), dsm.clone(), false));
            stages.push(slopes.at(self, &r, t));
            let dqm = r.row_matrix(self, &dq, t, &r.over)?;
            let add = !covered.rows.insert((dqm.buffer, dqm.base));
            stages.push(product([rows, head, keys], None, dsm, km, dqm, add));
            for (s, x, to, len, axes) in [(ds, &qm, &dk, head, &r.over), (p, &dom, &dv, wide, &r.wide)] {
                for part in covered.parts((to.buffer, r.base(to, t)), t, r.keys) {
                    let weights = turned(r.score_matrix(s, part.from.saturating_sub(t.key)));
                    let out = r.key_matrix(self, to, t, part.from, axes)?;
                    let terms = if part.what == Part::Nothing { 0 } else { rows };
                    let add = part.what == Part::More;
                    stages.push(product([part.to - part.from, len, terms], None, weights, x.clone(), out, add));
                }
            }
        }
        self.push_attention("attention_grad", &r, stages, pairs(&tiles) * 5);
        Ok(())
    }

    /// Query, key and value as matrices.
    fn sources(&mut self, r: &Roles, v: ValueId) -> Result<(Storage, Storage, Storage), String> {
        let (args, keys) = (&self.cx.g.node(v).args, [r.att.keys]);
        let q = self.operand_as(args[0], &[&r.rows, &r.over])?;
        Ok((q, self.operand_as(args[1], &[&keys, &r.over])?, self.operand_as(args[2], &[&keys, &r.wide])?))
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

/// Scores of all tiles.
fn pairs(tiles: &[Tile]) -> usize {
    tiles.iter().map(|t| (t.hi - t.lo) * t.keys).sum()
}

/// What a unit's products have put into its gradients so far.
#[derive(Default)]
struct Covered {
    /// Rows of queries, by where they lie.
    rows: BTreeSet<(BufferId, i64)>,
    /// The first key that has a gradient, from which on all have one, by where the keys lie.
    keys: BTreeMap<(BufferId, i64), usize>,
}

/// Keys `from..to` and what a tile gives them.
#[derive(PartialEq, Debug)]
struct KeyPart {
    from: usize,
    to: usize,
    what: Part,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Part {
    /// No row of any tile so far saw them, nor does this one: a gradient of zero.
    Nothing,
    First,
    More,
}

impl Covered {
    /// The first product for a key sets its gradient, the others add. Between the keys of a tile and those that have a
    /// gradient there may be some that nobody sees.
    fn parts(&mut self, place: (BufferId, i64), t: &Tile, all: usize) -> Vec<KeyPart> {
        let covered = self.keys.entry(place).or_insert(all);
        let end = t.key + t.keys;
        let parts = [
            KeyPart { from: end, to: *covered, what: Part::Nothing },
            KeyPart { from: t.key, to: end.min(*covered), what: Part::First },
            KeyPart { from: t.key.max(*covered), to: end, what: Part::More },
        ];
        *covered = t.key.min(*covered);
        parts.into_iter().filter(|p| p.from < p.to).collect()
    }
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
