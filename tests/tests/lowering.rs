//! Lowering keeps the meaning: the plans of the golden cases for each target, run by the kernel interpreter, give
//! PyTorch's numbers.
use lolm_ir::plan::{Module, Span, Stage, Step};
use lolm_models::{Noise, Program, build};
use lolm_passes::pipeline::{Goal, Options, Source, Target, compile_with};
use lolm_tests::golden::{CASES, Case, distance};
use lolm_tests::plan_interp::run;

fn module(case: &Case, program: Program, goal: Goal, target: Target) -> Module {
    let graph = build(&case.spec, &program).unwrap();
    let options = Options { target, ..Options::default() };
    compile_with(&[Source { graph, goal }], options, &|_, _| ()).unwrap_or_else(|e| panic!("{}: {e}", case.name))
}

#[test]
fn forward_plans_give_the_golden_outputs() {
    outputs(Target::Cpu);
}
#[test]
fn forward_plans_of_a_gpu_give_the_golden_outputs() {
    outputs(Target::Gpu);
}

fn outputs(target: Target) {
    for case in CASES.map(Case::load) {
        let m = module(
            &case,
            Program::Forward { batch: case.batch(), seq: case.seq(), forced_gate: false },
            Goal::Forward,
            target,
        );
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
    gradients(Target::Cpu);
}
#[test]
fn gradient_plans_of_a_gpu_give_the_golden_gradients() {
    gradients(Target::Gpu);
}

/// A launch of a GPU is one kernel over its own units, on whole buffers.
#[test]
fn launches_of_a_gpu_are_single_kernels() {
    for case in CASES.map(Case::load) {
        let p = Program::Train { batch: case.batch(), seq: case.seq(), noise: Noise::Input };
        let m = module(&case, p, Goal::Gradients, Target::Gpu);
        for step in &m.plans[0].steps {
            let Step::Launch(l) = step else { panic!("{}: a loop", case.name) };
            let [Stage::Kernel(k)] = l.stages.as_slice() else { panic!("{} {}: stages", case.name, l.name) };
            assert!(l.grid.is_empty() && k.span == Span::Same, "{} {}", case.name, l.name);
        }
    }
}

fn gradients(target: Target) {
    for case in CASES.map(Case::load) {
        let p = Program::Train { batch: case.batch(), seq: case.seq(), noise: Noise::Input };
        let m = module(&case, p, Goal::Gradients, target);
        let (outputs, _) = run(&m, &m.plans[0], &case.feeds(&["tokens", "targets", "train.gumbel"]));
        for (name, (_, expected)) in case.gradients() {
            // A loss that this model lacks has heads without a gradient.
            let none = vec![0.0; expected.len()];
            let d = distance(outputs.get(&format!("grad.{name}")).unwrap_or(&none), &expected);
            assert!(d < 1e-4, "{} {name}: {d}", case.name);
        }
    }
}
