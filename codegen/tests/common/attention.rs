//! Attentions as lowering makes them: queries `[b, t, h, r]` over keys `[b, s, h]`, in plain mathematics.
use super::Numbers;
use lolm_ir::interp::round_bf16;
use lolm_ir::kernel::{KAxis, KOp, KValue, Kernel, Mode, OperandId, View};
use lolm_ir::op::{Binary, Unary};
use lolm_ir::{DType, Scalar};

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Mask {
    Full,
    Causal,
    Window(i32),
    Ring(i32),
}

/// Rows of queries `[b, t, h, r]` over keys `[b, s, h]`; the query heads of one r share keys.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub dtype: DType,
    pub batch: usize,
    pub heads: usize,
    pub shared: usize,
    pub queries: usize,
    pub keys: usize,
    pub head: usize,
    pub wide: usize,
    pub mask: Mask,
    /// The position of the first query.
    pub start: i32,
    pub dropout: bool,
}

pub const CASE: Case = Case {
    dtype: DType::F32,
    batch: 2,
    heads: 2,
    shared: 1,
    queries: 70,
    keys: 70,
    head: 16,
    wide: 16,
    mask: Mask::Causal,
    start: 0,
    dropout: false,
};

/// What scores are made of, and the axes b, t, h, r, d, s, j.
pub struct Scores {
    pub axes: [KAxis; 7],
    pub q: KValue,
    pub k: KValue,
    pub scale: KValue,
    pub visible: Option<KValue>,
    pub masked: KValue,
}

/// Pushes values as lowering does.
pub struct Build(pub Kernel);

impl Build {
    pub fn push(&mut self, op: KOp, args: &[KValue], dtype: DType) -> KValue {
        self.0.push(op, args, dtype)
    }
    pub fn float(&mut self, x: f32) -> KValue {
        self.push(KOp::Const(Scalar::f32(x)), &[], DType::F32)
    }
    pub fn int(&mut self, x: i32) -> KValue {
        self.push(KOp::Const(Scalar::I32(x)), &[], DType::I32)
    }
    pub fn binary(&mut self, b: Binary, x: KValue, y: KValue) -> KValue {
        let dtype = if b.is_predicate() { DType::Bool } else { self.0.value(x).dtype };
        self.push(KOp::Binary(b), &[x, y], dtype)
    }
    pub fn unary(&mut self, u: Unary, x: KValue) -> KValue {
        self.push(KOp::Unary(u), &[x], DType::F32)
    }
    pub fn select(&mut self, c: KValue, x: KValue, y: KValue) -> KValue {
        self.push(KOp::Select, &[c, x, y], DType::F32)
    }
    /// A tensor over these axes, the last ones neighbours in memory.
    pub fn view(&self, axes: &[KAxis]) -> (View, usize) {
        let mut view = View::default();
        let mut stride = 1;
        for a in axes.iter().rev() {
            view.terms.push((*a, stride));
            stride *= self.0.axis(*a).len as i64;
        }
        view.terms.sort();
        (view, stride as usize)
    }
    pub fn load(&mut self, name: &str, dtype: DType, axes: &[KAxis]) -> KValue {
        let (view, len) = self.view(axes);
        let o = self.0.add_operand(name, dtype, len, Mode::In);
        let x = self.push(KOp::Load(o, view), &[], dtype);
        if dtype == DType::Bf16 { self.push(KOp::Cast(DType::F32), &[x], DType::F32) } else { x }
    }
    pub fn store(&mut self, name: &str, axes: &[KAxis], x: KValue) -> OperandId {
        let (view, len) = self.view(axes);
        let o = self.0.add_operand(name, DType::F32, len, Mode::Out);
        self.push(KOp::Store(o, view), &[x], DType::F32);
        o
    }
}

impl Case {
    pub fn visible(&self, b: &mut Build, t: KAxis, s: KAxis) -> Option<KValue> {
        if self.mask == Mask::Full {
            return None;
        }
        let now = b.load("qpos", DType::I32, &[t]);
        let key = b.push(KOp::Index(s), &[], DType::I32);
        let and = |b: &mut Build, x, y| b.binary(Binary::And, x, y);
        Some(match self.mask {
            Mask::Window(w) => {
                let causal = b.binary(Binary::Le, key, now);
                let w = b.int(w);
                let start = b.binary(Binary::Sub, now, w);
                let near = b.binary(Binary::Lt, start, key);
                and(b, causal, near)
            }
            Mask::Ring(w) => {
                let slots = b.int(self.keys as i32);
                let past = b.binary(Binary::Sub, now, key);
                let age = b.binary(Binary::Rem, past, slots);
                let past = b.binary(Binary::Le, age, now);
                let w = b.int(w);
                let near = b.binary(Binary::Lt, age, w);
                and(b, near, past)
            }
            Mask::Causal | Mask::Full => b.binary(Binary::Le, key, now),
        })
    }

    /// Scores that are -∞ where they are hidden, and what else follows from queries and keys.
    pub fn scores(&self) -> (Build, Scores) {
        let mut b = Build(Kernel { name: "attention".into(), ..Kernel::default() });
        let mut axis = |name: &str, len: usize| b.0.add_axis(name, len);
        let [bb, t, h, r, d, s, j] = [
            axis("b", self.batch),
            axis("t", self.queries),
            axis("h", self.heads),
            axis("r", self.shared),
            axis("d", self.head),
            axis("s", self.keys),
            axis("j", self.wide),
        ];
        let q = b.load("q", self.dtype, &[bb, t, h, r, d]);
        let k = b.load("k", self.dtype, &[bb, s, h, d]);
        let product = b.push(KOp::Dot(d), &[q, k], DType::F32);
        let scale = b.float((self.head as f32).sqrt().recip());
        let scaled = b.binary(Binary::Mul, product, scale);
        let visible = self.visible(&mut b, t, s);
        let masked = match visible {
            None => scaled,
            Some(c) => {
                let hidden = b.float(f32::NEG_INFINITY);
                b.select(c, scaled, hidden)
            }
        };
        (b, Scores { axes: [bb, t, h, r, d, s, j], q, k, scale, visible, masked })
    }

    /// What dropout multiplies the weights by.
    pub fn kept(&self, b: &mut Build, axes: [KAxis; 7]) -> Option<KValue> {
        let [bb, t, h, _, _, s, _] = axes;
        if !self.dropout {
            return None;
        }
        let (bi, ti) = (b.push(KOp::Index(bb), &[], DType::I32), b.push(KOp::Index(t), &[], DType::I32));
        let (hi, si) = (b.push(KOp::Index(h), &[], DType::I32), b.push(KOp::Index(s), &[], DType::I32));
        let mut at = bi;
        for (len, i) in [(self.heads, hi), (self.queries, ti), (self.keys, si)] {
            let len = b.int(len as i32);
            at = b.binary(Binary::Mul, at, len);
            at = b.binary(Binary::Add, at, i);
        }
        let (seed, step) = (b.load("seed", DType::I32, &[]), b.load("step", DType::I32, &[]));
        let draw = b.push(KOp::Random { site: 3 }, &[seed, step, at], DType::F32);
        let (rate, factor, zero) = (b.float(0.25), b.float(1.0 / 0.75), b.float(0.0));
        let keep = b.binary(Binary::Le, rate, draw);
        Some(b.select(keep, factor, zero))
    }

    pub fn data(&self, k: &Kernel, seed: u64) -> Vec<Vec<f64>> {
        let mut n = Numbers(seed);
        let mut one = |name: &str, i: usize, dtype: DType| match (name, dtype) {
            ("qpos", _) => (self.start + i as i32) as f64,
            // Of weights that are no greater than 1.
            ("lse", _) => 4.0 + n.unit(),
            (_, DType::F32) => 2.0 * n.unit(),
            (_, DType::Bf16) => round_bf16(2.0 * n.unit()),
            _ => 5.0,
        };
        k.operands.iter().map(|o| (0..o.len as usize).map(|i| one(&o.name, i, o.dtype)).collect()).collect()
    }
}
