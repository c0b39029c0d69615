//! Compiled for the CPU, the golden cases give PyTorch's outputs, losses, gradients and trajectory.
use lolm_models::{Noise, Program};
use lolm_passes::optimizer::AdamW;
use lolm_passes::pipeline::Goal;
use lolm_runtime::{Data, Model, Tensor};
use lolm_tests::compiled::{model, source};
use lolm_tests::golden::{CASES, Case, distance};
use std::collections::BTreeMap;

/// The inputs that a program has, from the case's tensors and these scalars.
fn inputs(model: &Model, case: &Case, program: &str, scalars: &[(&str, f64)]) -> Vec<(String, Tensor)> {
    let plan = model.plan(model.program(program).unwrap());
    let ports = plan.inputs.iter().map(|p| {
        let data = match scalars.iter().find(|s| s.0 == p.name) {
            Some(s) => vec![s.1],
            None if p.name == "tau" => vec![case.tau()],
            None => case.io[&p.name].1.clone(),
        };
        let t = match p.dtype {
            lolm_ir::DType::I32 => Tensor::i32(&p.shape, data.iter().map(|x| *x as i32).collect()),
            _ => Tensor::f32(&p.shape, data.iter().map(|x| *x as f32).collect()),
        };
        (p.name.clone(), t)
    });
    ports.collect()
}

fn call(model: &mut Model, case: &Case, program: &str, scalars: &[(&str, f64)]) -> BTreeMap<String, Vec<f64>> {
    let given = inputs(model, case, program, scalars);
    let given: Vec<(&str, Tensor)> = given.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
    let out = model.call(program, &given).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let wide = |t: &Tensor| match &t.data {
        Data::F32(x) => x.iter().map(|v| *v as f64).collect(),
        Data::I32(x) => x.iter().map(|v| *v as f64).collect(),
        other => panic!("an output of {other:?}"),
    };
    out.iter().map(|(n, t)| (n.clone(), wide(t))).collect()
}

fn shape(case: &Case) -> (usize, usize) {
    (case.batch(), case.seq())
}

#[test]
fn outputs_agree() {
    for case in CASES.map(Case::load) {
        let (batch, seq) = shape(&case);
        let mut m = model(
            &case,
            &[source(&case.spec, "forward", Program::Forward { batch, seq, forced_gate: false }, Goal::Forward)],
            2,
        );
        let out = call(&mut m, &case, "forward", &[]);
        for (name, (_, expected)) in case.io.iter().filter(|x| x.0.starts_with("eval.") && !x.0.contains('=')) {
            let d = distance(&out[&name["eval.".len()..]], expected);
            assert!(d <= 1e-4, "{} {name}: {d}", case.name);
        }
    }
}

#[test]
fn losses_and_gradients_agree() {
    for case in CASES.map(Case::load) {
        let (batch, seq) = shape(&case);
        let program = Program::Train { batch, seq, noise: Noise::Input };
        let mut m = model(&case, &[source(&case.spec, "grad", program, Goal::Gradients)], 2);
        let out = call(&mut m, &case, "grad", &[]);
        for (part, expected) in case.json["losses"].as_object().unwrap() {
            let d = distance(&out[&format!("loss.{part}")], &[expected.as_f64().unwrap()]);
            assert!(d <= 1e-4, "{} loss {part}: {d}", case.name);
        }
        for (name, (_, expected)) in case.gradients() {
            let none = vec![0.0; expected.len()];
            let d = distance(out.get(&format!("grad.{name}")).unwrap_or(&none), &expected);
            assert!(d <= 1e-3, "{} gradient of {name}: {d}", case.name);
        }
    }
}

#[test]
fn five_steps_agree() {
    for case in CASES.map(Case::load) {
        let (batch, seq) = shape(&case);
        let o = &case.spec.optimizer;
        let clip = Some(o.clip);
        let adamw = AdamW {
            beta1: o.betas[0],
            beta2: o.betas[1],
            eps: 1e-8,
            weight_decay: o.weight_decay,
            clip,
            skip_above: 1000.0,
        };
        let program = Program::Train { batch, seq, noise: Noise::Input };
        let mut m = model(&case, &[source(&case.spec, "train", program, Goal::Train(adamw))], 2);
        for (step, expected) in case.json["trajectory"].as_array().unwrap().iter().enumerate() {
            let out = call(&mut m, &case, "train", &[("lr", o.lr)]);
            for (name, key) in [("loss.total", "loss"), ("grad_norm", "grad_norm")] {
                if let Some(x) = expected[key].as_f64() {
                    let d = distance(&out[name], &[x]);
                    assert!(d <= 1e-3, "{} step {step} {name}: {d}", case.name);
                }
            }
        }
    }
}
