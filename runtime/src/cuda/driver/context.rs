//! A device of the driver that was opened: its primary context and two streams, one for programs and one beside it.
use super::api::{Api, OUT_OF_MEMORY, driver};
use crate::cuda::device::{DeviceError, MemoryInfo};
use cudarc::driver::sys::{CUcontext, CUdevice, CUdeviceptr, CUstream};
use std::ffi::{CStr, c_char, c_int};

/// Numbers of device attributes in `cuda.h`.
const MULTIPROCESSORS: c_int = 16;
const L2_BYTES: c_int = 38;
const MAJOR: c_int = 75;
const MINOR: c_int = 76;
const SHARED_OPTIN: c_int = 97;
/// A stream that does not wait for the one that other libraries of this process use.
const NON_BLOCKING: u32 = 1;

/// What a device is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Info {
    pub ordinal: usize,
    pub name: String,
    /// Compute capability, such as (9, 0).
    pub sm: (u32, u32),
    pub multiprocessors: u32,
    pub l2_bytes: u64,
    /// Bytes of shared memory that a block may ask for.
    pub shared_bytes: u32,
    pub memory_bytes: u64,
}

/// The devices of this machine.
pub fn devices() -> Result<Vec<Info>, DeviceError> {
    let api = driver()?;
    let mut count = 0;
    // SAFETY: writes an integer.
    match unsafe { (api.cuDeviceGetCount)(&mut count) } {
        0 => (0..count as usize).map(|i| Ok(handle(api, i)?.1)).collect(),
        // The driver is there and found no device when it was initialised, so it is not.
        _ => Ok(vec![]),
    }
}

fn handle(api: &Api, ordinal: usize) -> Result<(CUdevice, Info), DeviceError> {
    let (mut device, mut name, mut memory_bytes) = (0, [0 as c_char; 128], 0);
    // SAFETY: an ordinal below the number of devices; the handle is an integer, the name fits the array and ends with
    // a zero, and the size is written to a usize.
    unsafe {
        api.check("cuDeviceGet", (api.cuDeviceGet)(&mut device, ordinal as c_int))?;
        let code = (api.cuDeviceGetName)(name.as_mut_ptr(), name.len() as c_int - 1, device);
        api.check("cuDeviceGetName", code)?;
        api.check("cuDeviceTotalMem", (api.cuDeviceTotalMem_v2)(&mut memory_bytes, device))?;
    }
    // SAFETY: the last byte of the array is still the zero that it was made with.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
    let attribute = |which| {
        let mut value = 0;
        // SAFETY: writes an integer.
        api.check("cuDeviceGetAttribute", unsafe { (api.cuDeviceGetAttribute)(&mut value, which, device) })?;
        Ok::<u32, DeviceError>(value as u32)
    };
    let info = Info {
        ordinal,
        name,
        sm: (attribute(MAJOR)?, attribute(MINOR)?),
        multiprocessors: attribute(MULTIPROCESSORS)?,
        l2_bytes: attribute(L2_BYTES)? as u64,
        shared_bytes: attribute(SHARED_OPTIN)?,
        memory_bytes: memory_bytes as u64,
    };
    Ok((device, info))
}

/// An open device.
pub struct Context {
    pub api: &'static Api,
    pub info: Info,
    /// Programs and all that must happen in order with them.
    pub stream: CUstream,
    /// Downloads of snapshots, while programs go on.
    pub beside: CUstream,
    device: CUdevice,
    context: CUcontext,
}

// SAFETY: the handles are the driver's, which may be used from any thread in which the context is current; every call
// makes it so ([`Context::enter`]).
unsafe impl Send for Context {}
// SAFETY: as above, the driver's functions may be called from several threads at once.
unsafe impl Sync for Context {}

impl Context {
    pub fn open(ordinal: usize) -> Result<Context, DeviceError> {
        let api = driver()?;
        let found = devices()?;
        if ordinal >= found.len() {
            let found = found.iter().map(|d| format!("cuda:{} ({})", d.ordinal, d.name)).collect();
            return Err(DeviceError::NoDevice { asked: ordinal, found });
        }
        let (device, info) = handle(api, ordinal)?;
        let mut context = std::ptr::null_mut();
        // SAFETY: writes a handle, which is released when this value is dropped.
        let code = unsafe { (api.cuDevicePrimaryCtxRetain)(&mut context, device) };
        api.check("cuDevicePrimaryCtxRetain", code)?;
        let none = std::ptr::null_mut();
        let mut open = Context { api, info, stream: none, beside: none, device, context };
        (open.stream, open.beside) = (open.new_stream()?, open.new_stream()?);
        Ok(open)
    }

    fn new_stream(&self) -> Result<CUstream, DeviceError> {
        self.enter()?;
        let mut stream = std::ptr::null_mut();
        // SAFETY: the context is current; writes a handle.
        self.api.check("cuStreamCreate", unsafe { (self.api.cuStreamCreate)(&mut stream, NON_BLOCKING) })?;
        Ok(stream)
    }

    /// Makes the context this thread's; every call of the driver follows one of these.
    pub fn enter(&self) -> Result<(), DeviceError> {
        // SAFETY: a context that is retained until self is dropped.
        self.api.check("cuCtxSetCurrent", unsafe { (self.api.cuCtxSetCurrent)(self.context) })
    }

    /// `NVIDIA H200 (cuda:0, sm_90)`.
    pub fn name(&self) -> String {
        let Info { name, ordinal, sm: (major, minor), .. } = &self.info;
        format!("{name} (cuda:{ordinal}, sm_{major}{minor})")
    }

    pub fn memory(&self) -> Result<MemoryInfo, DeviceError> {
        self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the context is current; writes two sizes.
        self.api.check("cuMemGetInfo", unsafe { (self.api.cuMemGetInfo_v2)(&mut free, &mut total) })?;
        Ok(MemoryInfo { free: free as u64, total: total as u64 })
    }

    /// Device memory, aligned to 256 bytes at least.
    pub fn alloc(&self, bytes: usize) -> Result<CUdeviceptr, DeviceError> {
        self.enter()?;
        let mut at = 0;
        // SAFETY: the context is current; writes an address.
        match unsafe { (self.api.cuMemAlloc_v2)(&mut at, bytes.max(1)) } {
            OUT_OF_MEMORY => {
                let MemoryInfo { free, total } = self.memory()?;
                let (device, asked) = (self.name(), bytes as u64);
                Err(DeviceError::Memory { device, asked, free, total, what: String::new() })
            }
            code => self.api.check("cuMemAlloc", code).map(|()| at),
        }
    }

    pub fn free(&self, at: CUdeviceptr) -> Result<(), DeviceError> {
        self.enter()?;
        // SAFETY: what `alloc` gave and nobody uses any more, as the caller says; the driver waits for work that does.
        self.api.check("cuMemFree", unsafe { (self.api.cuMemFree_v2)(at) })
    }

    pub fn wait(&self, stream: CUstream) -> Result<(), DeviceError> {
        self.enter()?;
        // SAFETY: a stream of this context.
        self.api.check("cuStreamSynchronize", unsafe { (self.api.cuStreamSynchronize)(stream) })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // Nothing can be done about a context that does not close; the process's end closes it.
        let _ = self.enter();
        for stream in [self.stream, self.beside].into_iter().filter(|s| !s.is_null()) {
            // SAFETY: made by `open`, and not used after this.
            unsafe { (self.api.cuStreamDestroy_v2)(stream) };
        }
        // SAFETY: retained by `open`.
        unsafe { (self.api.cuDevicePrimaryCtxRelease_v2)(self.device) };
    }
}
