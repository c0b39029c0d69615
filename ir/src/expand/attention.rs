//! Expansions of attention and its gradient.
use super::Expander;
use crate::axis::AxisId;
use crate::graph::ValueId;
use crate::op::{Attention, Binary, Mask, Op};

/// The scores of an attention in small operations.
struct Scores {
    /// scale · q·k, -∞ where hidden: [rows, keys]
    masked: ValueId,
    /// Which keys a row sees; nothing if all.
    visible: Option<ValueId>,
    /// What dropout multiplies the weights by.
    kept: Option<ValueId>,
}

impl Expander {
    fn scores(&mut self, a: &Attention, args: &[ValueId]) -> Scores {
        let over: Vec<AxisId> = a.over.iter().collect();
        let dot = self.b.dot(&over, args[0], args[1]); // [rows, keys]
        let scaled = self.b.scale(dot, a.scale());
        let visible = self.visible(a, args);
        let masked = match visible {
            None => scaled,
            Some(visible) => {
                let hidden = self.b.num(f32::NEG_INFINITY);
                self.b.select(visible, scaled, hidden)
            }
        };
        let first = 3 + a.has_qpos() as usize;
        let weights = self.axes(masked);
        let kept = a.dropout.map(|d| {
            let op = Op::Random { axes: weights.iter().collect(), site: d.site };
            let draw = self.b.op(op, &args[first..first + 2]);
            let (rate, one, zero) = (self.b.num(f32::from_bits(d.rate)), self.b.num(1.0), self.b.num(0.0));
            let rest = self.b.sub(one, rate);
            let factor = self.b.div(one, rest);
            let keep = self.b.le(rate, draw);
            self.b.select(keep, factor, zero)
        });
        Scores { masked, visible, kept }
    }

    fn visible(&mut self, a: &Attention, args: &[ValueId]) -> Option<ValueId> {
        let window = match a.mask {
            Mask::Full => return None,
            Mask::Causal => None,
            Mask::Window(w) => Some(w),
            Mask::Ring(w) => return Some(self.visible_in_ring(a.keys, w, args[3])),
        };
        let (qpos, s) = (args[3], self.b.iota(a.keys));
        let causal = self.b.le(s, qpos);
        let Some(w) = window else { return Some(causal) };
        // A window that no i32 can hold hides nothing that the positions could tell.
        let Ok(w) = i32::try_from(w) else { return Some(causal) };
        let w = self.b.int(w);
        let start = self.b.sub(qpos, w);
        let near = self.b.lt(start, s);
        Some(self.b.binary(Binary::And, causal, near))
    }

    /// `age < window` and `age <= qpos`.
    fn visible_in_ring(&mut self, keys: AxisId, window: usize, qpos: ValueId) -> ValueId {
        let s = self.b.iota(keys);
        let slots = self.b.int(self.b.graph().len(keys) as i32);
        let before = self.b.sub(qpos, s);
        let age = self.b.binary(Binary::Rem, before, slots);
        let past = self.b.le(age, qpos);
        // Every slot is younger than a window that no i32 can hold.
        let Ok(w) = i32::try_from(window) else { return past };
        let w = self.b.int(w);
        let near = self.b.lt(age, w);
        self.b.binary(Binary::And, near, past)
    }

    fn dropped(&mut self, weights: ValueId, kept: Option<ValueId>) -> ValueId {
        kept.map_or(weights, |k| self.b.mul(weights, k))
    }

    pub(super) fn attention(&mut self, a: &Attention, args: &[ValueId]) -> Vec<ValueId> {
        let scores = self.scores(a, args);
        let max = self.finite_max(scores.masked, a.keys); // [rows]
        let shifted = self.b.sub(scores.masked, max);
        let e = self.b.exp(shifted); // [rows, keys]
        let sum = self.b.sum(&[a.keys], e);
        let log = self.b.log(sum);
        let lse = self.b.add(max, log);
        // A row that sees a key has a term exp(0), so the sum is below 1 only where it is empty.
        let one = self.b.num(1.0);
        let denominator = self.b.max(sum, one);
        let weights = self.b.div(e, denominator);
        let weights = self.dropped(weights, scores.kept);
        let o = self.b.dot(&[a.keys], weights, args[2]);
        vec![o, lse]
    }

    pub(super) fn attention_grad(&mut self, a: &Attention, args: &[ValueId]) -> Vec<ValueId> {
        let [q, k, v] = [args[0], args[1], args[2]];
        let scores = self.scores(a, args);
        let rows = self.axes(scores.masked).without(a.keys);
        let results = rows.union(self.axes(v).without(a.keys));
        let last = args.len() - 3;
        let o = self.spread_to(args[last], results);
        let lse = self.spread_to(args[last + 1], rows);
        let d_o = self.spread_to(args[last + 2], results);

        let shifted = self.b.sub(scores.masked, lse);
        let mut p = self.b.exp(shifted); // [rows, keys]
        if let Some(visible) = scores.visible {
            let zero = self.b.num(0.0);
            p = self.b.select(visible, p, zero);
        }
        let dropped = self.dropped(p, scores.kept);
        let dv = self.contract_to(dropped, d_o, self.axes(v));

        let d_dropped = self.contract_to(d_o, v, rows.with(a.keys)); // [rows, keys]
        let d_weights = self.dropped(d_dropped, scores.kept);
        let delta = self.contract_to(d_o, o, rows);
        let difference = self.b.sub(d_weights, delta);
        let d_masked = self.b.mul(p, difference);
        let d_scores = self.b.scale(d_masked, a.scale());
        let dq = self.contract_to(d_scores, k, self.axes(q));
        let dk = self.contract_to(d_scores, q, self.axes(k));
        vec![dq, dk, dv]
    }
}
