//! Random small operations.
use super::Generator;
use crate::axis::{AxisId, AxisSet};
use crate::dtype::{DType, Scalar};
use crate::graph::ValueId;
use crate::op::{Binary, Op, Reduction, Unary};

const NONE: AxisSet = AxisSet::EMPTY;

impl Generator<'_> {
    pub(super) fn small(&mut self) {
        match self.pick(17) {
            0 | 1 => self.unary(),
            2 | 3 => self.binary(),
            4 => self.integers(),
            5 => self.select(),
            6 => self.casts(),
            7 => self.reduce(),
            8 | 9 => self.dot(),
            10 => self.recurrence(),
            11 | 12 => self.moves(),
            13 => self.joins(),
            14 => self.indexed(),
            15 => self.constants(),
            _ => self.random(),
        }
    }

    fn unary(&mut self) {
        let x = self.float(NONE, NONE);
        let u = self.one_of(&Unary::ALL);
        let x = match u {
            Unary::Log | Unary::Sqrt | Unary::Rsqrt => self.positive(x),
            Unary::Exp => self.b.unary(Unary::Tanh, x),
            Unary::Not => return,
            Unary::Neg | Unary::Abs | Unary::Erf | Unary::Tanh => x,
            Unary::Sigmoid | Unary::Silu | Unary::Gelu | Unary::GeluTanh | Unary::Softplus => x,
        };
        if self.options.fused || !u.is_fused() {
            self.b.unary(u, x);
        }
    }

    fn binary(&mut self) {
        let x = self.float(NONE, NONE);
        let axes = self.any_axes(NONE, NONE);
        let y = self.operand(self.dtype_of(x), axes);
        let smooth = [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Max, Binary::Min];
        let steps = [Binary::Lt, Binary::Le, Binary::Eq];
        let op = if self.options.steps && self.chance(4) { self.one_of(&steps) } else { self.one_of(&smooth) };
        let y = if op == Binary::Div { self.positive(y) } else { y };
        self.b.binary(op, x, y);
    }

    fn integers(&mut self) {
        let (axes, others) = (self.any_axes(NONE, NONE), self.any_axes(NONE, NONE));
        let (x, y) = (self.operand(DType::I32, axes), self.operand(DType::I32, others));
        let three = self.b.int(3);
        match self.pick(4) {
            0 => {
                let op = self.one_of(&[Binary::Add, Binary::Sub, Binary::Mul, Binary::Max, Binary::Min]);
                self.b.binary(op, x, y)
            }
            1 => {
                let op = self.one_of(&[Binary::Rem, Binary::Div]);
                self.b.binary(op, x, three)
            }
            2 => {
                let (less, equal) = (self.b.lt(x, y), self.b.eq(x, three));
                self.b.binary(Binary::And, less, equal)
            }
            _ => {
                let less = self.b.le(x, y);
                self.b.unary(Unary::Not, less)
            }
        };
    }

    fn select(&mut self) {
        let axes = self.any_axes(NONE, NONE);
        let cond = self.operand(DType::Bool, axes);
        let x = self.float(NONE, NONE);
        let axes = self.any_axes(NONE, NONE);
        let y = self.operand(self.dtype_of(x), axes);
        self.b.select(cond, x, y);
    }

    fn casts(&mut self) {
        let from = self.one_of(&DType::ALL);
        let to = self.one_of(&DType::ALL);
        let step = from.is_float() && !to.is_float();
        if (self.options.bf16 || (from != DType::Bf16 && to != DType::Bf16)) && (self.options.steps || !step) {
            let axes = self.any_axes(NONE, NONE);
            let x = self.operand(from, axes);
            self.b.op(Op::Cast(to), &[x]);
        }
    }

    fn reduce(&mut self) {
        let with = self.one_of(&["t", "d t", "n"]);
        let (with, kind) = (self.axes(with), self.one_of(&Reduction::ALL));
        let x = self.float(with, NONE);
        match with.single() {
            Some(axis) if self.options.steps && self.chance(3) => self.b.op(Op::ArgMax(axis), &[x]),
            Some(axis) if self.options.steps && self.chance(3) => self.greatest(axis, x),
            Some(axis) if self.options.steps && self.chance(3) => self.sample(axis, x),
            _ => self.b.op(Op::Reduce { kind, axes: with }, &[x]),
        };
    }

    /// The greatest few, as values or as indices.
    fn greatest(&mut self, axis: AxisId, x: ValueId) -> ValueId {
        let free = ["k", "p"].map(|n| self.axis(n)).into_iter().find(|k| !self.axes_of(x).has(*k) && *k != axis);
        let Some(k) = free else { return x };
        let both = self.b.op(Op::TopK { axis, k }, &[x]);
        let which = self.pick(2);
        self.b.part(both, which)
    }

    /// A draw, under settings some of which are rows' own.
    fn sample(&mut self, axis: AxisId, x: ValueId) -> ValueId {
        let x = self.b.cast(x, DType::F32);
        let setting = |s: &mut Self, choices: &[f32]| {
            let c = s.one_of(choices);
            s.b.num(c)
        };
        let temperature = setting(self, &[0.0, 0.5, 1.0]);
        let (top_p, min_p) = (setting(self, &[0.4, 1.0]), setting(self, &[0.0, 0.3]));
        let k = self.pick(4) as i32;
        let top_k = self.b.int(k);
        let axes = self.any_axes(NONE, axis.into());
        let uniform = self.operand(DType::F32, axes);
        let uniform = self.b.unary(Unary::Sigmoid, uniform);
        self.b.op(Op::Sample { axis }, &[x, temperature, top_k, top_p, min_p, uniform])
    }

    fn dot(&mut self) {
        let with = self.one_of(&["d", "t", "d h", "n"]);
        let axes = self.axes(with);
        let x = self.float(axes, NONE);
        let others = self.any_axes(axes, NONE);
        let y = self.operand(self.dtype_of(x), others);
        self.b.op(Op::Dot { axes }, &[x, y]);
    }

    fn recurrence(&mut self) {
        let (axis, reverse) = (self.axis("t"), self.chance(2));
        let (a, axes) = (self.float(NONE, NONE), self.any_axes(NONE, NONE));
        let mut args = vec![a, self.operand(self.dtype_of(a), axes)];
        if self.chance(2) {
            let axes = self.any_axes(NONE, axis.into());
            args.push(self.operand(self.dtype_of(a), axes));
        }
        self.b.op(Op::Recurrence { axis, reverse }, &args);
    }

    /// One operand to other indices.
    fn moves(&mut self) {
        let [t, s, d, k] = ["t", "s", "d", "k"].map(|n| self.axis(n));
        match self.pick(6) {
            0 => {
                let x = self.float(t.into(), s.into());
                self.b.rename(x, t, s);
            }
            1 => {
                let (x, index) = (self.float(d.into(), NONE), self.pick(4));
                self.b.at(x, d, index);
            }
            2 => {
                let (x, start) = (self.float(d.into(), k.into()), self.pick(3));
                self.b.slice(x, d, start, k);
            }
            3 => {
                let (x, start) = (self.float(k.into(), d.into()), self.pick(3));
                self.b.op(Op::Pad { axis: k, start, to: d }, &[x]);
            }
            4 => {
                let (x, by) = (self.float(t.into(), NONE), self.pick(9) as i64 - 4);
                self.b.shift(x, t, by);
            }
            _ => {
                let x = self.float(NONE, NONE);
                self.b.stop_gradient(x);
            }
        }
    }

    fn joins(&mut self) {
        let [d, n, w, p] = ["d", "n", "w", "p"].map(|n| self.axis(n));
        if self.chance(2) {
            let x = self.float(NONE, p.into());
            let axes = self.any_axes(NONE, p.into());
            let y = self.operand(self.dtype_of(x), axes);
            self.b.op(Op::Stack { axis: p }, &[x, y]);
        } else {
            let x = self.float(d.into(), w.into());
            let axes = self.any_axes(n.into(), w.into());
            let y = self.operand(self.dtype_of(x), axes);
            self.b.op(Op::Concat { axis: w, parts: vec![d, n] }, &[x, y]);
        }
    }

    fn indexed(&mut self) {
        let (axis, kind) = (self.axis("v"), self.pick(3));
        match kind {
            0 => {
                let (x, axes) = (self.float(axis.into(), NONE), self.any_axes(NONE, axis.into()));
                let index = self.operand(DType::I32, axes);
                self.b.gather(x, axis, index);
            }
            1 => {
                let (x, axes) = (self.float(NONE, axis.into()), self.any_axes(NONE, axis.into()));
                let index = self.operand(DType::I32, axes);
                let over = self.some_of(axes.union(self.axes_of(x)));
                let sum = self.b.op(Op::ScatterAdd { axis, over }, &[index, x]);
                if self.chance(2) {
                    self.b.op(Op::ScatterAdd { axis, over }, &[index, x, sum]);
                }
            }
            _ => {
                let base = self.float(axis.into(), NONE);
                let rows = self.axes_of(base).without(axis);
                // An axis that the base lacks would have to address distinct elements.
                let (index_axes, axes) = (self.some_of(rows), self.some_of(rows));
                let (index, x) = (self.operand(DType::I32, index_axes), self.operand(self.dtype_of(base), axes));
                self.b.op(Op::Update { axis }, &[base, index, x]);
            }
        }
    }

    fn constants(&mut self) {
        let axis = self.one_of(&["t", "v", "d"]);
        let axis = self.axis(axis);
        let numbers = [0.0, -0.0, 1.0, -1.5, 1e-30, 0.1, 3e7];
        match self.pick(4) {
            0 => self.b.iota(axis),
            1 => {
                let x = self.one_of(&numbers);
                self.b.num(x)
            }
            2 => {
                let i = self.pick(9) as i32 - 4;
                self.b.int(i)
            }
            _ => {
                let b = self.chance(2);
                self.b.op(Op::Const(Scalar::Bool(b)), &[])
            }
        };
    }

    fn random(&mut self) {
        let (seed, step) = (self.operand(DType::I32, NONE), self.operand(DType::I32, NONE));
        let axes: Vec<_> = self.any_axes(NONE, NONE).iter().rev().collect();
        self.b.random(seed, step, &axes);
    }
}
