//! `ir::plan`: what the runtime executes. A program's kernels and matrix products in order, and where every buffer lies.
//!
//! A launch is a grid of units that the runtime cuts in a fixed partition among its threads. Each unit runs the launch's
//! stages in order on one thread: generated kernels and library matrix products, which may hand each other tiles in the
//! thread's scratch memory. So a product with a generated epilogue, an attention, a cross-entropy are one launch. The
//! products of a mixture of experts are stages of their own (`plan/routed.rs`): their rows are known when they run.
use crate::dtype::DType;
use serde::{Deserialize, Serialize};

mod routed;
pub mod text;
pub use routed::{Gives, Group, Matrices, ROUTED_COLUMNS, Routed, Rows};

/// A buffer of a plan, by position in [`Plan::buffers`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BufferId(pub u32);

/// Where a buffer lies. Names are those of the artifact's parameters, states and tables and of the program's ports.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// At this byte offset of the program's arena; aligned to 64.
    Arena(u64),
    /// At this byte offset of each thread's scratch memory; aligned to 64.
    Scratch(u64),
    Param(String),
    State(String),
    Table(String),
    Input(String),
    Output(String),
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Buffer {
    pub name: String,
    pub dtype: DType,
    /// Elements.
    pub len: u64,
    pub place: Place,
}

/// A port of a program: what the caller gives or gets, row-major.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Port {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    pub program: String,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    pub buffers: Vec<Buffer>,
    pub steps: Vec<Step>,
    /// Bytes of the arena.
    pub arena: u64,
    /// Bytes of scratch memory a thread.
    pub scratch: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    Launch(Launch),
    /// The launches in order, `times` times; offsets move by their `iter` stride.
    Repeat {
        times: u32,
        body: Vec<Launch>,
    },
}

/// What a launch is, for profiles: the share of time by kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Map,
    Row,
    Reduce,
    Scan,
    Contract,
    Attention,
    CrossEntropy,
    Gather,
    Scatter,
    Optimizer,
}

impl Kind {
    #[rustfmt::skip]
    pub const ALL: [Kind; 10] = {
        use Kind::*;
        [Map, Row, Reduce, Scan, Contract, Attention, CrossEntropy, Gather, Scatter, Optimizer]
    };
    pub fn name(self) -> &'static str {
        match self {
            Kind::Map => "map",
            Kind::Row => "row",
            Kind::Reduce => "reduce",
            Kind::Scan => "scan",
            Kind::Contract => "contract",
            Kind::Attention => "attention",
            Kind::CrossEntropy => "cross_entropy",
            Kind::Gather => "gather",
            Kind::Scatter => "scatter",
            Kind::Optimizer => "optimizer",
        }
    }
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Launch {
    pub name: String,
    pub kind: Kind,
    /// Lengths of the grid; units are numbered row-major. Empty for a launch of one kernel whose units the scheduler
    /// chose: then the kernel's own units are the grid.
    pub grid: Vec<u32>,
    pub stages: Vec<Stage>,
    /// Floating-point operations and bytes moved by the whole launch (all iterations excluded), for rooflines.
    pub flops: u64,
    pub bytes: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Kernel(KernelStage),
    Gemm(Box<Gemm>),
    Group(Box<Group>),
    Routed(Box<Routed>),
}

/// A generated kernel, called as `fn(operands, begin, end)` over its units.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct KernelStage {
    /// Position in the artifact's list of kernels.
    pub kernel: u32,
    pub operands: Vec<Access>,
    pub span: Span,
}

/// Which of the kernel's units belong to a unit of the launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// The launch's grid is the kernel's own.
    Same,
    /// The last grid dimension cuts the kernel's last unit axis, of length `len`, in tiles of `tile` units; earlier
    /// dimensions are the kernel's earlier unit axes: begin = outer·len + i·tile, end = outer·len + min(len, (i+1)·tile).
    Tiles { len: u32, tile: u32 },
    /// The grid is the kernel's unit axes but the last, which has length `len`: begin = unit·len + lo, end = unit·len + hi.
    Rows { len: u32, lo: u32, hi: u32 },
}

impl Step {
    fn stages_mut(&mut self) -> impl Iterator<Item = &mut Stage> {
        let launches = match self {
            Step::Launch(l) => std::slice::from_mut(l),
            Step::Repeat { body, .. } => body,
        };
        launches.iter_mut().flat_map(|l| &mut l.stages)
    }

    /// Shows every number of a kernel, to be changed.
    pub fn kernels_mut(&mut self, mut f: impl FnMut(&mut u32)) {
        for stage in self.stages_mut() {
            match stage {
                Stage::Kernel(k) => f(&mut k.kernel),
                Stage::Gemm(_) | Stage::Group(_) | Stage::Routed(_) => {}
            }
        }
    }

    /// Shows every mention of a buffer, to be changed.
    pub fn buffers_mut(&mut self, mut f: impl FnMut(&mut BufferId)) {
        for stage in self.stages_mut() {
            match stage {
                Stage::Kernel(k) => k.operands.iter_mut().for_each(|a| f(&mut a.buffer)),
                Stage::Gemm(g) => {
                    [&mut g.a, &mut g.b, &mut g.c].into_iter().for_each(|m| f(&mut m.buffer));
                    [&mut g.m, &mut g.n, &mut g.k].into_iter().filter_map(Extent::buffer_mut).for_each(&mut f);
                }
                Stage::Group(g) => [&mut g.index, &mut g.order, &mut g.starts].into_iter().for_each(&mut f),
                Stage::Routed(r) => {
                    [&mut r.order, &mut r.starts].into_iter().for_each(&mut f);
                    [&mut r.x.buffer, &mut r.w.buffer, &mut r.y.buffer].into_iter().for_each(&mut f);
                    r.tiles.iter_mut().for_each(&mut f);
                    let extents = [&mut r.taken, &mut r.depth, &mut r.width].into_iter();
                    extents.filter_map(Extent::buffer_mut).for_each(&mut f);
                }
            }
        }
    }
}

/// A pointer for a kernel: element `Σ unit\[d\] · grid index d + iter · iteration - rebase · begin` of the buffer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Access {
    pub buffer: BufferId,
    pub base: i64,
    /// Elements for each grid dimension; empty for none.
    pub unit: Vec<i64>,
    pub iter: i64,
    /// Elements for each unit of the kernel: a scratch tile that holds this unit's rows only is addressed by the kernel
    /// with its global row, so its pointer is moved back by the rows before it.
    pub rebase: i64,
}

impl Access {
    /// The whole buffer, the same for every unit.
    pub fn whole(buffer: BufferId) -> Self {
        Access { buffer, base: 0, unit: vec![], iter: 0, rebase: 0 }
    }
}

/// C = alpha · A · B, or C += alpha · A · B, in f32: A is m×k, B is k×n, C is m×n with any strides. A and B may be stored as
/// bf16.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Gemm {
    pub m: Extent,
    pub n: Extent,
    pub k: Extent,
    pub a: Matrix,
    pub b: Matrix,
    pub c: Matrix,
    pub alpha: f32,
    pub accumulate: bool,
}

/// A matrix in a buffer: element (r, c) at `base + Σ unit·index + iter·iteration + row·r + col·c`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Matrix {
    pub buffer: BufferId,
    pub base: i64,
    pub unit: Vec<i64>,
    pub iter: i64,
    pub row: i64,
    pub col: i64,
}

/// A length that may depend on the unit or on data.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    Fixed(u32),
    /// Tile i of grid dimension `dim`: min(tile, len - i·tile).
    Tile {
        dim: u8,
        tile: u32,
        len: u32,
    },
    /// As many keys as the query at position p sees, where p is an i32 in memory: min(len, p + 1), at least 0.
    Seen {
        len: u32,
        position: Access,
    },
}

impl Extent {
    /// The buffer of the data that it depends on.
    fn buffer_mut(&mut self) -> Option<&mut BufferId> {
        match self {
            Extent::Seen { position, .. } => Some(&mut position.buffer),
            Extent::Fixed(_) | Extent::Tile { .. } => None,
        }
    }
}

/// What the passes hand to code generation: the plans of all programs over one list of distinct kernels, and the tensors
/// that the programs share.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Module {
    pub kernels: Vec<crate::kernel::Kernel>,
    pub plans: Vec<Plan>,
    pub params: Vec<crate::artifact::ParamRecord>,
    pub states: Vec<crate::artifact::StateRecord>,
    pub tables: Vec<crate::artifact::TableRecord>,
}
