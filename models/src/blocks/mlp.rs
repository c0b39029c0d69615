//! The gated MLP of Llama and its kin (Shazeer 2020).
use super::{linear, silu};
use crate::cx::Cx;
use lolm_ir::graph::{Dim, Init};
use lolm_ir::{AxisId, ValueId};

/// Where the three maps are named, and whether they have biases.
pub struct MlpNames {
    /// What stands before `gate_proj` and so on.
    pub prefix: String,
    pub bias: bool,
}

/// `down_proj·(act(gate_proj x) ⊙ up_proj x)` through the width f. `[b, t, d]`
pub fn gated_mlp<S>(
    cx: &mut Cx<S>,
    f: AxisId,
    names: &MlpNames,
    x: ValueId,
    act: impl FnOnce(&mut Cx<S>, ValueId) -> ValueId,
) -> ValueId {
    let d = cx.ax.d;
    let map = |cx: &mut Cx<S>, part: &str, out: AxisId, from: Dim, x: ValueId| {
        let w = cx.map(&format!("{}.{part}.weight", names.prefix), vec![out], from.clone());
        let name = format!("{}.{part}.bias", names.prefix);
        let bias = names.bias.then(|| cx.param(&name, Init::Zeros, &[vec![out]]));
        linear(cx, &from, x, w, bias)
    };
    let gate = map(cx, "gate_proj", f, vec![d], x); // [b, t, f]
    let up = map(cx, "up_proj", f, vec![d], x); // [b, t, f]
    let gate = act(cx, gate);
    let y = cx.mul(gate, up);
    map(cx, "down_proj", d, vec![f], y)
}

/// A gated MLP with SiLU.
pub fn swiglu<S>(cx: &mut Cx<S>, f: AxisId, names: &MlpNames, x: ValueId) -> ValueId {
    gated_mlp(cx, f, names, x, |cx, gate| silu(cx, gate))
}
