//! Weights: safetensors under the published names, in and out, and the initial ones drawn from a seed.
//!
//! All that is wrong with a file is said in one error: missing, unexpected and misshapen tensors together.
use crate::model::Model;
use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

mod init;
mod write;
pub use init::init;
pub use write::{Entry, entries, write_safetensors};

/// The file of a folder of weights.
pub const FILE: &str = "model.safetensors";

/// Names under which a tied output head is published, each with the embedding that it stands for.
const TIED_HEADS: [(&str, &str); 2] =
    [("lm_head.weight", "decoder.tok_emb.weight"), ("lm_head.weight", "model.embed_tokens.weight")];

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
    #[error("{path} does not hold the weights of this model:{}", List(problems))]
    Mismatch { path: PathBuf, problems: Vec<String> },
}

struct List<'a>(&'a [String]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|p| write!(f, "\n  {p}"))
    }
}

/// Loads the weights of a file, or of `model.safetensors` in a folder, into a model and resets its states.
pub fn load(model: &mut Model, path: &Path, purpose: Purpose) -> Result<(), WeightsError> {
    let file = if path.is_dir() { path.join(FILE) } else { path.to_path_buf() };
    let bytes = crate::cpu::memory::map_file(&file);
    let bytes = bytes.map_err(|source| WeightsError::Read { path: file.clone(), source })?;
    load_bytes(model, &bytes, &file, purpose)
}

/// Loads weights from memory; `path` is for messages. On an error the model is unchanged.
pub fn load_bytes(model: &mut Model, bytes: &[u8], path: &Path, purpose: Purpose) -> Result<(), WeightsError> {
    let file =
        SafeTensors::deserialize(bytes).map_err(|e| WeightsError::Format { path: path.into(), what: e.to_string() })?;
    let found: BTreeMap<String, TensorView> = file.tensors().into_iter().collect();
    let sources = match_up(model, &found, purpose);
    let sources = sources.map_err(|problems| WeightsError::Mismatch { path: path.into(), problems })?;
    for (slot, name) in sources {
        convert(&found[name], model.param_mut(slot));
    }
    model.reset_states();
    Ok(())
}

/// Saves all parameters of a model, f32, sorted by name.
pub fn save(model: &Model, path: &Path) -> Result<(), WeightsError> {
    let failed = |source| WeightsError::Write { path: path.into(), source };
    let mut file = io::BufWriter::with_capacity(1 << 20, std::fs::File::create(path).map_err(failed)?);
    write_safetensors(&mut file, &entries(model.params(), |_| true)).map_err(failed)?;
    let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
    file.sync_all().map_err(failed)
}

/// For each parameter that the file has, its slot and the name of the tensor; or everything that is wrong.
fn match_up<'a>(
    model: &Model,
    found: &'a BTreeMap<String, TensorView>,
    purpose: Purpose,
) -> Result<Vec<(usize, &'a str)>, Vec<String>> {
    let (mut sources, mut problems) = (vec![], vec![]);
    let find = |name: &str| found.get_key_value(name).or_else(|| tied(name).and_then(|t| found.get_key_value(t)));
    for (slot, s) in model.params().slots().iter().enumerate() {
        match find(&s.name) {
            None if purpose == Purpose::Inference && s.name.starts_with(LOSS) => (),
            None => problems.push(format!("missing: `{}` {:?}", s.name, s.shape)),
            Some((_, x)) if x.shape() != s.shape => {
                problems.push(format!("wrong shape: `{}` is {:?}, expected {:?}", s.name, x.shape(), s.shape));
            }
            Some((_, x)) if !matches!(x.dtype(), Dtype::F32 | Dtype::BF16 | Dtype::F16) => {
                problems.push(format!("wrong dtype: `{}` is {:?}, expected F32, BF16 or F16", s.name, x.dtype()));
            }
            Some((name, _)) => sources.push((slot, name.as_str())),
        }
    }
    for (name, x) in found {
        if model.params().find(name).is_some() || name.starts_with(LOSS) {
            continue;
        }
        match embedding(model, name) {
            None => problems.push(format!("unexpected: `{name}` {:?}", x.shape())),
            Some(e) if found.get(e).is_some_and(|e| e.data() != x.data()) => {
                problems.push(format!("`{name}` differs from `{e}`, but this model's head is tied to it"));
            }
            Some(_) => (),
        }
    }
    if problems.is_empty() { Ok(sources) } else { Err(problems) }
}

/// The published name of the head that is tied to this embedding.
fn tied(embedding: &str) -> Option<&'static str> {
    TIED_HEADS.iter().find(|(_, e)| *e == embedding).map(|(head, _)| *head)
}

/// The embedding of this model that a tensor of this name is an alias of.
fn embedding(model: &Model, head: &str) -> Option<&'static str> {
    TIED_HEADS.iter().find(|(h, e)| *h == head && model.params().find(e).is_some()).map(|(_, e)| *e)
}

/// Widens the elements of a tensor whose dtype and length were checked.
fn convert(x: &TensorView, to: &mut [f32]) {
    let bytes = x.data();
    let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
    match x.dtype() {
        Dtype::BF16 => to.iter_mut().zip(pairs()).for_each(|(to, b)| *to = bf16::from_le_bytes(b).to_f32()),
        Dtype::F16 => to.iter_mut().zip(pairs()).for_each(|(to, b)| *to = f16::from_le_bytes(b).to_f32()),
        _ => {
            let words = bytes.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
            to.iter_mut().zip(words).for_each(|(to, b)| *to = f32::from_le_bytes(b));
        }
    }
}

#[cfg(test)]
mod tests;
