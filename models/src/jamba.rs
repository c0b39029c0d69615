//! Jamba: a row of Mamba mixers with an attention without positions now and then, and experts in some layers.
use crate::blocks::{
    ExpertAxes, Experts, Gain, MlpNames, Names, Norms, Shared, attention, mamba, mamba_weights, moe, rms_norm, shared,
    swiglu,
};
use crate::cx::Cx;
use crate::language_model::LanguageModel;
use crate::spec::JambaSpec;
use lolm_ir::graph::Init;
use lolm_ir::{AxisId, ValueId};

impl LanguageModel for JambaSpec {
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

    fn stream(cx: &mut Cx<Self>, mut x: ValueId) -> ValueId {
        let spec = cx.spec;
        let f = cx.axis("f", spec.intermediate_size);
        let shared = shared(cx, &spec.attention, None);
        for layer in 0..cx.spec.n_layers {
            cx.scope(&format!("model.layers.{layer}"));
            x = block(cx, &shared, f, layer, x);
        }
        cx.scope("model.final_layernorm");
        norm(cx, "model.final_layernorm.weight", x)
    }
}

/// `x += mixer(norm x); x += mlp(norm x)`. `[b, t, d]`
fn block(cx: &mut Cx<JambaSpec>, shared: &Shared, f: AxisId, layer: usize, x: ValueId) -> ValueId {
    let name = format!("model.layers.{layer}");
    let y = norm(cx, &format!("{name}.input_layernorm.weight"), x);
    let y = match cx.spec.attends(layer) {
        true => {
            let prefix = format!("{name}.self_attn");
            attention(cx, shared, &Names { prefix, qkv_bias: false, out_bias: false, layer }, y)
        }
        false => mixer(cx, &format!("{name}.mamba"), layer, y),
    }; // [b, t, d]
    let x = cx.add(x, y);

    let y = norm(cx, &format!("{name}.pre_ff_layernorm.weight"), x);
    let prefix = format!("{name}.feed_forward");
    let y = match cx.spec.routes(layer) {
        true => experts(cx, f, &prefix, y),
        false => swiglu(cx, f, &MlpNames { prefix, bias: false }, y),
    }; // [b, t, d]
    cx.add(x, y)
}

/// Mamba with norms of dt, B and C. `[b, t, d]`
fn mixer(cx: &mut Cx<JambaSpec>, prefix: &str, layer: usize, x: ValueId) -> ValueId {
    let spec = cx.spec;
    let w = mamba_weights(cx, &spec.mixer, spec.hidden_size, prefix);
    let mut norm = |part: &str, axis: AxisId| {
        cx.param(&format!("{prefix}.{part}_layernorm.weight"), Init::Constant(1.0), &[vec![axis]])
    };
    let (dt, n) = (norm("dt", w.axes.rank), w.axes.channels.n);
    let (b, c) = (norm("b", n), norm("c", n));
    let norms = Norms { dt, b, c, eps: cx.spec.rms_norm_eps as f32 };
    mamba(cx, &w, Some(norms), &format!("ssm.{layer}"), x)
}

fn norm(cx: &mut Cx<JambaSpec>, name: &str, x: ValueId) -> ValueId {
    let weight = cx.scale_of(name, 1.0);
    let (d, eps) = (cx.ax.d, cx.spec.rms_norm_eps as f32);
    rms_norm(cx, d, x, Gain::Weight(weight), eps)
}

/// The layer's experts; the probabilities of the chosen ones stay as they are. `[b, t, d]`
fn experts(cx: &mut Cx<JambaSpec>, f: AxisId, prefix: &str, x: ValueId) -> ValueId {
    let (d, spec) = (cx.ax.d, cx.spec);
    let (expert, k) = (cx.axis("expert", spec.experts), cx.axis("chosen", spec.experts_per_token));
    let mut map = |part: &str, out: AxisId, inp: AxisId| {
        let name = format!("{prefix}.experts.{{}}.{part}.weight");
        cx.param(&name, Init::Normal(0.02), &[vec![expert], vec![out], vec![inp]])
    };
    let (gate, up, down) = (map("gate_proj", f, d), map("up_proj", f, d), map("down_proj", d, f));
    let router = cx.map(&format!("{prefix}.router.weight"), vec![expert], vec![d]);
    moe(cx, ExpertAxes { d, f, expert, k }, x, Experts { router, gate, up, down }, false)
}
