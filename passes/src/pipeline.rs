//! The pipeline: the passes in order, from the graphs of an artifact's programs to one module.
use crate::canonicalize::canonicalize;
use crate::cluster::cluster;
use crate::differentiate::{DiffError, differentiate};
use crate::fuse::{fuse, fuse_epilogues};
use crate::lower::{KernelPool, has_launch, lower};
use crate::memory::plan_memory;
use crate::narrow::{narrow, narrowable};
use crate::narrow_states::{narrow_states, rounded_states};
use crate::optimizer::{AdamW, attach, expose_gradients};
use crate::precision::precision;
use crate::raise::{RaiseError, raise};
use crate::rewrite::{Machine, RewriteError, rewrite};
use crate::schedule::schedule;
use crate::split_reductions::split_reductions;
use lolm_ir::artifact::{ParamRecord, StateRecord, TableRecord, lanes};
use lolm_ir::expand::expand;
use lolm_ir::graph::{LeafId, LeafKind, RowKind};
use lolm_ir::hash::QuickMap;
use lolm_ir::kernel::Kernel;
use lolm_ir::plan::{Module, Plan};
use lolm_ir::threads::in_order;
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

/// What runs the programs. It decides which operations have launches of their own and what a launch is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Target {
    /// Launches of several stages, which threads work through unit by unit.
    #[default]
    Cpu,
    /// Launches of one kernel each.
    Gpu,
}

/// What products compute in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Precision {
    #[default]
    F32,
    /// Operands rounded to bf16, sums in f32 (`precision`); for a GPU.
    Bf16,
}

/// How the programs of an artifact are compiled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    pub weights: Weights,
    pub target: Target,
    pub precision: Precision,
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
    #[error("programs compute in bf16 on a GPU only: compile for cuda, or compute in f32")]
    Bf16OnCpu,
    #[error("the programs disagree about `{0}`: it has two types, shapes or initial values")]
    Shared(String),
}

impl Target {
    /// Products of one sum are computed in one launch (`fuse`) on the CPU, so a sum of products costs no memory there.
    fn machine(self) -> Machine {
        Machine { accumulates: self == Target::Cpu }
    }
}

/// What a watcher is told about a program on its way.
pub enum Moment<'a> {
    /// It is taken up, or taken up again after all programs have come as far.
    Begin,
    /// A graph is made and verified.
    Graph(Phase, &'a Graph),
    /// Its values are in groups, and these in order.
    Cluster,
    /// Its groups are launches.
    Lower,
    /// Its buffers have addresses.
    Memory,
}

/// Sees every moment of program i, on the thread that works on it.
pub type Watch<'a> = dyn Fn(usize, Moment) + Sync + 'a;

/// A program behind all passes, with kernels of its own.
struct Program {
    graph: Graph,
    plan: Plan,
    kernels: Vec<Kernel>,
}

/// Compiles the programs of one artifact for the CPU, weights in f32.
pub fn compile(sources: &[Source], watch: &Watch) -> Result<Module, CompileError> {
    compile_with(sources, Options::default(), watch)
}

/// Compiles the programs of one artifact. Each goes its way alone; what they share is put together at the end, in order.
pub fn compile_with(sources: &[Source], options: Options, watch: &Watch) -> Result<Module, CompileError> {
    let narrowed = match options.weights {
        Weights::F32 => None,
        Weights::Bf16 => Some(narrowable(sources.iter().map(|s| &s.graph))),
    };
    if let Some(s) = sources.iter().find(|s| narrowed.is_some() && s.goal != Goal::Forward) {
        return Err(CompileError::TrainsBf16 { program: s.graph.name.clone() });
    }
    if options.precision == Precision::Bf16 && options.target == Target::Cpu {
        return Err(CompileError::Bf16OnCpu);
    }
    let graphs = in_order(sources.len(), |i| graph(&sources[i], options, narrowed.as_ref(), &|m| watch(i, m)));
    let graphs = graphs.into_iter().collect::<Result<Vec<Graph>, _>>()?;
    let states = match options.precision {
        Precision::F32 => BTreeSet::new(),
        Precision::Bf16 => rounded_states(graphs.iter()),
    };
    let programs = in_order(graphs.len(), |i| program(&graphs[i], options, &states, &|m| watch(i, m)));
    let (mut pool, mut shared) = (KernelPool::default(), Shared::default());
    for p in programs {
        let Program { graph, mut plan, kernels } = p?;
        shared.add(&graph)?;
        let ids: Vec<u32> = kernels.into_iter().map(|k| pool.add(k)).collect();
        plan.steps.iter_mut().for_each(|s| s.kernels_mut(|k| *k = ids[*k as usize]));
        shared.module.plans.push(plan);
    }
    Ok(Module { kernels: pool.kernels, ..shared.module })
}

/// A program's graph behind all passes that see it alone.
fn graph(
    s: &Source,
    options: Options,
    narrowed: Option<&BTreeSet<String>>,
    watch: &dyn Fn(Moment),
) -> Result<Graph, CompileError> {
    watch(Moment::Begin);
    let graph = graph_passes(s, options, &mut |phase, g| watch(Moment::Graph(phase, g)))?;
    match narrowed {
        Some(names) => changed(&graph, |g| narrow(g, names)),
        None => Ok(graph),
    }
}

/// The plan of a graph, with these states stored as bf16.
fn program(
    g: &Graph,
    options: Options,
    states: &BTreeSet<String>,
    watch: &dyn Fn(Moment),
) -> Result<Program, CompileError> {
    watch(Moment::Begin);
    let graph = match states.is_empty() {
        true => g.clone(),
        false => changed(g, |g| narrow_states(g, states))?,
    };
    let fault = |fault: String| CompileError::Lower { program: graph.name.clone(), fault };
    let mut clusters = cluster(&graph);
    match options.target {
        Target::Cpu => fuse(&graph, &mut clusters),
        Target::Gpu => fuse_epilogues(&graph, &mut clusters),
    }
    let order = schedule(&graph, &clusters).map_err(fault)?;
    watch(Moment::Cluster);
    let mut pool = KernelPool::default();
    let mut plan = lower(&graph, &clusters, &order, options.target, &mut pool).map_err(fault)?;
    watch(Moment::Lower);
    plan_memory(&mut plan, options.target);
    watch(Moment::Memory);
    Ok(Program { plan, kernels: pool.kernels, graph })
}

/// All passes from graph to graph.
pub fn graph_passes(s: &Source, options: Options, watch: &mut dyn FnMut(Phase, &Graph)) -> Result<Graph, CompileError> {
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
    let (g, _) =
        rewrite(&g, options.target.machine()).map_err(|error| CompileError::Rewrite { program: program(), error })?;
    seen(Phase::Rewrite, &g)?;
    let g = with_goal(g, s.goal)?;
    let g = canonicalize(&g).map_err(graph)?;
    seen(Phase::Differentiate, &g)?;
    let g = match options.precision {
        Precision::F32 => g,
        // Fused operations that are made of products are rounded as they are.
        Precision::Bf16 => precision(&g, s.goal != Goal::Forward).map_err(graph)?,
    };
    let g = expand(&g, &|op| !op.is_elementwise() && !has_launch(op, options.target)).map_err(graph)?;
    let g = split_reductions(g).map_err(graph)?;
    let g = canonicalize(&g).map_err(graph)?;
    seen(Phase::Expand, &g)?;
    Ok(g)
}

/// The program after a change of what is stored as bf16.
fn changed(g: &Graph, change: impl Fn(&Graph) -> Result<Graph, GraphError>) -> Result<Graph, CompileError> {
    let program = || g.name.clone();
    let out = change(g).and_then(|g| canonicalize(&g));
    let out = out.map_err(|error| CompileError::Graph { program: program(), error })?;
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

/// What the programs share: parameters, states and tables by name.
#[derive(Default)]
struct Shared {
    module: Module,
    params: QuickMap<String, usize>,
    states: QuickMap<String, usize>,
    tables: QuickMap<String, usize>,
}

impl Shared {
    fn add(&mut self, g: &Graph) -> Result<(), CompileError> {
        let Shared { module: m, params, states, tables } = self;
        for l in g.leaves.iter() {
            let (name, shape) = (l.name.clone(), l.shape(g));
            match &l.kind {
                LeafKind::Param(init) => {
                    put(params, &mut m.params, &l.name, ParamRecord { name, dtype: l.dtype, shape, init: *init })?
                }
                LeafKind::State { init, rows } => {
                    let shape = one_row(g, *rows, shape);
                    let r = StateRecord { name, dtype: l.dtype, shape, rows: *rows, init: init.clone() };
                    put(states, &mut m.states, &l.name, r)?
                }
                LeafKind::Table(table) => {
                    put(tables, &mut m.tables, &l.name, TableRecord { name, shape, table: *table })?
                }
                LeafKind::Input => {}
            }
        }
        Ok(())
    }
}

/// The shape of a state outside of the pools that programs of several lanes work on.
fn one_row(g: &Graph, rows: RowKind, mut shape: Vec<usize>) -> Vec<usize> {
    if let (Some(_), RowKind::Whole | RowKind::Kept | RowKind::Ring, [first, ..]) =
        (lanes(&g.name), rows, &mut shape[..])
    {
        *first = 1;
    }
    shape
}

fn put<T: PartialEq>(
    known: &mut QuickMap<String, usize>,
    all: &mut Vec<T>,
    name: &str,
    new: T,
) -> Result<(), CompileError> {
    match known.get(name) {
        Some(i) if all[*i] == new => {}
        Some(_) => return Err(CompileError::Shared(name.into())),
        None => {
            known.insert(name.into(), all.len());
            all.push(new);
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
