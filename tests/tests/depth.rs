//! What a deeper model costs to compile: equal layers add launches, a fixed number each, and no kernels.
use lolm_ir::plan::{Module, Step};
use lolm_models::spec::{Override, library_with};
use lolm_models::{Noise, Program, build};
use lolm_passes::pipeline::{Goal, Source, compile};

/// A training step and a token, of the demo of a family with this many layers.
fn module(family: &str, key: &str, layers: usize) -> Module {
    let keys = [(key, layers), ("training.seq", 32)].map(|(k, n)| Override::new(k, n.to_string()));
    let spec = library_with(&format!("{family}-demo"), &keys).unwrap().unwrap_or_else(|e| panic!("{family}: {e}"));
    let adamw = lolm_passes::optimizer::AdamW {
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        clip: Some(1.0),
        skip_above: 1e3,
    };
    let train = build(&spec, &Program::Train { batch: 2, seq: 32, noise: Noise::Random }).unwrap();
    let step = build(&spec, &Program::Step { slots: 1, tokens: 1 }).unwrap();
    let sources = [Source { graph: train, goal: Goal::Train(adamw) }, Source { graph: step, goal: Goal::Forward }];
    compile(&sources, &|_, _| ()).unwrap_or_else(|e| panic!("{family}: {e}"))
}

/// Launches of each program, and the kernels.
fn work(m: &Module) -> (Vec<i64>, i64) {
    let launches = |s: &Step| match s {
        Step::Launch(_) => 1,
        Step::Repeat { body, .. } => body.len() as i64,
    };
    (m.plans.iter().map(|p| p.steps.iter().map(launches).sum()).collect(), m.kernels.len() as i64)
}

#[test]
fn deeper_models_have_more_launches_and_no_more_kernels() {
    let rest = "num_hidden_layers";
    let families = [("lolm", "n_layers"), ("transformer", rest), ("mamba", rest), ("jamba", rest), ("griffin", rest)];
    for (family, key) in families.into_iter().chain([("samba", rest)]) {
        // Twelve layers are whole periods of every family.
        let [(a, few), (b, more), (c, most)] = [12, 24, 36].map(|n| work(&module(family, key, n)));
        // Sums over all parameters, such as the norm of the gradient, are cut where a kernel would be too long, and their
        // last pieces differ; beyond that, depth brings no kernels.
        let same = (more - most).abs() <= 1 && (more - few) * 20 <= few;
        assert!(same, "{family}: {few}, {more}, {most} kernels");
        for ((a, b), c) in a.iter().zip(&b).zip(&c) {
            let (first, second) = (b - a, c - b);
            // As many again, or a few less, where updates of many small parameters share a launch.
            assert!(first > 0 && second * 100 <= first * 101, "{family}: {a}, {b}, {c} launches");
        }
    }
}

#[test]
fn no_kernel_has_more_operands_than_a_runtime_takes_however_many_parameters_there_are() {
    let m = module("transformer", "num_hidden_layers", 64);
    let most = m.kernels.iter().map(|k| k.operands.len()).max().unwrap_or(0);
    assert!(most <= lolm_runtime::artifact::MAX_OPERANDS, "{most} operands");
}
