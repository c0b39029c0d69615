//! Expansions of the cross-entropy of a head and its gradient.
use super::Expander;
use crate::axis::{AxisId, AxisSet};
use crate::dtype::DType;
use crate::graph::ValueId;
use crate::op::Unary;

impl Expander {
    fn logits(&mut self, o: ValueId, e: ValueId, over: AxisSet) -> ValueId {
        let over: Vec<AxisId> = over.iter().collect();
        self.b.dot(&over, o, e) // [rows, vocab]
    }
    /// The logits that the loss sees, and, where they are capped, the tangent whose multiple they are.
    fn capped(&mut self, logits: ValueId, cap: Option<u32>) -> (ValueId, Option<ValueId>) {
        let Some(cap) = cap else { return (logits, None) };
        let limit = self.b.num(f32::from_bits(cap));
        let part = self.b.div(logits, limit);
        let tanh = self.b.unary(Unary::Tanh, part);
        (self.b.mul(limit, tanh), Some(tanh))
    }
    /// x, or 0 in the rows whose target is negative.
    fn unless_ignored(&mut self, target: ValueId, x: ValueId) -> ValueId {
        let (none, zero) = (self.b.int(0), self.b.num(0.0));
        let ignored = self.b.lt(target, none);
        self.b.select(ignored, zero, x)
    }

    pub(super) fn cross_entropy(
        &mut self,
        x: &[ValueId],
        vocab: AxisId,
        over: AxisSet,
        cap: Option<u32>,
    ) -> Vec<ValueId> {
        let target = x[2];
        let logits = self.logits(x[0], x[1], over);
        let (logits, _) = self.capped(logits, cap);
        let lse = self.logsumexp(logits, vocab);
        let picked = self.b.gather(logits, vocab, target);
        let difference = self.b.sub(lse, picked);
        vec![self.unless_ignored(target, difference), lse]
    }

    /// The slope of a capped logit is 1 - tanh².
    pub(super) fn cross_entropy_grad(
        &mut self,
        x: &[ValueId],
        vocab: AxisId,
        over: AxisSet,
        cap: Option<u32>,
    ) -> Vec<ValueId> {
        let [o, e, target] = [x[0], x[1], x[2]];
        let logits = self.logits(o, e, over);
        let (logits, tanh) = self.capped(logits, cap);
        let rows = self.axes(logits).without(vocab);
        let (lse, d_loss) = (self.spread_to(x[3], rows), self.spread_to(x[4], rows));
        let shifted = self.b.sub(logits, lse);
        let p = self.b.exp(shifted);
        let index = self.b.iota(vocab);
        let hit = self.b.eq(index, target);
        let onehot = self.b.cast(hit, DType::F32);
        let difference = self.b.sub(p, onehot);
        let scaled = self.b.mul(difference, d_loss);
        let scaled = match tanh {
            None => scaled,
            Some(tanh) => {
                let square = self.b.mul(tanh, tanh);
                let bent = self.b.mul(scaled, square);
                self.b.sub(scaled, bent)
            }
        };
        let d_logits = self.unless_ignored(target, scaled); // [rows, vocab]
        let d_o = self.contract_to(d_logits, e, self.axes(o));
        let d_e = self.contract_to(d_logits, o, self.axes(e));
        vec![d_o, d_e]
    }
}
