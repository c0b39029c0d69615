//! Times a layer of experts against a dense layer of as many multiply-adds: `cargo run --example moe [tokens d f experts k]`.
//! The experts' time has everything in it: router, top-k, grouping, activation and the weighted sum.
use lolm_ir::graph::{Builder, Init};
use lolm_ir::plan::Kind;
use lolm_ir::{AxisId, DType, Graph};
use lolm_models::blocks::{ExpertAxes, Experts, moe, silu};
use lolm_passes::pipeline::{Goal, Source, compile};
use lolm_runtime::bench::Profile;
use lolm_runtime::{Artifact, Model};

const ROUNDS: usize = 7;

fn main() {
    let given: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let [tokens, d, f, experts, k] = given.try_into().unwrap_or([2048, 512, 1024, 8, 2]);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let work = (3 * 2 * tokens * k * d * f) as f64;
    println!("{tokens} tokens, d {d}, f {f}, {k} of {experts} experts, {threads} threads");
    // A router of zeros sends all tokens to the first k experts.
    for (name, goal, times, even) in [
        ("forward", Goal::Forward, 1.0, true),
        ("forward, all tokens on the same experts", Goal::Forward, 1.0, false),
        ("forward and backward", Goal::Gradients, 3.0, true),
        ("forward and backward, all tokens on the same experts", Goal::Gradients, 3.0, false),
    ] {
        let mut sparse = model(routed(tokens, d, f, experts, k), goal, threads);
        let mut dense = model(dense(tokens, d, f * k), goal, threads);
        let router = sparse.params().find("router").filter(|_| !even);
        router.into_iter().for_each(|slot| sparse.param_mut(slot).fill(0.0));
        let (mut best, mut least) = ([f64::INFINITY; 2], None);
        for _ in 0..ROUNDS {
            for (i, m) in [&mut sparse, &mut dense].into_iter().enumerate() {
                let p = m.program("layer").unwrap_or_else(|e| panic!("{e}"));
                let profile = Profile::of(m, p, 1);
                if profile.seconds() < best[i] {
                    best[i] = profile.seconds();
                    least = if i == 0 { Some(profile) } else { least };
                }
            }
        }
        let speed = best.map(|s| work * times / s / 1e9);
        println!(
            "{name}: experts {:.2} ms, {:.1} GFLOP/s; dense {:.2} ms, {:.1} GFLOP/s; {:.2}",
            best[0] * 1e3,
            speed[0],
            best[1] * 1e3,
            speed[1],
            speed[0] / speed[1]
        );
        for row in least.iter().flat_map(|p| &p.launches).filter(|r| r.seconds > 0.01 * best[0]) {
            let rate = if row.kind == Kind::Contract { format!("{:.1} GFLOP/s", row.gflops()) } else { String::new() };
            println!("  {:8.3} ms  {:40} {rate}", row.seconds * 1e3, row.name);
        }
    }
}

fn model(graph: Graph, goal: Goal, threads: usize) -> Model {
    let m = compile(&[Source { graph, goal }], &|_, _| ()).unwrap_or_else(|e| panic!("{e}"));
    let info = lolm_codegen::Info { name: "moe".into(), spec: String::new() };
    let compiled = lolm_codegen::compile(&m, &info).unwrap_or_else(|e| panic!("{e}"));
    let artifact = Artifact::from_bytes(compiled.bytes).unwrap_or_else(|e| panic!("{e}"));
    let mut model = Model::load(artifact, threads).unwrap_or_else(|e| panic!("{e}"));
    for slot in 0..model.params().slots().len() {
        let draw = |i: usize| lolm_ir::philox::uniform(3, slot as u32, 0, i as u64) - 0.5;
        model.param_mut(slot).iter_mut().enumerate().for_each(|(i, x)| *x = draw(i));
    }
    model
}

fn param(b: &mut Builder, name: &str, axes: &[AxisId]) -> lolm_ir::ValueId {
    b.param(name, Init::Normal(0.02), &axes.iter().map(|a| vec![*a]).collect::<Vec<_>>())
}

/// The loss y · along, which makes the adjoint of y a tensor.
fn finish(mut b: Builder, y: lolm_ir::ValueId, axes: [AxisId; 2]) -> Graph {
    let dims = axes.map(|a| vec![a]);
    let along = b.input("along", DType::F32, &dims);
    let loss = b.dot(&axes, y, along);
    b.output("y", y, &dims);
    b.output("loss.total", loss, &[]);
    b.finish().unwrap_or_else(|e| panic!("{e}"))
}

fn routed(tokens: usize, d: usize, f: usize, experts: usize, k: usize) -> Graph {
    let mut b = Builder::new("layer");
    let [t, d, f, expert] = [("t", tokens), ("d", d), ("f", f), ("e", experts)].map(|(n, l)| b.axis(n, l));
    let k = b.axis("k", k);
    let x = param(&mut b, "x", &[t, d]);
    let w = Experts {
        router: param(&mut b, "router", &[expert, d]),
        gate: param(&mut b, "gate", &[expert, f, d]),
        up: param(&mut b, "up", &[expert, f, d]),
        down: param(&mut b, "down", &[expert, d, f]),
    };
    let y = moe(&mut b, ExpertAxes { d, f, expert, k }, x, w, false); // [t, d]
    finish(b, y, [t, d])
}

fn dense(tokens: usize, d: usize, f: usize) -> Graph {
    let mut b = Builder::new("layer");
    let [t, d, f] = [("t", tokens), ("d", d), ("f", f)].map(|(n, l)| b.axis(n, l));
    let x = param(&mut b, "x", &[t, d]);
    let (gate, up) = (param(&mut b, "gate", &[f, d]), param(&mut b, "up", &[f, d]));
    let (gate, up) = (b.dot(&[d], x, gate), b.dot(&[d], x, up)); // [t, f]
    let active = silu(&mut b, gate);
    let h = b.mul(active, up);
    let down = param(&mut b, "down", &[d, f]);
    let y = b.dot(&[f], h, down); // [t, d]
    finish(b, y, [t, d])
}
