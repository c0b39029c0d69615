//! A training run: what the runtime is told of it, and the run itself with its folder.
use crate::device::Opened;
use crate::progress::{Progress, interrupt};
use crate::run_folder::RunFolder;
use anyhow::{Result, ensure};
use lolm_models::Spec;
use lolm_runtime::cuda::device::DeviceError;
use lolm_runtime::generate::Settings;
use lolm_runtime::train::{
    CheckpointError, Config, LearningRate, Outcome, Report, Run, Temperature, Tokens, Trainer, Watch,
};
use lolm_runtime::weights::{self, Purpose};
use lolm_runtime::{Artifact, Model};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// The schedule of a whole run.
pub fn config(spec: &Spec) -> Config {
    let (t, steps) = (&spec.training, spec.training.steps as u64);
    Config {
        seed: t.seed as u64,
        steps,
        learning_rate: LearningRate { peak: spec.optimizer.lr, warmup_steps: t.warmup as u64, steps, floor: t.floor },
        temperature: temperature(spec),
        vocab: spec.vocab_size,
        skip_limit: u32::try_from(t.skip_limit).unwrap_or(u32::MAX),
    }
}

fn temperature(spec: &Spec) -> Temperature {
    match spec.regime() {
        Some(r) => Temperature { start: r.temp_start, end: r.temp_end, steps: r.temp_anneal_steps as u64 },
        None => Temperature { start: 1.0, end: 1.0, steps: 1 },
    }
}

/// The temperature of the regime after this many steps of training; without a number, at the end.
pub fn tau(spec: &Spec, steps: Option<u64>) -> f32 {
    temperature(spec).at(steps.unwrap_or(u64::MAX)) as f32
}

/// How text is generated: at the temperature that training had after these steps, with the gate at this value or as
/// learned.
pub fn settings(spec: &Spec, steps: Option<u64>, gate: Option<f32>) -> Settings {
    Settings { max_seq_len: spec.max_seq_len, gate_force: gate_force(gate), tau: tau(spec, steps) }
}

/// What the programs take for the gate: a negative value leaves it as learned.
pub fn gate_force(gate: Option<f32>) -> f32 {
    gate.unwrap_or(-1.0)
}

/// A value that the gate may be forced to.
pub fn parse_gate(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(x) if (0.0..=1.0).contains(&x) => Ok(x),
        _ => Err("expected a number from 0 to 1".into()),
    }
}

/// True if an artifact of the one spec can be run by the other: they differ only in what is data to its programs.
pub fn same_programs(compiled: &Spec, wanted: &Spec) -> bool {
    let mut w = wanted.clone();
    let (from, to) = (&compiled.training, &mut w.training);
    (to.steps, to.warmup, to.floor, to.seed, to.skip_limit) =
        (from.steps, from.warmup, from.floor, from.seed, from.skip_limit);
    w.optimizer.lr = compiled.optimizer.lr;
    if let (Some(to), Some(from)) = (w.lolm_mut().and_then(|l| l.regime.as_mut()), compiled.regime()) {
        (to.temp_start, to.temp_end, to.temp_anneal_steps) = (from.temp_start, from.temp_end, from.temp_anneal_steps);
    }
    w == *compiled
}

/// A run that is about to start.
pub struct Job<'a> {
    pub folder: RunFolder,
    pub spec: &'a Spec,
    pub data: Tokens,
    pub on: &'a Opened,
    /// Steps between checkpoints, and how many stay.
    pub interval: u64,
    pub keep: usize,
    /// Weights to start from, if not from new ones.
    pub weights: Option<&'a Path>,
    pub quiet: bool,
}

/// A run that has ended.
pub struct Done {
    pub model: Model,
    pub outcome: Outcome,
    pub summary: Summary,
}

/// How a run went.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Summary {
    /// Of the whole run.
    pub steps: u64,
    /// Since it was started or resumed.
    pub steps_now: u64,
    pub skipped: u64,
    pub tokens_per_step: usize,
    pub seconds: f64,
    /// Of the last step, by name.
    pub last: BTreeMap<String, f32>,
}

impl Job<'_> {
    /// Refuses what cannot be trained before anything is compiled.
    pub fn check(&self) -> Result<()> {
        let t = &self.spec.training;
        ensure!(
            t.accumulate == 1,
            "`training.accumulate` is {}, and gradients are not accumulated over several batches yet; \
             `--training.accumulate 1` trains with smaller steps",
            t.accumulate
        );
        Ok(self.data.check(self.spec.vocab_size, t.seq)?)
    }

    /// Trains to the end, or to Ctrl-C, and draws the curves.
    pub fn run(self, artifact: Artifact) -> Result<Done> {
        self.check()?;
        let mut model = self.on.load(artifact)?;
        match self.weights {
            Some(path) => weights::load(&mut model, path, Purpose::Training)?,
            None => weights::init(&mut model, self.spec.training.seed as u64),
        }
        let title = model.manifest().name.clone();
        let mut trainer = Trainer::new(model, self.data, config(self.spec))?;
        let run = Run {
            checkpoints: Some(self.folder.checkpoints(self.interval, self.keep)),
            metrics: Some(self.folder.metrics()),
        };
        let steps = self.spec.training.steps as u64;
        let start = Instant::now();
        let mut watch = Last { inner: Progress::new(steps, interrupt(), self.quiet), steps: 0, last: BTreeMap::new() };
        let outcome = run.go(&mut trainer, &mut watch)?;
        let Last { inner, steps: steps_now, last } = watch;
        drop(inner);
        self.folder.draw_curves(&title)?;
        let (batch, seq) = trainer.batch();
        let p = trainer.progress();
        let seconds = start.elapsed().as_secs_f64();
        let summary =
            Summary { steps: p.step, steps_now, skipped: p.skipped, tokens_per_step: batch * seq, seconds, last };
        Ok(Done { model: trainer.into_model(), outcome, summary })
    }
}

/// Progress that remembers the last step's values.
struct Last {
    inner: Progress,
    steps: u64,
    last: BTreeMap<String, f32>,
}

impl Watch for Last {
    fn step(&mut self, r: &Report, rate: f64) -> bool {
        self.steps += 1;
        // The keys are the same at every step, so only the first one allocates them.
        for (name, x) in &r.values {
            match self.last.get_mut(name) {
                Some(slot) => *slot = *x,
                None => drop(self.last.insert(name.clone(), *x)),
            }
        }
        self.inner.step(r, rate)
    }
    fn saved(&mut self, path: &Path) {
        self.inner.saved(path);
    }
    fn resumed(&mut self, step: u64, path: &Path) {
        self.inner.resumed(step, path);
    }
    fn waited(&mut self, why: &DeviceError) {
        self.inner.waited(why);
    }
    fn damaged(&mut self, error: &CheckpointError) {
        self.inner.damaged(error);
    }
}
