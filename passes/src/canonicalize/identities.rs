//! The identities: each answers with a simpler value for an operation, or nothing.
use super::Rewriter;
use lolm_ir::axis::AxisId;
use lolm_ir::dtype::{DType, Scalar};
use lolm_ir::graph::Args;
use lolm_ir::graph::ValueId;
use lolm_ir::op::{Binary, Op, Unary};

impl Rewriter {
    pub(super) fn simpler(&mut self, op: &Op, args: &[ValueId]) -> Option<ValueId> {
        match op {
            Op::Unary(u) => self.unary(*u, args[0]),
            Op::Binary(b) => self.binary(*b, args[0], args[1]),
            Op::Select => self.select(args[0], args[1], args[2]),
            Op::Cast(d) => self.cast(*d, args[0]),
            Op::Rename { from, to } => self.rename(*from, *to, args[0]),
            Op::Shift { axis, by } => self.shift(*axis, *by, args[0]),
            Op::At { axis, index } => match self.operation(args[0]) {
                (Op::Stack { axis: a }, parts) if a == *axis => parts.get(*index).copied(),
                _ => None,
            },
            Op::Slice { axis, start, to } => self.slice(*axis, *start, *to, args[0]),
            Op::StopGradient => matches!(self.operation(args[0]).0, Op::StopGradient).then_some(args[0]),

            Op::Leaf(_) | Op::Const(_) | Op::Iota(_) | Op::Random { .. } => None,
            Op::Reduce { .. } | Op::ArgMax(_) | Op::Dot { .. } | Op::Recurrence { .. } => None,
            Op::Pad { .. } | Op::Stack { .. } | Op::Concat { .. } | Op::Gather { .. } => None,
            Op::ScatterAdd { .. } | Op::Update { .. } | Op::Part(_) => None,
            Op::Softmax { .. } | Op::LogSumExp { .. } | Op::LayerNorm { .. } | Op::RmsNorm { .. } => None,
            Op::Rope { .. } | Op::Mix | Op::CausalConv { .. } => None,
            Op::GatedRecurrence { .. } | Op::GatedRecurrenceGrad { .. } => None,
            Op::Attention(_) | Op::SelectiveScan { .. } | Op::CrossEntropy { .. } => None,
            Op::AttentionGrad(_) | Op::SelectiveScanGrad { .. } | Op::CrossEntropyGrad { .. } => None,
            Op::TopK { .. } | Op::Sample { .. } | Op::RoutedDot { .. } | Op::RoutedDotGrad { .. } => None,
        }
    }

    fn operation(&self, v: ValueId) -> (Op, Args) {
        let n = self.b.graph().node(v);
        (n.op.clone(), n.args.clone())
    }
    /// The operand of v, if v is this function.
    fn operand_of(&self, u: Unary, v: ValueId) -> Option<ValueId> {
        let n = self.b.graph().node(v);
        (n.op == Op::Unary(u)).then(|| n.args[0])
    }
    fn number(&self, v: ValueId) -> Option<f64> {
        match self.b.graph().constant(v)? {
            Scalar::Bool(_) => None,
            s @ (Scalar::F32(_) | Scalar::I32(_)) => Some(s.as_f64()),
        }
    }
    fn is(&self, v: ValueId, x: f64) -> bool {
        self.number(v) == Some(x)
    }

    fn unary(&self, u: Unary, x: ValueId) -> Option<ValueId> {
        match u {
            Unary::Neg | Unary::Not => self.operand_of(u, x),
            Unary::Abs | Unary::Exp | Unary::Log | Unary::Sqrt | Unary::Rsqrt | Unary::Erf | Unary::Tanh => None,
            Unary::Sigmoid | Unary::Silu | Unary::Gelu | Unary::GeluTanh | Unary::Softplus => None,
        }
    }

    fn binary(&mut self, b: Binary, x: ValueId, y: ValueId) -> Option<ValueId> {
        let negated = |v| self.operand_of(Unary::Neg, v);
        match b {
            Binary::Add if self.is(y, 0.0) => Some(x),
            Binary::Add if self.is(x, 0.0) => Some(y),
            Binary::Add => match (negated(x), negated(y)) {
                (_, Some(y)) => Some(self.make(Op::Binary(Binary::Sub), &[x, y])),
                (Some(x), None) => Some(self.make(Op::Binary(Binary::Sub), &[y, x])),
                (None, None) => None,
            },
            Binary::Sub if self.is(y, 0.0) => Some(x),
            Binary::Sub => negated(y).map(|y| self.make(Op::Binary(Binary::Add), &[x, y])),
            Binary::Mul => self.mul(x, y),
            Binary::Div => self.is(y, 1.0).then_some(x),
            Binary::Max | Binary::Min => (x == y).then_some(x),
            Binary::And if self.b.graph().constant(x) == Some(Scalar::Bool(true)) => Some(y),
            Binary::And if self.b.graph().constant(y) == Some(Scalar::Bool(true)) => Some(x),
            Binary::And => (x == y).then_some(x),
            Binary::Rem | Binary::Lt | Binary::Le | Binary::Eq => None,
        }
    }

    fn mul(&mut self, x: ValueId, y: ValueId) -> Option<ValueId> {
        let negated = |v| self.operand_of(Unary::Neg, v);
        if let (Some(x), Some(y)) = (negated(x), negated(y)) {
            return Some(self.make(Op::Binary(Binary::Mul), &[x, y]));
        }
        let (x, y) = if self.number(x).is_some() { (y, x) } else { (x, y) };
        match self.number(y)? {
            1.0 => Some(x),
            -1.0 => Some(self.make(Op::Unary(Unary::Neg), &[x])),
            c => self.scaled(x, y, c),
        }
    }

    /// x·c where x is a negation, or a product with another constant and the two constants have an exact product.
    fn scaled(&mut self, x: ValueId, c_id: ValueId, c: f64) -> Option<ValueId> {
        if let Some(x) = self.operand_of(Unary::Neg, x) {
            let c = self.make(Op::Unary(Unary::Neg), &[c_id]);
            return Some(self.make(Op::Binary(Binary::Mul), &[x, c]));
        }
        let (Op::Binary(Binary::Mul), inner) = self.operation(x) else { return None };
        let (x, d_id) = if self.number(inner[0]).is_some() { (inner[1], inner[0]) } else { (inner[0], inner[1]) };
        let d = self.number(d_id)?;
        // Scaling by a power of two is exact, so the order of the two products does not matter.
        if !is_power_of_two(c) && !is_power_of_two(d) {
            return None;
        }
        let both = self.make(Op::Binary(Binary::Mul), &[d_id, c_id]);
        self.number(both).filter(|p| *p == c * d)?;
        Some(self.make(Op::Binary(Binary::Mul), &[x, both]))
    }

    fn select(&mut self, cond: ValueId, x: ValueId, y: ValueId) -> Option<ValueId> {
        match self.b.graph().constant(cond) {
            Some(Scalar::Bool(true)) => return Some(x),
            Some(Scalar::Bool(false)) => return Some(y),
            Some(Scalar::F32(_) | Scalar::I32(_)) | None => {}
        }
        if x == y {
            return Some(x);
        }
        let inner = self.operand_of(Unary::Not, cond)?;
        Some(self.make(Op::Select, &[inner, y, x]))
    }

    /// A cast to the type that is there already, or back from a type that holds every value of the first.
    fn cast(&self, to: DType, x: ValueId) -> Option<ValueId> {
        let from = self.b.graph().ty(x).dtype;
        if from == to {
            return Some(x);
        }
        let (Op::Cast(_), inner) = self.operation(x) else { return None };
        let first = self.b.graph().ty(inner[0]).dtype;
        let lossless = match (first, from) {
            (DType::Bf16, DType::F32) | (DType::Bool, _) => true,
            (DType::F32 | DType::Bf16 | DType::I32, _) => false,
        };
        (first == to && lossless).then_some(inner[0])
    }

    fn rename(&mut self, from: AxisId, to: AxisId, x: ValueId) -> Option<ValueId> {
        let (Op::Rename { from: first, to: between }, inner) = self.operation(x) else { return None };
        if between != from {
            return None;
        }
        if first == to {
            return Some(inner[0]);
        }
        Some(self.make(Op::Rename { from: first, to }, &inner))
    }

    /// Two shifts in the same direction are one; in opposite directions they lose elements.
    fn shift(&mut self, axis: AxisId, by: i64, x: ValueId) -> Option<ValueId> {
        if by == 0 {
            return Some(x);
        }
        match self.operation(x) {
            (Op::Shift { axis: a, by: first }, inner) if a == axis && first.signum() == by.signum() => {
                let by = first.checked_add(by)?;
                Some(self.make(Op::Shift { axis, by }, &inner))
            }
            _ => None,
        }
    }

    /// A slice of the whole axis is a rename, and a slice that is a part of a concat is that part.
    fn slice(&mut self, axis: AxisId, start: usize, to: AxisId, x: ValueId) -> Option<ValueId> {
        if self.b.graph().len(axis) == self.b.graph().len(to) {
            return Some(self.make(Op::Rename { from: axis, to }, &[x]));
        }
        let (Op::Concat { axis: a, parts }, inner) = self.operation(x) else { return None };
        if a != axis {
            return None;
        }
        let mut at = 0;
        for (part, v) in parts.iter().zip(inner) {
            if at == start && *part == to {
                return Some(v);
            }
            at += self.b.graph().len(*part);
        }
        None
    }
}

fn is_power_of_two(x: f64) -> bool {
    x != 0.0 && x.is_finite() && x.to_bits() & ((1 << 52) - 1) == 0
}
