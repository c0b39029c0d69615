//! What runs a model's programs: the CPU, or a device.
use crate::artifact::Artifact;
use crate::cpu::gemm::Isa;
use crate::cpu::machine::MachineError;
use crate::cpu::memory::Element;
use crate::cuda::device::{Device, DeviceError};
use crate::cuda::machine::Copied;
use crate::rows::{Layout, RowSnapshot};
use crate::store::Store;
use crate::tensor::Tensor;
use crate::tensors::Tensors;
use crate::{cpu, cuda};
use std::ops::Range;
use std::sync::Arc;

/// The memory of a model and its programs, on one kind of machine.
pub enum Machine {
    Cpu(Box<cpu::machine::Machine>),
    Cuda(Box<cuda::machine::Machine>),
}

/// The same call of either machine.
macro_rules! on {
    ($self:ident, $m:ident => $call:expr) => {
        match $self {
            Machine::Cpu($m) => $call,
            Machine::Cuda($m) => $call,
        }
    };
}

impl Machine {
    pub fn cpu(artifact: Artifact, threads: usize, isa: Isa, rows: usize) -> Result<Machine, MachineError> {
        Ok(Machine::Cpu(Box::new(cpu::machine::Machine::new(artifact, threads, isa, rows)?)))
    }
    pub fn cuda(artifact: Artifact, device: Arc<dyn Device>, rows: usize) -> Result<Machine, MachineError> {
        Ok(Machine::Cuda(Box::new(cuda::machine::Machine::new(artifact, device, rows)?)))
    }

    pub fn artifact(&self) -> &Artifact {
        on!(self, m => m.artifact())
    }
    pub fn threads(&self) -> usize {
        match self {
            Machine::Cpu(m) => m.threads(),
            Machine::Cuda(_) => 1,
        }
    }
    pub fn device(&self) -> Option<String> {
        match self {
            Machine::Cpu(_) => None,
            Machine::Cuda(m) => Some(m.name()),
        }
    }
    pub fn check(&self) -> Result<(), DeviceError> {
        match self {
            Machine::Cpu(_) => Ok(()),
            Machine::Cuda(m) => m.check(),
        }
    }

    pub fn inputs(&self, program: usize) -> &Store {
        on!(self, m => m.inputs(program))
    }
    pub fn input_mut<T: Element>(&mut self, program: usize, slot: usize) -> &mut [T] {
        on!(self, m => m.input_mut(program, slot))
    }
    pub fn set_input(&mut self, program: usize, slot: usize, x: &Tensor) -> bool {
        on!(self, m => m.set_input(program, slot, x))
    }
    pub fn outputs(&self, program: usize) -> Tensors<'_> {
        on!(self, m => m.outputs(program))
    }
    pub fn params(&self) -> Tensors<'_> {
        on!(self, m => m.params())
    }
    pub fn param_mut(&mut self, slot: usize) -> &mut [f32] {
        on!(self, m => m.param_mut(slot))
    }
    pub fn write_param(&mut self, slot: usize, at: usize, values: impl Iterator<Item = f32>) {
        on!(self, m => m.write_param(slot, at, values))
    }
    pub fn states(&self) -> Tensors<'_> {
        on!(self, m => m.states())
    }
    pub fn state_bytes_mut(&mut self, slot: usize) -> &mut [u8] {
        on!(self, m => m.state_bytes_mut(slot))
    }
    pub fn reset_states(&mut self, chosen: impl Fn(&str) -> bool) {
        on!(self, m => m.reset_states(chosen))
    }

    pub fn layout(&self) -> &Layout {
        on!(self, m => m.layout())
    }
    pub fn copy_row(&mut self, from: usize, to: usize, positions: usize) {
        on!(self, m => m.copy_row(from, to, positions))
    }
    /// What a row holds after so many positions that is not kept by position, and what it keeps of them.
    pub fn save_row(&mut self, row: usize, positions: &Range<usize>) -> Result<(Vec<u8>, Vec<u8>), DeviceError> {
        match self {
            Machine::Cpu(m) => Ok(m.save_row(row, positions)),
            Machine::Cuda(m) => m.save_row(row, positions),
        }
    }
    pub fn restore_row(&mut self, row: usize, s: &RowSnapshot) {
        on!(self, m => m.restore_row(row, s))
    }
    pub fn reset_row(&mut self, row: usize) {
        on!(self, m => m.reset_row(row))
    }

    pub fn run(&mut self, program: usize) {
        on!(self, m => m.run(program))
    }
    pub fn wait(&self) -> Result<(), DeviceError> {
        match self {
            Machine::Cpu(_) => Ok(()),
            Machine::Cuda(m) => m.wait(),
        }
    }
    pub fn measure(&mut self, program: usize, on: bool) -> Vec<u64> {
        on!(self, m => m.measure(program, on))
    }
    pub fn copied(&mut self, chosen: impl Fn(&str) -> bool) -> Result<Option<Copied>, DeviceError> {
        match self {
            Machine::Cpu(_) => Ok(None),
            Machine::Cuda(m) => m.copied(chosen).map(Some),
        }
    }
}
