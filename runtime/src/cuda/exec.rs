//! From a checked plan to launches with addresses: every launch is one kernel over its own units, and a loop is all of its
//! rounds in a row, since a device replays the whole of it.
use super::device::{Address, Kernel, Launch, Sequence};
use super::hazards::{Hazards, Touch};
use crate::artifact::PlanError;
use lolm_ir::artifact::{Block, KernelRecord};
use lolm_ir::kernel::Mode;
use lolm_ir::plan::{self, Access, Place, Plan, Span, Stage, Step};

/// A plan as a device runs it.
#[derive(Debug, Default)]
pub struct Exec {
    pub sequence: Sequence,
    /// Of each launch of the sequence, the one of the plan that it is.
    pub origins: Vec<u32>,
    /// Launches of the plan.
    pub launches: usize,
}

/// More launches than any program has; a greater count would only fill the memory.
const MOST_LAUNCHES: usize = 1 << 22;

/// Resolves a plan. `kernels` are the device's, in the order of the records; `address` says where every tensor lies.
pub fn resolve(
    p: &Plan,
    records: &[KernelRecord],
    kernels: &[Kernel],
    address: &dyn Fn(&Place) -> Option<Address>,
) -> Result<Exec, PlanError> {
    let mut exec = Exec::default();
    let mut hazards = Hazards::default();
    for step in &p.steps {
        let (times, body) = match step {
            Step::Launch(l) => (1, std::slice::from_ref(l)),
            Step::Repeat { times, body } => (*times, body.as_slice()),
        };
        let first = exec.launches as u32;
        exec.launches += body.len();
        for round in 0..times {
            for (l, origin) in body.iter().zip(first..) {
                let resolver = Resolver { p, records, kernels, address };
                resolver.launch(l, round, origin, &mut exec, &mut hazards).map_err(|what| PlanError {
                    place: format!("program `{}`, launch `{}`", p.program, l.name),
                    what,
                })?;
            }
        }
    }
    Ok(exec)
}

struct Resolver<'a> {
    p: &'a Plan,
    records: &'a [KernelRecord],
    kernels: &'a [Kernel],
    address: &'a dyn Fn(&Place) -> Option<Address>,
}

impl Resolver<'_> {
    fn launch(
        &self,
        l: &plan::Launch,
        round: u32,
        origin: u32,
        exec: &mut Exec,
        hazards: &mut Hazards,
    ) -> Result<(), String> {
        let stage = match l.stages.as_slice() {
            [Stage::Kernel(k)] if l.grid.is_empty() && k.span == Span::Same => k,
            _ => return Err(format!("a GPU runs launches of one kernel over its own units; this has {}", stages(l))),
        };
        let at = stage.kernel as usize;
        let (record, kernel) =
            self.records.get(at).zip(self.kernels.get(at)).ok_or(format!("there is no kernel {at}"))?;
        let block = record.block.ok_or(format!("kernel `{}` does not say its blocks", record.name))?;
        let grid = blocks(record, block)?;
        if grid == 0 {
            return Ok(());
        }
        if exec.origins.len() == MOST_LAUNCHES {
            return Err(format!("more than {MOST_LAUNCHES} launches"));
        }
        let operands = stage.operands.iter().map(|a| self.pointer(a, round)).collect::<Result<Vec<_>, _>>()?;
        let modes = stage.operands.iter().zip(&record.operands);
        let touches = modes.map(|(a, mode)| self.touch(a, *mode)).collect::<Result<Vec<_>, _>>()?;
        let (block, shared, after) = (block.threads, block.shared, hazards.next(&touches));
        exec.sequence.push(Launch { kernel: *kernel, grid, block, shared, operands: &operands, after: &after });
        exec.origins.push(origin);
        Ok(())
    }

    fn pointer(&self, a: &Access, round: u32) -> Result<Address, String> {
        let (buffer, start) = self.buffer(a)?;
        if a.rebase != 0 {
            return Err(format!("buffer `{}` is moved back by {} elements a unit", buffer.name, a.rebase));
        }
        let elements = a.base + a.iter * round as i64;
        Ok(start.wrapping_add_signed(elements * buffer.dtype.bytes() as i64))
    }

    /// A kernel may touch all of a buffer, wherever in it its pointer stands.
    fn touch(&self, a: &Access, mode: Mode) -> Result<Touch, String> {
        let (buffer, start) = self.buffer(a)?;
        let bytes = buffer.len * buffer.dtype.bytes() as u64;
        Ok(Touch { bytes: start..start + bytes, writes: mode != Mode::In })
    }

    fn buffer(&self, a: &Access) -> Result<(&plan::Buffer, Address), String> {
        let buffer = self.p.buffers.get(a.buffer.0 as usize).ok_or(format!("there is no buffer {}", a.buffer.0))?;
        let start = (self.address)(&buffer.place)
            .ok_or(format!("buffer `{}` has no memory on a GPU: it lies in {:?}", buffer.name, buffer.place))?;
        Ok((buffer, start))
    }
}

/// What stands in a launch that is not one kernel.
fn stages(l: &plan::Launch) -> String {
    let name = |s: &Stage| match s {
        Stage::Kernel(k) if k.span == Span::Same => "a kernel",
        Stage::Kernel(_) => "a part of a kernel",
        Stage::Gemm(_) => "a matrix product",
        Stage::Group(_) => "a grouping",
        Stage::Routed(_) => "a product of experts",
    };
    let names: Vec<&str> = l.stages.iter().map(name).collect();
    format!("{} over the grid {:?}", if names.is_empty() { "nothing".into() } else { names.join(", ") }, l.grid)
}

/// Blocks of a launch.
pub fn blocks(k: &KernelRecord, b: Block) -> Result<u32, String> {
    let grid = k.units.div_ceil(b.units.max(1) as u64);
    match u32::try_from(grid) {
        Ok(n) if n <= i32::MAX as u32 => Ok(n),
        _ => Err(format!("{grid} blocks of kernel `{}`, more than a GPU has numbers for", k.name)),
    }
}
