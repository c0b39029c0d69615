//! The loop of a run: steps, metrics, checkpoints, and somebody who watches and may ask to stop.
use super::{CheckpointError, Checkpoints, Match, Metrics, Report, Saving, TrainError, Trainer};
use crate::cuda::device::DeviceError;
use crate::model::ModelError;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Sees a run as it goes. A command line draws bars with it.
pub trait Watch {
    /// After each step. False asks to stop; the run then saves a checkpoint and ends.
    fn step(&mut self, report: &Report, tokens_per_second: f64) -> bool;
    fn saved(&mut self, _path: &Path) {}
    fn resumed(&mut self, _step: u64, _path: &Path) {}
    /// The run waits while a checkpoint is written, for want of memory for a copy.
    fn waited(&mut self, _why: &DeviceError) {}
    /// A checkpoint that was passed over because it is damaged.
    fn damaged(&mut self, _error: &CheckpointError) {}
}

/// What surrounds the steps of a run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Run {
    pub checkpoints: Option<Checkpoints>,
    pub metrics: Option<PathBuf>,
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// The watcher asked to stop.
    Stopped,
}

impl Run {
    /// Resumes from the newest whole checkpoint, if there is one, and runs to the end.
    pub fn go(&self, t: &mut Trainer, watch: &mut dyn Watch) -> Result<Outcome, TrainError> {
        self.resume(t, watch)?;
        let failed = |path: &PathBuf, source| TrainError::Metrics { path: path.clone(), source };
        let open = |path: &PathBuf| Metrics::open(path, t.progress.step).map_err(|e| failed(path, e));
        let mut metrics = self.metrics.as_ref().map(open).transpose()?;
        let mut outcome = Outcome::Finished;
        let mut saver = Saver { to: self.checkpoints.as_ref(), saved: t.progress.step, saving: None };
        while t.progress.step < t.config.steps && outcome == Outcome::Finished {
            let start = Instant::now();
            t.step();
            t.model.check().map_err(ModelError::from)?;
            let report = t.report();
            let rate = report.tokens as f64 / start.elapsed().as_secs_f64();
            if let (Some(m), Some(path)) = (&mut metrics, &self.metrics) {
                m.add(report, &[("tokens_per_second", rate)]).map_err(|e| failed(path, e))?;
            }
            if !watch.step(report, rate) {
                outcome = Outcome::Stopped;
            }
            if self.checkpoints.as_ref().is_some_and(|c| c.interval > 0 && t.progress.step.is_multiple_of(c.interval)) {
                saver.begin(t, watch)?;
            }
            if saver.saving.as_ref().is_some_and(Saving::is_done) {
                saver.finish(watch)?;
            }
        }
        saver.begin(t, watch)?;
        saver.finish(watch)?;
        Ok(outcome)
    }

    fn resume(&self, t: &mut Trainer, watch: &mut dyn Watch) -> Result<(), TrainError> {
        let Some(c) = &self.checkpoints else { return Ok(()) };
        let (latest, broken) = c.latest()?;
        broken.iter().for_each(|e| watch.damaged(e));
        if let Some(latest) = latest {
            t.restore(&latest, Match::Exact)?;
            watch.resumed(t.progress.step, &latest.path);
        }
        Ok(())
    }
}

/// Saves checkpoints, one at a time.
struct Saver<'a> {
    to: Option<&'a Checkpoints>,
    /// The last step that was saved, or is being saved.
    saved: u64,
    saving: Option<Saving>,
}

impl Saver<'_> {
    /// Begins to save, unless this step is saved already. An earlier checkpoint comes to its end first.
    fn begin(&mut self, t: &mut Trainer, watch: &mut dyn Watch) -> Result<(), TrainError> {
        let Some(c) = self.to.filter(|_| self.saved != t.progress.step) else { return Ok(()) };
        self.finish(watch)?;
        self.saving = Some(match c.begin(t) {
            Err(CheckpointError::Device(e @ DeviceError::Memory { .. })) => {
                watch.waited(&e);
                Saving::done(c.save(t)?)
            }
            other => other?,
        });
        self.saved = t.progress.step;
        Ok(())
    }

    /// Waits for the checkpoint that is on its way.
    fn finish(&mut self, watch: &mut dyn Watch) -> Result<(), TrainError> {
        if let Some(saving) = self.saving.take() {
            watch.saved(&saving.finish()?);
        }
        Ok(())
    }
}
