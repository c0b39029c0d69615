//! The llama architecture: its keys as an HF configuration, its tensors under HF names.
//!
//! Two things differ from HF beside the names. Rotary positions turn neighbours here and halves there, so the rows of
//! `attn_q` and `attn_k` stand in another order: row 2i + p of a head is row p·D/2 + i there. And the scaling of Llama 3
//! is a tensor of factors here and four numbers there, which [`super::rope`] finds again.
use super::{Gguf, GgufError, TensorInfo, Value, rope};
use serde_json::{Map, Value as Json, json};

const ARCHITECTURE: &str = "general.architecture";
const PREFIX: &str = "llama.";
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// The keys that are read, without the prefix.
const KEYS: [&str; 16] = [
    "vocab_size",
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
];

/// Keys that may be there if they switch nothing on: the value that they must have.
const NEUTRAL: [(&str, &str); 6] = [
    ("expert_count", "0"),
    ("expert_used_count", "0"),
    ("attention.causal", "true"),
    ("attention.sliding_window", "0"),
    ("rope.scale_linear", "1"),
    ("tensor_data_layout", "\"Meta AI original pth\""),
];

/// What a dimension of a tensor is.
#[derive(Clone, Copy)]
enum Dim {
    Vocab,
    Hidden,
    /// All heads of the queries, or of keys and values.
    Heads,
    KvHeads,
    FeedForward,
}

/// A tensor's name here and there, its shape, and whether its rows are in the order of turned neighbours.
struct Row {
    here: &'static str,
    there: &'static str,
    shape: &'static [Dim],
    turned: bool,
}

const fn row(here: &'static str, there: &'static str, shape: &'static [Dim]) -> Row {
    Row { here, there, shape, turned: false }
}
const fn turned(here: &'static str, there: &'static str, shape: &'static [Dim]) -> Row {
    Row { here, there, shape, turned: true }
}

const TOP: [Row; 2] = [
    row("token_embd.weight", "model.embed_tokens.weight", &[Dim::Vocab, Dim::Hidden]),
    row("output_norm.weight", "model.norm.weight", &[Dim::Hidden]),
];
const HEAD: Row = row("output.weight", "lm_head.weight", &[Dim::Vocab, Dim::Hidden]);
const BLOCK: [Row; 9] = [
    row("attn_norm.weight", "input_layernorm.weight", &[Dim::Hidden]),
    turned("attn_q.weight", "self_attn.q_proj.weight", &[Dim::Heads, Dim::Hidden]),
    turned("attn_k.weight", "self_attn.k_proj.weight", &[Dim::KvHeads, Dim::Hidden]),
    row("attn_v.weight", "self_attn.v_proj.weight", &[Dim::KvHeads, Dim::Hidden]),
    row("attn_output.weight", "self_attn.o_proj.weight", &[Dim::Hidden, Dim::Heads]),
    row("ffn_norm.weight", "post_attention_layernorm.weight", &[Dim::Hidden]),
    row("ffn_gate.weight", "mlp.gate_proj.weight", &[Dim::FeedForward, Dim::Hidden]),
    row("ffn_up.weight", "mlp.up_proj.weight", &[Dim::FeedForward, Dim::Hidden]),
    row("ffn_down.weight", "mlp.down_proj.weight", &[Dim::Hidden, Dim::FeedForward]),
];

/// A model of the llama architecture.
#[derive(Debug)]
pub struct Llama<'g, 'a> {
    gguf: &'g Gguf<'a>,
    dims: Dims,
    tied: bool,
    /// The configuration as HF writes it for `LlamaForCausalLM`.
    pub config: Json,
}

#[derive(Clone, Copy, Debug)]
struct Dims {
    vocab: usize,
    hidden: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    feed_forward: usize,
}

/// A tensor with its name and its order of rows in HF's form.
#[derive(Clone, Debug)]
pub struct Placed<'g, 'a> {
    pub name: String,
    pub tensor: &'g TensorInfo<'a>,
    /// The width of a head whose rows are in another order.
    turned: Option<usize>,
}

impl Placed<'_, '_> {
    /// The elements of a row, as HF counts rows.
    pub fn row(&self, row: usize, to: &mut [f32]) {
        let from = match self.turned {
            None => row,
            Some(d) => {
                let (head, p, i) = (row / d, row % d / (d / 2), row % (d / 2));
                head * d + 2 * i + p
            }
        };
        self.tensor.dequantise_row(from, to);
    }

    /// All elements.
    pub fn elements(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.tensor.elements()];
        out.chunks_exact_mut(self.tensor.row_len()).enumerate().for_each(|(i, to)| self.row(i, to));
        out
    }
}

impl<'g, 'a> Llama<'g, 'a> {
    /// Reads the keys and checks that the tensors are those of the architecture, with the shapes that the keys say.
    pub fn read(gguf: &'g Gguf<'a>) -> Result<Llama<'g, 'a>, GgufError> {
        check_keys(gguf)?;
        let dims = dims(gguf)?;
        let tied = gguf.find(HEAD.here).is_none();
        let mut llama = Llama { gguf, dims, tied, config: Json::Null };
        let mut known = vec![false; gguf.tensors().len()];
        for (row, block) in llama.rows() {
            known[llama.checked(row, block)?] = true;
        }
        let mut extra = gguf.tensors().iter().zip(known).filter(|(t, known)| !known && t.name != ROPE_FACTORS);
        if let Some((t, _)) = extra.next() {
            return Err(GgufError::Extra { name: t.name.into() });
        }
        llama.config = llama.configuration()?;
        Ok(llama)
    }

    /// All tensors in HF's form.
    pub fn tensors(&self) -> impl Iterator<Item = Placed<'g, 'a>> {
        // Each was found by `read`.
        self.rows().filter_map(|(row, block)| {
            let tensor = self.gguf.find(&here(row, block))?;
            let name = block.map_or(row.there.to_string(), |n| format!("model.layers.{n}.{}", row.there));
            Some(Placed { name, tensor, turned: row.turned.then_some(self.dims.head_dim) })
        })
    }

    /// Each row of the tables with the block that it stands in.
    fn rows(&self) -> impl Iterator<Item = (&'static Row, Option<usize>)> + use<> {
        let head = (!self.tied).then_some((&HEAD, None));
        let blocks = (0..self.dims.layers).flat_map(|n| BLOCK.iter().map(move |r| (r, Some(n))));
        TOP.iter().map(|r| (r, None)).chain(head).chain(blocks)
    }

    /// The position of a tensor whose shape is right.
    fn checked(&self, row: &Row, block: Option<usize>) -> Result<usize, GgufError> {
        let name = here(row, block);
        let at = self.gguf.position(&name).ok_or(GgufError::NoTensor { name })?;
        let tensor = &self.gguf.tensors()[at];
        let d = &self.dims;
        let len = |dim: &Dim| match dim {
            Dim::Vocab => d.vocab,
            Dim::Hidden => d.hidden,
            Dim::Heads => d.heads * d.head_dim,
            Dim::KvHeads => d.kv_heads * d.head_dim,
            Dim::FeedForward => d.feed_forward,
        };
        let (found, expected) = (tensor.shape(), row.shape.iter().map(len).collect::<Vec<_>>());
        match found == expected {
            true => Ok(at),
            false => Err(GgufError::Shape { name: tensor.name.into(), found, expected }),
        }
    }

    fn configuration(&self) -> Result<Json, GgufError> {
        let (g, d) = (self.gguf, &self.dims);
        let theta = g.float(&key("rope.freq_base"))?.unwrap_or(10000.0);
        let eps = required(g.float(&key("attention.layer_norm_rms_epsilon"))?, "attention.layer_norm_rms_epsilon")?;
        let mut config = json!({
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "head_dim": d.head_dim,
            "hidden_act": "silu",
            "hidden_size": d.hidden,
            "initializer_range": 0.02,
            "intermediate_size": d.feed_forward,
            "max_position_embeddings": length(g, "context_length")?,
            "mlp_bias": false,
            "model_type": "llama",
            "num_attention_heads": d.heads,
            "num_hidden_layers": d.layers,
            "num_key_value_heads": d.kv_heads,
            "rms_norm_eps": shortest(eps),
            "rope_theta": shortest(theta),
            "tie_word_embeddings": self.tied,
            "torch_dtype": "float32",
            "vocab_size": d.vocab,
        });
        let mut set =
            |key: &str, value: Json| drop(config.as_object_mut().map(|c: &mut Map<_, _>| c.insert(key.into(), value)));
        for token in ["bos_token_id", "eos_token_id"] {
            if let Some(id) = g.unsigned(&format!("tokenizer.ggml.{token}"))? {
                set(token, json!(id));
            }
        }
        if let Some(scaling) = self.scaling(theta)? {
            set("rope_scaling", scaling);
        }
        Ok(config)
    }

    /// The scaling of the rotary positions, as HF writes it.
    fn scaling(&self, theta: f64) -> Result<Option<Json>, GgufError> {
        let g = self.gguf;
        let kind = g.text(&key("rope.scaling.type"))?.unwrap_or("none");
        let factor = g.float(&key("rope.scaling.factor"))?;
        let factors = g.find(ROPE_FACTORS);
        match (kind, factor, factors) {
            ("none", None, None) => Ok(None),
            ("linear", Some(factor), None) => Ok(Some(json!({"rope_type": "linear", "factor": shortest(factor)}))),
            ("none", _, Some(t)) => {
                let (found, expected) = (t.shape(), vec![self.dims.head_dim / 2]);
                if found != expected {
                    return Err(GgufError::Shape { name: t.name.into(), found, expected });
                }
                let original = g.unsigned(&key("rope.scaling.original_context_length"))?;
                rope::llama3(&t.dequantise(), theta, original).map(Some)
            }
            _ => Err(GgufError::Key {
                key: key("rope.scaling.type"),
                found: format!("{kind:?}, with the factor {factor:?}"),
                expected: "none, or linear with a factor, or the factors of Llama 3".into(),
            }),
        }
    }
}

fn here(row: &Row, block: Option<usize>) -> String {
    block.map_or(row.here.to_string(), |n| format!("blk.{n}.{}", row.here))
}

fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

fn required<T>(found: Option<T>, name: &str) -> Result<T, GgufError> {
    found.ok_or_else(|| GgufError::NoKey { key: key(name), expected: "a number" })
}

/// A positive length that fits a machine of 32 bits, so that products of two cannot overflow.
fn length(g: &Gguf, name: &str) -> Result<usize, GgufError> {
    optional_length(g, name).and_then(|found| required(found, name))
}

fn optional_length(g: &Gguf, name: &str) -> Result<Option<usize>, GgufError> {
    let found = g.unsigned(&key(name))?;
    match found {
        Some(n) if !(1..=u32::MAX as u64).contains(&n) => {
            Err(GgufError::Key {
                key: key(name), found: n.to_string(), expected: "a positive length below 2³²".into()
            })
        }
        n => Ok(n.map(|n| n as usize)),
    }
}

/// A number that was f32 with no more digits than f32 has.
fn shortest(x: f64) -> Json {
    let narrow = x as f32;
    match narrow as f64 == x {
        // Digits that print an f32 read back as a number of f64.
        true => narrow.to_string().parse::<f64>().map_or(json!(x), |x| json!(x)),
        false => json!(x),
    }
}

/// Refuses other architectures, parts of files, and keys of the architecture that are not read.
fn check_keys(g: &Gguf) -> Result<(), GgufError> {
    let expected = |key: &str, found: Option<Value>, expected: &str| {
        let found = found.map_or("absent".into(), |v| v.to_string());
        Err(GgufError::Key { key: key.into(), found, expected: expected.into() })
    };
    if g.text(ARCHITECTURE)? != Some("llama") {
        return expected(ARCHITECTURE, g.get(ARCHITECTURE), "\"llama\": no other architecture is read");
    }
    if g.unsigned("split.count")?.is_some_and(|n| n > 1) {
        return expected("split.count", g.get("split.count"), "1: a file in parts is not read");
    }
    for (name, value) in g.metadata() {
        let Some(short) = name.strip_prefix(PREFIX) else { continue };
        match NEUTRAL.iter().find(|n| n.0 == short) {
            Some((_, neutral)) if value.to_string() == *neutral => (),
            Some((_, neutral)) => return expected(name, Some(value), neutral),
            None if KEYS.contains(&short) => (),
            None => return Err(GgufError::UnknownKey { key: name.into(), value: value.to_string() }),
        }
    }
    Ok(())
}

fn dims(g: &Gguf) -> Result<Dims, GgufError> {
    let (hidden, heads) = (length(g, "embedding_length")?, length(g, "attention.head_count")?);
    let embedding = g.tensor(TOP[0].here)?;
    let of_hidden = || match hidden % heads {
        0 => Ok(hidden / heads),
        _ => wrong(g, "attention.head_count", format!("a divisor of {hidden}")),
    };
    let head_dim = optional_length(g, "attention.key_length")?.map_or_else(of_hidden, Ok)?;
    for name in ["attention.value_length", "rope.dimension_count"] {
        if optional_length(g, name)?.is_some_and(|n| n != head_dim) {
            return wrong(g, name, format!("{head_dim}, the width of a head"));
        }
    }
    if head_dim % 2 != 0 {
        return wrong(g, "attention.head_count", format!("heads of an even width, not {head_dim}"));
    }
    Ok(Dims {
        vocab: optional_length(g, "vocab_size")?.unwrap_or(embedding.rows()),
        hidden,
        layers: length(g, "block_count")?,
        heads,
        kv_heads: optional_length(g, "attention.head_count_kv")?.unwrap_or(heads),
        head_dim,
        feed_forward: length(g, "feed_forward_length")?,
    })
}

fn wrong<T>(g: &Gguf, name: &str, expected: String) -> Result<T, GgufError> {
    let found = g.get(&key(name)).map_or("absent".into(), |v| v.to_string());
    Err(GgufError::Key { key: key(name), found, expected })
}

#[cfg(test)]
mod tests;
