//! The text of plans and modules, on real ones: what compiles, of golden cases and of the library's specs, reads back.
use lolm_ir::plan::Module;
use lolm_ir::plan::text;
use lolm_models::spec::{LIBRARY, library};
use lolm_models::{Noise, Program, Spec, build};
use lolm_passes::optimizer::AdamW;
use lolm_passes::pipeline::{Goal, Source, compile};
use lolm_tests::golden::{CASES, Case};

fn module(spec: &Spec, programs: &[(Program, Goal)]) -> Module {
    let source = |(p, goal): &(Program, Goal)| Source { graph: build(spec, p).unwrap(), goal: *goal };
    let sources: Vec<Source> = programs.iter().map(source).collect();
    compile(&sources, &|_, _| ()).unwrap()
}

fn reads_back(name: &str, m: &Module) {
    let printed = text::print_module(m);
    let read = text::parse_module(&printed).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(read == *m, "{name}: the module reads back as another one");
    for p in &m.plans {
        assert!(text::parse(&text::print(p)).as_ref() == Ok(p), "{name}: {} reads back as another plan", p.program);
    }
}

fn adamw(spec: &Spec) -> Goal {
    let o = &spec.optimizer;
    Goal::Train(AdamW {
        beta1: o.betas[0],
        beta2: o.betas[1],
        eps: o.eps,
        weight_decay: o.weight_decay,
        clip: Some(o.clip),
        skip_above: spec.training.loss_limit,
    })
}

#[test]
fn plans_of_the_golden_cases_read_back() {
    for case in CASES.map(Case::load) {
        let (batch, seq) = (case.batch(), case.seq());
        let programs = [
            (Program::Forward { batch, seq, forced_gate: false }, Goal::Forward),
            (Program::Train { batch, seq, noise: Noise::Input }, Goal::Gradients),
        ];
        reads_back(case.name, &module(&case.spec, &programs));
    }
}

#[test]
fn plans_of_the_library_read_back() {
    for (name, _) in LIBRARY {
        let spec = library(name).unwrap().unwrap();
        let seq = spec.max_seq_len.min(256);
        let programs = [
            (Program::Train { batch: 2, seq, noise: Noise::Random }, adamw(&spec)),
            (Program::Eval { batch: 1, seq }, Goal::Forward),
            (Program::Step { slots: 2, tokens: 16 }, Goal::Forward),
            (Program::Step { slots: 2, tokens: 1 }, Goal::Forward),
        ];
        reads_back(name, &module(&spec, &programs));
    }
}
