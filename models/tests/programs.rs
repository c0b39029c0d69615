//! What the programs give besides the golden numbers: statistics of evaluation, degenerate losses, randomness.
mod common;
use common::{CASES, Case, distance, fresh_states, go};
use lolm_ir::Op;
use lolm_ir::graph::LeafKind;
use lolm_models::{Noise, Program, Spec, build};

#[test]
fn eval_counts_what_forward_gives() {
    for case in CASES.map(Case::load) {
        let (batch, seq) = (case.batch(), case.seq());
        let mut feeds = case.feeds(&["tokens", "targets"]);
        feeds.insert("gate.force".into(), vec![-1.0]);
        feeds.get_mut("targets").unwrap()[5] = -1.0;
        let forward = build(&case.spec, &Program::Forward { batch, seq, forced_gate: false }).unwrap();
        let want = go(&forward, &feeds).outputs;
        let out = go(&build(&case.spec, &Program::Eval { batch, seq }).unwrap(), &feeds).outputs;

        let losses: Vec<f64> = want["logits"]
            .chunks(case.spec.vocab_size)
            .zip(&feeds["targets"])
            .map(|(l, t)| if *t < 0.0 { 0.0 } else { l.iter().map(|x| x.exp()).sum::<f64>().ln() - l[*t as usize] })
            .collect();
        assert_eq!(out["loss"][5], 0.0);
        assert!(distance(&out["loss"], &losses) < 1e-12, "{}", case.name);

        assert_eq!(out.contains_key("gate.mean"), case.spec.gate().is_some());
        if let Some(g) = want.get("gate") {
            let (d, rows) = (case.spec.lolm().unwrap().d_model, (batch * seq) as f64);
            let mut mean = vec![0.0; d];
            let mut bins = vec![0.0; d * 20];
            for (i, x) in g.iter().enumerate() {
                mean[i % d] += x / rows;
                bins[i % d * 20 + ((x * 20.0) as usize).min(19)] += 1.0;
            }
            assert!(distance(&out["gate.mean"], &mean) < 1e-12);
            assert_eq!(out["gate.histogram"], bins);
        }
        assert_eq!(out.contains_key("regime.usage"), case.spec.regime().is_some());
        if let (Some(p), Some(r)) = (want.get("regime_probs"), case.spec.regime()) {
            let mut usage = vec![0.0; r.n_codes];
            for row in p.chunks(r.n_codes) {
                let best = row.iter().copied().fold(0.0, f64::max);
                usage[row.iter().position(|x| *x == best).unwrap()] += 1.0;
            }
            assert_eq!(out["regime.usage"], usage);
        }
        assert_eq!(out.contains_key("memory.entropy"), case.spec.memory().is_some());
        if case.spec.memory().is_some() {
            let mem = case.json["losses"]["mem"].as_f64().unwrap();
            assert!(distance(&out["memory.entropy"], &[mem]) < 1e-6);
        }
    }
}

#[test]
fn a_gate_forced_in_eval_is_what_it_counts() {
    let case = Case::load("lolm_full");
    let g = build(&case.spec, &Program::Eval { batch: case.batch(), seq: case.seq() }).unwrap();
    let mut feeds = case.feeds(&["tokens", "targets"]);
    feeds.insert("gate.force".into(), vec![1.0]);
    let out = go(&g, &feeds).outputs;
    assert!(out["gate.mean"].iter().all(|x| *x == 1.0));
    let rows = (case.batch() * case.seq()) as f64;
    assert!(out["gate.histogram"].chunks(20).all(|bins| bins[19] == rows));
}

/// The losses of a golden model on other data.
fn losses(case: &Case, spec: &Spec, tokens: &[f64], targets: &[f64]) -> std::collections::BTreeMap<String, f64> {
    let seq = tokens.len();
    let g = build(spec, &Program::Train { batch: 1, seq, noise: Noise::Input }).unwrap();
    let mut feeds = case.feeds(&[]);
    feeds.insert("tokens".into(), tokens.to_vec());
    feeds.insert("targets".into(), targets.to_vec());
    let codes = spec.regime().map_or(0, |r| r.n_codes);
    feeds.insert("train.gumbel".into(), vec![0.0; seq * codes]);
    go(&g, &feeds).outputs.into_iter().map(|(k, v)| (k, v[0])).collect()
}

#[test]
fn degenerate_inputs_count_as_zero() {
    let case = Case::load("lolm_full");
    let mut spec = case.spec.clone();
    spec.lolm_mut().unwrap().memory.as_mut().unwrap().n_chunks = 1;
    // No longer than the window of eight: nothing has a future.
    let short = losses(&case, &spec, &[1.0; 8], &[2.0; 8]);
    assert_eq!((short["loss.future"], short["loss.competitive"]), (0.0, 0.0));
    assert!(short.values().all(|x| x.is_finite()), "{short:?}");
    // Two tokens have one turn, which does not vary; one token has none.
    for n in [1, 2] {
        let few = losses(&case, &spec, &vec![3.0; n], &vec![4.0; n]);
        assert_eq!(few["loss.changepoint"], 0.0);
        assert!(few.values().all(|x| x.is_finite()), "{few:?}");
    }
    // No target at all.
    let none = losses(&case, &spec, &[1.0; 12], &[-1.0; 12]);
    assert_eq!(none["loss.tok"], 0.0);
    assert!(none["loss.future"] > 0.0 && none.values().all(|x| x.is_finite()), "{none:?}");
}

#[test]
fn ignored_targets_leave_the_mean() {
    let case = Case::load("lolm_plain_decoder");
    let tokens: Vec<f64> = (0..10).map(|i| i as f64).collect();
    let mut targets = tokens.clone();
    targets[9] = -1.0;
    let cut = losses(&case, &case.spec, &tokens[..9], &targets[..9])["loss.tok"];
    let masked = losses(&case, &case.spec, &tokens, &targets)["loss.tok"];
    assert!((cut - masked).abs() < 1e-12);
}

/// The sites of all draws of randomness.
fn sites(g: &lolm_ir::Graph) -> Vec<u32> {
    let site = |n: &lolm_ir::Node| if let Op::Random { site, .. } = n.op { Some(site) } else { None };
    g.nodes.iter().filter_map(site).collect()
}

#[test]
fn draws_are_distinct_and_only_where_used() {
    let case = Case::load("lolm_full");
    let mut spec = case.spec.clone();
    let (batch, seq) = (2, 16);
    let train = |spec: &Spec, noise| build(spec, &Program::Train { batch, seq, noise }).unwrap();
    assert_eq!(sites(&train(&spec, Noise::Random)), [0]);
    let plain = train(&spec, Noise::Input);
    assert!(sites(&plain).is_empty() && plain.find_leaf("seed").is_none());

    spec.lolm_mut().unwrap().dropout = 0.25;
    // After the embedding, and in each of two layers on the attention weights and after w2; then the Gumbel noise.
    assert_eq!(sites(&train(&spec, Noise::Random)), [0, 1, 2, 3, 4, 5]);
    assert_eq!(sites(&train(&spec, Noise::Input)), [0, 1, 2, 3, 4]);
    for program in [
        Program::Forward { batch, seq, forced_gate: false },
        Program::Eval { batch, seq },
        Program::Step { slots: 1, tokens: 1 },
    ] {
        assert!(sites(&build(&spec, &program).unwrap()).is_empty(), "{program:?}");
    }
}

#[test]
fn dropout_keeps_the_mean() {
    let case = Case::load("lolm_plain_decoder");
    let mut spec = case.spec.clone();
    spec.lolm_mut().unwrap().dropout = 0.1;
    let g = build(&spec, &Program::Train { batch: case.batch(), seq: case.seq(), noise: Noise::Random }).unwrap();
    let mut feeds = case.feeds(&["tokens", "targets"]);
    let mut run = |step: f64| {
        feeds.insert("seed".into(), vec![7.0]);
        feeds.insert("step".into(), vec![step]);
        go(&g, &feeds).outputs["loss.tok"][0]
    };
    let clean = case.json["losses"]["tok"].as_f64().unwrap();
    let first = run(0.0);
    assert_eq!(first, run(0.0));
    assert_ne!(first, run(1.0));
    assert!((first - clean).abs() < 0.5, "{first} against {clean}");
}

#[test]
fn inputs_are_declared_where_they_are_used() {
    for case in CASES.map(Case::load) {
        let spec = &case.spec;
        for (program, forced) in [
            (Program::Forward { batch: 1, seq: 8, forced_gate: false }, false),
            (Program::Forward { batch: 1, seq: 8, forced_gate: true }, true),
            (Program::Eval { batch: 1, seq: 8 }, true),
            (Program::Step { slots: 2, tokens: 1 }, true),
            (Program::Score { tokens: 4 }, true),
        ] {
            let g = build(spec, &program).unwrap();
            let has = |name: &str| g.find_leaf(name).is_some_and(|l| g.leaf(l).kind == LeafKind::Input);
            assert_eq!(has("gate.force"), forced && spec.gate().is_some(), "{} {program:?}", case.name);
            assert_eq!(has("tau"), spec.regime().is_some());
            assert!(has("tokens") && !has("seed") && !has("step"));
            assert_eq!(has("pos"), program.goes_on());
            assert_eq!(has("targets"), matches!(program, Program::Eval { .. }));
        }
    }
}

#[test]
fn states_are_named_and_shaped() {
    let case = Case::load("lolm_full_mamba_ssm");
    let g = build(&case.spec, &Program::Step { slots: 3, tokens: 1 }).unwrap();
    let states = fresh_states(&g, &case.weights);
    let shape = |name: &str| g.leaf(g.find_leaf(name).unwrap()).shape(&g);
    for layer in 0..2 {
        assert_eq!(shape(&format!("kv.{layer}.k")), [3, 512, 32]);
        assert_eq!(shape(&format!("kv.{layer}.v")), [3, 512, 32]);
        assert_eq!(shape(&format!("ssm.{layer}.state")), [3, 64, 8]);
        assert_eq!(shape(&format!("ssm.{layer}.conv")), [3, 3, 64]);
    }
    for bank in 0..3 {
        assert_eq!(shape(&format!("memory.{bank}.m")), [3, 8, 24]);
    }
    assert_eq!(shape("memory.sum"), [3, 32]);
    assert_eq!(shape("regime.history"), [3, 6, 16]);
    assert_eq!(states.len(), 8 + 3 + 1 + 1);
}
