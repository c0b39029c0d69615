//! The cross-entropy of a head and its gradient, without the logits of all tokens at once.
//!
//! Forward: a unit is a tile of tokens; a matrix product leaves their logits in scratch memory and a row kernel reduces
//! them. Backward goes over tiles of tokens in turn: their logits again, the gradient in place, then both products; the
//! gradient of the embedding adds up over tiles in order, its rows shared among the threads. Where the loss itself is
//! wanted from the same logits (training), the row kernel of the backward tile gives it too.
use super::index::{Index, Map};
use super::storage::{Storage, merged};
use super::stream::Stream;
use super::{Built, Lowering};
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::kernel::{Fold, KAxis, KOp, KValue};
use lolm_ir::op::{Binary, Op, Unary};
use lolm_ir::plan::{Access, BufferId, Extent, Gemm, Kind, Launch, Matrix, Span, Stage, Step};
use lolm_ir::{DType, ValueId};

/// Bytes of logits that a tile may hold: forward in each thread's scratch, backward once.
const FORWARD_TILE: usize = 16 << 20;
const BACKWARD_TILE: usize = 512 << 20;
/// Rows or columns of one unit of a product.
const UNIT: usize = 512;
/// Stands for an index that is several axes of the graph at once.
const ROW: AxisId = AxisId(u8::MAX);

/// A head: logits\[row, v\] = Σ o\[row, d\] · e\[v, d\], each side with merged strides.
pub(super) struct Head {
    pub rows: Vec<AxisId>,
    pub over: Vec<AxisId>,
    pub tokens: usize,
    pub vocab: AxisId,
    pub words: usize,
    pub depth: usize,
    /// Logits are cap · tanh(· / cap).
    pub cap: Option<f32>,
    pub o: Side,
    pub e: Side,
}

/// Tensors of one element a token, in the head's order of rows.
pub(super) struct Columns {
    pub target: Storage,
    /// The gradient of the loss.
    pub up: Storage,
    /// The log of the denominator: written with the loss, where the loss is computed too, or else read.
    pub lse: Storage,
    pub loss: Option<Storage>,
}

/// A matrix in memory: strides of its rows (tokens or words) and of the contracted dimension.
#[derive(Clone, Copy)]
pub(super) struct Side {
    pub buffer: BufferId,
    pub base: i64,
    pub row: i64,
    pub depth: i64,
}

impl Side {
    fn matrix(&self, from: usize, unit: i64) -> Matrix {
        let base = self.base + from as i64 * self.row;
        Matrix { buffer: self.buffer, base, unit: vec![unit * self.row], iter: 0, row: self.row, col: self.depth }
    }
}

impl Lowering<'_> {
    pub(super) fn cross_entropy(&mut self, v: ValueId) -> Result<(), String> {
        let n = self.cx.g.node(v);
        let Op::CrossEntropy { vocab, over, cap } = n.op else { return Err("bug: not a cross-entropy".into()) };
        let h = self.head(v, vocab, over, cap)?;
        let tile = (FORWARD_TILE / (4 * h.words)).clamp(8, 256).min(h.tokens);
        let logits = self.scratch("logits", tile * h.words);
        let extent = Extent::Tile { dim: 0, tile: tile as u32, len: h.tokens as u32 };
        let c = Matrix { buffer: logits, base: 0, unit: vec![], iter: 0, row: h.words as i64, col: 1 };
        let product = Gemm {
            m: extent,
            n: Extent::Fixed(h.words as u32),
            k: Extent::Fixed(h.depth as u32),
            a: h.o.matrix(0, tile as i64),
            b: turned(h.e.matrix(0, 0)),
            c,
            alpha: 1.0,
            accumulate: false,
        };
        let losses = self.losses(v, &h, logits, tile);
        let stages = vec![Stage::Gemm(Box::new(product)), self.add_stage(losses)];
        let name = format!("cross_entropy_{}x{}x{}", h.tokens, h.words, h.depth);
        let grid = vec![h.tokens.div_ceil(tile) as u32];
        let flops = (2 * h.tokens * h.words * h.depth) as u64;
        let bytes = 4 * (h.words * h.depth + h.tokens * h.depth) as u64;
        self.steps.push(Step::Launch(Launch { name, kind: Kind::CrossEntropy, grid, stages, flops, bytes }));
        Ok(())
    }

    pub(super) fn cross_entropy_grad(&mut self, v: ValueId) -> Result<(), String> {
        let n = self.cx.g.node(v);
        let Op::CrossEntropyGrad { vocab, over, cap } = n.op else { return Err("bug: not a gradient".into()) };
        let h = self.head(v, vocab, over, cap)?;
        let (d_o, d_e) = (self.result_as(v, 0, &[&h.rows, &h.over])?, self.result_as(v, 1, &[&[vocab], &h.over])?);
        let (d_o, d_e) = (self.side(&d_o, &h.rows, &h.over)?, self.side(&d_e, &[vocab], &h.over)?);
        let columns = self.columns(v, &h)?;
        let most = (BACKWARD_TILE / (4 * h.words)).clamp(8, 2048);
        let tile = h.tokens.div_ceil(h.tokens.div_ceil(most));
        let p = self.temporary("logits", tile * h.words);
        let p = Side { buffer: p, base: 0, row: h.words as i64, depth: 1 };
        for lo in (0..h.tokens).step_by(tile) {
            let rows = tile.min(h.tokens - lo);
            let (words, depth) = (h.words, h.depth);
            // Logits of the tile, a range of words a unit.
            let a = Matrix { unit: vec![], ..h.o.matrix(lo, 0) };
            let c = Matrix { unit: vec![UNIT as i64], ..p.matrix(0, 0) };
            self.product([rows, words, depth], 1, a, turned(h.e.matrix(0, UNIT as i64)), c, false);
            self.slopes(&h, &columns, p.buffer, lo, rows)?;
            // dO of the tile, a quarter of its rows a unit: each reads the whole embedding.
            let few = rows.div_ceil(4).max(32);
            let b = Matrix { unit: vec![], ..h.e.matrix(0, 0) };
            self.product_in(
                [rows, depth, words],
                0,
                few,
                p.matrix(0, few as i64),
                b,
                d_o.matrix(lo, few as i64),
                false,
            );
            // dE, a range of words a unit, on top of the tiles before.
            let a = Matrix { unit: vec![UNIT as i64], ..turned(p.matrix(0, 0)) };
            let b = Matrix { unit: vec![], ..h.o.matrix(lo, 0) };
            self.product([words, depth, rows], 0, a, b, d_e.matrix(0, UNIT as i64), lo > 0);
        }
        Ok(())
    }

    /// A matrix of these rows, whose columns are the contracted dimension.
    pub(super) fn side(&self, s: &Storage, rows: &[AxisId], over: &[AxisId]) -> Result<Side, String> {
        let one = |axes: &[AxisId]| {
            let m = merged(self.cx.g, axes, |a| s.stride(a)).map(|m| m.1);
            m.ok_or("bug: the head's operands are not matrices in memory".to_string())
        };
        Ok(Side { buffer: s.buffer, base: s.base, row: one(rows)?, depth: one(over)? })
    }

    pub(super) fn head(&mut self, v: ValueId, vocab: AxisId, over: AxisSet, cap: Option<u32>) -> Result<Head, String> {
        let g = self.cx.g;
        let n = g.node(v);
        if g.axes_of(n.args[1]) != over.with(vocab) {
            return Err("limit: the embedding of a head is one matrix, the same for every token".into());
        }
        let view = self.cx.view(n.args[0]).ok_or("bug: an operand of a head is not in memory")?;
        let by_stride = |axes: AxisSet| {
            let mut v: Vec<AxisId> = axes.iter().collect();
            v.sort_by_key(|a| std::cmp::Reverse(view.stride(*a)));
            v
        };
        let (rows, over) = (by_stride(g.axes_of(n.args[0]).minus(over)), by_stride(over));
        let (o, e) = (self.operand_as(n.args[0], &[&rows, &over])?, self.operand_as(n.args[1], &[&[vocab], &over])?);
        let (o, e) = (self.side(&o, &rows, &over)?, self.side(&e, &[vocab], &over)?);
        let (tokens, depth) = (g.elements(AxisSet::of(&rows)), g.elements(AxisSet::of(&over)));
        let cap = cap.map(f32::from_bits);
        Ok(Head { rows, over, tokens, vocab, words: g.len(vocab), depth, cap, o, e })
    }

    /// What a row of the gradient reads and writes beside its logits.
    pub(super) fn columns(&mut self, v: ValueId, h: &Head) -> Result<Columns, String> {
        let args = &self.cx.g.node(v).args;
        let (target, up) = (self.operand_as(args[2], &[&h.rows])?, self.operand_as(args[4], &[&h.rows])?);
        let (lse, loss) = match self.loss_of(v) {
            None => (self.operand_as(args[3], &[&h.rows])?, None),
            Some(forward) => (self.result_as(forward, 1, &[&h.rows])?, Some(self.result_as(forward, 0, &[&h.rows])?)),
        };
        Ok(Columns { target, up, lse, loss })
    }

    /// The loss that this gradient's launch computes too.
    fn loss_of(&self, grad: ValueId) -> Option<ValueId> {
        let id = self.cx.clusters.owner[grad.0 as usize]?;
        let roots = &self.cx.clusters.groups[id.0 as usize].roots;
        roots.iter().copied().find(|r| matches!(self.cx.g.node(*r).op, Op::CrossEntropy { .. }))
    }

    fn product(&mut self, len: [usize; 3], cut: usize, a: Matrix, b: Matrix, c: Matrix, accumulate: bool) {
        self.product_in(len, cut, UNIT, a, b, c, accumulate)
    }

    /// A launch of one product (rows, columns, contracted), cut along rows (0) or columns (1) in tiles.
    fn product_in(&mut self, len: [usize; 3], cut: usize, t: usize, a: Matrix, b: Matrix, c: Matrix, accumulate: bool) {
        let mut e = len.map(|l| Extent::Fixed(l as u32));
        e[cut] = Extent::Tile { dim: 0, tile: t as u32, len: len[cut] as u32 };
        let [m, n, k] = e;
        let stage = Stage::Gemm(Box::new(Gemm { m, n, k, a, b, c, alpha: 1.0, accumulate }));
        let [rows, cols, deep] = len;
        self.steps.push(Step::Launch(Launch {
            name: format!("cross_entropy_dot_{rows}x{cols}x{deep}"),
            kind: Kind::CrossEntropy,
            grid: vec![len[cut].div_ceil(t) as u32],
            stages: vec![stage],
            flops: (2 * rows * cols * deep) as u64,
            bytes: 4 * (rows * cols + rows * deep + cols * deep) as u64,
        }));
    }

    /// Logits in scratch become the loss and the log of the denominator of each row.
    fn losses(&self, v: ValueId, h: &Head, logits: BufferId, tile: usize) -> Built {
        let n = self.cx.g.node(v);
        let stored: Vec<Storage> = self.cx.storage[v.0 as usize].iter().flatten().cloned().collect();
        let mut r = Rows::new(self, h, logits);
        let target = r.s.value(n.args[2], &r.map, None);
        let (x, chosen) = (r.logit(), r.is_target(target));
        let x = match h.cap {
            None => x,
            Some(cap) => {
                let tanh = tangent(&mut r.s, x, cap);
                scaled(&mut r.s, tanh, cap)
            }
        };
        let both = row_loss(&mut r.s, x, chosen, target, r.word);
        for (to, x) in stored.iter().zip(both.results) {
            r.s.store(to, &r.map, x);
        }
        let mut l = r.s.finish();
        l.kernel.name = format!("cross_entropy_rows_{}", h.words);
        let mut operands: Vec<Access> = l.buffers.iter().map(|b| Access::whole(*b)).collect();
        for (i, o) in operands.iter_mut().enumerate().filter(|(_, o)| o.buffer == logits) {
            o.rebase = h.words as i64;
            l.kernel.operands[i].len = (h.tokens * h.words) as u64;
        }
        Built { kernel: l.kernel, operands, span: Span::Tiles { len: h.tokens as u32, tile: tile as u32 } }
    }
}

/// tanh(x / cap)
pub(super) fn tangent(s: &mut Stream, x: KValue, cap: f32) -> KValue {
    let part = scaled(s, x, 1.0 / cap);
    s.unary(Unary::Tanh, part)
}
pub(super) fn scaled(s: &mut Stream, x: KValue, by: f32) -> KValue {
    let by = s.float(by);
    s.binary(Binary::Mul, x, by)
}

/// What a row of logits gives.
pub(super) struct RowLoss {
    /// The loss, and the log of the denominator.
    pub results: [KValue; 2],
    /// exp(x - max), and its sum along the row.
    pub weight: KValue,
    pub sum: KValue,
    /// Whether the target is one.
    pub counts: KValue,
}

pub(super) fn row_loss(s: &mut Stream, x: KValue, chosen: KValue, target: KValue, word: KAxis) -> RowLoss {
    let max = s.push(KOp::Reduce(Fold::Max, word), &[x], DType::F32);
    let shifted = s.binary(Binary::Sub, x, max);
    let weight = s.unary(Unary::Exp, shifted);
    let sum = s.push(KOp::Reduce(Fold::Sum, word), &[weight], DType::F32);
    let zero = s.float(0.0);
    let mine = s.select(chosen, x, zero);
    let picked = s.push(KOp::Reduce(Fold::Sum, word), &[mine], DType::F32);
    let log = s.unary(Unary::Log, sum);
    let lse = s.binary(Binary::Add, max, log);
    let loss = s.binary(Binary::Sub, lse, picked);
    let none = s.int(0);
    let counts = s.binary(Binary::Le, none, target);
    RowLoss { results: [s.select(counts, loss, zero), lse], weight, sum, counts }
}

fn turned(m: Matrix) -> Matrix {
    Matrix { row: m.col, col: m.row, ..m }
}

/// A kernel over rows of logits, one unit a token.
struct Rows<'a> {
    s: Stream<'a>,
    map: Map,
    units: Vec<KAxis>,
    word: KAxis,
    logits: BufferId,
}

impl<'a> Rows<'a> {
    fn new(lw: &'a Lowering<'_>, h: &Head, logits: BufferId) -> Self {
        let mut s = Stream::new(&lw.cx, None);
        let map = s.identity(AxisSet::of(&h.rows));
        let units: Vec<KAxis> = h.rows.iter().map(|a| s.axis(*a)).collect();
        s.k.units = units.iter().map(|u| (*u, 1)).collect();
        let word = s.axis(h.vocab);
        Rows { s, map, units, word, logits }
    }
    fn at(&self) -> (Storage, Map) {
        let mut stride = self.s.k.axis(self.word).len as i64;
        let mut at = Index::axis(self.word);
        for a in self.units.iter().rev() {
            at.add_scaled(&Index::axis(*a), stride);
            stride *= self.s.k.axis(*a).len as i64;
        }
        (Storage { buffer: self.logits, strides: vec![(ROW, 1)], base: 0 }, Map::default().with(ROW, at))
    }
    fn logit(&mut self) -> KValue {
        let (from, map) = self.at();
        self.s.load(&from, &map, None)
    }
    fn is_target(&mut self, target: KValue) -> KValue {
        let i = self.s.push(KOp::Index(self.word), &[], DType::I32);
        self.s.binary(Binary::Eq, i, target)
    }
}
