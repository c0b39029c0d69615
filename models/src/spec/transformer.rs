//! The schema of `kind = "transformer"`: Llama and Mistral. Keys are Hugging Face's.
use super::Family;
use super::family::MAX_LAYERS;
use super::reader::{Result, Section};
use super::write::{line, real, section, text};
use lolm_ir::graph::RopeScaling;
use std::fmt::{self, Formatter};

/// A pre-norm decoder with RMSNorm, half-split RoPE, grouped-query attention and SwiGLU (Touvron et al. 2023; Jiang et
/// al. 2023 for the window).
#[derive(Clone, PartialEq, Debug)]
pub struct TransformerSpec {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub n_layers: usize,
    pub attention: AttentionSpec,
    pub rope: RopeSpec,
    pub rms_norm_eps: f64,
    /// Biases of the four maps of attention.
    pub attention_bias: bool,
    /// Biases of the three maps of the MLP.
    pub mlp_bias: bool,
    /// The head is the embedding.
    pub tied: bool,
}

/// Grouped-query attention, perhaps within a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AttentionSpec {
    pub heads: usize,
    /// Heads of keys and values; it divides `heads`.
    pub kv_heads: usize,
    pub head_dim: usize,
    /// A query sees this many keys, itself among them.
    pub window: Option<usize>,
}

/// Rotary embedding of the first `dim` features of a head.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RopeSpec {
    pub theta: f64,
    pub dim: usize,
    pub scaling: Option<RopeScaling>,
}

pub const KEYS: &[&str] = &[
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "sliding_window",
    "rope_theta",
    "rope_scaling",
    "rms_norm_eps",
    "attention_bias",
    "mlp_bias",
    "tie_word_embeddings",
];
const SCALING: &[&str] =
    &["rope_type", "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"];

pub fn read(s: &Section, max_seq_len: usize) -> Result<Family> {
    let hidden_size = s.length("hidden_size")?;
    let attention = attention(s, hidden_size, "sliding_window")?;
    Ok(Family::Transformer(TransformerSpec {
        hidden_size,
        intermediate_size: s.length("intermediate_size")?,
        n_layers: s.count("num_hidden_layers", 1..=MAX_LAYERS)?,
        attention,
        rope: rope(s, attention.head_dim, max_seq_len)?,
        rms_norm_eps: eps(s, "rms_norm_eps", 1e-6)?,
        attention_bias: s.flag_or("attention_bias", false)?,
        mlp_bias: s.flag_or("mlp_bias", false)?,
        tied: s.flag_or("tie_word_embeddings", false)?,
    }))
}

/// What keeps the root of a norm from zero.
pub(super) fn eps(s: &Section, key: &str, default: f64) -> Result<f64> {
    s.number_or(key, 0.0..=1.0, default)
}

/// The heads; the number of features of a head is that of the stream over the heads unless it is said.
pub(super) fn attention(s: &Section, hidden_size: usize, window: &str) -> Result<AttentionSpec> {
    let heads = s.length("num_attention_heads")?;
    let kv_heads = if s.has("num_key_value_heads") { s.length("num_key_value_heads")? } else { heads };
    if !heads.is_multiple_of(kv_heads) {
        return s.refuse("num_key_value_heads", format!("a divisor of num_attention_heads = {heads}"));
    }
    let head_dim = match s.has("head_dim") {
        true => s.length("head_dim")?,
        false if hidden_size.is_multiple_of(heads) => hidden_size / heads,
        false => {
            return s.refuse("num_attention_heads", format!("a divisor of hidden_size = {hidden_size}, or head_dim"));
        }
    };
    let window = if s.has(window) { Some(s.length(window)?) } else { None };
    Ok(AttentionSpec { heads, kv_heads, head_dim, window })
}

/// RoPE over `dim` features, which are pairs.
pub(super) fn rope(s: &Section, dim: usize, max_seq_len: usize) -> Result<RopeSpec> {
    if !dim.is_multiple_of(2) {
        return s.refuse("head_dim", format!("an even number of features for the pairs of RoPE; there are {dim}"));
    }
    let scaling = s.section("rope_scaling", SCALING)?.map(|x| scaling(&x, max_seq_len)).transpose()?;
    Ok(RopeSpec { theta: s.number_or("rope_theta", 1.0..=1e12, 10000.0)?, dim, scaling })
}

fn scaling(s: &Section, max_seq_len: usize) -> Result<RopeScaling> {
    s.choice("rope_type", &[("llama3", ())])?;
    let (low, high) = (s.number("low_freq_factor", 1e-3..=1e6)?, s.number("high_freq_factor", 1e-3..=1e6)?);
    if high <= low {
        return s.refuse("high_freq_factor", format!("more than low_freq_factor = {low}"));
    }
    Ok(RopeScaling {
        factor: s.number("factor", 1e-3..=1e6)?,
        low_freq_factor: low,
        high_freq_factor: high,
        original_context: s.count_or("original_max_position_embeddings", 1..=1 << 24, max_seq_len)?,
    })
}

impl AttentionSpec {
    pub(super) fn write(&self, f: &mut Formatter<'_>, window: &str) -> fmt::Result {
        line(f, "num_attention_heads", self.heads)?;
        line(f, "num_key_value_heads", self.kv_heads)?;
        line(f, "head_dim", self.head_dim)?;
        self.window.map_or(Ok(()), |w| line(f, window, w))
    }
}

impl RopeSpec {
    /// The section, which stands behind all keys of the top.
    fn write_scaling(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(x) = &self.scaling else { return Ok(()) };
        section(f, "rope_scaling")?;
        text(f, "rope_type", "llama3")?;
        real(f, "factor", x.factor)?;
        real(f, "low_freq_factor", x.low_freq_factor)?;
        real(f, "high_freq_factor", x.high_freq_factor)?;
        line(f, "original_max_position_embeddings", x.original_context)
    }
}

impl TransformerSpec {
    pub(super) fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        line(f, "hidden_size", self.hidden_size)?;
        line(f, "intermediate_size", self.intermediate_size)?;
        line(f, "num_hidden_layers", self.n_layers)?;
        self.attention.write(f, "sliding_window")?;
        real(f, "rope_theta", self.rope.theta)?;
        real(f, "rms_norm_eps", self.rms_norm_eps)?;
        line(f, "attention_bias", self.attention_bias)?;
        line(f, "mlp_bias", self.mlp_bias)?;
        line(f, "tie_word_embeddings", self.tied)?;
        self.rope.write_scaling(f)
    }
}
