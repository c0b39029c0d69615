//! The loss of a head is computed with its gradient, from the same logits, whatever else a model's loss is made of.
use lolm_ir::plan::{Kind, Launch, Step};
use lolm_models::{Noise, Program, build};
use lolm_passes::pipeline::{Goal, Options, Source, Target, compile_with};

fn head_launches(family: &str, target: Target) -> Vec<String> {
    let spec = lolm_models::spec::library(&format!("{family}-demo")).unwrap().unwrap();
    let graph = build(&spec, &Program::Train { batch: 2, seq: 64, noise: Noise::Random }).unwrap();
    let options = Options { target, ..Options::default() };
    let m = compile_with(&[Source { graph, goal: Goal::Gradients }], options, &|_, _| ()).unwrap();
    let launches = |s: &Step| match s {
        Step::Launch(l) => vec![l.clone()],
        Step::Repeat { body, .. } => body.clone(),
    };
    let all: Vec<Launch> = m.plans[0].steps.iter().flat_map(launches).collect();
    all.into_iter().filter(|l| l.kind == Kind::CrossEntropy).map(|l| l.name).collect()
}

/// Logits, what is made of them, and the two products that go back: nothing computes the logits for the loss alone.
#[test]
fn losses_are_computed_with_their_gradients() {
    for family in ["lolm", "transformer", "mamba", "jamba", "griffin", "samba"] {
        for target in [Target::Cpu, Target::Gpu] {
            let names = head_launches(family, target);
            assert_eq!(names.len(), 4, "{family}, {target:?}: {names:?}");
        }
    }
}
