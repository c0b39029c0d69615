//! Filetests: a graph as text, whose first lines say what is done to it.
//!
//! ```text
//! ; Softmax of scores from which the maximum was subtracted.
//! ; test raise
//! ; run 1
//! func @softmax
//! axis b=2 s=4
//! …
//! ```
//!
//! * `; test STAGE …`: the text after each of these stages is a snapshot beside the input, `name.STAGE.snap`. The stages are
//!   those of [`Stage`].
//! * `; run SEED`: on random contents of the leaves, the interpreter gives the same answers before and after each stage, to
//!   1e-9; gradients are compared with differences. `; run SEED within 1e-7` where an operation found by raising is exact
//!   and its spelling has a rounded constant.
//! * `; finds 1 softmax | 1 log`: what raising finds and, after the bar, what it leaves over. A file that is raised says so.
//! * `; goal gradients` or `; goal train`: what the stages that lower are for, if not the outputs alone. The graph has an
//!   output `loss.total` then, and its parameters are those of the leaves.
//!
//! Other comments are for the reader.
use lolm_ir::graph::{LeafId, LeafKind, ValueId};
use lolm_ir::kernel::Kernel;
use lolm_ir::op::Class;
use lolm_ir::plan::{Module, text as plan_text};
use lolm_ir::{Graph, expand::expand, text, verify::verify};
use lolm_passes::canonicalize::canonicalize;
use lolm_passes::differentiate::differentiate;
use lolm_passes::optimizer::{AdamW, attach, expose_gradients};
use lolm_passes::pipeline::{Goal, Source, compile};
use lolm_passes::raise::{RaiseReport, raise};
use lolm_passes::rewrite::{Machine, rewrite};
use std::path::{Path, PathBuf};

mod check;

/// What may be done to the graph of a filetest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// As it is read.
    Print,
    Canonicalize,
    /// Canonical, then raised.
    Raise,
    /// Raised, then rewritten; with what was moved.
    Rewrite,
    /// With the gradient of `loss.total` for every parameter, canonical.
    Differentiate,
    /// Every fused operation in small ones.
    Expand,
    /// All passes, up to kernels.
    Kernels,
    /// The plan of the same.
    Plan,
    /// How code generation maps the axes of each kernel to the machine.
    Schedule,
    /// What it hands to Cranelift. A file with one of these two also runs as machine code.
    Clif,
}

impl Stage {
    pub const ALL: [Stage; 10] = {
        use Stage::*;
        [Print, Canonicalize, Raise, Rewrite, Differentiate, Expand, Kernels, Plan, Schedule, Clif]
    };
    pub fn name(self) -> &'static str {
        match self {
            Stage::Print => "print",
            Stage::Canonicalize => "canonicalize",
            Stage::Raise => "raise",
            Stage::Rewrite => "rewrite",
            Stage::Differentiate => "differentiate",
            Stage::Expand => "expand",
            Stage::Kernels => "kernels",
            Stage::Plan => "plan",
            Stage::Schedule => "schedule",
            Stage::Clif => "clif",
        }
    }
}

/// A file with its instructions.
pub struct FileTest {
    pub path: PathBuf,
    pub stages: Vec<Stage>,
    pub graph: Graph,
    goal: Goal,
    finds: Option<String>,
    /// Seed and tolerance.
    run: Option<(u32, f64)>,
}

/// The optimizer of `; goal train`.
const ADAMW: AdamW =
    AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: Some(1.0), skip_above: 1000.0 };

/// The most lines of an input.
const LINES: usize = 40;

impl FileTest {
    pub fn load(path: &Path) -> Result<FileTest, String> {
        let source = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
        if source.lines().count() > LINES {
            return Err(format!("more than {LINES} lines: one idea a file"));
        }
        let graph = text::parse(&source).map_err(|e| e.to_string())?;
        verify(&graph).map_err(|e| e.to_string())?;
        let mut test =
            FileTest { path: path.into(), stages: vec![], graph, goal: Goal::Forward, finds: None, run: None };
        for line in source.lines().map_while(|l| l.strip_prefix(';')) {
            test.instruction(line)?;
        }
        if test.stages.is_empty() {
            return Err("no `; test` line says what is done".into());
        }
        if test.stages.contains(&Stage::Raise) && test.finds.is_none() {
            return Err("no `; finds` line says what raising finds".into());
        }
        Ok(test)
    }

    fn instruction(&mut self, line: &str) -> Result<(), String> {
        match *line.split_whitespace().collect::<Vec<_>>() {
            ["test", ref names @ ..] => {
                for name in names {
                    let stage = Stage::ALL.into_iter().find(|s| s.name() == *name);
                    self.stages.push(stage.ok_or(format!("there is no stage `{name}`"))?);
                }
            }
            ["finds", ref rest @ ..] => self.finds = Some(rest.join(" ")),
            ["goal", "gradients"] => self.goal = Goal::Gradients,
            ["goal", "train"] => self.goal = Goal::Train(ADAMW),
            ["run", ref rest @ ..] => {
                let (seed, tolerance) = match *rest {
                    [seed] => (seed, "1e-9"),
                    [seed, "within", tolerance] => (seed, tolerance),
                    _ => return Err(format!("`;{line}`: expected `; run SEED` or `; run SEED within NUMBER`")),
                };
                let wrong = || format!("`;{line}`: expected numbers");
                self.run = Some((seed.parse().ok().ok_or_else(wrong)?, tolerance.parse().ok().ok_or_else(wrong)?));
            }
            ["goal", ..] => return Err(format!("`;{line}`: expected `gradients` or `train`")),
            _ => {}
        }
        Ok(())
    }

    /// The name of a stage's snapshot.
    pub fn snapshot(&self, stage: Stage) -> String {
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        format!("{stem}.{}", stage.name())
    }

    /// What a stage gives, as text. The answers before and after are compared.
    pub fn perform(&self, stage: Stage) -> Result<String, String> {
        match stage {
            Stage::Kernels | Stage::Plan => {
                let m = self.module()?;
                self.check_plan(&m)?;
                Ok(match stage {
                    Stage::Plan => plan_text::print(&m.plans[0]),
                    _ => m.kernels.iter().map(|k| k.to_string()).collect::<Vec<_>>().join("\n"),
                })
            }
            Stage::Schedule | Stage::Clif => {
                let m = self.module()?;
                self.check_machine(&m)?;
                let text = |k: &Kernel| {
                    let code = lolm_codegen::compile_kernel(k).map_err(|e| e.to_string())?;
                    Ok(if stage == Stage::Clif { code.clif } else { format!("{k}{}", code.schedule_text) })
                };
                m.kernels.iter().map(text).collect::<Result<Vec<_>, String>>().map(|all| all.join("\n"))
            }
            _ => {
                let (graph, report) = self.transformed(stage)?;
                verify(&graph).map_err(|e| format!("after {}: {e}", stage.name()))?;
                self.check_graph(stage, &graph)?;
                let said = report.lines().map(|l| format!("; {l}\n")).collect::<String>();
                Ok(said + &text::print(&graph))
            }
        }
    }

    /// The graph after a stage from graph to graph, and what the stage reports.
    fn transformed(&self, stage: Stage) -> Result<(Graph, String), String> {
        let g = &self.graph;
        let quiet = |g: Graph| (g, String::new());
        let canonical = || canonicalize(g).map_err(|e| e.to_string());
        match stage {
            Stage::Canonicalize => canonical().map(quiet),
            Stage::Raise => {
                let (g, report) = raise(&canonical()?).map_err(|e| e.to_string())?;
                let found = summary(&report);
                if self.finds.as_ref() != Some(&found) {
                    return Err(format!("found `{found}`"));
                }
                Ok((g, String::new()))
            }
            Stage::Rewrite => {
                let (g, _) = raise(&canonical()?).map_err(|e| e.to_string())?;
                let (g, report) = rewrite(&g, Machine { accumulates: true }).map_err(|e| e.to_string())?;
                let of = |m: &lolm_passes::rewrite::Moved| format!("[{}] of {} moves\n", m.made.join(", "), m.offered);
                Ok((g, report.moved.iter().map(of).collect()))
            }
            Stage::Differentiate => Ok(quiet(canonicalize(&self.aimed(Goal::Gradients)?).map_err(|e| e.to_string())?)),
            Stage::Expand => expand(g, &|op| op.info().class == Class::Fused).map(quiet).map_err(|e| e.to_string()),
            Stage::Print | Stage::Kernels | Stage::Plan | Stage::Schedule | Stage::Clif => Ok(quiet(g.clone())),
        }
    }

    /// The graph with what the goal adds, and nothing else done to it.
    fn aimed(&self, goal: Goal) -> Result<Graph, String> {
        let g = &self.graph;
        if goal == Goal::Forward {
            return Ok(g.clone());
        }
        let (loss, params) = self.trained()?;
        let grads = differentiate(g, loss, &params).map_err(|e| e.to_string())?;
        let out = match goal {
            Goal::Train(adamw) => attach(grads, loss, &params, &adamw),
            Goal::Gradients | Goal::Forward => expose_gradients(grads, &params),
        };
        out.map_err(|e| e.to_string())
    }

    fn trained(&self) -> Result<(ValueId, Vec<LeafId>), String> {
        let loss = self.graph.find_output("loss.total").ok_or("no output `loss.total` to differentiate")?.value;
        let param = |l: &LeafId| matches!(self.graph.leaf(*l).kind, LeafKind::Param(_));
        Ok((loss, (0..self.graph.leaves.len() as u32).map(LeafId).filter(param).collect()))
    }

    fn module(&self) -> Result<Module, String> {
        compile(&[Source { graph: self.graph.clone(), goal: self.goal }], &|_, _| ()).map_err(|e| e.to_string())
    }
}

/// `1 attention, 2 rope`, and after a bar what nobody claimed.
fn summary(r: &RaiseReport) -> String {
    let list = |m: std::collections::BTreeMap<&str, usize>| {
        m.iter().map(|(name, n)| format!("{n} {name}")).collect::<Vec<_>>().join(", ")
    };
    match (list(r.totals()), list(r.residues())) {
        (found, rest) if rest.is_empty() => found,
        (found, rest) => format!("{found} | {rest}"),
    }
}
