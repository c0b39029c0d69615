//! Small models of the llama architecture: their configuration, names and rows, and what is refused.
use super::super::testing::Writer;
use super::*;

const HIDDEN: usize = 8;
const VOCAB: usize = 3;
const FEED_FORWARD: usize = 12;

fn keys(w: Writer) -> Writer {
    let n = |w: Writer, key: &str, x: u32| w.key(&format!("llama.{key}"), Value::U32(x));
    let w = w.key("general.architecture", Value::Text("llama")).key("general.name", Value::Text("tiny"));
    let w = n(n(n(w, "embedding_length", HIDDEN as u32), "block_count", 2), "context_length", 64);
    let w =
        n(n(n(w, "feed_forward_length", FEED_FORWARD as u32), "attention.head_count", 2), "attention.head_count_kv", 1);
    w.key("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5))
}

/// Counts up from a start that differs with the name.
fn numbers(name: &str, len: usize) -> Vec<f32> {
    let start = name.bytes().map(|b| b as usize).sum::<usize>() as f32;
    (0..len).map(|i| start + i as f32).collect()
}

fn tensors(mut w: Writer, head: bool) -> Writer {
    let heads: &[(&str, &[usize])] = if head { &[("output.weight", &[VOCAB, HIDDEN])] } else { &[] };
    let top: [(&str, &[usize]); 2] = [("token_embd.weight", &[VOCAB, HIDDEN]), ("output_norm.weight", &[HIDDEN])];
    for (name, shape) in top.iter().chain(heads) {
        w = w.floats(name, shape, &numbers(name, shape.iter().product()));
    }
    let block: [(&str, &[usize]); 9] = [
        ("attn_norm", &[HIDDEN]),
        ("attn_q", &[8, HIDDEN]),
        ("attn_k", &[4, HIDDEN]),
        ("attn_v", &[4, HIDDEN]),
        ("attn_output", &[HIDDEN, 8]),
        ("ffn_norm", &[HIDDEN]),
        ("ffn_gate", &[FEED_FORWARD, HIDDEN]),
        ("ffn_up", &[FEED_FORWARD, HIDDEN]),
        ("ffn_down", &[HIDDEN, FEED_FORWARD]),
    ];
    for n in 0..2 {
        for (name, shape) in block {
            let name = format!("blk.{n}.{name}.weight");
            w = w.floats(&name, shape, &numbers(&name, shape.iter().product()));
        }
    }
    w
}

fn config(w: &Writer) -> Json {
    let bytes = w.bytes();
    Llama::read(&Gguf::parse(&bytes).unwrap()).unwrap().config
}

fn refusal(w: &Writer) -> String {
    let bytes = w.bytes();
    Llama::read(&Gguf::parse(&bytes).unwrap()).err().unwrap().to_string()
}

#[test]
fn the_keys_become_a_configuration() {
    let c = config(&tensors(keys(Writer::default()), false));
    let expected = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "torch_dtype": "float32",
        "attention_bias": false, "mlp_bias": false, "attention_dropout": 0.0, "initializer_range": 0.02,
        "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 4, "max_position_embeddings": 64, "vocab_size": 3,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true,
    });
    assert_eq!(c, expected);
    let more = keys(Writer::default())
        .key("llama.rope.freq_base", Value::F32(5e5))
        .key("llama.vocab_size", Value::U32(VOCAB as u32))
        .key("llama.rope.dimension_count", Value::U32(4))
        .key("llama.attention.key_length", Value::U32(4))
        .key("llama.expert_count", Value::U32(0))
        .key("tokenizer.ggml.eos_token_id", Value::U32(2))
        .key("llama.rope.scaling.type", Value::Text("linear"))
        .key("llama.rope.scaling.factor", Value::F32(2.5));
    let c = config(&tensors(more, true));
    assert_eq!((&c["rope_theta"], &c["tie_word_embeddings"]), (&json!(5e5), &json!(false)));
    assert_eq!((&c["rope_scaling"], &c["eos_token_id"]), (&json!({"rope_type": "linear", "factor": 2.5}), &json!(2)));
}

#[test]
fn factors_of_rotary_positions_become_a_scaling() {
    let w = tensors(keys(Writer::default()).key("llama.rope.freq_base", Value::F32(4e6)), false);
    let c = config(&w.clone().floats("rope_freqs.weight", &[2], &[1.0, 8.0]));
    let expected = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192});
    assert_eq!(c["rope_scaling"], expected);
    let e = refusal(&w.clone().floats("rope_freqs.weight", &[2], &[3.0, 8.0]));
    assert!(e.starts_with("the 2 factors of `rope_freqs.weight`, the last of them 8, are not those"), "{e}");
    let e = refusal(&w.floats("rope_freqs.weight", &[3], &[1.0, 1.0, 8.0]));
    assert_eq!(e, "tensor `rope_freqs.weight` has the shape [3], expected [2]");
}

#[test]
fn tensors_have_their_names_and_their_order_of_rows() {
    let bytes = tensors(keys(Writer::default()), true).bytes();
    let gguf = Gguf::parse(&bytes).unwrap();
    let all: Vec<Placed> = Llama::read(&gguf).unwrap().tensors().collect();
    assert_eq!(all.len(), 3 + 2 * 9);
    let find = |name: &str| all.iter().find(|t| t.name == name).unwrap();
    for (there, here) in [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("lm_head.weight", "output.weight"),
        ("model.norm.weight", "output_norm.weight"),
        ("model.layers.1.self_attn.v_proj.weight", "blk.1.attn_v.weight"),
        ("model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight"),
        ("model.layers.1.post_attention_layernorm.weight", "blk.1.ffn_norm.weight"),
    ] {
        let t = find(there);
        assert_eq!((t.tensor.name, t.elements()), (here, numbers(here, t.tensor.elements())), "{there}");
    }
    // Rows of a head of width 4 that stand there as 0 2 1 3: pairs here, halves there.
    for (there, here, heads) in
        [("self_attn.q_proj.weight", "blk.1.attn_q.weight", 2), ("self_attn.k_proj.weight", "blk.1.attn_k.weight", 1)]
    {
        let t = find(&format!("model.layers.1.{there}"));
        let theirs = numbers(here, heads * 4 * HIDDEN);
        let order = [0, 2, 1, 3, 4, 6, 5, 7];
        let expected: Vec<f32> =
            order[..heads * 4].iter().flat_map(|r| theirs[r * HIDDEN..(r + 1) * HIDDEN].to_vec()).collect();
        assert_eq!(t.elements(), expected, "{there}");
    }
}

#[test]
fn what_would_change_the_function_is_refused_by_name() {
    let w = || tensors(keys(Writer::default()), false);
    let rows = [
        (w().key("llama.logit_scale", Value::F32(2.0)), "key `llama.logit_scale` = 2 is not known, and may change"),
        (w().key("llama.expert_count", Value::U32(8)), "key `llama.expert_count` is 8, expected 0"),
        (
            w().key("llama.attention.sliding_window", Value::U32(9)),
            "key `llama.attention.sliding_window` is 9, expected 0",
        ),
        (
            w().key("llama.rope.dimension_count", Value::U32(2)),
            "`llama.rope.dimension_count` is 2, expected 4, the width",
        ),
        (w().key("llama.rope.scaling.type", Value::Text("yarn")), "`llama.rope.scaling.type` is \"yarn\""),
        (w().key("split.count", Value::U16(3)), "key `split.count` is 3, expected 1: a file in parts is not read"),
        (w().floats("blk.0.attn_q.bias", &[8], &[0.0; 8]), "tensor `blk.0.attn_q.bias` has no place in a model"),
        (w().floats("blk.2.attn_norm.weight", &[8], &[0.0; 8]), "tensor `blk.2.attn_norm.weight` has no place"),
        (keys(Writer::default()), "the file has no tensor `token_embd.weight`"),
        (Writer::default(), "key `general.architecture` is absent, expected \"llama\""),
        (Writer::default().key("general.architecture", Value::Text("gemma")), "is \"gemma\", expected \"llama\""),
    ];
    for (w, what) in rows {
        let e = refusal(&w);
        assert!(e.contains(what), "{e}");
    }
    for (key, x, what) in [
        ("block_count", 1 << 31, "the file has no tensor `blk.2.attn_norm.weight`"),
        ("block_count", 0, "key `llama.block_count` is 0, expected a positive length below 2³²"),
        ("attention.head_count", 3, "key `llama.attention.head_count` is 3, expected a divisor of 8"),
        ("attention.head_count", 8, "expected heads of an even width, not 1"),
        ("attention.head_count", 4, "has the shape [4, 8], expected [2, 8]"),
        ("vocab_size", 4, "tensor `token_embd.weight` has the shape [3, 8], expected [4, 8]"),
        ("feed_forward_length", u32::MAX, "has the shape [12, 8], expected [4294967295, 8]"),
    ] {
        let base = Writer::default().key(&format!("llama.{key}"), Value::U32(x));
        let w = keys(base).without_repeats();
        let e = refusal(&tensors(w, false));
        assert!(e.contains(what), "{key} {x}: {e}");
    }
}
