//! The cross-entropy of a head and its gradient for a GPU, without the logits of all tokens at once.
//!
//! Tokens are taken in parts. The logits of a part are one product; a kernel over its rows makes the loss of them, the log
//! of the denominator, and the gradient of the logits, in their place; two more products give what goes back to the rows
//! and to the embedding, which adds up over the parts in order. Where the operands are rounded to bf16, so is the gradient
//! of the logits, and lies in memory of its own.
//!
//! Rows of logits are as long as the vocabulary and a little longer, so that each starts where memory is read widest.
use super::cross_entropy::{Columns, Head, Side, row_loss, scaled, tangent};
use super::index::{Index, Map};
use super::storage::{Storage, merged};
use super::stream::{Lowered, Stream};
use super::{Lowering, cost};
use lolm_ir::axis::AxisId;
use lolm_ir::kernel::{KAxis, KOp, KValue};
use lolm_ir::op::{Binary, Op, Unary};
use lolm_ir::plan::{Access, BufferId, Kind, Launch, Place, Span, Stage, Step};
use lolm_ir::{DType, ValueId};

/// Bytes of logits that a part may have, and rows.
const LOGITS: usize = 512 << 20;
const ROWS: usize = 2048;
/// Rows of logits start at a multiple of so many elements.
const ALIGNED: usize = 64;
/// Stand for the tokens of a part and for the contracted dimension, which may be several axes of the graph at once.
const ROW: AxisId = AxisId(u8::MAX);
const DEPTH: AxisId = AxisId(u8::MAX - 1);

/// A head, cut in parts.
struct Parts<'h> {
    h: &'h Head,
    /// Tokens of a part; the last may have fewer.
    rows: usize,
    /// Elements from one row of logits to the next.
    pitch: usize,
    logits: BufferId,
    /// Where the gradient of the logits goes, if it is wanted.
    slopes: Option<BufferId>,
}

/// What a kernel of a part reads and writes for each token: in these buffers it starts at the part's first row.
struct Kernel<'a> {
    s: Stream<'a>,
    row: KAxis,
    map: Map,
    /// Buffers with elements for each token, and how far apart these lie.
    moving: Vec<(BufferId, i64)>,
}

/// Which part a launch takes: its number and rows, and whether it is repeated for those that follow.
#[derive(Clone, Copy)]
struct Part {
    number: usize,
    rows: usize,
}

impl Lowering<'_> {
    /// Losses alone.
    pub(super) fn head_losses(&mut self, v: ValueId) -> Result<(), String> {
        let Op::CrossEntropy { vocab, over, cap } = self.cx.g.node(v).op else {
            return Err("bug: not a cross-entropy".into());
        };
        let h = self.head(v, vocab, over, cap)?;
        let target = self.operand_as(self.cx.g.node(v).args[2], &[&h.rows])?;
        let (loss, lse) = (self.result_as(v, 0, &[&h.rows])?, self.result_as(v, 1, &[&h.rows])?);
        let parts = self.parts(&h, false);
        self.each_part(&parts, |lw, p| {
            let logits = lw.part_logits(&parts, p)?;
            let rows = lw.part_losses(&parts, p, &target, &loss, &lse)?;
            Ok(vec![logits, rows])
        })
    }

    /// The gradient, and the losses where they are wanted of the same logits.
    pub(super) fn head_gradient(&mut self, v: ValueId) -> Result<(), String> {
        let Op::CrossEntropyGrad { vocab, over, cap } = self.cx.g.node(v).op else {
            return Err("bug: not a gradient".into());
        };
        let h = self.head(v, vocab, over, cap)?;
        let (d_o, d_e) = (self.result_as(v, 0, &[&h.rows, &h.over])?, self.result_as(v, 1, &[&[vocab], &h.over])?);
        let (d_o, d_e) = (self.side(&d_o, &h.rows, &h.over)?, self.side(&d_e, &[vocab], &h.over)?);
        let columns = self.columns(v, &h)?;
        let parts = self.parts(&h, true);
        self.each_part(&parts, |lw, p| {
            let logits = lw.part_logits(&parts, p)?;
            let slopes = lw.part_slopes(&parts, p, &columns)?;
            let back = lw.part_rows(&parts, p, d_o)?;
            Ok(vec![logits, slopes, back, lw.part_words(&parts, p, d_e)?])
        })
    }

    fn parts<'h>(&mut self, h: &'h Head, slopes: bool) -> Parts<'h> {
        let pitch = h.words.next_multiple_of(ALIGNED);
        let rows = (LOGITS / (4 * pitch)).clamp(8, ROWS).min(h.tokens);
        let logits = self.temporary("logits", rows * pitch);
        let narrow = |s: &Side| self.cx.buffer(s.buffer).dtype == DType::Bf16;
        let slopes = match slopes {
            true if narrow(&h.o) && narrow(&h.e) => {
                Some(self.add_buffer("logits_grad", DType::Bf16, rows * pitch, Place::Arena(0)))
            }
            true => Some(logits),
            false => None,
        };
        Parts { h, rows, pitch, logits, slopes }
    }

    /// The launches of the first part, a loop over those that are alike, and those of a shorter last one.
    fn each_part(
        &mut self,
        parts: &Parts,
        mut launches: impl FnMut(&mut Self, Part) -> Result<Vec<Launch>, String>,
    ) -> Result<(), String> {
        let (whole, rest) = (parts.h.tokens / parts.rows, parts.h.tokens % parts.rows);
        let first = launches(self, Part { number: 0, rows: parts.rows })?;
        self.steps.extend(first.into_iter().map(Step::Launch));
        if whole > 1 {
            let body = launches(self, Part { number: 1, rows: parts.rows })?;
            self.steps.push(Step::Repeat { times: whole as u32 - 1, body });
        }
        if rest > 0 {
            let last = launches(self, Part { number: whole, rows: rest })?;
            self.steps.extend(last.into_iter().map(Step::Launch));
        }
        Ok(())
    }

    /// logits\[row, v\] = Σ o\[row, d\] · e\[v, d\]
    fn part_logits(&mut self, parts: &Parts, p: Part) -> Result<Launch, String> {
        let h = parts.h;
        let mut k = Kernel::new(self, p);
        let (word, depth) = (k.word(h), k.depth(h));
        let o = k.rows_of(&h.o);
        let e = words_of(h, &h.e);
        let (x, y) = (k.s.load(&o, &k.map, None), k.s.load(&e, &k.map, None));
        let z = k.s.push(KOp::Dot(depth), &[x, y], DType::F32);
        k.s.store(&parts.logits_at(h, parts.logits), &k.map, z);
        let name = format!("cross_entropy_logits_{}x{}", p.rows, k.s.k.axis(word).len);
        let (moving, l) = k.finish();
        self.part_launch(parts, p, name, moving, l)
    }

    /// Logits to the loss and the log of the denominator of each row.
    fn part_losses(
        &mut self,
        parts: &Parts,
        p: Part,
        target: &Storage,
        loss: &Storage,
        lse: &Storage,
    ) -> Result<Launch, String> {
        let mut k = Kernel::new(self, p);
        let word = k.word(parts.h);
        let (target, loss, lse) = (k.column(parts.h, target)?, k.column(parts.h, loss)?, k.column(parts.h, lse)?);
        let target = k.s.load(&target, &k.map, None);
        let (x, _) = k.logit(parts);
        let chosen = k.is_target(word, target);
        let row = row_loss(&mut k.s, x, chosen, target, word);
        for (to, x) in [loss, lse].iter().zip(row.results) {
            k.s.store(to, &k.map, x);
        }
        let (moving, l) = k.finish();
        self.part_launch(parts, p, format!("cross_entropy_rows_{}x{}", p.rows, parts.h.words), moving, l)
    }

    /// Logits to their gradient, (exp(x - lse) - onehot) · dloss; times 1 - tanh² where they are capped. An ignored row
    /// has none.
    fn part_slopes(&mut self, parts: &Parts, p: Part, c: &Columns) -> Result<Launch, String> {
        let mut k = Kernel::new(self, p);
        let word = k.word(parts.h);
        let (target, up, lse) = (k.column(parts.h, &c.target)?, k.column(parts.h, &c.up)?, k.column(parts.h, &c.lse)?);
        let (target, up) = (k.s.load(&target, &k.map, None), k.s.load(&up, &k.map, None));
        let (x, tanh) = k.logit(parts);
        let chosen = k.is_target(word, target);
        let lse = match &c.loss {
            None => k.s.load(&lse, &k.map, None),
            Some(loss) => {
                let loss = k.column(parts.h, loss)?;
                let row = row_loss(&mut k.s, x, chosen, target, word);
                for (to, x) in [loss, lse].iter().zip(row.results) {
                    k.s.store(to, &k.map, x);
                }
                row.results[1]
            }
        };
        let s = &mut k.s;
        let shifted = s.binary(Binary::Sub, x, lse);
        let e = s.unary(Unary::Exp, shifted);
        let (one, zero, none) = (s.float(1.0), s.float(0.0), s.int(0));
        let less = s.binary(Binary::Sub, e, one);
        let d = s.select(chosen, less, e);
        let counts = s.binary(Binary::Le, none, target);
        let up = s.select(counts, up, zero);
        let mut d = s.binary(Binary::Mul, d, up);
        if let Some(tanh) = tanh {
            let square = s.binary(Binary::Mul, tanh, tanh);
            let rest = s.binary(Binary::Sub, one, square);
            d = s.binary(Binary::Mul, d, rest);
        }
        let to = parts.slopes.ok_or("bug: a gradient without its logits")?;
        if self.cx.buffer(to).dtype == DType::Bf16 {
            d = s.push(KOp::Cast(DType::Bf16), &[d], DType::Bf16);
        }
        k.s.store(&parts.logits_at(parts.h, to), &k.map, d);
        let (moving, l) = k.finish();
        self.part_launch(parts, p, format!("cross_entropy_slopes_{}x{}", p.rows, parts.h.words), moving, l)
    }

    /// What goes back to the rows: dlogits · e.
    fn part_rows(&mut self, parts: &Parts, p: Part, to: Side) -> Result<Launch, String> {
        let h = parts.h;
        let mut k = Kernel::new(self, p);
        let (word, _) = (k.word(h), k.depth(h));
        let from = parts.logits_at(h, parts.slopes.ok_or("bug: a gradient without its logits")?);
        let e = words_of(h, &h.e);
        let (x, y) = (k.s.load(&from, &k.map, None), k.s.load(&e, &k.map, None));
        let d = k.s.push(KOp::Dot(word), &[x, y], DType::F32);
        let to = k.rows_of(&to);
        k.s.store(&to, &k.map, d);
        let (moving, l) = k.finish();
        self.part_launch(parts, p, format!("cross_entropy_dot_{}x{}x{}", p.rows, h.depth, h.words), moving, l)
    }

    /// What goes back to the embedding: dlogitsᵀ · o, on top of the parts before.
    fn part_words(&mut self, parts: &Parts, p: Part, to: Side) -> Result<Launch, String> {
        let h = parts.h;
        let mut k = Kernel::new(self, p);
        k.word(h);
        k.depth(h);
        let from = parts.logits_at(h, parts.slopes.ok_or("bug: a gradient without its logits")?);
        let o = k.rows_of(&h.o);
        let (x, y) = (k.s.load(&from, &k.map, None), k.s.load(&o, &k.map, None));
        let mut d = k.s.push(KOp::Dot(k.row), &[x, y], DType::F32);
        let to = words_of(h, &to);
        if p.number > 0 {
            let before = k.s.load(&to, &k.map, None);
            d = k.s.binary(Binary::Add, before, d);
        }
        k.s.store(&to, &k.map, d);
        let (moving, l) = k.finish();
        self.part_launch(parts, p, format!("cross_entropy_dot_{}x{}x{}", h.words, h.depth, p.rows), moving, l)
    }

    /// A launch of a kernel that numbers the rows of a part.
    fn part_launch(
        &mut self,
        parts: &Parts,
        p: Part,
        name: String,
        moving: Vec<(BufferId, i64)>,
        l: Lowered,
    ) -> Result<Launch, String> {
        let (flops, bytes) = cost::of(&l.kernel);
        let mut stage = self.stage(&name, l, Span::Same);
        if let Stage::Kernel(k) = &mut stage {
            for o in &mut k.operands {
                let mut strides = moving.iter().filter(|m| m.0 == o.buffer).map(|m| m.1);
                let by = strides.next().unwrap_or(0);
                if strides.any(|other| other != by) {
                    return Err("limit: columns of a head share a buffer in two layouts".into());
                }
                let by = by * parts.rows as i64;
                *o = Access { base: by * p.number as i64, iter: by, ..o.clone() };
            }
        }
        Ok(Launch { name, kind: Kind::CrossEntropy, grid: vec![], stages: vec![stage], flops, bytes })
    }
}

impl Parts<'_> {
    /// A matrix of logits.
    fn logits_at(&self, h: &Head, buffer: BufferId) -> Storage {
        Storage { buffer, strides: vec![(ROW, self.pitch as i64), (h.vocab, 1)], base: 0 }
    }
}

/// A matrix of one row a word.
fn words_of(h: &Head, side: &Side) -> Storage {
    Storage { buffer: side.buffer, strides: vec![(h.vocab, side.row), (DEPTH, side.depth)], base: side.base }
}

impl<'a> Kernel<'a> {
    fn new(lw: &'a Lowering<'_>, p: Part) -> Self {
        let mut s = Stream::new(&lw.cx, None);
        let row = s.k.add_axis("row", p.rows);
        Kernel { s, row, map: Map::default().with(ROW, Index::axis(row)), moving: vec![] }
    }
    fn word(&mut self, h: &Head) -> KAxis {
        let word = self.s.axis(h.vocab);
        self.map.set(h.vocab, Index::axis(word));
        word
    }
    fn depth(&mut self, h: &Head) -> KAxis {
        let depth = self.s.k.add_axis("depth", h.depth);
        self.map.set(DEPTH, Index::axis(depth));
        depth
    }
    /// A matrix of one row a token.
    fn rows_of(&mut self, side: &Side) -> Storage {
        self.moving.push((side.buffer, side.row));
        Storage { buffer: side.buffer, strides: vec![(ROW, side.row), (DEPTH, side.depth)], base: side.base }
    }
    /// A tensor of one element a token.
    fn column(&mut self, h: &Head, at: &Storage) -> Result<Storage, String> {
        let m = merged(self.s.graph(), &h.rows, |a| at.stride(a));
        let stride = m.ok_or("bug: the head's rows are not one dimension of memory")?.1;
        self.moving.push((at.buffer, stride));
        Ok(Storage { strides: vec![(ROW, stride)], ..at.clone() })
    }
    /// A logit as the loss sees it, and, where it is capped, the tangent whose multiple it is.
    fn logit(&mut self, parts: &Parts) -> (KValue, Option<KValue>) {
        let x = self.s.load(&parts.logits_at(parts.h, parts.logits), &self.map, None);
        let Some(cap) = parts.h.cap else { return (x, None) };
        let tanh = tangent(&mut self.s, x, cap);
        (scaled(&mut self.s, tanh, cap), Some(tanh))
    }
    fn is_target(&mut self, word: KAxis, target: KValue) -> KValue {
        let i = self.s.push(KOp::Index(word), &[], DType::I32);
        self.s.binary(Binary::Eq, i, target)
    }
    fn finish(self) -> (Vec<(BufferId, i64)>, Lowered) {
        (self.moving, self.s.finish())
    }
}
