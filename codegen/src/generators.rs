//! The generators for CUDA, best first: the first one that claims a kernel makes its code.
//!
//! `stream` claims every kernel and stands last. A generator that does some kernels better is a further row.
use crate::CodegenError;
use crate::eval::Fail;
use crate::ptx;
use crate::schedule;
use lolm_ir::kernel::Kernel;

/// A kernel's code, and who made it.
#[derive(Clone, Debug)]
pub struct Claim {
    pub generator: &'static str,
    /// How the kernel's axes map to the machine, for people.
    pub schedule: String,
    pub code: ptx::Code,
}

/// Makes the code of a kernel's entry, or says that the kernel is none of its own.
type Generate = fn(&Kernel, &str) -> Result<Option<(String, ptx::Code)>, Fail>;

const GENERATORS: &[(&str, Generate)] = &[
    ("attention", ptx::attention),
    ("attention_grad", ptx::attention_grad),
    ("scan", ptx::scan),
    ("scan_grad", ptx::scan_grad),
    ("contract", ptx::contract),
    ("sample", ptx::sample),
    ("stream", stream),
];

/// The code of a verified kernel, as an entry of this name.
pub fn claim(k: &Kernel, entry: &str) -> Result<Claim, CodegenError> {
    let failed = |e: Fail| CodegenError::Kernel { kernel: k.name.clone(), fail: e.to_string() };
    for (generator, generate) in GENERATORS {
        if let Some((schedule, code)) = generate(k, entry).map_err(failed)? {
            return Ok(Claim { generator, schedule, code });
        }
    }
    Err(failed(Fail::Bug("no generator claims it".into())))
}

fn stream(k: &Kernel, entry: &str) -> Result<Option<(String, ptx::Code)>, Fail> {
    let s = schedule::schedule_for(k, &schedule::GPU);
    let code = ptx::compile(k, &s, entry)?;
    Ok(Some((s.display(k).to_string(), code)))
}
