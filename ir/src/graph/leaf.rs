//! Leaves: the tensors of memory that a program reads and writes, with their layout.
use super::Graph;
use crate::axis::{AxisId, AxisSet};
use crate::dtype::DType;
use serde::{Deserialize, Serialize};

/// An entry of a graph's table of leaves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LeafId(pub u32);

/// One stored dimension: a product of axes, outermost first; `h*i*p` is one dimension of three axes.
pub type Dim = Vec<AxisId>;

/// How a parameter starts.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    Zeros,
    Constant(f32),
    /// Normal with mean 0 and this standard deviation.
    Normal(f32),
    /// log(1), log(2), … along the last dimension (Mamba's A_log).
    LogRange,
    /// softplus⁻¹ of a log-uniform draw in \[lo, hi\] (Mamba's dt bias).
    DtBias {
        lo: f32,
        hi: f32,
    },
    /// softplus⁻¹ of -log(a) for a² drawn uniformly in \[lo², hi²\] (Griffin's recurrent parameter).
    Decay {
        lo: f32,
        hi: f32,
    },
}
impl Eq for Init {}
impl std::hash::Hash for Init {
    fn hash<H: std::hash::Hasher>(&self, h: &mut H) {
        format!("{self:?}").hash(h)
    }
}

/// Constant tensors that are computed in f64 when a program is loaded, from a formula.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// cos(pos · f) of frequencies f = theta^(-2i/dim), perhaps scaled, with dims \[pos, i\], dim = 2 len(i).
    RopeCos {
        theta: f64,
        scaling: Option<RopeScaling>,
    },
    RopeSin {
        theta: f64,
        scaling: Option<RopeScaling>,
    },
}

/// Llama 3's change of the frequencies f of a rotary embedding: those of wavelengths 2π/f above `original_context /
/// low_freq_factor` are divided by `factor`, those below `original_context / high_freq_factor` stay, and between them
/// the two are blended linearly in the inverse wavelength.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct RopeScaling {
    pub factor: f64,
    pub low_freq_factor: f64,
    pub high_freq_factor: f64,
    pub original_context: usize,
}

impl RopeScaling {
    /// The frequency that stands in place of this one, in radians a position.
    pub fn apply(&self, frequency: f64) -> f64 {
        let turns = self.original_context as f64 * frequency / std::f64::consts::TAU;
        let kept = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor);
        let kept = kept.clamp(0.0, 1.0);
        frequency * (kept + (1.0 - kept) / self.factor)
    }
}
impl Eq for Table {}
impl std::hash::Hash for Table {
    fn hash<H: std::hash::Hasher>(&self, h: &mut H) {
        format!("{self:?}").hash(h)
    }
}

/// Whether a state has a row for each sequence along its first dimension, and what lies in a row.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowKind {
    /// It has none: it is the model's.
    #[default]
    None,
    /// All of a row counts at any position of the sequence.
    Whole,
    /// The second dimension is that of positions: what stands at p is kept at p, and of a sequence of n positions nothing
    /// from n on is ever read.
    Kept,
    /// The second dimension is a ring of positions: what stands at p is kept at p modulo its length.
    Ring,
}

impl RowKind {
    pub const ALL: [RowKind; 4] = [RowKind::None, RowKind::Whole, RowKind::Kept, RowKind::Ring];

    /// As it stands in texts.
    pub fn name(self) -> &'static str {
        match self {
            RowKind::None => "none",
            RowKind::Whole => "whole",
            RowKind::Kept => "kept",
            RowKind::Ring => "ring",
        }
    }
    /// The least number of dimensions of such a state.
    pub fn dims(self) -> usize {
        match self {
            RowKind::None => 0,
            RowKind::Whole => 1,
            RowKind::Kept | RowKind::Ring => 2,
        }
    }
    /// How many of a row's `places` along the second dimension hold something after so many positions.
    pub fn used(self, places: usize, positions: usize) -> usize {
        match self {
            RowKind::None | RowKind::Whole => places,
            RowKind::Kept | RowKind::Ring => positions.min(places),
        }
    }
}

/// What a leaf is to the runtime.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum LeafKind {
    /// A weight under its published name.
    Param(Init),
    /// Data given at each run.
    Input,
    /// Memory that lives from run to run and starts at zero, or as a copy of the named parameter (repeated over the
    /// leading dimensions which that parameter lacks).
    State {
        init: Option<String>,
        rows: RowKind,
    },
    Table(Table),
}

/// A named tensor, stored row-major over `dims`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Leaf {
    pub name: String,
    pub kind: LeafKind,
    pub dtype: DType,
    pub dims: Vec<Dim>,
}

impl Leaf {
    pub fn axes(&self) -> AxisSet {
        self.order().collect()
    }
    /// All axes, outermost first.
    pub fn order(&self) -> impl Iterator<Item = AxisId> + '_ {
        self.dims.iter().flatten().copied()
    }
    /// Lengths of the stored dimensions.
    pub fn shape(&self, g: &Graph) -> Vec<usize> {
        self.dims.iter().map(|d| d.iter().map(|a| g.len(*a)).product()).collect()
    }
}
