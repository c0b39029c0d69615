//! Random fused operations and their gradients.
use super::Generator;
use crate::axis::{AxisId, AxisSet};
use crate::dtype::DType;
use crate::graph::ValueId;
use crate::op::{Attention, Dropout, Mask, Op};

const NONE: AxisSet = AxisSet::EMPTY;

impl Generator<'_> {
    pub(super) fn fused(&mut self) {
        match self.pick(11) {
            0 => self.softmax(),
            1 => self.norm(),
            2 => self.rope(),
            3 | 4 => self.attention(),
            5 => self.scan(),
            6 => self.mix(),
            7 => self.conv(),
            8 => self.gated_recurrence(),
            9 => self.routed_dot(),
            _ => self.cross_entropy(),
        }
    }

    fn softmax(&mut self) {
        let axis = self.axis("d");
        let x = self.float(axis.into(), NONE);
        let op = if self.chance(2) { Op::Softmax { axis } } else { Op::LogSumExp { axis } };
        self.b.op(op, &[x]);
    }

    fn norm(&mut self) {
        let (axis, eps) = (self.axis("d"), 1e-2f32.to_bits());
        let x = self.float(axis.into(), NONE);
        let dtype = self.dtype_of(x);
        let (weight, bias) = (self.operand(dtype, axis.into()), self.operand(dtype, axis.into()));
        match self.pick(4) {
            0 => self.b.op(Op::LayerNorm { axis, eps }, &[x]),
            1 => self.b.op(Op::LayerNorm { axis, eps }, &[x, weight, bias]),
            2 => self.b.op(Op::RmsNorm { axis, eps }, &[x]),
            _ => self.b.op(Op::RmsNorm { axis, eps }, &[x, weight]),
        };
    }

    fn rope(&mut self) {
        let (pair, table) = (self.axis("p"), self.axes("t d"));
        let x = self.float(pair.into(), NONE);
        let (cos, sin) = (self.operand(self.dtype_of(x), table), self.operand(self.dtype_of(x), table));
        self.b.op(Op::Rope { pair }, &[x, cos, sin]);
    }

    fn mix(&mut self) {
        let g = self.float(NONE, NONE);
        let (a, b) = (self.any_axes(NONE, NONE), self.any_axes(NONE, NONE));
        let (a, b) = (self.operand(self.dtype_of(g), a), self.operand(self.dtype_of(g), b));
        self.b.op(Op::Mix, &[g, a, b]);
    }

    fn conv(&mut self) {
        let (time, tap) = (self.axis("t"), self.axis("k"));
        let x = self.float(time.into(), tap.into());
        let (dtype, channel) = (self.dtype_of(x), self.any_axes(NONE, self.axes("t k")));
        let mut args = vec![x, self.operand(dtype, channel.with(tap))];
        if self.chance(2) {
            args.push(self.operand(dtype, channel));
        }
        self.b.op(Op::CausalConv { time, tap }, &args);
    }

    fn attention(&mut self) {
        let (keys, over) = (self.axis("s"), self.axes("d"));
        let (shared, row, batch) = (self.axis("h"), self.axis("t"), self.axis("b"));
        let dtype = self.dtype();
        let group = if self.chance(3) { self.axes("p") } else { NONE };
        let (q, k) = (self.axes("t h b d").union(group), self.some_of(self.axes("h b")).union(self.axes("s d")));
        let v = self.some_of(AxisSet::of(&[shared, batch])).union(self.axes("s e"));
        let mut args = vec![self.operand(dtype, q), self.operand(dtype, k), self.operand(dtype, v)];
        let window = self.one_of(&[1, 2, 33, 500]);
        let mask = self.one_of(&[Mask::Full, Mask::Causal, Mask::Window(window), Mask::Ring(window)]);
        if mask != Mask::Full {
            args.push(self.query_positions(row, batch, keys));
        }
        let dropout = self.chance(3).then(|| Dropout { rate: 0.25f32.to_bits(), site: self.b.site() });
        if dropout.is_some() {
            args.extend([self.operand(DType::I32, NONE), self.operand(DType::I32, NONE)]);
        }
        let a = Attention { keys, over, scale: 0.3f32.to_bits(), mask, dropout };
        let forward = self.b.op(Op::Attention(a), &args);
        let results = self.parts(forward);
        if self.chance(2) {
            let d_o = self.operand(dtype, self.axes_of(results[0]));
            args.extend([results[0], results[1], d_o]);
            let backward = self.b.op(Op::AttentionGrad(a), &args);
            self.parts(backward);
        }
    }

    /// The index of the row; or the same from where a sequence goes on; or any order of positions. A row that saw no key
    /// would have -∞ for its log-sum-exp.
    fn query_positions(&mut self, row: AxisId, batch: AxisId, keys: AxisId) -> ValueId {
        let here = self.b.iota(row);
        let (first, last) = (self.b.int(0), self.b.int(self.b.graph().len(keys) as i32 - 1));
        let some = self.some_of(AxisSet::of(&[batch]));
        match self.pick(3) {
            0 => here,
            1 => {
                let start = self.operand(DType::I32, some);
                let start = self.b.max(start, first);
                let position = self.b.add(start, here);
                self.b.min(position, last)
            }
            _ => {
                let position = self.operand(DType::I32, some.with(row));
                let (position, near) = (self.b.max(position, first), self.b.int(2));
                self.b.min(position, near)
            }
        }
    }

    fn scan(&mut self) {
        let (time, state, dtype) = (self.axis("t"), self.axis("n"), self.dtype());
        let (wide, narrow) = (self.axes("b t e"), self.axes("t e"));
        let u = if self.chance(2) { narrow } else { wide };
        let types = [wide, self.axes("e n"), self.axes("b t n"), self.axes("t n"), u];
        let mut args = types.map(|axes| self.operand(dtype, axes)).to_vec();
        // A decay above 1 would let the state grow without bound.
        let (rate, step) = (self.positive(args[1]), self.positive(args[0]));
        (args[0], args[1]) = (step, self.b.neg(rate));
        if self.chance(2) {
            let init = self.operand(dtype, self.axes("b e n"));
            let with_init: Vec<_> = args.iter().copied().chain([init]).collect();
            let forward = self.b.op(Op::SelectiveScan { time, state }, &with_init);
            self.parts(forward);
        } else {
            let forward = self.b.op(Op::SelectiveScan { time, state }, &args);
            let y = self.parts(forward)[0];
            args.push(self.operand(dtype, self.axes_of(y)));
            let backward = self.b.op(Op::SelectiveScanGrad { time, state }, &args);
            self.parts(backward);
        }
    }

    fn gated_recurrence(&mut self) {
        let (time, dtype) = (self.axis("t"), self.dtype());
        let wide = self.axes("b t e");
        let narrow = if self.chance(2) { wide } else { self.axes("t e") };
        let (x, rate, here) = (self.operand(dtype, wide), self.operand(dtype, narrow), self.axes("b t"));
        // A decay above 1 has no root, and at 1 the root has no derivative.
        let (rate, least) = (self.positive(rate), self.b.num(0.1));
        let least = self.b.cast(least, dtype);
        let rate = self.b.add(rate, least);
        let log_a = self.b.neg(rate);
        let start = self.operand(DType::I32, here);
        let zero = self.b.int(0);
        let reset = self.b.le(start, zero);
        let mut args = vec![log_a, x, reset];
        if self.chance(2) {
            args.push(self.operand(dtype, wide.without(time)));
            let forward = self.b.op(Op::GatedRecurrence { time }, &args);
            self.parts(forward);
            return;
        }
        let forward = self.b.op(Op::GatedRecurrence { time }, &args);
        let h = self.parts(forward)[0];
        if narrow == wide {
            args.extend([h, self.operand(dtype, wide)]);
            let backward = self.b.op(Op::GatedRecurrenceGrad { time }, &args);
            self.parts(backward);
        }
    }

    /// Rows that share x and rows that do not, and the gradient of the experts.
    fn routed_dot(&mut self) {
        let (expert, over, dtype) = (self.axis("v"), self.axis("d"), self.dtype());
        let rows = self.some_of(self.axes("t h")).with(self.axis("b"));
        let own = self.some_of(rows);
        let x = self.operand(dtype, own.with(over));
        let (w, index) = (self.operand(dtype, self.axes("v d e")), self.operand(DType::I32, rows));
        let y = self.b.op(Op::RoutedDot { expert, over }, &[x, w, index]);
        if self.chance(2) {
            let dy = self.operand(dtype, self.axes_of(y));
            self.b.op(Op::RoutedDotGrad { expert }, &[x, dy, index]);
        }
    }

    fn cross_entropy(&mut self) {
        let (vocab, over, dtype) = (self.axis("v"), self.axes("d"), self.dtype());
        let (o, e) = (self.operand(dtype, self.axes("b t d")), self.operand(dtype, self.axes("v d")));
        let mut args = vec![o, e, self.operand(DType::I32, self.axes("b t"))];
        let cap = self.chance(2).then_some(2f32.to_bits());
        let forward = self.b.op(Op::CrossEntropy { vocab, over, cap }, &args);
        let results = self.parts(forward);
        if self.chance(2) {
            args.extend([results[1], self.operand(DType::F32, self.axes("b t"))]);
            let backward = self.b.op(Op::CrossEntropyGrad { vocab, over, cap }, &args);
            self.parts(backward);
        }
    }
}
