//! The configuration of `mamba_ssm`, the authors' own implementation of Mamba, in Hugging Face's form.
//!
//! It is known by `d_model` and `n_layer` where a `model_type` is missing. Every key is accounted for, as in a config of
//! Hugging Face: what would change the function is refused by name.
use crate::spec::{Place, SpecError, SpecFault};
use serde_json::{Map, Value, json};

/// Keys of `ssm_cfg` that say how a mixer starts or which kernels run it.
const SILENT: [&str; 6] = ["dt_min", "dt_max", "dt_init", "dt_scale", "dt_init_floor", "use_fast_path"];
/// Keys of `ssm_cfg` with theirs in Hugging Face's form.
const MIXER: [(&str, &str); 6] = [
    ("d_state", "state_size"),
    ("d_conv", "conv_kernel"),
    ("expand", "expand"),
    ("dt_rank", "time_step_rank"),
    ("conv_bias", "use_conv_bias"),
    ("bias", "use_bias"),
];
/// What the vocabulary is padded to if the file does not say it.
const PADDING: u64 = 8;

/// The configuration in Hugging Face's form, if it is one of `mamba_ssm`; `file` is for messages.
pub fn as_hf(file: &str, config: &Value) -> Result<Option<Value>, SpecError> {
    let Some(theirs) = config.as_object() else { return Ok(None) };
    if theirs.contains_key("model_type") || !theirs.contains_key("d_model") || !theirs.contains_key("n_layer") {
        return Ok(None);
    }
    let mut ours = Map::from_iter([
        ("model_type".to_string(), json!("mamba")),
        ("hidden_act".to_string(), json!("silu")),
        ("layer_norm_epsilon".to_string(), json!(1e-5)),
    ]);
    let mut padding = PADDING;
    for (key, value) in theirs {
        let must = |expected: Value| {
            if *value == expected { Ok(()) } else { Err(wrong(file, key, value, &expected.to_string())) }
        };
        let mut set = |key: &str| drop(ours.insert(key.into(), value.clone()));
        match key.as_str() {
            "d_model" => set("hidden_size"),
            "n_layer" => set("num_hidden_layers"),
            "vocab_size" => set("vocab_size"),
            "tie_embeddings" => set("tie_word_embeddings"),
            "pad_vocab_size_multiple" => {
                let found = value.as_u64().filter(|n| (1..=1 << 20).contains(n));
                padding = found.ok_or_else(|| wrong(file, key, value, "a positive length"))?;
            }
            "ssm_cfg" => mixer(file, value, &mut ours)?,
            "rms_norm" => must(json!(true))?,
            "d_intermediate" => must(json!(0))?,
            "attn_layer_idx" => must(json!([]))?,
            "attn_cfg" => must(json!({}))?,
            "residual_in_fp32" | "fused_add_norm" => {}
            _ => return Err(wrong(file, key, value, "no such key: it is not known, and may change the function")),
        }
    }
    if let Some(vocab) = ours.get("vocab_size") {
        let padded = vocab.as_u64().and_then(|n| n.checked_next_multiple_of(padding));
        let padded = padded.ok_or_else(|| wrong(file, "vocab_size", vocab, "a positive length"))?;
        ours.insert("vocab_size".into(), json!(padded));
    }
    Ok(Some(Value::Object(ours)))
}

fn mixer(file: &str, config: &Value, ours: &mut Map<String, Value>) -> Result<(), SpecError> {
    let Some(config) = config.as_object() else { return Err(wrong(file, "ssm_cfg", config, "a table")) };
    for (key, value) in config {
        let refuse = |expected: &str| Err(wrong(file, &format!("ssm_cfg.{key}"), value, expected));
        match MIXER.iter().find(|(theirs, _)| theirs == key) {
            Some((_, name)) => drop(ours.insert(name.to_string(), value.clone())),
            None if key == "layer" && *value != json!("Mamba1") => {
                return refuse("\"Mamba1\"; no other mixer is implemented");
            }
            None if key == "layer" || SILENT.contains(&key.as_str()) => {}
            None => return refuse("no such key: it is not known, and may change the function"),
        }
    }
    Ok(())
}

fn wrong(file: &str, key: &str, found: &Value, expected: &str) -> SpecError {
    SpecError {
        place: Place { file: file.into(), line: None, column: None },
        key: key.into(),
        fault: SpecFault::Wrong { found: found.to_string(), expected: expected.into() },
    }
}
