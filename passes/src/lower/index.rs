//! Index maps: where in a kernel's axes an axis of the graph stands.
//!
//! Renames, slices, shifts, concatenations and gathers compute nothing: they change the map under which their operand
//! is read. What is left of them is the view of a load.
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::kernel::{KAxis, KValue};
use std::collections::BTreeMap;

/// base + Σ stride · axis + Σ stride · value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Index {
    pub terms: Vec<(KAxis, i64)>,
    pub dynamic: Vec<(KValue, i64)>,
    pub base: i64,
}

impl Index {
    pub fn axis(a: KAxis) -> Self {
        Index { terms: vec![(a, 1)], ..Index::default() }
    }
    pub fn constant(base: i64) -> Self {
        Index { base, ..Index::default() }
    }
    pub fn value(v: KValue) -> Self {
        Index { dynamic: vec![(v, 1)], ..Index::default() }
    }
    pub fn plus(&self, by: i64) -> Self {
        Index { base: self.base + by, ..self.clone() }
    }
    /// Adds `stride` times another index; equal axes and values are merged.
    pub fn add_scaled(&mut self, other: &Index, stride: i64) {
        self.base += other.base * stride;
        for (a, s) in &other.terms {
            match self.terms.iter_mut().find(|t| t.0 == *a) {
                Some(t) => t.1 += s * stride,
                None => self.terms.push((*a, s * stride)),
            }
        }
        for (v, s) in &other.dynamic {
            match self.dynamic.iter_mut().find(|t| t.0 == *v) {
                Some(t) => t.1 += s * stride,
                None => self.dynamic.push((*v, s * stride)),
            }
        }
    }
    /// The axis, if the index is exactly one.
    pub fn as_axis(&self) -> Option<KAxis> {
        match (self.terms.as_slice(), self.dynamic.is_empty(), self.base) {
            ([(a, 1)], true, 0) => Some(*a),
            _ => None,
        }
    }
    pub fn as_constant(&self) -> Option<i64> {
        (self.terms.is_empty() && self.dynamic.is_empty()).then_some(self.base)
    }
    pub fn mentions(&self, a: KAxis) -> bool {
        self.terms.iter().any(|t| t.0 == a)
    }
}

/// An index for each axis of a value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Map(BTreeMap<AxisId, Index>);

impl Map {
    pub fn get(&self, a: AxisId) -> Option<&Index> {
        self.0.get(&a)
    }
    pub fn set(&mut self, a: AxisId, i: Index) {
        self.0.insert(a, i);
    }
    /// The map with `from`'s index under the name `to`, changed by `f`.
    pub fn moved(&self, from: AxisId, to: AxisId, f: impl Fn(&Index) -> Index) -> Self {
        let mut m = self.clone();
        if let Some(i) = m.0.remove(&from) {
            m.0.insert(to, f(&i));
        }
        m
    }
    pub fn with(&self, a: AxisId, i: Index) -> Self {
        let mut m = self.clone();
        m.set(a, i);
        m
    }
    /// Only what a value over these axes depends on.
    pub fn restricted(&self, axes: AxisSet) -> Self {
        // Some numbers of axes stand for what is no axis of the graph.
        let kept = |a: AxisId| (a.0 as usize) < AxisSet::CAPACITY && axes.has(a);
        Map(self.0.iter().filter(|(a, _)| kept(**a)).map(|(a, i)| (*a, i.clone())).collect())
    }
    pub fn mentions(&self, k: KAxis) -> bool {
        self.0.values().any(|i| i.mentions(k))
    }
}
