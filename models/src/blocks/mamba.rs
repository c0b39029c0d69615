//! Mamba's mixer (Gu, Dao 2023): a gated selective scan behind a causal convolution.
use super::{Gain, causal_conv, linear, rms_norm, silu, softplus};
use crate::cx::Cx;
use crate::spec::MambaMixer;
use lolm_ir::graph::Init;
use lolm_ir::{AxisId, ValueId};

/// The axes of a selective scan: channels and the state of each.
#[derive(Clone, Copy)]
pub struct Channels {
    pub e: AxisId,
    pub n: AxisId,
}

/// The weights of a mixer, over the halves w of the first map, taps, and the outputs x of `x_proj`.
#[derive(Clone, Copy)]
pub struct MambaWeights {
    /// `[w*e, d]` and `[w*e]`
    pub in_proj: ValueId,
    pub in_bias: Option<ValueId>,
    /// `[e, tap]` and `[e]`
    pub conv: ValueId,
    pub conv_bias: Option<ValueId>,
    /// `[x, e]`, where x is rank, then twice n
    pub x_proj: ValueId,
    /// `[e, rank]` and `[e]`
    pub dt_proj: ValueId,
    pub dt_bias: ValueId,
    /// `[e, n]` and `[e]`
    pub a_log: ValueId,
    pub skip: ValueId,
    /// `[d, e]` and `[d]`
    pub out_proj: ValueId,
    pub out_bias: Option<ValueId>,
    pub axes: Axes,
}

/// The axes of a mixer.
#[derive(Clone, Copy)]
pub struct Axes {
    pub w: AxisId,
    pub tap: AxisId,
    pub x: AxisId,
    pub rank: AxisId,
    pub channels: Channels,
}

impl Axes {
    pub fn new<S>(cx: &mut Cx<S>, dims: &MambaMixer, hidden: usize) -> Axes {
        Axes {
            w: cx.axis("w", 2),
            tap: cx.axis("tap", dims.conv_kernel),
            x: cx.axis("xo", dims.dt_rank + 2 * dims.d_state),
            rank: cx.axis("rank", dims.dt_rank),
            channels: Channels { e: cx.axis("e", dims.expand * hidden), n: cx.axis("n", dims.d_state) },
        }
    }
}

/// Norms of dt, B and C before they are used, as Jamba has them.
#[derive(Clone, Copy)]
pub struct Norms {
    pub dt: ValueId,
    pub b: ValueId,
    pub c: ValueId,
    pub eps: f32,
}

/// The weights of a mixer under Hugging Face's names, behind `prefix`.
pub fn mamba_weights<S>(cx: &mut Cx<S>, dims: &MambaMixer, hidden: usize, prefix: &str) -> MambaWeights {
    let axes = Axes::new(cx, dims, hidden);
    let (d, Axes { w, tap, x, rank, channels: Channels { e, n } }) = (cx.ax.d, axes);
    let name = |part: &str| format!("{prefix}.{part}");
    let dt_std = (dims.dt_rank as f32).powf(-0.5);
    let conv_std = (3.0 * dims.conv_kernel as f32).powf(-0.5);
    MambaWeights {
        in_proj: cx.map(&name("in_proj.weight"), vec![w, e], vec![d]),
        in_bias: dims.bias.then(|| cx.param(&name("in_proj.bias"), Init::Zeros, &[vec![w, e]])),
        conv: cx.param(&name("conv1d.weight"), Init::Normal(conv_std), &[vec![e], vec![], vec![tap]]),
        conv_bias: dims.conv_bias.then(|| cx.bias(&name("conv1d.bias"), e)),
        x_proj: cx.map(&name("x_proj.weight"), vec![x], vec![e]),
        dt_proj: cx.param(&name("dt_proj.weight"), Init::Normal(dt_std), &[vec![e], vec![rank]]),
        dt_bias: cx.param(&name("dt_proj.bias"), Init::DtBias { lo: 1e-3, hi: 1e-1 }, &[vec![e]]),
        a_log: cx.param(&name("A_log"), Init::LogRange, &[vec![e], vec![n]]),
        skip: cx.param(&name("D"), Init::Constant(1.0), &[vec![e]]),
        out_proj: cx.map(&name("out_proj.weight"), vec![d], vec![e]),
        out_bias: dims.bias.then(|| cx.bias(&name("out_proj.bias"), d)),
        axes,
    }
}

/// `out_proj·((S·C + D ⊙ u) ⊙ SiLU(s))` of u after a causal depthwise convolution. `[b, t, d]`
///
/// `state` is what stands before the names of its states.
pub fn mamba<S>(cx: &mut Cx<S>, w: &MambaWeights, norms: Option<Norms>, state: &str, x: ValueId) -> ValueId {
    let (d, axes) = (cx.ax.d, w.axes);
    let Channels { e, n } = axes.channels;
    let (rank, states) = (cx.graph().len(axes.rank), cx.graph().len(n));
    let both = linear(cx, &[d], x, w.in_proj, w.in_bias); // [b, t, w, e]
    let (u, gate) = (cx.at(both, axes.w, 0), cx.at(both, axes.w, 1)); // [b, t, e] each
    let taps = cx.graph().len(axes.tap);
    let seen = cx.window(u, &[e], taps, &format!("{state}.conv"), "conv"); // [b, t, e] each
    let u = causal_conv(cx, axes.tap, &seen, w.conv, w.conv_bias); // [b, t, e]
    let u = silu(cx, u); // [b, t, e]
    let all = linear(cx, &[e], u, w.x_proj, None); // [b, t, x]
    let mut dt = cx.slice(all, axes.x, 0, axes.rank); // [b, t, rank]
    let mut bt = cx.slice(all, axes.x, rank, n); // [b, t, n]
    let mut ct = cx.slice(all, axes.x, rank + states, n); // [b, t, n]
    if let Some(norm) = norms {
        dt = rms_norm(cx, axes.rank, dt, Gain::Weight(norm.dt), norm.eps);
        bt = rms_norm(cx, n, bt, Gain::Weight(norm.b), norm.eps);
        ct = rms_norm(cx, n, ct, Gain::Weight(norm.c), norm.eps);
    }
    let dt = linear(cx, &[axes.rank], dt, w.dt_proj, Some(w.dt_bias)); // [b, t, e]
    let dt = softplus(cx, dt); // [b, t, e]
    let y = selective_scan(cx, axes.channels, w.a_log, &format!("{state}.state"), [dt, bt, ct, u]); // [b, t, e]
    let skip = cx.mul(w.skip, u); // [b, t, e]
    let y = cx.add(y, skip);
    let gate = silu(cx, gate); // [b, t, e]
    let y = cx.mul(y, gate);
    linear(cx, &[e], y, w.out_proj, w.out_bias) // [b, t, d]
}

/// `S_t = exp(dt_t A) ⊙ S_{t-1} + (dt_t B_t) u_t` with A = -exp(A_log); gives `S·C`. `[b, t, e]`
pub fn selective_scan<S>(
    cx: &mut Cx<S>,
    Channels { e, n }: Channels,
    a_log: ValueId,
    state: &str,
    [dt, bt, ct, u]: [ValueId; 4],
) -> ValueId {
    let b = cx.ax.b;
    let a = cx.exp(a_log);
    let a = cx.neg(a); // [e, n]
    let decay = cx.mul(dt, a);
    let decay = cx.exp(decay); // [b, t, e, n]
    let drive = cx.mul(dt, bt); // [b, t, e, n]
    let drive = cx.mul(drive, u); // [b, t, e, n]
    let s = cx.scan(decay, drive, state, &[vec![b], vec![e], vec![n]]); // [b, t, e, n]
    cx.dot(&[n], s, ct)
}
