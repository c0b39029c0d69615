//! Schedules and machine code: kernel to Cranelift code for the CPU or PTX for CUDA, packed into an artifact.
//!
//! A kernel is verified, [`schedule`] maps its axes to the machine, `stream` generates a loop nest over the small
//! [`emit::Emit`] trait, `cpu` or `ptx` turns that into code, and `pack` puts the code of all kernels into an artifact.
mod array;
pub mod cpu;
pub mod emit;
mod eval;
mod expand;
mod fold;
mod generators;
mod level;
mod machine;
mod nest;
mod pack;
mod partial;
mod place;
pub mod ptx;
pub mod schedule;
mod sink;
mod stream;
mod tail;
mod target;
mod team;

pub use generators::{Claim, claim};
pub use pack::{Compiled, Info, KernelReport, Report, compile, compile_for};
pub use target::{Target, UnknownTarget};

use lolm_ir::artifact::container::ContainerError;
use lolm_ir::kernel::Kernel;
use lolm_ir::kernel::verify::VerifyError;
use schedule::Schedule;

/// Why a module could not be compiled.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CodegenError {
    #[error(transparent)]
    Verify(#[from] VerifyError),
    #[error("kernel @{kernel}: {fail}")]
    Kernel { kernel: String, fail: String },
    #[error("the manifest cannot be written: {0}")]
    Manifest(String),
    #[error(transparent)]
    Container(#[from] ContainerError),
}

/// One compiled kernel, with everything that explains it.
#[derive(Clone, Debug)]
pub struct KernelCode {
    /// Position-independent code without relocations; its first byte is the entry.
    pub code: Vec<u8>,
    pub schedule: Schedule,
    /// The schedule, Cranelift's text and the assembly, for people.
    pub schedule_text: String,
    pub clif: String,
    pub asm: String,
}

/// Compiles one kernel with all its texts.
pub fn compile_kernel(k: &Kernel) -> Result<KernelCode, CodegenError> {
    k.verify()?;
    compile_scheduled(k, schedule::schedule(k), true)
}

/// Compiles a verified kernel under a schedule.
pub fn compile_scheduled(k: &Kernel, schedule: Schedule, texts: bool) -> Result<KernelCode, CodegenError> {
    let code = cpu::compile(k, &schedule, texts)
        .map_err(|e| CodegenError::Kernel { kernel: k.name.clone(), fail: e.to_string() })?;
    let schedule_text = schedule.display(k).to_string();
    Ok(KernelCode { code: code.bytes, schedule, schedule_text, clif: code.clif, asm: code.asm })
}
