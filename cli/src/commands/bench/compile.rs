//! `lolm bench compile`: the time of each pass, the peak of memory, and whether the bytes are the same every time.
use super::{least, median};
use crate::compiler::{Dump, Time, To, compiled};
use crate::output::{bytes, seconds, show};
use crate::peak;
use crate::programs::{ProgramArgs, USUAL};
use crate::spec::{self, Named, Overrides};
use crate::table::Table;
use anyhow::{Result, ensure};
use clap::Args;
use lolm_codegen::Compiled;
use lolm_models::spec::{Family, Override};
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
    /// Compile with each of these numbers of layers, in turns, and print how the time grows
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    layers: Vec<usize>,
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
    /// Building the graphs, then each pass, summed over programs, which run side by side. Of the last run.
    passes: Vec<Time>,
    launches: usize,
    kernels: usize,
    bytes: usize,
    code_bytes: usize,
    manifest_bytes: usize,
    peak_bytes: Option<u64>,
}

/// The same spec with several numbers of layers.
#[derive(Serialize)]
struct Depths {
    layers: Vec<usize>,
    reports: Vec<Report>,
    /// Median time with the last number of layers over that with the first.
    ratio: f64,
}

/// One spec, compiled again and again.
struct Runs {
    named: Named,
    times: Vec<f64>,
    passes: Vec<Time>,
    programs: Vec<String>,
    launches: usize,
    last: Option<Compiled>,
}

impl Compile {
    pub fn run(mut self) -> Result<()> {
        self.programs.add_to(&mut self.overrides);
        let named = spec::find(&self.spec, &self.overrides)?;
        if self.layers.is_empty() {
            let mut runs = Runs::of(named);
            (0..self.repeat.max(1)).try_for_each(|_| runs.once(&self.programs))?;
            return show(self.json, &runs.report()?, Report::show);
        }
        let key = match named.spec.family {
            Family::Lolm(_) => "n_layers",
            Family::Transformer(_) | Family::Mamba(_) | Family::Jamba(_) => "num_hidden_layers",
            Family::Griffin(_) | Family::Samba(_) => "num_hidden_layers",
        };
        let mut all = vec![];
        for n in &self.layers {
            let mut overrides = self.overrides.clone();
            overrides.set.push(Override::new(key, n.to_string()));
            all.push(Runs::of(spec::find(&self.spec, &overrides)?));
        }
        for _ in 0..self.repeat.max(1) {
            all.iter_mut().try_for_each(|runs| runs.once(&self.programs))?;
        }
        let reports = all.iter().map(Runs::report).collect::<Result<Vec<_>>>()?;
        let ends = reports.first().zip(reports.last());
        let ratio = ends.map_or(1.0, |(a, b)| b.seconds_median / a.seconds_median);
        show(self.json, &Depths { layers: self.layers, reports, ratio }, Depths::show)
    }
}

impl Runs {
    fn of(named: Named) -> Self {
        Runs { named, times: vec![], passes: vec![], programs: vec![], launches: 0, last: None }
    }

    fn once(&mut self, programs: &ProgramArgs) -> Result<()> {
        let start = Instant::now();
        let sources = programs.sources(&self.named.spec, &USUAL)?;
        let built = start.elapsed().as_secs_f64();
        let (c, module, passes) = compiled(&self.named, &sources, To::default(), &Dump::default())?;
        self.times.push(start.elapsed().as_secs_f64());
        let same = self.last.as_ref().is_none_or(|last| last.bytes == c.bytes);
        ensure!(same, "bug: two compilations of {} gave different bytes", self.named.name);
        self.passes = vec![Time { pass: "build the graphs".into(), seconds: built }];
        self.passes.extend(passes);
        self.programs = module.plans.iter().map(|p| p.program.clone()).collect();
        self.launches = module.plans.iter().map(|p| p.steps.len()).sum();
        self.last = Some(c);
        Ok(())
    }

    fn report(&self) -> Result<Report> {
        let Some(c) = &self.last else { anyhow::bail!("bug: nothing was compiled") };
        Ok(Report {
            spec: self.named.name.clone(),
            programs: self.programs.clone(),
            runs: self.times.len(),
            seconds_min: least(&self.times),
            seconds_median: median(&self.times),
            passes: self.passes.clone(),
            launches: self.launches,
            kernels: c.report.kernels.len(),
            bytes: c.bytes.len(),
            code_bytes: c.report.code_bytes,
            manifest_bytes: c.report.manifest_bytes,
            peak_bytes: peak::bytes(),
        })
    }
}

impl Report {
    fn show(&self) -> String {
        let mut t = Table::new(&["pass", ">time"]);
        self.passes.iter().for_each(|p| t.row(&[p.pass.clone(), seconds(p.seconds)]));
        let (names, end) = (self.programs.join(", "), self.end());
        format!("{}: {names}\n\n{t}\n{end}, peak memory {}\n", self.spec, peak::show(self.peak_bytes))
    }

    fn end(&self) -> String {
        format!(
            "{} (least of {}: {}), {} launches, {} kernels, artifact {}: code {}, manifest {}",
            seconds(self.seconds_median),
            self.runs,
            seconds(self.seconds_min),
            self.launches,
            self.kernels,
            bytes(self.bytes as u64),
            bytes(self.code_bytes as u64),
            bytes(self.manifest_bytes as u64),
        )
    }
}

impl Depths {
    fn show(&self) -> String {
        let Some(first) = self.reports.first() else { return String::new() };
        let heads: Vec<String> = self.layers.iter().map(|n| format!(">{n} layers")).collect();
        let heads: Vec<&str> = ["pass"].into_iter().chain(heads.iter().map(String::as_str)).collect();
        let mut t = Table::new(&heads);
        for (i, pass) in first.passes.iter().enumerate() {
            let times = self.reports.iter().map(|r| seconds(r.passes[i].seconds));
            t.row(&[pass.pass.clone()].into_iter().chain(times).collect::<Vec<_>>());
        }
        let ends: Vec<String> =
            self.layers.iter().zip(&self.reports).map(|(n, r)| format!("{n} layers: {}", r.end())).collect();
        let names = first.programs.join(", ");
        format!("{}: {names}\n\n{t}\n{}\n{:.2} times\n", first.spec, ends.join("\n"), self.ratio)
    }
}
