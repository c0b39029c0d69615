//! The schema of `kind = "samba"`.
use super::family::MAX_LAYERS;
use super::mamba::{MIXER, mixer};
use super::reader::{Result, Section};
use super::transformer::{attention, eps, rope};
use super::write::{line, real};
use super::{AttentionSpec, Family, MambaMixer, RopeSpec};
use std::fmt::{self, Formatter};

/// Mamba, MLP, sliding-window attention, MLP, over and over; each behind an RMSNorm and beside a residual (Ren et al.
/// 2024). A layer is one of them.
#[derive(Clone, PartialEq, Debug)]
pub struct SambaSpec {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub n_layers: usize,
    pub attention: AttentionSpec,
    pub rope: RopeSpec,
    pub mixer: MambaMixer,
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
    "sliding_window",
    "rope_theta",
    "state_size",
    "conv_kernel",
    "expand",
    "time_step_rank",
    "use_conv_bias",
    "use_bias",
    "rms_norm_eps",
    "tie_word_embeddings",
];

pub fn read(s: &Section, max_seq_len: usize) -> Result<Family> {
    let hidden_size = s.length("hidden_size")?;
    s.length("sliding_window")?;
    let attention = attention(s, hidden_size, "sliding_window")?;
    Ok(Family::Samba(SambaSpec {
        hidden_size,
        intermediate_size: s.length("intermediate_size")?,
        n_layers: s.count("num_hidden_layers", 1..=MAX_LAYERS)?,
        attention,
        rope: rope(s, attention.head_dim, max_seq_len)?,
        mixer: mixer(s, &MIXER, hidden_size)?,
        rms_norm_eps: eps(s, "rms_norm_eps", 1e-5)?,
        tied: s.flag_or("tie_word_embeddings", false)?,
    }))
}

impl SambaSpec {
    pub(super) fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        line(f, "hidden_size", self.hidden_size)?;
        line(f, "intermediate_size", self.intermediate_size)?;
        line(f, "num_hidden_layers", self.n_layers)?;
        self.attention.write(f, "sliding_window")?;
        real(f, "rope_theta", self.rope.theta)?;
        self.mixer.write(f, &MIXER)?;
        real(f, "rms_norm_eps", self.rms_norm_eps)?;
        line(f, "tie_word_embeddings", self.tied)
    }
}
