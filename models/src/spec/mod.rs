//! Specs: what a model is, as a TOML file says it.
//!
//! A section that is absent, or has `enabled = false`, switches its part off. A spec that was read is possible: every
//! length is positive and the parts fit together, so the programs need not check it again.
mod case;
mod error;
mod family;
mod griffin;
mod hf;
mod jamba;
mod library;
mod lolm;
mod mamba;
mod overrides;
mod reader;
mod run;
mod samba;
mod source;
mod transformer;
mod write;

pub use error::{Place, SpecError, SpecFault, near_name};
pub use griffin::{GriffinSpec, Temporal};
pub use jamba::JambaSpec;
pub use library::{LIBRARY, library, library_with};
pub use mamba::{MambaMixer, MambaSpec};
pub use overrides::Override;
pub use reader::{MAX_LEN, Section};
pub use samba::SambaSpec;
pub use source::{Entry, Node, Value};
pub use transformer::{AttentionSpec, RopeSpec, TransformerSpec};

use crate::hf::mamba_ssm;
use std::path::Path;

/// How text becomes tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tokenizer {
    Bytes,
    Gpt2,
    /// A `tokenizer.json`, by its path from the model's folder.
    File(String),
}

/// A model: what every family has, and what is the family's own.
#[derive(Clone, PartialEq, Debug)]
pub struct Spec {
    pub tokenizer: Tokenizer,
    pub vocab_size: usize,
    /// The longest sequence that the programs going on from states can hold.
    pub max_seq_len: usize,
    pub family: Family,
    pub optimizer: OptimizerSpec,
    pub training: TrainingSpec,
}

/// The families of models; each has a file in `models/src`.
#[derive(Clone, PartialEq, Debug)]
pub enum Family {
    Lolm(LolmSpec),
    Transformer(TransformerSpec),
    Mamba(MambaSpec),
    Jamba(JambaSpec),
    Griffin(GriffinSpec),
    Samba(SambaSpec),
}

impl Family {
    /// The name that a spec's `kind` says.
    pub fn name(&self) -> &'static str {
        match self {
            Family::Lolm(_) => "lolm",
            Family::Transformer(_) => "transformer",
            Family::Mamba(_) => "mamba",
            Family::Jamba(_) => "jamba",
            Family::Griffin(_) => "griffin",
            Family::Samba(_) => "samba",
        }
    }
}

/// A LOLM: decoder dimensions and the parts that are switched on.
#[derive(Clone, PartialEq, Debug)]
pub struct LolmSpec {
    pub d_model: usize,
    pub n_heads: usize,
    pub n_layers: usize,
    pub d_ff: usize,
    pub rope_theta: f64,
    pub dropout: f64,
    pub ssm: Option<SsmSpec>,
    pub memory: Option<MemorySpec>,
    pub regime: Option<RegimeSpec>,
    pub gate: Option<GateSpec>,
    /// The checkpoint holds the norms of the branches although the gate is off, as the published code leaves them.
    pub spare_branch_norms: bool,
    pub loss: LossSpec,
}

/// The latent core.
#[derive(Clone, PartialEq, Debug)]
pub struct SsmSpec {
    pub kind: SsmKind,
    pub n_layers: usize,
    pub d_state: usize,
    pub expand: usize,
}

/// The two kinds of latent layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SsmKind {
    Native,
    Mamba { conv_kernel: usize, dt_rank: usize },
}

/// The persistent memory.
#[derive(Clone, PartialEq, Debug)]
pub struct MemorySpec {
    pub n_banks: usize,
    pub n_slots: usize,
    pub slot_dim: usize,
    pub n_chunks: usize,
}

/// The regime layer; `neighbor_kernel` is the width of the convolution over codes, if there is one.
#[derive(Clone, PartialEq, Debug)]
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
#[derive(Clone, PartialEq, Debug)]
pub struct GateSpec {
    pub init_bias: f64,
    pub normalize_branches: bool,
    pub d_regime: usize,
}

/// Weights and constants of the loss.
#[derive(Clone, PartialEq, Debug)]
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
#[derive(Clone, PartialEq, Debug)]
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
#[derive(Clone, PartialEq, Debug)]
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

/// Bytes of the largest spec or configuration that is read; published ones have a few thousand.
const LARGEST: u64 = 1 << 20;

/// The text of a spec or of a configuration: a file that is larger than any such is refused unread.
pub fn read_text(path: &Path) -> std::io::Result<String> {
    let size = std::fs::metadata(path)?.len();
    if size > LARGEST {
        let what = format!("it has {size} bytes, and a spec or a configuration has at most {LARGEST}");
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, what));
    }
    std::fs::read_to_string(path)
}

impl Spec {
    /// Reads a TOML text; `file` is the name that errors show.
    pub fn parse(file: &str, text: &str) -> Result<Spec, SpecError> {
        Spec::parse_with(file, text, &[])
    }

    /// Reads a TOML text in which these keys have other values.
    pub fn parse_with(file: &str, text: &str, overrides: &[Override]) -> Result<Spec, SpecError> {
        family::read(overridden(source::from_toml(file, text)?, overrides)?)
    }

    /// Reads a TOML file.
    pub fn load(path: &Path) -> Result<Spec, SpecError> {
        Spec::load_with(path, &[])
    }

    /// Reads a TOML file in which these keys have other values.
    pub fn load_with(path: &Path, overrides: &[Override]) -> Result<Spec, SpecError> {
        let file = path.display().to_string();
        match read_text(path) {
            Ok(text) => Spec::parse_with(&file, &text, overrides),
            Err(e) => Err(SpecError {
                place: Place { file, line: None, column: None },
                key: String::new(),
                fault: SpecFault::Unreadable(e.to_string()),
            }),
        }
    }

    /// Reads a Hugging Face `config.json`, or one of `mamba_ssm`. A feature that this family does not implement is refused
    /// by its key, and so is a key that is unknown here, unless it is among `ignored`.
    pub fn from_hf(
        file: &str,
        config: &serde_json::Value,
        ignored: &[String],
        overrides: &[Override],
    ) -> Result<Spec, SpecError> {
        let theirs = mamba_ssm::as_hf(file, config)?;
        let config = source::from_json(file, theirs.as_ref().unwrap_or(config));
        family::read(overridden(hf::as_spec(config, ignored)?, overrides)?)
    }

    /// The spec of a golden case: its `config`, `loss` and `optim`, trained on its own batch.
    pub fn from_case_json(file: &str, case: &serde_json::Value) -> Result<Spec, SpecError> {
        family::read(case::as_spec(source::from_json(file, case))?)
    }

    /// The model if it is a LOLM.
    pub fn lolm(&self) -> Option<&LolmSpec> {
        match &self.family {
            Family::Lolm(l) => Some(l),
            Family::Transformer(_) | Family::Mamba(_) | Family::Jamba(_) | Family::Griffin(_) | Family::Samba(_) => {
                None
            }
        }
    }

    /// The model if it is a LOLM, to change it.
    pub fn lolm_mut(&mut self) -> Option<&mut LolmSpec> {
        match &mut self.family {
            Family::Lolm(l) => Some(l),
            Family::Transformer(_) | Family::Mamba(_) | Family::Jamba(_) | Family::Griffin(_) | Family::Samba(_) => {
                None
            }
        }
    }
    pub fn ssm(&self) -> Option<&SsmSpec> {
        self.lolm().and_then(|l| l.ssm.as_ref())
    }
    pub fn memory(&self) -> Option<&MemorySpec> {
        self.lolm().and_then(|l| l.memory.as_ref())
    }
    pub fn regime(&self) -> Option<&RegimeSpec> {
        self.lolm().and_then(|l| l.regime.as_ref())
    }
    pub fn gate(&self) -> Option<&GateSpec> {
        self.lolm().and_then(|l| l.gate.as_ref())
    }

    /// Tokens of a memory chunk when tokens come one at a time; without memory the whole context is one chunk.
    pub fn chunk_len(&self) -> usize {
        self.max_seq_len / self.memory().map_or(1, |m| m.n_chunks)
    }
    /// Tokens that an optimizer step sees.
    pub fn tokens_per_step(&self) -> usize {
        self.training.batch * self.training.accumulate * self.training.seq
    }
}

fn overridden(mut root: Node, overrides: &[Override]) -> Result<Node, SpecError> {
    overrides.iter().try_for_each(|o| o.apply(&mut root))?;
    Ok(root)
}

impl LolmSpec {
    pub fn head_dim(&self) -> usize {
        self.d_model / self.n_heads
    }
}
