//! What a run shows as it goes: a bar on a terminal, a line now and then elsewhere.
use crate::output::note;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lolm_runtime::cuda::device::DeviceError;
use lolm_runtime::train::{CheckpointError, Report, Watch};
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Lines of a whole run where there is no bar.
const LINES: u64 = 20;

/// Watches a training run.
pub struct Progress {
    bar: Option<ProgressBar>,
    steps: u64,
    stop: Arc<AtomicBool>,
    /// Tokens a second, smoothed.
    rate: f64,
    /// True if nothing but errors is to be said.
    quiet: bool,
}

impl Progress {
    /// A run of this many steps; `stop` ends it after the step that it is at.
    pub fn new(steps: u64, stop: Arc<AtomicBool>, quiet: bool) -> Self {
        let bar = (std::io::stderr().is_terminal() && !quiet).then(|| bar(steps));
        Progress { bar, steps, stop, rate: 0.0, quiet }
    }

    fn say(&self, text: String) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None if self.quiet => {}
            None => note(text),
        }
    }
}

fn bar(steps: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr_with_hz(8));
    let template = "{bar:20} {pos}/{len} {elapsed}<{eta} {wide_msg}";
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// `loss 2.345 (tok 2.1)  gate 0.42  12,345 tokens/s`
fn line(r: &Report, rate: f64) -> String {
    let mut out = String::new();
    if let Some(loss) = r.value("loss.total") {
        out += &format!("loss {loss:.4}");
    }
    if let Some(tok) = r.value("loss.tok") {
        out += &format!(" (tok {tok:.4})");
    }
    if let Some(gate) = r.value("gate.mean") {
        out += &format!("  gate {gate:.3}");
    }
    out + &format!("  {rate:.0} tokens/s")
}

impl Watch for Progress {
    fn step(&mut self, r: &Report, rate: f64) -> bool {
        self.rate = if self.rate == 0.0 { rate } else { 0.9 * self.rate + 0.1 * rate };
        if r.skipped {
            self.say(format!("step {} was skipped: its loss or gradient is not finite, or above the limit", r.step));
        }
        if r.reset {
            self.say(format!("step {}: too many skips in a row; the rate is halved and the optimizer reset", r.step));
        }
        let text = line(r, self.rate);
        match &self.bar {
            Some(bar) => {
                bar.set_position(r.step);
                bar.set_message(text);
            }
            None if r.step == 1 || r.step.is_multiple_of((self.steps / LINES).max(1)) || r.step == self.steps => {
                self.say(format!("step {}/{}  {text}", r.step, self.steps));
            }
            None => {}
        }
        !self.stop.load(Ordering::Relaxed)
    }
    fn saved(&mut self, path: &Path) {
        if self.bar.is_none() {
            self.say(format!("saved {}", path.display()));
        }
    }
    fn resumed(&mut self, step: u64, path: &Path) {
        self.say(format!("resumed at step {step} from {}", path.display()));
    }
    fn waited(&mut self, why: &DeviceError) {
        self.say(format!("the run waited for its checkpoint, of which the device could hold no copy: {why}"));
    }
    fn damaged(&mut self, error: &CheckpointError) {
        note(format_args!("passed over: {error}"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A flag that Ctrl-C raises; a second Ctrl-C ends the process at once.
pub fn interrupt() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = flag.clone();
    let installed = ctrlc::set_handler(move || {
        if raised.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        note("stopping after this step; once more to stop at once");
    });
    if let Err(e) = installed {
        note(format_args!("Ctrl-C will end this run without a last checkpoint: {e}"));
    }
    flag
}

/// A bar for windows that are evaluated, on a terminal.
pub fn windows(quiet: bool) -> impl FnMut(usize, usize) {
    let bar = (std::io::stderr().is_terminal() && !quiet).then(|| bar(0));
    move |done, all| {
        let Some(bar) = &bar else { return };
        bar.set_length(all as u64);
        bar.set_position(done as u64);
        if done == all {
            bar.finish_and_clear();
        }
    }
}
