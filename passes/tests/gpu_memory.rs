//! Training steps of published sizes fit the memory of a GPU: their plans are made, not run.
use lolm_ir::plan::{Place, Plan};
use lolm_models::{Noise, Program, Spec, build};
use lolm_passes::optimizer::AdamW;
use lolm_passes::pipeline::{Goal, Options, Precision, Source, Target, Weights, compile_with};

const ADAMW: AdamW =
    AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: Some(1.0), skip_above: 1000.0 };

/// An H200 has 141 GB, of which the driver keeps a little.
const H200: u64 = 139 << 30;

fn train_plan(name: &str, batch: usize, seq: usize, precision: Precision) -> (Plan, u64) {
    let spec: Spec = lolm_models::spec::library(name).unwrap().unwrap();
    let graph = build(&spec, &Program::Train { batch, seq, noise: Noise::Random }).unwrap();
    let source = Source { graph, goal: Goal::Train(ADAMW) };
    let options = Options { target: Target::Gpu, precision, weights: Weights::F32 };
    let m = compile_with(&[source], options, &|_, _| ()).unwrap();
    let kept = m.params.iter().map(|p| 4 * p.shape.iter().product::<usize>() as u64).sum::<u64>()
        + m.states.iter().map(|s| (s.dtype.bytes() * s.shape.iter().product::<usize>()) as u64).sum::<u64>();
    (m.plans.into_iter().next().unwrap(), kept)
}

/// The memory of a plan, and its largest buffers.
fn show(p: &Plan, kept: u64) -> String {
    let gib = |n: u64| n as f64 / (1u64 << 30) as f64;
    let mut arena: Vec<(u64, &str)> = p
        .buffers
        .iter()
        .filter(|b| matches!(b.place, Place::Arena(_)))
        .map(|b| (b.len * b.dtype.bytes() as u64, b.name.as_str()))
        .collect();
    arena.sort_by(|a, b| b.cmp(a));
    let largest: Vec<String> = arena.iter().take(20).map(|(n, name)| format!("  {:8.3} GiB {name}", gib(*n))).collect();
    format!("{}: arena {:.2} GiB, kept {:.2} GiB\n{}", p.program, gib(p.arena), gib(kept), largest.join("\n"))
}

#[test]
fn lolm_304m_trains_on_an_h200() {
    let [exact, rounded] = [Precision::F32, Precision::Bf16].map(|precision| {
        let (p, kept) = train_plan("lolm-304m", 32, 2048, precision);
        println!("{precision:?} {}", show(&p, kept));
        assert!(p.arena + kept <= H200, "{}", show(&p, kept));
        p.arena
    });
    // Half of most activations, and the residual stream in f32.
    assert!(rounded * 3 <= exact * 2, "{rounded} of {exact} bytes");
}
