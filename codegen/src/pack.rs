//! Packs a module into an artifact: code of all kernels, one after another, and a manifest that says where each lies.
use crate::{CodegenError, KernelCode, compile_scheduled, cpu, schedule};
use lolm_ir::artifact::{CODE, KernelRecord, MANIFEST, Manifest, container};
use lolm_ir::kernel::Kernel;
use lolm_ir::plan::Module;
use lolm_ir::threads::in_order;

/// Kernels start at multiples of this in the code section, which is a cache line.
const ALIGN: usize = 64;
/// Fills the gaps between kernels: an instruction that traps.
const TRAP: u8 = 0xcc;

/// What the artifact says about itself beyond the module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Info {
    pub name: String,
    /// The spec as it was compiled, TOML.
    pub spec: String,
}

/// An artifact, and what it was made of.
#[derive(Clone, PartialEq, Debug)]
pub struct Compiled {
    pub bytes: Vec<u8>,
    pub report: Report,
}

/// Sizes and schedules, in the order of the module's kernels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Name, bytes of code, schedule.
    pub kernels: Vec<(String, usize, String)>,
    pub code_bytes: usize,
    pub manifest_bytes: usize,
}

/// Compiles all kernels of a module and packs the artifact. Equal modules give equal bytes.
pub fn compile(module: &Module, info: &Info) -> Result<Compiled, CodegenError> {
    let codes = compile_all(&module.kernels)?;
    let (mut code, mut records, mut kernels) = (vec![], vec![], vec![]);
    for (k, c) in module.kernels.iter().zip(&codes) {
        code.resize(code.len().next_multiple_of(ALIGN), TRAP);
        records.push(record(k, c, code.len()));
        kernels.push((k.name.clone(), c.code.len(), c.schedule_text.clone()));
        code.extend(&c.code);
    }
    let manifest = Manifest {
        spec: info.spec.clone(),
        name: info.name.clone(),
        target: "x86-64-v3".into(),
        features: cpu::FEATURES.map(String::from).to_vec(),
        programs: module.plans.clone(),
        kernels: records,
        params: module.params.clone(),
        states: module.states.clone(),
        tables: module.tables.clone(),
    };
    let manifest = postcard::to_stdvec(&manifest).map_err(|e| CodegenError::Manifest(e.to_string()))?;
    let report = Report { kernels, code_bytes: code.len(), manifest_bytes: manifest.len() };
    let hash = |data: &[u8]| *blake3::hash(data).as_bytes();
    let bytes = container::encode(&[(MANIFEST, &manifest), (CODE, &code)], hash)?;
    Ok(Compiled { bytes, report })
}

fn record(k: &Kernel, c: &KernelCode, offset: usize) -> KernelRecord {
    let unit_dims = c.schedule.unit_dims(k);
    KernelRecord {
        name: k.name.clone(),
        offset: offset as u64,
        len: c.code.len() as u64,
        units: unit_dims.iter().map(|n| *n as u64).product(),
        unit_dims,
        operands: k.operands.len() as u32,
        block: None,
    }
}

/// The results stand in the order of the kernels, and so does the first error.
fn compile_all(kernels: &[Kernel]) -> Result<Vec<KernelCode>, CodegenError> {
    let one = |k: &Kernel| {
        k.verify()?;
        compile_scheduled(k, schedule::schedule(k), false)
    };
    in_order(kernels.len(), |i| one(&kernels[i])).into_iter().collect()
}
