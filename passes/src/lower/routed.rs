//! Routed: the products of a mixture of experts, over rows that are grouped by expert once for each index.
//!
//! A product of many rows is cut in ranges of the grouped rows, wherever experts begin and end, and one of few rows in
//! ranges of columns; the gradient of the experts is cut in ranges of the rows or the columns of every matrix. So the
//! units are equally large even if all rows go to one expert, and of few rows only the chosen matrices are read.
use super::Lowering;
use super::contract::{SKINNY, UNITS, by_stride, tile};
use super::storage::{Storage, merged};
use lolm_ir::axis::AxisId;
use lolm_ir::op::Op;
use lolm_ir::plan::{BufferId, Extent, Gives, Group, Kind, Launch, Matrices, Place, Routed, Rows, Stage, Step};
use lolm_ir::{DType, Graph, ValueId};

/// Rows that are brought together for one product, and the elements that they may have.
const BLOCK: usize = 512;
const BLOCK_ELEMENTS: usize = 1 << 21;
/// The same where rows are summed: the terms of a sum that form one chain of additions (`gemm`), or a multiple.
const SUMMED: usize = 256;
/// Rows or columns of a matrix of sums, below which a unit would do little but bring rows together.
const LEAST: usize = 128;

/// The rows of an index in the order of their experts.
#[derive(Clone)]
pub(super) struct Grouped {
    order: BufferId,
    starts: BufferId,
    /// The axes that number the rows, outermost first.
    rows: Vec<AxisId>,
    count: usize,
}

/// A product of rows with the matrices of their experts: `y = x · w` with w `[expert, depth, width]`.
struct Product<'a> {
    grouped: Grouped,
    experts: usize,
    x: (&'a Storage, AxisId),
    w: (&'a Storage, AxisId),
    y: (&'a Storage, AxisId),
}

impl Lowering<'_> {
    pub(super) fn routed_dot(&mut self, v: ValueId) -> Result<(), String> {
        let g = self.cx.g;
        let n = g.node(v);
        let Op::RoutedDot { expert, over } = n.op else { return Err("bug: not a routed product".into()) };
        let out = g.axes_of(n.args[1]).without(expert).without(over).single();
        let out = out.ok_or("bug: a routed product without columns")?;
        let grouped = self.grouped(n.args[2], g.len(expert))?;
        let (x, w, y) = (self.seen(n.args[0])?, self.seen(n.args[1])?, self.seen(v)?);
        let p = Product { grouped, experts: g.len(expert), x: (&x, over), w: (&w, expert), y: (&y, out) };
        self.rows_of_experts(&p);
        Ok(())
    }

    pub(super) fn routed_dot_grad(&mut self, v: ValueId) -> Result<(), String> {
        let g = self.cx.g;
        let n = g.node(v);
        let Op::RoutedDotGrad { expert } = n.op else { return Err("bug: not a routed gradient".into()) };
        let own = |i: usize| g.axes_of(n.args[i]).minus(g.axes_of(n.args[2])).single();
        let (over, out) = own(0).zip(own(1)).ok_or("bug: a routed gradient without a matrix")?;
        let grouped = self.grouped(n.args[2], g.len(expert))?;
        let (x, w, y) = (self.seen(n.args[0])?, self.seen(v)?, self.seen(n.args[1])?);
        let p = Product { grouped, experts: g.len(expert), x: (&x, over), w: (&w, expert), y: (&y, out) };
        self.sums_of_experts(&p);
        Ok(())
    }

    fn seen(&self, v: ValueId) -> Result<Storage, String> {
        self.cx.view(v).ok_or(format!("bug: operand %{} of a routed product is not in memory", v.0))
    }

    /// The grouping of an index, made where it is used first.
    fn grouped(&mut self, index: ValueId, experts: usize) -> Result<Grouped, String> {
        if let Some(known) = self.groups.get(&(index, experts)) {
            return Ok(known.clone());
        }
        let g = self.cx.g;
        let mut s = self.seen(index)?;
        let rows = by_stride(g.axes_of(index), &s);
        let count = g.elements(g.axes_of(index));
        if count > 1 && merged(g, &rows, |a| s.stride(a)) != Some((count, 1)) {
            let b = self.add_buffer("routes", DType::I32, count, Place::Arena(0));
            let to = Storage::row_major(g, b, rows.iter().copied());
            self.copy("copy.routes", index, &to);
            s = to;
        }
        let order = self.add_buffer("rows_by_expert", DType::I32, count, Place::Arena(0));
        let starts = self.add_buffer("expert_starts", DType::I32, experts + 1, Place::Arena(0));
        let group = Group { rows: count as u32, experts: experts as u32, index: s.buffer, base: s.base, order, starts };
        self.steps.push(Step::Launch(Launch {
            name: format!("group_{count}_by_{experts}"),
            kind: Kind::Gather,
            grid: vec![1],
            stages: vec![Stage::Group(Box::new(group))],
            flops: 0,
            bytes: 4 * (2 * count + experts + 1) as u64,
        }));
        let grouped = Grouped { order, starts, rows, count };
        self.groups.insert((index, experts), grouped.clone());
        Ok(grouped)
    }

    fn rows_of_experts(&mut self, p: &Product) {
        let (rows, depth, width) = (p.grouped.count, self.cx.g.len(p.x.1), self.cx.g.len(p.y.1));
        let by_rows = rows > SKINNY * p.experts && 4 * rows >= width;
        let len = if by_rows { rows } else { width };
        let cut = if rows > SKINNY { tile(len, UNITS) } else { columns_of_few(width) };
        let (taken, columns) = if by_rows { (cut, width) } else { (rows, cut) };
        let block = (BLOCK_ELEMENTS / depth).clamp(SKINNY, BLOCK).min(taken);
        let columns = columns.min(lolm_ir::plan::ROUTED_COLUMNS as usize);
        let tiles = [self.scratch("rows.x", block * depth), self.scratch("rows.y", block * columns)];
        let cuts = Cuts { taken: by_rows.then_some(cut), depth: None, width: (!by_rows).then_some(cut) };
        let stage = p.stage(self.cx.g, Gives::Rows, &cuts, block, tiles);
        // Each matrix is read by those units that take rows of its expert; a decode step reads the chosen ones only.
        let matrices = p.experts.min(rows);
        let stored = self.cx.buffer(p.w.0.buffer).dtype.bytes();
        let bytes = 4 * rows * (depth + width) + stored * matrices * depth * width;
        self.routed_launch("routed", [rows, width, depth], len.div_ceil(cut), stage, bytes);
    }

    fn sums_of_experts(&mut self, p: &Product) {
        let (rows, depth, width) = (p.grouped.count, self.cx.g.len(p.x.1), self.cx.g.len(p.y.1));
        // Each unit brings all rows of the side that is not cut together. Lanes run along the side whose elements are
        // neighbours in a matrix, so the other one is cut.
        let by_depth = match (p.w.0.stride(p.x.1), p.w.0.stride(p.y.1)) {
            (_, 1) => true,
            (1, _) => false,
            _ => depth > width,
        };
        let len = if by_depth { depth } else { width };
        let cut = tile(len, UNITS).max(LEAST).min(len);
        let (high, wide) = if by_depth { (cut, width) } else { (depth, cut) };
        let tiles = [self.scratch("rows.x", SUMMED * high), self.scratch("rows.y", SUMMED * wide)];
        let cuts = Cuts { taken: None, depth: by_depth.then_some(cut), width: (!by_depth).then_some(cut) };
        let stage = p.stage(self.cx.g, Gives::Experts, &cuts, SUMMED, tiles);
        let bytes = 4 * (rows * (depth + width) + p.experts * depth * width);
        self.routed_launch("routed_grad", [depth, width, rows], len.div_ceil(cut), stage, bytes);
    }

    fn routed_launch(&mut self, name: &str, [m, n, k]: [usize; 3], units: usize, stage: Routed, bytes: usize) {
        let name = format!("{name}_{m}x{n}x{k}");
        let stages = vec![Stage::Routed(Box::new(stage))];
        let (flops, bytes) = ((2 * m * n * k) as u64, bytes as u64);
        self.steps.push(Step::Launch(Launch {
            name,
            kind: Kind::Contract,
            grid: vec![units as u32],
            stages,
            flops,
            bytes,
        }));
    }
}

/// Columns of a unit where the time goes into reading the matrices: many units give each thread the same share.
fn columns_of_few(width: usize) -> usize {
    width.div_ceil(4 * UNITS).next_multiple_of(16).min(512).min(width)
}

/// The length of a tile along the one side that the units cut.
struct Cuts {
    taken: Option<usize>,
    depth: Option<usize>,
    width: Option<usize>,
}

impl Product<'_> {
    fn stage(&self, g: &Graph, gives: Gives, cuts: &Cuts, block: usize, tiles: [BufferId; 2]) -> Routed {
        let extent = |len: usize, cut: Option<usize>| match cut {
            Some(tile) if tile < len => Extent::Tile { dim: 0, tile: tile as u32, len: len as u32 },
            Some(_) | None => Extent::Fixed(len as u32),
        };
        let (depth, width) = (self.x.1, self.y.1);
        let along = |cut: Option<usize>, stride: i64| cut.map_or(0, |c| c as i64 * stride);
        let rows = |s: &Storage, col: AxisId, cut: Option<usize>| Rows {
            buffer: s.buffer,
            base: s.base,
            unit: vec![along(cut, s.stride(col))],
            dims: digits(g, &self.grouped.rows, s),
            col: s.stride(col),
        };
        let w = self.w.0;
        let (row, col) = (w.stride(depth), w.stride(width));
        Routed {
            gives,
            rows: self.grouped.count as u32,
            experts: self.experts as u32,
            order: self.grouped.order,
            starts: self.grouped.starts,
            taken: extent(self.grouped.count, cuts.taken),
            depth: extent(g.len(depth), cuts.depth),
            width: extent(g.len(width), cuts.width),
            x: rows(self.x.0, depth, cuts.depth),
            w: Matrices {
                buffer: w.buffer,
                base: w.base,
                unit: vec![along(cuts.depth, row) + along(cuts.width, col)],
                expert: w.stride(self.w.1),
                row,
                col,
            },
            y: rows(self.y.0, width, cuts.width),
            block: block as u32,
            tiles,
        }
    }
}

/// Lengths and strides of the row's axes, those merged that lie one in the other.
fn digits(g: &Graph, rows: &[AxisId], s: &Storage) -> Vec<(u32, i64)> {
    let mut out: Vec<(u32, i64)> = vec![];
    for a in rows.iter().filter(|a| g.len(**a) > 1) {
        let (len, stride) = (g.len(*a) as u32, s.stride(*a));
        match out.last_mut() {
            Some(outer) if outer.1 == stride * len as i64 => *outer = (outer.0 * len, stride),
            _ => out.push((len, stride)),
        }
    }
    out
}
