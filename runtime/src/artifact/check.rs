//! Checks that a manifest is consistent, so that what runs later needs no checks: every name, kernel and buffer exists,
//! every buffer lies in its memory, every matrix of every product lies in its buffer for all units and iterations, and
//! every pointer given to a kernel points into its buffer. What a kernel does with it is the code's business.
use super::bounds::{self, Reach, Space};
use lolm_ir::DType;
use lolm_ir::artifact::{Block, KernelRecord, Manifest, architecture, lanes};
use lolm_ir::graph::RowKind;
use lolm_ir::plan::{
    Access, Buffer, BufferId, Extent, Gemm, KernelStage, Launch, Matrix, Place, Plan, Span, Stage, Step,
};
use std::collections::BTreeSet;

mod routed;

/// The most dimensions of a grid, and the most operands of a kernel.
pub const MAX_DIMS: usize = 8;
pub const MAX_OPERANDS: usize = 256;
/// Bytes that any one thing may have; beyond, the manifest is damaged.
const MOST_BYTES: u128 = 1 << 46;

/// What is wrong with a plan, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad plan: {place}: {what}")]
pub struct PlanError {
    pub place: String,
    pub what: String,
}

type Check = Result<(), PlanError>;

fn fail<T>(place: impl Into<String>, what: impl Into<String>) -> Result<T, PlanError> {
    Err(PlanError { place: place.into(), what: what.into() })
}

/// Elements of a shape, if a machine could hold them.
pub fn elements(shape: &[usize]) -> Option<u64> {
    let n = shape.iter().try_fold(1u128, |n, d| n.checked_mul(*d as u128).filter(|n| *n <= MOST_BYTES))?;
    u64::try_from(n).ok()
}

/// Checks everything.
pub fn manifest(m: &Manifest, code: u64) -> Check {
    let on_gpu = architecture(&m.target).is_some();
    for k in &m.kernels {
        kernel(k, code)?;
        match (&k.block, on_gpu) {
            (Some(b), true) => block(k, b)?,
            (None, false) => {}
            (found, _) => {
                let what = format!("{found:?} as its blocks, which does not go with the target {}", m.target);
                return fail(format!("kernel `{}`", k.name), what);
            }
        }
    }
    unique("parameters", m.params.iter().map(|p| p.name.as_str()))?;
    unique("states", m.states.iter().map(|s| s.name.as_str()))?;
    unique("tables", m.tables.iter().map(|t| t.name.as_str()))?;
    unique("programs", m.programs.iter().map(|p| p.program.as_str()))?;
    let shapes = m.params.iter().map(|p| (&p.name, &p.shape)).chain(m.states.iter().map(|s| (&s.name, &s.shape)));
    for (name, shape) in shapes.chain(m.tables.iter().map(|t| (&t.name, &t.shape))) {
        if elements(shape).is_none() {
            return fail(format!("tensor `{name}`"), format!("the shape {shape:?} is too large"));
        }
    }
    for s in &m.states {
        if s.shape.len() < s.rows.dims() {
            let what = format!("its shape {:?} has too few dimensions for rows ({})", s.shape, s.rows.name());
            return fail(format!("state `{}`", s.name), what);
        }
        let Some(init) = &s.init else { continue };
        let place = format!("state `{}`", s.name);
        match m.params.iter().find(|p| p.name == *init) {
            None => return fail(place, format!("it starts as the parameter `{init}`, which does not exist")),
            Some(p) if !s.shape.ends_with(&p.shape) => {
                return fail(place, format!("its shape {:?} does not end with {:?} of `{init}`", s.shape, p.shape));
            }
            Some(p) if s.dtype != DType::F32 || p.dtype != DType::F32 => {
                return fail(place, format!("it is {} and starts as `{init}`, {}; expected f32", s.dtype, p.dtype));
            }
            Some(_) => (),
        }
    }
    if let Some(p) = m.params.iter().find(|p| !p.dtype.is_float()) {
        return fail(format!("parameter `{}`", p.name), format!("it is {}, expected f32 or bf16", p.dtype));
    }
    for t in &m.tables {
        if t.shape.len() != 2 {
            return fail(format!("table `{}`", t.name), format!("its shape {:?} has not two dimensions", t.shape));
        }
    }
    m.programs.iter().try_for_each(|p| Program { m, p }.check())
}

fn kernel(k: &KernelRecord, code: u64) -> Check {
    let place = || format!("kernel `{}`", k.name);
    if k.len == 0 || k.offset.checked_add(k.len).is_none_or(|end| end > code) {
        return fail(place(), format!("its code, {} bytes at {}, is not within {code} bytes", k.len, k.offset));
    }
    let dims: Vec<usize> = k.unit_dims.iter().map(|d| *d as usize).collect();
    if elements(&dims) != Some(k.units) {
        return fail(place(), format!("{} units, which is not the product of {dims:?}", k.units));
    }
    if k.operands.len() > MAX_OPERANDS {
        return fail(place(), format!("{} operands, more than {MAX_OPERANDS}", k.operands.len()));
    }
    Ok(())
}

/// The most threads of a block, and the most bytes of shared memory that one may ask for on any GPU.
const MOST_THREADS: u32 = 1024;
const MOST_SHARED: u32 = 227 << 10;

fn block(k: &KernelRecord, b: &Block) -> Check {
    let place = || format!("kernel `{}`", k.name);
    if b.threads == 0 || b.threads > MOST_THREADS || !b.threads.is_multiple_of(32) {
        return fail(place(), format!("blocks of {} threads, expected whole warps, at most {MOST_THREADS}", b.threads));
    }
    if b.units == 0 || k.units.div_ceil(b.units as u64) > i32::MAX as u64 {
        return fail(place(), format!("{} units in blocks of {}", k.units, b.units));
    }
    if b.shared > MOST_SHARED {
        return fail(place(), format!("{} bytes of shared memory, more than {MOST_SHARED}", b.shared));
    }
    Ok(())
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Check {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return fail(what, format!("the name `{name}` stands twice"));
        }
    }
    Ok(())
}

/// A program within its manifest.
struct Program<'a> {
    m: &'a Manifest,
    p: &'a Plan,
}

impl Program<'_> {
    fn check(&self) -> Check {
        let place = format!("program `{}`", self.p.program);
        unique(&format!("{place}, inputs"), self.p.inputs.iter().map(|p| p.name.as_str()))?;
        unique(&format!("{place}, outputs"), self.p.outputs.iter().map(|p| p.name.as_str()))?;
        for (what, bytes) in [("arena", self.p.arena), ("scratch memory", self.p.scratch)] {
            if bytes as u128 > MOST_BYTES {
                return fail(place, format!("{bytes} bytes of {what} are too many"));
            }
        }
        self.p.buffers.iter().try_for_each(|b| self.buffer(b))?;
        for (i, step) in self.p.steps.iter().enumerate() {
            let (times, body) = match step {
                Step::Launch(l) => (1, std::slice::from_ref(l)),
                Step::Repeat { times, body } => (*times, body.as_slice()),
            };
            for l in body {
                let place = format!("program `{}`, step {i}, launch `{}`", self.p.program, l.name);
                self.launch(l, times).or_else(|what| fail(place, what))?;
            }
        }
        Ok(())
    }

    fn buffer(&self, b: &Buffer) -> Check {
        let m = self.m;
        let param = |n: &str| m.params.iter().find(|p| p.name == n).map(|p| (p.dtype, &p.shape));
        let state = |n: &str| m.states.iter().find(|s| s.name == n).map(|s| (s.dtype, &s.shape));
        let table = |n: &str| m.tables.iter().find(|t| t.name == n).map(|t| (DType::F32, &t.shape));
        let input = |n: &str| self.p.inputs.iter().find(|p| p.name == n).map(|p| (p.dtype, &p.shape));
        let output = |n: &str| self.p.outputs.iter().find(|p| p.name == n).map(|p| (p.dtype, &p.shape));
        let (found, name) = match &b.place {
            Place::Arena(at) => return self.placed(b, *at, self.p.arena),
            Place::Scratch(at) => return self.placed(b, *at, self.p.scratch),
            Place::Param(n) => (param(n), n),
            Place::State(n) => (state(n), n),
            Place::Table(n) => (table(n), n),
            Place::Input(n) => (input(n), n),
            Place::Output(n) => (output(n), n),
        };
        let place = || format!("program `{}`, buffer `{}`", self.p.program, b.name);
        let Some((dtype, shape)) = found else {
            return fail(place(), format!("`{name}` does not exist, as {:?}", b.place));
        };
        // A program of several lanes sees a pool of rows.
        let pool: Vec<usize> = match (&b.place, lanes(&self.p.program)) {
            (Place::State(n), Some(lanes)) if m.states.iter().any(|s| s.name == *n && s.rows != RowKind::None) => {
                [lanes].into_iter().chain(shape.iter().skip(1).copied()).collect()
            }
            _ => shape.clone(),
        };
        match elements(&pool) {
            Some(n) if dtype == b.dtype && b.len <= n => Ok(()),
            _ => fail(place(), format!("{}[{}], but `{name}` is {dtype}{pool:?}", b.dtype, b.len)),
        }
    }

    fn placed(&self, b: &Buffer, at: u64, whole: u64) -> Check {
        let end = at as u128 + b.len as u128 * b.dtype.bytes() as u128;
        match at.is_multiple_of(64) && end <= whole as u128 {
            true => Ok(()),
            false => fail(
                format!("program `{}`, buffer `{}`", self.p.program, b.name),
                format!("{}[{}] at byte {at} does not fit {whole} bytes, or is not aligned", b.dtype, b.len),
            ),
        }
    }

    fn launch(&self, l: &Launch, times: u32) -> Result<(), String> {
        if l.grid.len() > MAX_DIMS {
            return Err(format!("{} grid dimensions, more than {MAX_DIMS}", l.grid.len()));
        }
        let dims: Vec<usize> = l.grid.iter().map(|d| *d as usize).collect();
        let units = elements(&dims).ok_or(format!("the grid {dims:?} is too large"))?;
        let space = Space { grid: &l.grid, times };
        if l.grid.is_empty() {
            return match l.stages.as_slice() {
                [Stage::Kernel(s)] if s.span == Span::Same => self.kernel_stage(s, space, None),
                _ => Err("without a grid, there must be one kernel over its own units".into()),
            };
        }
        l.stages.iter().try_for_each(|s| match s {
            Stage::Kernel(s) => self.kernel_stage(s, space, Some(units)),
            Stage::Gemm(g) => self.gemm(g, space),
            Stage::Group(g) => self.group(g, units),
            Stage::Routed(r) => self.routed(r, space),
        })
    }

    fn kernel_stage(&self, s: &KernelStage, space: Space, units: Option<u64>) -> Result<(), String> {
        let k = self.m.kernels.get(s.kernel as usize).ok_or(format!("there is no kernel {}", s.kernel))?;
        let (given, has) = (s.operands.len(), k.operands.len());
        if given != has {
            return Err(format!("{given} operands for kernel `{}`, which has {has}", k.name));
        }
        let last = space.grid.last().copied().unwrap_or(1) as u64;
        let fits = match s.span {
            Span::Same => units.is_none_or(|u| u == k.units),
            Span::Tiles { len, tile } => {
                let outer = units.unwrap_or(0) / last.max(1);
                tile > 0 && last == (len as u64).div_ceil(tile as u64) && outer.checked_mul(len as u64) == Some(k.units)
            }
            Span::Rows { len, lo, hi } => {
                lo <= hi && hi <= len && units.and_then(|u| u.checked_mul(len as u64)) == Some(k.units)
            }
        };
        if !fits {
            return Err(format!(
                "{:?} over {:?} does not fit the {} units of `{}`",
                s.span, space.grid, k.units, k.name
            ));
        }
        for (i, a) in s.operands.iter().enumerate() {
            self.access(a, space).map_err(|what| format!("operand {i} of kernel `{}`: {what}", k.name))?;
        }
        Ok(())
    }

    /// A pointer may stand at the end of its buffer, where a kernel has nothing to do.
    fn access(&self, a: &Access, space: Space) -> Result<(), String> {
        let b = self.find(a.buffer)?;
        strides(&a.unit, space)?;
        within(bounds::access(a, space), b.len as i128 + 1, b)
    }

    fn gemm(&self, g: &Gemm, space: Space) -> Result<(), String> {
        for e in [&g.m, &g.n, &g.k] {
            self.extent(e, space)?;
        }
        for (name, x, rows, cols) in [("A", &g.a, &g.m, &g.k), ("B", &g.b, &g.k, &g.n), ("C", &g.c, &g.m, &g.n)] {
            self.matrix(x, rows, cols, space).map_err(|what| format!("matrix {name}: {what}"))?;
        }
        match self.find(g.c.buffer)? {
            Buffer { place: Place::Table(_) | Place::Input(_), .. } => Err("C is a table or an input".into()),
            c if c.dtype != DType::F32 => Err(format!("matrix C: buffer `{}` is {}, expected f32", c.name, c.dtype)),
            _ => Ok(()),
        }
    }

    fn matrix(&self, m: &Matrix, rows: &Extent, cols: &Extent, space: Space) -> Result<(), String> {
        let b = self.find(m.buffer)?;
        strides(&m.unit, space)?;
        if !b.dtype.is_float() {
            return Err(format!("buffer `{}` is {}, expected f32 or bf16", b.name, b.dtype));
        }
        within(bounds::matrix(m, rows, cols, space), b.len as i128, b)
    }

    fn extent(&self, e: &Extent, space: Space) -> Result<(), String> {
        match e {
            Extent::Fixed(_) => Ok(()),
            Extent::Tile { dim, tile, .. } if (*dim as usize) < space.grid.len() && *tile > 0 => Ok(()),
            Extent::Tile { .. } => Err(format!("{e:?} over the grid {:?}", space.grid)),
            Extent::Seen { position, .. } => {
                let b = self.find(position.buffer)?;
                if b.dtype != DType::I32 || position.rebase != 0 {
                    return Err(format!("{e:?} reads `{}`, {}; expected i32 without rebase", b.name, b.dtype));
                }
                strides(&position.unit, space)?;
                within(bounds::access(position, space), b.len as i128, b)
            }
        }
    }

    fn find(&self, id: BufferId) -> Result<&Buffer, String> {
        self.p.buffers.get(id.0 as usize).ok_or(format!("there is no buffer {}", id.0))
    }
}

fn strides(unit: &[i64], space: Space) -> Result<(), String> {
    match unit.is_empty() || unit.len() == space.grid.len() {
        true => Ok(()),
        false => Err(format!("{} unit strides for a grid of {} dimensions", unit.len(), space.grid.len())),
    }
}

fn within(reach: Reach, len: i128, b: &Buffer) -> Result<(), String> {
    match reach {
        Some((lo, hi)) if lo < 0 || hi >= len => {
            Err(format!("elements {lo}..={hi} of buffer `{}`, which has {}", b.name, b.len))
        }
        Some(_) | None => Ok(()),
    }
}
