//! `lolm bench decode --slots`: what decoding several sequences side by side gives.
use super::ROUNDS;
use super::profile::{Share, shares, table};
use crate::device::Opened;
use crate::output::{seconds, show};
use crate::programs::lanes_of;
use crate::spec::Named;
use crate::table::Table;
use crate::{compiler::To, compiler::in_memory, training};
use anyhow::Result;
use lolm_ir::DType;
use lolm_ir::artifact::lanes_program;
use lolm_runtime::bench::Profile;
use lolm_runtime::generate::{Generator, set_scalar};
use lolm_runtime::{Input, Model, ProgramId, weights};
use serde::Serialize;
use std::time::Instant;

/// What is measured: how many sequences side by side, after a prompt of how long, in how many steps.
pub struct Plan {
    pub slots: Vec<usize>,
    pub prompt: usize,
    pub steps: usize,
    pub top: usize,
    pub json: bool,
}

#[derive(Serialize)]
struct Report {
    spec: String,
    threads: usize,
    prompt: usize,
    steps: usize,
    lanes: Vec<Row>,
    /// Of the widest.
    kinds: Vec<Share>,
    launches: Vec<Share>,
}

#[derive(Serialize)]
struct Row {
    slots: usize,
    seconds_median: f64,
    seconds_min: f64,
    tokens_per_second: f64,
    /// Tokens a second against those of the first count.
    times_first: f64,
}

/// A program with its ports.
struct Lanes {
    count: usize,
    program: ProgramId,
    tokens: Input,
    pos: Option<Input>,
    times: Vec<f64>,
}

impl Lanes {
    fn new(model: &mut Model, count: usize, settings: &lolm_runtime::generate::Settings) -> Result<Lanes> {
        let program = model.program(&lanes_program(count))?;
        set_scalar(model, program, "gate.force", settings.gate_force)?;
        set_scalar(model, program, "tau", settings.tau)?;
        let tokens = model.input(program, "tokens", DType::I32)?;
        let pos = model.has_input(program, "pos").then(|| model.input(program, "pos", DType::I32)).transpose()?;
        Ok(Lanes { count, program, tokens, pos, times: vec![] })
    }

    fn step(&mut self, model: &mut Model, position: usize, vocab: usize) {
        let token = |row: usize| ((row * 31 + position) * 7919 % vocab) as i32;
        model.input_mut::<i32>(self.tokens).iter_mut().enumerate().for_each(|(row, to)| *to = token(row));
        if let Some(pos) = self.pos {
            model.input_mut::<i32>(pos).fill(position as i32);
        }
        let start = Instant::now();
        model.run(self.program);
        self.times.push(start.elapsed().as_secs_f64());
    }
}

/// Compiles, measures and shows. The counts take turns, so that what else the machine does is shared by all.
pub fn run(named: &Named, on: &Opened, to: To, plan: &Plan) -> Result<()> {
    let sources = lanes_of(&named.spec, &plan.slots)?;
    let rows = plan.slots.iter().copied().max().unwrap_or(1);
    let mut model = on.load_rows(in_memory(named, &sources, to)?, rows)?;
    weights::init(&mut model, named.spec.training.seed as u64);
    let settings = training::settings(&named.spec, None, None);
    let vocab = named.spec.vocab_size;
    let mut g = Generator::new(&mut model, settings)?;
    g.extend(&(0..plan.prompt).map(|i| (i * 7919 % vocab) as u32).collect::<Vec<_>>())?;
    (0..rows).try_for_each(|row| model.copy_row(rows, row, plan.prompt))?;
    let lanes = plan.slots.iter().map(|n| Lanes::new(&mut model, *n, &settings));
    let mut lanes = lanes.collect::<Result<Vec<_>>>()?;
    for round in 0..ROUNDS {
        for l in &mut lanes {
            (plan.steps * round / ROUNDS..plan.steps * (round + 1) / ROUNDS)
                .for_each(|i| l.step(&mut model, plan.prompt + i, vocab));
            model.wait()?;
        }
    }
    let widest = lanes.iter().max_by_key(|l| l.count).map(|l| l.program);
    let (kinds, launches) = match widest {
        Some(p) => shares(&Profile::of(&mut model, p, 5), plan.top),
        None => (vec![], vec![]),
    };
    let lanes = measured(&lanes);
    let (spec, threads) = (named.name.clone(), on.threads);
    let report = Report { spec, threads, prompt: plan.prompt, steps: plan.steps, lanes, kinds, launches };
    show(plan.json, &report, Report::show)
}

fn measured(lanes: &[Lanes]) -> Vec<Row> {
    let speed = |l: &Lanes| l.count as f64 / super::median(&l.times);
    let first = lanes.first().map_or(1.0, speed);
    let row = |l: &Lanes| Row {
        slots: l.count,
        seconds_median: super::median(&l.times),
        seconds_min: super::least(&l.times),
        tokens_per_second: speed(l),
        times_first: speed(l) / first,
    };
    lanes.iter().map(row).collect()
}

impl Report {
    fn show(&self) -> String {
        let mut t = Table::new(&[">slots", ">a step", ">least", ">tokens/s", ">times"]);
        for r in &self.lanes {
            t.row(&[
                r.slots.to_string(),
                seconds(r.seconds_median),
                seconds(r.seconds_min),
                format!("{:.1}", r.tokens_per_second),
                format!("{:.2}", r.times_first),
            ]);
        }
        let (kinds, launches) = (table(&self.kinds), table(&self.launches));
        format!("{}, {} threads, {} steps\n\n{t}\n{kinds}{launches}", self.spec, self.threads, self.steps)
    }
}
