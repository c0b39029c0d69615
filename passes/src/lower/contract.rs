//! Contract: a large dot as matrix products of strided views, one tile of rows or columns a unit.
//!
//! Axes of both operands that are not contracted number separate products (`batch`); axes of one operand alone are rows
//! or columns where their strides merge, and otherwise number products too; contracted axes that do not merge are walked
//! by products that add up in order.
use super::storage::{Storage, merged};
use super::stream::Stream;
use super::{Built, Cx, Lowering, cost};
use crate::cluster::GroupId;
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::op::Op;
use lolm_ir::plan::{Access, Extent, Gemm, Kind, Launch, Matrix, Span, Stage, Step};
use lolm_ir::{Graph, ValueId};

/// Up to this many rows, a product's columns are cut: the skinny kernel takes all rows at once.
pub(super) const SKINNY: usize = 16;

/// Rows from which tiles of rows alone are enough: packing the other operand for each costs little.
const MANY: usize = 1024;

/// Columns that a product packs together.
const PANEL: usize = 64;

/// Units that a product is cut in: enough for the threads, few enough that packing an operand for each costs little. With
/// few rows nothing is packed, and more units give each thread the same share.
pub(super) const UNITS: usize = 8;
const SKINNY_UNITS: usize = 32;

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

/// The operands and the result of a dot, the operand with the rows first.
struct Operands {
    a: Storage,
    b: Storage,
    c: Storage,
    products: Products,
}

impl Lowering<'_> {
    pub(super) fn contract(&mut self, v: ValueId) -> Result<(), String> {
        let mut o = self.operands(v, false)?;
        if o.products.cols.out != 1 && o.products.rows.out == 1 {
            o = self.operands(v, true)?;
        }
        let launch = o.products.launch(&self.cx, &o.a, &o.b, &o.c);
        self.steps.push(Step::Launch(launch));
        Ok(())
    }

    fn operands(&self, v: ValueId, swap: bool) -> Result<Operands, String> {
        let g = self.cx.g;
        let n = g.node(v);
        let Op::Dot { axes } = n.op else { return Err("bug: not a dot".into()) };
        let (x, y) = if swap { (n.args[1], n.args[0]) } else { (n.args[0], n.args[1]) };
        let view = |x: ValueId| self.cx.view(x).ok_or(format!("bug: operand %{} of a product is not in memory", x.0));
        let (a, b) = (view(x)?, view(y)?);
        let c = self.cx.storage_of(v).ok_or("bug: dot without storage")?;
        let products = products(g, axes, (g.axes_of(x), &a), (g.axes_of(y), &b), &c);
        Ok(Operands { a, b, c, products })
    }

    /// A stream group with the products whose rows it uses: one launch, a unit a tile of rows. Products that do not come
    /// as rows in memory have launches of their own, before the group's.
    pub(super) fn with_products(&mut self, id: GroupId) -> Result<(), String> {
        let group = &self.cx.clusters.groups[id.0 as usize];
        let g = self.cx.g;
        let mut fused = vec![];
        for (v, rows) in &group.products {
            let swap = g.axes_of(g.node(*v).args[0]).minus(g.axes_of(g.node(*v).args[1])) != *rows;
            let o = self.operands(*v, swap)?;
            // All of them must number their rows alike.
            let alike = fused.first().is_none_or(|f: &Operands| by_stride(*rows, &f.c) == by_stride(*rows, &o.c));
            if o.products.grid.is_empty() && alike { fused.push(o) } else { self.contract(*v)? }
        }
        let Some((rows, m)) = group.products.first().map(|p| p.1).zip(fused.first().map(|o| o.products.rows.len))
        else {
            return self.stream(id);
        };
        let t = tile(m, UNITS);
        let mut stages = vec![];
        let (mut flops, mut bytes) = (0, 0);
        for o in &fused {
            let p = &o.products;
            let one = p.gemm((&o.a, &o.b, &o.c), Cut { m: t, n: p.cols.len });
            let steps = walk_steps(g, &p.walk, &o.a, &o.b, one);
            let deep = p.k.0 * steps.len();
            flops += (2 * m * p.cols.len * deep) as u64;
            bytes += (self.cx.width(&o.a) * m * deep + self.cx.width(&o.b) * p.cols.len * deep) as u64;
            stages.extend(steps);
        }
        let mut s = Stream::new(&self.cx, Some(id));
        let order = by_stride(rows, &fused[0].c);
        s.k.units = order.iter().map(|a| (s.axis(*a), 1)).collect();
        s.roots();
        let l = s.finish();
        let work = cost::of(&l.kernel);
        let name = self.name(group);
        let operands = l.buffers.iter().map(|b| Access::whole(*b)).collect();
        let kernel = lolm_ir::kernel::Kernel { name: name.clone(), ..l.kernel };
        let kernel = super::merge_axes::merge_axes(kernel);
        stages.push(self.add_stage(Built { kernel, operands, span: Span::Tiles { len: m as u32, tile: t as u32 } }));
        let name = format!("dots_{name}");
        let grid = vec![m.div_ceil(t) as u32];
        let (flops, bytes) = (flops + work.0, bytes + work.1);
        self.steps.push(Step::Launch(Launch { name, kind: Kind::Contract, grid, stages, flops, bytes }));
        Ok(())
    }
}

pub(super) fn by_stride(axes: AxisSet, s: &Storage) -> Vec<AxisId> {
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
pub(super) fn tile(len: usize, units: usize) -> usize {
    let wanted = len.div_ceil(units.max(1)).next_multiple_of(16);
    wanted.clamp(64, 512).min(len)
}

/// The tiles that a product is cut in: rows and columns of one unit.
#[derive(Clone, Copy)]
struct Cut {
    m: usize,
    n: usize,
}

impl Cut {
    fn new(m: usize, n: usize, separate: usize) -> Cut {
        let units = UNITS.div_ceil(separate);
        if m <= SKINNY {
            let n_tile = n.div_ceil(SKINNY_UNITS.div_ceil(separate)).next_multiple_of(16);
            return Cut { m, n: n_tile.min(512).min(n) };
        }
        if m >= MANY || n < 2 * PANEL {
            return if m * 4 >= n { Cut { m: tile(m, units), n } } else { Cut { m, n: tile(n, units) } };
        }
        // Each unit packs its columns: halves of the rows do so twice, for shares that are even.
        let halves = m >= 2 * PANEL && n < 4 * UNITS * PANEL;
        let m_tile = if halves { m.div_ceil(2) } else { m };
        let n_tile = n.div_ceil(units.div_ceil(m.div_ceil(m_tile))).next_multiple_of(PANEL);
        Cut { m: m_tile, n: n_tile.min(512).min(n) }
    }
}

impl Products {
    fn launch(&self, cx: &Cx, a: &Storage, b: &Storage, c: &Storage) -> Launch {
        let g = cx.g;
        let (m, n, k) = (self.rows.len, self.cols.len, self.k.0);
        let separate: usize = self.grid.iter().map(|x| g.len(*x)).product();
        let cut = Cut::new(m, n, separate);
        let gemm = self.gemm((a, b, c), cut);
        let mut grid: Vec<u32> = self.grid.iter().map(|x| g.len(*x) as u32).collect();
        grid.extend(
            [(m, cut.m), (n, cut.n)].iter().filter(|(len, tile)| len > tile).map(|(l, t)| l.div_ceil(*t) as u32),
        );
        if grid.is_empty() {
            grid.push(1);
        }
        let stages = walk_steps(g, &self.walk, a, b, gemm);
        let steps = stages.len();
        Launch {
            name: format!("dot_{m}x{n}x{}", k * steps),
            kind: Kind::Contract,
            grid,
            stages,
            flops: (2 * separate * m * n * k * steps) as u64,
            bytes: (separate * (4 * m * n + (cx.width(a) * m + cx.width(b) * n) * k * steps)) as u64,
        }
    }

    /// The product of one unit.
    fn gemm(&self, (a, b, c): (&Storage, &Storage, &Storage), cut: Cut) -> Gemm {
        let (r, q) = (&self.rows, &self.cols);
        // A side that is cut has a dimension of the grid, rows before columns.
        let (cut_m, cut_n) = (r.len > cut.m, q.len > cut.n);
        let extent = |len: usize, tile: usize, dim: usize| match len > tile {
            true => Extent::Tile { dim: dim as u8, tile: tile as u32, len: len as u32 },
            false => Extent::Fixed(len as u32),
        };
        let matrix = |s: &Storage, (row, col): (i64, i64), [m, n]: [i64; 2]| {
            let mut unit: Vec<i64> = self.grid.iter().map(|x| s.stride(*x)).collect();
            unit.extend(cut_m.then_some(m * cut.m as i64));
            unit.extend(cut_n.then_some(n * cut.n as i64));
            Matrix { buffer: s.buffer, base: s.base, unit, iter: 0, row, col }
        };
        let dim = self.grid.len();
        Gemm {
            m: extent(r.len, cut.m, dim),
            n: extent(q.len, cut.n, dim + cut_m as usize),
            k: Extent::Fixed(self.k.0 as u32),
            a: matrix(a, (r.stride, self.k.1), [r.stride, 0]),
            b: matrix(b, (self.k.2, q.stride), [0, q.stride]),
            c: matrix(c, (r.out, q.out), [r.out, q.out]),
            alpha: 1.0,
            accumulate: false,
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
