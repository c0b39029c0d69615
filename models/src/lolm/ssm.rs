//! The latent path: selective state-space layers of either kind.
use super::Cx;
use crate::blocks::{Channels, MambaAxes, MambaWeights, layer_norm, linear, mamba, selective_scan, silu, softplus};
use crate::cx::Axes;
use crate::spec::{MambaMixer, SsmKind, SsmSpec};
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
    let (Axes { d, .. }, width) = (cx.ax, cx.spec.d_model);
    let (c, inner) = (cx.axis("c", width), spec.expand * width);
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
            SsmKind::Mamba { conv_kernel, dt_rank } => {
                let (expand, d_state) = (spec.expand, spec.d_state);
                let dims = MambaMixer { expand, d_state, conv_kernel, dt_rank, conv_bias: true, bias: false };
                mixer(cx, &dims, layer, z)
            }
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
    let a_log = cx.param(&format!("{name}.A_log"), Init::LogRange, &[vec![e], vec![n]]);
    let skip = cx.param(&format!("{name}.D"), Init::Constant(1.0), &[vec![e]]);
    let state = format!("ssm.{layer}.state");
    let y = selective_scan(cx, Channels { e, n }, a_log, &state, [dt, bt, ct, u]); // [b, t, e]
    let skip = cx.mul(skip, u); // [b, t, e]
    let gate = silu(cx, gate); // [b, t, e]
    let y = cx.mul(y, gate);
    let y = cx.add(y, skip);
    let y = linear(cx, &[e], y, out_proj, None); // [b, t, d]
    let y = cx.add(y, x);
    layer_norm(cx, d, y, ln)
}

/// A mixer without residual or norm.
///
/// These layers stand in a row, and each is a product of two of its signals: it would square their size, and a few layers
/// would end at nothing or at infinity. A bias of 1 holds u near 1 whatever its input, so that a layer is nearly linear in
/// its gate, and the last map restores the size that the gate takes away.
fn mixer(cx: &mut Cx, dims: &MambaMixer, layer: usize, x: ValueId) -> ValueId {
    let (d, width) = (cx.ax.d, cx.spec.d_model);
    let axes = MambaAxes::new(cx, dims, width);
    let MambaAxes { w, tap, x: xo, rank, channels: Channels { e, n } } = axes;
    let (taps, inner) = (dims.conv_kernel, dims.expand * width);
    let name = format!("ssm.layers.{layer}.mamba");
    let weights = MambaWeights {
        in_proj: cx.param(&format!("{name}.in_proj.weight"), keep(1.0, width), &[vec![w, e], vec![d]]),
        in_bias: None,
        conv: cx.param(&format!("{name}.conv1d.weight"), keep(1.0, taps), &[vec![e], vec![], vec![tap]]),
        conv_bias: Some(cx.param(&format!("{name}.conv1d.bias"), Init::Constant(1.0), &[vec![e]])),
        x_proj: cx.map(&format!("{name}.x_proj.weight"), vec![xo], vec![e]),
        dt_proj: cx.map(&format!("{name}.dt_proj.weight"), vec![e], vec![rank]),
        dt_bias: dt_bias(cx, &format!("{name}.dt_proj.bias"), e),
        a_log: cx.param(&format!("{name}.A_log"), Init::LogRange, &[vec![e], vec![n]]),
        skip: cx.param(&format!("{name}.D"), Init::Constant(1.0), &[vec![e]]),
        out_proj: cx.param(&format!("{name}.out_proj.weight"), keep(RESTORED, inner), &[vec![d], vec![e]]),
        out_bias: None,
        axes,
    };
    mamba(cx, &weights, None, &format!("ssm.{layer}"), x)
}

/// A map from `n` inputs whose result is `gain` times as large as they are.
fn keep(gain: f32, n: usize) -> Init {
    Init::Normal(gain / (n as f32).sqrt())
}

fn dt_bias(cx: &mut Cx, name: &str, e: AxisId) -> ValueId {
    cx.param(name, Init::DtBias { lo: 1e-3, hi: 1e-1 }, &[vec![e]])
}
