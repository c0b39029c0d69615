//! `lolm compile`: a spec becomes an artifact, or an executable that serves.
mod executable;

use crate::commands::inspect::memory_of;
use crate::compiler::{Dump, Emit, Time, To, compiled, module};
use crate::inspect::plan::{Memory, Program, show_programs};
use crate::model_folder::{folder_of, texts};
use crate::output::{bytes, seconds, show};
use crate::programs::{Kind, PrecisionArg, ProgramArgs, READING, SERVING, USUAL, WeightsDtype};
use crate::run_folder::{RunFolder, USUAL_SLOTS};
use crate::spec::{self, Overrides};
use anyhow::{Context, Result};
use clap::Args;
use lolm_codegen::Target;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Compile a spec to an artifact
#[derive(Args, Debug)]
pub struct Compile {
    /// A spec file, the folder of a model, or the name of a built-in spec
    spec: String,
    #[command(flatten)]
    overrides: Overrides,
    #[command(flatten)]
    programs: ProgramArgs,
    /// What the weights are stored as; with bf16, `--programs` is eval,prefill,decode unless it is given
    #[arg(long, value_name = "DTYPE", default_value = "f32")]
    weights_dtype: WeightsDtype,
    /// What products compute in; with bf16, for a GPU, their operands are rounded and their sums stay in f32
    #[arg(long, value_name = "DTYPE", default_value = "f32")]
    precision: PrecisionArg,
    /// What the code runs on: cpu, which is x86-64 with AVX2 and FMA, cuda, which is cuda:sm_80, or cuda:sm_90a
    #[arg(long, value_name = "TARGET", default_value = "cpu")]
    target: Target,
    /// The artifact [default: the spec's name with .lolm, or model.lolm in the folder of a model]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write an executable that serves the model, in place of the artifact: this program with the artifact behind it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["output", "dry_run"])]
    exe: Option<PathBuf>,
    /// Put these weights into the executable: a safetensors file, the folder of a model, or that of a run
    #[arg(long, value_name = "PATH", requires = "exe")]
    weights: Option<PathBuf>,
    /// Write these stages to the folder of --dump, separated by commas
    #[arg(long, value_name = "STAGES", value_delimiter = ',', requires = "dump")]
    emit: Vec<Emit>,
    /// Where the stages of --emit go
    #[arg(long, value_name = "DIR", requires = "emit")]
    dump: Option<PathBuf>,
    /// Say what the programs would take, and write no artifact
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a compilation gave.
#[derive(Serialize)]
struct Report {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact: Option<PathBuf>,
    bytes: u64,
    code_bytes: u64,
    kernels: usize,
    programs: Vec<Program>,
    memory: Memory,
    passes: Vec<Time>,
    seconds: f64,
}

impl Compile {
    pub fn run(mut self) -> Result<()> {
        let start = Instant::now();
        self.programs.add_to(&mut self.overrides);
        let named = spec::find(&self.spec, &self.overrides)?;
        if self.exe.is_some() {
            self.programs.slots.get_or_insert(USUAL_SLOTS);
        }
        let usual: &[Kind] = if self.exe.is_some() {
            &SERVING
        } else if self.weights_dtype == WeightsDtype::F32 {
            &USUAL
        } else {
            &READING
        };
        let sources = self.programs.sources(&named.spec, usual)?;
        let dump = Dump { folder: self.dump.clone().unwrap_or_default(), stages: self.emit.clone() };
        let (weights, precision) = (self.weights_dtype.into(), self.precision.into());
        let to = To { weights, precision, target: self.target };
        let (compiled, m, passes) = match self.dry_run {
            false => compiled(&named, &sources, to, &dump).map(|(c, m, t)| (Some(c), m, t))?,
            true => module(&sources, to, &dump).map(|(m, t)| (None, m, t))?,
        };
        let beside = Path::new(&self.spec).is_dir().then(|| RunFolder(PathBuf::from(&self.spec)).artifact());
        let usual = || beside.unwrap_or_else(|| PathBuf::from(format!("{}.lolm", named.name)));
        let output = self.exe.clone().or(self.output.clone()).unwrap_or_else(usual);
        let mut size = compiled.as_ref().map_or(0, |c| c.bytes.len() as u64);
        match (&compiled, &self.exe) {
            (Some(c), None) => write_whole(&output, &c.bytes)?,
            (Some(c), Some(exe)) => {
                let texts = texts_of(&self.spec, self.weights.as_deref())?;
                size = executable::write(&c.bytes, self.weights.as_deref(), texts, exe)?;
            }
            (None, _) => {}
        }
        let report = Report {
            name: named.name,
            artifact: compiled.is_some().then_some(output),
            bytes: size,
            code_bytes: compiled.as_ref().map_or(0, |c| c.report.code_bytes as u64),
            kernels: m.kernels.len(),
            programs: m.plans.iter().map(Program::of).collect(),
            memory: memory_of(&m),
            passes,
            seconds: start.elapsed().as_secs_f64(),
        };
        show(self.json, &report, Report::show)
    }
}

impl Report {
    fn show(&self) -> String {
        let passes: Vec<String> = self.passes.iter().map(|t| format!("{} {}", t.pass, seconds(t.seconds))).collect();
        let (programs, memory) = (show_programs(&self.programs), self.memory.show());
        let result = match &self.artifact {
            Some(path) => format!(
                "{}: {}, {} kernels in {} of code, in {}",
                path.display(),
                bytes(self.bytes),
                self.kernels,
                bytes(self.code_bytes),
                seconds(self.seconds)
            ),
            None => format!("{} kernels; no artifact was written", self.kernels),
        };
        format!("{programs}\n{memory}\n{}\n{result}\n", passes.join(", "))
    }
}

/// The texts of the model's folder, or else of the folder of its weights.
fn texts_of(spec: &str, weights: Option<&Path>) -> Result<Vec<(String, Vec<u8>)>> {
    // A built-in spec has a name, and no folder.
    let own = Path::new(spec).exists().then(|| texts(&folder_of(Path::new(spec)))).transpose()?.unwrap_or_default();
    match weights {
        Some(weights) if own.is_empty() => texts(&folder_of(weights)),
        _ => Ok(own),
    }
}

/// Writes a file under another name and renames it, so that it is whole or not there.
pub fn write_whole(path: &Path, data: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().map_or_else(Default::default, |n| n.to_string_lossy().into_owned());
    let unfinished = folder.join(format!(".{name}.unfinished"));
    let put = || {
        std::fs::create_dir_all(folder)?;
        std::fs::write(&unfinished, data)?;
        std::fs::rename(&unfinished, path)
    };
    put().with_context(|| format!("cannot write {}", path.display()))
}
