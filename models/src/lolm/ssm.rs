//! The latent path: selective state-space layers of either kind.
use super::cx::{Axes, Cx};
use crate::blocks::{layer_norm, linear, silu, softplus, sum_of};
use crate::spec::{SsmKind, SsmSpec};
use lolm_ir::graph::Init;
use lolm_ir::{AxisId, ValueId};

/// Axes of a latent layer: inner features (under two names), the halves of `in_proj`, the state.
#[derive(Clone, Copy)]
struct Own {
    e: AxisId,
    k: AxisId,
    w: AxisId,
    n: AxisId,
}

/// The size of the signal that enters a row of mamba layers at the start of training, and what a layer's last map
/// multiplies by to keep it: the root mean square of silu(1 + x) · silu(y) is about half of that of x and y at this size.
const START: f32 = 0.5;
const RESTORED: f32 = 2.0;

/// h to z. `[b, t, d]`
pub fn ssm(cx: &mut Cx, spec: &SsmSpec, h: ValueId) -> ValueId {
    cx.scope("ssm.proj_in");
    let (Axes { d, c, .. }, inner) = (cx.ax, spec.expand * cx.spec.d_model);
    let w = cx.axis("w", 2);
    let own = Own { e: cx.axis("e", inner), k: cx.axis("k", inner), w, n: cx.axis("n", spec.d_state) };
    let init = match spec.kind {
        SsmKind::Native => Init::Normal(0.02),
        SsmKind::Mamba { .. } => keep(START, cx.spec.d_model),
    };
    let proj_in = cx.param("ssm.proj_in.weight", init, &[vec![d], vec![c]]);
    let x = cx.rename(h, d, c); // [b, t, c]
    let mut z = linear(cx, &[c], x, proj_in, None); // [b, t, d]
    for layer in 0..spec.n_layers {
        cx.scope(&format!("ssm.layers.{layer}"));
        z = match spec.kind {
            SsmKind::Native => native(cx, own, spec.n_layers, layer, z),
            SsmKind::Mamba { conv_kernel, dt_rank } => mamba(cx, own, conv_kernel, dt_rank, layer, z),
        };
    }
    z
}

/// `LN(out_proj·((S·C) ⊙ SiLU(s) + D ⊙ u) + x)`
fn native(cx: &mut Cx, own: Own, layers: usize, layer: usize, x: ValueId) -> ValueId {
    let d = cx.ax.d;
    let Own { e, k, w, n } = own;
    let name = format!("ssm.layers.{layer}");
    let in_proj = cx.map(&format!("{name}.in_proj.weight"), vec![w, e], vec![d]);
    let dt_proj = cx.map(&format!("{name}.dt_proj.weight"), vec![e], vec![k]);
    let dt_bias = dt_bias(cx, &format!("{name}.dt_proj.bias"), e);
    let b_proj = cx.map(&format!("{name}.B_proj.weight"), vec![n], vec![e]);
    let c_proj = cx.map(&format!("{name}.C_proj.weight"), vec![n], vec![e]);
    let out_proj = cx.closing_map(&format!("{name}.out_proj.weight"), layers, vec![d], vec![e]);
    let ln = cx.norm(&format!("{name}.ln"));

    let both = linear(cx, &[d], x, in_proj, None); // [b, t, w, e]
    let (u, gate) = (cx.at(both, w, 0), cx.at(both, w, 1)); // [b, t, e] each
    let from = cx.rename(u, e, k); // [b, t, k]
    let dt = linear(cx, &[k], from, dt_proj, Some(dt_bias)); // [b, t, e]
    let dt = softplus(cx, dt); // [b, t, e]
    let bt = linear(cx, &[e], u, b_proj, None); // [b, t, n]
    let ct = linear(cx, &[e], u, c_proj, None); // [b, t, n]
    let (y, skip) = scan(cx, own, layer, &name, [dt, bt, ct, u]); // [b, t, e] each
    let gate = silu(cx, gate); // [b, t, e]
    let y = cx.mul(y, gate); // [b, t, e]
    let y = cx.add(y, skip); // [b, t, e]
    let y = linear(cx, &[e], y, out_proj, None); // [b, t, d]
    let y = cx.add(y, x);
    layer_norm(cx, d, y, ln)
}

/// `out_proj·((S·C + D ⊙ u) ⊙ SiLU(s))` of u after a causal depthwise convolution.
fn mamba(cx: &mut Cx, own: Own, taps: usize, dt_rank: usize, layer: usize, x: ValueId) -> ValueId {
    let d = cx.ax.d;
    let Own { e, w, n, .. } = own;
    let name = format!("ssm.layers.{layer}.mamba");
    let (tap, rank) = (cx.axis("tap", taps), cx.axis("rank", dt_rank));
    let states = cx.graph().len(n);
    let xo = cx.axis("xo", dt_rank + 2 * states);
    // These layers stand in a row without residual or norm, and each is a product of two of its signals: it would square
    // their size, and a few layers would end at nothing or at infinity. A bias of 1 holds u near 1 whatever its input,
    // so that a layer is nearly linear in its gate, and the last map restores the size that the gate takes away.
    let (width, inner) = (cx.spec.d_model, cx.graph().len(e));
    let in_proj = cx.param(&format!("{name}.in_proj.weight"), keep(1.0, width), &[vec![w, e], vec![d]]);
    let conv = cx.param(&format!("{name}.conv1d.weight"), keep(1.0, taps), &[vec![e], vec![], vec![tap]]);
    let conv_bias = cx.param(&format!("{name}.conv1d.bias"), Init::Constant(1.0), &[vec![e]]);
    let x_proj = cx.map(&format!("{name}.x_proj.weight"), vec![xo], vec![e]);
    let dt_proj = cx.map(&format!("{name}.dt_proj.weight"), vec![e], vec![rank]);
    let dt_bias = dt_bias(cx, &format!("{name}.dt_proj.bias"), e);
    let out_proj = cx.param(&format!("{name}.out_proj.weight"), keep(RESTORED, inner), &[vec![d], vec![e]]);

    let both = linear(cx, &[d], x, in_proj, None); // [b, t, w, e]
    let (u, gate) = (cx.at(both, w, 0), cx.at(both, w, 1)); // [b, t, e] each
    let u = conv1d(cx, layer, u, e, (conv, conv_bias), tap); // [b, t, e]
    let u = silu(cx, u); // [b, t, e]
    let all = linear(cx, &[e], u, x_proj, None); // [b, t, xo]
    let dt = cx.slice(all, xo, 0, rank); // [b, t, rank]
    let bt = cx.slice(all, xo, dt_rank, n); // [b, t, n]
    let ct = cx.slice(all, xo, dt_rank + states, n); // [b, t, n]
    let dt = linear(cx, &[rank], dt, dt_proj, Some(dt_bias)); // [b, t, e]
    let dt = softplus(cx, dt); // [b, t, e]
    let (y, skip) = scan(cx, own, layer, &name, [dt, bt, ct, u]); // [b, t, e] each
    let y = cx.add(y, skip); // [b, t, e]
    let gate = silu(cx, gate); // [b, t, e]
    let y = cx.mul(y, gate); // [b, t, e]
    linear(cx, &[e], y, out_proj, None) // [b, t, d]
}

/// A map from `n` inputs whose result is `gain` times as large as they are.
fn keep(gain: f32, n: usize) -> Init {
    Init::Normal(gain / (n as f32).sqrt())
}

fn dt_bias(cx: &mut Cx, name: &str, e: AxisId) -> ValueId {
    cx.param(name, Init::DtBias { lo: 1e-3, hi: 1e-1 }, &[vec![e]])
}

/// A causal depthwise convolution along time. `[b, t, e]`
fn conv1d(
    cx: &mut Cx,
    layer: usize,
    u: ValueId,
    e: AxisId,
    (weight, bias): (ValueId, ValueId),
    tap: AxisId,
) -> ValueId {
    let taps = cx.graph().len(tap);
    let seen = cx.window(u, e, taps, &format!("ssm.{layer}.conv"), "conv"); // [b, t, e] each
    let term = |(j, x): (usize, ValueId)| {
        let w = cx.at(weight, tap, j); // [e]
        cx.mul(w, x) // [b, t, e]
    };
    let terms: Vec<ValueId> = seen.into_iter().enumerate().map(term).chain([bias]).collect();
    sum_of(cx, &terms)
}

/// `S_t = exp(dt_t A) ⊙ S_{t-1} + (dt_t B_t) u_t`; gives `S·C` and `D ⊙ u`. `[b, t, e]` each
fn scan(cx: &mut Cx, own: Own, layer: usize, name: &str, [dt, bt, ct, u]: [ValueId; 4]) -> (ValueId, ValueId) {
    let (b, Own { e, n, .. }) = (cx.ax.b, own);
    let a_log = cx.param(&format!("{name}.A_log"), Init::LogRange, &[vec![e], vec![n]]);
    let skip = cx.param(&format!("{name}.D"), Init::Constant(1.0), &[vec![e]]);
    let a = cx.exp(a_log);
    let a = cx.neg(a); // [e, n]
    let decay = cx.mul(dt, a);
    let decay = cx.exp(decay); // [b, t, e, n]
    let drive = cx.mul(dt, bt); // [b, t, e, n]
    let drive = cx.mul(drive, u); // [b, t, e, n]
    let s = cx.scan(decay, drive, &format!("ssm.{layer}.state"), &[vec![b], vec![e], vec![n]]); // [b, t, e, n]
    let y = cx.dot(&[n], s, ct); // [b, t, e]
    (y, cx.mul(skip, u))
}
