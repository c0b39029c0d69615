//! The folder of a run: its artifact, checkpoints, metrics and curves; and what an argument `MODEL` means.
use crate::chart::{Series, svg};
use crate::compiler::write;
use crate::spec::is_artifact;
use anyhow::{Context, Result, bail};
use lolm_models::Spec;
use lolm_runtime::train::Checkpoints;
use lolm_runtime::weights::{self, Purpose};
use lolm_runtime::{Artifact, Model};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The places of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunFolder(pub PathBuf);

impl RunFolder {
    pub fn artifact(&self) -> PathBuf {
        self.0.join("model.lolm")
    }
    pub fn metrics(&self) -> PathBuf {
        self.0.join("metrics.jsonl")
    }
    pub fn curves(&self) -> PathBuf {
        self.0.join("curves.svg")
    }
    /// One every `interval` steps, of which the last `keep` stay.
    pub fn checkpoints(&self, interval: u64, keep: usize) -> Checkpoints {
        Checkpoints { folder: self.0.join("checkpoints"), interval, keep_latest_k: keep }
    }

    /// Draws loss and gate from the metrics.
    pub fn draw_curves(&self, title: &str) -> Result<()> {
        let path = self.metrics();
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let lines: Vec<Value> = text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
        let curve = |name: &str, color, right| {
            let point = |v: &Value| Some((v["step"].as_f64()?, v.get(name)?.as_f64().unwrap_or(f64::NAN)));
            let points: Vec<(f64, f64)> = lines.iter().filter_map(point).collect();
            (!points.is_empty()).then(|| Series { name: name.into(), color, points, right })
        };
        let series = [
            curve("loss.total", "#1f5fa8", false),
            curve("loss.tok", "#58a14e", false),
            curve("gate.mean", "#c2571a", true),
        ];
        write(&self.curves(), &svg(title, &series.into_iter().flatten().collect::<Vec<_>>()))
    }
}

/// A model with its weights.
pub struct Trained {
    pub model: Model,
    pub spec: Spec,
    pub name: String,
    /// Steps of training, where a checkpoint says them.
    pub steps: Option<u64>,
    /// Where the weights came from.
    pub weights: PathBuf,
}

/// Loads what `MODEL` means: the folder of a run, with its newest whole checkpoint, or an artifact beside `weights`.
pub fn load(model: &Path, from: Option<&Path>, threads: usize) -> Result<Trained> {
    let (artifact, folder) = match model.is_dir() {
        true => (RunFolder(model.into()).artifact(), Some(RunFolder(model.into()))),
        false => (model.to_path_buf(), None),
    };
    if !artifact.is_file() {
        let what = if folder.is_some() { "the folder of a run" } else { "an artifact" };
        bail!("{} is not {what}: there is no file {}", model.display(), artifact.display());
    }
    if !is_artifact(&artifact)? {
        bail!("{} is not an artifact; make one with `lolm train` or `lolm compile`", artifact.display());
    }
    let artifact = open(&artifact)?;
    let (spec, name) = (spec_of(&artifact)?, artifact.manifest.name.clone());
    let (weights, steps) = match (from, &folder) {
        (Some(path), _) => (path.to_path_buf(), None),
        (None, Some(folder)) => newest(folder)?,
        (None, None) => bail!("{} holds no weights: say with --weights where they are", model.display()),
    };
    let mut model = Model::load(artifact, threads)?;
    weights::load(&mut model, &weights, Purpose::Inference)?;
    Ok(Trained { model, spec, name, steps, weights })
}

/// The newest whole checkpoint and its step. Damaged ones are named on the way.
fn newest(folder: &RunFolder) -> Result<(PathBuf, Option<u64>)> {
    let (found, damaged) = folder.checkpoints(0, 0).latest()?;
    damaged.iter().for_each(|e| crate::output::note(format_args!("passed over: {e}")));
    match found {
        Some(saved) => Ok((saved.path.clone(), Some(saved.progress.step))),
        None => bail!(
            "{} has no whole checkpoint; train first, or say with --weights where the weights are",
            folder.0.display()
        ),
    }
}

pub fn open(path: &Path) -> Result<Artifact> {
    Artifact::open(path).with_context(|| format!("cannot use {}", path.display()))
}

/// The spec that an artifact was compiled from.
pub fn spec_of(a: &Artifact) -> Result<Spec> {
    Spec::parse("the artifact's spec", &a.manifest.spec).context("the artifact is of another version of lolm")
}
