//! Transformer: Llama's decoder, and Mistral's with its window.
use crate::blocks::{Gain, MlpNames, Names, Shared, attention, rms_norm, shared, swiglu};
use crate::cx::Cx;
use crate::language_model::LanguageModel;
use crate::spec::TransformerSpec;
use lolm_ir::{AxisId, ValueId};

impl LanguageModel for TransformerSpec {
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
        let shared = shared(cx, &spec.attention, Some(&spec.rope));
        for layer in 0..cx.spec.n_layers {
            cx.scope(&format!("model.layers.{layer}"));
            x = block(cx, &shared, f, layer, x);
        }
        cx.scope("model.norm");
        norm(cx, "model.norm.weight", x)
    }
}

/// `x += attention(norm x); x += mlp(norm x)`. `[b, t, d]`
fn block(cx: &mut Cx<TransformerSpec>, shared: &Shared, f: AxisId, layer: usize, x: ValueId) -> ValueId {
    let name = format!("model.layers.{layer}");
    let y = norm(cx, &format!("{name}.input_layernorm.weight"), x);
    let biased = cx.spec.attention_bias;
    let names = Names { prefix: format!("{name}.self_attn"), qkv_bias: biased, out_bias: biased, layer };
    let y = attention(cx, shared, &names, y);
    let x = cx.add(x, y);

    let y = norm(cx, &format!("{name}.post_attention_layernorm.weight"), x);
    let y = swiglu(cx, f, &MlpNames { prefix: format!("{name}.mlp"), bias: cx.spec.mlp_bias }, y);
    cx.add(x, y)
}

fn norm(cx: &mut Cx<TransformerSpec>, name: &str, x: ValueId) -> ValueId {
    let weight = cx.scale_of(name, 1.0);
    let (d, eps) = (cx.ax.d, cx.spec.rms_norm_eps as f32);
    rms_norm(cx, d, x, Gain::Weight(weight), eps)
}
