//! `lolm train`: a spec or an artifact and texts become a trained model.
use crate::commands::compile::write_whole;
use crate::compiler::{Dump, To, compiled};
use crate::data;
use crate::device::Where;
use crate::model_folder::{copy_texts, folder_of, has_weights, is_model};
use crate::output::{note, seconds, show};
use crate::programs::{ProgramArgs, USUAL};
use crate::run_folder::{RunFolder, open, spec_of};
use crate::spec::{self, Named, Overrides, is_artifact};
use crate::training::{Job, Summary, same_programs};
use anyhow::{Result, bail, ensure};
use clap::Args;
use lolm_codegen::Target;
use lolm_models::Spec;
use lolm_models::spec::Override;
use lolm_runtime::Artifact;
use lolm_runtime::train::Outcome;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Train a model on texts
#[derive(Args, Debug)]
pub struct Train {
    /// A spec file, the name of a built-in spec, an artifact, or the folder of a run
    model: String,
    #[command(flatten)]
    overrides: Overrides,
    /// Text files
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    data: Vec<PathBuf>,
    /// Where artifact, checkpoints, metrics and curves go [default: out/ and the spec's name]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on from the newest whole checkpoint in the folder
    #[arg(long)]
    resume: bool,
    /// Weights to start from: a safetensors file, or a folder with model.safetensors
    #[arg(long, value_name = "PATH", conflicts_with = "resume")]
    weights: Option<PathBuf>,
    /// Steps of the whole run [default: training.steps]
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    #[command(flatten)]
    programs: ProgramArgs,
    /// Steps between checkpoints; 0 for one at the end
    #[arg(long, default_value_t = 100, value_name = "N")]
    interval: u64,
    /// Checkpoints that stay; 0 for all
    #[arg(long, default_value_t = 3, value_name = "N")]
    keep: usize,
    #[command(flatten)]
    on: Where,
    /// Print JSON, and nothing on the way
    #[arg(long)]
    json: bool,
}

/// A run before its first step.
struct Start {
    name: String,
    spec: Spec,
    folder: RunFolder,
    /// Where the tokenizer lies, if the spec is not a built-in one.
    texts: Option<PathBuf>,
    /// Weights that come with the model.
    weights: Option<PathBuf>,
    /// If it need not be compiled.
    artifact: Option<Artifact>,
}

#[derive(Serialize)]
struct Report {
    folder: PathBuf,
    finished: bool,
    #[serde(flatten)]
    summary: Summary,
}

impl Train {
    pub fn run(mut self) -> Result<()> {
        if let Some(steps) = self.steps {
            self.overrides.set.push(Override::new("training.steps", steps.to_string()));
        }
        let on = self.on.open()?;
        let start = self.start()?;
        let data = data::read(&self.data, &start.spec, start.texts.as_deref())?;
        let job = Job {
            folder: start.folder.clone(),
            spec: &start.spec,
            data: data.tokens,
            on: &on,
            interval: self.interval,
            keep: self.keep,
            weights: self.weights.as_deref().or(start.weights.as_deref()),
            quiet: self.json,
        };
        job.check()?;
        if let Some(texts) = &start.texts {
            copy_texts(texts, &start.folder.0)?;
        }
        let artifact = match start.artifact {
            Some(a) => a,
            None => self.compile(&start, on.target())?,
        };
        let done = job.run(artifact)?;
        let finished = done.outcome == Outcome::Finished;
        let report = Report { folder: start.folder.0, finished, summary: done.summary };
        show(self.json, &report, |r| r.show(&self.data))
    }

    /// What the arguments mean.
    fn start(&mut self) -> Result<Start> {
        let path = PathBuf::from(&self.model);
        if path.is_dir() && (RunFolder(path.clone()).artifact().is_file() || !is_model(&path)) {
            let folder = RunFolder(self.out.clone().unwrap_or_else(|| path.clone()));
            return self.with_artifact(&RunFolder(path).artifact(), folder);
        }
        if path.is_file() && is_artifact(&path)? {
            let folder = self.folder(&open(&path)?.manifest.name);
            return self.with_artifact(&path, folder);
        }
        self.programs.add_to(&mut self.overrides);
        let weights = (path.is_dir() && has_weights(&path)).then_some(path);
        let Named { name, spec, folder: texts } = spec::find(&self.model, &self.overrides)?;
        let folder = self.folder(&name);
        self.check_folder(&folder)?;
        let there = folder.artifact();
        if !self.resume || !there.is_file() {
            return Ok(Start { name, spec, folder, texts, weights, artifact: None });
        }
        let artifact = open(&there)?;
        ensure!(
            same_programs(&spec_of(&artifact)?, &spec),
            "{} was compiled from another spec than {}; to go on with it, give the folder instead of the spec",
            there.display(),
            self.model
        );
        Ok(Start { name, spec, folder, texts, weights, artifact: Some(artifact) })
    }

    fn folder(&self, name: &str) -> RunFolder {
        RunFolder(self.out.clone().unwrap_or_else(|| Path::new("out").join(name)))
    }

    /// Refuses to mix a new run with an earlier one.
    fn check_folder(&self, folder: &RunFolder) -> Result<()> {
        let (found, damaged) = folder.checkpoints(0, 0).latest()?;
        let there = found.is_some() || !damaged.is_empty();
        match (self.resume, there) {
            (false, true) => bail!(
                "{} holds checkpoints of an earlier run: go on from them with --resume, or choose another folder with --out",
                folder.0.display()
            ),
            _ => Ok(()),
        }
    }

    /// An artifact that is there, with the keys of its spec that are data to it.
    fn with_artifact(&self, path: &Path, folder: RunFolder) -> Result<Start> {
        ensure!(
            self.programs == ProgramArgs::default(),
            "{} is compiled: its programs and their shapes are what they are; `lolm inspect` shows them",
            path.display()
        );
        self.check_folder(&folder)?;
        let artifact = open(path)?;
        let compiled = spec_of(&artifact)?;
        let spec = Spec::parse_with("the artifact's spec", &artifact.manifest.spec, &self.overrides.set)?;
        ensure!(
            same_programs(&compiled, &spec),
            "{} is compiled: of its spec only the steps, warmup, floor, seed, skip_limit, lr and temperatures can change",
            path.display()
        );
        if folder.artifact() != path {
            write_whole(&folder.artifact(), &std::fs::read(path)?)?;
        }
        let (name, texts) = (artifact.manifest.name.clone(), Some(folder_of(path)));
        Ok(Start { name, spec, folder, texts, weights: None, artifact: Some(artifact) })
    }

    fn compile(&self, start: &Start, target: Target) -> Result<Artifact> {
        let named = Named { name: start.name.clone(), spec: start.spec.clone(), folder: start.texts.clone() };
        let sources = self.programs.sources(&named.spec, &USUAL)?;
        let (compiled, _, times) = compiled(&named, &sources, To::run_on(target), &Dump::default())?;
        let path = start.folder.artifact();
        write_whole(&path, &compiled.bytes)?;
        if !self.json {
            let total = times.iter().map(|t| t.seconds).sum();
            note(format_args!("compiled {} to {} in {}", named.name, path.display(), seconds(total)));
        }
        open(&path)
    }
}

impl Report {
    fn show(&self, data: &[PathBuf]) -> String {
        let s = &self.summary;
        let rate = (s.steps_now * s.tokens_per_step as u64) as f64 / s.seconds;
        let mut out = match (self.finished, s.last.is_empty()) {
            (_, true) => format!("all {} steps were done already\n", s.steps),
            (true, false) => format!("{} steps in {}, {rate:.0} tokens/s\n", s.steps_now, seconds(s.seconds)),
            (false, false) => format!("stopped after step {}; go on with --resume\n", s.steps),
        };
        let values: Vec<String> = s.last.iter().map(|(name, x)| format!("{name} {x:.4}")).collect();
        if !values.is_empty() {
            out += &format!("last step: {}\n", values.join(", "));
        }
        if s.skipped > 0 {
            out += &format!("{} steps were skipped\n", s.skipped);
        }
        let (folder, file) = (self.folder.display(), data[0].display());
        out + &format!(
            "\nIn {folder}: model.lolm, checkpoints, metrics.jsonl, curves.svg. Next:\n\n  \
             lolm eval {folder} --data {file} --ablation\n  lolm generate {folder} -p \"Once\" -n 64\n"
        )
    }
}
