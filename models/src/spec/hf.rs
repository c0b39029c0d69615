//! Hugging Face's `config.json` in the form of a spec.
//!
//! Every key of a config is accounted for: it becomes a key of the spec, or it says nothing about the function of the
//! model (token ids, initial values, caches), or it must have the one value that is implemented. A key that is unknown
//! is refused by name, since it may change the function.
use super::error::{Place, SpecError, SpecFault};
use super::reader::{Result, Section};
use super::source::{Entry, Node, Value};

/// `model_type` and the kind of spec that it is.
const MODELS: [(&str, &str); 5] = [
    ("llama", "transformer"),
    ("mistral", "transformer"),
    ("mamba", "mamba"),
    ("jamba", "jamba"),
    ("recurrent_gemma", "griffin"),
];

/// Keys that say nothing about the function of a trained model.
const SILENT: &[&str] = &[
    "model_type",
    "architectures",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "unk_token_id",
    "initializer_range",
    "name_or_path",
    "_name_or_path",
    "_attn_implementation",
    "transformers.js_config",
    "is_llama_config",
    "pretraining_tp",
    "output_router_logits",
    "router_aux_loss_coef",
    "num_logits_to_keep",
    "residual_in_fp32",
    "rescale_prenorm_residual",
    "time_step_min",
    "time_step_max",
    "time_step_floor",
    "time_step_scale",
    "time_step_init_scheme",
    "fused_add_norm",
    "pad_vocab_size_multiple",
    "calc_logits_for_entire_prompt",
    "n_ctx",
    "use_mambapy",
    "use_mamba_kernels",
    "use_associative_scan",
    "w_init_variance_scale",
    "final_w_init_variance_scale",
];

/// Keys that must have one of these values.
const FIXED: &[(&str, &[&str])] = &[
    ("hidden_act", &["\"silu\""]),
    ("hidden_activation", &["\"gelu_pytorch_tanh\""]),
    ("attention_dropout", &["0.0", "0"]),
    ("rope_interleaved", &["false"]),
    ("embeddings_scale_by_sqrt_dim", &["true"]),
    ("scale_embeddings", &["true"]),
    ("rms_norm", &["true"]),
    ("mamba_inner_layernorms", &["true"]),
    ("is_encoder_decoder", &["false"]),
    ("add_cross_attention", &["false"]),
];

/// Keys that stand beside others which say the same.
const TWICE: &[(&str, &str)] =
    &[("d_model", "hidden_size"), ("n_layer", "num_hidden_layers"), ("d_inner", "intermediate_size")];

/// What a sequence may be long if the config does not say it.
const CONTEXT: i64 = 4096;

/// Mistral's window where its config does not mention one.
const MISTRAL_WINDOW: i64 = 4096;

/// A config with what a spec needs beside it: kind, tokenizer, and how it would be trained.
pub fn as_spec(config: Node, ignored: &[String]) -> Result<Node> {
    let s = Section::whole(config.clone())?;
    let kind = s.choice("model_type", &MODELS)?;
    let config = with_window(config);
    let mut node = dimensions(kind, config, ignored)?;
    let place = node.place.clone();
    let new = |value: Value| Node { place: place.clone(), value };
    let Value::Table(top) = &mut node.value else { return Ok(node) };
    let context = top.iter().find(|e| e.key == "max_seq_len").map_or(CONTEXT, |e| match e.node.value {
        Value::Int(n) => n,
        _ => CONTEXT,
    });
    let table = |entries: Vec<(&str, Value)>| {
        let entry = |(key, value): (&str, Value)| Entry { key: key.into(), place: place.clone(), node: new(value) };
        Value::Table(entries.into_iter().map(entry).collect())
    };
    let optimizer = table(vec![
        ("lr", Value::Float(3e-4)),
        ("betas", Value::List(vec![new(Value::Float(0.9)), new(Value::Float(0.95))])),
        ("weight_decay", Value::Float(0.1)),
        ("clip", Value::Float(1.0)),
    ]);
    let training = table(vec![
        ("batch", Value::Int(4)),
        ("seq", Value::Int(context.min(512))),
        ("steps", Value::Int(1000)),
        ("warmup", Value::Int(100)),
    ]);
    let text = |t: &str| Value::Text(t.into());
    let more =
        [("kind", text(kind)), ("tokenizer", text("tokenizer.json")), ("optimizer", optimizer), ("training", training)];
    top.extend(more.map(|(key, value)| Entry { key: key.into(), place: place.clone(), node: new(value) }));
    Ok(node)
}

/// A config of Mistral with the window that it means.
fn with_window(mut config: Node) -> Node {
    let place = config.place.clone();
    let Value::Table(entries) = &mut config.value else { return config };
    let has = |key: &str| entries.iter().find(|e| e.key == key);
    let mistral = has("model_type").is_some_and(|e| matches!(&e.node.value, Value::Text(t) if t == "mistral"));
    if mistral && has("sliding_window").is_none() {
        let node = Node { place: place.clone(), value: Value::Int(MISTRAL_WINDOW) };
        entries.push(Entry { key: "sliding_window".into(), place, node });
    }
    config
}

/// The keys of a config that say what the function is, as those of a spec of this kind.
pub fn dimensions(kind: &str, config: Node, ignored: &[String]) -> Result<Node> {
    let place = config.place.clone();
    let Value::Table(entries) = config.value else { return Ok(config) };
    let same = |e: &Entry| {
        let (_, first) = TWICE.iter().find(|(twice, _)| *twice == e.key)?;
        let first = entries.iter().find(|x| x.key == *first)?;
        Some(first.node.value.describe() == e.node.value.describe())
    };
    let mut top = vec![];
    for e in &entries {
        if same(e) == Some(true) {
            continue;
        }
        let e = e.clone();
        let absent = matches!(e.node.value, Value::Other("null"));
        if absent || SILENT.contains(&e.key.as_str()) || ignored.contains(&e.key) {
            continue;
        }
        match e.key.as_str() {
            "rope_parameters" | "rope_scaling" => rope(kind, e, &mut top)?,
            "max_position_embeddings" => top.push(Entry { key: "max_seq_len".into(), ..e }),
            // The layers as the pattern gives them; the pattern is among the keys.
            "layers_block_type" | "layer_types" | "_block_types" => {}
            key => match FIXED.iter().find(|(k, _)| *k == key) {
                Some((_, allowed)) if allowed.contains(&e.node.value.describe().as_str()) => {}
                Some((_, allowed)) => return Err(unsupported(&e, &allowed.join(" or "))),
                None => top.push(e),
            },
        }
    }
    if !top.iter().any(|e| e.key == "max_seq_len") {
        let node = Node { place: place.clone(), value: Value::Int(CONTEXT) };
        top.push(Entry { key: "max_seq_len".into(), place: place.clone(), node });
    }
    Ok(Node { place, value: Value::Table(top) })
}

/// The two forms in which a config says how RoPE turns: beside `rope_theta`, or with it.
fn rope(kind: &str, e: Entry, top: &mut Vec<Entry>) -> Result<()> {
    let Value::Table(inner) = &e.node.value else {
        return Err(unsupported(&e, "a table"));
    };
    let (mut scaling, mut form) = (vec![], None);
    for x in inner.iter().filter(|x| !matches!(x.node.value, Value::Other("null"))) {
        match x.key.as_str() {
            "rope_theta" | "partial_rotary_factor" => top.push(x.clone()),
            "rope_type" | "type" => form = Some(Entry { key: "rope_type".into(), ..x.clone() }),
            _ => scaling.push(x.clone()),
        }
    }
    match form.as_ref().map(|x| &x.node.value) {
        None if scaling.is_empty() => Ok(()),
        Some(Value::Text(t)) if t == "default" => Ok(()),
        Some(Value::Text(t)) if t == "llama3" && kind == "transformer" => {
            let entries = form.into_iter().chain(scaling).collect();
            let node = Node { place: e.node.place.clone(), value: Value::Table(entries) };
            top.push(Entry { key: "rope_scaling".into(), place: e.place.clone(), node });
            Ok(())
        }
        _ => Err(unsupported(form.as_ref().unwrap_or(&e), "\"default\" or, for llama and mistral, \"llama3\"")),
    }
}

fn unsupported(e: &Entry, expected: &str) -> SpecError {
    let Place { file, line, column } = e.place.clone();
    let fault =
        SpecFault::Wrong { found: e.node.value.describe(), expected: format!("{expected}; no other is implemented") };
    SpecError { place: Place { file, line, column }, key: e.key.clone(), fault }
}
