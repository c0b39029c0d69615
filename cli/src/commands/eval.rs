//! `lolm eval`: what a model makes of a text, with its gate as learned and as forced.
use crate::data::{self, Text};
use crate::device::Where;
use crate::output::show;
use crate::progress;
use crate::run_folder::{Trained, load};
use crate::table::Table;
use crate::training::{self, gate_force, parse_gate};
use anyhow::{Result, ensure};
use clap::Args;
use lolm_runtime::eval::{Evaluation, Options, evaluate};
use serde::Serialize;
use std::path::PathBuf;

/// Evaluate a model on texts: loss, perplexity, bits per byte, gate, codes, memory
#[derive(Args, Debug)]
pub struct Eval {
    /// The folder of a run, or an artifact
    model: PathBuf,
    /// Text files
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    data: Vec<PathBuf>,
    /// The weights, if not those of the newest checkpoint: a safetensors file, or a folder with model.safetensors
    #[arg(long, value_name = "PATH")]
    weights: Option<PathBuf>,
    /// Force the gate to this value, from 0 (latent only) to 1 (surface only)
    #[arg(long, value_parser = parse_gate, value_name = "VALUE")]
    gate: Option<f32>,
    /// Evaluate with the gate as learned, and forced to 0, 0.5 and 1
    #[arg(long, conflicts_with = "gate")]
    ablation: bool,
    /// The temperature of the regime [default: that of training at the checkpoint]
    #[arg(long, value_name = "VALUE")]
    tau: Option<f32>,
    /// At most this many windows of the text; 0 for all
    #[arg(long, default_value_t = 0, value_name = "N")]
    windows: usize,
    /// List the gate of every feature
    #[arg(long)]
    per_dimension: bool,
    #[command(flatten)]
    on: Where,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What one evaluation found.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Found {
    /// What the gate was forced to.
    pub gate_forced: Option<f32>,
    pub tokens: u64,
    pub loss: f64,
    pub perplexity: f64,
    pub bits_per_byte: Option<f64>,
    pub gate_mean: Option<f64>,
    /// By feature.
    pub gate_means: Option<Vec<f64>>,
    /// By feature and bin over [0, 1], as parts of 1.
    pub gate_histogram: Option<Vec<Vec<f64>>>,
    pub live_codes: Option<usize>,
    pub regime_usage: Option<Vec<f64>>,
    pub memory_entropy: Option<f64>,
}

impl Found {
    fn of(gate_forced: Option<f32>, e: Evaluation) -> Self {
        Found {
            gate_forced,
            tokens: e.tokens,
            loss: e.loss,
            perplexity: e.perplexity,
            bits_per_byte: e.bits_per_byte,
            live_codes: e.live_codes(),
            gate_mean: e.gate.as_ref().map(|g| g.mean),
            gate_means: e.gate.as_ref().map(|g| g.means.clone()),
            gate_histogram: e.gate.map(|g| g.histogram),
            regime_usage: e.regime_usage,
            memory_entropy: e.memory_entropy,
        }
    }
}

/// The settings of an ablation: the gate as learned, latent only, half and half, surface only.
const ABLATION: [Option<f32>; 4] = [None, Some(0.0), Some(0.5), Some(1.0)];

/// Evaluates a text with the gate as learned, and, if the model has one, forced.
pub fn ablation(t: &mut Trained, text: &Text, how: How) -> Result<Vec<Found>> {
    let gates = if t.spec.gate().is_some() { &ABLATION[..] } else { &ABLATION[..1] };
    gates.iter().map(|gate| one(t, text, *gate, how)).collect()
}

/// What all evaluations of a command share.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct How {
    /// The temperature of the regime; without a number, that of training at the checkpoint.
    pub tau: Option<f32>,
    /// At most this many windows; 0 for all.
    pub windows: usize,
    /// No bar.
    pub quiet: bool,
}

fn one(t: &mut Trained, text: &Text, gate: Option<f32>, how: How) -> Result<Found> {
    let How { tau, windows, quiet } = how;
    let options = Options {
        gate_force: gate_force(gate),
        tau: tau.unwrap_or_else(|| training::tau(&t.spec, t.steps)),
        vocab: t.spec.vocab_size,
        bytes: Some(text.predicted_bytes),
        windows,
    };
    let model = &mut t.model;
    Ok(Found::of(gate, evaluate(model, &text.tokens, &options, &mut progress::windows(quiet))?))
}

impl Eval {
    pub fn run(self) -> Result<()> {
        let mut t = load(&self.model, self.weights.as_deref(), &self.on.open()?)?;
        ensure!(
            t.spec.gate().is_some() || self.gate.is_none() && !self.ablation,
            "{} has no gate that could be forced",
            t.name
        );
        let text = data::read(&self.data, &t.spec, Some(&t.folder))?;
        let how = How { tau: self.tau, windows: self.windows, quiet: self.json };
        let found = match self.ablation {
            true => ablation(&mut t, &text, how)?,
            false => vec![one(&mut t, &text, self.gate, how)?],
        };
        show(self.json, &found, |f| {
            let mut out = table(f) + "\n" + &details(&f[0]);
            if self.per_dimension {
                out += &format!("\n{}", dimensions(&f[0]));
            }
            out
        })
    }
}

/// A row an evaluation.
pub fn table(found: &[Found]) -> String {
    let columns = ["gate", ">loss", ">perplexity", ">bits per byte", ">mean gate", ">live codes", ">memory entropy"];
    let mut t = Table::new(&columns);
    let number = |x: Option<f64>, digits: usize| x.map_or("-".into(), |x| format!("{x:.digits$}"));
    for f in found {
        t.row(&[
            f.gate_forced.map_or("as learned".into(), |g| format!("{g}{}", meaning(g))),
            format!("{:.4}", f.loss),
            perplexity(f.perplexity),
            number(f.bits_per_byte, 4),
            number(f.gate_mean, 3),
            f.live_codes.map_or("-".into(), |n| n.to_string()),
            number(f.memory_entropy, 3),
        ]);
    }
    t.to_string()
}

fn meaning(gate: f32) -> &'static str {
    match gate {
        0.0 => " (latent only)",
        1.0 => " (surface only)",
        _ => "",
    }
}

fn perplexity(x: f64) -> String {
    if x < 1e6 { format!("{x:.2}") } else { format!("{x:.2e}") }
}

/// Gate and codes of one evaluation, as bars.
fn details(f: &Found) -> String {
    let mut out = format!("{} tokens\n", f.tokens);
    if let Some(h) = f.gate_histogram.as_ref().filter(|h| !h.is_empty()) {
        let bins = h[0].len();
        let mean: Vec<f64> = (0..bins).map(|b| h.iter().map(|row| row[b]).sum::<f64>() / h.len() as f64).collect();
        out += &format!("gate   0 {} 1\n", bars(&mean));
    }
    if let Some(u) = &f.regime_usage {
        let live = f.live_codes.unwrap_or(0);
        out += &format!("codes    {}  {live} of {} live\n", bars(u), u.len());
    }
    out
}

/// Heights as eighths of a line; the greatest is full.
pub fn bars(heights: &[f64]) -> String {
    const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = heights.iter().copied().fold(0.0, f64::max);
    let bar = |x: &f64| if most > 0.0 { BARS[((x / most * 8.0).ceil() as usize).min(8)] } else { BARS[0] };
    heights.iter().map(bar).collect()
}

/// A row a feature of the gate.
fn dimensions(f: &Found) -> String {
    let mut t = Table::new(&[">feature", ">mean", "from 0 to 1"]);
    let (Some(means), Some(histograms)) = (&f.gate_means, &f.gate_histogram) else { return String::new() };
    for (i, (mean, h)) in means.iter().zip(histograms).enumerate() {
        t.row(&[i.to_string(), format!("{mean:.3}"), bars(h)]);
    }
    t.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_show_what_is_there() {
        assert_eq!(bars(&[0.0, 0.01, 0.5, 1.0]), " ▁▄█");
        assert_eq!(bars(&[0.0, 0.0]), "  ");
    }

    #[test]
    fn large_perplexities_are_short() {
        assert_eq!([34.5, 4.85e8].map(perplexity), ["34.50", "4.85e8"]);
    }
}
