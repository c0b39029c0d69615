//! The pipeline: the passes in order, from the graphs of an artifact's programs to one module.
use crate::canonicalize::canonicalize;
use crate::cluster::cluster;
use crate::differentiate::{DiffError, differentiate};
use crate::fuse::fuse;
use crate::lower::{KernelPool, has_launch, lower};
use crate::memory::plan_memory;
use crate::narrow::{narrow, narrowable};
use crate::optimizer::{AdamW, attach, expose_gradients};
use crate::raise::{RaiseError, raise};
use crate::rewrite::{Machine, RewriteError, rewrite};
use crate::schedule::schedule;
use crate::split_reductions::split_reductions;
use lolm_ir::artifact::{ParamRecord, StateRecord, TableRecord};
use lolm_ir::expand::expand;
use lolm_ir::graph::{LeafId, LeafKind};
use lolm_ir::plan::{Module, Plan};
use lolm_ir::verify::{VerifyError, verify};
use lolm_ir::{Graph, GraphError};
use std::collections::{BTreeMap, BTreeSet};

/// What a program is for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Goal {
    /// Its outputs as they are.
    Forward,
    /// The gradient of `loss.total` for every parameter, as outputs.
    Gradients,
    /// An optimizer step.
    Train(AdamW),
}

/// A graph and what to make of it. The program's name in the artifact is the graph's.
#[derive(Clone, Debug)]
pub struct Source {
    pub graph: Graph,
    pub goal: Goal,
}

/// What an artifact stores the parameters as that only feed products and look-ups; the others are f32.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Weights {
    #[default]
    F32,
    /// For programs that do not train.
    Bf16,
}

/// The stages that can be looked at; their order is that of the passes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Phase {
    /// As the model was written, canonical.
    Graph,
    /// With fused operations.
    Raise,
    /// With concats split where that moves less memory.
    Rewrite,
    /// With backward and optimizer.
    Differentiate,
    /// As it is clustered: what has no launch of its own is expanded.
    Expand,
}

#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum CompileError {
    #[error("program {program}: {error}")]
    Graph { program: String, error: GraphError },
    #[error("program {program}: {error}")]
    Raise { program: String, error: RaiseError },
    #[error("program {program}: {error}")]
    Rewrite { program: String, error: RewriteError },
    #[error("program {program}: {error}")]
    Differentiate { program: String, error: DiffError },
    #[error("bug: after pass {phase:?} of program {program}: {error}")]
    Verify { program: String, phase: Phase, error: VerifyError },
    #[error("program {program}: {fault}")]
    Lower { program: String, fault: String },
    #[error("program {program} trains, and weights that are stored as bf16 are for programs that do not")]
    TrainsBf16 { program: String },
    #[error("the programs disagree about `{0}`: it has two types, shapes or initial values")]
    Shared(String),
}

/// Products of one sum are computed in one launch (`fuse`), so a sum of products costs no memory of its own.
const MACHINE: Machine = Machine { accumulates: true };

/// Compiles the programs of one artifact, weights in f32. `watch` sees every graph on the way.
pub fn compile(sources: &[Source], watch: &mut dyn FnMut(Phase, &Graph)) -> Result<Module, CompileError> {
    compile_with(sources, Weights::F32, watch)
}

/// Compiles the programs of one artifact. `watch` sees every graph on the way.
pub fn compile_with(
    sources: &[Source],
    weights: Weights,
    watch: &mut dyn FnMut(Phase, &Graph),
) -> Result<Module, CompileError> {
    let narrowed = match weights {
        Weights::F32 => BTreeSet::new(),
        Weights::Bf16 => narrowable(sources.iter().map(|s| &s.graph)),
    };
    if let Some(s) = sources.iter().find(|s| weights == Weights::Bf16 && s.goal != Goal::Forward) {
        return Err(CompileError::TrainsBf16 { program: s.graph.name.clone() });
    }
    let mut pool = KernelPool::default();
    let mut module = Module::default();
    for s in sources {
        let mut g = graph_passes(s, watch)?;
        if weights == Weights::Bf16 {
            g = narrowed_program(&g, &narrowed)?;
        }
        share(&mut module, &g)?;
        module.plans.push(plan(&g, &mut pool)?);
    }
    module.kernels = pool.kernels;
    Ok(module)
}

/// All passes from graph to graph.
pub fn graph_passes(s: &Source, watch: &mut dyn FnMut(Phase, &Graph)) -> Result<Graph, CompileError> {
    let program = || s.graph.name.clone();
    let graph = |error: GraphError| CompileError::Graph { program: program(), error };
    let mut seen = |phase: Phase, g: &Graph| {
        verify(g).map_err(|error| CompileError::Verify { program: program(), phase, error })?;
        watch(phase, g);
        Ok(())
    };
    let g = canonicalize(&s.graph).map_err(graph)?;
    seen(Phase::Graph, &g)?;
    let (g, _) = raise(&g).map_err(|error| CompileError::Raise { program: program(), error })?;
    seen(Phase::Raise, &g)?;
    let (g, _) = rewrite(&g, MACHINE).map_err(|error| CompileError::Rewrite { program: program(), error })?;
    seen(Phase::Rewrite, &g)?;
    let g = with_goal(g, s.goal)?;
    let g = canonicalize(&g).map_err(graph)?;
    seen(Phase::Differentiate, &g)?;
    let g = expand(&g, &|op| !op.is_elementwise() && !has_launch(op)).map_err(graph)?;
    let g = split_reductions(&g).map_err(graph)?;
    let g = canonicalize(&g).map_err(graph)?;
    seen(Phase::Expand, &g)?;
    Ok(g)
}

/// The program with these parameters stored as bf16.
fn narrowed_program(g: &Graph, names: &BTreeSet<String>) -> Result<Graph, CompileError> {
    let program = || g.name.clone();
    let out = narrow(g, names).map_err(|error| CompileError::Graph { program: program(), error })?;
    verify(&out).map_err(|error| CompileError::Verify { program: program(), phase: Phase::Expand, error })?;
    Ok(out)
}

/// The program with the backward pass and what follows it.
fn with_goal(g: Graph, goal: Goal) -> Result<Graph, CompileError> {
    let program = g.name.clone();
    if goal == Goal::Forward {
        return Ok(g);
    }
    let total = g.find_output("loss.total").map(|o| o.value);
    let loss = total.ok_or(CompileError::Lower { program: program.clone(), fault: "no output `loss.total`".into() })?;
    let params = |l: &LeafId| matches!(g.leaf(*l).kind, LeafKind::Param(_));
    let wrt: Vec<LeafId> = (0..g.leaves.len() as u32).map(LeafId).filter(params).collect();
    let grads = differentiate(&g, loss, &wrt);
    let grads = grads.map_err(|error| CompileError::Differentiate { program: program.clone(), error })?;
    let out = match goal {
        Goal::Train(adamw) => attach(grads, loss, &wrt, &adamw),
        Goal::Gradients | Goal::Forward => expose_gradients(grads, &wrt),
    };
    out.map_err(|error| CompileError::Graph { program, error })
}

/// From a graph to a plan with addresses.
fn plan(g: &Graph, pool: &mut KernelPool) -> Result<Plan, CompileError> {
    let fault = |fault: String| CompileError::Lower { program: g.name.clone(), fault };
    let mut clusters = cluster(g);
    fuse(g, &mut clusters);
    let order = schedule(g, &clusters).map_err(fault)?;
    let mut plan = lower(g, &clusters, &order, pool).map_err(fault)?;
    plan_memory(&mut plan);
    Ok(plan)
}

/// Adds the program's parameters, states and tables to those that all programs share.
fn share(m: &mut Module, g: &Graph) -> Result<(), CompileError> {
    fn put<T: Clone + PartialEq>(all: &mut Vec<T>, new: T, name: impl Fn(&T) -> &str) -> Result<(), CompileError> {
        match all.iter().find(|x| name(x) == name(&new)) {
            None => all.push(new),
            Some(old) if *old == new => {}
            Some(_) => return Err(CompileError::Shared(name(&new).into())),
        }
        Ok(())
    }
    for l in &g.leaves {
        let (name, shape) = (l.name.clone(), l.shape(g));
        match &l.kind {
            LeafKind::Param(init) => {
                let r = ParamRecord { name, dtype: l.dtype, shape, init: *init };
                put(&mut m.params, r, |p| &p.name)?
            }
            LeafKind::State { init } => {
                let r = StateRecord { name, dtype: l.dtype, shape, init: init.clone() };
                put(&mut m.states, r, |s| &s.name)?
            }
            LeafKind::Table(table) => put(&mut m.tables, TableRecord { name, shape, table: *table }, |t| &t.name)?,
            LeafKind::Input => {}
        }
    }
    Ok(())
}

/// Launches of a plan by kind, for reports.
pub fn launches_by_kind(p: &Plan) -> BTreeMap<lolm_ir::plan::Kind, usize> {
    let mut out = BTreeMap::new();
    for s in &p.steps {
        if let lolm_ir::plan::Step::Launch(l) = s {
            *out.entry(l.kind).or_default() += 1;
        }
    }
    out
}
