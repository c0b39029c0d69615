//! A GPU behind NVIDIA's driver, which is loaded when the first device is opened. A machine without it gets a sentence.
use super::device::{Address, Device, DeviceError, Entry, Kernel, Launch, MemoryInfo, Prepared, Sequence, Snapshot};
use cudarc::driver::sys::{CUDA_KERNEL_NODE_PARAMS_v2, CUgraph, CUgraphExec, CUgraphNode, CUstream};
use module::{Function, Module};
use staging::{Event, Staging};
use std::ffi::c_void;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

mod api;
mod cache;
mod context;
mod module;
mod snapshot;
mod staging;
use cache::Cache;
use context::Context;
pub use context::{Info, devices};

/// Every allocation starts at a multiple of this, and so do the tensors in it.
const ALIGN: usize = 256;

/// The newest CUDA that the driver knows: major and minor.
pub fn version() -> Result<(u32, u32), DeviceError> {
    api::driver()?.version()
}

/// An open GPU.
pub struct Driver {
    state: Mutex<State>,
    context: Arc<Context>,
    cache: Option<Cache>,
}

/// What was loaded. Graphs go before modules, and modules before the context.
struct State {
    programs: Vec<Program>,
    events: Vec<Event>,
    functions: Vec<Function>,
    modules: Vec<Module>,
    staging: Staging,
}

/// A program, and the graph that replays it.
struct Program {
    context: Arc<Context>,
    graph: CUgraphExec,
    sequence: Sequence,
}

// SAFETY: the handle may be used from any thread in which the context is current, which every call sees to.
unsafe impl Send for Program {}

impl Drop for Program {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: made by `prepare`; the driver frees it when it does not run any more.
            unsafe { (self.context.api.cuGraphExecDestroy)(self.graph) };
        }
    }
}

impl Driver {
    /// Opens the device of this number. `cache` is a folder for what the driver assembles.
    pub fn open(ordinal: usize, cache: Option<&Path>) -> Result<Driver, DeviceError> {
        let context = Arc::new(Context::open(ordinal)?);
        let staging = Staging::new(&context, context.stream)?;
        let state = State { programs: vec![], events: vec![], functions: vec![], modules: vec![], staging };
        Ok(Driver { state: Mutex::new(state), context, cache: cache.map(Cache::new) })
    }

    pub fn info(&self) -> &Info {
        &self.context.info
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic is a bug and ends the process; nothing in the state is half made.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Puts a launch into the stream.
    fn put(&self, state: &State, l: &Launch, stream: CUstream) -> Result<(), DeviceError> {
        let function = state.function(l)?;
        let mut arguments = arguments(l);
        // SAFETY: a kernel of a loaded module whose parameters are as many addresses, as the artifact's manifest says and
        // its hash vouches for; the driver reads them before it returns. That the kernel keeps to its operands is the
        // artifact's word, as it is for machine code.
        let code = unsafe {
            let (arguments, none) = (arguments.as_mut_ptr(), std::ptr::null_mut());
            let launch = self.context.api.cuLaunchKernel;
            launch(function.handle, l.grid, 1, 1, l.block, 1, 1, l.shared, stream, arguments, none)
        };
        self.done(code, function)
    }

    fn done(&self, code: i32, function: &Function) -> Result<(), DeviceError> {
        match code {
            0 => Ok(()),
            _ => Err(DeviceError::Fault { kernel: function.name.clone(), what: self.context.api.explain(code) }),
        }
    }

    /// A program as a graph, in which a launch waits for what it has to and for nothing else.
    fn graph(&self, state: &State, program: &Sequence) -> Result<CUgraphExec, DeviceError> {
        self.context.enter()?;
        let api = self.context.api;
        let mut graph = std::ptr::null_mut();
        // SAFETY: writes a handle.
        api.check("cuGraphCreate", unsafe { (api.cuGraphCreate)(&mut graph, 0) })?;
        let added = self.add_nodes(state, program, graph);
        let mut exec = std::ptr::null_mut();
        let made = added.and_then(|()| {
            // SAFETY: the graph just made; writes a handle.
            api.check("cuGraphInstantiate", unsafe { (api.cuGraphInstantiateWithFlags)(&mut exec, graph, 0) })
        });
        // SAFETY: as above; what was made of it does not need it.
        unsafe { (api.cuGraphDestroy)(graph) };
        made.map(|()| exec)
    }

    fn add_nodes(&self, state: &State, program: &Sequence, graph: CUgraph) -> Result<(), DeviceError> {
        let mut nodes: Vec<CUgraphNode> = Vec::with_capacity(program.len());
        for l in program.iter() {
            let function = state.function(&l)?;
            let mut arguments = arguments(&l);
            let before: Vec<CUgraphNode> = l.after.iter().map(|i| nodes[*i as usize]).collect();
            let node = CUDA_KERNEL_NODE_PARAMS_v2 {
                func: function.handle,
                gridDimX: l.grid,
                gridDimY: 1,
                gridDimZ: 1,
                blockDimX: l.block,
                blockDimY: 1,
                blockDimZ: 1,
                sharedMemBytes: l.shared,
                kernelParams: arguments.as_mut_ptr(),
                extra: std::ptr::null_mut(),
                kern: std::ptr::null_mut(),
                ctx: std::ptr::null_mut(),
            };
            let mut handle = std::ptr::null_mut();
            // SAFETY: nodes of this graph, and a kernel as in `put`; the driver copies the parameters and what they point
            // at before it returns, and writes a handle.
            let code = unsafe {
                let add = self.context.api.cuGraphAddKernelNode_v2;
                add(&mut handle, graph, before.as_ptr(), before.len(), &node)
            };
            self.done(code, function)?;
            nodes.push(handle);
        }
        Ok(())
    }
}

impl State {
    fn function(&self, l: &Launch) -> Result<&Function, DeviceError> {
        let missing = || DeviceError::Call { call: "cuLaunchKernel", what: format!("bug: no {:?}", l.kernel) };
        self.functions.get(l.kernel.0 as usize).ok_or_else(missing)
    }
}

/// A pointer to each operand, as the driver takes them.
fn arguments(l: &Launch) -> Vec<*mut c_void> {
    l.operands.iter().map(|o: &Address| std::ptr::from_ref(o).cast_mut().cast::<c_void>()).collect()
}

impl Device for Driver {
    fn name(&self) -> String {
        self.context.name()
    }

    fn accepts(&self, architecture: &str) -> Result<(), DeviceError> {
        let refused =
            |why: String| Err(DeviceError::Architecture { device: self.name(), asked: architecture.into(), why });
        let Some((asked, only)) = architecture_number(architecture) else {
            return refused("it is not an architecture that we know".into());
        };
        let (major, minor) = self.context.info.sm;
        let here = major * 10 + minor;
        match only {
            true if asked != here => refused(format!("such code runs on sm_{asked} alone; compile it for sm_80")),
            false if asked > here => refused(format!("it is an sm_{here}; compile it for sm_{here} or less")),
            true | false => Ok(()),
        }
    }

    fn multiprocessors(&self) -> u32 {
        self.context.info.multiprocessors
    }

    fn memory(&self) -> Result<MemoryInfo, DeviceError> {
        self.context.memory()
    }

    fn alloc(&self, sizes: &[usize]) -> Result<Vec<Address>, DeviceError> {
        let mut end = 0usize;
        let mut place = |bytes: &usize| {
            let at = end;
            end = bytes.checked_next_multiple_of(ALIGN).and_then(|n| n.checked_add(end)).unwrap_or(usize::MAX / 2);
            at
        };
        let places: Vec<usize> = sizes.iter().map(&mut place).collect();
        if places.is_empty() {
            return Ok(vec![]);
        }
        let start = self.context.alloc(end)?;
        Ok(places.into_iter().map(|at| start + at as u64).collect())
    }

    fn free(&self, addresses: &[Address]) -> Result<(), DeviceError> {
        // The first tensor lies at the start of the one allocation.
        addresses.first().map_or(Ok(()), |start| self.context.free(*start))
    }

    fn upload(&self, to: Address, bytes: &[u8]) -> Result<(), DeviceError> {
        self.context.enter()?;
        self.state().staging.upload(to, bytes)
    }

    fn download(&self, from: Address, to: &mut [u8]) -> Result<(), DeviceError> {
        self.context.enter()?;
        self.state().staging.download(from, to)
    }

    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), DeviceError> {
        if bytes == 0 {
            return Ok(());
        }
        self.context.enter()?;
        let api = self.context.api;
        // SAFETY: both are the caller's memory on this device.
        api.check("cuMemcpyDtoDAsync", unsafe { (api.cuMemcpyDtoDAsync_v2)(to, from, bytes, self.context.stream) })
    }

    fn fill(&self, at: Address, bytes: usize, value: u8) -> Result<(), DeviceError> {
        if bytes == 0 {
            return Ok(());
        }
        self.context.enter()?;
        let api = self.context.api;
        // SAFETY: the caller's memory on this device.
        api.check("cuMemsetD8Async", unsafe { (api.cuMemsetD8Async)(at, value, bytes, self.context.stream) })
    }

    /// A GPU cannot tell.
    fn forget(&self, _: Address, _: usize) -> Result<(), DeviceError> {
        Ok(())
    }

    fn load(&self, ptx: &str, entries: &[Entry]) -> Result<Vec<Kernel>, DeviceError> {
        let module = Module::load(&self.context, ptx, self.cache.as_ref())?;
        let functions = entries.iter().map(|e| module.function(e)).collect::<Result<Vec<_>, _>>()?;
        let mut state = self.state();
        let first = state.functions.len() as u32;
        let kernels = (first..).take(functions.len()).map(Kernel).collect();
        state.functions.extend(functions);
        state.modules.push(module);
        Ok(kernels)
    }

    fn launch(&self, launch: &Launch) -> Result<(), DeviceError> {
        self.context.enter()?;
        self.put(&self.state(), launch, self.context.stream)
    }

    fn prepare(&self, program: &Sequence) -> Result<Prepared, DeviceError> {
        let mut state = self.state();
        let graph = self.graph(&state, program)?;
        state.programs.push(Program { context: self.context.clone(), graph, sequence: program.clone() });
        Ok(Prepared(state.programs.len() as u32 - 1))
    }

    fn run(&self, program: Prepared) -> Result<(), DeviceError> {
        self.context.enter()?;
        let (state, api) = (self.state(), self.context.api);
        let graph = state.programs[program.0 as usize].graph;
        // SAFETY: a graph of this context; its kernels and their operands live as long as it.
        api.check("cuGraphLaunch", unsafe { (api.cuGraphLaunch)(graph, self.context.stream) })
    }

    fn time(&self, program: Prepared, times: &mut [u64]) -> Result<(), DeviceError> {
        self.context.enter()?;
        let mut state = self.state();
        let count = state.programs[program.0 as usize].sequence.len();
        while state.events.len() <= count {
            state.events.push(Event::new(&self.context, true)?);
        }
        let (stream, sequence) = (self.context.stream, &state.programs[program.0 as usize].sequence);
        state.events[0].record(stream)?;
        for (l, event) in sequence.iter().zip(&state.events[1..]) {
            self.put(&state, &l, stream)?;
            event.record(stream)?;
        }
        state.events[count].wait()?;
        for (ns, pair) in times.iter_mut().zip(state.events.windows(2)) {
            *ns = pair[1].since(&pair[0])?;
        }
        Ok(())
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        self.context.wait(self.context.stream)
    }

    fn snapshot(&self, parts: &[(Address, usize)]) -> Result<Box<dyn Snapshot>, DeviceError> {
        self.context.enter()?;
        Ok(Box::new(snapshot::Copied::new(&self.context, parts)?))
    }
}

/// The number of `sm_80`, and whether the code runs on that one alone, as that of `sm_90a` does.
fn architecture_number(name: &str) -> Option<(u32, bool)> {
    let rest = name.strip_prefix("sm_")?;
    let digits = rest.trim_end_matches('a');
    Some((digits.parse().ok()?, digits.len() < rest.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_are_numbers() {
        assert_eq!(architecture_number("sm_80"), Some((80, false)));
        assert_eq!(architecture_number("sm_90a"), Some((90, true)));
        assert_eq!((architecture_number("sm_"), architecture_number("gfx90a")), (None, None));
    }

    #[test]
    fn a_machine_without_a_device_gets_a_sentence() {
        match devices() {
            Err(e) => {
                assert!(matches!(e, DeviceError::NoDriver { .. } | DeviceError::OldDriver { .. }), "{e}");
                assert_eq!(Driver::open(0, None).err().map(|e| e.to_string()), Some(e.to_string()));
            }
            Ok(found) => {
                let e = Driver::open(found.len(), None).err();
                assert!(matches!(e, Some(DeviceError::NoDevice { .. })), "{e:?}");
            }
        }
    }
}
