//! The specs that come with the compiler: published sizes, and programs that build quickly.
use lolm_ir::Graph;
use lolm_ir::graph::LeafKind;
use lolm_models::spec::{LIBRARY, library};
use lolm_models::{Noise, Program, Spec, build, parameters, prefill_sizes};

fn spec(name: &str) -> Spec {
    library(name).unwrap_or_else(|| panic!("no spec {name}")).unwrap_or_else(|e| panic!("{e}"))
}

fn count(name: &str) -> usize {
    parameters(&spec(name)).unwrap().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
}

#[test]
fn parameter_counts_are_the_published_ones() {
    assert_eq!(count("lolm-20m"), 20_466_880);
    assert_eq!(count("lolm-149m"), 148_705_920);
    assert_eq!(count("lolm-304m"), 303_623_969);
    assert_eq!(count("lolm-304m-native"), 319_319_841);
    assert_eq!(count("lolm-1.6b"), 1_568_085_569);
    assert_eq!(count("smollm2-135m"), 134_515_008);
    assert_eq!(count("mamba-130m"), 129_135_360);
    assert_eq!(count("recurrentgemma-2b"), 2_682_862_080);
}

#[test]
fn the_demo_is_small_and_whole() {
    let s = spec("lolm-demo");
    assert!(s.ssm().is_some() && s.memory().is_some() && s.regime().is_some() && s.gate().is_some());
    let n = count("lolm-demo");
    assert!((800_000..1_300_000).contains(&n), "{n} parameters");
}

fn programs(spec: &Spec) -> Vec<Program> {
    let (batch, seq) = (1, spec.max_seq_len);
    let mut all = vec![
        Program::Train { batch, seq, noise: Noise::Random },
        Program::Train { batch, seq, noise: Noise::Input },
        Program::Forward { batch, seq, forced_gate: false },
        Program::Forward { batch, seq, forced_gate: true },
        Program::Eval { batch, seq },
        Program::Step { slots: 4, tokens: 1 },
    ];
    all.extend(prefill_sizes(spec).into_iter().map(|tokens| Program::Step { slots: 1, tokens }));
    all
}

#[test]
fn every_program_of_every_spec_builds() {
    for (name, _) in LIBRARY {
        let spec = spec(name);
        for p in programs(&spec) {
            build(&spec, &p).unwrap_or_else(|e| panic!("{name} {p:?}: {e}"));
        }
    }
}

#[test]
fn models_are_written_in_small_operations() {
    use lolm_ir::op::Class;
    for (name, _) in LIBRARY {
        let spec = spec(name);
        for p in programs(&spec) {
            let g = build(&spec, &p).unwrap();
            let fused = g.nodes.iter().find(|n| n.op.info().class == Class::Fused);
            assert!(fused.is_none(), "{name} {p:?}: {:?}", fused.map(|n| n.op.mnemonic()));
        }
    }
}

/// The nodes of a scope without the names of leaves: equal layers are equal here.
fn shape_of(g: &Graph, scope: &str) -> Vec<(String, Vec<lolm_ir::graph::Type>)> {
    let of_scope = |n: &&lolm_ir::Node| g.scope(n.scope) == scope;
    g.nodes.iter().filter(of_scope).map(|n| (n.op.mnemonic().into(), n.types.to_vec())).collect()
}

#[test]
fn equal_layers_are_equal_graphs() {
    let g = build(&spec("lolm-304m"), &Program::Train { batch: 1, seq: 64, noise: Noise::Random }).unwrap();
    let first = shape_of(&g, "decoder.layers.1");
    assert!(first.len() > 40);
    for layer in 2..16 {
        assert_eq!(shape_of(&g, &format!("decoder.layers.{layer}")), first);
    }
    assert_eq!(shape_of(&g, "ssm.layers.1"), shape_of(&g, "ssm.layers.3"));
}

#[test]
fn steps_and_forward_hold_the_same_parameters() {
    for (name, _) in LIBRARY {
        let spec = spec(name);
        let expected = parameters(&spec).unwrap();
        for p in programs(&spec) {
            let g = build(&spec, &p).unwrap();
            let held: Vec<_> = g
                .leaves
                .iter()
                .filter(|l| matches!(l.kind, LeafKind::Param(_)) && !l.name.starts_with("loss."))
                .map(|l| (l.name.clone(), l.shape(&g)))
                .collect();
            assert_eq!(held, expected, "{name} {p:?}");
        }
    }
}

#[test]
fn the_largest_model_builds_quickly() {
    let spec = spec("lolm-1.6b");
    let start = std::time::Instant::now();
    let g = build(&spec, &Program::Train { batch: 1, seq: 2048, noise: Noise::Random }).unwrap();
    let took = start.elapsed();
    assert!(g.nodes.len() < 5000, "{} nodes", g.nodes.len());
    assert!(took.as_millis() < 300, "{took:?}");
}
