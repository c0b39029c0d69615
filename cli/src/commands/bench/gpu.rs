//! `lolm bench gpu`: what a GPU can do at most, and each launch of each program of some artifacts against that.
use super::{least, median};
use crate::compiler::{To, in_memory};
use crate::device::Choice;
use crate::inspect::plan::word;
use crate::output::{note, say, scaled, seconds};
use crate::programs::{Kind as ProgramKind, PrecisionArg, ProgramArgs};
use crate::run_folder::{open, spec_of};
use crate::spec::{self, Overrides};
use crate::table::Table;
use anyhow::{Context, Result, ensure};
use clap::Args;
use lolm_codegen::Target;
use lolm_codegen::ptx::Sm;
use lolm_ir::DType;
use lolm_ir::artifact::{PTX, architecture};
use lolm_ir::philox::philox4x32_10;
use lolm_ir::plan::{Kind, Launch, Plan, Stage, Step};
use lolm_runtime::bench::Profile;
use lolm_runtime::cuda::ceiling::{Ceilings, Effort, measure};
use lolm_runtime::{Artifact, Model, ProgramId, weights};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

/// Measure a GPU, and every launch of every program against what the GPU can do
#[derive(Args, Debug)]
pub struct Gpu {
    /// Artifacts, compiled with `--target cuda`
    artifacts: Vec<PathBuf>,
    /// A spec to compile and measure: a file, or the name of a built-in one
    #[arg(long)]
    spec: Option<String>,
    #[command(flatten)]
    overrides: Overrides,
    #[command(flatten)]
    programs: ProgramArgs,
    /// What products of the spec compute in
    #[arg(long, value_name = "DTYPE", default_value = "f32")]
    precision: PrecisionArg,
    /// The GPU: cuda, or cuda:N; on the emulator, the numbers say nothing of any GPU
    #[arg(long, default_value = "cuda", value_name = "DEVICE")]
    device: Choice,
    /// Measured runs of each program, after one that is not
    #[arg(long, default_value_t = 10, value_name = "N")]
    steps: usize,
    /// Launches to list for each program, the longest first; equal layers together
    #[arg(long, default_value_t = 16, value_name = "N")]
    top: usize,
    /// Write everything to this file as JSON too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    device: String,
    /// The newest CUDA that the driver knows.
    cuda: Option<String>,
    copy_bytes_per_second: f64,
    f32_flops_per_second: f64,
    bf16_flops_per_second: f64,
    models: Vec<Measured>,
}

/// An artifact.
#[derive(Serialize)]
struct Measured {
    name: String,
    target: String,
    artifact: String,
    programs: Vec<Program>,
}

/// A program: whole runs as they are replayed, and its launches one by one.
#[derive(Serialize)]
struct Program {
    program: String,
    /// Tokens that a run takes in.
    tokens: usize,
    seconds_min: f64,
    seconds_median: f64,
    tokens_per_second: f64,
    flops: f64,
    bytes: f64,
    /// Sum over the launches, each measured by itself.
    launch_seconds: f64,
    /// Sum over the launches of the least time that the GPU needs for each.
    roofline_seconds: f64,
    /// Of the whole run.
    roofline_share: f64,
    launches: Vec<Row>,
}

/// Launches of one kind and name.
#[derive(Serialize, Clone)]
struct Row {
    kind: String,
    name: String,
    count: usize,
    seconds: f64,
    flops: f64,
    bytes: f64,
    /// Products by matrix instructions.
    matrix: bool,
    roofline_seconds: f64,
    roofline_share: f64,
}

impl Gpu {
    pub fn run(mut self) -> Result<()> {
        let device = self.device.open()?.context("the CPU is measured by `bench train`, `decode` and `prefill`")?;
        let effort = if self.device == Choice::Emulator { Effort::SMALL } else { Effort::GPU };
        let ceilings = measure(&*device, effort)?;
        let mut report = Report {
            device: device.name(),
            cuda: driver(self.device)?,
            copy_bytes_per_second: ceilings.bytes,
            f32_flops_per_second: ceilings.f32_flops,
            bf16_flops_per_second: ceilings.bf16_flops,
            models: vec![],
        };
        say(report.head());
        let mut artifacts = self.artifacts.iter().map(|p| open(p)).collect::<Result<Vec<_>>>()?;
        artifacts.extend(self.compiled()?);
        for a in artifacts {
            let mut model = Model::load_on(a, device.clone())?;
            let measured = self.measure(&mut model, &ceilings)?;
            say(measured.show(self.top));
            report.models.push(measured);
        }
        match &self.json {
            Some(path) => {
                let text = serde_json::to_string_pretty(&report)? + "\n";
                std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
                note(format_args!("written to {}", path.display()));
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The spec's artifact, if one is asked for.
    fn compiled(&mut self) -> Result<Option<Artifact>> {
        let Some(name) = &self.spec else { return Ok(None) };
        self.programs.add_to(&mut self.overrides);
        let named = spec::find(name, &self.overrides)?;
        let usual = [ProgramKind::Train, ProgramKind::Prefill, ProgramKind::Decode];
        let sources = self.programs.sources(&named.spec, &usual)?;
        let to = To { precision: self.precision.into(), ..To::run_on(Target::Cuda(Sm::Sm80)) };
        in_memory(&named, &sources, to).map(Some)
    }

    fn measure(&self, model: &mut Model, ceilings: &Ceilings) -> Result<Measured> {
        let spec = spec_of(model.artifact())?;
        weights::init(model, spec.training.seed as u64);
        let mut feed = Feed { vocab: spec.vocab_size, max_seq_len: spec.max_seq_len, round: 0 };
        let names: Vec<String> = model.plans().iter().map(|p| p.program.clone()).collect();
        let programs =
            names.iter().map(|name| self.program(model, name, &mut feed, ceilings)).collect::<Result<_>>()?;
        let m = model.manifest();
        let (name, target) = (m.name.clone(), m.target.clone());
        Ok(Measured { name, target, artifact: model.artifact().id(), programs })
    }

    fn program(&self, model: &mut Model, name: &str, feed: &mut Feed, ceilings: &Ceilings) -> Result<Program> {
        ensure!(self.steps > 0, "0 runs take no time: --steps must be 1 or more");
        let p = model.program(name)?;
        model.reset_states();
        let mut times = vec![];
        for round in 0..=self.steps {
            feed.fill(model, p)?;
            let start = Instant::now();
            model.run(p);
            model.wait()?;
            // The first run touches what was not touched before.
            if round > 0 {
                times.push(start.elapsed().as_secs_f64());
            }
        }
        let profile = Profile::of(model, p, 3);
        model.check()?;
        let plan = model.plan(p);
        let tokens = plan.inputs.iter().find(|i| i.name == "tokens").map_or(0, |i| i.shape.iter().product());
        let launches = rows(&profile, plan, model.artifact(), ceilings);
        let sum = |f: fn(&Row) -> f64| launches.iter().map(f).sum::<f64>();
        let (seconds_median, roofline_seconds) = (median(&times), sum(|r| r.roofline_seconds));
        Ok(Program {
            program: name.into(),
            tokens,
            seconds_min: least(&times),
            seconds_median,
            tokens_per_second: tokens as f64 / seconds_median,
            flops: sum(|r| r.flops),
            bytes: sum(|r| r.bytes),
            launch_seconds: sum(|r| r.seconds),
            roofline_seconds,
            roofline_share: roofline_seconds / seconds_median,
            launches,
        })
    }
}

#[cfg(feature = "cuda")]
fn driver(device: Choice) -> Result<Option<String>> {
    match device {
        Choice::Cuda(_) => {
            let (major, minor) = lolm_runtime::cuda::driver::version()?;
            Ok(Some(format!("{major}.{minor}")))
        }
        Choice::Cpu | Choice::Emulator => Ok(None),
    }
}

#[cfg(not(feature = "cuda"))]
fn driver(_: Choice) -> Result<Option<String>> {
    Ok(None)
}

/// Random inputs, other ones for each run.
struct Feed {
    vocab: usize,
    max_seq_len: usize,
    round: u32,
}

impl Feed {
    fn fill(&mut self, model: &mut Model, p: ProgramId) -> Result<()> {
        let ports = model.plan(p).inputs.clone();
        let tokens = ports.iter().find(|i| i.name == "tokens").and_then(|i| i.shape.last().copied()).unwrap_or(1);
        for (n, port) in ports.iter().enumerate() {
            self.round = self.round.wrapping_add(1);
            let draw = |i: usize| philox4x32_10([i as u32, 0, n as u32, 0], [self.round, 7])[0];
            let to = model.input(p, &port.name, port.dtype)?;
            match port.dtype {
                DType::I32 => {
                    let value = |i: usize| match port.name.as_str() {
                        "tokens" | "targets" => (draw(i) as usize % self.vocab) as i32,
                        // In the middle of the context, where a chunk may start.
                        "pos" => (self.max_seq_len / 2 / tokens.max(1) * tokens) as i32,
                        // Draws from the whole distribution.
                        "sample.top_k" => 0,
                        _ => 1,
                    };
                    model.input_mut::<i32>(to).iter_mut().enumerate().for_each(|(i, x)| *x = value(i));
                }
                DType::F32 => {
                    let value = |i: usize| match port.name.as_str() {
                        "lr" => 1e-4,
                        "gate.force" => -1.0,
                        "tau" | "sample.temperature" | "sample.top_p" => 1.0,
                        "sample.min_p" => 0.0,
                        _ => draw(i) as f32 / u32::MAX as f32,
                    };
                    model.input_mut::<f32>(to).iter_mut().enumerate().for_each(|(i, x)| *x = value(i));
                }
                DType::Bf16 => model.input_mut::<u16>(to).fill(0),
                DType::Bool => model.input_mut::<u8>(to).fill(1),
            }
        }
        Ok(())
    }
}

/// The launches of a plan, by kind and name, the longest first.
fn rows(profile: &Profile, plan: &Plan, artifact: &Artifact, c: &Ceilings) -> Vec<Row> {
    let launches = plan.steps.iter().flat_map(|s| match s {
        Step::Launch(l) => std::slice::from_ref(l),
        Step::Repeat { body, .. } => body,
    });
    let mut sums: BTreeMap<(Kind, &str, bool), Row> = BTreeMap::new();
    for (l, r) in launches.zip(&profile.launches) {
        let matrix = multiplies_matrices(l, artifact);
        let peak = if matrix { c.bf16_flops } else { c.f32_flops };
        let zero = || Row {
            kind: word(&l.kind),
            name: l.name.clone(),
            count: 0,
            seconds: 0.0,
            flops: 0.0,
            bytes: 0.0,
            matrix,
            roofline_seconds: 0.0,
            roofline_share: 0.0,
        };
        let sum = sums.entry((l.kind, &l.name, matrix)).or_insert_with(zero);
        sum.count += 1;
        sum.seconds += r.seconds;
        sum.flops += r.flops;
        sum.bytes += r.bytes;
        sum.roofline_seconds += (r.bytes / c.bytes).max(r.flops / peak);
    }
    let mut rows: Vec<Row> = sums.into_values().collect();
    rows.iter_mut().for_each(|r| r.roofline_share = r.roofline_seconds / r.seconds);
    rows.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    rows
}

/// True if a launch's kernel has matrix instructions.
fn multiplies_matrices(l: &Launch, a: &Artifact) -> bool {
    let section = architecture(&a.manifest.target).and_then(|sm| a.section(&format!("{PTX}{sm}")));
    let has = |s: &Stage| match s {
        Stage::Kernel(k) => {
            let record = &a.manifest.kernels[k.kernel as usize];
            let text = section.and_then(|s| s.get(record.offset as usize..(record.offset + record.len) as usize));
            text.is_some_and(|t| t.windows(4).any(|w| w == b"mma."))
        }
        Stage::Gemm(_) | Stage::Group(_) | Stage::Routed(_) => false,
    };
    l.stages.iter().any(has)
}

impl Report {
    fn head(&self) -> String {
        let cuda = self.cuda.as_ref().map_or(String::new(), |v| format!(", driver for CUDA {v}"));
        format!(
            "{}{cuda}\nat most: copies {}/s, f32 {}/s, bf16 {}/s\n",
            self.device,
            scaled(self.copy_bytes_per_second, "B"),
            scaled(self.f32_flops_per_second, "FLOP"),
            scaled(self.bf16_flops_per_second, "FLOP"),
        )
    }
}

impl Measured {
    fn show(&self, top: usize) -> String {
        self.programs.iter().map(|p| p.show(&self.name, top)).collect::<Vec<_>>().join("\n")
    }
}

impl Program {
    fn show(&self, model: &str, top: usize) -> String {
        let mut t = Table::new(&["kind", "", ">launches", ">time", ">share", ">FLOP/s", ">B/s", ">of roofline"]);
        for r in self.launches.iter().take(top) {
            t.row(&[
                r.kind.clone(),
                r.name.clone(),
                r.count.to_string(),
                seconds(r.seconds),
                format!("{:.1} %", 100.0 * r.seconds / self.launch_seconds),
                scaled(r.flops / r.seconds, ""),
                scaled(r.bytes / r.seconds, ""),
                format!("{:.0} %", 100.0 * r.roofline_share),
            ]);
        }
        format!(
            "{model}, {}: {} a run (least {}), {:.0} tokens/s, {:.0} % of the roofline; launches alone {}\n{t}",
            self.program,
            seconds(self.seconds_median),
            seconds(self.seconds_min),
            self.tokens_per_second,
            100.0 * self.roofline_share,
            seconds(self.launch_seconds),
        )
    }
}
