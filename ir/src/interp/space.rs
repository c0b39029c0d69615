//! Index spaces: where the points over a set of axes lie in a tensor.
use crate::axis::{AxisId, AxisSet};
use crate::graph::Graph;

/// How far apart neighbours along each axis lie in memory; an axis that is not listed has stride zero.
#[derive(Clone, Debug)]
pub(super) struct Layout(Vec<(AxisId, usize)>);

impl Layout {
    /// Row-major over `order`, outermost first.
    pub fn of(g: &Graph, order: impl DoubleEndedIterator<Item = AxisId>) -> Layout {
        let mut stride = 1;
        let axes = order.rev().map(|a| {
            let here = stride;
            stride *= g.len(a);
            (a, here)
        });
        Layout(axes.collect())
    }

    pub fn stride(&self, a: AxisId) -> usize {
        self.0.iter().find(|(b, _)| *b == a).map_or(0, |(_, s)| *s)
    }

    /// The same memory with one axis known by another name.
    pub fn renamed(mut self, from: AxisId, to: AxisId) -> Layout {
        for (a, _) in &mut self.0 {
            if *a == from {
                *a = to;
            }
        }
        self
    }

    /// Offsets of all points over `space`, row-major over its axes in ascending order.
    pub fn offsets(&self, g: &Graph, space: AxisSet) -> Vec<usize> {
        self.offsets_in_order(g, &space.iter().collect::<Vec<_>>())
    }

    /// Offsets of all points over `order`, row-major.
    pub fn offsets_in_order(&self, g: &Graph, order: &[AxisId]) -> Vec<usize> {
        let mut offsets = vec![0];
        for a in order {
            let (len, stride) = (g.len(*a), self.stride(*a));
            let mut next = Vec::with_capacity(offsets.len() * len);
            for o in offsets {
                next.extend((0..len).map(|i| o + i * stride));
            }
            offsets = next;
        }
        offsets
    }
}
