//! The functions of the driver that we call, found when they are needed.
//!
//! The library is searched for by cudarc, whose wrappers panic where it or a function is missing and whose results are an
//! enum of the codes of its own version. So each function is looked up here once, under the name that every driver since
//! CUDA 12.0 has, and gives its code as a number.
use crate::cuda::device::DeviceError;
use cudarc::driver::sys::{
    self, CUDA_KERNEL_NODE_PARAMS_v2, CUcontext, CUdevice, CUdeviceptr, CUevent, CUfunction, CUgraph, CUgraphExec,
    CUgraphNode, CUlinkState, CUmodule, CUstream,
};
use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::sync::OnceLock;

/// Declares the table of functions and how it is filled.
macro_rules! functions {
    ($($name:ident($($argument:ty),*);)*) => {
        /// The driver's functions, under their own names.
        #[allow(non_snake_case)]
        pub struct Api {
            $(pub $name: unsafe extern "C" fn($($argument),*) -> c_int,)*
        }

        impl Api {
            /// Finds all functions, or says which one is missing.
            fn find() -> Result<Api, &'static str> {
                // SAFETY: the library is there, as the caller has made sure of; loading it a second time changes nothing.
                let library = unsafe { sys::culib() };
                $(
                    // SAFETY: the types are those of the driver's own header, `cuda.h`, for this name.
                    let found = unsafe {
                        library.get::<unsafe extern "C" fn($($argument),*) -> c_int>(
                            concat!(stringify!($name), "\0").as_bytes(),
                        )
                    };
                    #[allow(non_snake_case)]
                    let $name = *found.map_err(|_| stringify!($name))?;
                )*
                Ok(Api { $($name),* })
            }
        }
    };
}

functions! {
    cuInit(c_uint);
    cuDriverGetVersion(*mut c_int);
    cuGetErrorName(c_int, *mut *const c_char);
    cuGetErrorString(c_int, *mut *const c_char);
    cuDeviceGetCount(*mut c_int);
    cuDeviceGet(*mut CUdevice, c_int);
    cuDeviceGetName(*mut c_char, c_int, CUdevice);
    cuDeviceTotalMem_v2(*mut usize, CUdevice);
    cuDeviceGetAttribute(*mut c_int, c_int, CUdevice);
    cuDevicePrimaryCtxRetain(*mut CUcontext, CUdevice);
    cuDevicePrimaryCtxRelease_v2(CUdevice);
    cuCtxSetCurrent(CUcontext);
    cuMemGetInfo_v2(*mut usize, *mut usize);
    cuMemAlloc_v2(*mut CUdeviceptr, usize);
    cuMemFree_v2(CUdeviceptr);
    cuMemHostAlloc(*mut *mut c_void, usize, c_uint);
    cuMemFreeHost(*mut c_void);
    cuMemcpyHtoDAsync_v2(CUdeviceptr, *const c_void, usize, CUstream);
    cuMemcpyDtoHAsync_v2(*mut c_void, CUdeviceptr, usize, CUstream);
    cuMemcpyDtoDAsync_v2(CUdeviceptr, CUdeviceptr, usize, CUstream);
    cuMemsetD8Async(CUdeviceptr, u8, usize, CUstream);
    cuStreamCreate(*mut CUstream, c_uint);
    cuStreamDestroy_v2(CUstream);
    cuStreamSynchronize(CUstream);
    cuStreamWaitEvent(CUstream, CUevent, c_uint);
    cuGraphCreate(*mut CUgraph, c_uint);
    cuGraphAddKernelNode_v2(*mut CUgraphNode, CUgraph, *const CUgraphNode, usize, *const CUDA_KERNEL_NODE_PARAMS_v2);
    cuGraphInstantiateWithFlags(*mut CUgraphExec, CUgraph, c_ulonglong);
    cuGraphLaunch(CUgraphExec, CUstream);
    cuGraphDestroy(CUgraph);
    cuGraphExecDestroy(CUgraphExec);
    cuEventCreate(*mut CUevent, c_uint);
    cuEventRecord(CUevent, CUstream);
    cuEventSynchronize(CUevent);
    cuEventElapsedTime(*mut f32, CUevent, CUevent);
    cuEventDestroy_v2(CUevent);
    cuLinkCreate_v2(c_uint, *mut c_int, *mut *mut c_void, *mut CUlinkState);
    cuLinkAddData_v2(
        CUlinkState, c_int, *mut c_void, usize, *const c_char, c_uint, *mut c_int, *mut *mut c_void
    );
    cuLinkComplete(CUlinkState, *mut *mut c_void, *mut usize);
    cuLinkDestroy(CUlinkState);
    cuModuleLoadDataEx(*mut CUmodule, *const c_void, c_uint, *mut c_int, *mut *mut c_void);
    cuModuleUnload(CUmodule);
    cuModuleGetFunction(*mut CUfunction, CUmodule, *const c_char);
    cuFuncSetAttribute(CUfunction, c_int, c_int);
    cuFuncGetAttribute(*mut c_int, c_int, CUfunction);
    cuLaunchKernel(
        CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, CUstream, *mut *mut c_void, *mut *mut c_void
    );
}

/// Codes of the driver that we tell apart.
pub const OUT_OF_MEMORY: c_int = 2;
const NO_DEVICE: c_int = 100;

/// The driver, initialised, or why there is none.
pub fn driver() -> Result<&'static Api, DeviceError> {
    static DRIVER: OnceLock<Result<Api, DeviceError>> = OnceLock::new();
    DRIVER.get_or_init(load).as_ref().map_err(Clone::clone)
}

fn load() -> Result<Api, DeviceError> {
    // SAFETY: loading the driver's library runs its initialisers, as any program does that uses it.
    if !unsafe { sys::is_culib_present() } {
        return Err(DeviceError::NoDriver { what: "the library libcuda.so.1 is not found".into() });
    }
    let api = Api::find().map_err(|symbol| DeviceError::OldDriver { symbol })?;
    // SAFETY: the only flag that exists is zero.
    match unsafe { (api.cuInit)(0) } {
        // A machine without a device is one whose list of devices is empty.
        0 | NO_DEVICE => Ok(api),
        code => Err(DeviceError::NoDriver { what: format!("cuInit says {}", api.explain(code)) }),
    }
}

impl Api {
    /// An error unless the code of this call is that of success.
    pub fn check(&self, call: &'static str, code: c_int) -> Result<(), DeviceError> {
        match code {
            0 => Ok(()),
            _ => Err(DeviceError::Call { call, what: self.explain(code) }),
        }
    }

    /// A code in the driver's words.
    pub fn explain(&self, code: c_int) -> String {
        let (mut name, mut text) = (std::ptr::null(), std::ptr::null());
        // SAFETY: both write a pointer to a string that lives as long as the driver, or leave null for an unknown code.
        unsafe {
            (self.cuGetErrorName)(code, &mut name);
            (self.cuGetErrorString)(code, &mut text);
        }
        let word = |p: *const c_char| {
            // SAFETY: not null, so a string of the driver's, with a zero at its end.
            (!p.is_null()).then(|| unsafe { CStr::from_ptr(p) }.to_string_lossy().into_owned())
        };
        match (word(name), word(text)) {
            (Some(name), Some(text)) => format!("{name} ({text})"),
            (Some(name), None) => name,
            (None, _) => format!("code {code}"),
        }
    }

    /// The newest CUDA that the driver knows: major and minor.
    pub fn version(&self) -> Result<(u32, u32), DeviceError> {
        let mut version = 0;
        // SAFETY: writes an integer.
        self.check("cuDriverGetVersion", unsafe { (self.cuDriverGetVersion)(&mut version) })?;
        Ok((version as u32 / 1000, version as u32 % 1000 / 10))
    }
}
