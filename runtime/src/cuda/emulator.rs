//! A GPU in software, for machines without one and for tests: slow, and stricter than any GPU. Each tensor is an allocation
//! of its own with nothing around it, so an index past its end is found; so are races, and reads of what nobody wrote.
use super::device::{Address, Device, DeviceError, Entry, Kernel, Launch, MemoryInfo, Prepared, Sequence, Snapshot};
use lolm_ptx_emu as emu;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

/// Says that it has as much memory as a large GPU; what is used is this machine's.
const TOTAL: u64 = 80_000_000_000;

/// A device that is a program.
pub struct Emulator {
    options: emu::Options,
    state: Mutex<State>,
}

struct State {
    memory: emu::Memory,
    /// Bytes of each allocation.
    sizes: BTreeMap<Address, u64>,
    modules: Vec<emu::Module>,
    /// Module and name of each kernel.
    kernels: Vec<(usize, String)>,
    programs: Vec<Sequence>,
    /// Launches so far: each has another order of warps, the same in every run.
    launches: u64,
}

impl State {
    fn used(&self) -> u64 {
        self.sizes.values().sum()
    }
}

impl Default for Emulator {
    fn default() -> Self {
        Emulator::new(emu::Options::default())
    }
}

impl Emulator {
    /// A device that runs every launch with these options; the seed is that of the first launch.
    pub fn new(options: emu::Options) -> Emulator {
        let state = State {
            memory: emu::Memory::new(),
            sizes: BTreeMap::new(),
            modules: vec![],
            kernels: vec![],
            programs: vec![],
            launches: 0,
        };
        Emulator { options, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic is a bug and ends the process; nothing in the state is half made.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn put(&self, state: &mut State, l: &Launch) -> Result<(), DeviceError> {
        let missing = || DeviceError::Call { call: "launch", what: format!("bug: no {:?}", l.kernel) };
        let (module, name) = state.kernels.get(l.kernel.0 as usize).ok_or_else(missing)?;
        let kernel = state.modules[*module].kernel(name).ok_or_else(missing)?;
        let params: Vec<u8> = l.operands.iter().flat_map(|a| a.to_le_bytes()).collect();
        let (grid, block) = ([l.grid, 1, 1], [l.block, 1, 1]);
        let launch = emu::Launch { kernel, grid, block, dynamic_shared: l.shared, params: &params };
        let options = emu::Options { seed: self.options.seed.wrapping_add(state.launches), ..self.options.clone() };
        state.launches += 1;
        match emu::launch(&mut state.memory, &launch, &options) {
            Ok(_) => Ok(()),
            Err(fault) => Err(DeviceError::Fault { kernel: name.clone(), what: fault.to_string() }),
        }
    }
}

/// An order that keeps to what launches wait for and to nothing else: of those that may run, the last one. So a wait that
/// is missing is seen.
fn backwards(sequence: &Sequence) -> Vec<usize> {
    let mut waits: Vec<usize> = sequence.iter().map(|l| l.after.len()).collect();
    let mut then: Vec<Vec<usize>> = vec![vec![]; sequence.len()];
    for (i, l) in sequence.iter().enumerate() {
        l.after.iter().for_each(|before| then[*before as usize].push(i));
    }
    let mut ready: BinaryHeap<usize> = (0..sequence.len()).filter(|i| waits[*i] == 0).collect();
    let mut order = Vec::with_capacity(sequence.len());
    while let Some(i) = ready.pop() {
        order.push(i);
        for next in &then[i] {
            waits[*next] -= 1;
            if waits[*next] == 0 {
                ready.push(*next);
            }
        }
    }
    order
}

/// What the host did wrong.
fn host(call: &'static str) -> impl Fn(emu::Fault) -> DeviceError {
    move |fault| DeviceError::Call { call, what: fault.to_string() }
}

impl Device for Emulator {
    fn name(&self) -> String {
        "the emulator".into()
    }

    /// The text is run as it is; what the emulator lacks, it says when it reads it.
    fn accepts(&self, _: &str) -> Result<(), DeviceError> {
        Ok(())
    }

    fn multiprocessors(&self) -> u32 {
        1
    }

    fn memory(&self) -> Result<MemoryInfo, DeviceError> {
        Ok(MemoryInfo { free: TOTAL.saturating_sub(self.state().used()), total: TOTAL })
    }

    fn alloc(&self, sizes: &[usize]) -> Result<Vec<Address>, DeviceError> {
        let mut state = self.state();
        let asked = sizes.iter().map(|s| *s as u64).fold(0u64, u64::saturating_add);
        let free = TOTAL.saturating_sub(state.used());
        if asked > free {
            return Err(DeviceError::Memory { device: self.name(), asked, free, total: TOTAL, what: String::new() });
        }
        let addresses: Vec<Address> = sizes.iter().map(|bytes| state.memory.alloc((*bytes).max(1))).collect();
        state.sizes.extend(addresses.iter().copied().zip(sizes.iter().map(|s| *s as u64)));
        Ok(addresses)
    }

    fn free(&self, addresses: &[Address]) -> Result<(), DeviceError> {
        let mut state = self.state();
        for a in addresses {
            state.memory.free(*a).map_err(host("free"))?;
            state.sizes.remove(a);
        }
        Ok(())
    }

    fn upload(&self, to: Address, bytes: &[u8]) -> Result<(), DeviceError> {
        self.state().memory.write(to, bytes).map_err(host("upload"))
    }

    fn download(&self, from: Address, to: &mut [u8]) -> Result<(), DeviceError> {
        self.state().memory.read(from, to).map_err(host("download"))
    }

    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), DeviceError> {
        self.state().memory.copy(from, to, bytes).map_err(host("copy"))
    }

    fn fill(&self, at: Address, bytes: usize, value: u8) -> Result<(), DeviceError> {
        self.state().memory.fill(at, bytes, value).map_err(host("fill"))
    }

    fn forget(&self, at: Address, bytes: usize) -> Result<(), DeviceError> {
        self.state().memory.poison(at..at + bytes as u64).map_err(host("forget"))
    }

    fn load(&self, ptx: &str, entries: &[Entry]) -> Result<Vec<Kernel>, DeviceError> {
        let module = emu::Module::parse(ptx)
            .map_err(|e| DeviceError::Module { what: "the emulator does not read them".into(), log: e.to_string() })?;
        for e in entries {
            let wrong = |why: &str| DeviceError::Entry { entry: e.name.clone(), why: why.into() };
            let params = module.kernel(&e.name).ok_or_else(|| wrong(""))?.params();
            if params.len() != e.operands || params.iter().any(|p| p.bytes != size_of::<Address>()) {
                return Err(wrong(" with an address for each operand"));
            }
        }
        let mut state = self.state();
        let (at, first) = (state.modules.len(), state.kernels.len() as u32);
        state.modules.push(module);
        state.kernels.extend(entries.iter().map(|e| (at, e.name.clone())));
        Ok((first..).take(entries.len()).map(Kernel).collect())
    }

    fn launch(&self, launch: &Launch) -> Result<(), DeviceError> {
        self.put(&mut self.state(), launch)
    }

    fn prepare(&self, program: &Sequence) -> Result<Prepared, DeviceError> {
        let mut state = self.state();
        state.programs.push(program.clone());
        Ok(Prepared(state.programs.len() as u32 - 1))
    }

    fn run(&self, program: Prepared) -> Result<(), DeviceError> {
        self.time(program, &mut [])
    }

    /// The time that the emulation takes.
    fn time(&self, program: Prepared, times: &mut [u64]) -> Result<(), DeviceError> {
        let mut state = self.state();
        let sequence = std::mem::take(&mut state.programs[program.0 as usize]);
        let done = backwards(&sequence).into_iter().try_for_each(|i| {
            let start = Instant::now();
            self.put(&mut state, &sequence.get(i))?;
            if let Some(ns) = times.get_mut(i) {
                *ns = start.elapsed().as_nanos() as u64;
            }
            Ok(())
        });
        state.programs[program.0 as usize] = sequence;
        done
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn snapshot(&self, parts: &[(Address, usize)]) -> Result<Box<dyn Snapshot>, DeviceError> {
        let state = self.state();
        let read = |(at, bytes): &(Address, usize)| {
            let mut part = vec![0; *bytes];
            state.memory.read(*at, &mut part).map_err(host("snapshot"))?;
            Ok(part)
        };
        Ok(Box::new(Parts(parts.iter().map(read).collect::<Result<_, DeviceError>>()?)))
    }
}

/// Parts of memory, copied.
struct Parts(Vec<Vec<u8>>);

impl Snapshot for Parts {
    fn read(&mut self, i: usize, to: &mut [u8]) -> Result<(), DeviceError> {
        match self.0.get(i) {
            Some(part) if part.len() == to.len() => {
                to.copy_from_slice(part);
                Ok(())
            }
            _ => Err(DeviceError::Call { call: "snapshot", what: format!("bug: {} bytes of part {i}", to.len()) }),
        }
    }
}
