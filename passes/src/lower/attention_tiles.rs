//! How an attention is cut: which axis does what, tiles of query rows, and the keys that each tile may see.
//!
//! Where the positions of a tile's rows are known, or increase along the rows, only keys that some row of it sees are
//! scored: up to the last position, and in a window from the first one's on.
use super::storage::{Storage, merged};
use super::{Cx, Lowering};
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::op::{Attention, Binary, Mask, Op};
use lolm_ir::plan::{Access, BufferId, Extent, Matrix};
use lolm_ir::{Graph, ValueId};

/// Queries scored at once.
const TILE: usize = 128;
/// The same in a window that is shorter than this: what one row of a tile sees is scored for all of them, so in a short
/// window long tiles waste the most.
const WINDOW_TILE: usize = 64;
const SHORT_WINDOW: usize = 512;
/// As many rows as these make a product efficient; more of them would only leave fewer units.
const ENOUGH_ROWS: usize = 32;
/// The first key of a window is a multiple of this, so that rows of keys begin where vectors do.
pub(super) const ALIGN: usize = 16;

/// The axes of an attention by role.
pub(super) struct Roles {
    pub att: Attention,
    /// Axes that number the units.
    pub batch: Vec<AxisId>,
    /// Axes that a unit goes through one index at a time, because a gradient is a sum over them.
    pub walk: Vec<AxisId>,
    /// The most rows of a tile.
    tile: usize,
    /// Query rows, outermost first, as one dimension.
    pub rows: Vec<AxisId>,
    /// Rows of a unit: of one index of the walked axes, and of all.
    pub run: usize,
    pub row_count: usize,
    /// All keys, and the most that a tile scores.
    pub keys: usize,
    pub most_keys: usize,
    /// Contracted axes of query and key, and the value's own axes.
    pub over: Vec<AxisId>,
    pub wide: Vec<AxisId>,
    pub positions: Positions,
}

/// What is known of the positions of query rows before the run.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Positions {
    /// Nothing: every key is scored.
    Any,
    /// They are the index along this axis, one of the rows', and lie in memory, too.
    Counted(AxisId, Storage),
    /// They lie in memory and do not fall along the axis, if they vary over the rows at all.
    Rising(Option<AxisId>, Storage),
}

/// A tile of rows and the keys it may see.
#[derive(Clone, Debug)]
pub(super) struct Tile {
    /// Rows among all rows of the unit.
    pub lo: usize,
    pub hi: usize,
    /// The index along each walked axis.
    at: Vec<usize>,
    /// The first row among those of this index.
    from: usize,
    /// The rows among those of this index that stand first and last.
    first: usize,
    last: usize,
    /// The first key in the tile's products, and how many there are from it on, as far as is known before the run.
    pub key: usize,
    pub keys: usize,
    pub extent: Extent,
}

impl Lowering<'_> {
    /// Which axis does what. Rows are axes that the query alone has and that are one dimension of it in memory. Of the
    /// others, a gradient walks those that are not `shared` by query, key and value, since some gradient lacks them. With
    /// the tiles of a unit in order.
    pub(super) fn roles(&self, att: Attention, v: ValueId, shared: AxisSet) -> Result<(Roles, Vec<Tile>), String> {
        let g = self.cx.g;
        let n = g.node(v);
        let (q, k, w) = (g.axes_of(n.args[0]), g.axes_of(n.args[1]), g.axes_of(n.args[2]));
        let all = q.union(k).minus(att.over).without(att.keys);
        let view = |i: usize| self.cx.view(n.args[i]).ok_or("bug: an operand of an attention is not in memory");
        let (query, value) = (view(0)?, view(2)?);
        let rows = rows(g, &by_stride(all.minus(k.union(w)), &query), &query);
        let rest = all.minus(AxisSet::of(&rows));
        let forward = matches!(n.op, Op::Attention(_));
        let walk: Vec<AxisId> = if forward { vec![] } else { rest.minus(shared).iter().collect() };
        let len = |axes: &[AxisId]| axes.iter().map(|a| g.len(*a)).product::<usize>();
        let (run, steps) = (len(&rows), len(&walk));
        let positions = self.positions(&att, n.args.get(3).copied(), &rows, forward);
        let keys = g.len(att.keys);
        let mut r = Roles {
            att,
            batch: rest.minus(AxisSet::of(&walk)).iter().collect(),
            walk,
            tile: match att.mask {
                Mask::Window(w) if w < SHORT_WINDOW => WINDOW_TILE,
                Mask::Full | Mask::Causal | Mask::Window(_) | Mask::Ring(_) => TILE,
            },
            rows,
            run,
            row_count: run * steps,
            keys,
            most_keys: keys,
            over: by_stride(att.over, &query),
            wide: by_stride(w.minus(k).minus(all).without(att.keys), &value),
            positions,
        };
        let tiles = self.tiles(&r);
        r.most_keys = tiles.iter().map(|t| t.keys).max().unwrap_or(keys).max(1);
        Ok((r, tiles))
    }

    /// Backward, positions that are data say nothing before the run: a gradient is set for every key.
    fn positions(&self, att: &Attention, qpos: Option<ValueId>, rows: &[AxisId], forward: bool) -> Positions {
        let g = self.cx.g;
        let Some((p, s)) = qpos.filter(|_| att.has_qpos()).and_then(|p| self.cx.view(p).map(|s| (p, s))) else {
            return Positions::Any;
        };
        let counts = match (att.mask, &g.node(p).op) {
            (Mask::Causal | Mask::Window(_), Op::Iota(a)) => rows.contains(a).then_some(*a),
            (Mask::Causal | Mask::Window(_) | Mask::Ring(_) | Mask::Full, _) => None,
        };
        let varies: Vec<AxisId> = rows.iter().copied().filter(|a| g.axes_of(p).has(*a)).collect();
        match (counts, varies.as_slice()) {
            (Some(a), _) => Positions::Counted(a, s),
            (None, []) if forward => Positions::Rising(None, s),
            (None, [t]) if forward && increases(g, p, *t) => Positions::Rising(Some(*t), s),
            (None, _) => Positions::Any,
        }
    }

    fn tiles(&self, r: &Roles) -> Vec<Tile> {
        let starts = |step: usize| (0..r.run).step_by(r.tile).map(move |from| (step, from));
        (0..r.row_count / r.run).flat_map(starts).map(|(step, from)| self.tile(r, step, from)).collect()
    }

    fn tile(&self, r: &Roles, step: usize, from: usize) -> Tile {
        let g = self.cx.g;
        let to = (from + r.tile).min(r.run);
        let time = match &r.positions {
            Positions::Counted(t, _) => Some(*t),
            Positions::Rising(t, _) => *t,
            Positions::Any => None,
        };
        // The index of a row along the axis of time.
        let inner = r.rows.iter().rev().take_while(|a| Some(**a) != time).map(|a| g.len(*a)).product::<usize>();
        let place = |row: &usize| time.map_or(0, |t| row / inner % g.len(t));
        let first = (from..to).min_by_key(place).unwrap_or(from);
        let last = (from..to).max_by_key(place).unwrap_or(from);
        let mut t = Tile {
            lo: step * r.run + from,
            hi: step * r.run + to,
            at: indices(g, &r.walk, step),
            from,
            first,
            last,
            key: 0,
            keys: r.keys,
            extent: Extent::Fixed(r.keys as u32),
        };
        match &r.positions {
            Positions::Any => {}
            Positions::Counted(..) => {
                let end = (place(&last) + 1).min(r.keys);
                t.key = match r.att.mask {
                    Mask::Window(w) => ((place(&first) + 1).saturating_sub(w) / ALIGN * ALIGN).min(end),
                    Mask::Full | Mask::Causal | Mask::Ring(_) => 0,
                };
                t.keys = end - t.key;
                t.extent = Extent::Fixed(t.keys as u32);
            }
            Positions::Rising(_, s) => {
                let position = r.position(self, s, &t, last);
                t.extent = Extent::Seen { len: r.keys as u32, position };
            }
        }
        t
    }
}

impl Positions {
    /// Where they lie, if they say which keys a tile scores.
    pub fn buffer(&self) -> Option<BufferId> {
        match self {
            Positions::Any => None,
            Positions::Counted(_, s) | Positions::Rising(_, s) => Some(s.buffer),
        }
    }
}

impl Roles {
    pub fn tile_rows(&self) -> usize {
        self.run.min(self.tile)
    }
    /// Elements from a row of scores in scratch to the next: an odd number of cache lines, so that neighbouring rows do not
    /// meet in the same set of the cache.
    pub fn pitch(&self) -> usize {
        self.most_keys.next_multiple_of(ALIGN) | ALIGN
    }
    pub fn len(&self, cx: &Cx, axes: &[AxisId]) -> usize {
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
    pub fn base(&self, s: &Storage, t: &Tile) -> i64 {
        s.base + self.walk.iter().zip(&t.at).map(|(a, i)| s.stride(*a) * *i as i64).sum::<i64>()
    }
    /// The tile's rows on the query side, over `axes` as columns.
    pub fn row_matrix(&self, lw: &Lowering, s: &Storage, t: &Tile, axes: &[AxisId]) -> Result<Matrix, String> {
        let (row, col) = (self.stride(lw, s, &self.rows)?, self.stride(lw, s, axes)?);
        let base = self.base(s, t) + t.from as i64 * row;
        Ok(Matrix { buffer: s.buffer, base, unit: self.unit(s), iter: 0, row, col })
    }
    /// Keys from `key` on as rows, over `axes` as columns.
    pub fn key_matrix(
        &self,
        lw: &Lowering,
        s: &Storage,
        t: &Tile,
        key: usize,
        axes: &[AxisId],
    ) -> Result<Matrix, String> {
        let (row, col) = (s.stride(self.att.keys), self.stride(lw, s, axes)?);
        let base = self.base(s, t) + key as i64 * row;
        Ok(Matrix { buffer: s.buffer, base, unit: self.unit(s), iter: 0, row, col })
    }
    /// A tile of scores in scratch, from the tile's column `from` on.
    pub fn score_matrix(&self, buffer: BufferId, from: usize) -> Matrix {
        Matrix { buffer, base: from as i64, unit: vec![], iter: 0, row: self.pitch() as i64, col: 1 }
    }
    /// Where the position of one row of the tile lies, for each unit.
    fn position(&self, lw: &Lowering, s: &Storage, t: &Tile, row: usize) -> Access {
        let at = indices(lw.cx.g, &self.rows, row);
        let base = self.base(s, t) + self.rows.iter().zip(at).map(|(a, i)| s.stride(*a) * i as i64).sum::<i64>();
        Access { buffer: s.buffer, base, unit: self.unit(s), iter: 0, rebase: 0 }
    }
    /// The positions of the tile's first and last rows in memory, where they say what is scored.
    pub fn ends(&self, lw: &Lowering, t: &Tile) -> Option<(Access, Access)> {
        match &self.positions {
            Positions::Any => None,
            Positions::Counted(_, s) | Positions::Rising(_, s) => {
                Some((self.position(lw, s, t, t.first), self.position(lw, s, t, t.last)))
            }
        }
    }
}

/// The axes of the longest dimension, cut where more rows would gain less than more units do.
fn rows(g: &Graph, own: &[AxisId], query: &Storage) -> Vec<AxisId> {
    let merges = |run: &&[AxisId]| merged(g, run, |a| query.stride(a)).is_some();
    let len = |run: &[AxisId]| run.iter().map(|a| g.len(*a)).product::<usize>();
    let runs = (0..own.len()).flat_map(|i| (i + 1..=own.len()).map(move |j| &own[i..j]));
    let worth = |run: &&[AxisId]| (len(run).min(ENOUGH_ROWS), std::cmp::Reverse(run.len()), len(run));
    runs.filter(merges).max_by_key(worth).unwrap_or_default().to_vec()
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
