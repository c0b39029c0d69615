//! The memory of a model beside its resolved programs: the owner that makes running them safe.
use super::exec::{Exec, Times, Worker, resolve};
use super::gemm::{self, Isa};
use super::memory::{ALIGN, Element, Region};
use super::pool::{Member, Pool};
use super::rows::Pools;
use crate::artifact::{Artifact, Code, PlanError};
use crate::cuda::device::DeviceError;
use crate::rows::{Layout, RowSnapshot};
use crate::store::Store;
use crate::tensor::Tensor;
use crate::tensors::Tensors;
use lolm_ir::DType;
use lolm_ir::artifact::{Manifest, lanes};
use lolm_ir::interp;
use lolm_ir::plan::{Place, Plan, Port};
use std::io;
use std::ops::Range;
use std::sync::atomic::AtomicU64;

/// Tensors, threads and programs of one artifact.
pub struct Machine {
    programs: Vec<Program>,
    pool: Pool,
    workers: Vec<Worker>,
    // Programs have addresses in these stores and regions, so they are never replaced and never handed out as `&mut`.
    params: Store,
    states: Store,
    pools: Pools,
    _tables: Store,
    _arena: Region,
    _scratch: Vec<Region>,
    artifact: Artifact,
}

/// A resolved plan with its ports.
struct Program {
    exec: Exec,
    inputs: Store,
    outputs: Store,
    times: Option<Times>,
}

/// Why a machine cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    #[error(
        "the artifact is for {target} and cannot run on the CPU: run it with `--device cuda`, or compile it with \
         `--target cpu`"
    )]
    OnCpu { target: String },
    #[error(
        "the artifact is for {target} and cannot run on {device}: run it with `--device cpu`, or compile it with \
         `--target cuda`"
    )]
    OnDevice { target: String, device: String },
    #[error("the artifact's plan is not one for {device}: {why}")]
    Unknown { device: String, why: String },
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("not enough memory or threads: {0}")]
    System(#[from] io::Error),
    #[error("bug: a checked plan cannot be resolved: {0}")]
    Plan(#[from] PlanError),
}

impl Machine {
    /// All memory zero but the tables. An `isa` that this CPU lacks is replaced by the best it has. No program has more
    /// lanes than there are rows.
    pub fn new(artifact: Artifact, threads: usize, isa: Isa, rows: usize) -> Result<Machine, MachineError> {
        let isa = if Isa::available().contains(&isa) { isa } else { Isa::detect() };
        let m = &artifact.manifest;
        let Code::Cpu(text) = &artifact.code else {
            return Err(MachineError::OnCpu { target: m.target.clone() });
        };
        let params = Store::new(m.params.iter().map(|p| (p.name.as_str(), p.dtype, p.shape.as_slice())))?;
        let states = Store::new(m.states.iter().map(|s| (s.name.as_str(), s.dtype, s.shape.as_slice())))?;
        let pools = Pools::new(m, rows)?;
        let tables = tables(m)?;
        let most = |f: fn(&Plan) -> u64| m.programs.iter().map(f).max().unwrap_or(0) as usize;
        let arena = Region::new(most(|p| p.arena))?;
        let pool = Pool::new(threads)?;
        let scratch_bytes = most(|p| p.scratch).next_multiple_of(ALIGN);
        let scratch = (0..pool.threads()).map(|_| Region::new(scratch_bytes + size_of::<f32>() * gemm::WORKSPACE));
        let scratch = scratch.collect::<io::Result<Vec<Region>>>()?;
        let worker =
            |r: &Region| Worker { scratch: r.address(), workspace: r.address().wrapping_add(scratch_bytes).cast() };
        let workers = scratch.iter().map(worker).collect();
        let mut programs = vec![];
        for p in &m.programs {
            let (inputs, outputs) = (ports(&p.inputs)?, ports(&p.outputs)?);
            let pooled = |n: &str| lanes(&p.program).and_then(|_| pools.address(n));
            let address = |place: &Place| match place {
                Place::Arena(at) => Some(arena.address().wrapping_add(*at as usize)),
                Place::Scratch(_) => None,
                Place::Param(n) => params.address(n),
                Place::State(n) => pooled(n).or_else(|| states.address(n)),
                Place::Table(n) => tables.address(n),
                Place::Input(n) => inputs.address(n),
                Place::Output(n) => outputs.address(n),
            };
            let exec = resolve(p, &m.kernels, text, isa, &address)?;
            programs.push(Program { exec, inputs, outputs, times: None });
        }
        let (_tables, _arena, _scratch) = (tables, arena, scratch);
        Ok(Machine { programs, pool, workers, params, states, pools, _tables, _arena, _scratch, artifact })
    }

    pub fn artifact(&self) -> &Artifact {
        &self.artifact
    }
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }
    pub fn inputs(&self, program: usize) -> &Store {
        &self.programs[program].inputs
    }
    pub fn input_mut<T: Element>(&mut self, program: usize, slot: usize) -> &mut [T] {
        self.programs[program].inputs.view_mut(slot)
    }
    /// False if the tensor is of another dtype or length.
    pub fn set_input(&mut self, program: usize, slot: usize, x: &Tensor) -> bool {
        self.programs[program].inputs.set(slot, x)
    }
    pub fn outputs(&self, program: usize) -> Tensors<'_> {
        Tensors::here(&self.programs[program].outputs)
    }

    pub fn params(&self) -> Tensors<'_> {
        Tensors::here(&self.params)
    }
    pub fn param_mut(&mut self, slot: usize) -> &mut [f32] {
        self.params.view_mut(slot)
    }
    pub fn write_param(&mut self, slot: usize, at: usize, values: impl Iterator<Item = f32>) {
        self.params.write(slot, at, values);
    }
    pub fn states(&self) -> Tensors<'_> {
        Tensors::here(&self.states)
    }
    pub fn state_bytes_mut(&mut self, slot: usize) -> &mut [u8] {
        self.states.raw_mut(slot)
    }

    /// Puts the chosen states where they start: zeros, or copies of a parameter.
    pub fn reset_states(&mut self, chosen: impl Fn(&str) -> bool) {
        for (slot, s) in self.artifact.manifest.states.iter().enumerate().filter(|(_, s)| chosen(&s.name)) {
            match s.init.as_ref().and_then(|n| self.params.find(n)) {
                None => self.states.raw_mut(slot).fill(0),
                Some(param) => {
                    let start: &[f32] = self.params.view(param);
                    let to: &mut [f32] = self.states.view_mut(slot);
                    if !start.is_empty() {
                        to.chunks_exact_mut(start.len()).for_each(|c| c.copy_from_slice(start));
                    }
                }
            }
        }
    }

    pub fn layout(&self) -> &Layout {
        &self.pools.layout
    }
    pub fn copy_row(&mut self, from: usize, to: usize, positions: usize) {
        self.pools.copy(&mut self.states, from, to, positions);
    }
    pub fn save_row(&self, row: usize, positions: &Range<usize>) -> (Vec<u8>, Vec<u8>) {
        self.pools.save(&self.states, row, positions)
    }
    pub fn restore_row(&mut self, row: usize, s: &RowSnapshot) {
        self.pools.restore(&mut self.states, row, s);
    }
    pub fn reset_row(&mut self, row: usize) {
        self.pools.reset(&mut self.states, &self.params, row);
    }

    /// Runs a program on what its inputs hold. Nothing is allocated.
    pub fn run(&mut self, program: usize) {
        let Program { exec, times, .. } = &self.programs[program];
        let workers = &self.workers;
        self.pool.run(&|me: &Member| {
            // SAFETY: the artifact was checked when it was opened. All addresses are of regions and text that self owns
            // and never replaces; `&mut self` keeps every other view of them away until this call returns. A member has
            // the worker of its own index, which was made for this artifact's plans.
            unsafe { exec.run(me, workers[me.index], times.as_ref()) }
        });
    }

    /// Starts to measure a program's launches, or stops; gives the nanoseconds measured so far.
    pub fn measure(&mut self, program: usize, on: bool) -> Vec<u64> {
        let program = &mut self.programs[program];
        let zeros = || Times((0..program.exec.launches()).map(|_| AtomicU64::new(0)).collect());
        let before = std::mem::replace(&mut program.times, on.then(zeros));
        before.map_or(vec![], |t| t.0.into_iter().map(AtomicU64::into_inner).collect())
    }
}

/// The tables of a model, computed in f64 and rounded once.
pub fn tables(m: &Manifest) -> io::Result<Store> {
    let mut store = Store::new(m.tables.iter().map(|t| (t.name.as_str(), DType::F32, t.shape.as_slice())))?;
    for (slot, t) in m.tables.iter().enumerate() {
        if let [rows, cols] = t.shape[..] {
            let values = interp::table(&t.table, rows, cols);
            store.view_mut::<f32>(slot).iter_mut().zip(values).for_each(|(to, x)| *to = x as f32);
        }
    }
    Ok(store)
}

/// Zeros for ports.
pub fn ports(ports: &[Port]) -> io::Result<Store> {
    Store::new(ports.iter().map(|p| (p.name.as_str(), p.dtype, p.shape.as_slice())))
}
