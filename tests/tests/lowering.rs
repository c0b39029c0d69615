//! Lowering keeps the meaning: the plans of the golden cases, run by the kernel interpreter, give PyTorch's numbers.
use lolm_models::{Noise, Program, build};
use lolm_passes::pipeline::{Goal, Source, compile};
use lolm_tests::golden::{CASES, Case, distance};
use lolm_tests::plan_interp::run;

fn module(case: &Case, program: Program, goal: Goal) -> lolm_ir::plan::Module {
    let graph = build(&case.spec, &program).unwrap();
    compile(&[Source { graph, goal }], &|_, _| ()).unwrap_or_else(|e| panic!("{}: {e}", case.name))
}

#[test]
fn forward_plans_give_the_golden_outputs() {
    for case in CASES.map(Case::load) {
        let m =
            module(&case, Program::Forward { batch: case.batch(), seq: case.seq(), forced_gate: false }, Goal::Forward);
        let (outputs, _) = run(&m, &m.plans[0], &case.feeds(&["tokens"]));
        for (name, (_, expected)) in case.io.iter().filter(|x| x.0.starts_with("eval.") && !x.0.contains('=')) {
            let found = &outputs[&name["eval.".len()..]];
            let d = distance(found, expected);
            assert!(d < 1e-5, "{} {name}: {d}", case.name);
        }
    }
}

#[test]
fn gradient_plans_give_the_golden_gradients() {
    for case in CASES.map(Case::load) {
        let p = Program::Train { batch: case.batch(), seq: case.seq(), noise: Noise::Input };
        let m = module(&case, p, Goal::Gradients);
        let (outputs, _) = run(&m, &m.plans[0], &case.feeds(&["tokens", "targets", "train.gumbel"]));
        for (name, (_, expected)) in case.gradients() {
            // A loss that this model lacks has heads without a gradient.
            let none = vec![0.0; expected.len()];
            let d = distance(outputs.get(&format!("grad.{name}")).unwrap_or(&none), &expected);
            assert!(d < 1e-4, "{} {name}: {d}", case.name);
        }
    }
}
