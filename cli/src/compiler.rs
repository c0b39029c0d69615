//! From programs to an artifact, with a watch on the way: how long each pass took, and what each stage looked like.
use crate::spec::Named;
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use lolm_codegen::{Compiled, Info, Target};
use lolm_ir::Graph;
use lolm_ir::plan::Module;
use lolm_models::choosing;
use lolm_passes::pipeline::{self, Moment, Options, Phase, Precision, Source, Weights, compile_with};
use lolm_runtime::Artifact;
use serde::Serialize;
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

/// What can be written to a folder while compiling.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub enum Emit {
    /// Each program as the model was written
    Graph,
    /// With fused operations
    Raised,
    /// With maps split and packed where that is cheaper
    Rewritten,
    /// With backward pass and optimizer
    Differentiated,
    /// As it is clustered into kernels
    Expanded,
    /// The distinct kernels
    Kernels,
    /// Launches and memory of each program
    Plan,
    /// How each kernel is mapped to the machine
    Schedule,
    /// The kernels as Cranelift reads them
    Clif,
    /// The kernels' machine code
    Asm,
}

/// How long a pass took, over all programs.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Time {
    pub pass: String,
    pub seconds: f64,
}

/// A folder that receives chosen stages.
#[derive(Clone, Debug, Default)]
pub struct Dump {
    pub folder: PathBuf,
    pub stages: Vec<Emit>,
}

impl Dump {
    fn wants(&self, e: Emit) -> bool {
        self.stages.contains(&e)
    }

    fn graph(&self, phase: Phase, g: &Graph) -> Result<()> {
        let (stage, name) = match phase {
            Phase::Graph => (Emit::Graph, "graph"),
            Phase::Raise => (Emit::Raised, "raised"),
            Phase::Rewrite => (Emit::Rewritten, "rewritten"),
            Phase::Differentiate => (Emit::Differentiated, "differentiated"),
            Phase::Expand => (Emit::Expanded, "expanded"),
        };
        match self.wants(stage) {
            true => write(&self.folder.join(format!("{}.{name}.ir", g.name)), &lolm_ir::text::print(g)),
            false => Ok(()),
        }
    }

    fn module(&self, m: &Module, target: Target) -> Result<()> {
        if self.wants(Emit::Kernels) {
            let text: Vec<String> = m.kernels.iter().enumerate().map(|(i, k)| format!("; k{i}\n{k}")).collect();
            write(&self.folder.join("kernels.ir"), &text.join("\n"))?;
        }
        if self.wants(Emit::Plan) {
            for p in &m.plans {
                write(&self.folder.join(format!("{}.plan", p.program)), &lolm_ir::plan::text::print(p))?;
            }
        }
        self.code(m, target)
    }

    fn code(&self, m: &Module, target: Target) -> Result<()> {
        let files = [(Emit::Schedule, "schedule"), (Emit::Clif, "clif"), (Emit::Asm, "asm")];
        if !files.iter().any(|(e, _)| self.wants(*e)) {
            return Ok(());
        }
        ensure!(
            target == Target::Cpu,
            "schedule, clif and asm are of code for the CPU; `lolm inspect` shows the PTX of an artifact"
        );
        let mut texts = [const { String::new() }; 3];
        for (i, k) in m.kernels.iter().enumerate() {
            let code = lolm_codegen::compile_kernel(k)?;
            for (text, part) in texts.iter_mut().zip([&code.schedule_text, &code.clif, &code.asm]) {
                *text += &format!("; k{i} {}\n{part}\n", k.name);
            }
        }
        for ((emit, name), text) in files.iter().zip(&texts) {
            if self.wants(*emit) {
                write(&self.folder.join(format!("kernels.{name}")), text)?;
            }
        }
        Ok(())
    }
}

/// What programs are compiled to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct To {
    pub weights: Weights,
    pub precision: Precision,
    pub target: Target,
}

impl To {
    /// All in f32.
    pub fn run_on(target: Target) -> To {
        To { target, ..To::default() }
    }

    fn options(self) -> Options {
        let target = match self.target {
            Target::Cpu => pipeline::Target::Cpu,
            Target::Cuda(_) => pipeline::Target::Gpu,
        };
        Options { weights: self.weights, precision: self.precision, target }
    }
}

/// Writes a file, with its folder.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let put = || {
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(path, text)
    };
    put().with_context(|| format!("cannot write {}", path.display()))
}

/// Time by pass, and since when the current pass of each program runs.
struct Clock {
    since: Vec<Instant>,
    times: Vec<Time>,
}

impl Clock {
    /// Program i is done with a pass. Programs take the same passes, so these stand in their order.
    fn passed(&mut self, i: usize, pass: &str) {
        let seconds = self.since[i].elapsed().as_secs_f64();
        match self.times.iter_mut().find(|t| t.pass == pass) {
            Some(t) => t.seconds += seconds,
            None => self.times.push(Time { pass: pass.into(), seconds }),
        }
    }
}

/// The pass that a moment ends.
fn pass(m: &Moment) -> Option<&'static str> {
    Some(match m {
        Moment::Begin => return None,
        Moment::Graph(Phase::Graph, _) => "canonicalize",
        Moment::Graph(Phase::Raise, _) => "raise",
        Moment::Graph(Phase::Rewrite, _) => "rewrite",
        Moment::Graph(Phase::Differentiate, _) => "differentiate",
        Moment::Graph(Phase::Expand, _) => "expand",
        Moment::Cluster => "cluster",
        Moment::Lower => "lower",
        Moment::Memory => "plan memory",
    })
}

/// Programs as a target has them: on a GPU, steps choose tokens too.
fn made_for(target: Target, sources: &[Source]) -> Result<Cow<'_, [Source]>> {
    let choosing = |s: &Source| Ok(Source { graph: choosing(s.graph.clone())?, goal: s.goal });
    match target {
        Target::Cpu => Ok(Cow::Borrowed(sources)),
        Target::Cuda(_) => sources.iter().map(choosing).collect(),
    }
}

/// Runs all passes. Gives the module and the time of each pass, summed over programs, which run side by side.
pub fn module(sources: &[Source], to: To, dump: &Dump) -> Result<(Module, Vec<Time>)> {
    let sources = &*made_for(to.target, sources)?;
    let clock = Mutex::new(Clock { since: vec![Instant::now(); sources.len()], times: vec![] });
    let failed = Mutex::new(None);
    let with = |i: usize, moment: Moment| {
        if let (Some(pass), Ok(mut clock)) = (pass(&moment), clock.lock()) {
            clock.passed(i, pass);
        }
        if let (Moment::Graph(phase, g), Ok(mut failed)) = (moment, failed.lock())
            && failed.is_none()
        {
            *failed = dump.graph(phase, g).err();
        }
        if let Ok(mut clock) = clock.lock() {
            clock.since[i] = Instant::now();
        }
    };
    let module = compile_with(sources, to.options(), &with)?;
    if let Some(e) = failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
        return Err(e);
    }
    dump.module(&module, to.target)?;
    Ok((module, clock.into_inner().unwrap_or_else(|e| e.into_inner()).times))
}

/// Compiles the programs of a spec to the bytes of an artifact. The module comes with it, and the time of each pass.
pub fn compiled(named: &Named, sources: &[Source], to: To, dump: &Dump) -> Result<(Compiled, Module, Vec<Time>)> {
    let (module, mut times) = module(sources, to, dump)?;
    let start = Instant::now();
    let info = Info { name: named.name.clone(), spec: named.spec.to_string() };
    let compiled = lolm_codegen::compile_for(&module, &info, to.target)?;
    times.push(Time { pass: "generate code".into(), seconds: start.elapsed().as_secs_f64() });
    Ok((compiled, module, times))
}

/// Compiles the programs of a spec and opens the artifact, as if it had been read from a file.
pub fn in_memory(named: &Named, sources: &[Source], to: To) -> Result<Artifact> {
    let (compiled, _, _) = compiled(named, sources, to, &Dump::default())?;
    Artifact::from_bytes(compiled.bytes).context("bug: the artifact that was just compiled is refused")
}
