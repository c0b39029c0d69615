//! The schema of `kind = "jamba"`. Keys are Hugging Face's.
use super::family::MAX_LAYERS;
use super::mamba::{MixerKeys, mixer};
use super::reader::{Result, Section};
use super::transformer::{attention, eps};
use super::write::{line, real};
use super::{AttentionSpec, Family, MambaMixer};
use std::fmt::{self, Formatter};

/// Attention without positions every `attn_layer_period` layers and Mamba in the others; experts every
/// `expert_layer_period` layers and one MLP in the others (Lieber et al. 2024).
#[derive(Clone, PartialEq, Debug)]
pub struct JambaSpec {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub n_layers: usize,
    pub attention: AttentionSpec,
    pub mixer: MambaMixer,
    pub experts: usize,
    pub experts_per_token: usize,
    pub attn_layer_period: usize,
    pub attn_layer_offset: usize,
    pub expert_layer_period: usize,
    pub expert_layer_offset: usize,
    pub rms_norm_eps: f64,
    /// The head is the embedding.
    pub tied: bool,
}

pub const KEYS: &[&str] = &[
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "num_experts",
    "num_experts_per_tok",
    "attn_layer_period",
    "attn_layer_offset",
    "expert_layer_period",
    "expert_layer_offset",
    "mamba_d_state",
    "mamba_d_conv",
    "mamba_expand",
    "mamba_dt_rank",
    "mamba_conv_bias",
    "mamba_proj_bias",
    "rms_norm_eps",
    "tie_word_embeddings",
];
const MIXER: MixerKeys = MixerKeys {
    state: "mamba_d_state",
    conv: "mamba_d_conv",
    expand: "mamba_expand",
    rank: "mamba_dt_rank",
    conv_bias: "mamba_conv_bias",
    bias: "mamba_proj_bias",
};
const MAX_EXPERTS: usize = 4096;

pub fn read(s: &Section, _: usize) -> Result<Family> {
    let hidden_size = s.length("hidden_size")?;
    let experts = s.count_or("num_experts", 1..=MAX_EXPERTS, 16)?;
    let (attn_layer_period, attn_layer_offset) = every(s, "attn_layer_period", "attn_layer_offset", (8, 4))?;
    let (expert_layer_period, expert_layer_offset) = every(s, "expert_layer_period", "expert_layer_offset", (2, 1))?;
    Ok(Family::Jamba(JambaSpec {
        hidden_size,
        intermediate_size: s.length("intermediate_size")?,
        n_layers: s.count("num_hidden_layers", 1..=MAX_LAYERS)?,
        attention: attention(s, hidden_size, "sliding_window")?,
        mixer: mixer(s, &MIXER, hidden_size)?,
        experts,
        experts_per_token: s.count_or("num_experts_per_tok", 1..=experts, 2.min(experts))?,
        attn_layer_period,
        attn_layer_offset,
        expert_layer_period,
        expert_layer_offset,
        rms_norm_eps: eps(s, "rms_norm_eps", 1e-6)?,
        tied: s.flag_or("tie_word_embeddings", false)?,
    }))
}

/// A period and the layer of it that is meant.
fn every(s: &Section, period: &str, offset: &str, default: (usize, usize)) -> Result<(usize, usize)> {
    let n = s.count_or(period, 1..=MAX_LAYERS, default.0)?;
    let at = s.count_or(offset, 0..=MAX_LAYERS, default.1)?;
    if at >= n {
        return s.refuse(offset, format!("less than {period} = {n}"));
    }
    Ok((n, at))
}

impl JambaSpec {
    /// True if this layer attends; the others are Mamba mixers.
    pub fn attends(&self, layer: usize) -> bool {
        layer % self.attn_layer_period == self.attn_layer_offset
    }
    /// True if this layer routes to experts; the others have one MLP.
    pub fn routes(&self, layer: usize) -> bool {
        self.experts > 1 && layer % self.expert_layer_period == self.expert_layer_offset
    }

    pub(super) fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        line(f, "hidden_size", self.hidden_size)?;
        line(f, "intermediate_size", self.intermediate_size)?;
        line(f, "num_hidden_layers", self.n_layers)?;
        self.attention.write(f, "sliding_window")?;
        line(f, "num_experts", self.experts)?;
        line(f, "num_experts_per_tok", self.experts_per_token)?;
        line(f, "attn_layer_period", self.attn_layer_period)?;
        line(f, "attn_layer_offset", self.attn_layer_offset)?;
        line(f, "expert_layer_period", self.expert_layer_period)?;
        line(f, "expert_layer_offset", self.expert_layer_offset)?;
        self.mixer.write(f, &MIXER)?;
        real(f, "rms_norm_eps", self.rms_norm_eps)?;
        line(f, "tie_word_embeddings", self.tied)
    }
}
