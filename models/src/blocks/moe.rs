//! Mixture of experts: each token goes through the feed-forward maps of the k experts that a router prefers.
use super::{silu, softmax};
use lolm_ir::{AxisId, Builder, Op, ValueId};

/// The maps of all experts: the router `[expert, d]`, gate and up `[expert, f, d]`, down `[expert, d, f]`.
#[derive(Clone, Copy, Debug)]
pub struct Experts {
    pub router: ValueId,
    pub gate: ValueId,
    pub up: ValueId,
    pub down: ValueId,
}

/// The axes of a mixture: the model's width, the width of an expert, the experts, and the chosen ones of a token.
#[derive(Clone, Copy, Debug)]
pub struct ExpertAxes {
    pub d: AxisId,
    pub f: AxisId,
    pub expert: AxisId,
    pub k: AxisId,
}

/// `Σ_k p_k · down_k(silu(gate_k x) · up_k x)` over the k experts of greatest probability, p their softmax over all
/// experts. With `renormalise` (Mixtral) the chosen p sum to one; without (Jamba) they stay as they are.
pub fn moe(b: &mut Builder, ax: ExpertAxes, x: ValueId, w: Experts, renormalise: bool) -> ValueId {
    let ExpertAxes { d, f, expert, k } = ax;
    let logits = b.dot(&[d], x, w.router); // [b, t, expert]
    let probs = softmax(b, expert, logits);
    let top = b.op(Op::TopK { axis: expert, k }, &[probs]);
    let (p, index) = (b.part(top, 0), b.part(top, 1)); // [b, t, k]
    let total = renormalise.then(|| b.sum(&[k], p));
    let p = total.map_or(p, |total| b.div(p, total));
    let gate = routed(b, (d, expert), x, w.gate, index); // [b, t, k, f]
    let up = routed(b, (d, expert), x, w.up, index);
    let active = silu(b, gate);
    let h = b.mul(active, up);
    let y = routed(b, (f, expert), h, w.down, index); // [b, t, k, d]
    b.dot(&[k], p, y)
}

/// Each row through the matrix of its expert.
fn routed(b: &mut Builder, (over, expert): (AxisId, AxisId), x: ValueId, w: ValueId, index: ValueId) -> ValueId {
    let mine = b.gather(w, expert, index);
    b.dot(&[over], x, mine)
}
