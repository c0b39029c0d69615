//! The gradient of a head's logits, tile by tile: (softmax - onehot) · dloss, zero for ignored targets.
//!
//! The kernels number the rows of a tile; what they read of all rows starts at the tile's first. Where the loss is wanted
//! too, a first kernel leaves exp(x - max) in place of the logits, so that every exponential is computed once; capped
//! logits cap · tanh(z / cap) leave their tangents, which their slope 1 - tanh² needs.
use super::cross_entropy::{Columns, Head, row_loss, scaled, tangent};
use super::index::{Index, Map};
use super::storage::{Storage, merged};
use super::stream::Stream;
use super::{Built, Lowering};
use lolm_ir::DType;
use lolm_ir::axis::AxisId;
use lolm_ir::kernel::{KAxis, KOp, KValue};
use lolm_ir::op::{Binary, Unary};
use lolm_ir::plan::{Access, BufferId, Kind, Launch, Span, Step};

/// Rows of a unit: their logits stay in the cache from kernel to kernel.
const ROWS: usize = 2;
/// Stands for the rows of a tile, which are several axes of the graph at once.
const ROW: AxisId = AxisId(u8::MAX);

impl Lowering<'_> {
    /// Logits of rows `lo` and on, in `p`, become their gradient.
    pub(super) fn slopes(&mut self, h: &Head, c: &Columns, p: BufferId, lo: usize, rows: usize) -> Result<(), String> {
        let mut stages = vec![];
        match &c.loss {
            None => {
                let one = TileRows::new(self, h, c, p, lo, rows).slopes()?;
                stages.push(self.add_stage(one));
            }
            Some(loss) => {
                let factor = self.scratch("factor", ROWS);
                let first = TileRows::new(self, h, c, p, lo, rows).weights(loss, factor)?;
                stages.push(self.add_stage(first));
                let second = TileRows::new(self, h, c, p, lo, rows);
                let second = match h.cap {
                    None => second.slopes_of_weights(factor)?,
                    Some(cap) => second.slopes_of_tangents(factor, cap)?,
                };
                stages.push(self.add_stage(second));
            }
        }
        self.steps.push(Step::Launch(Launch {
            name: format!("cross_entropy_slopes_{rows}x{}", h.words),
            kind: Kind::CrossEntropy,
            grid: vec![rows.div_ceil(ROWS) as u32],
            stages,
            flops: (4 * rows * h.words) as u64,
            bytes: (8 * rows * h.words) as u64,
        }));
        Ok(())
    }
}

/// A kernel over the rows of a tile of logits.
struct TileRows<'a> {
    lw: &'a Lowering<'a>,
    s: Stream<'a>,
    head: &'a Head,
    columns: &'a Columns,
    row: KAxis,
    word: KAxis,
    map: Map,
    /// The tile, and this kernel's place in it.
    tile: Storage,
    here: Map,
    lo: usize,
    rows: usize,
    /// Buffers of all rows, and the element at which this tile's begin.
    starts: Vec<(BufferId, i64)>,
    /// Columns in scratch, of the rows of one unit.
    scratch: Vec<BufferId>,
}

impl<'a> TileRows<'a> {
    fn new(lw: &'a Lowering, head: &'a Head, columns: &'a Columns, p: BufferId, lo: usize, rows: usize) -> Self {
        let mut s = Stream::new(&lw.cx, None);
        let row = s.k.add_axis("row", rows);
        let word = s.axis(head.vocab);
        s.k.units = vec![(row, 1)];
        let map = Map::default().with(ROW, Index::axis(row));
        let mut at = Index::axis(word);
        at.add_scaled(&Index::axis(row), head.words as i64);
        let (tile, here) = (Storage { buffer: p, strides: vec![(ROW, 1)], base: 0 }, Map::default().with(ROW, at));
        TileRows { lw, s, head, columns, row, word, map, tile, here, lo, rows, starts: vec![], scratch: vec![] }
    }

    /// A column of one element a row, from this tile's first row on.
    fn column(&mut self, at: &Storage) -> Result<Storage, String> {
        let m = merged(self.lw.cx.g, &self.head.rows, |a| at.stride(a));
        let stride = m.ok_or("bug: the head's rows are not one dimension of memory")?.1;
        let start = (at.buffer, self.lo as i64 * stride);
        if self.starts.iter().any(|s| s.0 == start.0 && s.1 != start.1) {
            return Err("limit: columns of a head share a buffer in two layouts".into());
        }
        self.starts.push(start);
        Ok(Storage { strides: vec![(ROW, stride)], ..at.clone() })
    }
    fn load(&mut self, at: &Storage) -> Result<KValue, String> {
        let column = self.column(at)?;
        Ok(self.s.load(&column, &self.map, None))
    }
    fn scratch_column(&mut self, buffer: BufferId) -> Storage {
        self.scratch.push(buffer);
        Storage { buffer, strides: vec![(ROW, 1)], base: 0 }
    }
    fn is_target(&mut self, target: KValue) -> KValue {
        let i = self.s.push(KOp::Index(self.word), &[], DType::I32);
        self.s.binary(Binary::Eq, i, target)
    }

    /// Logits to gradient, with the log of the denominator known.
    fn slopes(mut self) -> Result<Built, String> {
        let lse = self.load(&self.columns.lse)?;
        let x = self.s.load(&self.tile, &self.here, None);
        let tanh = self.head.cap.map(|cap| (tangent(&mut self.s, x, cap), cap));
        let x = tanh.map_or(x, |(tanh, cap)| scaled(&mut self.s, tanh, cap));
        self.slope(x, tanh.map(|t| t.0), lse)?;
        Ok(self.finish("slopes"))
    }

    /// Tangents of capped logits to gradient, with the log of the denominator in scratch.
    fn slopes_of_tangents(mut self, lse: BufferId, cap: f32) -> Result<Built, String> {
        let from = self.scratch_column(lse);
        let lse = self.s.load(&from, &self.map, None);
        let tanh = self.s.load(&self.tile, &self.here, None);
        let x = scaled(&mut self.s, tanh, cap);
        self.slope(x, Some(tanh), lse)?;
        Ok(self.finish("slopes_of_tangents"))
    }

    /// Stores (exp(x - lse) - onehot) · dloss; times 1 - tanh² where the logit x is capped.
    fn slope(&mut self, x: KValue, tanh: Option<KValue>, lse: KValue) -> Result<(), String> {
        let c = self.columns;
        let (target, up) = (self.load(&c.target)?, self.load(&c.up)?);
        let chosen = self.is_target(target);
        let s = &mut self.s;
        let shifted = s.binary(Binary::Sub, x, lse);
        let e = s.unary(Unary::Exp, shifted);
        let one = s.float(1.0);
        let less = s.binary(Binary::Sub, e, one);
        let d = s.select(chosen, less, e);
        let (none, zero) = (s.int(0), s.float(0.0));
        let counts = s.binary(Binary::Le, none, target);
        let up = s.select(counts, up, zero);
        let d = s.binary(Binary::Mul, d, up);
        let d = match tanh {
            None => d,
            Some(tanh) => {
                let square = s.binary(Binary::Mul, tanh, tanh);
                let rest = s.binary(Binary::Sub, one, square);
                s.binary(Binary::Mul, d, rest)
            }
        };
        s.store(&self.tile, &self.here, d);
        Ok(())
    }

    /// Logits to exp(x - max), with the loss, the log of the denominator, and dloss over the denominator. Capped logits
    /// become their tangents, and the log of the denominator stands for the last.
    fn weights(mut self, loss: &Storage, factor: BufferId) -> Result<Built, String> {
        let c = self.columns;
        let (target, up) = (self.load(&c.target)?, self.load(&c.up)?);
        let chosen = self.is_target(target);
        let x = self.s.load(&self.tile, &self.here, None);
        let tanh = self.head.cap.map(|cap| (tangent(&mut self.s, x, cap), cap));
        let x = tanh.map_or(x, |(tanh, cap)| scaled(&mut self.s, tanh, cap));
        let row = row_loss(&mut self.s, x, chosen, target, self.word);
        for (to, x) in [loss, &c.lse].into_iter().zip(row.results) {
            let to = self.column(to)?;
            self.s.store(&to, &self.map, x);
        }
        let to = self.scratch_column(factor);
        let s = &mut self.s;
        let zero = s.float(0.0);
        let share = s.binary(Binary::Div, up, row.sum);
        let share = s.select(row.counts, share, zero);
        let (share, weight) = tanh.map_or((share, row.weight), |(tanh, _)| (row.results[1], tanh));
        s.store(&to, &self.map, share);
        s.store(&self.tile, &self.here, weight);
        Ok(self.finish("weights"))
    }

    /// exp(x - max) to gradient.
    fn slopes_of_weights(mut self, factor: BufferId) -> Result<Built, String> {
        let c = self.columns;
        let (target, up) = (self.load(&c.target)?, self.load(&c.up)?);
        let chosen = self.is_target(target);
        let from = self.scratch_column(factor);
        let s = &mut self.s;
        let (e, share) = (s.load(&self.tile, &self.here, None), s.load(&from, &self.map, None));
        let p = s.binary(Binary::Mul, e, share);
        let less = s.binary(Binary::Sub, p, up);
        let d = s.select(chosen, less, p);
        s.store(&self.tile, &self.here, d);
        Ok(self.finish("slopes_of_weights"))
    }

    fn finish(self, name: &str) -> Built {
        let span = Span::Tiles { len: self.rows as u32, tile: ROWS as u32 };
        let (starts, scratch, rows) = (self.starts, self.scratch, self.s.k.axis(self.row).len);
        let mut l = self.s.finish();
        l.kernel.name = format!("{name}_{}", self.head.words);
        let access = |b: &BufferId| {
            let base = starts.iter().find(|x| x.0 == *b).map_or(0, |x| x.1);
            Access { base, rebase: scratch.contains(b) as i64, ..Access::whole(*b) }
        };
        for (o, b) in l.kernel.operands.iter_mut().zip(&l.buffers) {
            if scratch.contains(b) {
                o.len = rows as u64;
            }
        }
        Built { kernel: l.kernel, operands: l.buffers.iter().map(access).collect(), span }
    }
}
