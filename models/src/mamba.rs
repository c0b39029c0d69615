//! Mamba: a row of mixers, each behind a norm and beside a residual.
use crate::blocks::{Gain, mamba, mamba_weights, rms_norm};
use crate::cx::Cx;
use crate::language_model::LanguageModel;
use crate::spec::MambaSpec;
use lolm_ir::ValueId;

impl LanguageModel for MambaSpec {
    fn hidden_size(&self) -> usize {
        self.hidden_size
    }
    fn window(&self) -> Option<usize> {
        None
    }
    fn embedding(&self) -> &'static str {
        "backbone.embeddings.weight"
    }
    fn tied(&self) -> bool {
        self.tied
    }

    fn stream(cx: &mut Cx<Self>, mut x: ValueId) -> ValueId {
        let spec = cx.spec;
        for layer in 0..spec.n_layers {
            let name = format!("backbone.layers.{layer}");
            cx.scope(&name);
            let y = norm(cx, &format!("{name}.norm.weight"), x);
            let weights = mamba_weights(cx, &spec.mixer, spec.hidden_size, &format!("{name}.mixer"));
            let y = mamba(cx, &weights, None, &format!("ssm.{layer}"), y); // [b, t, d]
            x = cx.add(x, y);
        }
        cx.scope("backbone.norm_f");
        norm(cx, "backbone.norm_f.weight", x)
    }
}

fn norm(cx: &mut Cx<MambaSpec>, name: &str, x: ValueId) -> ValueId {
    let weight = cx.scale_of(name, 1.0);
    let (d, eps) = (cx.ax.d, cx.spec.layer_norm_epsilon as f32);
    rms_norm(cx, d, x, Gain::Weight(weight), eps)
}
