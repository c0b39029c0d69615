//! Plans of a GPU that go over long axes part by part: their interpreter and the emulator give what the graph gives.
use lolm_ir::arbitrary::feeds;
use lolm_ir::graph::{LeafId, LeafKind};
use lolm_ir::interp::{Feeds, run};
use lolm_ir::plan::{Module, Step};
use lolm_ir::{Graph, text};
use lolm_passes::differentiate::differentiate;
use lolm_passes::optimizer::expose_gradients;
use lolm_passes::pipeline::{Goal, Options, Source, Target, compile_with};
use lolm_tests::{machine, plan_interp};

const GPU: Options = Options {
    target: Target::Gpu,
    weights: lolm_passes::pipeline::Weights::F32,
    precision: lolm_passes::pipeline::Precision::F32,
};

/// ‖found - expected‖ / ‖expected‖
fn distance(found: &[f64], expected: &[f64]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let apart = norm(&mut found.iter().zip(expected).map(|(x, y)| x - y));
    apart / norm(&mut expected.iter().copied()).max(1e-30)
}

fn with_gradients(g: &Graph) -> Graph {
    let loss = g.find_output("loss.total").unwrap().value;
    let is_param = |l: &LeafId| matches!(g.leaf(*l).kind, LeafKind::Param(_));
    let params: Vec<LeafId> = (0..g.leaves.len() as u32).map(LeafId).filter(is_param).collect();
    expose_gradients(differentiate(g, loss, &params).unwrap(), &params).unwrap()
}

/// Compiles a program with its gradients, and runs the plan by its interpreter and on the emulator.
fn check(program: &str, change: impl Fn(&mut Feeds)) -> Module {
    let g = text::parse(program).unwrap();
    let m = compile_with(&[Source { graph: g.clone(), goal: Goal::Gradients }], GPU, &|_, _| ()).unwrap();
    let mut given = feeds(&g, 1);
    change(&mut given);
    let expected = run(&with_gradients(&g), &given).unwrap().outputs;
    let interpreted = plan_interp::run(&m, &m.plans[0], &given).0;
    let emulated = machine::run_emulated(&m, &given).unwrap().0;
    for (name, expected) in &expected {
        let d = distance(&interpreted[name], expected);
        assert!(d < 1e-6, "{name}: {d} in the interpreter");
        let d = distance(&emulated[name], expected);
        // The terms of a loss may nearly cancel.
        let bound = if name == "loss.total" { 1e-3 } else { 2e-5 };
        assert!(d < bound, "{name}: {d} in the emulator");
    }
    m
}

fn rounds(m: &Module) -> Vec<u32> {
    let times = |s: &Step| match s {
        Step::Launch(_) => None,
        Step::Repeat { times, .. } => Some(*times),
    };
    m.plans[0].steps.iter().filter_map(times).collect()
}

fn scan(b: usize, t: usize, e: usize, n: usize) -> String {
    format!(
        "func @f
axis b={b} t={t} e={e} n={n}
param @dt: f32[b, t, e] init normal 0.02
param @A: f32[e, n] init normal 0.02
param @B: f32[b, t, n] init normal 0.02
param @C: f32[b, t, n] init normal 0.02
param @u: f32[b, t, e] init normal 0.02
input @along: f32[b, t, e]

%y = selective_scan {{time=t, state=n}} @dt, @A, @B, @C, @u
%loss = dot {{axes=[b,t,e]}} %y, @along
output @loss.total[] = %loss
"
    )
}

/// Steps between 0 and 0.2, rates below 0: states that last for a while, as in a model.
fn lasting(feeds: &mut Feeds) {
    feeds.get_mut("dt").unwrap().iter_mut().for_each(|x| *x = 0.1 * x.abs());
    feeds.get_mut("A").unwrap().iter_mut().for_each(|x| *x = -x.abs());
}

/// Steps of a part of a chunk, of one, of several with a shorter last one or without; in sections too. States of less than
/// one lane, of one, and of several; channels of less than a warp, of a few, and of several blocks.
#[test]
fn scans_are_differentiated_in_one_kernel() {
    for (b, t, e, n) in [(2, 5, 3, 2), (2, 8, 4, 4), (1, 17, 70, 5), (2, 64, 34, 16), (1, 300, 2, 2), (1, 512, 34, 8)] {
        let m = check(&scan(b, t, e, n), lasting);
        let back: Vec<_> = m.kernels.iter().filter(|k| k.axes.iter().any(|a| a.name == "step")).collect();
        let claims: Vec<_> = back.iter().map(|k| lolm_codegen::claim(k, "k").unwrap().generator).collect();
        let made_by = |generator: &str| claims.iter().filter(|g| **g == generator).count();
        // Sections are walked from nothing in both directions.
        let alone = if t >= 256 { 2 } else { 0 };
        assert_eq!([made_by("scan_grad"), made_by("scan")], [1, alone], "{t} steps");
        assert!(rounds(&m).is_empty());
    }
}

fn head(tokens: usize, words: usize, depth: usize, cap: bool) -> String {
    let cap = if cap { ", cap=3.0" } else { "" };
    format!(
        "func @f
axis b=2 t={tokens} v={words} d={depth}
param @o: f32[b, t, d] init normal 0.02
param @e: f32[v, d] init normal 0.02
input @target: i32[b, t]

%l = cross_entropy {{vocab=v, over=[d]{cap}}} @o, @e, @target
%loss = mean {{axes=[b,t]}} %l
output @loss.total[] = %loss
"
    )
}

/// Heads whose tokens are one part, a part and a rest, and several parts; the loss is computed with its gradient.
#[test]
fn heads_are_differentiated_part_by_part() {
    let cases = [(3, 11, 5, false, vec![]), (9, 70, 33, true, vec![]), (1030, 9, 3, true, vec![])];
    for (t, v, d, cap, times) in cases.into_iter().chain([(2100, 34, 32, false, vec![1])]) {
        let m = check(&head(t, v, d, cap), |feeds| {
            let words = v as f64;
            let target = feeds.get_mut("target").unwrap();
            target.iter_mut().enumerate().for_each(|(i, x)| *x = (7.0 * i as f64) % words);
            target[1] = -1.0;
        });
        assert_eq!(rounds(&m), times, "{t} tokens");
    }
}

/// Rows of a table are summed in the order in which they come, by groups of rows; what lies outside of it is left out.
#[test]
fn rows_are_added_to_a_table() {
    for (t, v, d) in [(5, 7, 3), (90, 150, 34), (80, 5, 130)] {
        let program = format!(
            "func @f
axis b=2 t={t} v={v} d={d}
param @table: f32[v, d] init normal 0.02
input @tokens: i32[b, t]
input @along: f32[b, t, d]

%x = gather {{axis=v}} @table, @tokens
%loss = dot {{axes=[b,t,d]}} %x, @along
output @loss.total[] = %loss
"
        );
        check(&program, |feeds| {
            let tokens = feeds.get_mut("tokens").unwrap();
            tokens.iter_mut().enumerate().for_each(|(i, x)| *x = (i * i % (v + 3)) as f64 - 1.0);
        });
    }
}
