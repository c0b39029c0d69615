//! `lolm bench compile`: the time of each pass, the peak of memory, and whether the bytes are the same every time.
use super::{least, median};
use crate::compiler::{Dump, Time, compiled};
use crate::output::{bytes, seconds, show};
use crate::peak;
use crate::programs::{ProgramArgs, USUAL};
use crate::spec::{self, Overrides};
use crate::table::Table;
use anyhow::{Result, ensure};
use clap::Args;
use lolm_passes::pipeline::Weights;
use serde::Serialize;
use std::time::Instant;

/// Measure compilation: time by pass, peak memory
#[derive(Args, Debug)]
pub struct Compile {
    /// A spec file, or the name of a built-in spec
    #[arg(long, default_value = "lolm-demo")]
    spec: String,
    #[command(flatten)]
    overrides: Overrides,
    #[command(flatten)]
    programs: ProgramArgs,
    /// How often; every compilation must give the same bytes
    #[arg(long, default_value_t = 1, value_name = "N")]
    repeat: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    spec: String,
    programs: Vec<String>,
    runs: usize,
    seconds_min: f64,
    seconds_median: f64,
    /// Of the last run.
    passes: Vec<Time>,
    kernels: usize,
    bytes: usize,
    code_bytes: usize,
    manifest_bytes: usize,
    peak_bytes: Option<u64>,
}

impl Compile {
    pub fn run(mut self) -> Result<()> {
        self.programs.add_to(&mut self.overrides);
        let named = spec::find(&self.spec, &self.overrides)?;
        let (mut times, mut first) = (vec![], None::<Vec<u8>>);
        let mut last = None;
        for _ in 0..self.repeat.max(1) {
            let start = Instant::now();
            let sources = self.programs.sources(&named.spec, &USUAL)?;
            let (c, module, mut passes) = compiled(&named, &sources, Weights::F32, &Dump::default())?;
            let total = start.elapsed().as_secs_f64();
            passes.insert(0, Time { pass: "build the graphs".into(), seconds: 0.0 });
            passes[0].seconds = total - passes.iter().map(|t| t.seconds).sum::<f64>();
            times.push(total);
            let same = first.as_ref().is_none_or(|f| *f == c.bytes);
            ensure!(same, "bug: two compilations of {} gave different bytes", named.name);
            let names = module.plans.iter().map(|p| p.program.clone()).collect::<Vec<_>>();
            last = Some((names, passes, c.report, c.bytes.len()));
            first.get_or_insert(c.bytes);
        }
        let Some((programs, passes, report, bytes)) = last else { return Ok(()) };
        let report = Report {
            spec: named.name,
            programs,
            runs: times.len(),
            seconds_min: least(&times),
            seconds_median: median(&times),
            passes,
            kernels: report.kernels.len(),
            bytes,
            code_bytes: report.code_bytes,
            manifest_bytes: report.manifest_bytes,
            peak_bytes: peak::bytes(),
        };
        show(self.json, &report, Report::show)
    }
}

impl Report {
    fn show(&self) -> String {
        let mut t = Table::new(&["pass", ">time"]);
        self.passes.iter().for_each(|p| t.row(&[p.pass.clone(), seconds(p.seconds)]));
        format!(
            "{}: {}\n\n{t}\n{} (least of {}: {}), peak memory {}; {} kernels, artifact {}: code {}, manifest {}\n",
            self.spec,
            self.programs.join(", "),
            seconds(self.seconds_median),
            self.runs,
            seconds(self.seconds_min),
            peak::show(self.peak_bytes),
            self.kernels,
            bytes(self.bytes as u64),
            bytes(self.code_bytes as u64),
            bytes(self.manifest_bytes as u64),
        )
    }
}
