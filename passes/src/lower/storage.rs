//! Storage: in which buffer a value lies and with which strides.
use lolm_ir::Graph;
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::graph::{Dim, LeafKind};
use lolm_ir::plan::BufferId;

/// A tensor in a buffer: element `base + Σ stride · index`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Storage {
    pub buffer: BufferId,
    pub strides: Vec<(AxisId, i64)>,
    pub base: i64,
}

impl Storage {
    /// Row-major over the axes in this order.
    pub fn row_major(g: &Graph, buffer: BufferId, order: impl DoubleEndedIterator<Item = AxisId>) -> Self {
        let mut stride = 1;
        let mut strides = vec![];
        for a in order.rev() {
            strides.push((a, stride));
            stride *= g.len(a) as i64;
        }
        strides.reverse();
        Storage { buffer, strides, base: 0 }
    }
    pub fn stride(&self, a: AxisId) -> i64 {
        self.strides.iter().find(|s| s.0 == a).map_or(0, |s| s.1)
    }
}

/// The order in which a value is laid out: that of a parameter of the same axes, as gradients are best kept, or else the
/// order in which its axes were declared.
pub fn natural_order(g: &Graph, axes: AxisSet) -> Vec<AxisId> {
    let twin = g.leaves.iter().find(|l| matches!(l.kind, LeafKind::Param(_)) && axes.len() > 1 && l.axes() == axes);
    match twin {
        Some(l) => l.order().collect(),
        None => axes.iter().collect(),
    }
}

pub fn flat(dims: &[Dim]) -> Vec<AxisId> {
    dims.iter().flatten().copied().collect()
}

/// Several axes as one: its length and stride, if the strides are those of consecutive dimensions. `axes` come outermost
/// first. Axes of length 1 fit anywhere.
pub fn merged(g: &Graph, axes: &[AxisId], stride: impl Fn(AxisId) -> i64) -> Option<(usize, i64)> {
    let mut len = 1;
    let mut inner: Option<i64> = None;
    for a in axes.iter().rev().copied().filter(|a| g.len(*a) > 1) {
        match inner {
            None => inner = Some(stride(a)),
            Some(s) if stride(a) == s * len as i64 => {}
            Some(_) => return None,
        }
        len *= g.len(a);
    }
    Some((len, inner.unwrap_or(1)))
}
