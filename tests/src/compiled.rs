//! Programs compiled for the CPU and loaded with a golden case's weights.
use crate::golden::Case;
use lolm_models::{Program, Spec, build};
use lolm_passes::pipeline::{Goal, Source, compile};
use lolm_runtime::{Artifact, Model};

/// A program of a spec under a name of its own.
pub fn source(spec: &Spec, name: &str, program: Program, goal: Goal) -> Source {
    let mut graph = build(spec, &program).unwrap_or_else(|e| panic!("{name}: {e}"));
    graph.name = name.into();
    Source { graph, goal }
}

/// The programs as machine code, with the weights of the case.
pub fn model(case: &Case, sources: &[Source], threads: usize) -> Model {
    let module = compile(sources, &|_, _| ()).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let info = lolm_codegen::Info { name: case.name.into(), spec: String::new() };
    let compiled = lolm_codegen::compile(&module, &info).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let mut model = Model::load(Artifact::from_bytes(compiled.bytes).unwrap(), threads).unwrap();
    let names: Vec<String> = model.params().slots().iter().map(|s| s.name.clone()).collect();
    for (slot, name) in names.iter().enumerate() {
        let weights = &case.weights[name].1;
        for (to, from) in model.param_mut(slot).iter_mut().zip(weights) {
            *to = *from as f32;
        }
    }
    model.reset_states();
    model
}
