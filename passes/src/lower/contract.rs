//! Contract: a large dot as matrix products of strided views, one tile of rows or columns a unit.
//!
//! Axes of both operands that are not contracted number separate products (`batch`); axes of one operand alone are rows
//! or columns where their strides merge, and otherwise number products too; contracted axes that do not merge are walked
//! by products that add up in order.
use super::Lowering;
use super::storage::{Storage, merged};
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::op::Op;
use lolm_ir::plan::{Extent, Gemm, Kind, Launch, Matrix, Stage, Step};
use lolm_ir::{Graph, ValueId};

/// Rows of a product below which its columns are cut instead: the skinny kernel takes them all at once.
const SKINNY: usize = 16;

/// One side of a product: the axes that merged into a dimension, and its strides in the operand and in the result.
struct Side {
    len: usize,
    stride: i64,
    out: i64,
}

/// A dot as products: `grid` axes number them, `walk` axes are summed by consecutive products.
struct Products {
    grid: Vec<AxisId>,
    walk: Vec<AxisId>,
    rows: Side,
    cols: Side,
    /// Length of the contracted dimension and its strides in both operands.
    k: (usize, i64, i64),
}

impl Lowering<'_> {
    pub(super) fn contract(&mut self, v: ValueId) -> Result<(), String> {
        let g = self.cx.g;
        let n = g.node(v);
        let Op::Dot { axes } = n.op else { return Err("bug: not a dot".into()) };
        let view = |x: ValueId| self.cx.view(x).ok_or(format!("bug: operand %{} of a product is not in memory", x.0));
        let (mut a, mut b) = (view(n.args[0])?, view(n.args[1])?);
        let (mut ax, mut bx) = (g.axes_of(n.args[0]), g.axes_of(n.args[1]));
        let c = self.cx.storage_of(v).ok_or("bug: dot without storage")?;
        let mut p = products(g, axes, (ax, &a), (bx, &b), &c);
        if p.cols.out != 1 && p.rows.out == 1 {
            std::mem::swap(&mut a, &mut b);
            std::mem::swap(&mut ax, &mut bx);
            p = products(g, axes, (ax, &a), (bx, &b), &c);
        }
        let launch = p.launch(g, &a, &b, &c);
        self.steps.push(Step::Launch(launch));
        Ok(())
    }
}

fn by_stride(axes: AxisSet, s: &Storage) -> Vec<AxisId> {
    let mut v: Vec<AxisId> = axes.iter().collect();
    v.sort_by_key(|a| std::cmp::Reverse(s.stride(*a)));
    v
}

/// The longest innermost run of `axes` that merges under all the strides; the rest comes back first.
fn split(g: &Graph, axes: Vec<AxisId>, storages: &[&Storage]) -> (Vec<AxisId>, Vec<AxisId>) {
    let fits = |from: usize| storages.iter().all(|s| merged(g, &axes[from..], |a| s.stride(a)).is_some());
    let from = (0..axes.len()).find(|f| fits(*f)).unwrap_or(axes.len());
    (axes[..from].to_vec(), axes[from..].to_vec())
}

fn products(g: &Graph, k: AxisSet, a: (AxisSet, &Storage), b: (AxisSet, &Storage), c: &Storage) -> Products {
    let batch = a.0.intersection(b.0).minus(k);
    let (outer_m, m) = split(g, by_stride(a.0.minus(b.0), c), &[a.1, c]);
    let (outer_n, n) = split(g, by_stride(b.0.minus(a.0), c), &[b.1, c]);
    let (walk, inner) = split(g, by_stride(k, a.1), &[a.1, b.1]);
    let side = |axes: &[AxisId], s: &Storage| {
        let (len, stride) = merged(g, axes, |x| s.stride(x)).unwrap_or((1, 1));
        let out = merged(g, axes, |x| c.stride(x)).map_or(1, |x| x.1);
        Side { len, stride, out }
    };
    let (len, ka) = merged(g, &inner, |x| a.1.stride(x)).unwrap_or((1, 1));
    let kb = merged(g, &inner, |x| b.1.stride(x)).map_or(1, |x| x.1);
    let grid = batch.iter().chain(outer_m).chain(outer_n).filter(|x| g.len(*x) > 1).collect();
    Products { grid, walk, rows: side(&m, a.1), cols: side(&n, b.1), k: (len, ka, kb) }
}

/// A tile that gives the threads enough units and keeps the product efficient.
fn tile(len: usize, units: usize) -> usize {
    let wanted = len.div_ceil(units.max(1)).next_multiple_of(16);
    wanted.clamp(64, 512).min(len)
}

impl Products {
    fn launch(&self, g: &Graph, a: &Storage, b: &Storage, c: &Storage) -> Launch {
        let (m, n, k) = (self.rows.len, self.cols.len, self.k.0);
        let separate: usize = self.grid.iter().map(|x| g.len(*x)).product();
        let units = 16usize.div_ceil(separate);
        let cut_rows = m > SKINNY && m * 4 >= n;
        let t = tile(if cut_rows { m } else { n }, units);
        let tiles = if cut_rows { m } else { n }.div_ceil(t);
        let dim = self.grid.len() as u8;
        let extent = |len: usize, cut: bool| {
            if cut && tiles > 1 {
                Extent::Tile { dim, tile: t as u32, len: len as u32 }
            } else {
                Extent::Fixed(len as u32)
            }
        };
        let mut grid: Vec<u32> = self.grid.iter().map(|x| g.len(*x) as u32).collect();
        grid.push(tiles as u32);
        let matrix = |s: &Storage, row: i64, col: i64, along: i64| {
            let mut unit: Vec<i64> = self.grid.iter().map(|x| s.stride(*x)).collect();
            unit.push(along * t as i64);
            Matrix { buffer: s.buffer, base: s.base, unit, iter: 0, row, col }
        };
        let of = |cut: bool, stride: i64| if cut { stride } else { 0 };
        let gemm = Gemm {
            m: extent(m, cut_rows),
            n: extent(n, !cut_rows),
            k: Extent::Fixed(k as u32),
            a: matrix(a, self.rows.stride, self.k.1, of(cut_rows, self.rows.stride)),
            b: matrix(b, self.k.2, self.cols.stride, of(!cut_rows, self.cols.stride)),
            c: matrix(c, self.rows.out, self.cols.out, of(cut_rows, self.rows.out) + of(!cut_rows, self.cols.out)),
            alpha: 1.0,
            accumulate: false,
        };
        let stages = walk_steps(g, &self.walk, a, b, gemm);
        let steps = stages.len();
        Launch {
            name: format!("dot_{m}x{n}x{}", k * steps),
            kind: Kind::Contract,
            grid,
            stages,
            flops: (2 * separate * m * n * k * steps) as u64,
            bytes: (4 * separate * (m * n + (m + n) * k * steps)) as u64,
        }
    }
}

/// The product once for every index of the walked axes, the later ones adding to the first.
fn walk_steps(g: &Graph, walk: &[AxisId], a: &Storage, b: &Storage, first: Gemm) -> Vec<Stage> {
    let total: usize = walk.iter().map(|x| g.len(*x)).product();
    let step = |i: usize| {
        let mut p = first.clone();
        let mut rest = i;
        for x in walk.iter().rev() {
            let at = (rest % g.len(*x)) as i64;
            rest /= g.len(*x);
            p.a.base += at * a.stride(*x);
            p.b.base += at * b.stride(*x);
        }
        p.accumulate = i > 0;
        Stage::Gemm(Box::new(p))
    };
    (0..total).map(step).collect()
}
