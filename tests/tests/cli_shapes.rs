//! Other dimensions than the golden ones: odd lengths and widths, single heads, layers, banks, taps and codes, and parts
//! that are off. What the compiled programs give is what the interpreter makes of the graphs as they were written.
use lolm_ir::graph::{LeafKind, Table};
use lolm_ir::interp::{self, Feeds};
use lolm_ir::{DType, Graph};
use lolm_models::spec::{Override, library_with};
use lolm_models::{Noise, Program, Spec, build};
use lolm_passes::differentiate::differentiate;
use lolm_passes::optimizer::expose_gradients;
use lolm_passes::pipeline::{Goal, Source, compile};
use lolm_runtime::{Artifact, Model, Tensor};
use lolm_tests::golden::distance;
use std::collections::BTreeMap;

/// The demo's spec, small, with these keys.
fn spec(keys: &str) -> Spec {
    let small = "d_model=12 n_heads=2 n_layers=1 d_ff=20 vocab_size=37 max_seq_len=64 ssm.d_state=3 ssm.n_layers=1 \
         memory.n_slots=5 memory.slot_dim=7 memory.n_banks=2 memory.n_chunks=3 regime.n_codes=6 regime.d_regime=5 \
         loss.cpc_proj_dim=6 loss.future_window=4 training.seq=8";
    let pair = |s: &str| s.split_once('=').map(|(k, v)| Override::new(k, v)).unwrap();
    let keys: Vec<Override> = small.split_whitespace().chain(keys.split_whitespace()).map(pair).collect();
    library_with("lolm-demo", &keys).unwrap().unwrap_or_else(|e| panic!("{e}"))
}

/// Numbers in [-1, 1) that depend on the name and the index only (an LCG; Knuth 1981).
fn draws(name: &str, count: usize) -> Vec<f64> {
    let mut x = name.bytes().fold(1u64, |h, b| (h ^ b as u64).wrapping_mul(0x100000001b3));
    let mut next = || {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (x >> 40) as f64 / (1 << 23) as f64 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Contents for every leaf of a graph, such that every path matters and f32 holds them exactly.
fn feeds(g: &Graph, vocab: usize) -> Feeds {
    let mut out = Feeds::new();
    for l in g.leaves.iter() {
        let shape = l.shape(g);
        let n = shape.iter().product();
        let scale = 1.7 / (shape.last().copied().unwrap_or(1) as f64).sqrt();
        let raw = draws(&l.name, n);
        let data = match (&l.kind, l.name.as_str()) {
            (LeafKind::Table(Table::RopeCos { .. } | Table::RopeSin { .. }), _) => continue,
            (_, "tokens" | "targets") => raw.iter().map(|x| ((x + 1.0) * 0.5 * vocab as f64).floor()).collect(),
            (_, "tau") => vec![0.5],
            (_, name) if name.ends_with("A_log") => raw.iter().map(|x| 0.5 + 0.5 * x).collect(),
            (_, name) if shape.len() == 1 && name.ends_with("weight") => raw.iter().map(|x| 1.0 + 0.2 * x).collect(),
            (LeafKind::Param(_), _) if shape.len() < 2 => raw.iter().map(|x| 0.2 * x).collect(),
            _ => raw.iter().map(|x| scale * x).collect::<Vec<f64>>(),
        };
        out.insert(l.name.clone(), data.iter().map(|x: &f64| *x as f32 as f64).collect());
    }
    out
}

/// What the interpreter makes of a program and its gradients in small operations.
fn expected(g: &Graph, gradients: bool, feeds: &Feeds) -> BTreeMap<String, Vec<f64>> {
    if !gradients {
        return interp::run(g, feeds).unwrap().outputs;
    }
    let loss = g.find_output("loss.total").unwrap().value;
    let leaves = (0..g.leaves.len() as u32).map(lolm_ir::LeafId);
    let params: Vec<_> = leaves.filter(|l| matches!(g.leaf(*l).kind, LeafKind::Param(_))).collect();
    let g = expose_gradients(differentiate(g, loss, &params).unwrap(), &params).unwrap();
    interp::run(&g, feeds).unwrap().outputs
}

/// Runs the compiled program on the same numbers.
fn found(source: Source, feeds: &Feeds) -> BTreeMap<String, Vec<f64>> {
    let name = source.graph.name.clone();
    let module = compile(&[source], &|_, _| ()).unwrap();
    let bytes = lolm_codegen::compile(&module, &lolm_codegen::Info::default()).unwrap().bytes;
    let mut m = Model::load(Artifact::from_bytes(bytes).unwrap(), 2).unwrap();
    let params: Vec<String> = m.params().slots().iter().map(|s| s.name.clone()).collect();
    for (slot, name) in params.iter().enumerate() {
        m.param_mut(slot).iter_mut().zip(&feeds[name]).for_each(|(to, x)| *to = *x as f32);
    }
    let ports = m.plan(m.program(&name).unwrap()).inputs.clone();
    let tensor = |p: &lolm_ir::plan::Port| match p.dtype {
        DType::I32 => Tensor::i32(&p.shape, feeds[&p.name].iter().map(|x| *x as i32).collect()),
        _ => Tensor::f32(&p.shape, feeds[&p.name].iter().map(|x| *x as f32).collect()),
    };
    let inputs: Vec<(&str, Tensor)> = ports.iter().map(|p| (p.name.as_str(), tensor(p))).collect();
    let out = m.call(&name, &inputs).unwrap();
    out.into_iter().map(|(n, t)| (n, t.as_f32().unwrap().iter().map(|x| *x as f64).collect())).collect()
}

fn check(keys: &str, batch: usize, seq: usize) {
    let spec = spec(keys);
    let programs = [
        (Program::Forward { batch, seq, forced_gate: false }, Goal::Forward),
        (Program::Train { batch, seq, noise: Noise::Input }, Goal::Gradients),
    ];
    for (program, goal) in programs {
        let graph = build(&spec, &program).unwrap();
        let feeds = feeds(&graph, spec.vocab_size);
        let expected = expected(&graph, goal == Goal::Gradients, &feeds);
        let found = found(Source { graph, goal }, &feeds);
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (name, want) in &expected {
            let bound = if name.starts_with("grad.") { 1e-3 } else { 1e-4 };
            let d = distance(&found[name], want);
            assert!(d <= bound, "{keys} {batch}x{seq}: {name} is off by {d:.1e}");
        }
    }
}

const MAMBA: &str = "ssm.kind=mamba ssm.conv_kernel=3 ssm.dt_rank=1";

#[test]
fn odd_lengths() {
    check("", 1, 17);
    check("", 3, 29);
    check("memory.n_chunks=7", 2, 33);
    check(MAMBA, 1, 64);
}

#[test]
fn odd_widths() {
    check("d_model=30 n_heads=3 d_ff=11 vocab_size=101 ssm.d_state=5 n_layers=2", 2, 19);
    check("n_heads=6 regime.d_regime=1 regime.n_codes=2 memory.n_slots=2 memory.n_banks=1", 2, 16);
    check("n_heads=1 ssm.expand=1 ssm.d_state=16 ssm.n_layers=3", 1, 16);
    check(&format!("{MAMBA} ssm.expand=3 ssm.conv_kernel=1 ssm.dt_rank=5 ssm.d_state=1"), 2, 13);
    check("regime.neighbor_kernel_size=1 memory.n_chunks=1 loss.cpc_max_positions=3", 2, 14);
}

#[test]
fn parts_that_are_off() {
    check("gate.enabled=false", 2, 15);
    check("memory.enabled=false", 2, 15);
    check("regime.enabled=false", 2, 15);
    check("gate.enabled=false ssm.enabled=false", 2, 15);
    check("gate.enabled=false ssm.enabled=false memory.enabled=false", 2, 15);
    check("gate.enabled=false ssm.enabled=false memory.enabled=false regime.enabled=false", 2, 15);
    check("gate.normalize_branches=false regime.gradient_isolation=false regime.neighbor_interaction=false", 2, 15);
    check(&format!("{MAMBA} memory.enabled=false regime.enabled=false"), 2, 15);
}
