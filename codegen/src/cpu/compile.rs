//! From a scheduled kernel to machine code: `extern "C" fn(operands: *const *mut u8, begin: i64, end: i64)`.
use super::clif::Clif;
use crate::eval::Fail;
use crate::schedule::Schedule;
use crate::stream::stream;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{AbiParam, Signature};
use cranelift_codegen::isa::{CallConv, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_codegen::{Context, verify_function};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use lolm_ir::kernel::Kernel;

/// What the code needs of the processor, x86-64-v3, as `is_x86_feature_detected` names it.
pub const FEATURES: [&str; 11] =
    ["lzcnt", "sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "avx", "avx2", "fma", "bmi1", "bmi2"];

/// One kernel's machine code, and the same as Cranelift's text and as assembly.
#[derive(Clone, Debug)]
pub struct Code {
    pub bytes: Vec<u8>,
    pub clif: String,
    pub asm: String,
}

/// Compiles a verified kernel under a schedule. The texts are made only if wanted.
pub fn compile(k: &Kernel, s: &Schedule, texts: bool) -> Result<Code, Fail> {
    let backend = |what: &str, e: String| Fail::Bug(format!("{what}: {e}"));
    let isa = target().map_err(|e| backend("target", e))?;
    let mut ctx = Context::new();
    ctx.set_disasm(texts);
    ctx.func.signature = Signature::new(CallConv::SystemV);
    ctx.func.signature.params.extend([AbiParam::new(I64); 3]);
    let mut frontend = FunctionBuilderContext::new();
    let mut b = FunctionBuilder::new(&mut ctx.func, &mut frontend);
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let params = b.block_params(entry).to_vec();
    // Ranges may add guards of their own, so ask for the memory whenever either is there.
    let guards = k.values.iter().any(|v| v.access().is_some_and(|(_, view)| view.guard.is_some()))
        || k.axes.iter().any(|a| a.lo.is_some() || a.hi.is_some());
    let mut c = Clif::new(b, &params, k.operands.len(), guards);
    stream(k, s, &mut c)?;
    c.b.seal_all_blocks();
    c.b.finalize(isa.frontend_config());
    if cfg!(debug_assertions) {
        verify_function(&ctx.func, &*isa).map_err(|e| backend("ill-formed code", format!("{e}\n{}", ctx.func)))?;
    }
    let clif = if texts { ctx.func.display().to_string() } else { String::new() };
    let compiled =
        ctx.compile(&*isa, &mut ControlPlane::default()).map_err(|e| backend("no code", format!("{:?}", e.inner)))?;
    if !compiled.buffer.relocs().is_empty() {
        return Err(Fail::Bug("the code has relocations".into()));
    }
    let asm = compiled.vcode.clone().unwrap_or_default();
    Ok(Code { bytes: compiled.code_buffer().to_vec(), clif, asm })
}

fn target() -> Result<OwnedTargetIsa, String> {
    let mut flags = settings::builder();
    for (name, value) in [("opt_level", "speed"), ("is_pic", "true"), ("unwind_info", "false")] {
        flags.set(name, value).map_err(|e| e.to_string())?;
    }
    let mut isa = cranelift_codegen::isa::lookup_by_name("x86_64-unknown-linux-gnu").map_err(|e| e.to_string())?;
    for f in ["sse3", "ssse3", "sse41", "sse42", "popcnt", "avx", "avx2", "fma", "bmi1", "bmi2", "lzcnt"] {
        isa.enable(&format!("has_{f}")).map_err(|e| e.to_string())?;
    }
    isa.finish(settings::Flags::new(flags)).map_err(|e| e.to_string())
}
