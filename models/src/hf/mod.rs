//! Hugging Face's side of a model: the configuration that its classes read, and that of `mamba_ssm` in its form.
//!
//! The reader is [`crate::Spec::from_hf`]; reading what is written here gives the same model.
pub(crate) mod mamba_ssm;

use crate::spec::{
    AttentionSpec, Family, GriffinSpec, JambaSpec, MambaMixer, MambaSpec, RopeSpec, Spec, Temporal, TransformerSpec,
};
use serde_json::{Map, Value, json};

/// The `config.json` of a spec, or `None` if Hugging Face has no class for it. `dtype` is that of the weights, as it is
/// called there: `float32`, `bfloat16`.
pub fn config(spec: &Spec, dtype: &str) -> Option<Value> {
    let body = match &spec.family {
        Family::Transformer(s) => transformer(s)?,
        Family::Mamba(s) => mamba(s),
        Family::Jamba(s) => jamba(s),
        Family::Griffin(s) => griffin(s),
        Family::Lolm(_) | Family::Samba(_) => return None,
    };
    let common = json!({
        "max_position_embeddings": spec.max_seq_len,
        "torch_dtype": dtype,
        "use_cache": true,
        "vocab_size": spec.vocab_size,
    });
    Some(joined([common, body]))
}

/// The keys of all objects in one.
fn joined<const N: usize>(objects: [Value; N]) -> Value {
    let maps = objects.into_iter().filter_map(|o| if let Value::Object(map) = o { Some(map) } else { None });
    Value::Object(maps.flatten().collect::<Map<_, _>>())
}

/// Llama, or Mistral for a window, which has no biases.
fn transformer(s: &TransformerSpec) -> Option<Value> {
    let own = match s.attention.window {
        None => json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "attention_bias": s.attention_bias,
            "mlp_bias": s.mlp_bias,
        }),
        Some(window) if !s.attention_bias && !s.mlp_bias => json!({
            "architectures": ["MistralForCausalLM"],
            "model_type": "mistral",
            "sliding_window": window,
        }),
        Some(_) => return None,
    };
    let shared = json!({
        "hidden_act": "silu",
        "hidden_size": s.hidden_size,
        "intermediate_size": s.intermediate_size,
        "num_hidden_layers": s.n_layers,
        "rms_norm_eps": s.rms_norm_eps,
        "tie_word_embeddings": s.tied,
    });
    Some(joined([own, shared, heads(&s.attention), rope(&s.rope)]))
}

fn heads(a: &AttentionSpec) -> Value {
    json!({
        "attention_dropout": 0.0,
        "head_dim": a.head_dim,
        "num_attention_heads": a.heads,
        "num_key_value_heads": a.kv_heads,
    })
}

fn rope(r: &RopeSpec) -> Value {
    let scaling = r.scaling.as_ref().map(|x| {
        json!({
            "rope_type": "llama3",
            "factor": x.factor,
            "low_freq_factor": x.low_freq_factor,
            "high_freq_factor": x.high_freq_factor,
            "original_max_position_embeddings": x.original_context,
        })
    });
    json!({ "rope_theta": r.theta, "rope_scaling": scaling })
}

fn mamba(s: &MambaSpec) -> Value {
    let MambaMixer { expand, d_state, conv_kernel, dt_rank, conv_bias, bias } = s.mixer;
    json!({
        "architectures": ["MambaForCausalLM"],
        "model_type": "mamba",
        "conv_kernel": conv_kernel,
        "expand": expand,
        "hidden_act": "silu",
        "hidden_size": s.hidden_size,
        "intermediate_size": expand * s.hidden_size,
        "layer_norm_epsilon": s.layer_norm_epsilon,
        "num_hidden_layers": s.n_layers,
        "state_size": d_state,
        "tie_word_embeddings": s.tied,
        "time_step_rank": dt_rank,
        "use_bias": bias,
        "use_conv_bias": conv_bias,
    })
}

fn jamba(s: &JambaSpec) -> Value {
    let MambaMixer { expand, d_state, conv_kernel, dt_rank, conv_bias, bias } = s.mixer;
    let own = json!({
        "architectures": ["JambaForCausalLM"],
        "model_type": "jamba",
        "attn_layer_offset": s.attn_layer_offset,
        "attn_layer_period": s.attn_layer_period,
        "expert_layer_offset": s.expert_layer_offset,
        "expert_layer_period": s.expert_layer_period,
        "hidden_act": "silu",
        "hidden_size": s.hidden_size,
        "intermediate_size": s.intermediate_size,
        "mamba_conv_bias": conv_bias,
        "mamba_d_conv": conv_kernel,
        "mamba_d_state": d_state,
        "mamba_dt_rank": dt_rank,
        "mamba_expand": expand,
        "mamba_proj_bias": bias,
        "num_experts": s.experts,
        "num_experts_per_tok": s.experts_per_token,
        "num_hidden_layers": s.n_layers,
        "rms_norm_eps": s.rms_norm_eps,
        "tie_word_embeddings": s.tied,
    });
    joined([own, heads(&s.attention)])
}

fn griffin(s: &GriffinSpec) -> Value {
    let name = |t: &Temporal| match t {
        Temporal::Recurrent => "recurrent",
        Temporal::Attention => "attention",
    };
    let own = json!({
        "architectures": ["RecurrentGemmaForCausalLM"],
        "model_type": "recurrent_gemma",
        "attention_bias": s.attention_bias,
        "attention_window_size": s.attention.window,
        "block_types": s.block_types.iter().map(name).collect::<Vec<_>>(),
        "conv1d_width": s.conv_kernel,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": s.hidden_size,
        "intermediate_size": s.intermediate_size,
        "logits_soft_cap": s.logits_soft_cap,
        "lru_width": s.lru_width,
        "num_hidden_layers": s.n_layers,
        "partial_rotary_factor": fraction(s.rope.dim, s.attention.head_dim),
        "rms_norm_eps": s.rms_norm_eps,
        "rope_theta": s.rope.theta,
        "tie_word_embeddings": s.tied,
    });
    joined([own, heads(&s.attention)])
}

/// The part that gives `part` features of `whole` again when its product with them is cut to an integer.
pub(crate) fn fraction(part: usize, whole: usize) -> f64 {
    let near = part as f64 / whole as f64;
    if (whole as f64 * near) as usize == part { near } else { near.next_up() }
}

#[cfg(test)]
mod tests;
