//! The stages of a mixture of experts: rows are grouped by expert once, and products go expert by expert over their rows.
//!
//! Nothing is padded and no row is dropped: how many rows an expert has is read from memory. What a unit takes is a range
//! of the grouped rows, whichever experts they belong to, or a range of columns of every expert, so units are equally
//! large however unevenly the rows are spread.
use super::{BufferId, Extent};
use serde::{Deserialize, Serialize};

/// Rows by the expert that their index names: a stable counting sort.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Group {
    pub rows: u32,
    pub experts: u32,
    /// `i32`: the expert of row r at `base + r`.
    pub index: BufferId,
    pub base: i64,
    /// `i32[rows]`: the rows of expert 0 in ascending order, then those of expert 1, and so on; last those whose index is
    /// outside.
    pub order: BufferId,
    /// `i32[experts + 1]`: where the rows of each expert begin in `order`; the last is where those outside begin.
    pub starts: BufferId,
}

/// What a routed product computes of `y = x · w`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gives {
    /// y: each row times its expert's matrix; a row outside is 0.
    Rows,
    /// w: for each expert Σ over its rows, in ascending order, of x · y; 0 for an expert without rows.
    Experts,
}

/// Products of rows with the matrices of their experts, in f32; an element's sum has the order that it has in a `Gemm`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Routed {
    pub gives: Gives,
    pub rows: u32,
    pub experts: u32,
    /// What a [`Group`] wrote.
    pub order: BufferId,
    pub starts: BufferId,
    /// The positions of `order` that a unit takes; all of them for [`Gives::Experts`].
    pub taken: Extent,
    /// Columns of x, which are the rows of a matrix.
    pub depth: Extent,
    /// Columns of y and of a matrix.
    pub width: Extent,
    pub x: Rows,
    pub w: Matrices,
    pub y: Rows,
    /// Rows that are brought together for one product.
    pub block: u32,
    /// Scratch memory for them: `block` rows of x, and of y as many columns as are computed at once.
    pub tiles: [BufferId; 2],
}

/// Columns of y that are computed at once for [`Gives::Rows`].
pub const ROUTED_COLUMNS: u32 = 512;

/// Rows in a buffer. A row's number is taken apart along `dims`, each a length and a stride, the outermost first: element
/// (r, c) lies at `base + Σ unit·index + Σ stride·digit + c·col`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rows {
    pub buffer: BufferId,
    pub base: i64,
    pub unit: Vec<i64>,
    pub dims: Vec<(u32, i64)>,
    pub col: i64,
}

/// One matrix an expert: element (e, r, c) at `base + Σ unit·index + e·expert + r·row + c·col`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Matrices {
    pub buffer: BufferId,
    pub base: i64,
    pub unit: Vec<i64>,
    pub expert: i64,
    pub row: i64,
    pub col: i64,
}

impl Group {
    /// The buffers that it reads, and those that it writes.
    pub fn touched(&self) -> (Vec<BufferId>, Vec<BufferId>) {
        (vec![self.index], vec![self.order, self.starts])
    }
}

impl Routed {
    /// The buffers that it reads, and those that it writes; scratch is both.
    pub fn touched(&self) -> (Vec<BufferId>, Vec<BufferId>) {
        let (from, to) = match self.gives {
            Gives::Rows => (self.w.buffer, self.y.buffer),
            Gives::Experts => (self.y.buffer, self.w.buffer),
        };
        let reads = [self.order, self.starts, self.x.buffer, from].into_iter().chain(self.tiles);
        (reads.collect(), [to].into_iter().chain(self.tiles).collect())
    }
    /// Columns of y that stand in scratch memory at once, where a unit has this many.
    pub fn columns(&self, width: u32) -> u32 {
        match self.gives {
            Gives::Rows => width.min(ROUTED_COLUMNS),
            Gives::Experts => width,
        }
    }
}
