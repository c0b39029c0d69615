//! The cross-entropy of a head. A negative target is ignored.
use super::log_sum_exp;
use lolm_ir::{AxisId, Builder, ValueId};

/// The loss of each token, 0 where the target is negative: logits `[b, t, v]` to `[b, t]`.
pub fn token_loss(g: &mut Builder, v: AxisId, logits: ValueId, targets: ValueId) -> ValueId {
    let lse = log_sum_exp(g, v, logits); // [b, t]
    let picked = g.gather(logits, v, targets); // [b, t]
    let loss = g.sub(lse, picked);
    let (counts, nothing) = (counts(g, targets), g.num(0.0));
    g.select(counts, loss, nothing)
}

/// The mean of the losses of the tokens that have a target.
pub fn mean_over_targets(g: &mut Builder, b: AxisId, t: AxisId, token: ValueId, targets: ValueId) -> ValueId {
    let counts = counts(g, targets);
    let (one, zero) = (g.num(1.0), g.num(0.0));
    let counts = g.select(counts, one, zero); // [b, t]
    let n = g.sum(&[b, t], counts);
    let n = g.max(n, one);
    let sum = g.sum(&[b, t], token);
    g.div(sum, n)
}

/// `bool[b, t]`: true where there is a target.
fn counts(g: &mut Builder, targets: ValueId) -> ValueId {
    let zero = g.int(0);
    g.le(zero, targets)
}
