//! Hugging Face's configurations: those of the golden cases say what the cases say, those of published models are read
//! whole, and what they say of functions that are not implemented is refused.
mod common;
use common::{CASES, Case};
use lolm_models::spec::{Family, Override};
use lolm_models::{Spec, SpecError};
use serde_json::{Value, json};
use std::path::Path;

fn read(config: &Value) -> Result<Spec, SpecError> {
    Spec::from_hf("config.json", config, &[], &[])
}

#[test]
fn configurations_say_what_the_cases_say() {
    let mut seen = 0;
    for case in CASES.map(Case::load) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(case.name).join("config.json");
        let Ok(text) = std::fs::read_to_string(path) else { continue };
        let spec = read(&serde_json::from_str(&text).unwrap()).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        assert_eq!((spec.family, spec.vocab_size), (case.spec.family, case.spec.vocab_size), "{}", case.name);
        seen += 1;
    }
    assert_eq!(seen, 10);
}

/// What a spec's text says, read again, is the spec.
#[test]
fn texts_read_back() {
    for case in CASES.map(Case::load) {
        let text = case.spec.to_string();
        assert_eq!(Spec::parse("text", &text).unwrap_or_else(|e| panic!("{e}\n{text}")), case.spec, "{}", case.name);
    }
}

/// Keys as they stand in published configurations.
#[test]
fn published_configurations_are_read() {
    let llama = json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009], "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048,
        "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": false,
        "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8,
        "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0,
        "low_freq_factor": 1.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"}, "rope_theta": 500000.0,
        "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.45.0.dev0", "use_cache": true,
        "vocab_size": 128256});
    let spec = read(&llama).unwrap();
    let Family::Transformer(t) = &spec.family else { panic!("{}", spec.family.name()) };
    let scaling = t.rope.scaling.unwrap();
    assert_eq!((t.rope.theta, scaling.factor, scaling.original_context), (500000.0, 32.0, 8192));
    assert_eq!((t.attention.heads, t.attention.kv_heads, t.attention.window, t.tied), (32, 8, None, true));
    assert_eq!(spec.max_seq_len, 131072);

    let mamba = json!({
        "architectures": ["MambaForCausalLM"], "bos_token_id": 0, "conv_kernel": 4, "d_inner": 1536, "d_model": 768,
        "eos_token_id": 0, "expand": 2, "fused_add_norm": true, "hidden_act": "silu", "hidden_size": 768,
        "initializer_range": 0.1, "intermediate_size": 1536, "layer_norm_epsilon": 1e-05, "model_type": "mamba",
        "n_layer": 24, "num_hidden_layers": 24, "pad_token_id": 0, "pad_vocab_size_multiple": 8,
        "rescale_prenorm_residual": false, "residual_in_fp32": true, "rms_norm": true, "state_size": 16,
        "time_step_floor": 0.0001, "time_step_init_scheme": "random", "time_step_max": 0.1, "time_step_min": 0.001,
        "time_step_rank": 48, "time_step_scale": 1.0, "torch_dtype": "float32", "transformers_version": "4.39.0.dev0",
        "use_bias": false, "use_cache": true, "use_conv_bias": true, "vocab_size": 50280});
    let Family::Mamba(m) = read(&mamba).unwrap().family else { panic!() };
    assert_eq!((m.n_layers, m.mixer.d_state, m.mixer.dt_rank, m.tied), (24, 16, 48, true));

    let jamba = json!({
        "architectures": ["JambaForCausalLM"], "attention_dropout": 0.0, "attn_layer_offset": 4, "attn_layer_period": 8,
        "bos_token_id": 1, "calc_logits_for_entire_prompt": false, "eos_token_id": 2, "expert_layer_offset": 1,
        "expert_layer_period": 2, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 14336, "mamba_conv_bias": true, "mamba_d_conv": 4, "mamba_d_state": 16, "mamba_dt_rank": 256,
        "mamba_expand": 2, "mamba_inner_layernorms": true, "mamba_proj_bias": false, "model_type": "jamba",
        "n_ctx": 262144, "num_attention_heads": 32, "num_experts": 16, "num_experts_per_tok": 2, "num_hidden_layers": 32,
        "num_key_value_heads": 8, "output_router_logits": false, "pad_token_id": 0, "rms_norm_eps": 1e-06,
        "router_aux_loss_coef": 0.001, "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "transformers_version": "4.40.0.dev0", "use_cache": true, "use_mamba_kernels": true, "vocab_size": 65536});
    let Family::Jamba(j) = read(&jamba).unwrap().family else { panic!() };
    let layers = |is: &dyn Fn(usize) -> bool| (0..32).filter(|l| is(*l)).collect::<Vec<_>>();
    assert_eq!(layers(&|l| j.attends(l)), [4, 12, 20, 28]);
    assert_eq!(layers(&|l| j.routes(l)), (1..32).step_by(2).collect::<Vec<_>>());

    let griffin = json!({
        "_block_types": ["recurrent", "recurrent", "attention"], "architectures": ["RecurrentGemmaForCausalLM"],
        "attention_bias": false, "attention_dropout": 0.0, "attention_window_size": 2048,
        "block_types": ["recurrent", "recurrent", "attention"], "bos_token_id": 2, "conv1d_width": 4,
        "embeddings_scale_by_sqrt_dim": true, "eos_token_id": 1, "final_w_init_variance_scale": 0.07692307692307693,
        "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2560, "intermediate_size": 15360,
        "logits_soft_cap": 30.0, "lru_width": 2560, "model_type": "recurrent_gemma", "num_attention_heads": 10,
        "num_hidden_layers": 26, "num_key_value_heads": 1, "pad_token_id": 0, "partial_rotary_factor": 0.5,
        "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "torch_dtype": "bfloat16", "transformers_version": "4.41.0.dev0",
        "use_cache": true, "vocab_size": 256000, "w_init_variance_scale": 0.01});
    let Family::Griffin(g) = read(&griffin).unwrap().family else { panic!() };
    assert_eq!((g.rope.dim, g.attention.window, g.lru_width, g.tied), (128, Some(2048), 2560, true));
}

/// A config of Mistral that does not mention a window has one; with null it has none.
#[test]
fn mistral_has_a_window_unless_it_says_no() {
    let config = |window: Option<Value>| {
        let mut config = json!({"model_type": "mistral", "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 64});
        if let Some(w) = window {
            config["sliding_window"] = w;
        }
        config
    };
    let window = |c: Value| match read(&c).unwrap().family {
        Family::Transformer(t) => t.attention.window,
        other => panic!("{}", other.name()),
    };
    assert_eq!(window(config(None)), Some(4096));
    assert_eq!(window(config(Some(json!(16)))), Some(16));
    assert_eq!(window(config(Some(Value::Null))), None);
}

/// A file that no spec can be is not read.
#[test]
fn huge_files_are_refused_unread() {
    let path = std::env::temp_dir().join(format!("lolm-huge-{}.toml", std::process::id()));
    std::fs::File::create(&path).unwrap().set_len(1 << 32).unwrap();
    let e = Spec::load(&path).unwrap_err().to_string();
    std::fs::remove_file(&path).unwrap();
    assert!(e.contains("it has 4294967296 bytes, and a spec or a configuration has at most 1048576"), "{e}");
}

#[test]
fn functions_that_are_not_implemented_are_refused() {
    let base = json!({"model_type": "mamba", "vocab_size": 8, "hidden_size": 4, "num_hidden_layers": 1});
    let with = |key: &str, value: Value| {
        let mut c = base.clone();
        c[key] = value;
        read(&c).unwrap_err().to_string()
    };
    assert!(read(&base).is_ok());
    for (key, value) in [
        ("model_type", json!("mamba2")),
        ("rms_norm", json!(false)),
        ("hidden_act", json!("gelu")),
        ("ssm_cfg", json!({"layer": "Mamba2"})),
        ("attn_cfg", json!({"num_heads": 4})),
        ("quantization_config", json!({"bits": 4})),
    ] {
        let e = with(key, value);
        assert!(e.contains(&format!("`{key}`")), "{key}: {e}");
    }
    // A key that its user knows to say nothing can be left out of account.
    let mut c = base.clone();
    c["note"] = json!("mine");
    assert!(read(&c).unwrap_err().to_string().contains("`note`"));
    Spec::from_hf("config.json", &c, &["note".into()], &[Override::new("max_seq_len", "600")]).unwrap();
}
