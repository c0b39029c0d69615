//! `lolm inspect`: what a spec or an artifact consists of, without allocating its weights.
use crate::compiler::{Dump, To, module, write};
use crate::draw::{self, Drawing};
use crate::inspect::graph::{Operations, Raised};
use crate::inspect::params::Parameters;
use crate::inspect::plan::{self, Memory, Program};
use crate::inspect::usage;
use crate::output::{say, show};
use crate::programs::{Kind, ProgramArgs, USUAL};
use crate::spec::{self, Named, Overrides};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use lolm_ir::Graph;
use lolm_ir::artifact::{PTX, architecture};
use lolm_ir::plan::Module;
use lolm_models::{loss_parameters, parameters};
use lolm_passes::pipeline::{Options, Phase, Source, graph_passes};
use lolm_passes::raise::raise;
use lolm_runtime::Artifact;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Show what a spec or an artifact consists of
#[derive(Args, Debug)]
pub struct Inspect {
    /// A spec file, the name of a built-in spec, or an artifact
    what: String,
    #[command(flatten)]
    overrides: Overrides,
    /// Look at the programs after a pass
    #[arg(long)]
    stage: Option<Stage>,
    #[command(flatten)]
    programs: ProgramArgs,
    /// Print the text form of the stage, which `lolm opt` reads
    #[arg(long, requires = "stage", conflicts_with = "json")]
    text: bool,
    /// Of the text of kernels, those whose name has this in it; of an artifact for a GPU the text is PTX
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, requires = "text")]
    kernel: String,
    /// Draw the stage for Graphviz
    #[arg(long, value_name = "FILE", requires = "stage")]
    dot: Option<PathBuf>,
    /// Draw the stage
    #[arg(long, value_name = "FILE", requires = "stage")]
    svg: Option<PathBuf>,
    /// Draw only this part of the model, such as `decoder.layers.0`
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    scope: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum Stage {
    /// The spec with every key that was left out or given another value
    Spec,
    /// As the model was written
    Graph,
    /// With fused operations: what raising found, and what nobody claimed
    Raise,
    /// With maps split and packed where that is cheaper
    Rewrite,
    /// With backward pass and optimizer
    Differentiate,
    /// As it is clustered into kernels
    Expand,
    /// The distinct kernels with their bytes and FLOPs
    Kernels,
    /// The launches in order, and the memory
    Plan,
}

/// What stands below the kernels of an artifact for a GPU where no assembler is at hand.
const UNKNOWN: &str =
    "\nregisters and shared memory are not known without ptxas: `scripts/ptxas.sh` fetches it, and PTXAS names one\n";

/// The answer without a stage.
#[derive(Serialize)]
struct Summary {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact: Option<File>,
    parameters: Parameters,
    /// As they would be compiled, or as they are in the artifact.
    programs: Vec<Ports>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    plans: Vec<Program>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<Memory>,
}

/// A program from outside.
#[derive(Serialize)]
struct Ports {
    program: String,
    inputs: Vec<String>,
    outputs: Vec<String>,
}

/// What is known of an artifact beyond its programs.
#[derive(Serialize)]
struct File {
    id: String,
    bytes: u64,
    target: String,
    features: Vec<String>,
    kernels: usize,
    code_bytes: u64,
}

impl Inspect {
    pub fn run(self) -> Result<()> {
        let path = Path::new(&self.what);
        if path.is_file() && spec::is_artifact(path)? {
            return self.artifact(path);
        }
        let named = spec::find(&self.what, &self.overrides)?;
        match self.stage {
            None => self.summary(&named),
            Some(Stage::Spec) => show(self.json, &named.spec, |s| s.to_string()),
            Some(Stage::Kernels | Stage::Plan) => self.module(&named),
            Some(Stage::Graph) => self.graphs(&named, Phase::Graph),
            Some(Stage::Raise) => self.graphs(&named, Phase::Raise),
            Some(Stage::Rewrite) => self.graphs(&named, Phase::Rewrite),
            Some(Stage::Differentiate) => self.graphs(&named, Phase::Differentiate),
            Some(Stage::Expand) => self.graphs(&named, Phase::Expand),
        }
    }
}

impl Inspect {
    fn summary(&self, named: &Named) -> Result<()> {
        let (model, heads) = (parameters(&named.spec)?, loss_parameters(&named.spec)?);
        let tensors = model.iter().chain(&heads).map(|(n, s)| (n.as_str(), s.as_slice()));
        let programs = self.programs.sources(&named.spec, &USUAL)?.iter().map(|s| ports_of_graph(&s.graph)).collect();
        let parameters = Parameters::of(tensors);
        let out =
            Summary { name: named.name.clone(), artifact: None, parameters, programs, plans: vec![], memory: None };
        show(self.json, &out, Summary::show)
    }

    fn artifact(&self, path: &Path) -> Result<()> {
        let a = Artifact::open(path).with_context(|| format!("cannot use {}", path.display()))?;
        let m = &a.manifest;
        match self.stage {
            None => {}
            Some(Stage::Spec) => {
                say(m.spec.trim_end());
                return Ok(());
            }
            Some(Stage::Plan) => {
                return self.plans(&m.programs, Memory::of(&m.params, &m.states, &m.tables, &m.programs));
            }
            Some(Stage::Kernels) if self.text => return self.ptx(&a),
            Some(Stage::Kernels) => return self.records(&a),
            Some(Stage::Graph | Stage::Raise | Stage::Rewrite | Stage::Differentiate | Stage::Expand) => {
                bail!("an artifact holds no graphs: inspect its spec, which `--stage spec` prints")
            }
        }
        let bytes = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
        let file = File {
            id: a.id(),
            bytes,
            target: m.target.clone(),
            features: m.features.clone(),
            kernels: m.kernels.len(),
            code_bytes: m.kernels.iter().map(|k| k.len).sum(),
        };
        let out = Summary {
            name: m.name.clone(),
            artifact: Some(file),
            parameters: Parameters::of(m.params.iter().map(|p| (p.name.as_str(), p.shape.as_slice()))),
            programs: m.programs.iter().map(ports_of_plan).collect(),
            plans: m.programs.iter().map(Program::of).collect(),
            memory: Some(Memory::of(&m.params, &m.states, &m.tables, &m.programs)),
        };
        show(self.json, &out, Summary::show)
    }

    /// The kernels of an artifact, and what they take of a GPU where an assembler is at hand.
    fn records(&self, a: &Artifact) -> Result<()> {
        let m = &a.manifest;
        let Some(chip) = architecture(&m.target) else {
            return show(self.json, &usage::bare(&m.kernels), |k| plan::show_records(k));
        };
        let Some(ptxas) = usage::assembler()? else {
            return show(self.json, &usage::bare(&m.kernels), |k| plan::show_records(k) + UNKNOWN);
        };
        let records = usage::of(&ptxas, &m.kernels, ptx_of(a, chip)?, chip)?;
        show(self.json, &records, |k| plan::show_records(k))
    }

    /// The PTX of an artifact's kernels.
    fn ptx(&self, a: &Artifact) -> Result<()> {
        let m = &a.manifest;
        let Some(chip) = architecture(&m.target) else {
            bail!("the code for {} is no text; `lolm compile --emit clif,asm --dump DIR` writes its sources", m.target)
        };
        let text = ptx_of(a, chip)?;
        let mut wanted = m.kernels.iter().filter(|k| k.name.contains(&self.kernel)).peekable();
        if wanted.peek().is_none() {
            bail!("no kernel of the artifact has `{}` in its name; `--stage kernels` lists them", self.kernel);
        }
        for k in wanted {
            let entry = text.get(k.offset as usize..(k.offset + k.len) as usize);
            say(entry.with_context(|| format!("bug: kernel {} lies outside of the text", k.name))?);
        }
        Ok(())
    }

    fn sources(&self, named: &Named) -> Result<Vec<Source>> {
        self.programs.sources(&named.spec, &[Kind::Train])
    }

    fn module(&self, named: &Named) -> Result<()> {
        let (m, _) = module(&self.sources(named)?, To::default(), &Dump::default())?;
        self.draw(|| m.plans.iter().map(|p| draw::of_plan(p, &m.kernels)).collect())?;
        match (self.stage == Some(Stage::Kernels), self.text) {
            (true, true) => m.kernels.iter().filter(|k| k.name.contains(&self.kernel)).for_each(say),
            (true, false) => show(self.json, &plan::kernels(&m), |k| plan::show_kernels(k))?,
            (false, true) => m.plans.iter().for_each(|p| say(lolm_ir::plan::text::print(p).trim_end())),
            (false, false) => self.plans(&m.plans, memory_of(&m))?,
        }
        Ok(())
    }

    fn plans(&self, plans: &[lolm_ir::plan::Plan], memory: Memory) -> Result<()> {
        if self.json {
            return show(true, &plans, |_| String::new());
        }
        for p in plans {
            say(plan::show_launches(p));
            say(plan::show_arena(p, 20));
        }
        say(plan::show_programs(&plans.iter().map(Program::of).collect::<Vec<_>>()));
        say(memory.show().trim_end());
        Ok(())
    }

    fn graphs(&self, named: &Named, phase: Phase) -> Result<()> {
        let mut graphs = vec![];
        for source in self.sources(named)? {
            let mut found = None;
            let keep = |p: Phase, g: &Graph| {
                if p == phase {
                    found = Some(g.clone());
                }
            };
            let mut keep = keep;
            graph_passes(&source, Options::default(), &mut keep)?;
            graphs.extend(found);
        }
        self.draw(|| graphs.iter().map(|g| draw::of_graph(g, &self.scope)).collect())?;
        if self.text {
            graphs.iter().for_each(|g| say(lolm_ir::text::print(g).trim_end()));
            return Ok(());
        }
        if phase == Phase::Raise {
            return self.raised(named);
        }
        let tables: Vec<Operations> = graphs.iter().map(Operations::of).collect();
        show(self.json, &tables, |t| t.iter().map(Operations::show).collect::<Vec<_>>().join("\n"))
    }

    fn raised(&self, named: &Named) -> Result<()> {
        let mut out = vec![];
        for source in self.sources(named)? {
            let (_, report) = raise(&lolm_passes::canonicalize::canonicalize(&source.graph)?)?;
            out.push(Raised::of(&source.graph.name, &report));
        }
        show(self.json, &out, |r| r.iter().map(Raised::show).collect::<Vec<_>>().join("\n"))
    }

    /// Writes the drawings that are asked for: one program, one file.
    fn draw(&self, drawings: impl FnOnce() -> Vec<Drawing>) -> Result<()> {
        if self.dot.is_none() && self.svg.is_none() {
            return Ok(());
        }
        let drawings = drawings();
        let [d] = &drawings[..] else {
            let names: Vec<&str> = drawings.iter().map(|d| d.title.as_str()).collect();
            bail!("a drawing shows one program, and these are {}; choose with --programs", names.join(", "));
        };
        if let Some(path) = &self.dot {
            write(path, &draw::dot(d))?;
        }
        if let Some(path) = &self.svg {
            write(path, &draw::svg(d))?;
        }
        Ok(())
    }
}

/// The text of an artifact's kernels for a chip.
fn ptx_of<'a>(a: &'a Artifact, chip: &str) -> Result<&'a str> {
    let section = a.section(&format!("{PTX}{chip}"));
    let section = section.context("bug: an artifact that was checked has no section of PTX")?;
    std::str::from_utf8(section).context("bug: the PTX of an artifact that was checked is no text")
}

pub fn memory_of(m: &Module) -> Memory {
    Memory::of(&m.params, &m.states, &m.tables, &m.plans)
}

fn ports_of_graph(g: &Graph) -> Ports {
    let leaves = g.leaves.iter().filter(|l| l.kind == lolm_ir::LeafKind::Input);
    Ports {
        program: g.name.clone(),
        inputs: leaves.map(|l| port(&l.name, l.dtype, &l.shape(g))).collect(),
        outputs: g.outputs.iter().map(|o| port(&o.name, g.ty(o.value).dtype, &shape(g, o))).collect(),
    }
}

fn shape(g: &Graph, o: &lolm_ir::graph::Output) -> Vec<usize> {
    o.dims.iter().map(|d| d.iter().map(|a| g.len(*a)).product()).collect()
}

fn ports_of_plan(p: &lolm_ir::plan::Plan) -> Ports {
    let list = |ports: &[lolm_ir::plan::Port]| ports.iter().map(|p| port(&p.name, p.dtype, &p.shape)).collect();
    Ports { program: p.program.clone(), inputs: list(&p.inputs), outputs: list(&p.outputs) }
}

fn port(name: &str, dtype: lolm_ir::DType, shape: &[usize]) -> String {
    let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("{name}: {dtype}[{}]", dims.join(","))
}

impl Summary {
    fn show(&self) -> String {
        let mut out = format!("{}\n\n", self.name);
        if let Some(f) = &self.artifact {
            let (size, code) = (crate::output::bytes(f.bytes), crate::output::bytes(f.code_bytes));
            let features = f.features.join(", ");
            out += &format!(
                "artifact {} of {size}: {} kernels in {code} of code for {} ({features})\n\n",
                &f.id[..16.min(f.id.len())],
                f.kernels,
                f.target
            );
        }
        out += &self.parameters.show();
        out += "\nprograms\n";
        for p in &self.programs {
            out += &format!("  {}\n    takes {}\n    gives {}\n", p.program, p.inputs.join(", "), p.outputs.join(", "));
        }
        if !self.plans.is_empty() {
            out += &format!("\n{}", plan::show_programs(&self.plans));
        }
        if let Some(m) = &self.memory {
            out += &format!("\n{}", m.show());
        }
        out
    }
}
