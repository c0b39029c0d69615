//! From a checked plan to flat arrays of addresses.
use super::{Base, Exec, Extent, Gemm, Launch, Matrix, Pointer, Span, Stage, Step, routed};
use crate::artifact::{MAX_DIMS, PlanError};
use crate::cpu::code::Text;
use crate::cpu::gemm::Isa;
use lolm_ir::DType;
use lolm_ir::artifact::KernelRecord;
use lolm_ir::plan::{self, Access, Place, Plan};
use std::ops::Range;

/// Resolves a plan. `address` says where the tensors of the model, the ports and the arena are; scratch memory, of which
/// each thread has its own, comes with each run.
pub fn resolve(
    p: &Plan,
    kernels: &[KernelRecord],
    text: &Text,
    isa: Isa,
    address: &dyn Fn(&Place) -> Option<*mut u8>,
) -> Result<Exec, PlanError> {
    let exec = Exec { isa, steps: vec![], launches: vec![], stages: vec![], pointers: vec![], strides: vec![] };
    let mut r = Resolver { p, kernels, text, address, exec };
    for step in &p.steps {
        let (times, body) = match step {
            plan::Step::Launch(l) => (1, std::slice::from_ref(l)),
            plan::Step::Repeat { times, body } => (*times, body.as_slice()),
        };
        let first = r.exec.launches.len();
        for l in body {
            let launch = r
                .launch(l)
                .map_err(|what| PlanError { place: format!("program `{}`, launch `{}`", p.program, l.name), what })?;
            r.exec.launches.push(launch);
        }
        r.exec.steps.push(Step { launches: first..r.exec.launches.len(), times });
    }
    place_meetings(&mut r.exec);
    Ok(r.exec)
}

/// A launch of one unit is always the last thread's, so two of them in a row need no meeting in between. The first launch
/// of a loop follows what stands before the loop, and the loop's last.
fn place_meetings(exec: &mut Exec) {
    let mut before_alone = false;
    for s in 0..exec.steps.len() {
        let Step { launches, times } = &exec.steps[s];
        if *times == 0 {
            continue;
        }
        let (launches, looped) = (launches.clone(), *times > 1);
        let end_alone = launches.clone().next_back().is_some_and(|i| exec.launches[i].units <= 1);
        for i in launches {
            let alone = exec.launches[i].units <= 1;
            let first = i == exec.steps[s].launches.start;
            exec.launches[i].meet = !(alone && before_alone && (!first || !looped || end_alone));
            before_alone = alone;
        }
    }
    if let Some(first) = exec.launches.first_mut() {
        // The team has just met; a loop comes back to its start, though.
        first.meet &= exec.steps.first().is_some_and(|s| s.times != 1);
    }
}

struct Resolver<'a> {
    p: &'a Plan,
    kernels: &'a [KernelRecord],
    text: &'a Text,
    address: &'a dyn Fn(&Place) -> Option<*mut u8>,
    exec: Exec,
}

impl Resolver<'_> {
    fn launch(&mut self, l: &plan::Launch) -> Result<Launch, String> {
        let mut dims = [1; MAX_DIMS];
        dims[..l.grid.len()].copy_from_slice(&l.grid);
        let mut units: u64 = l.grid.iter().map(|d| *d as u64).product();
        let first = self.exec.stages.len();
        for stage in &l.stages {
            let stage = match stage {
                plan::Stage::Kernel(k) => self.kernel(k, l)?,
                plan::Stage::Gemm(g) => Stage::Gemm(self.gemm(g)?),
                plan::Stage::Group(g) => Stage::Group(self.group(g)?),
                plan::Stage::Routed(r) => Stage::Routed(Box::new(self.routed(r)?)),
            };
            self.exec.stages.push(stage);
        }
        let stages = first..self.exec.stages.len();
        if let ([], [plan::Stage::Kernel(k)]) = (l.grid.as_slice(), l.stages.as_slice()) {
            units = self.record(k.kernel)?.units;
        }
        Ok(Launch { dims, rank: l.grid.len(), units, whole: self.is_whole(&stages), stages, meet: true })
    }

    fn is_whole(&self, stages: &Range<usize>) -> bool {
        let still = |p: &Pointer| p.rebase == 0 && self.exec.strides[p.strides.clone()].iter().all(|s| *s == 0);
        match &self.exec.stages[stages.clone()] {
            [Stage::Kernel { pointers, span: Span::Same, .. }] => {
                self.exec.pointers[pointers.clone()].iter().all(still)
            }
            _ => false,
        }
    }

    fn record(&self, kernel: u32) -> Result<&KernelRecord, String> {
        self.kernels.get(kernel as usize).ok_or(format!("there is no kernel {kernel}"))
    }

    fn kernel(&mut self, s: &plan::KernelStage, l: &plan::Launch) -> Result<Stage, String> {
        let record = self.record(s.kernel)?;
        let code = self.text.kernel(record.offset).ok_or(format!("kernel `{}` has no code", record.name))?;
        let first = self.exec.pointers.len();
        for a in &s.operands {
            self.pointer(a)?;
        }
        let span = match s.span {
            plan::Span::Same => Span::Same,
            plan::Span::Tiles { len, tile } => {
                let row = l.grid.last().copied().unwrap_or(1).max(1) as u64;
                Span::Tiles { row, len: len as u64, tile: tile as u64 }
            }
            plan::Span::Rows { len, lo, hi } => Span::Rows { len: len as u64, lo: lo as u64, hi: hi as u64 },
        };
        Ok(Stage::Kernel { code, pointers: first..self.exec.pointers.len(), span })
    }

    fn gemm(&mut self, g: &plan::Gemm) -> Result<Gemm, String> {
        let extents = [self.extent(&g.m)?, self.extent(&g.n)?, self.extent(&g.k)?];
        let matrices = [self.matrix(&g.a)?, self.matrix(&g.b)?, self.matrix(&g.c)?];
        Ok(Gemm { extents, matrices, alpha: g.alpha, accumulate: g.accumulate })
    }

    fn group(&mut self, g: &plan::Group) -> Result<routed::Group, String> {
        Ok(routed::Group {
            rows: g.rows as usize,
            experts: g.experts as usize,
            index: self.pointer(&Access { base: g.base, ..Access::whole(g.index) })?,
            order: self.pointer(&Access::whole(g.order))?,
            starts: self.pointer(&Access::whole(g.starts))?,
        })
    }

    fn routed(&mut self, r: &plan::Routed) -> Result<routed::Routed, String> {
        let w = Access { base: r.w.base, unit: r.w.unit.clone(), ..Access::whole(r.w.buffer) };
        Ok(routed::Routed {
            gives: r.gives,
            rows: r.rows as usize,
            experts: r.experts as usize,
            order: self.pointer(&Access::whole(r.order))?,
            starts: self.pointer(&Access::whole(r.starts))?,
            taken: self.extent(&r.taken)?,
            depth: self.extent(&r.depth)?,
            width: self.extent(&r.width)?,
            x: self.rows(&r.x)?,
            y: self.rows(&r.y)?,
            w: routed::Matrices {
                pointer: self.pointer(&w)?,
                expert: r.w.expert as isize,
                row: r.w.row as isize,
                col: r.w.col as isize,
                half: self.buffer(r.w.buffer)?.dtype == DType::Bf16,
            },
            block: r.block as usize,
            tiles: [self.pointer(&Access::whole(r.tiles[0]))?, self.pointer(&Access::whole(r.tiles[1]))?],
        })
    }

    fn rows(&mut self, r: &plan::Rows) -> Result<routed::Rows, String> {
        let a = Access { base: r.base, unit: r.unit.clone(), ..Access::whole(r.buffer) };
        let dims = r.dims.iter().copied().collect();
        Ok(routed::Rows { pointer: self.pointer(&a)?, dims, col: r.col as isize })
    }

    fn matrix(&mut self, m: &plan::Matrix) -> Result<Matrix, String> {
        let a = Access { buffer: m.buffer, base: m.base, unit: m.unit.clone(), iter: m.iter, rebase: 0 };
        let half = self.buffer(m.buffer)?.dtype == DType::Bf16;
        Ok(Matrix { pointer: self.pointer(&a)?, row: m.row as isize, col: m.col as isize, half })
    }

    fn extent(&mut self, e: &plan::Extent) -> Result<Extent, String> {
        Ok(match e {
            plan::Extent::Fixed(n) => Extent::Fixed(*n),
            plan::Extent::Tile { dim, tile, len } => Extent::Tile { dim: *dim as usize, tile: *tile, len: *len },
            plan::Extent::Seen { len, position } => Extent::Seen { len: *len, position: self.pointer(position)? },
        })
    }

    fn buffer(&self, b: plan::BufferId) -> Result<&plan::Buffer, String> {
        self.p.buffers.get(b.0 as usize).ok_or(format!("there is no buffer {}", b.0))
    }

    /// Adds a pointer and returns its position.
    fn pointer(&mut self, a: &Access) -> Result<usize, String> {
        let b = self.buffer(a.buffer)?;
        let bytes = b.dtype.bytes() as i64;
        let base = match &b.place {
            Place::Scratch(at) => Base::Scratch(*at as i64 + a.base * bytes),
            place => {
                let start = (self.address)(place).ok_or(format!("buffer `{}` has no memory", b.name))?;
                Base::Fixed(start.wrapping_offset((a.base * bytes) as isize))
            }
        };
        let first = self.exec.strides.len();
        self.exec.strides.extend(a.unit.iter().map(|s| s * bytes));
        let strides = first..self.exec.strides.len();
        self.exec.pointers.push(Pointer { base, strides, iter: a.iter * bytes, rebase: a.rebase * bytes });
        Ok(self.exec.pointers.len() - 1)
    }
}
