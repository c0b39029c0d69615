//! The schema of `kind = "mamba"`: Mamba-1 as in Hugging Face's MambaForCausalLM, whose keys these are.
use super::Family;
use super::family::{MAX_LAYERS, MAX_TAPS};
use super::reader::{Result, Section};
use super::source::Value;
use super::transformer::eps;
use super::write::{line, real};
use std::fmt::{self, Formatter};

/// A row of Mamba mixers, each behind an RMSNorm and beside a residual (Gu, Dao 2023).
#[derive(Clone, PartialEq, Debug)]
pub struct MambaSpec {
    pub hidden_size: usize,
    pub n_layers: usize,
    pub mixer: MambaMixer,
    pub layer_norm_epsilon: f64,
    /// The head is the embedding.
    pub tied: bool,
}

/// The dimensions of a Mamba mixer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MambaMixer {
    /// The width of the stream inside is this many times that outside.
    pub expand: usize,
    pub d_state: usize,
    pub conv_kernel: usize,
    pub dt_rank: usize,
    pub conv_bias: bool,
    /// Biases of the first and the last map.
    pub bias: bool,
}

pub const KEYS: &[&str] = &[
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "state_size",
    "conv_kernel",
    "expand",
    "time_step_rank",
    "use_conv_bias",
    "use_bias",
    "layer_norm_epsilon",
    "tie_word_embeddings",
];

/// The keys of a mixer; families name them differently.
pub(super) struct MixerKeys {
    pub state: &'static str,
    pub conv: &'static str,
    pub expand: &'static str,
    pub rank: &'static str,
    pub conv_bias: &'static str,
    pub bias: &'static str,
}

pub(super) const MIXER: MixerKeys = MixerKeys {
    state: "state_size",
    conv: "conv_kernel",
    expand: "expand",
    rank: "time_step_rank",
    conv_bias: "use_conv_bias",
    bias: "use_bias",
};

pub fn read(s: &Section, _: usize) -> Result<Family> {
    let hidden_size = s.length("hidden_size")?;
    let mixer = mixer(s, &MIXER, hidden_size)?;
    let inner = mixer.expand * hidden_size;
    if s.has("intermediate_size") && s.length("intermediate_size")? != inner {
        return s.refuse("intermediate_size", format!("expand · hidden_size = {inner}"));
    }
    Ok(Family::Mamba(MambaSpec {
        hidden_size,
        n_layers: s.count("num_hidden_layers", 1..=MAX_LAYERS)?,
        mixer,
        layer_norm_epsilon: eps(s, "layer_norm_epsilon", 1e-5)?,
        tied: s.flag_or("tie_word_embeddings", true)?,
    }))
}

pub(super) fn mixer(s: &Section, keys: &MixerKeys, hidden_size: usize) -> Result<MambaMixer> {
    let auto = match s.find(keys.rank).map(|n| &n.value) {
        None => true,
        Some(Value::Text(word)) => word == "auto",
        Some(_) => false,
    };
    Ok(MambaMixer {
        expand: s.count_or(keys.expand, 1..=64, 2)?,
        d_state: s.count_or(keys.state, 1..=1 << 16, 16)?,
        conv_kernel: s.count_or(keys.conv, 1..=MAX_TAPS, 4)?,
        dt_rank: if auto { hidden_size.div_ceil(16) } else { s.length(keys.rank)? },
        conv_bias: s.flag_or(keys.conv_bias, true)?,
        bias: s.flag_or(keys.bias, false)?,
    })
}

impl MambaMixer {
    pub(super) fn write(&self, f: &mut Formatter<'_>, keys: &MixerKeys) -> fmt::Result {
        line(f, keys.state, self.d_state)?;
        line(f, keys.conv, self.conv_kernel)?;
        line(f, keys.expand, self.expand)?;
        line(f, keys.rank, self.dt_rank)?;
        line(f, keys.conv_bias, self.conv_bias)?;
        line(f, keys.bias, self.bias)
    }
}

impl MambaSpec {
    pub(super) fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        line(f, "hidden_size", self.hidden_size)?;
        line(f, "num_hidden_layers", self.n_layers)?;
        self.mixer.write(f, &MIXER)?;
        real(f, "layer_norm_epsilon", self.layer_norm_epsilon)?;
        line(f, "tie_word_embeddings", self.tied)
    }
}
