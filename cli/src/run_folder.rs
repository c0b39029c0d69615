//! The folder of a run: its artifact, checkpoints, metrics and curves; and what an argument `MODEL` means.
use crate::bundle::{self, Bundle};
use crate::chart::{Series, svg};
use crate::compiler::{To, in_memory, write};
use crate::device::Opened;
use crate::model_folder::{folder_of, has_weights, is_model};
use crate::output::note;
use crate::programs::{Kind, ProgramArgs, READING, SERVING};
use crate::spec::{self, Named, Overrides, is_artifact};
use anyhow::{Context, Result, anyhow, bail};
use lolm_ir::artifact::lanes;
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
    /// Where its tokenizer lies.
    pub folder: PathBuf,
    /// Steps of training, where a checkpoint says them.
    pub steps: Option<u64>,
    /// Where the weights came from.
    pub weights: PathBuf,
}

/// Loads what `MODEL` means: the folder of a run or of a model, with its newest whole checkpoint or else its own weights,
/// or an artifact beside `weights`. A folder without an artifact is compiled in memory.
pub fn load(model: &Path, from: Option<&Path>, on: &Opened) -> Result<Trained> {
    let folder = run_folder_of(model);
    let artifact = artifact_of(model, folder.as_ref(), on, &ProgramArgs::default(), &READING)?;
    trained(model, from, artifact, &|artifact| on.load(artifact))
}

/// The same with rows for up to `slots` sequences side by side, or for as many as the artifact was compiled for. A folder
/// whose artifact has no programs for that is compiled in memory.
pub fn load_serving(model: &Path, from: Option<&Path>, on: &Opened, slots: Option<usize>) -> Result<Trained> {
    let folder = run_folder_of(model);
    let args = ProgramArgs { slots: Some(slots.unwrap_or(USUAL_SLOTS)), ..ProgramArgs::default() };
    let mut artifact = artifact_of(model, folder.as_ref(), on, &args, &SERVING)?;
    if rows(&artifact, slots) == 0 && folder.is_some() {
        let named = Named { name: artifact.manifest.name.clone(), spec: spec_of(&artifact)?, folder: None };
        note(format_args!(
            "the artifact answers one request at a time: compiled in memory for more; `--slots` keeps it"
        ));
        artifact = in_memory(&named, &args.sources(&named.spec, &SERVING)?, To::run_on(on.target()))?;
    }
    let rows = rows(&artifact, slots);
    if rows == 0 {
        note("the artifact answers one request at a time; `lolm compile --slots N` makes one that answers more");
    }
    trained(model, from, artifact, &|artifact| on.load_rows(artifact, rows))
}

/// Sequences that are answered side by side, if nothing else is asked for.
pub const USUAL_SLOTS: usize = 16;

/// The most lanes that an artifact has, up to `slots`; 0 if it has none.
fn rows(a: &Artifact, slots: Option<usize>) -> usize {
    let counts = a.manifest.programs.iter().filter_map(|p| lanes(&p.program));
    counts.filter(|n| slots.is_none_or(|most| *n <= most)).max().unwrap_or(0)
}

fn run_folder_of(model: &Path) -> Option<RunFolder> {
    model.is_dir().then(|| RunFolder(model.into()))
}

/// The model of an artifact with the newest weights of its folder, or those of `from`.
fn trained(
    model: &Path,
    from: Option<&Path>,
    artifact: Artifact,
    load: &dyn Fn(Artifact) -> Result<Model>,
) -> Result<Trained> {
    let (spec, name) = (spec_of(&artifact)?, artifact.manifest.name.clone());
    let bundle = bundle_at(model);
    let inside = match bundle {
        Some(b) => b.unchecked(bundle::WEIGHTS)?.map(|part| (b, part)),
        None => None,
    };
    let (weights, steps) = match (from, run_folder_of(model), inside) {
        (Some(path), _, _) => (path.to_path_buf(), None),
        (None, _, Some((b, part))) => {
            let weights = model.join(bundle::WEIGHTS);
            // The hash is looked at while the weights are read, which takes as long; both have to be well.
            let (checked, loaded) = std::thread::scope(|s| {
                let checking = s.spawn(|| part.check());
                let loaded = load(artifact).and_then(|mut loaded| {
                    weights::load_bytes(&mut loaded, &part, &weights, Purpose::Inference)?;
                    Ok(loaded)
                });
                (checking.join(), loaded)
            });
            checked.map_err(|_| anyhow!("bug: a panic while the weights were checked"))??;
            let loaded = loaded?;
            let (folder, steps) = (model.to_path_buf(), b.steps());
            return Ok(Trained { model: loaded, spec, name, folder, steps, weights });
        }
        (None, Some(folder), None) => newest(&folder)?,
        (None, None, None) => bail!("{} holds no weights: say with --weights where they are", model.display()),
    };
    let mut loaded = load(artifact)?;
    weights::load(&mut loaded, &weights, Purpose::Inference)?;
    let folder = if bundle.is_some() { model.to_path_buf() } else { folder_of(model) };
    Ok(Trained { model: loaded, spec, name, folder, steps, weights })
}

/// The executable that runs, if that is the model.
fn bundle_at(model: &Path) -> Option<&'static Bundle> {
    bundle::own().filter(|b| b.path() == model)
}

fn artifact_of_bundle(b: &Bundle) -> Result<Artifact> {
    let damaged = || format!("{} is damaged", b.path().display());
    // It has hashes of its own.
    let bytes = b.unchecked(bundle::ARTIFACT)?.context("there is no artifact in it").with_context(damaged)?;
    Artifact::from_bytes(bytes.to_vec()).with_context(damaged)
}

/// The artifact of a model, or these programs of it, compiled in memory.
fn artifact_of(
    model: &Path,
    folder: Option<&RunFolder>,
    on: &Opened,
    args: &ProgramArgs,
    kinds: &[Kind],
) -> Result<Artifact> {
    if let Some(b) = bundle_at(model) {
        return artifact_of_bundle(b);
    }
    let path = folder.map_or(model.to_path_buf(), RunFolder::artifact);
    if !path.is_file() && folder.is_some() && is_model(model) {
        note(format_args!("{} is not there: compiled in memory; `lolm compile` would keep it", path.display()));
        let named = spec::find(&model.display().to_string(), &Overrides::default())?;
        let sources = args.sources(&named.spec, kinds)?;
        return in_memory(&named, &sources, To::run_on(on.target()));
    }
    if !path.is_file() {
        let what = if folder.is_some() { "the folder of a run or of a model" } else { "an artifact" };
        bail!("{} is not {what}: there is no file {}", model.display(), path.display());
    }
    if !is_artifact(&path)? {
        bail!("{} is not an artifact; make one with `lolm train` or `lolm compile`", path.display());
    }
    open(&path)
}

/// The newest whole checkpoint and its step. Damaged ones are named on the way.
pub fn newest(folder: &RunFolder) -> Result<(PathBuf, Option<u64>)> {
    let (found, damaged) = folder.checkpoints(0, 0).latest()?;
    damaged.iter().for_each(|e| note(format_args!("passed over: {e}")));
    match found {
        Some(saved) => Ok((saved.path.clone(), Some(saved.progress.step))),
        None if has_weights(&folder.0) => Ok((folder.0.clone(), None)),
        None => bail!(
            "{} has no whole checkpoint and no weights; train first, or say with --weights where the weights are",
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
