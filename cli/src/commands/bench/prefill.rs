//! `lolm bench prefill`: how fast a prompt is taken in; on the CPU also how fast its products are alone, and how fast a
//! public library computes the same products in the same sitting.
use super::{Subject, Weights, least, median};
use crate::compiler::{To, in_memory, module};
use crate::output::{scaled, seconds, show};
use crate::programs::{Kind as ProgramKind, ProgramArgs};
use anyhow::{Context, Result, ensure};
use clap::Args;
use lolm_codegen::Target;
use lolm_ir::plan::{Extent, Gemm, Kind, Launch, Plan, Stage, Step};
use lolm_passes::pipeline::Source;
use lolm_runtime::generate::Generator;
use lolm_runtime::{Artifact, weights};
use serde::Serialize;
use std::time::Instant;

mod reference;
use reference::Reference;

/// The program and the products take turns: on a shared machine the pace changes within seconds.
const ROUNDS: usize = 5;

/// Products of fewer rows are bound by memory, and are what `bench decode` measures.
const MANY_ROWS: u32 = 17;

/// Measure how a prompt is taken in: tokens a second and, on the CPU, arithmetic, and the products alone
#[derive(Args, Debug)]
pub struct Prefill {
    #[command(flatten)]
    subject: Subject,
    /// Tokens of the prompt
    #[arg(short, long, default_value_t = 512, value_name = "N")]
    prompt: usize,
    /// Lengths in which it is taken in, separated by commas [default: as compile chooses them]
    #[arg(long, value_name = "LENGTHS", value_delimiter = ',')]
    prefill: Option<Vec<usize>>,
    #[command(flatten)]
    weights: Weights,
}

#[derive(Serialize)]
struct Report {
    spec: String,
    threads: usize,
    prompt: usize,
    /// The chunks in which the prompt went in.
    chunks: Vec<String>,
    seconds_min: f64,
    seconds_median: f64,
    tokens_per_second: f64,
    /// On the CPU, whose products are stages of their own.
    #[serde(flatten)]
    products: Option<Products>,
}

#[derive(Serialize)]
struct Products {
    /// Products of more than 16 rows, and their arithmetic: that of attention depends on the position, and is not counted.
    products: usize,
    flops: f64,
    /// Over the whole time.
    gflops_per_second: f64,
    /// Over the time of the products alone.
    products_gflops_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<Compared>,
}

#[derive(Serialize)]
struct Compared {
    library: &'static str,
    gflops_per_second: f64,
    /// Median over the rounds of our products' pace against the library's.
    ratio: f64,
}

impl Prefill {
    pub fn run(self) -> Result<()> {
        let (on, named) = self.subject.open()?;
        ensure!(self.prompt > 0, "a prompt of 0 tokens takes no time");
        let programs = ProgramArgs { prefill: self.prefill.clone(), ..Default::default() };
        let sources = programs.sources(&named.spec, &[ProgramKind::Prefill, ProgramKind::Decode])?;
        let artifact = match on.target() {
            Target::Cpu => with_products(&sources, self.weights.to(&on))?,
            Target::Cuda(_) => in_memory(&named, &sources, self.weights.to(&on))?,
        };
        let mut model = on.load(artifact)?;
        weights::init(&mut model, named.spec.training.seed as u64);
        let settings = crate::training::settings(&named.spec, None, None);
        let tokens: Vec<u32> = (0..self.prompt).map(|i| (i * 7919 % named.spec.vocab_size) as u32).collect();
        let chunks: Vec<String> = {
            let g = Generator::new(&mut model, settings)?;
            g.cut(self.prompt).into_iter().map(|p| g.program_name(p).into()).collect()
        };
        let of_cpu: &[String] = if on.target() == Target::Cpu { &chunks } else { &[] };
        let programs = of_cpu.iter().map(|c| model.program(&format!("{ALONE}{c}")));
        let programs = programs.collect::<Result<Vec<_>, _>>()?;
        let alone: Vec<Plan> = programs.iter().map(|p| model.plan(*p).clone()).collect();
        let gemms: Vec<&Gemm> = alone.iter().flat_map(launches_of).flat_map(|l| &l.stages).filter_map(gemm).collect();
        let mut reference = Reference::new(gemms.iter().copied(), on.threads);
        let (mut times, mut products, mut theirs) = (vec![], vec![], vec![]);
        for round in 0..=ROUNDS {
            let mut g = Generator::new(&mut model, settings)?;
            let start = Instant::now();
            g.extend(&tokens)?;
            model.wait()?;
            let time = start.elapsed().as_secs_f64();
            let start = Instant::now();
            programs.iter().for_each(|p| model.run(*p));
            let product_time = start.elapsed().as_secs_f64();
            let reference_time = reference.run();
            // The first round touches the memory.
            if round > 0 {
                times.push(time);
                products.push(product_time);
                theirs.extend(reference_time);
            }
        }
        let work = |g: &&Gemm| [&g.m, &g.n, &g.k].map(|e| length(e) as f64).iter().product::<f64>();
        let flops = 2.0 * gemms.iter().map(work).sum::<f64>();
        let ratios: Vec<f64> = theirs.iter().zip(&products).map(|(theirs, ours)| theirs / ours).collect();
        let compared = (!theirs.is_empty()).then(|| Compared {
            library: reference::LIBRARY,
            gflops_per_second: flops / median(&theirs) / 1e9,
            ratio: median(&ratios),
        });
        let products = (on.target() == Target::Cpu).then(|| Products {
            products: gemms.len(),
            flops,
            gflops_per_second: flops / median(&times) / 1e9,
            products_gflops_per_second: flops / median(&products) / 1e9,
            reference: compared,
        });
        let report = Report {
            spec: named.name,
            threads: on.threads,
            prompt: self.prompt,
            chunks,
            seconds_min: least(&times),
            seconds_median: median(&times),
            tokens_per_second: self.prompt as f64 / median(&times),
            products,
        };
        show(self.subject.json, &report, Report::show)
    }
}

/// The programs, and beside each of them one of its products alone, on the same memory.
fn with_products(sources: &[Source], to: To) -> Result<Artifact> {
    let (mut m, _) = module(sources, to, &Default::default())?;
    let alone: Vec<Plan> = m.plans.iter().map(products_alone).collect();
    m.plans.extend(alone);
    let compiled = lolm_codegen::compile(&m, &Default::default())?;
    Artifact::from_bytes(compiled.bytes).context("bug: the artifact just compiled is refused")
}

/// What the program of a program's products is called.
const ALONE: &str = "products_of_";

fn launches_of(p: &Plan) -> impl Iterator<Item = &Launch> {
    p.steps.iter().flat_map(|s| match s {
        Step::Launch(l) => std::slice::from_ref(l),
        Step::Repeat { body, .. } => body.as_slice(),
    })
}

fn gemm(s: &Stage) -> Option<&Gemm> {
    match s {
        Stage::Gemm(g) => Some(g),
        Stage::Kernel(_) | Stage::Group(_) | Stage::Routed(_) => None,
    }
}

/// The plan with nothing but products of many rows.
fn products_alone(p: &Plan) -> Plan {
    let kept = launches_of(p).filter(|l| l.kind == Kind::Contract).filter_map(|l| {
        let wanted = |s: &&Stage| gemm(s).is_some_and(|g| is_large(g, l));
        let stages: Vec<Stage> = l.stages.iter().filter(wanted).cloned().collect();
        (!stages.is_empty()).then(|| Step::Launch(Launch { stages, ..l.clone() }))
    });
    Plan { program: format!("{ALONE}{}", p.program), steps: kept.collect(), ..p.clone() }
}

/// True for one product of many rows and columns, and not many of a batch: the launch's grid counts its tiles alone.
fn is_large(g: &Gemm, l: &Launch) -> bool {
    let sides = [&g.m, &g.n];
    let cut = sides.iter().filter(|e| matches!(e, Extent::Tile { .. })).count();
    l.grid.len() == cut.max(1) && sides.iter().all(|e| length(e) >= MANY_ROWS)
}

/// The whole length of a dimension that may be cut in tiles.
fn length(e: &Extent) -> u32 {
    match e {
        Extent::Fixed(n) | Extent::Tile { len: n, .. } => *n,
        Extent::Seen { .. } => 0,
    }
}

impl Report {
    fn show(&self) -> String {
        let rate = |gflops: f64| scaled(gflops * 1e9, "FLOP/s");
        let head = format!(
            "{}, {} threads, {} tokens of prompt in {}: {} (least {}), {:.0} tokens/s",
            self.spec,
            self.threads,
            self.prompt,
            counted(&self.chunks),
            seconds(self.seconds_median),
            seconds(self.seconds_min),
            self.tokens_per_second,
        );
        let Some(p) = &self.products else { return head };
        let compared = match &p.reference {
            Some(c) => format!(
                "{} on the same shapes, f32: {}; ours against it {:.2}",
                c.library,
                rate(c.gflops_per_second),
                c.ratio
            ),
            None => "for a comparison with a public library, build with --features gemm-reference".into(),
        };
        format!(
            "{head}, {}\nits {} products alone, {}: {}\n{compared}\n",
            rate(p.gflops_per_second),
            p.products,
            scaled(p.flops, "FLOP"),
            rate(p.products_gflops_per_second),
        )
    }
}

/// `2 x prefill_256, decode`: equal neighbours together.
fn counted(names: &[String]) -> String {
    let runs: Vec<&[String]> = names.chunk_by(|a, b| a == b).collect();
    let one = |run: &&[String]| if run.len() == 1 { run[0].clone() } else { format!("{} x {}", run.len(), run[0]) };
    runs.iter().map(one).collect::<Vec<_>>().join(", ")
}
