//! Training: batches in, steps of a compiled train program, metrics and checkpoints out.
//!
//! A step is a function of the parameters, the states, the seed and the step's number, so a run that is stopped at any
//! point and resumed from its last checkpoint ends with the same bits as one that was not.
use crate::model::{Input, Model, ModelError, Output, ProgramId};
use lolm_ir::DType;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

mod checkpoint;
mod data;
mod metrics;
mod run;
mod schedule;
pub use checkpoint::{CheckpointError, Checkpoints, Match, Saved, Saving};
pub use data::{DataError, Sampler, Tokens};
pub use metrics::Metrics;
pub use run::{Outcome, Run, Watch};
pub use schedule::{LearningRate, Temperature};

/// What a run is told beside its artifact and its data.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    pub seed: u64,
    /// Steps of the whole run.
    pub steps: u64,
    pub learning_rate: LearningRate,
    /// For models with a regime.
    pub temperature: Temperature,
    pub vocab: usize,
    /// Steps skipped in a row after which the rate is halved and the optimizer starts anew.
    pub skip_limit: u32,
}

/// Where a run stands; what a checkpoint says beside the tensors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done, skipped ones included.
    pub step: u64,
    pub skipped: u64,
    pub skipped_in_a_row: u32,
    /// How often the rate was halved.
    pub halvings: u32,
}

/// Why a run cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("the artifact has no program to train with; it has {}", found.join(", "))]
    NoTrainProgram { found: Vec<String> },
    #[error("input `tokens` of `{program}` has the shape {found:?}, expected [batch, tokens]")]
    TokenShape { program: String, found: Vec<usize> },
    #[error("cannot write {path}: {source}")]
    Metrics { path: PathBuf, source: std::io::Error },
}

/// A model under training.
pub struct Trainer {
    model: Model,
    tokens: Tokens,
    data_hash: String,
    sampler: Sampler,
    config: Config,
    progress: Progress,
    program: ProgramId,
    /// Sequences and tokens of a batch.
    shape: (usize, usize),
    ports: Ports,
    report: Report,
}

/// The ports of the train program; those that a model may lack are optional.
struct Ports {
    tokens: Input,
    targets: Input,
    lr: Input,
    tau: Option<Input>,
    seed: Option<Input>,
    step: Option<Input>,
    skipped: Option<Output>,
    /// All scalar outputs, in the order of the plan.
    scalars: Vec<Output>,
}

/// What a step gave.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Report {
    /// Counted from 1.
    pub step: u64,
    pub lr: f64,
    pub tau: f64,
    /// The program's scalar outputs: `loss.total`, its parts, `grad_norm`, `skipped`, `gate.mean`.
    pub values: Vec<(String, f32)>,
    pub skipped: bool,
    /// The rate was halved and the optimizer reset after this step.
    pub reset: bool,
    /// Tokens of the batch.
    pub tokens: usize,
}

impl Report {
    pub fn value(&self, name: &str) -> Option<f32> {
        self.values.iter().find(|(n, _)| n == name).map(|(_, x)| *x)
    }
}

impl Trainer {
    /// Prepares the train program of a model. The parameters are as the caller initialised or loaded them.
    pub fn new(model: Model, tokens: Tokens, config: Config) -> Result<Trainer, TrainError> {
        let names = || model.plans().iter().map(|p| p.program.clone()).collect();
        let name = model.plans().iter().map(|p| p.program.clone()).find(|p| p == "train" || p.starts_with("train_"));
        let name = name.ok_or_else(|| TrainError::NoTrainProgram { found: names() })?;
        let program = model.program(&name)?;
        let ports = Ports::new(&model, program)?;
        let found = &model.plan(program).inputs.iter().find(|p| p.name == "tokens").map(|p| p.shape.clone());
        let shape = match found.as_deref() {
            Some([b, t]) => (*b, *t),
            other => {
                let found = other.map(<[usize]>::to_vec).unwrap_or_default();
                return Err(TrainError::TokenShape { program: name, found });
            }
        };
        tokens.check(config.vocab, shape.1)?;
        let sampler = Sampler::new(config.seed, tokens.len(), shape.1);
        let scalars = model.plan(program).outputs.iter().filter(|o| o.shape.is_empty() && o.dtype == DType::F32);
        let values = scalars.map(|o| (o.name.clone(), 0.0)).collect();
        let report = Report { values, tokens: shape.0 * shape.1, ..Report::default() };
        let (data_hash, progress) = (tokens.hash(), Progress::default());
        Ok(Trainer { model, tokens, data_hash, sampler, config, progress, program, shape, ports, report })
    }

    pub fn model(&self) -> &Model {
        &self.model
    }
    pub fn model_mut(&mut self) -> &mut Model {
        &mut self.model
    }
    pub fn into_model(self) -> Model {
        self.model
    }
    pub fn config(&self) -> &Config {
        &self.config
    }
    pub fn progress(&self) -> Progress {
        self.progress
    }
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }
    pub fn program(&self) -> ProgramId {
        self.program
    }
    /// Sequences and tokens of a batch.
    pub fn batch(&self) -> (usize, usize) {
        self.shape
    }

    /// What the last step gave.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Takes one step. Nothing is allocated. Where a device can fail, [`Model::check`] is to be asked.
    pub fn step(&mut self) -> &Report {
        let step = self.progress.step;
        let lr = self.config.learning_rate.at(step) * 0.5f64.powi(self.progress.halvings as i32);
        let tau = self.config.temperature.at(step);
        self.feed(step, lr as f32, tau as f32);
        self.model.run(self.program);
        for (output, (_, value)) in self.ports.scalars.iter().zip(&mut self.report.values) {
            *value = self.model.output_slice::<f32>(*output)[0];
        }
        let skipped = self.ports.skipped.is_some_and(|s| self.model.output_slice::<f32>(s)[0] != 0.0);
        let reset = self.count(skipped);
        if reset {
            self.model.reset_states_if(|name| name.starts_with("adam."));
        }
        self.report.step = self.progress.step;
        (self.report.lr, self.report.tau, self.report.skipped, self.report.reset) = (lr, tau, skipped, reset);
        &self.report
    }

    fn feed(&mut self, step: u64, lr: f32, tau: f32) {
        let (batch, window) = self.shape;
        for row in 0..batch {
            let start = self.sampler.start(step * batch as u64 + row as u64);
            let here = row * window..(row + 1) * window;
            self.tokens.copy(start, &mut self.model.input_mut(self.ports.tokens)[here.clone()]);
            self.tokens.copy(start + 1, &mut self.model.input_mut(self.ports.targets)[here]);
        }
        let scalars = [(Some(self.ports.lr), lr.to_bits()), (self.ports.tau, tau.to_bits())];
        let counts = [(self.ports.seed, self.config.seed as u32), (self.ports.step, step as u32)];
        for (port, bits) in scalars.into_iter().chain(counts) {
            if let Some(port) = port {
                self.model.input_mut::<i32>(port).fill(bits as i32);
            }
        }
    }

    /// Counts a step; true if it was one skip too many.
    fn count(&mut self, skipped: bool) -> bool {
        let p = &mut self.progress;
        p.step += 1;
        p.skipped += skipped as u64;
        p.skipped_in_a_row = if skipped { p.skipped_in_a_row + 1 } else { 0 };
        if p.skipped_in_a_row < self.config.skip_limit {
            return false;
        }
        p.skipped_in_a_row = 0;
        p.halvings += 1;
        true
    }
}

impl Ports {
    fn new(m: &Model, p: ProgramId) -> Result<Ports, ModelError> {
        let optional = |name: &str, dtype| m.has_input(p, name).then(|| m.input(p, name, dtype)).transpose();
        let scalars = m.plan(p).outputs.iter().filter(|o| o.shape.is_empty() && o.dtype == DType::F32);
        Ok(Ports {
            tokens: m.input(p, "tokens", DType::I32)?,
            targets: m.input(p, "targets", DType::I32)?,
            lr: m.input(p, "lr", DType::F32)?,
            tau: optional("tau", DType::F32)?,
            seed: optional("seed", DType::I32)?,
            step: optional("step", DType::I32)?,
            skipped: m.has_output(p, "skipped").then(|| m.output(p, "skipped", DType::F32)).transpose()?,
            scalars: scalars.map(|o| m.output(p, &o.name, DType::F32)).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
