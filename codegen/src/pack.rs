//! Packs a module into an artifact: code of all kernels, one after another, and a manifest that says where each lies.
use crate::generators::{Claim, claim};
use crate::ptx::{self, Sm};
use crate::{CodegenError, Target, compile_scheduled, cpu, schedule};
use lolm_ir::artifact::{Block, CODE, KernelRecord, MANIFEST, Manifest, PTX, container, entry};
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
    pub kernels: Vec<KernelReport>,
    pub code_bytes: usize,
    pub manifest_bytes: usize,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelReport {
    pub name: String,
    pub code_bytes: usize,
    pub schedule: String,
    /// Which generator claimed the kernel.
    pub generator: &'static str,
}

/// The code of all kernels: a section, and where in it each lies.
struct Packed {
    section: String,
    code: Vec<u8>,
    features: Vec<String>,
    records: Vec<KernelRecord>,
    kernels: Vec<KernelReport>,
}

/// Compiles all kernels of a module for the CPU and packs the artifact. Equal modules give equal bytes.
pub fn compile(module: &Module, info: &Info) -> Result<Compiled, CodegenError> {
    compile_for(module, info, Target::Cpu)
}

/// The same for any target.
pub fn compile_for(module: &Module, info: &Info, target: Target) -> Result<Compiled, CodegenError> {
    let packed = match target {
        Target::Cpu => pack_cpu(&module.kernels)?,
        Target::Cuda(sm) => pack_cuda(&module.kernels, sm)?,
    };
    let manifest = Manifest {
        spec: info.spec.clone(),
        name: info.name.clone(),
        target: target.to_string(),
        features: packed.features,
        programs: module.plans.clone(),
        kernels: packed.records,
        params: module.params.clone(),
        states: module.states.clone(),
        tables: module.tables.clone(),
    };
    let manifest = postcard::to_stdvec(&manifest).map_err(|e| CodegenError::Manifest(e.to_string()))?;
    let report = Report { kernels: packed.kernels, code_bytes: packed.code.len(), manifest_bytes: manifest.len() };
    let hash = |data: &[u8]| *blake3::hash(data).as_bytes();
    let bytes = container::encode(&[(MANIFEST, &manifest), (&packed.section, &packed.code)], hash)?;
    Ok(Compiled { bytes, report })
}

fn pack_cpu(kernels: &[Kernel]) -> Result<Packed, CodegenError> {
    let one = |_: usize, k: &Kernel| {
        k.verify()?;
        compile_scheduled(k, schedule::schedule(k), false)
    };
    let (mut code, mut records, mut reports) = (vec![], vec![], vec![]);
    for (k, c) in kernels.iter().zip(&compile_all(kernels, one)?) {
        code.resize(code.len().next_multiple_of(ALIGN), TRAP);
        records.push(record(k, c.schedule.unit_dims(k), (code.len(), c.code.len()), None));
        reports.push(report(k, c.code.len(), c.schedule_text.clone(), "stream"));
        code.extend(&c.code);
    }
    let features = cpu::FEATURES.map(String::from).to_vec();
    Ok(Packed { section: CODE.into(), code, features, records, kernels: reports })
}

fn pack_cuda(kernels: &[Kernel], sm: Sm) -> Result<Packed, CodegenError> {
    let one = |i: usize, k: &Kernel| {
        k.verify()?;
        claim(k, &entry(i, &k.name))
    };
    let claims: Vec<Claim> = compile_all(kernels, one)?;
    let mut code = ptx::preamble(sm, claims.iter().map(|c| &c.code)).into_bytes();
    let (mut records, mut reports) = (vec![], vec![]);
    for (k, c) in kernels.iter().zip(&claims) {
        code.push(b'\n');
        records.push(record(k, c.code.unit_dims.clone(), (code.len(), c.code.text.len()), Some(c.code.block)));
        reports.push(report(k, c.code.text.len(), c.schedule.clone(), c.generator));
        code.extend(c.code.text.as_bytes());
    }
    Ok(Packed { section: format!("{PTX}{sm}"), code, features: vec![sm.to_string()], records, kernels: reports })
}

fn report(k: &Kernel, code_bytes: usize, schedule: String, generator: &'static str) -> KernelReport {
    KernelReport { name: k.name.clone(), code_bytes, schedule, generator }
}

fn record(k: &Kernel, unit_dims: Vec<u32>, (offset, len): (usize, usize), block: Option<Block>) -> KernelRecord {
    KernelRecord {
        name: k.name.clone(),
        offset: offset as u64,
        len: len as u64,
        units: unit_dims.iter().map(|n| *n as u64).product(),
        unit_dims,
        operands: k.operands.iter().map(|o| o.mode).collect(),
        block,
    }
}

/// The results stand in the order of the kernels, and so does the first error.
fn compile_all<T: Send>(
    kernels: &[Kernel],
    one: impl Fn(usize, &Kernel) -> Result<T, CodegenError> + Sync,
) -> Result<Vec<T>, CodegenError> {
    in_order(kernels.len(), |i| one(i, &kernels[i])).into_iter().collect()
}
