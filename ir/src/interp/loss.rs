//! The cross-entropy of a head, and its gradient, row by row: a row is one token.
use super::norm::log_sum_exp;
use super::{Call, Tensor};
use crate::axis::{AxisId, AxisSet};

/// Operands o (activations), e (embedding) and target with the offsets that every row needs.
struct Head<'a> {
    c: &'a Call<'a>,
    o: Vec<usize>,
    e: Vec<usize>,
    o_over: Vec<usize>,
    e_over: Vec<usize>,
    e_step: usize,
    vocab: usize,
    cap: Option<f64>,
    target: Vec<usize>,
    rows: AxisSet,
}

impl<'a> Head<'a> {
    fn new(c: &'a Call<'a>, vocab: AxisId, over: AxisSet, cap: Option<u32>) -> Self {
        let rows = c.args[0].set().union(c.args[1].set()).minus(over).without(vocab);
        let (o, e, target) = (c.offsets(0, rows), c.offsets(1, rows), c.offsets(2, rows));
        let (o_over, e_over, e_step) = (c.offsets(0, over), c.offsets(1, over), c.layout(1).stride(vocab));
        let cap = cap.map(|b| f32::from_bits(b) as f64);
        Head { c, o, e, o_over, e_over, e_step, vocab: c.len(vocab), cap, target, rows }
    }
    fn logits(&self, r: usize) -> Vec<f64> {
        let (o, e) = (&self.c.args[0].data, &self.c.args[1].data);
        let logit = |v: usize| {
            let terms = self.o_over.iter().zip(&self.e_over);
            let sum: f64 = terms.map(|(i, j)| o[self.o[r] + i] * e[self.e[r] + v * self.e_step + j]).sum();
            self.cap.map_or(sum, |cap| cap * (sum / cap).tanh())
        };
        (0..self.vocab).map(logit).collect()
    }
    /// The derivative of a logit by the sum that it is made of.
    fn slope(&self, logit: f64) -> f64 {
        self.cap.map_or(1.0, |cap| 1.0 - (logit / cap).powi(2))
    }
    /// The target of a row, which may be outside the vocabulary; nothing if it is to be ignored.
    fn target(&self, r: usize) -> Option<usize> {
        let t = self.c.args[2].data[self.target[r]];
        (t >= 0.0).then_some(t as usize)
    }
}

pub(super) fn cross_entropy(c: &Call, vocab: AxisId, over: AxisSet, cap: Option<u32>) -> Vec<Tensor> {
    let head = Head::new(c, vocab, over, cap);
    let (mut loss, mut lse) = (c.zeros(0), c.zeros(1));
    for r in 0..head.o.len() {
        let logits = head.logits(r);
        lse.data[r] = log_sum_exp(logits.iter().copied());
        if let Some(t) = head.target(r) {
            loss.data[r] = lse.data[r] - logits.get(t).unwrap_or(&0.0);
        }
    }
    vec![loss, lse]
}

/// dlogits = (softmax - onehot(target)) · dloss, 0 in a row that is ignored; times the slope of the cap.
pub(super) fn cross_entropy_grad(c: &Call, vocab: AxisId, over: AxisSet, cap: Option<u32>) -> Vec<Tensor> {
    let head = Head::new(c, vocab, over, cap);
    let (mut d_o, mut d_e) = (c.zeros(0), c.zeros(1));
    let (lse, d_loss) = (c.offsets(3, head.rows), c.offsets(4, head.rows));
    for r in 0..head.o.len() {
        let Some(target) = head.target(r) else { continue };
        for (v, logit) in head.logits(r).into_iter().enumerate() {
            let p = (logit - c.args[3].data[lse[r]]).exp();
            let d_logit = (p - (v == target) as u8 as f64) * c.args[4].data[d_loss[r]] * head.slope(logit);
            for (i, j) in head.o_over.iter().zip(&head.e_over) {
                let (o, e) = (head.o[r] + i, head.e[r] + v * head.e_step + j);
                d_o.data[o] += d_logit * c.args[1].data[e];
                d_e.data[e] += d_logit * c.args[0].data[o];
            }
        }
    }
    vec![d_o, d_e]
}
