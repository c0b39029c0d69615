//! The regime layer: a soft code over a few modes, sharpened by a temperature that is data.
use super::Cx;
use crate::blocks::{clamp, joined, linear, softmax, stack};
use crate::cx::Axes;
use crate::spec::RegimeSpec;
use lolm_ir::graph::Init;
use lolm_ir::{AxisId, DType, ValueId};

/// Where the Gumbel noise of the regime logits comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Noise {
    /// Drawn in the graph.
    Random,
    /// The input `train.gumbel`.
    Input,
}

#[derive(Clone, Copy)]
pub struct Regime {
    /// The embedding of the soft code. `[b, t, g]`
    pub r: ValueId,
    /// `[b, t, o]`
    pub probs: ValueId,
    pub codes: AxisId,
    pub g: AxisId,
}

/// `p = softmax((l + gumbel) / τ)` with noise, `softmax(l / max(τ, 0.01))` without; `r = p · codebook`. `streams` are
/// those of z, h and m that are there.
pub fn regime(cx: &mut Cx, spec: &RegimeSpec, streams: &[ValueId], noise: Option<Noise>) -> Regime {
    cx.scope("regime");
    let Axes { b, t, d, .. } = cx.ax;
    let (o, g) = (cx.axis("o", spec.n_codes), cx.axis("g", spec.d_regime));
    let width = streams.len() * cx.spec.d_model;
    let zhm = cx.axis("zhm", width);
    let logit_proj = cx.map("regime.logit_proj.weight", vec![o], vec![zhm]);
    let codebook = cx.param("regime.codebook.weight", Init::Normal(0.02), &[vec![o], vec![g]]);

    let parts: Vec<_> = streams.iter().map(|x| (*x, d)).collect();
    let x = joined(cx, zhm, &parts); // [b, t, zhm]
    let mut l = linear(cx, &[zhm], x, logit_proj, None); // [b, t, o]
    if let Some(taps) = spec.neighbor_kernel {
        l = neighbors(cx, o, taps, l);
    }
    let l = clamp(cx, l, -5.0, 5.0); // [b, t, o]
    let tau = cx.input("tau", DType::F32, &[]);
    let scaled = match noise {
        Some(noise) => {
            let gumbel = match noise {
                Noise::Input => cx.input("train.gumbel", DType::F32, &[vec![b], vec![t], vec![o]]),
                Noise::Random => gumbel(cx, &[b, t, o]),
            }; // [b, t, o]
            let noisy = cx.add(l, gumbel);
            cx.div(noisy, tau)
        }
        None => {
            let least = cx.num(0.01);
            let tau = cx.max(tau, least);
            cx.div(l, tau)
        }
    };
    let probs = softmax(cx, o, scaled); // [b, t, o]
    let r = cx.dot(&[o], probs, codebook); // [b, t, g]
    Regime { r, probs, codes: o, g }
}

/// `-log(-log u)` of uniform draws.
fn gumbel(cx: &mut Cx, axes: &[AxisId]) -> ValueId {
    let u = cx.uniform(axes);
    let log = cx.log(u);
    let positive = cx.neg(log);
    let log = cx.log(positive);
    cx.neg(log)
}

/// `l + neighbor_scale · causal_conv1d(l)`, a convolution over time that mixes the codes. `[b, t, o]`
fn neighbors(cx: &mut Cx, o: AxisId, taps: usize, l: ValueId) -> ValueId {
    let codes = cx.graph().len(o);
    let (q, tap) = (cx.axis("q", codes), cx.axis("near", taps));
    let weight = cx.param("regime.neighbor_conv.weight", Init::Normal(0.02), &[vec![o], vec![q], vec![tap]]);
    let bias = cx.bias("regime.neighbor_conv.bias", o);
    let scale = cx.param("regime.neighbor_scale", Init::Constant(0.1), &[]);
    let from = cx.rename(l, o, q); // [b, t, q]
    let seen = cx.window(from, &[q], taps, "regime.history", "near"); // [b, t, q] each
    let seen = stack(cx, tap, &seen); // [b, t, q, near]
    let conv = linear(cx, &[q, tap], seen, weight, Some(bias)); // [b, t, o]
    let part = cx.mul(scale, conv);
    cx.add(l, part)
}
