//! Programs compiled for a machine and loaded with a golden case's weights.
use crate::golden::Case;
use lolm_codegen::{Info, Target};
use lolm_models::{Program, Spec, build};
use lolm_passes::pipeline::{self, Goal, Options, Source, compile_with};
use lolm_runtime::cuda::emulator::Emulator;
use lolm_runtime::{Artifact, Model};
use std::sync::Arc;

/// A program of a spec under a name of its own.
pub fn source(spec: &Spec, name: &str, program: Program, goal: Goal) -> Source {
    let mut graph = build(spec, &program).unwrap_or_else(|e| panic!("{name}: {e}"));
    graph.name = name.into();
    Source { graph, goal }
}

/// The programs as machine code, with the weights of the case.
pub fn model(case: &Case, sources: &[Source], threads: usize) -> Model {
    let artifact = artifact(case, sources, Options::default(), Target::Cpu);
    filled(case, Model::load(artifact, threads).unwrap())
}

/// The programs as PTX on an emulated GPU, with the weights of the case.
pub fn emulated(case: &Case, sources: &[Source], options: Options) -> Model {
    let artifact = artifact(case, sources, options, "cuda".parse().unwrap());
    let model = Model::load_on(artifact, Arc::new(Emulator::default()));
    filled(case, model.unwrap_or_else(|e| panic!("{}: {e}", case.name)))
}

/// An artifact that is loaded several times.
pub struct Bytes {
    data: Vec<u8>,
    on_gpu: bool,
}

impl Bytes {
    /// The programs, compiled for the CPU or for a GPU.
    pub fn new(case: &Case, sources: &[Source], options: Options) -> Bytes {
        let on_gpu = options.target == pipeline::Target::Gpu;
        let target = if on_gpu { "cuda".parse().unwrap() } else { Target::Cpu };
        Bytes { data: bytes(case, sources, options, target), on_gpu }
    }

    /// A model with this many rows and the weights of the case, on the CPU or on an emulated GPU.
    pub fn load(&self, case: &Case, rows: usize) -> Model {
        let artifact = Artifact::from_bytes(self.data.clone()).unwrap();
        let model = match self.on_gpu {
            true => Model::load_rows_on(artifact, Arc::new(Emulator::default()), rows),
            false => Model::load_rows(artifact, 2, rows),
        };
        filled(case, model.unwrap_or_else(|e| panic!("{}: {e}", case.name)))
    }
}

fn artifact(case: &Case, sources: &[Source], options: Options, target: Target) -> Artifact {
    Artifact::from_bytes(bytes(case, sources, options, target)).unwrap()
}

fn bytes(case: &Case, sources: &[Source], options: Options, target: Target) -> Vec<u8> {
    let module = compile_with(sources, options, &|_, _| ()).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let info = Info { name: case.name.into(), spec: String::new() };
    let compiled = lolm_codegen::compile_for(&module, &info, target).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    compiled.bytes
}

fn filled(case: &Case, mut model: Model) -> Model {
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
