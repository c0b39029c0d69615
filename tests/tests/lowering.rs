//! Lowering keeps the meaning: the plans of the golden cases for each target, run by the kernel interpreter, give
//! PyTorch's numbers.
use lolm_ir::plan::{Module, Span, Stage, Step};
use lolm_models::spec::{Override, library_with};
use lolm_models::{Noise, Program, build};
use lolm_passes::pipeline::{Goal, Options, Precision, Source, Target, Weights, compile_with};
use lolm_tests::golden::{CASES, Case, distance};
use lolm_tests::golden_checks::bf16_bound;
use lolm_tests::plan_interp::run;

const CPU: Options = Options { weights: Weights::F32, target: Target::Cpu, precision: Precision::F32 };
const GPU: Options = Options { target: Target::Gpu, ..CPU };
const GPU_BF16: Options = Options { precision: Precision::Bf16, ..GPU };

fn module(case: &Case, program: Program, goal: Goal, options: Options) -> Module {
    let graph = build(&case.spec, &program).unwrap();
    compile_with(&[Source { graph, goal }], options, &|_, _| ()).unwrap_or_else(|e| panic!("{}: {e}", case.name))
}

#[test]
fn forward_plans_give_the_golden_outputs() {
    outputs(CPU, &|_, _| 1e-5);
}
#[test]
fn forward_plans_of_a_gpu_give_the_golden_outputs() {
    outputs(GPU, &|_, _| 1e-5);
}

fn outputs(options: Options, bound: &dyn Fn(&str, &str) -> f64) {
    for case in CASES.map(Case::load) {
        let m = module(
            &case,
            Program::Forward { batch: case.batch(), seq: case.seq(), forced_gate: false },
            Goal::Forward,
            options,
        );
        let (outputs, _) = run(&m, &m.plans[0], &case.feeds(&["tokens"]));
        for (name, (_, expected)) in case.io.iter().filter(|x| x.0.starts_with("eval.") && !x.0.contains('=')) {
            let found = &outputs[&name["eval.".len()..]];
            let d = distance(found, expected);
            assert!(d < bound(case.name, name), "{} {name}: {d}", case.name);
        }
    }
}

#[test]
fn gradient_plans_give_the_golden_gradients() {
    gradients(CPU, 1e-4);
}
#[test]
fn gradient_plans_of_a_gpu_give_the_golden_gradients() {
    gradients(GPU, 1e-4);
}

/// Products of bf16 round their operands and nothing else: outputs are within 2e-2, or about as near as PyTorch's are.
#[test]
fn forward_plans_in_bf16_are_near_the_golden_outputs() {
    outputs(GPU_BF16, &bf16_bound);
}

/// A mean over tokens averages the rounding out. Parts that are differences of larger numbers are held to the whole.
#[test]
fn losses_in_bf16_are_near_the_golden_losses() {
    for case in CASES.map(Case::load) {
        let p = Program::Train { batch: case.batch(), seq: case.seq(), noise: Noise::Input };
        let m = module(&case, p, Goal::Gradients, GPU_BF16);
        let (outputs, _) = run(&m, &m.plans[0], &case.feeds(&["tokens", "targets", "train.gumbel"]));
        let losses = case.json["losses"].as_object().unwrap();
        let whole = losses["total"].as_f64().unwrap();
        for (part, expected) in losses {
            let d = (outputs[&format!("loss.{part}")][0] - expected.as_f64().unwrap()).abs() / whole;
            assert!(d < 1e-2, "{} {part}: {d}", case.name);
        }
    }
}

/// A launch of a GPU is one kernel over its own units, alone or in a loop.
#[test]
fn launches_of_a_gpu_are_single_kernels() {
    for case in CASES.map(Case::load) {
        let p = Program::Train { batch: case.batch(), seq: case.seq(), noise: Noise::Input };
        let m = module(&case, p, Goal::Gradients, GPU);
        for step in &m.plans[0].steps {
            let launches = match step {
                Step::Launch(l) => std::slice::from_ref(l),
                Step::Repeat { body, .. } => body,
            };
            for l in launches {
                let [Stage::Kernel(k)] = l.stages.as_slice() else { panic!("{} {}: stages", case.name, l.name) };
                assert!(l.grid.is_empty() && k.span == Span::Same, "{} {}", case.name, l.name);
            }
        }
    }
}

fn gradients(options: Options, bound: f64) {
    for case in CASES.map(Case::load) {
        let p = Program::Train { batch: case.batch(), seq: case.seq(), noise: Noise::Input };
        let m = module(&case, p, Goal::Gradients, options);
        let (outputs, _) = run(&m, &m.plans[0], &case.feeds(&["tokens", "targets", "train.gumbel"]));
        for (name, (_, expected)) in case.gradients() {
            // A loss that this model lacks has heads without a gradient.
            let none = vec![0.0; expected.len()];
            let d = distance(outputs.get(&format!("grad.{name}")).unwrap_or(&none), &expected);
            assert!(d < bound, "{} {name}: {d}", case.name);
        }
    }
}

/// Who makes a kernel of this name, where it is not the generator of all that is left.
fn maker(name: &str) -> Option<&'static str> {
    let parts = ["attention_delta_", "section_"];
    let makers = [("attention_grad_", "attention_grad"), ("attention_", "attention")];
    let scans = [("selective_scan_grad_", "scan_grad"), ("selective_scan_", "scan")];
    let found = makers.into_iter().chain(scans).find(|(start, _)| name.starts_with(start));
    found.filter(|_| parts.iter().all(|p| !name.contains(p))).map(|(_, maker)| maker)
}

/// Attention, scans and their gradients have generators of their own, in prompts and where tokens are decoded one by one,
/// in f32 and in bf16.
#[test]
fn attentions_and_scans_of_a_gpu_are_made_by_their_generators() {
    let mut found = std::collections::BTreeMap::new();
    for case in CASES.map(Case::load) {
        let forward = Program::Forward { batch: case.batch(), seq: case.seq(), forced_gate: false };
        let train = Program::Train { batch: case.batch(), seq: case.seq(), noise: Noise::Input };
        let step = Program::Step { slots: 2, tokens: 1 };
        let of = |program: &Program, goal, options| module(&case, *program, goal, options).kernels;
        let forward = [GPU, GPU_BF16].map(|o| of(&forward, Goal::Forward, o));
        let train = [GPU, GPU_BF16].map(|o| of(&train, Goal::Gradients, o));
        for k in [forward, train].concat().into_iter().chain([of(&step, Goal::Forward, GPU)]).flatten() {
            if let Some(expected) = maker(&k.name) {
                assert_eq!(lolm_codegen::claim(&k, "k").unwrap().generator, expected, "{}: {k}", case.name);
                *found.entry(expected).or_insert(0) += 1;
            }
        }
    }
    assert_eq!(found.len(), 4, "{found:?}");
}

/// A training step on a long sequence never has a matrix of all scores in memory.
#[test]
fn attention_takes_no_memory_for_all_scores() {
    const T: u64 = 2048;
    let keys =
        [("max_seq_len", T), ("training.seq", T), ("training.batch", 1)].map(|(k, n)| Override::new(k, n.to_string()));
    let spec = library_with("transformer-demo", &keys).unwrap().unwrap();
    let program = Program::Train { batch: 1, seq: T as usize, noise: Noise::Random };
    for precision in [Precision::F32, Precision::Bf16] {
        let source = Source { graph: build(&spec, &program).unwrap(), goal: Goal::Gradients };
        let m = compile_with(&[source], Options { precision, ..GPU }, &|_, _| ()).unwrap();
        assert!(m.kernels.iter().any(|k| k.name.starts_with("attention_grad_")));
        for b in &m.plans[0].buffers {
            assert!(b.len % (T * T) != 0, "{precision:?}: `{}` has {} elements", b.name, b.len);
        }
    }
}
