//! The schema of `kind = "griffin"`: Griffin as in Hugging Face's RecurrentGemma, whose keys these are.
use super::family::{MAX_LAYERS, MAX_TAPS};
use super::reader::{Result, Section};
use super::source::Value;
use super::transformer::{attention, eps, rope};
use super::write::{line, real};
use super::{AttentionSpec, Family, RopeSpec};
use crate::hf::fraction;
use std::fmt::{self, Formatter};

/// RG-LRU and local attention in a repeated order, GeGLU between (De et al. 2024; Botev et al. 2024).
#[derive(Clone, PartialEq, Debug)]
pub struct GriffinSpec {
    pub hidden_size: usize,
    /// Twice the width of the MLP, as published.
    pub intermediate_size: usize,
    pub n_layers: usize,
    /// Its heads are also the blocks of the gates of the RG-LRU.
    pub attention: AttentionSpec,
    pub rope: RopeSpec,
    pub lru_width: usize,
    pub conv_kernel: usize,
    /// What the layers are, over and over.
    pub block_types: Vec<Temporal>,
    pub logits_soft_cap: f64,
    pub rms_norm_eps: f64,
    /// Biases of query, key and value; the output always has one.
    pub attention_bias: bool,
    /// The head is the embedding.
    pub tied: bool,
}

/// The two kinds of temporal mixing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Temporal {
    Recurrent,
    Attention,
}

pub const KEYS: &[&str] = &[
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "attention_window_size",
    "partial_rotary_factor",
    "rope_theta",
    "lru_width",
    "conv1d_width",
    "block_types",
    "logits_soft_cap",
    "rms_norm_eps",
    "attention_bias",
    "tie_word_embeddings",
];

pub fn read(s: &Section, max_seq_len: usize) -> Result<Family> {
    let hidden_size = s.length("hidden_size")?;
    let mut attention = attention(s, hidden_size, "attention_window_size")?;
    attention.window = attention.window.or(Some(2048));
    let lru_width = s.count_or("lru_width", 1..=1 << 24, hidden_size)?;
    if !lru_width.is_multiple_of(attention.heads) {
        return s.refuse("lru_width", format!("a multiple of num_attention_heads = {}", attention.heads));
    }
    let intermediate_size = s.length("intermediate_size")?;
    if !intermediate_size.is_multiple_of(2) {
        return s.refuse("intermediate_size", "an even number, twice the width of the MLP");
    }
    let factor = s.number_or("partial_rotary_factor", 1e-3..=1.0, 0.5)?;
    let rotary = (attention.head_dim as f64 * factor) as usize;
    if rotary == 0 {
        return s.refuse("partial_rotary_factor", format!("some of the head_dim = {} features", attention.head_dim));
    }
    Ok(Family::Griffin(GriffinSpec {
        hidden_size,
        intermediate_size,
        n_layers: s.count("num_hidden_layers", 1..=MAX_LAYERS)?,
        attention,
        rope: rope(s, rotary, max_seq_len)?,
        lru_width,
        conv_kernel: s.count_or("conv1d_width", 1..=MAX_TAPS, 4)?,
        block_types: block_types(s)?,
        logits_soft_cap: s.number_or("logits_soft_cap", 1e-3..=1e6, 30.0)?,
        rms_norm_eps: eps(s, "rms_norm_eps", 1e-6)?,
        attention_bias: s.flag_or("attention_bias", false)?,
        tied: s.flag_or("tie_word_embeddings", true)?,
    }))
}

fn block_types(s: &Section) -> Result<Vec<Temporal>> {
    let Some(node) = s.find("block_types") else {
        return Ok(vec![Temporal::Recurrent, Temporal::Recurrent, Temporal::Attention]);
    };
    let one = |v: &Value| match v {
        Value::Text(t) if t == "recurrent" => Some(Temporal::Recurrent),
        Value::Text(t) if t == "attention" => Some(Temporal::Attention),
        _ => None,
    };
    let all = match &node.value {
        Value::List(items) => items.iter().map(|n| one(&n.value)).collect::<Option<Vec<_>>>(),
        _ => None,
    };
    match all {
        Some(types) if !types.is_empty() => Ok(types),
        _ => s.refuse("block_types", "a list of \"recurrent\" and \"attention\""),
    }
}

impl GriffinSpec {
    /// What a layer mixes time with.
    pub fn temporal(&self, layer: usize) -> Temporal {
        self.block_types[layer % self.block_types.len()]
    }

    pub(super) fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        line(f, "hidden_size", self.hidden_size)?;
        line(f, "intermediate_size", self.intermediate_size)?;
        line(f, "num_hidden_layers", self.n_layers)?;
        self.attention.write(f, "attention_window_size")?;
        real(f, "partial_rotary_factor", fraction(self.rope.dim, self.attention.head_dim))?;
        real(f, "rope_theta", self.rope.theta)?;
        line(f, "lru_width", self.lru_width)?;
        line(f, "conv1d_width", self.conv_kernel)?;
        let name = |t: &Temporal| match t {
            Temporal::Recurrent => "\"recurrent\"",
            Temporal::Attention => "\"attention\"",
        };
        line(f, "block_types", format_args!("[{}]", self.block_types.iter().map(name).collect::<Vec<_>>().join(", ")))?;
        real(f, "logits_soft_cap", self.logits_soft_cap)?;
        real(f, "rms_norm_eps", self.rms_norm_eps)?;
        line(f, "attention_bias", self.attention_bias)?;
        line(f, "tie_word_embeddings", self.tied)
    }
}
