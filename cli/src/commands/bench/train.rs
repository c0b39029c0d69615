//! `lolm bench train`: how long a training step takes, and where the time goes.
use super::profile::{Share, shares, table};
use super::{Subject, least, median, tokens};
use crate::compiler::{To, in_memory};
use crate::output::{scaled, seconds, show};
use crate::peak;
use crate::programs::{Kind, ProgramArgs};
use anyhow::Result;
use clap::Args;
use lolm_runtime::bench::Profile;
use lolm_runtime::train::Trainer;
use lolm_runtime::weights;
use serde::Serialize;
use std::time::Instant;

/// Measure training steps: time, arithmetic, memory, and the share of each kind of launch
#[derive(Args, Debug)]
pub struct Train {
    #[command(flatten)]
    subject: Subject,
    /// Sequences of a step [default: training.batch]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Tokens of a sequence [default: training.seq]
    #[arg(long, value_name = "N")]
    seq: Option<usize>,
    /// Measured steps, after one that is not
    #[arg(long, default_value_t = 5, value_name = "N")]
    steps: usize,
    /// Launches to list, the longest first
    #[arg(long, default_value_t = 12, value_name = "N")]
    top: usize,
}

#[derive(Serialize)]
struct Report {
    spec: String,
    batch: usize,
    seq: usize,
    threads: usize,
    steps: usize,
    seconds_min: f64,
    seconds_median: f64,
    tokens_per_second: f64,
    /// Of a step, as the plan counts them.
    flops: f64,
    gflops_per_second: f64,
    loss: f64,
    peak_bytes: Option<u64>,
    kinds: Vec<Share>,
    launches: Vec<Share>,
}

impl Train {
    pub fn run(self) -> Result<()> {
        let (on, named) = self.subject.open()?;
        let programs = ProgramArgs { batch: self.batch, seq: self.seq, ..Default::default() };
        let sources = programs.sources(&named.spec, &[Kind::Train])?;
        let mut model = on.load(in_memory(&named, &sources, To::run_on(on.target()))?)?;
        peak::reset();
        weights::init(&mut model, named.spec.training.seed as u64);
        let t = &named.spec.training;
        let (batch, seq) = (self.batch.unwrap_or(t.batch), self.seq.unwrap_or(t.seq));
        let data = tokens(64 * batch * seq + 1, named.spec.vocab_size);
        let config = crate::training::config(&named.spec);
        let mut trainer = Trainer::new(model, data, config)?;
        let mut times = vec![];
        let mut loss = f64::NAN;
        for i in 0..=self.steps {
            let start = Instant::now();
            let report = trainer.step();
            if i > 0 || self.steps == 0 {
                times.push(start.elapsed().as_secs_f64());
            }
            loss = report.value("loss.total").map_or(f64::NAN, f64::from);
        }
        let peak_bytes = peak::bytes();
        let program = trainer.program();
        let profile = Profile::of(trainer.model_mut(), program, 2);
        let flops: f64 = profile.launches.iter().map(|l| l.flops).sum();
        let (kinds, launches) = shares(&profile, self.top);
        let seconds_median = median(&times);
        let report = Report {
            spec: named.name,
            batch,
            seq,
            threads: on.threads,
            steps: times.len(),
            seconds_min: least(&times),
            seconds_median,
            tokens_per_second: (batch * seq) as f64 / seconds_median,
            flops,
            gflops_per_second: flops / seconds_median / 1e9,
            loss,
            peak_bytes,
            kinds,
            launches,
        };
        show(self.subject.json, &report, Report::show)
    }
}

impl Report {
    fn show(&self) -> String {
        let mut out = format!(
            "{} {}x{}, {} threads, {} steps: {} a step (least {}), {:.0} tokens/s, {} of {} a step, peak memory {}, loss {:.4}\n\n",
            self.spec,
            self.batch,
            self.seq,
            self.threads,
            self.steps,
            seconds(self.seconds_median),
            seconds(self.seconds_min),
            self.tokens_per_second,
            scaled(self.gflops_per_second * 1e9, "FLOP/s"),
            scaled(self.flops, "FLOP"),
            peak::show(self.peak_bytes),
            self.loss,
        );
        out += &table(&self.kinds);
        out += &table(&self.launches);
        out
    }
}
