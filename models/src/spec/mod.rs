//! Specs: what a model is, as a TOML file says it.
//!
//! A section that is absent, or has `enabled = false`, switches its part off. A spec that was read is possible: every
//! length is positive and the parts fit together, so the programs need not check it again.
mod error;
mod library;
mod lolm;
mod overrides;
mod reader;
mod source;
mod write;

pub use error::{Place, SpecError, SpecFault, near_name};
pub use library::{LIBRARY, library, library_with};
pub use overrides::Override;
pub use reader::{MAX_LEN, Section};
pub use source::{Entry, Node, Value};

use serde::{Deserialize, Serialize};
use std::path::Path;

/// How text becomes tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tokenizer {
    Bytes,
    Gpt2,
}

/// A LOLM: decoder dimensions, the parts that are switched on, and the defaults of its training.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LolmSpec {
    pub tokenizer: Tokenizer,
    pub d_model: usize,
    pub n_heads: usize,
    pub n_layers: usize,
    pub d_ff: usize,
    pub vocab_size: usize,
    pub max_seq_len: usize,
    pub rope_theta: f64,
    pub dropout: f64,
    pub ssm: Option<SsmSpec>,
    pub memory: Option<MemorySpec>,
    pub regime: Option<RegimeSpec>,
    pub gate: Option<GateSpec>,
    /// The checkpoint holds the norms of the branches although the gate is off, as the published code leaves them.
    pub spare_branch_norms: bool,
    pub loss: LossSpec,
    pub optimizer: OptimizerSpec,
    pub training: TrainingSpec,
}

/// The latent core.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SsmSpec {
    pub kind: SsmKind,
    pub n_layers: usize,
    pub d_state: usize,
    pub expand: usize,
}

/// The two kinds of latent layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SsmKind {
    Native,
    Mamba { conv_kernel: usize, dt_rank: usize },
}

/// The persistent memory.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MemorySpec {
    pub n_banks: usize,
    pub n_slots: usize,
    pub slot_dim: usize,
    pub n_chunks: usize,
}

/// The regime layer; `neighbor_kernel` is the width of the convolution over codes, if there is one.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RegimeSpec {
    pub n_codes: usize,
    pub d_regime: usize,
    pub neighbor_kernel: Option<usize>,
    pub gradient_isolation: bool,
    pub temp_start: f64,
    pub temp_end: f64,
    pub temp_anneal_steps: usize,
}

/// The manifestation gate. `d_regime` is the width that its first map reserves for the regime embedding, which stands
/// as zeros there if the regime layer is off.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct GateSpec {
    pub init_bias: f64,
    pub normalize_branches: bool,
    pub d_regime: usize,
}

/// Weights and constants of the loss.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LossSpec {
    pub lambda_future: f64,
    pub lambda_changepoint: f64,
    pub lambda_regime: f64,
    pub lambda_balance: f64,
    pub lambda_sticky: f64,
    pub lambda_competitive: f64,
    pub lambda_mem: f64,
    pub lambda_manifest: f64,
    pub future_window: usize,
    pub cpc_temperature: f64,
    pub cpc_max_positions: usize,
    pub cpc_proj_dim: usize,
}

/// AdamW and the clip of the global gradient norm.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct OptimizerSpec {
    pub lr: f64,
    pub betas: [f64; 2],
    pub eps: f64,
    pub weight_decay: f64,
    pub clip: f64,
}

/// A training run: an optimizer step sees `batch · accumulate` sequences of `seq` tokens. The rate rises linearly over
/// `warmup` steps and then falls by a cosine to `floor · lr`. A step whose loss is above `loss_limit` or not finite is
/// skipped; after `skip_limit` in a row the rate is halved and the optimizer reset.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TrainingSpec {
    pub batch: usize,
    pub seq: usize,
    pub accumulate: usize,
    pub steps: usize,
    pub warmup: usize,
    pub floor: f64,
    pub loss_limit: f64,
    pub skip_limit: usize,
    pub seed: usize,
}

impl LolmSpec {
    /// Reads a TOML text; `file` is the name that errors show.
    pub fn parse(file: &str, text: &str) -> Result<LolmSpec, SpecError> {
        LolmSpec::parse_with(file, text, &[])
    }

    /// Reads a TOML text in which these keys have other values.
    pub fn parse_with(file: &str, text: &str, overrides: &[Override]) -> Result<LolmSpec, SpecError> {
        let mut root = source::from_toml(file, text)?;
        overrides.iter().try_for_each(|o| o.apply(&mut root))?;
        lolm::read(root)
    }

    /// Reads a TOML file.
    pub fn load(path: &Path) -> Result<LolmSpec, SpecError> {
        LolmSpec::load_with(path, &[])
    }

    /// Reads a TOML file in which these keys have other values.
    pub fn load_with(path: &Path, overrides: &[Override]) -> Result<LolmSpec, SpecError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => LolmSpec::parse_with(&file, &text, overrides),
            Err(e) => Err(SpecError {
                place: Place { file, line: None, column: None },
                key: String::new(),
                fault: SpecFault::Unreadable(e.to_string()),
            }),
        }
    }

    /// The spec of a golden case: its `config`, `loss` and `optim`, trained on its own batch.
    pub fn from_case_json(file: &str, case: &serde_json::Value) -> Result<LolmSpec, SpecError> {
        lolm::read(lolm::case_as_spec(source::from_json(file, case))?)
    }

    pub fn head_dim(&self) -> usize {
        self.d_model / self.n_heads
    }
    /// Tokens of a memory chunk when tokens come one at a time; without memory the whole context is one chunk.
    pub fn chunk_len(&self) -> usize {
        self.max_seq_len / self.memory.as_ref().map_or(1, |m| m.n_chunks)
    }
    /// Tokens that an optimizer step sees.
    pub fn tokens_per_step(&self) -> usize {
        self.training.batch * self.training.accumulate * self.training.seq
    }
}
