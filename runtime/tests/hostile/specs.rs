//! Specs in TOML and configurations in JSON: an answer or an error, and never more than a few words for each word.
use crate::{counting, hostile};
use lolm_models::Spec;
use lolm_models::spec::LIBRARY;

/// A tree of a text takes this much for each of its bytes at most: the smallest number has two bytes with its comma.
const TREE: usize = 256;

fn bounded<T>(what: &str, len: usize, parse: impl FnOnce() -> T) -> T {
    let (result, peak) = counting::peak(parse);
    assert!(peak <= TREE * len + (64 << 10), "{what}: {peak} bytes were allocated for a file of {len}");
    result
}

#[test]
fn damaged_specs_are_refused_or_specs() {
    let bases: Vec<Vec<u8>> = LIBRARY.iter().map(|(_, text)| text.as_bytes().to_vec()).collect();
    hostile("spec", &bases, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if let Ok(spec) = bounded("a spec", bytes.len(), || Spec::parse("spec.toml", text)) {
            assert_eq!(Spec::parse("again", &spec.to_string()).as_ref(), Ok(&spec), "a spec is what it writes");
        }
    });
}

#[test]
fn damaged_configurations_are_refused_or_specs() {
    let llama = r#"{"model_type":"llama","architectures":["LlamaForCausalLM"],"hidden_size":32,"intermediate_size":64,
        "num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":8,"vocab_size":256,"hidden_act":"silu",
        "max_position_embeddings":512,"rms_norm_eps":1e-06,"rope_theta":500000.0,"tie_word_embeddings":true,
        "rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
        "original_max_position_embeddings":256}}"#;
    let griffin = r#"{"model_type":"recurrent_gemma","hidden_size":32,"intermediate_size":96,"num_hidden_layers":3,
        "num_attention_heads":4,"num_key_value_heads":1,"lru_width":32,"vocab_size":256,"attention_window_size":16,
        "block_types":["recurrent","recurrent","attention"],"hidden_activation":"gelu_pytorch_tanh","logits_soft_cap":30.0,
        "rope_parameters":{"partial_rotary_factor":0.5,"rope_theta":10000.0,"rope_type":"default"}}"#;
    let mamba = r#"{"model_type":"mamba","hidden_size":32,"state_size":8,"num_hidden_layers":2,"conv_kernel":4,"expand":2,
        "intermediate_size":64,"time_step_rank":"auto","vocab_size":256,"use_bias":false,"use_conv_bias":true}"#;
    let jamba = r#"{"model_type":"jamba","hidden_size":32,"intermediate_size":48,"num_hidden_layers":4,"num_attention_heads":4,
        "num_key_value_heads":2,"num_experts":4,"num_experts_per_tok":2,"attn_layer_offset":2,"attn_layer_period":4,
        "expert_layer_offset":1,"expert_layer_period":2,"mamba_d_state":8,"mamba_d_conv":4,"mamba_dt_rank":4,"vocab_size":256}"#;
    let ssm = r#"{"d_model":32,"n_layer":2,"vocab_size":250,"ssm_cfg":{"d_state":8},"rms_norm":true,"residual_in_fp32":true,
        "fused_add_norm":true,"pad_vocab_size_multiple":8}"#;
    let bases = [llama, griffin, mamba, jamba, ssm].map(|t| t.as_bytes().to_vec());
    hostile("config", &bases, |bytes| {
        let read = |bytes| serde_json::from_slice(bytes).ok().map(|json| Spec::from_hf("config.json", &json, &[], &[]));
        if let Some(Ok(spec)) = bounded("a config", bytes.len(), || read(bytes)) {
            assert_eq!(Spec::parse("again", &spec.to_string()).as_ref(), Ok(&spec), "a spec is what it writes");
        }
    });
}
