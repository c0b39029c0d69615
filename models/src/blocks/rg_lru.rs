//! The real-gated linear recurrent unit of Griffin (De et al. 2024), up to the recurrence itself.
use super::{linear, sigmoid, softplus, sqrt_bounded};
use lolm_ir::{AxisId, Builder, ValueId};

/// How sharply the recurrence gate turns the decay; the paper's c.
const SHARPNESS: f32 = 8.0;

/// The weights of a unit whose width is `heads · block`, over the axes h (heads), j and k (a block, under two names).
#[derive(Clone, Copy, Debug)]
pub struct RgLru {
    pub j: AxisId,
    pub k: AxisId,
    /// Λ: softplus(Λ) is the rate of the fastest decay. `[h, j]`
    pub recurrent_param: ValueId,
    /// The maps of both gates, from k to j: `[h, k, j]`, and their biases: `[h, j]`.
    pub input_gate: (ValueId, ValueId),
    pub recurrent_gate: (ValueId, ValueId),
}

/// What the recurrence `S_t = decay_t · S_{t-1} + drive_t` multiplies by and adds, of x `[b, t, h, j]`, both over its axes:
/// with r and i the gates, `decay = exp(-8 · r · softplus(Λ))` and `drive = √(1 - decay²) · i · x`. `positions` (`[t]` or
/// `[b, t]`) say where the tokens stand: at position 0 the decay is 0 and the root is 1, so that a sequence starts anew.
pub fn rg_lru(b: &mut Builder, w: &RgLru, x: ValueId, positions: ValueId) -> (ValueId, ValueId) {
    let from = b.rename(x, w.j, w.k); // [b, t, h, k]
    let gate = |b: &mut Builder, (map, bias): (ValueId, ValueId)| {
        let y = linear(b, &[w.k], from, map, Some(bias)); // [b, t, h, j]
        sigmoid(b, y)
    };
    let (i, r) = (gate(b, w.input_gate), gate(b, w.recurrent_gate)); // [b, t, h, j] each
    let rate = softplus(b, w.recurrent_param); // [h, j]
    let sharp = b.scale(r, -SHARPNESS);
    let log_a = b.mul(sharp, rate); // [b, t, h, j]
    let a = b.exp(log_a);
    let twice = b.scale(log_a, 2.0);
    let squared = b.exp(twice);
    let one = b.num(1.0);
    let rest = b.sub(one, squared);
    let root = sqrt_bounded(b, rest); // [b, t, h, j]

    let start = b.int(0);
    let first = b.eq(positions, start); // [t] or [b, t]
    let zero = b.num(0.0);
    let decay = b.select(first, zero, a);
    let scale = b.select(first, one, root);
    let gated = b.mul(x, i);
    (decay, b.mul(gated, scale))
}
