//! A model on a device: where its tensors lie, and its programs as the device runs them.
use super::device::{Address, Bytes, Device, DeviceError, Entry, Kernel, Prepared, Snapshot};
use super::exec::{Exec, resolve};
use super::health::Health;
use super::mirror::Mirror;
use super::rows::Pools;
use crate::artifact::{Artifact, Code};
use crate::cpu::machine::{MachineError, ports, tables};
use crate::cpu::memory::Element;
use crate::rows::{Layout, RowSnapshot};
use crate::store::{Slot, Store};
use crate::tensor::Tensor;
use crate::tensors::Tensors;
use lolm_ir::artifact::{KernelRecord, entry, lanes};
use lolm_ir::plan::{Place, Plan};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// Tensors and programs of one artifact on one device.
pub struct Machine {
    programs: Vec<Program>,
    params: Mirror,
    states: Mirror,
    pools: Pools,
    arena: (Address, usize),
    health: Arc<Health>,
    /// Freed when the machine goes.
    memory: Memory,
    artifact: Artifact,
}

/// A program with its ports.
struct Program {
    prepared: Prepared,
    exec: Exec,
    inputs: Store,
    /// Of each input, where it goes.
    uploads: Vec<Upload>,
    outputs: Mirror,
    /// Slots that its launches may write.
    params: Vec<usize>,
    states: Vec<usize>,
    /// Bytes of the arena that it uses.
    arena: usize,
    /// Nanoseconds of each launch of the plan, while they are measured, and of each launch of the sequence.
    times: Option<(Vec<u64>, Vec<u64>)>,
}

struct Upload {
    slot: usize,
    to: Address,
    /// It was written since it was uploaded.
    dirty: bool,
}

/// Device memory that is freed with its owner.
struct Memory {
    device: Arc<dyn Device>,
    addresses: Vec<Address>,
}

impl Drop for Memory {
    fn drop(&mut self) {
        // A device that cannot free memory is not used any more; the failure that made it so was said before.
        let _ = self.device.free(&self.addresses);
    }
}

impl Machine {
    /// All memory zero but the tables. No program has more lanes than there are rows.
    pub fn new(artifact: Artifact, device: Arc<dyn Device>, rows: usize) -> Result<Machine, MachineError> {
        let Code::Ptx { architecture, text } = &artifact.code else {
            return Err(MachineError::OnDevice { target: artifact.manifest.target.clone(), device: device.name() });
        };
        device.accepts(architecture)?;
        let m = &artifact.manifest;
        let entries: Vec<Entry> = m.kernels.iter().enumerate().map(|(i, k)| entry_of(i, k)).collect();
        let kernels = device.load(text, &entries)?;
        let parts = Parts::new(&artifact, rows)?;
        let mut memory = parts.allocate(&device)?;
        let health = Arc::new(Health::default());
        let mut taken = memory.addresses.iter().copied();
        let mut take = |s: &Store| taken.by_ref().take(s.slots().len()).collect::<Vec<_>>();
        let Parts { params, states, tables, ports, pools, arena } = parts;
        let mirror = |store, at| Mirror::new(store, device.clone(), health.clone(), at);
        let (at, of_states, of_tables) = (take(&params), take(&states), take(&tables));
        let params = mirror(params, at);
        let states = mirror(states, of_states);
        let ports: Vec<(Store, Vec<Address>, Mirror)> = ports
            .into_iter()
            .map(|(inputs, outputs)| {
                let (to, from) = (take(&inputs), take(&outputs));
                (inputs, to, mirror(outputs, from))
            })
            .collect();
        let pools = Pools::new(pools, taken.by_ref());
        let start = taken.next().unwrap_or_default();
        let mut programs = vec![];
        for (p, (inputs, to, outputs)) in m.programs.iter().zip(ports) {
            let pooled = lanes(&p.program).map(|_| &pools);
            let tables = (&tables, of_tables.as_slice());
            let places = Places { params: &params, states: &states, pooled, tables, arena: start };
            let (exec, prepared) = places.resolve(p, &m.kernels, &kernels, (&inputs, &to), &outputs, &*device)?;
            programs.push(Program {
                prepared,
                exec,
                uploads: to.into_iter().enumerate().map(|(slot, to)| Upload { slot, to, dirty: true }).collect(),
                inputs,
                outputs,
                params: touched(p, |place| if let Place::Param(n) = place { params.layout().find(n) } else { None }),
                states: touched(p, |place| places.state(place)),
                arena: p.arena as usize,
                times: None,
            });
        }
        memory.addresses.shrink_to_fit();
        let machine = Machine { programs, params, states, pools, arena: (start, arena), health, memory, artifact };
        machine.start(&tables, &of_tables)?;
        Ok(machine)
    }

    /// Zeros everywhere, and the tables.
    fn start(&self, tables: &Store, at: &[Address]) -> Result<(), DeviceError> {
        let outputs = self.programs.iter().map(|p| &p.outputs);
        for mirror in [&self.params, &self.states].into_iter().chain(outputs) {
            for (slot, at) in mirror.addresses().iter().enumerate() {
                self.device().fill(*at, mirror.layout().slot_bytes(slot), 0)?;
            }
        }
        self.pools.start(self.device())?;
        at.iter().enumerate().try_for_each(|(slot, at)| self.device().upload(*at, tables.raw(slot)))
    }

    fn device(&self) -> &dyn Device {
        &*self.memory.device
    }
    pub fn name(&self) -> String {
        self.device().name()
    }
    pub fn artifact(&self) -> &Artifact {
        &self.artifact
    }
    /// The first failure of the device, if there was one.
    pub fn check(&self) -> Result<(), DeviceError> {
        self.health.check()
    }

    pub fn inputs(&self, program: usize) -> &Store {
        &self.programs[program].inputs
    }
    pub fn input_mut<T: Element>(&mut self, program: usize, slot: usize) -> &mut [T] {
        let p = &mut self.programs[program];
        p.uploads[slot].dirty = true;
        p.inputs.view_mut(slot)
    }
    /// False if the tensor is of another dtype or length.
    pub fn set_input(&mut self, program: usize, slot: usize, x: &Tensor) -> bool {
        let p = &mut self.programs[program];
        p.uploads[slot].dirty = true;
        p.inputs.set(slot, x)
    }
    pub fn outputs(&self, program: usize) -> Tensors<'_> {
        self.programs[program].outputs.tensors()
    }

    pub fn params(&self) -> Tensors<'_> {
        self.params.tensors()
    }
    pub fn param_mut(&mut self, slot: usize) -> &mut [f32] {
        self.params.view_mut(slot)
    }
    pub fn write_param(&mut self, slot: usize, at: usize, values: impl Iterator<Item = f32>) {
        self.params.write(slot, at, values);
    }
    pub fn states(&self) -> Tensors<'_> {
        self.states.tensors()
    }
    pub fn state_bytes_mut(&mut self, slot: usize) -> &mut [u8] {
        self.states.raw_mut(slot)
    }

    /// Puts the chosen states where they start: zeros, or copies of a parameter.
    pub fn reset_states(&mut self, chosen: impl Fn(&str) -> bool) {
        let done = self.health.check().and_then(|()| self.try_reset(chosen));
        done.unwrap_or_else(|e| self.health.fail(e));
    }

    fn try_reset(&mut self, chosen: impl Fn(&str) -> bool) -> Result<(), DeviceError> {
        let device = self.memory.device.clone();
        for (slot, s) in self.artifact.manifest.states.iter().enumerate().filter(|(_, s)| chosen(&s.name)) {
            let (to, bytes) = (self.states.address(slot), self.states.layout().slot_bytes(slot));
            self.states.outdate(slot);
            match s.init.as_ref().and_then(|n| self.params.layout().find(n)) {
                None => device.fill(to, bytes, 0)?,
                Some(param) => {
                    self.params.flush_slot(param)?;
                    let from = self.params.address(param);
                    let part = self.params.layout().slot_bytes(param);
                    if part > 0 {
                        let starts = (0..bytes).step_by(part);
                        starts.map(|at| to + at as u64).try_for_each(|to| device.copy(from, to, part))?;
                    }
                }
            }
        }
        Ok(())
    }

    pub fn layout(&self) -> &Layout {
        &self.pools.layout
    }
    /// Copies what a row holds after so many positions.
    pub fn copy_row(&mut self, from: usize, to: usize, positions: usize) {
        let device = self.memory.device.clone();
        let done = self.health.check();
        let done = done.and_then(|()| self.pools.copy(&mut self.states, &*device, (from, to), positions));
        done.unwrap_or_else(|e| self.health.fail(e));
    }
    pub fn save_row(&mut self, row: usize, positions: &Range<usize>) -> Result<(Vec<u8>, Vec<u8>), DeviceError> {
        self.health.check()?;
        let device = self.memory.device.clone();
        self.pools.save(&mut self.states, &*device, row, positions).inspect_err(|e| self.health.fail(e.clone()))
    }
    /// Puts a snapshot that was checked into a row.
    pub fn restore_row(&mut self, row: usize, s: &RowSnapshot) {
        let device = self.memory.device.clone();
        let done = self.health.check().and_then(|()| self.pools.restore(&mut self.states, &*device, row, s));
        done.unwrap_or_else(|e| self.health.fail(e));
    }
    /// Puts a row where a sequence starts.
    pub fn reset_row(&mut self, row: usize) {
        let device = self.memory.device.clone();
        let done = self.health.check();
        let done = done.and_then(|()| self.pools.reset(&mut self.states, &mut self.params, &*device, row));
        done.unwrap_or_else(|e| self.health.fail(e));
    }

    /// Runs a program on what its inputs hold. After a failure, which [`Machine::check`] gives, nothing runs.
    pub fn run(&mut self, program: usize) {
        let done = self.health.check().and_then(|()| self.try_run(program));
        done.unwrap_or_else(|e| self.health.fail(e));
    }

    fn try_run(&mut self, program: usize) -> Result<(), DeviceError> {
        self.params.flush()?;
        self.states.flush()?;
        let device = &*self.memory.device;
        let p = &mut self.programs[program];
        for u in p.uploads.iter_mut().filter(|u| u.dirty) {
            device.upload(u.to, p.inputs.raw(u.slot))?;
            u.dirty = false;
        }
        device.forget(self.arena.0, p.arena.min(self.arena.1))?;
        for slot in 0..p.outputs.addresses().len() {
            device.forget(p.outputs.address(slot), p.outputs.layout().slot_bytes(slot))?;
            p.outputs.outdate(slot);
        }
        p.params.iter().for_each(|slot| self.params.outdate(*slot));
        p.states.iter().for_each(|slot| self.states.outdate(*slot));
        let Some((sums, times)) = &mut p.times else { return device.run(p.prepared) };
        device.time(p.prepared, times)?;
        p.exec.origins.iter().zip(times).for_each(|(launch, ns)| sums[*launch as usize] += *ns);
        Ok(())
    }

    /// Waits until the device has done what it was told, and gives its first failure.
    pub fn wait(&self) -> Result<(), DeviceError> {
        self.health.check()?;
        self.device().synchronize().inspect_err(|e| self.health.fail(e.clone()))
    }

    /// Starts to measure a program's launches, or stops; gives the nanoseconds measured so far.
    pub fn measure(&mut self, program: usize, on: bool) -> Vec<u64> {
        let program = &mut self.programs[program];
        let zeros = || (vec![0; program.exec.launches], vec![0; program.exec.sequence.len()]);
        std::mem::replace(&mut program.times, on.then(zeros)).map_or(vec![], |t| t.0)
    }

    /// A copy of all parameters and of these states as they are now, to be read while the model goes on.
    pub fn copied(&mut self, chosen: impl Fn(&str) -> bool) -> Result<Copied, DeviceError> {
        self.health.check()?;
        self.params.flush()?;
        self.states.flush()?;
        let mut parts = vec![];
        let mut add = |mirror: &Mirror, chosen: &dyn Fn(&str) -> bool| {
            let all = mirror.layout().slots().iter().enumerate().filter(|(_, s)| chosen(&s.name));
            parts.extend(all.clone().map(|(i, _)| (mirror.address(i), mirror.layout().slot_bytes(i))));
            all.map(|(_, s)| s.clone()).collect()
        };
        let slots = [add(&self.params, &|_| true), add(&self.states, &chosen)];
        Ok(Copied { snapshot: self.device().snapshot(&parts)?, slots })
    }
}

/// Parameters and states of one moment, which still lie on the device.
pub struct Copied {
    snapshot: Box<dyn Snapshot>,
    /// Of the parameters and of the states, in the order of the snapshot.
    slots: [Vec<Slot>; 2],
}

impl Copied {
    /// Brings them here: parameters, then states.
    pub fn read(mut self) -> Result<[Store; 2], MachineError> {
        let mut part = 0;
        let mut read = |slots: &[Slot]| -> Result<Store, MachineError> {
            let mut store = Store::new(slots.iter().map(|s| (s.name.as_str(), s.dtype, s.shape.as_slice())))?;
            for slot in 0..slots.len() {
                self.snapshot.read(part, store.raw_mut(slot))?;
                part += 1;
            }
            Ok(store)
        };
        Ok([read(&self.slots[0])?, read(&self.slots[1])?])
    }
}

fn entry_of(i: usize, k: &KernelRecord) -> Entry {
    let (threads, shared) = k.block.map_or((0, 0), |b| (b.threads, b.shared));
    Entry { name: entry(i, &k.name), operands: k.operands.len(), threads, shared }
}

/// The slots of the places that a plan mentions, each once.
fn touched(p: &Plan, slot: impl Fn(&Place) -> Option<usize>) -> Vec<usize> {
    p.buffers.iter().filter_map(|b| slot(&b.place)).collect::<BTreeSet<usize>>().into_iter().collect()
}

/// What needs memory, in the order in which it is allocated; the arena comes last.
struct Parts {
    params: Store,
    states: Store,
    tables: Store,
    /// Inputs and outputs of each program.
    ports: Vec<(Store, Store)>,
    pools: Layout,
    arena: usize,
}

impl Parts {
    fn new(a: &Artifact, rows: usize) -> Result<Parts, MachineError> {
        let m = &a.manifest;
        let both = |p: &Plan| Ok((ports(&p.inputs)?, ports(&p.outputs)?));
        Ok(Parts {
            params: Store::new(m.params.iter().map(|p| (p.name.as_str(), p.dtype, p.shape.as_slice())))?,
            states: Store::new(m.states.iter().map(|s| (s.name.as_str(), s.dtype, s.shape.as_slice())))?,
            tables: tables(m)?,
            ports: m.programs.iter().map(both).collect::<std::io::Result<_>>()?,
            pools: Layout::new(m, rows),
            arena: m.programs.iter().map(|p| p.arena).max().unwrap_or(0) as usize,
        })
    }

    fn allocate(&self, device: &Arc<dyn Device>) -> Result<Memory, DeviceError> {
        let stores = [&self.params, &self.states, &self.tables].into_iter();
        let stores = stores.chain(self.ports.iter().flat_map(|(i, o)| [i, o]));
        let sizes = stores
            .flat_map(|s| (0..s.slots().len()).map(|i| s.slot_bytes(i)))
            .chain(self.pools.parts.iter().map(|p| p.bytes * self.pools.rows));
        let sizes = sizes.chain([self.arena]);
        match device.alloc(&sizes.collect::<Vec<_>>()) {
            Ok(addresses) => Ok(Memory { device: device.clone(), addresses }),
            Err(DeviceError::Memory { device, asked, free, total, .. }) => {
                let of = |s: &Store| Bytes(s.bytes() as u64);
                let ports = self.ports.iter().map(|(i, o)| i.bytes() + o.bytes()).sum::<usize>() as u64;
                let what = format!(
                    " ({} of parameters, {} of states, {} of inputs and outputs, {} of values in between)",
                    of(&self.params),
                    Bytes((self.states.bytes() + self.pools.rows * self.pools.row_bytes()) as u64),
                    Bytes(ports),
                    Bytes(self.arena as u64)
                );
                Err(DeviceError::Memory { device, asked, free, total, what })
            }
            Err(e) => Err(e),
        }
    }
}

/// Where the tensors of a model lie.
struct Places<'a> {
    params: &'a Mirror,
    states: &'a Mirror,
    /// Where states with rows lie, for a program that runs over several.
    pooled: Option<&'a Pools>,
    tables: (&'a Store, &'a [Address]),
    arena: Address,
}

impl Places<'_> {
    /// Where the pool of a state lies, if that is what the program works on.
    fn pool(&self, name: &str) -> Option<Address> {
        self.pooled?.address(self.states.layout().find(name)?)
    }
    /// The slot of a state that is not in a pool.
    fn state(&self, place: &Place) -> Option<usize> {
        match place {
            Place::State(n) if self.pool(n).is_none() => self.states.layout().find(n),
            _ => None,
        }
    }

    fn resolve(
        &self,
        p: &Plan,
        records: &[KernelRecord],
        kernels: &[Kernel],
        inputs: (&Store, &[Address]),
        outputs: &Mirror,
        device: &dyn Device,
    ) -> Result<(Exec, Prepared), MachineError> {
        let of = |(store, at): (&Store, &[Address]), name: &str| store.find(name).map(|slot| at[slot]);
        let exec = resolve(p, records, kernels, &|place| match place {
            Place::Arena(at) => Some(self.arena + at),
            Place::Scratch(_) => None,
            Place::Param(n) => self.params.find(n),
            Place::State(n) => match self.pool(n) {
                Some(at) => Some(at),
                None => self.states.find(n),
            },
            Place::Table(n) => of(self.tables, n),
            Place::Input(n) => of(inputs, n),
            Place::Output(n) => outputs.find(n),
        });
        let exec = exec.map_err(|e| MachineError::Unknown { device: device.name(), why: e.to_string() })?;
        let prepared = device.prepare(&exec.sequence)?;
        Ok((exec, prepared))
    }
}
