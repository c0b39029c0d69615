//! A module's first plan as machine code on this CPU, or as PTX on an emulated GPU, run like `plan_interp` runs it.
use crate::plan_interp::Named;
use lolm_codegen::ptx::Sm;
use lolm_codegen::{Info, Target};
use lolm_ir::DType;
use lolm_ir::plan::Module;
use lolm_runtime::cuda::emulator::Emulator;
use lolm_runtime::{Artifact, Data, Model, Tensor};
use std::sync::Arc;

/// Compiles the module for the CPU, runs its first plan on parameters, states and inputs by name, and gives its outputs,
/// and parameters and states afterwards.
pub fn run(m: &Module, given: &Named, threads: usize) -> Result<(Named, Named), String> {
    let model = Model::load(artifact(m, Target::Cpu)?, threads).map_err(|e| e.to_string())?;
    answers(model, m, given)
}

/// The same for a module that was lowered for a GPU.
pub fn run_emulated(m: &Module, given: &Named) -> Result<(Named, Named), String> {
    let artifact = artifact(m, Target::Cuda(Sm::Sm80))?;
    let model = Model::load_on(artifact, Arc::new(Emulator::default())).map_err(|e| e.to_string())?;
    answers(model, m, given)
}

fn artifact(m: &Module, target: Target) -> Result<Artifact, String> {
    let info = Info { name: "test".into(), spec: String::new() };
    let compiled = lolm_codegen::compile_for(m, &info, target).map_err(|e| e.to_string())?;
    Artifact::from_bytes(compiled.bytes).map_err(|e| e.to_string())
}

fn answers(mut model: Model, m: &Module, given: &Named) -> Result<(Named, Named), String> {
    let slots = model.params().slots().to_vec();
    for (i, s) in slots.iter().enumerate() {
        let from = content(given, &s.name, s.len);
        model.write_param(i, 0, from.into_iter().map(|x| x as f32));
    }
    let slots = model.states().slots().to_vec();
    for (i, s) in slots.iter().enumerate() {
        let bytes: Vec<u8> = content(given, &s.name, s.len).iter().flat_map(|x| bytes(*x, s.dtype)).collect();
        model.state_bytes_mut(i).copy_from_slice(&bytes);
    }
    let plan = &m.plans[0];
    let ports = plan.inputs.iter().map(|p| {
        let x = content(given, &p.name, p.shape.iter().product());
        (p.name.as_str(), tensor(&p.shape, p.dtype, &x))
    });
    let outputs = model.call(&plan.program, &ports.collect::<Vec<_>>()).map_err(|e| e.to_string())?;
    let outputs = outputs.iter().map(|(n, t)| (n.clone(), wide(t))).collect();
    let all = |s: lolm_runtime::tensors::Tensors| {
        (0..s.slots().len()).map(|i| (s.slots()[i].name.clone(), wide(&s.get(i)))).collect::<Named>()
    };
    let mut after = all(model.params());
    after.extend(all(model.states()));
    Ok((outputs, after))
}

fn content(given: &Named, name: &str, len: usize) -> Vec<f64> {
    given.get(name).cloned().unwrap_or_else(|| vec![0.0; len])
}

/// The upper half of an f32; the value is one that bf16 has.
fn half(x: f64) -> u16 {
    ((x as f32).to_bits() >> 16) as u16
}

fn bytes(x: f64, dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F32 => (x as f32).to_le_bytes().to_vec(),
        DType::I32 => (x as i32).to_le_bytes().to_vec(),
        DType::Bf16 => half(x).to_le_bytes().to_vec(),
        DType::Bool => vec![(x != 0.0) as u8],
    }
}

fn tensor(shape: &[usize], dtype: DType, x: &[f64]) -> Tensor {
    let data = match dtype {
        DType::F32 => Data::F32(x.iter().map(|x| *x as f32).collect()),
        DType::I32 => Data::I32(x.iter().map(|x| *x as i32).collect()),
        DType::Bf16 => Data::Bf16(x.iter().map(|x| half(*x)).collect()),
        DType::Bool => Data::Bool(x.iter().map(|x| (*x != 0.0) as u8).collect()),
    };
    Tensor { shape: shape.to_vec(), data }
}

fn wide(t: &Tensor) -> Vec<f64> {
    match &t.data {
        Data::F32(x) => x.iter().map(|x| *x as f64).collect(),
        Data::I32(x) => x.iter().map(|x| *x as f64).collect(),
        Data::Bf16(x) => x.iter().map(|x| f32::from_bits((*x as u32) << 16) as f64).collect(),
        Data::Bool(x) => x.iter().map(|x| *x as f64).collect(),
    }
}
