//! A model in memory: an artifact with its parameters, states and threads, whose programs can be run.
//!
//! Two ways to run a program. [`Model::call`] takes and gives tensors by name and checks them. For loops, look ports up
//! once ([`Model::input`], [`Model::output`]), write the input slices, [`Model::run`], read the output slices: nothing is
//! allocated or looked up then.
//!
//! On a device, what is read is fetched, so [`Model::output_part`] where a part is enough. A device can fail: then nothing
//! runs any more, what is read is NaN, and [`Model::check`], which every loop asks, says why.
use crate::artifact::Artifact;
use crate::cpu::gemm::Isa;
use crate::cpu::machine::MachineError;
use crate::cpu::memory::Element;
use crate::cuda::device::{Device, DeviceError};
use crate::cuda::machine::Copied;
use crate::machine::Machine;
use crate::rows::{Meter, RowError, RowSnapshot};
use crate::tensor::Tensor;
use crate::tensors::Tensors;
use lolm_ir::DType;
use lolm_ir::artifact::{Manifest, lanes};
use lolm_ir::plan::{Plan, Port};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// A model, ready to run.
pub struct Model {
    machine: Machine,
}

/// A program of a model, by position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProgramId(usize);

/// An input of a program that was looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Input {
    program: usize,
    slot: usize,
}

/// An output of a program that was looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Output {
    program: usize,
    slot: usize,
}

/// Why a model cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("the artifact has no program `{name}`; it has {}", found.join(", "))]
    NoProgram { name: String, found: Vec<String> },
    #[error(
        "program `{name}` decodes {lanes} sequences side by side, but the model was loaded with {rows} rows: load it with \
         {lanes} or more"
    )]
    TooFewRows { name: String, lanes: usize, rows: usize },
    #[error(transparent)]
    Row(#[from] RowError),
    #[error("program `{program}` has no {what} `{name}`; it has {}", found.join(", "))]
    NoPort { program: String, what: &'static str, name: String, found: Vec<String> },
    #[error("{what} `{name}` of program `{program}` is {expected}, not {found}")]
    PortType { program: String, what: &'static str, name: String, expected: String, found: String },
    #[error("program `{program}` needs the input `{name}`")]
    MissingInput { program: String, name: String },
}

impl Model {
    /// Loads a model with zero parameters and initial states. `threads` counts the calling one.
    pub fn load(artifact: Artifact, threads: usize) -> Result<Model, ModelError> {
        Model::load_with(artifact, threads, Isa::detect())
    }

    /// As [`Model::load`], with this instruction set for matrix products, on which the bits of the results do not depend.
    pub fn load_with(artifact: Artifact, threads: usize, isa: Isa) -> Result<Model, ModelError> {
        Model::load_rows_with(artifact, threads, isa, 0)
    }

    /// As [`Model::load`], with this many rows for sequences that are decoded side by side, by programs of as many lanes
    /// or fewer, and one row more for all other programs. Its states are those of [`Model::states`].
    pub fn load_rows(artifact: Artifact, threads: usize, rows: usize) -> Result<Model, ModelError> {
        Model::load_rows_with(artifact, threads, Isa::detect(), rows)
    }

    /// As [`Model::load_rows`], with this instruction set for matrix products.
    pub fn load_rows_with(artifact: Artifact, threads: usize, isa: Isa, rows: usize) -> Result<Model, ModelError> {
        let mut model = Model { machine: Machine::cpu(with_lanes(artifact, rows), threads, isa, rows)? };
        model.reset_states();
        Ok(model)
    }

    /// Loads a model on a device, with zero parameters and initial states.
    pub fn load_on(artifact: Artifact, device: Arc<dyn Device>) -> Result<Model, ModelError> {
        Model::load_rows_on(artifact, device, 0)
    }

    /// As [`Model::load_rows`], on a device.
    pub fn load_rows_on(artifact: Artifact, device: Arc<dyn Device>, rows: usize) -> Result<Model, ModelError> {
        let mut model = Model { machine: Machine::cuda(with_lanes(artifact, rows), device, rows)? };
        model.reset_states();
        model.check()?;
        Ok(model)
    }

    pub fn artifact(&self) -> &Artifact {
        self.machine.artifact()
    }
    pub fn manifest(&self) -> &Manifest {
        &self.artifact().manifest
    }
    /// Threads that compute; one on a device, which only waits.
    pub fn threads(&self) -> usize {
        self.machine.threads()
    }
    /// The device's name, if the model is not on the CPU.
    pub fn device(&self) -> Option<String> {
        self.machine.device()
    }
    /// What made the device fail, if it did; on the CPU nothing does.
    pub fn check(&self) -> Result<(), DeviceError> {
        self.machine.check()
    }

    // ---- programs and ports

    /// The plans of the artifact's programs.
    pub fn plans(&self) -> &[Plan] {
        &self.artifact().manifest.programs
    }
    pub fn plan(&self, p: ProgramId) -> &Plan {
        &self.artifact().manifest.programs[p.0]
    }
    pub fn has_program(&self, name: &str) -> bool {
        self.plans().iter().any(|p| p.program == name)
    }
    pub fn program(&self, name: &str) -> Result<ProgramId, ModelError> {
        let found = || self.plans().iter().map(|p| p.program.clone()).collect();
        let at = self.plans().iter().position(|p| p.program == name).map(ProgramId);
        if let (None, Some(lanes)) = (at, lanes(name).filter(|n| *n > self.rows())) {
            return Err(ModelError::TooFewRows { name: name.into(), lanes, rows: self.rows() });
        }
        at.ok_or_else(|| ModelError::NoProgram { name: name.into(), found: found() })
    }
    /// Looks an input up and checks its dtype.
    pub fn input(&self, p: ProgramId, name: &str, dtype: DType) -> Result<Input, ModelError> {
        let slot = self.port(p, "input", &self.plan(p).inputs, Tensors::here(self.machine.inputs(p.0)), name, dtype)?;
        Ok(Input { program: p.0, slot })
    }
    /// Looks an output up and checks its dtype.
    pub fn output(&self, p: ProgramId, name: &str, dtype: DType) -> Result<Output, ModelError> {
        let slot = self.port(p, "output", &self.plan(p).outputs, self.machine.outputs(p.0), name, dtype)?;
        Ok(Output { program: p.0, slot })
    }
    pub fn has_input(&self, p: ProgramId, name: &str) -> bool {
        self.machine.inputs(p.0).find(name).is_some()
    }
    pub fn has_output(&self, p: ProgramId, name: &str) -> bool {
        self.machine.outputs(p.0).find(name).is_some()
    }

    fn port(
        &self,
        p: ProgramId,
        what: &'static str,
        ports: &[Port],
        found: Tensors,
        name: &str,
        dtype: DType,
    ) -> Result<usize, ModelError> {
        let program = || self.plan(p).program.clone();
        let Some(slot) = found.find(name) else {
            let found = ports.iter().map(|p| p.name.clone()).collect();
            return Err(ModelError::NoPort { program: program(), what, name: name.into(), found });
        };
        let found = found.slots()[slot].dtype;
        match found == dtype {
            true => Ok(slot),
            false => Err(ModelError::PortType {
                program: program(),
                what,
                name: name.into(),
                expected: found.to_string(),
                found: dtype.to_string(),
            }),
        }
    }

    /// What an input holds, for writing. T has the size of the port's dtype.
    pub fn input_mut<T: Element>(&mut self, i: Input) -> &mut [T] {
        self.machine.input_mut(i.program, i.slot)
    }
    /// What an input holds.
    pub fn input_slice<T: Element>(&self, i: Input) -> &[T] {
        self.machine.inputs(i.program).view(i.slot)
    }
    /// Elements of an input.
    pub fn input_len(&self, i: Input) -> usize {
        self.machine.inputs(i.program).slots()[i.slot].len
    }
    /// What an output holds after a run.
    pub fn output_slice<T: Element>(&self, o: Output) -> &[T] {
        self.machine.outputs(o.program).view(o.slot)
    }
    /// Some elements of an output: on a device, only they are fetched.
    pub fn output_part<T: Element>(&self, o: Output, elements: Range<usize>) -> &[T] {
        self.machine.outputs(o.program).part(o.slot, elements)
    }
    /// Elements of an output.
    pub fn output_len(&self, o: Output) -> usize {
        self.machine.outputs(o.program).slots()[o.slot].len
    }
    pub fn output_tensor(&self, o: Output) -> Tensor {
        self.machine.outputs(o.program).get(o.slot)
    }

    // ---- running

    /// Runs a program on what its inputs hold.
    pub fn run(&mut self, p: ProgramId) {
        self.machine.run(p.0);
    }

    /// Waits until what was run is done; reading what it gave waits too.
    pub fn wait(&self) -> Result<(), DeviceError> {
        self.machine.wait()
    }

    /// Runs a program on these inputs, which must be all of them, and gives all outputs.
    pub fn call(&mut self, name: &str, inputs: &[(&str, Tensor)]) -> Result<BTreeMap<String, Tensor>, ModelError> {
        let p = self.program(name)?;
        let program = || name.to_string();
        for (port, x) in inputs {
            let slot = self.input(p, port, x.dtype())?.slot;
            let declared = &self.plan(p).inputs[slot];
            if !x.fits(declared) {
                return Err(ModelError::PortType {
                    program: program(),
                    what: "input",
                    name: port.to_string(),
                    expected: format!("{}{:?}", declared.dtype, declared.shape),
                    found: format!("{}{:?} of {} elements", x.dtype(), x.shape, x.len()),
                });
            }
            self.machine.set_input(p.0, slot, x);
        }
        if let Some(missing) = self.plan(p).inputs.iter().find(|i| inputs.iter().all(|(n, _)| *n != i.name)) {
            return Err(ModelError::MissingInput { program: program(), name: missing.name.clone() });
        }
        self.run(p);
        let found = self.machine.outputs(p.0);
        let outputs = found.slots().iter().enumerate().map(|(i, s)| (s.name.clone(), found.get(i))).collect();
        self.check()?;
        Ok(outputs)
    }

    /// Starts to measure the launches of a program, or stops and gives the nanoseconds of each, in the order of the plan.
    /// Measured runs are slower: threads meet after every launch.
    pub fn measure(&mut self, p: ProgramId, on: bool) -> Vec<u64> {
        self.machine.measure(p.0, on)
    }

    // ---- parameters and states

    pub fn params(&self) -> Tensors<'_> {
        self.machine.params()
    }
    /// Writes elements of a parameter, by its slot in [`Model::params`], from element `at` on: each is rounded to the
    /// nearest value that the parameter is stored as. What it can hold stays as it is.
    pub fn write_param(&mut self, slot: usize, at: usize, values: impl Iterator<Item = f32>) {
        self.machine.write_param(slot, at, values);
    }
    /// A parameter that is stored as f32, by its slot in [`Model::params`], for writing.
    pub fn param_mut(&mut self, slot: usize) -> &mut [f32] {
        self.machine.param_mut(slot)
    }
    pub fn states(&self) -> Tensors<'_> {
        self.machine.states()
    }
    /// The bytes of a state, by its slot in [`Model::states`], for writing.
    pub fn state_bytes_mut(&mut self, slot: usize) -> &mut [u8] {
        self.machine.state_bytes_mut(slot)
    }
    /// Puts all states where they start: zeros, or a copy of a parameter.
    pub fn reset_states(&mut self) {
        self.reset_states_if(|_| true);
    }
    /// Puts those states where they start whose names are chosen.
    pub fn reset_states_if(&mut self, chosen: impl Fn(&str) -> bool) {
        self.machine.reset_states(chosen);
    }

    // ---- rows

    /// Rows of sequences that are decoded side by side, from 0 on. The row of this number is the one on which all other
    /// programs run, whose states [`Model::states`] shows.
    pub fn rows(&self) -> usize {
        self.machine.layout().rows
    }
    /// Bytes of a row, in all states.
    pub fn row_bytes(&self) -> usize {
        self.machine.layout().row_bytes()
    }
    /// Bytes of a row's snapshot after so many positions.
    pub fn snapshot_bytes(&self, positions: usize) -> usize {
        self.machine.layout().used(positions)
    }
    /// Makes row `to` the sequence that row `from` is, which has so many positions.
    pub fn copy_row(&mut self, from: usize, to: usize, positions: usize) -> Result<(), ModelError> {
        [from, to].into_iter().try_for_each(|row| self.machine.layout().check(row))?;
        self.machine.copy_row(from, to, positions);
        Ok(self.check()?)
    }
    /// Those of them that are kept of these positions, which snapshots share.
    pub fn kept_bytes(&self, positions: &Range<usize>) -> usize {
        self.machine.layout().kept(positions)
    }
    /// The sequence that a row is, which has so many positions.
    pub fn save_row(&mut self, row: usize, positions: usize) -> Result<RowSnapshot, ModelError> {
        self.save_row_behind(row, positions, None, &Meter::default())
    }
    /// The same, sharing what is kept of its beginning with `base`, a snapshot of that. The meter counts what is not shared.
    pub fn save_row_behind(
        &mut self,
        row: usize,
        positions: usize,
        base: Option<&RowSnapshot>,
        meter: &Meter,
    ) -> Result<RowSnapshot, ModelError> {
        let layout = self.machine.layout();
        layout.check(row)?;
        base.map_or(Ok(()), |b| layout.check_snapshot(b))?;
        // A copy of more positions is not of its beginning, and there is nothing to share.
        let base = base.filter(|b| b.positions() <= positions);
        let from = base.map_or(0, RowSnapshot::positions);
        let (own, kept) = self.machine.save_row(row, &(from..positions))?;
        Ok(RowSnapshot::new(positions, own, kept, base, meter))
    }
    /// Makes a row the sequence that was saved.
    pub fn restore_row(&mut self, row: usize, s: &RowSnapshot) -> Result<(), ModelError> {
        self.machine.layout().check(row)?;
        self.machine.layout().check_snapshot(s)?;
        self.machine.restore_row(row, s);
        Ok(self.check()?)
    }
    /// Makes a row an empty sequence.
    pub fn reset_row(&mut self, row: usize) -> Result<(), ModelError> {
        self.machine.layout().check(row)?;
        self.machine.reset_row(row);
        Ok(self.check()?)
    }

    /// A copy of the parameters and of the chosen states as they are now, which is read while the model goes on; none if
    /// they lie in this memory.
    pub fn copied(&mut self, chosen: impl Fn(&str) -> bool) -> Result<Option<Copied>, DeviceError> {
        self.machine.copied(chosen)
    }
}

/// The artifact with the programs for which there are rows.
fn with_lanes(mut artifact: Artifact, rows: usize) -> Artifact {
    artifact.manifest.programs.retain(|p| lanes(&p.program).is_none_or(|n| n <= rows));
    artifact
}

#[cfg(test)]
mod tests;
