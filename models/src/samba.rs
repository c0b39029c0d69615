//! Samba: Mamba, MLP, attention within a window, MLP, over and over.
use crate::blocks::{Gain, MlpNames, Names, attention, mamba, mamba_weights, rms_norm, shared, swiglu};
use crate::cx::Cx;
use crate::language_model::LanguageModel;
use crate::spec::SambaSpec;
use lolm_ir::ValueId;

impl LanguageModel for SambaSpec {
    fn hidden_size(&self) -> usize {
        self.hidden_size
    }
    fn window(&self) -> Option<usize> {
        self.attention.window
    }
    fn embedding(&self) -> &'static str {
        "embed.weight"
    }
    fn tied(&self) -> bool {
        self.tied
    }

    fn stream(cx: &mut Cx<Self>, mut x: ValueId) -> ValueId {
        let spec = cx.spec;
        let f = cx.axis("f", spec.intermediate_size);
        let shared = shared(cx, &spec.attention, Some(&spec.rope));
        for layer in 0..cx.spec.n_layers {
            let name = format!("layers.{layer}");
            cx.scope(&name);
            let y = norm(cx, &format!("{name}.norm.weight"), x);
            let y = match layer % 4 {
                0 => {
                    let w = mamba_weights(cx, &spec.mixer, spec.hidden_size, &format!("{name}.mamba"));
                    mamba(cx, &w, None, &format!("ssm.{layer}"), y)
                }
                2 => {
                    let prefix = format!("{name}.swa");
                    attention(cx, &shared, &Names { prefix, qkv_bias: false, out_bias: false, layer }, y)
                }
                _ => swiglu(cx, f, &MlpNames { prefix: format!("{name}.mlp"), bias: false }, y),
            }; // [b, t, d]
            x = cx.add(x, y);
        }
        cx.scope("norm");
        norm(cx, "norm.weight", x)
    }
}

fn norm(cx: &mut Cx<SambaSpec>, name: &str, x: ValueId) -> ValueId {
    let weight = cx.scale_of(name, 1.0);
    let (d, eps) = (cx.ax.d, cx.spec.rms_norm_eps as f32);
    rms_norm(cx, d, x, Gain::Weight(weight), eps)
}
