//! Contract: a large dot as matrix products of strided views, one tile of rows or columns a unit.
//!
//! Axes of both operands that are not contracted number separate products (`batch`); axes of one operand alone are rows
//! or columns where their strides merge, and otherwise number products too; contracted axes that do not merge are walked
//! by products that add up in order.
use super::storage::{Storage, merged};
use super::stream::Stream;
use super::{Built, Lowering, cost};
use crate::cluster::GroupId;
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::op::Op;
use lolm_ir::plan::{Access, Extent, Gemm, Kind, Launch, Matrix, Span, Stage, Step};
use lolm_ir::{Graph, ValueId};

/// Rows of a product below which its columns are cut instead: the skinny kernel takes them all at once.
pub(super) const SKINNY: usize = 16;

/// Units that a product is cut in: enough for the threads, few enough that packing an operand for each costs little.
pub(super) const UNITS: usize = 8;

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
        let launch = o.products.launch(self.cx.g, &o.a, &o.b, &o.c);
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
            let one = p.gemm((&o.a, &o.b, &o.c), Cut { rows: true, tile: t });
            let steps = walk_steps(g, &p.walk, &o.a, &o.b, one);
            let deep = p.k.0 * steps.len();
            flops += (2 * m * p.cols.len * deep) as u64;
            bytes += 4 * (m * deep + p.cols.len * deep) as u64;
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

/// Along which side a product is cut, in tiles of this length.
#[derive(Clone, Copy)]
struct Cut {
    rows: bool,
    tile: usize,
}

impl Products {
    fn launch(&self, g: &Graph, a: &Storage, b: &Storage, c: &Storage) -> Launch {
        let (m, n, k) = (self.rows.len, self.cols.len, self.k.0);
        let separate: usize = self.grid.iter().map(|x| g.len(*x)).product();
        let rows = m > SKINNY && m * 4 >= n;
        let len = if rows { m } else { n };
        let cut = Cut { rows, tile: tile(len, UNITS.div_ceil(separate)) };
        let gemm = self.gemm((a, b, c), cut);
        let grid = self.grid.iter().map(|x| g.len(*x) as u32).chain([len.div_ceil(cut.tile) as u32]).collect();
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

    /// The product of one unit.
    fn gemm(&self, (a, b, c): (&Storage, &Storage, &Storage), cut: Cut) -> Gemm {
        let dim = self.grid.len() as u8;
        let extent = |len: usize, this: bool| {
            if this == cut.rows && len > cut.tile {
                Extent::Tile { dim, tile: cut.tile as u32, len: len as u32 }
            } else {
                Extent::Fixed(len as u32)
            }
        };
        let matrix = |s: &Storage, row: i64, col: i64, along: i64| {
            let mut unit: Vec<i64> = self.grid.iter().map(|x| s.stride(*x)).collect();
            unit.push(along * cut.tile as i64);
            Matrix { buffer: s.buffer, base: s.base, unit, iter: 0, row, col }
        };
        let (r, q) = (&self.rows, &self.cols);
        let of = |this: bool, stride: i64| if this == cut.rows { stride } else { 0 };
        Gemm {
            m: extent(r.len, true),
            n: extent(q.len, false),
            k: Extent::Fixed(self.k.0 as u32),
            a: matrix(a, r.stride, self.k.1, of(true, r.stride)),
            b: matrix(b, self.k.2, q.stride, of(false, q.stride)),
            c: matrix(c, r.out, q.out, if cut.rows { r.out } else { q.out }),
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
