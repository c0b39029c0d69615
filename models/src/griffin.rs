//! Griffin: RG-LRU and local attention in turn, each followed by a GeGLU.
use crate::blocks::{
    Gain, MlpNames, Names, RgLru, Shared, attention, causal_conv, gated_mlp, gelu_tanh, linear, rg_lru, rms_norm,
    shared, soft_cap,
};
use crate::cx::Cx;
use crate::language_model::LanguageModel;
use crate::spec::{GriffinSpec, Temporal};
use half::bf16;
use lolm_ir::graph::Init;
use lolm_ir::{AxisId, ValueId};

impl LanguageModel for GriffinSpec {
    fn hidden_size(&self) -> usize {
        self.hidden_size
    }
    fn window(&self) -> Option<usize> {
        self.attention.window
    }
    fn embedding(&self) -> &'static str {
        "model.embed_tokens.weight"
    }
    fn tied(&self) -> bool {
        self.tied
    }

    fn stream(cx: &mut Cx<Self>, x: ValueId) -> ValueId {
        let (own, spec) = (Own::new(cx), cx.spec);
        let shared = shared(cx, &spec.attention, Some(&spec.rope));
        cx.scope("model.embed_tokens");
        // The published factor is √d rounded to bf16.
        let scale = bf16::from_f64((cx.spec.hidden_size as f64).sqrt()).to_f32();
        let mut x = cx.scale(x, scale);
        for layer in 0..cx.spec.n_layers {
            cx.scope(&format!("model.layers.{layer}"));
            x = block(cx, own, &shared, layer, x);
        }
        cx.scope("model.final_norm");
        norm(cx, "model.final_norm.weight", x)
    }

    fn logits(cx: &mut Cx<Self>, logits: ValueId) -> ValueId {
        let cap = cx.spec.logits_soft_cap as f32;
        soft_cap(cx, logits, cap)
    }
}

/// Axes of the layers: the width of the MLP, and that of the recurrence as blocks of features; a block has two names.
#[derive(Clone, Copy)]
struct Own {
    f: AxisId,
    block: AxisId,
    l: AxisId,
    k: AxisId,
    tap: AxisId,
}

impl Own {
    fn new(cx: &mut Cx<GriffinSpec>) -> Own {
        let spec = cx.spec;
        let (blocks, width) = (spec.attention.heads, spec.lru_width);
        Own {
            f: cx.axis("f", spec.intermediate_size / 2),
            block: cx.axis("block", blocks),
            l: cx.axis("l", width / blocks),
            k: cx.axis("k", width / blocks),
            tap: cx.axis("tap", spec.conv_kernel),
        }
    }
}

/// `x += temporal(norm x); x += mlp(norm x)`. `[b, t, d]`
fn block(cx: &mut Cx<GriffinSpec>, own: Own, shared: &Shared, layer: usize, x: ValueId) -> ValueId {
    let name = format!("model.layers.{layer}");
    let y = norm(cx, &format!("{name}.temporal_pre_norm.weight"), x);
    let prefix = format!("{name}.temporal_block");
    let y = match cx.spec.temporal(layer) {
        Temporal::Recurrent => recurrent(cx, own, &prefix, layer, y),
        Temporal::Attention => {
            let names = Names { prefix, qkv_bias: cx.spec.attention_bias, out_bias: true, layer };
            attention(cx, shared, &names, y)
        }
    }; // [b, t, d]
    let x = cx.add(x, y);

    let y = norm(cx, &format!("{name}.channel_pre_norm.weight"), x);
    let names = MlpNames { prefix: format!("{name}.mlp_block"), bias: true };
    let y = gated_mlp(cx, own.f, &names, y, |cx, gate| gelu_tanh(cx, gate)); // [b, t, d]
    cx.add(x, y)
}

/// `linear_out·(RG-LRU(conv(linear_x x)) ⊙ gelu(linear_y x))`. `[b, t, d]`
fn recurrent(cx: &mut Cx<GriffinSpec>, own: Own, prefix: &str, layer: usize, x: ValueId) -> ValueId {
    let d = cx.ax.d;
    let Own { block, l, k, tap, .. } = own;
    let width = vec![block, l]; // one dimension of lru_width
    let map = |cx: &mut Cx<GriffinSpec>, part: &str, x: ValueId| {
        let w = cx.map(&format!("{prefix}.{part}.weight"), width.clone(), vec![d]);
        let bias = cx.param(&format!("{prefix}.{part}.bias"), Init::Zeros, std::slice::from_ref(&width));
        linear(cx, &[d], x, w, Some(bias)) // [b, t, block, l]
    };
    let y = map(cx, "linear_y", x);
    let y = gelu_tanh(cx, y);
    let x = map(cx, "linear_x", x);

    let taps = cx.graph().len(tap);
    let conv_std = (3.0 * taps as f32).powf(-0.5);
    let conv = [width.clone(), vec![], vec![tap]];
    let conv = cx.param(&format!("{prefix}.conv_1d.weight"), Init::Normal(conv_std), &conv);
    let conv_bias = cx.param(&format!("{prefix}.conv_1d.bias"), Init::Zeros, std::slice::from_ref(&width));
    let seen = cx.window(x, &width, taps, &format!("rnn.{layer}.conv"), "conv"); // [b, t, block, l] each
    let x = causal_conv(cx, tap, &seen, conv, Some(conv_bias)); // [b, t, block, l]

    let gate = |cx: &mut Cx<GriffinSpec>, part: &str| {
        let std = (cx.graph().len(k) as f32).powf(-0.5);
        let map =
            cx.param(&format!("{prefix}.rg_lru.{part}_weight"), Init::Normal(std), &[vec![block], vec![k], vec![l]]);
        (map, cx.param(&format!("{prefix}.rg_lru.{part}_bias"), Init::Zeros, &[vec![block], vec![l]]))
    };
    let weights = RgLru {
        j: l,
        k,
        input_gate: gate(cx, "input_gate"),
        recurrent_gate: gate(cx, "recurrent_gate"),
        recurrent_param: cx.param(
            &format!("{prefix}.rg_lru.recurrent_param"),
            Init::Decay { lo: 0.9, hi: 0.999 },
            std::slice::from_ref(&width),
        ),
    };
    let positions = cx.positions();
    let (decay, drive) = rg_lru(cx, &weights, x, positions); // [b, t, block, l] each
    let b = cx.ax.b;
    let s = cx.scan(decay, drive, &format!("rnn.{layer}.state"), &[vec![b], width.clone()]); // [b, t, block, l]
    let y = cx.mul(s, y);
    let out = cx.map(&format!("{prefix}.linear_out.weight"), vec![d], width.clone());
    let out_bias = cx.bias(&format!("{prefix}.linear_out.bias"), d);
    linear(cx, &width, y, out, Some(out_bias))
}

fn norm(cx: &mut Cx<GriffinSpec>, name: &str, x: ValueId) -> ValueId {
    let weight = cx.scale_of(name, 0.0);
    let (d, eps) = (cx.ax.d, cx.spec.rms_norm_eps as f32);
    rms_norm(cx, d, x, Gain::OnePlus(weight), eps)
}
