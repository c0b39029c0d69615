//! Random graphs: every pass keeps the interpreter's answer, and a lowered program computes what its graph says.
//!
//! The graphs are the same at every run; `PROPERTY_SEED` and `PROPERTY_CASES` try others.
use lolm_ir::arbitrary::{Options, feeds, graph, long_graph};
use lolm_ir::expand::expand;
use lolm_ir::graph::{Builder, GraphError, Init, LeafId, LeafKind};
use lolm_ir::interp::{Feeds, Results, round_bf16, run};
use lolm_ir::op::Class;
use lolm_ir::plan::Module;
use lolm_ir::verify::verify;
use lolm_ir::{AxisId, DType, Graph, Op, ValueId, text};
use lolm_passes::canonicalize::canonicalize;
use lolm_passes::differentiate::differentiate;
use lolm_passes::narrow::{narrow, narrowable};
use lolm_passes::optimizer::expose_gradients;
use lolm_passes::pipeline::{self, Goal, Source, Target, compile, compile_with};
use lolm_passes::raise::raise;
use lolm_passes::rewrite::{Machine, rewrite};
use lolm_passes::split_reductions::split_reductions;
use lolm_tests::{machine, plan_interp};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::sync::Arc;

/// Lowered programs keep the order of operations so closely that steps in floats fall as in the graph.
const STEPS: Options = Options { bf16: false, fused: true, steps: true };

/// What differs in the order of operations alone.
const EXACT: f64 = 1e-9;
/// Constants that are f32 on one side alone: those that are folded, and 1/√2, 1/(1 - rate) and 1/n in small operations.
const ROUNDED: f64 = 1e-6;
/// The same after sums in which they nearly cancel.
const SUMMED: f64 = 1e-5;

/// Machine code computes in f32: the error that a tensor may have, of its greatest element, and how much more than what
/// the answer moves by when the contents of the leaves do by a millionth.
const F32: f64 = 2e-4;
const MOVED: f64 = 30.0;

/// The most elements that a value of a test may have.
const LARGEST: usize = 100_000;

fn config(cases: u32) -> ProptestConfig {
    let number = |name: &str| std::env::var(name).ok().and_then(|s| s.parse().ok());
    let (seed, cases) = (number("PROPERTY_SEED").unwrap_or(1), number("PROPERTY_CASES").unwrap_or(cases.into()));
    ProptestConfig {
        cases: cases as u32,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    }
}

fn choices(most: usize) -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(any::<u32>(), 0..most)
}

/// A fault with the graph that has it.
fn fail<T>(what: impl std::fmt::Display, g: &Graph) -> Result<T, TestCaseError> {
    Err(TestCaseError::fail(format!("{what}\n{}", text::print(g))))
}

/// What differs, if anything does by more than the tolerance.
fn difference(before: &Results, after: &Results, tolerance: f64) -> Option<String> {
    for (then, now) in [(&before.outputs, &after.outputs), (&before.writes, &after.writes)] {
        for (name, then) in then {
            let Some(now) = now.get(name).filter(|now| now.len() == then.len()) else {
                return Some(format!("{name} is gone"));
            };
            let alike = |x: f64, y: f64| x == y || (x.is_nan() && y.is_nan());
            let apart = |(x, y): &(&f64, &f64)| !(alike(**x, **y) || (*x - *y).abs() <= tolerance * (1.0 + x.abs()));
            if let Some((i, (x, y))) = then.iter().zip(now).enumerate().find(|(_, both)| apart(both)) {
                return Some(format!("element {i} of {name} was {x} and is {y}"));
            }
        }
    }
    None
}

/// A pass keeps the rules of graphs and the answers of this one.
fn keeps(g: &Graph, pass: &str, after: &Graph, seed: u32, tolerance: f64) -> Result<(), TestCaseError> {
    if let Err(e) = verify(after) {
        return fail(format!("{pass}: {e}"), g);
    }
    let feeds = feeds(g, seed);
    match difference(&run(g, &feeds).unwrap(), &run(after, &feeds).unwrap(), tolerance) {
        None => Ok(()),
        Some(what) => fail(format!("{pass}: {what}"), g),
    }
}

fn module(target: Target, g: &Graph, goal: Goal) -> Result<Module, TestCaseError> {
    let options = pipeline::Options { target, ..Default::default() };
    compile_with(&[Source { graph: g.clone(), goal }], options, &|_, _| ()).or_else(|e| fail(e, g))
}

/// A program computes what a graph says, which is the program's own or the one with its gradients.
fn lowers(target: Target, g: &Graph, goal: Goal, says: &Graph, seed: u32, tolerance: f64) -> Result<(), TestCaseError> {
    let m = module(target, g, goal)?;
    let feeds = feeds(g, seed);
    let before = run(says, &feeds).unwrap();
    let (outputs, memory) = plan_interp::run(&m, &m.plans[0], &feeds);
    let writes = memory.into_iter().filter(|(name, _)| before.writes.contains_key(name)).collect();
    match difference(&before, &Results { outputs, writes }, tolerance) {
        None => Ok(()),
        Some(what) => fail(what, g),
    }
}

/// Contents that differ from these by a few millionths, integers aside.
fn nudged(feeds: &Feeds) -> Feeds {
    let nudge = |(i, x): (usize, &f64)| if x.fract() == 0.0 { *x } else { x * (1.0 + 1e-6 * ((i % 7) as f64 - 3.0)) };
    feeds.iter().map(|(name, x)| (name.clone(), x.iter().enumerate().map(nudge).collect())).collect()
}

/// A program as machine code computes what a graph says, as far as f32 can tell: tensors that hang on the last digits of
/// the leaves, or that are beyond f32, say nothing.
fn runs(target: Target, g: &Graph, goal: Goal, says: &Graph, seed: u32) -> Result<(), TestCaseError> {
    let m = module(target, g, goal)?;
    let feeds = feeds(g, seed);
    let (before, moved) = (run(says, &feeds).unwrap(), run(says, &nudged(&feeds)).unwrap());
    let answers = match target {
        Target::Cpu => machine::run(&m, &feeds, 1 + seed as usize % 3),
        Target::Gpu => machine::run_emulated(&m, &feeds),
    };
    let (outputs, memory) = answers.or_else(|e| fail(e, g))?;
    for (name, then) in before.outputs.iter().chain(&before.writes) {
        let near = moved.outputs.get(name).unwrap_or_else(|| &moved.writes[name]);
        let Some(now) = outputs.get(name).or(memory.get(name)) else { return fail(format!("{name} is gone"), g) };
        let greatest = |it: &mut dyn Iterator<Item = f64>| it.map(f64::abs).fold(0.0, f64::max);
        let size = 1.0 + greatest(&mut then.iter().copied());
        let moves = greatest(&mut then.iter().zip(near).map(|(x, y)| x - y));
        if moves > 1e-3 * size || size > 1e30 {
            continue;
        }
        let most = F32 * size + MOVED * moves;
        for (i, (x, y)) in then.iter().zip(now).enumerate() {
            let same = x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= most;
            if !same {
                return fail(format!("element {i} of {name} was {x} and is {y}"), g);
            }
        }
    }
    Ok(())
}

fn is_small(g: &Graph) -> bool {
    g.nodes.iter().flat_map(|n| &n.types).all(|t| g.elements(t.axes) <= LARGEST)
}

/// Values whose gradient nobody defines: gradients, second results, and scans from a state.
fn has_no_gradient(op: &Op, args: usize) -> bool {
    let gradient = matches!(op, Op::AttentionGrad(_) | Op::SelectiveScanGrad { .. } | Op::CrossEntropyGrad { .. });
    let gradient = gradient || matches!(op, Op::RoutedDotGrad { .. });
    let goes_on = match op {
        Op::SelectiveScan { .. } => args == 6,
        Op::GatedRecurrence { .. } => args == 4,
        _ => false,
    };
    gradient || matches!(op, Op::Part(1) | Op::GatedRecurrenceGrad { .. }) || goes_on
}

/// A loss of everything that has a gradient, with all floats as parameters.
fn with_loss(g: &Graph) -> Result<Graph, GraphError> {
    let mut barred = vec![false; g.nodes.len()];
    for v in g.ids() {
        let n = g.node(v);
        barred[v.0 as usize] = has_no_gradient(&n.op, n.args.len()) || n.args.iter().any(|a| barred[a.0 as usize]);
    }
    let mut b = Builder::extend(Graph { outputs: vec![], writes: vec![], ..g.clone() });
    let mut total = b.num(0.0);
    for o in g.outputs.iter().filter(|o| !barred[o.value.0 as usize] && g.ty(o.value).dtype == DType::F32) {
        let term = along(&mut b, o.value);
        total = b.add(total, term);
    }
    b.output("loss.total", total, &[]);
    let mut g = canonicalize(&b.finish()?)?;
    let floats = Arc::make_mut(&mut g.leaves)
        .iter_mut()
        .filter(|l| l.dtype == DType::F32 && !matches!(l.kind, LeafKind::Table(_)));
    floats.for_each(|l| l.kind = LeafKind::Param(Init::Zeros));
    Ok(g)
}

/// Σ of the value's elements times random numbers.
fn along(b: &mut Builder, x: ValueId) -> ValueId {
    let axes: Vec<AxisId> = b.graph().axes_of(x).iter().collect();
    let dims: Vec<Vec<AxisId>> = axes.iter().map(|a| vec![*a]).collect();
    let way = b.input(&format!("along{}", x.0), DType::F32, &dims);
    if axes.is_empty() { b.mul(x, way) } else { b.dot(&axes, x, way) }
}

/// The graph with all floats as parameters, and those that can be as bf16.
fn with_weights_in_bf16(mut g: Graph) -> Graph {
    let written: Vec<LeafId> = g.writes.iter().map(|w| w.leaf).collect();
    let leaves = Arc::make_mut(&mut g.leaves).iter_mut().enumerate().filter(|(i, l)| {
        l.dtype == DType::F32 && !matches!(l.kind, LeafKind::Table(_)) && !written.contains(&LeafId(*i as u32))
    });
    leaves.for_each(|(_, l)| l.kind = LeafKind::Param(Init::Zeros));
    narrow(&g, &narrowable([&g].into_iter())).unwrap()
}

fn with_gradients(g: &Graph) -> Graph {
    let loss = g.find_output("loss.total").unwrap().value;
    let is_param = |l: &LeafId| matches!(g.leaf(*l).kind, LeafKind::Param(_));
    let params: Vec<LeafId> = (0..g.leaves.len() as u32).map(LeafId).filter(is_param).collect();
    expose_gradients(differentiate(g, loss, &params).unwrap(), &params).unwrap()
}

fn small_operations(g: &Graph) -> Graph {
    expand(g, &|op| op.info().class == Class::Fused).unwrap()
}

proptest! {
    #![proptest_config(config(250))]

    #[test]
    fn passes_keep_the_answer(choices in choices(300), seed in 0u32..100) {
        let g = graph(&choices, Options::SMOOTH).unwrap();
        keeps(&g, "canonicalize", &canonicalize(&g).unwrap(), seed, ROUNDED)?;
        let small = small_operations(&g);
        keeps(&g, "expand", &small, seed, ROUNDED)?;
        for g in [&g, &small] {
            let raised = raise(g).unwrap().0;
            keeps(g, "raise", &raised, seed, ROUNDED)?;
            let moved = rewrite(&raised, Machine { accumulates: true }).unwrap().0;
            keeps(g, "rewrite", &moved, seed, ROUNDED)?;
        }
    }

    #[test]
    fn canonical_graphs_are_fixed_points(choices in choices(300)) {
        let once = canonicalize(&graph(&choices, Options::ALL).unwrap()).unwrap();
        prop_assert_eq!(canonicalize(&once).unwrap().nodes.len(), once.nodes.len(), "{}", text::print(&once));
    }

    /// The fused gradients are those of the small operations, in a backward pass before and after it is canonical.
    #[test]
    fn gradients_are_those_of_small_operations(choices in choices(300), seed in 0u32..100) {
        let g = with_loss(&graph(&choices, Options::SMOOTH).unwrap()).unwrap();
        let gradients = with_gradients(&g);
        keeps(&gradients, "canonicalize", &canonicalize(&gradients).unwrap(), seed, ROUNDED)?;
        keeps(&gradients, "expand", &with_gradients(&small_operations(&g)), seed, SUMMED)?;
    }

    #[test]
    fn programs_compute_what_their_graphs_say(choices in choices(300), seed in 0u32..100) {
        let g = graph(&choices, STEPS).unwrap();
        lowers(Target::Cpu, &g, Goal::Forward, &g, seed, ROUNDED)?;
    }

    #[test]
    fn programs_with_weights_in_bf16_compute_what_their_graphs_say(choices in choices(300), seed in 0u32..100) {
        let g = with_weights_in_bf16(graph(&choices, STEPS).unwrap());
        lowers(Target::Cpu, &g, Goal::Forward, &g, seed, ROUNDED)?;
    }

    #[test]
    fn weights_in_bf16_are_the_rounded_ones(choices in choices(300), seed in 0u32..100) {
        let g = graph(&choices, STEPS).unwrap();
        let half = with_weights_in_bf16(g.clone());
        let mut feeds = feeds(&g, seed);
        let is_half = |l: &&lolm_ir::graph::Leaf| l.dtype == DType::Bf16;
        let before = run(&half, &feeds).unwrap();
        for l in half.leaves.iter().filter(is_half) {
            feeds.get_mut(&l.name).unwrap().iter_mut().for_each(|x| *x = round_bf16(*x));
        }
        prop_assert!(difference(&before, &run(&g, &feeds).unwrap(), 0.0).is_none());
    }

    /// A program that cannot be lowered says which limit it meets.
    #[test]
    fn what_cannot_be_lowered_is_refused(choices in choices(300)) {
        let g = graph(&choices, Options::ALL).unwrap();
        let refused = compile(&[Source { graph: g.clone(), goal: Goal::Forward }], &|_, _| ()).err();
        if let Some(e) = refused.filter(|e| !e.to_string().contains("limit: ")) {
            fail(e, &g)?;
        }
    }

    #[test]
    fn programs_for_a_gpu_compute_what_their_graphs_say(choices in choices(300), seed in 0u32..100) {
        let g = graph(&choices, STEPS).unwrap();
        lowers(Target::Gpu, &g, Goal::Forward, &g, seed, ROUNDED)?;
    }

    #[test]
    fn programs_for_a_gpu_compute_gradients(choices in choices(300), seed in 0u32..100) {
        let g = with_loss(&graph(&choices, Options::SMOOTH).unwrap()).unwrap();
        lowers(Target::Gpu, &g, Goal::Gradients, &with_gradients(&g), seed, SUMMED)?;
    }

    #[test]
    fn programs_compute_gradients(choices in choices(300), seed in 0u32..100) {
        let g = with_loss(&graph(&choices, Options::SMOOTH).unwrap()).unwrap();
        lowers(Target::Cpu, &g, Goal::Gradients, &with_gradients(&g), seed, SUMMED)?;
    }
}

proptest! {
    #![proptest_config(config(100))]

    #[test]
    fn machine_code_computes_what_graphs_say(choices in choices(300), seed in 0u32..100) {
        let g = graph(&choices, STEPS).unwrap();
        runs(Target::Cpu, &g, Goal::Forward, &g, seed)?;
    }

    #[test]
    fn emulated_code_computes_what_graphs_say(choices in choices(300), seed in 0u32..100) {
        let g = graph(&choices, STEPS).unwrap();
        runs(Target::Gpu, &g, Goal::Forward, &g, seed)?;
    }

    #[test]
    fn emulated_code_computes_gradients(choices in choices(300), seed in 0u32..100) {
        let g = with_loss(&graph(&choices, Options::SMOOTH).unwrap()).unwrap();
        prop_assume!(is_small(&g));
        runs(Target::Gpu, &g, Goal::Gradients, &with_gradients(&g), seed)?;
    }

    #[test]
    fn machine_code_computes_with_weights_in_bf16(choices in choices(100), seed in 0u32..100) {
        let g = with_weights_in_bf16(long_graph(&choices, STEPS).unwrap());
        prop_assume!(is_small(&g));
        runs(Target::Cpu, &g, Goal::Forward, &g, seed)?;
    }

    #[test]
    fn machine_code_computes_gradients(choices in choices(300), seed in 0u32..100) {
        let g = with_loss(&graph(&choices, Options::SMOOTH).unwrap()).unwrap();
        runs(Target::Cpu, &g, Goal::Gradients, &with_gradients(&g), seed)?;
    }

    #[test]
    fn machine_code_computes_long_programs(choices in choices(100), seed in 0u32..100) {
        let g = long_graph(&choices, STEPS).unwrap();
        prop_assume!(is_small(&g));
        runs(Target::Cpu, &g, Goal::Forward, &g, seed)?;
    }

    #[test]
    fn machine_code_computes_long_gradients(choices in choices(100), seed in 0u32..100) {
        let g = with_loss(&long_graph(&choices, Options::SMOOTH).unwrap()).unwrap();
        prop_assume!(is_small(&g));
        runs(Target::Cpu, &g, Goal::Gradients, &with_gradients(&g), seed)?;
    }

    #[test]
    fn large_reductions_are_split(choices in choices(100), seed in 0u32..100) {
        let g = long_graph(&choices, Options::SMOOTH).unwrap();
        prop_assume!(is_small(&g));
        keeps(&g, "split_reductions", &split_reductions(g.clone()).unwrap(), seed, EXACT)?;
    }

    /// Sequences longer than a tile, products for the library, sums in two steps.
    #[test]
    fn long_programs_compute_what_their_graphs_say(choices in choices(100), seed in 0u32..100) {
        let g = long_graph(&choices, STEPS).unwrap();
        prop_assume!(is_small(&g));
        lowers(Target::Cpu, &g, Goal::Forward, &g, seed, ROUNDED)?;
    }

    #[test]
    fn long_programs_compute_gradients(choices in choices(100), seed in 0u32..100) {
        let g = with_loss(&long_graph(&choices, Options::SMOOTH).unwrap()).unwrap();
        prop_assume!(is_small(&g));
        lowers(Target::Cpu, &g, Goal::Gradients, &with_gradients(&g), seed, SUMMED)?;
    }
}
