//! `lolm bench decode`: tokens a second, and the weights read for them against what the memory can give.
use super::profile::{Share, shares, table};
use super::{ROUNDS, Subject, Weights, lanes, least, median};
use crate::compiler::in_memory;
use crate::output::{bytes, seconds, show};
use crate::programs::{Kind, ProgramArgs};
use anyhow::Result;
use clap::Args;
use lolm_ir::plan::{Place, Plan};
use lolm_runtime::bench::{Profile, read_bandwidth};
use lolm_runtime::generate::Generator;
use lolm_runtime::weights;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Instant;

/// Larger than the caches, so that it is memory that is measured.
const SWEEP: usize = 1 << 28;

/// Measure generation token by token
#[derive(Args, Debug)]
pub struct Decode {
    #[command(flatten)]
    subject: Subject,
    /// Tokens of the prompt
    #[arg(short, long, default_value_t = 64, value_name = "N")]
    prompt: usize,
    /// Measured tokens
    #[arg(short = 'n', long, default_value_t = 64, value_name = "N")]
    tokens: usize,
    /// Sequences that are decoded side by side, separated by commas: each number is measured
    #[arg(long, value_name = "COUNTS", value_delimiter = ',')]
    slots: Vec<usize>,
    /// Launches to list, the longest first; equal layers together
    #[arg(long, default_value_t = 12, value_name = "N")]
    top: usize,
    #[command(flatten)]
    weights: Weights,
}

#[derive(Serialize)]
struct Report {
    spec: String,
    threads: usize,
    prompt: usize,
    prompt_seconds: f64,
    tokens: usize,
    seconds_min: f64,
    seconds_median: f64,
    tokens_per_second: f64,
    /// Weights that a token reads.
    weight_bytes: u64,
    weight_bytes_per_second: f64,
    read_bytes_per_second: f64,
    /// Median over the rounds of what a round's tokens read against what was read just before it.
    share: f64,
    kinds: Vec<Share>,
    launches: Vec<Share>,
}

impl Decode {
    pub fn run(self) -> Result<()> {
        let (on, named) = self.subject.open()?;
        let to = self.weights.to(&on);
        if !self.slots.is_empty() {
            let Decode { slots, prompt, tokens, top, subject: Subject { json, .. }, .. } = self;
            return lanes::run(&named, &on, to, &lanes::Plan { slots, prompt, steps: tokens, top, json });
        }
        let sources = ProgramArgs::default().sources(&named.spec, &[Kind::Prefill, Kind::Decode])?;
        let mut model = on.load(in_memory(&named, &sources, to)?)?;
        weights::init(&mut model, named.spec.training.seed as u64);
        let weight_bytes = weight_bytes(model.plan(model.program("decode")?));
        let settings = crate::training::settings(&named.spec, None, None);
        let mut g = Generator::new(&mut model, settings)?;
        let token = |i: usize| (i * 7919 % named.spec.vocab_size) as u32;
        let start = Instant::now();
        g.extend(&(0..self.prompt).map(token).collect::<Vec<_>>())?;
        let prompt_seconds = start.elapsed().as_secs_f64();
        let (mut times, mut reads, mut of_memory) = (vec![], vec![], vec![]);
        for round in 0..ROUNDS {
            let read = read_bandwidth(on.threads, SWEEP)?;
            let mut now = vec![];
            for i in self.tokens * round / ROUNDS..self.tokens * (round + 1) / ROUNDS {
                let start = Instant::now();
                g.extend(&[token(self.prompt + i)])?;
                now.push(start.elapsed().as_secs_f64());
            }
            if !now.is_empty() {
                of_memory.push(weight_bytes as f64 / median(&now) / read);
            }
            reads.push(read);
            times.append(&mut now);
        }
        let seconds_median = median(&times);
        let program = model.program("decode")?;
        let (kinds, launches) = shares(&Profile::of(&mut model, program, 5), self.top);
        let report = Report {
            spec: named.name,
            threads: on.threads,
            prompt: self.prompt,
            prompt_seconds,
            tokens: times.len(),
            seconds_min: least(&times),
            seconds_median,
            tokens_per_second: 1.0 / seconds_median,
            weight_bytes,
            weight_bytes_per_second: weight_bytes as f64 / seconds_median,
            read_bytes_per_second: median(&reads),
            share: median(&of_memory),
            kinds,
            launches,
        };
        show(self.subject.json, &report, Report::show)
    }
}

/// Bytes of the parameters that a program touches, each counted once.
fn weight_bytes(p: &Plan) -> u64 {
    let params = p.buffers.iter().filter_map(|b| match &b.place {
        Place::Param(name) => Some((name, b.len * b.dtype.bytes() as u64)),
        _ => None,
    });
    params.collect::<BTreeMap<_, _>>().values().sum()
}

impl Report {
    fn show(&self) -> String {
        format!(
            "{}, {} threads: {:.1} tokens/s, {} a token (least {}); {} tokens of prompt in {}\n\
             weights: {} a token, {}/s; memory reads {}/s here: {:.0} %\n\n{}{}",
            self.spec,
            self.threads,
            self.tokens_per_second,
            seconds(self.seconds_median),
            seconds(self.seconds_min),
            self.prompt,
            seconds(self.prompt_seconds),
            bytes(self.weight_bytes),
            bytes(self.weight_bytes_per_second as u64),
            bytes(self.read_bytes_per_second as u64),
            100.0 * self.share,
            table(&self.kinds),
            table(&self.launches),
        )
    }
}
