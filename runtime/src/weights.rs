//! Weights: safetensors under the published names, in and out, and the initial ones drawn from a seed.
//!
//! All that is wrong with a file is said in one error: missing, unexpected and misshapen tensors together.
use crate::model::Model;
use half::{bf16, f16};
use safetensors::Dtype;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

mod assign;
mod files;
mod header;
mod index;
mod init;
mod names;
mod write;
pub use files::{Stored, WeightFiles};
pub use init::init;
pub use names::{Published, ours, published};
pub use write::{Entry, entries, header, weights, write_safetensors, write_weights};

/// The file of a folder of weights.
pub const FILE: &str = "model.safetensors";

/// The file of a folder whose weights lie in several.
pub const INDEX: &str = "model.safetensors.index.json";

/// Files of weights that are programs.
const PICKLES: [&str; 2] = ["pytorch_model.bin", "pytorch_model.bin.index.json"];

/// The problems that an error shows.
const SHOWN: usize = 40;

/// Parameters that only training needs start with this.
pub const LOSS: &str = "loss.";

/// What the weights are loaded for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// The heads of the losses may be missing.
    Inference,
    /// Every parameter must be there.
    Training,
}

/// Why weights cannot be loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("{path} is not a safetensors file: {what}")]
    Format { path: PathBuf, what: String },
    #[error("{path} cannot be followed: {what}")]
    Index { path: PathBuf, what: String },
    #[error(
        "{path} is not read: it is a Python pickle, which runs code when it is loaded. Convert it where you trust it: \
         `from transformers import AutoModelForCausalLM as A; A.from_pretrained(DIR).save_pretrained(OUT, \
         safe_serialization=True)`"
    )]
    Pickle { path: PathBuf },
    #[error("{path} does not hold the weights of this model:{}", List(problems))]
    Mismatch { path: PathBuf, problems: Vec<String> },
}

struct List<'a>(&'a [String]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(SHOWN).try_for_each(|p| write!(f, "\n  {p}"))?;
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// Loads the weights of a file, of shards with an index, or of a folder with either, and resets the model's states.
pub fn load(model: &mut Model, path: &Path, purpose: Purpose) -> Result<(), WeightsError> {
    load_files(model, &WeightFiles::open(path)?, path, purpose)
}

/// Loads weights from memory; `path` is for messages. On an error the model is unchanged.
pub fn load_bytes(model: &mut Model, bytes: &[u8], path: &Path, purpose: Purpose) -> Result<(), WeightsError> {
    load_files(model, &WeightFiles::from_bytes(bytes, path)?, path, purpose)
}

/// Checks that files hold a tensor of the right shape for each of these parameters, and no others; `path` is for messages.
pub fn check(
    params: &[(String, Vec<usize>)],
    files: &WeightFiles,
    path: &Path,
    purpose: Purpose,
) -> Result<(), WeightsError> {
    let params = params.iter().map(|(name, shape)| (name.as_str(), shape.as_slice()));
    let mismatch = |problems| WeightsError::Mismatch { path: path.into(), problems };
    assign::assign(params, files, purpose).map_err(mismatch).map(drop)
}

fn load_files(model: &mut Model, files: &WeightFiles, path: &Path, purpose: Purpose) -> Result<(), WeightsError> {
    let mismatch = |problems| WeightsError::Mismatch { path: path.into(), problems };
    let slots = model.params().slots().iter().map(|s| (s.name.as_str(), s.shape.as_slice()));
    for a in assign::assign(slots, files, purpose).map_err(mismatch)? {
        put(model, &files.get(a.tensor), a.slot, a.elements.start);
    }
    model.reset_states();
    Ok(())
}

/// Saves all parameters of a model under their published names, sorted, as they are stored.
pub fn save(model: &Model, path: &Path) -> Result<(), WeightsError> {
    let failed = |source| WeightsError::Write { path: path.into(), source };
    let mut file = io::BufWriter::with_capacity(1 << 20, std::fs::File::create(path).map_err(failed)?);
    write_weights(&mut file, model.params()).map_err(failed)?;
    let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
    file.sync_all().map_err(failed)
}

/// Writes a tensor whose dtype and length were checked to a parameter, from element `at` on.
fn put(model: &mut Model, x: &Stored, slot: usize, at: usize) {
    let bytes = x.data;
    let pairs = bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
    match x.dtype {
        Dtype::BF16 => model.write_param(slot, at, pairs.map(|b| bf16::from_le_bytes(b).to_f32())),
        Dtype::F16 => model.write_param(slot, at, pairs.map(|b| f16::from_le_bytes(b).to_f32())),
        _ => model.write_param(slot, at, bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
    }
}

#[cfg(test)]
mod tests;
