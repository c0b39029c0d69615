//! From PTX to kernels on a device: the driver's own assembler makes a binary, which a folder may keep for the next time.
use super::cache::Cache;
use super::context::Context;
use crate::cuda::device::{DeviceError, Entry};
use cudarc::driver::sys::{CUfunction, CUmodule};
use std::ffi::{CString, c_int, c_void};
use std::sync::Arc;

/// Numbers of assembler options, of kinds of input and of kernel attributes in `cuda.h`.
const INFO_LOG: c_int = 3;
const INFO_LOG_BYTES: c_int = 4;
const ERROR_LOG: c_int = 5;
const ERROR_LOG_BYTES: c_int = 6;
const INPUT_PTX: c_int = 1;
const DYNAMIC_SHARED: c_int = 8;
const STATIC_SHARED: c_int = 1;
const MOST_THREADS: c_int = 0;
/// Shared memory, static and dynamic together, that a kernel may have without asking for it.
const USUAL_SHARED: u32 = 48 << 10;
const LOG: usize = 16 << 10;

/// A module on a device.
pub struct Module {
    context: Arc<Context>,
    handle: CUmodule,
}

// SAFETY: the handle may be used from any thread in which the context is current, which every call sees to.
unsafe impl Send for Module {}

/// A kernel of a module, which it does not outlive.
#[derive(Clone)]
pub struct Function {
    pub handle: CUfunction,
    pub name: String,
}

// SAFETY: as above.
unsafe impl Send for Function {}

/// What the driver's assembler writes: notes, and what it refuses.
struct Logs {
    info: Vec<u8>,
    error: Vec<u8>,
    options: [c_int; 4],
    values: [*mut c_void; 4],
}

impl Logs {
    fn new() -> Box<Logs> {
        let (options, values) = ([INFO_LOG, INFO_LOG_BYTES, ERROR_LOG, ERROR_LOG_BYTES], [std::ptr::null_mut(); 4]);
        let mut logs = Box::new(Logs { info: vec![0; LOG], error: vec![0; LOG], options, values });
        // Sizes are passed as numbers in place of pointers, one byte less than there is, so that the last stays zero.
        let size = (LOG - 1) as *mut c_void;
        logs.values = [logs.info.as_mut_ptr().cast(), size, logs.error.as_mut_ptr().cast(), size];
        logs
    }

    fn text(&self) -> String {
        let word = |log: &[u8]| {
            let end = log.iter().position(|b| *b == 0).unwrap_or(log.len());
            String::from_utf8_lossy(&log[..end]).trim().to_string()
        };
        [word(&self.error), word(&self.info)].join("\n").trim().to_string()
    }
}

impl Module {
    /// Loads a module: from the cache if it is there, or else assembled, and then kept there.
    pub fn load(context: &Arc<Context>, ptx: &str, cache: Option<&Cache>) -> Result<Module, DeviceError> {
        let Some(cache) = cache else { return Module::of(context, &assemble(context, ptx)?) };
        if let Some(binary) = cache.find(context, ptx)
            && let Ok(module) = Module::of(context, &binary)
        {
            return Ok(module);
        }
        // There is none, or it is damaged: it is made anew.
        let binary = assemble(context, ptx)?;
        let module = Module::of(context, &binary)?;
        cache.keep(context, ptx, &binary)?;
        Ok(module)
    }

    /// Loads a binary.
    fn of(context: &Arc<Context>, binary: &[u8]) -> Result<Module, DeviceError> {
        context.enter()?;
        let (mut handle, mut logs, api) = (std::ptr::null_mut(), Logs::new(), context.api);
        // SAFETY: the context is current; a binary of the driver's own making, whose hash was checked; four options with
        // buffers that live until the call returns; writes a handle.
        let code = unsafe {
            let (options, values) = (logs.options.as_mut_ptr(), logs.values.as_mut_ptr());
            (api.cuModuleLoadDataEx)(&mut handle, binary.as_ptr().cast(), 4, options, values)
        };
        match code {
            0 => Ok(Module { context: context.clone(), handle }),
            _ => Err(DeviceError::Module { what: api.explain(code), log: logs.text() }),
        }
    }

    /// An entry, if its blocks fit the device.
    pub fn function(&self, e: &Entry) -> Result<Function, DeviceError> {
        let (context, api) = (&self.context, self.context.api);
        context.enter()?;
        let wrong = |why: String| DeviceError::Entry { entry: e.name.clone(), why: format!(": {why}") };
        let name = CString::new(e.name.as_str()).map_err(|_| wrong("its name holds a zero".into()))?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the context is current, the module is loaded, the name ends with a zero; writes a handle.
        let code = unsafe { (api.cuModuleGetFunction)(&mut handle, self.handle, name.as_ptr()) };
        if code != 0 {
            return Err(wrong(api.explain(code)));
        }
        let attribute = |which| {
            let mut value = 0;
            // SAFETY: a kernel of this module; writes an integer.
            let code = unsafe { (api.cuFuncGetAttribute)(&mut value, which, handle) };
            api.check("cuFuncGetAttribute", code).map(|()| value as u32)
        };
        let (shared, most) = (attribute(STATIC_SHARED)? + e.shared, context.info.shared_bytes);
        if shared > most {
            return Err(wrong(format!(
                "it needs {shared} bytes of shared memory, and {} gives {most}",
                context.name()
            )));
        }
        if e.shared > 0 && shared > USUAL_SHARED {
            // SAFETY: a kernel of this module, and a size that the device gives.
            let code = unsafe { (api.cuFuncSetAttribute)(handle, DYNAMIC_SHARED, e.shared as c_int) };
            api.check("cuFuncSetAttribute", code)?;
        }
        let most = attribute(MOST_THREADS)?;
        if e.threads > most {
            return Err(wrong(format!(
                "its blocks have {} threads, and {} gives it {most}",
                e.threads,
                context.name()
            )));
        }
        Ok(Function { handle, name: e.name.clone() })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: loaded by `of`; nothing of it is launched after this.
            unsafe { (self.context.api.cuModuleUnload)(self.handle) };
        }
    }
}

/// Makes a binary for the context's device.
fn assemble(context: &Context, ptx: &str) -> Result<Vec<u8>, DeviceError> {
    context.enter()?;
    let api = context.api;
    let no_text = |_| DeviceError::Module { what: "their text holds a zero".into(), log: String::new() };
    let text = CString::new(ptx).map_err(no_text)?;
    // The driver writes to the logs until the link is destroyed.
    let (mut logs, mut link) = (Logs::new(), std::ptr::null_mut());
    // SAFETY: the context is current; four options with buffers that outlive the link; writes a handle.
    let code = unsafe {
        let (options, values) = (logs.options.as_mut_ptr(), logs.values.as_mut_ptr());
        (api.cuLinkCreate_v2)(4, options, values, &mut link)
    };
    api.check("cuLinkCreate", code)?;
    let name = c"kernels.ptx";
    let mut bytes = text.into_bytes_with_nul();
    // SAFETY: text with the zero that ends it counted, a name, and no further options; none is kept after the call.
    let mut code = unsafe {
        let (data, len) = (bytes.as_mut_ptr().cast(), bytes.len());
        let (options, values) = (std::ptr::null_mut(), std::ptr::null_mut());
        (api.cuLinkAddData_v2)(link, INPUT_PTX, data, len, name.as_ptr(), 0, options, values)
    };
    let (mut at, mut len) = (std::ptr::null_mut(), 0);
    if code == 0 {
        // SAFETY: writes the address and the size of memory that the link owns.
        code = unsafe { (api.cuLinkComplete)(link, &mut at, &mut len) };
    }
    let binary = match code {
        // SAFETY: so many bytes, which live as long as the link.
        0 => Ok(unsafe { std::slice::from_raw_parts(at.cast::<u8>(), len) }.to_vec()),
        _ => Err(DeviceError::Module { what: api.explain(code), log: logs.text() }),
    };
    // SAFETY: made above; the binary was copied.
    unsafe { (api.cuLinkDestroy)(link) };
    binary
}
