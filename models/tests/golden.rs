//! The graphs, run by the interpreter, say what the published equations say: outputs, forced gates and losses of the
//! golden cases, which PyTorch made in f64 and which are stored in f32.
mod common;
use common::{CASES, Case, distance, go};
use lolm_models::{Noise, Program, build};

/// Stored f32 values are off by up to 6e-8 of themselves.
const TOLERANCE: f64 = 1e-6;

fn forward(case: &Case, forced_gate: bool) -> lolm_ir::Graph {
    build(&case.spec, &Program::Forward { batch: case.batch(), seq: case.seq(), forced_gate }).unwrap()
}

#[test]
fn outputs_agree() {
    for case in CASES.map(Case::load) {
        let g = forward(&case, false);
        let out = go(&g, &case.feeds(&["tokens"])).outputs;
        let mut seen = 0;
        for (name, (shape, want)) in &case.io {
            let Some(name) = name.strip_prefix("eval.").filter(|n| !n.contains("gate=")) else { continue };
            let dims = &g.find_output(name).unwrap_or_else(|| panic!("{}: no output {name}", case.name)).dims;
            let lens: Vec<usize> = dims.iter().map(|d| d.iter().map(|a| g.len(*a)).product()).collect();
            assert_eq!(lens, *shape, "{}: {name}", case.name);
            let error = distance(&out[name], want);
            assert!(error < TOLERANCE, "{}: {name} is off by {error:e}", case.name);
            seen += 1;
        }
        assert_eq!(seen, out.len(), "{}: every output is compared", case.name);
    }
}

#[test]
fn forced_gates_agree() {
    for case in CASES.map(Case::load).into_iter().filter(|c| c.spec.gate().is_some()) {
        let g = forward(&case, true);
        let learned = ("eval.logits".to_string(), -1.0);
        let forced = [0.0, 0.5, 1.0].map(|f| (format!("eval.logits.gate={f:?}"), f));
        for (name, force) in forced.into_iter().chain([learned]) {
            let mut feeds = case.feeds(&["tokens"]);
            feeds.insert("gate.force".into(), vec![force]);
            let error = distance(&go(&g, &feeds).outputs["logits"], &case.io[&name].1);
            assert!(error < TOLERANCE, "{}: {name} is off by {error:e}", case.name);
        }
    }
}

#[test]
fn losses_agree() {
    for case in CASES.map(Case::load) {
        let program = Program::Train { batch: case.batch(), seq: case.seq(), noise: Noise::Input };
        let g = build(&case.spec, &program).unwrap();
        let out = go(&g, &case.feeds(&["tokens", "targets", "train.gumbel"])).outputs;
        let want = case.json["losses"].as_object().unwrap();
        for (part, x) in want {
            let error = distance(&out[&format!("loss.{part}")], &[x.as_f64().unwrap()]);
            assert!(error < TOLERANCE, "{}: loss.{part} is off by {error:e}", case.name);
        }
        let parts = out.keys().filter(|k| k.starts_with("loss.")).count();
        assert_eq!(parts, want.len(), "{}: every part is compared", case.name);
    }
}

#[test]
fn weights_are_the_checkpoints() {
    for case in CASES.map(Case::load) {
        let mut listed = lolm_models::parameters(&case.spec).unwrap();
        listed.extend(lolm_models::loss_parameters(&case.spec).unwrap());
        for (name, shape) in &listed {
            assert_eq!(Some(shape), case.weights.get(name).map(|w| &w.0), "{}: {name}", case.name);
        }
        let named: Vec<_> = listed.iter().map(|(n, _)| n).collect();
        let unused = case.weights.keys().filter(|k| !named.contains(k));
        // Without a latent path the heads of the contrastive loss see nothing, and the graph leaves them out.
        assert!(unused.into_iter().all(|k| k.starts_with("loss.cpc_") && case.spec.ssm().is_none()), "{}", case.name);
    }
}
