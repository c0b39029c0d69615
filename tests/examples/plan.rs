//! Prints the plan of a spec's training step: launches by kind with their work, and what is left unfused.
use lolm_models::{LolmSpec, Noise, Program, build};
use lolm_passes::optimizer::AdamW;
use lolm_passes::pipeline::{Goal, Source, compile};
use std::collections::BTreeMap;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let (spec, b, t) = (&a[1], a[2].parse().unwrap(), a[3].parse().unwrap());
    let spec = LolmSpec::load(std::path::Path::new(spec)).unwrap();
    let t0 = std::time::Instant::now();
    let mut graph = build(&spec, &Program::Train { batch: b, seq: t, noise: Noise::Random }).unwrap();
    graph.name = "train".into();
    let adamw = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: Some(1.0), skip_above: 1000.0 };
    let t1 = std::time::Instant::now();
    let mut last = t1;
    let m = compile(&[Source { graph, goal: Goal::Train(adamw) }], &mut |p, g| {
        println!("{p:?}: {} nodes {:?}", g.nodes.len(), last.elapsed());
        last = std::time::Instant::now();
        if p == lolm_passes::pipeline::Phase::Differentiate && a.len() > 4 {
            println!("{}", lolm_ir::text::print(g))
        }
    })
    .unwrap();
    println!("lower {:?}", last.elapsed());
    println!(
        "build {:?} compile {:?}, {} kernels, {} steps, arena {} MB, scratch {} MB",
        t1 - t0,
        t1.elapsed(),
        m.kernels.len(),
        m.plans[0].steps.len(),
        m.plans[0].arena >> 20,
        m.plans[0].scratch >> 20
    );
    let mut by: BTreeMap<_, (usize, u64, u64)> = BTreeMap::new();
    for s in &m.plans[0].steps {
        let lolm_ir::plan::Step::Launch(l) = s else { continue };
        let e = by.entry(format!("{:?}", l.kind)).or_default();
        e.0 += 1;
        e.1 += l.flops;
        e.2 += l.bytes;
        if a.len() > 4 {
            println!(
                "{:?} {} grid {:?} {:.1} MFLOP {:.2} MB",
                l.kind,
                l.name,
                l.grid,
                l.flops as f64 / 1e6,
                l.bytes as f64 / 1e6
            );
        }
    }
    for (k, v) in by {
        println!("{k:14} {:5} launches {:9.3} GFLOP {:9.1} MB", v.0, v.1 as f64 / 1e9, v.2 as f64 / 1e6);
    }
}
