//! Adjoints under construction: contributions summed to the operand's axes, pieces kept apart until they are complete.
use super::Backward;
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::dtype::DType;
use lolm_ir::graph::ValueId;
use lolm_ir::op::{Op, Reduction};
use std::collections::BTreeMap;

/// What has been given to a value so far. Gradients of elements and of slices are kept as pieces, so that a tensor whose
/// parts are used apart (`in_proj[0]`, `in_proj[1]`) gets one stack or concat and not a sum of padded ones.
#[derive(Clone, Default, Debug)]
pub(super) struct Adjoint {
    sum: Option<ValueId>,
    elements: BTreeMap<AxisId, BTreeMap<usize, ValueId>>,
    slices: BTreeMap<AxisId, BTreeMap<(usize, AxisId), ValueId>>,
}

impl Backward {
    // ---- questions

    pub(super) fn wants(&self, v: ValueId) -> bool {
        self.active[v.0 as usize]
    }
    pub(super) fn axes(&self, v: ValueId) -> AxisSet {
        self.b.graph().axes_of(v)
    }
    pub(super) fn dtype(&self, v: ValueId) -> DType {
        self.b.graph().ty(v).dtype
    }
    pub(super) fn len(&self, a: AxisId) -> usize {
        self.b.graph().len(a)
    }

    // ---- small operations that keep the operand's dtype

    /// A constant of the dtype of `like`.
    pub(super) fn num(&mut self, like: ValueId, x: f64) -> ValueId {
        let c = self.b.num(x as f32);
        let dtype = self.dtype(like);
        self.b.cast(c, dtype)
    }
    pub(super) fn scaled(&mut self, x: ValueId, by: f64) -> ValueId {
        let c = self.num(x, by);
        self.b.mul(x, c)
    }
    /// Σ over `axes`; along an axis that x lacks it is the same, so its length is a factor.
    pub(super) fn sum_over(&mut self, x: ValueId, axes: AxisSet) -> ValueId {
        let own = axes.intersection(self.axes(x));
        let repeats = self.b.graph().elements(axes.minus(own));
        let x = if own.is_empty() { x } else { self.b.op(Op::Reduce { kind: Reduction::Sum, axes: own }, &[x]) };
        if repeats == 1 { x } else { self.scaled(x, repeats as f64) }
    }
    /// The mean along an axis; of a value that lacks the axis, the value.
    pub(super) fn mean_along(&mut self, x: ValueId, axis: AxisId) -> ValueId {
        if self.axes(x).has(axis) { self.b.mean(&[axis], x) } else { x }
    }
    /// x with all of `axes`: along each one that it lacks, a selection that is never taken.
    pub(super) fn broadcast(&mut self, x: ValueId, axes: AxisSet) -> ValueId {
        axes.minus(self.axes(x)).iter().fold(x, |x, axis| {
            let (index, zero) = (self.b.iota(axis), self.b.int(0));
            let never = self.b.lt(index, zero); // [axis]
            let other = self.num(x, 0.0);
            self.b.select(never, other, x)
        })
    }

    // ---- giving

    /// Adds Σ of `share` over the axes of `domain` that v lacks to the adjoint of v, if v carries gradient.
    pub(super) fn give(&mut self, v: ValueId, share: ValueId, domain: AxisSet) {
        self.give_result(v, 0, share, domain)
    }
    /// The same for result `i` of an operation with several.
    pub(super) fn give_result(&mut self, v: ValueId, i: usize, share: ValueId, domain: AxisSet) {
        if !self.wants(v) {
            return;
        }
        let own = self.b.graph().node(v).types[i].axes;
        let share = self.sum_over(share, domain.minus(own));
        let so_far = self.adjoints[v.0 as usize][i].sum;
        self.adjoints[v.0 as usize][i].sum = Some(self.plus(so_far, share));
    }
    /// What has been given to v as a whole so far.
    pub(super) fn given(&self, v: ValueId) -> Option<ValueId> {
        self.adjoints[v.0 as usize][0].sum
    }
    /// Replaces it with a sum that contains it.
    pub(super) fn set_given(&mut self, v: ValueId, sum: ValueId) {
        self.pieces(v).sum = Some(sum);
    }
    /// Adds `share`, which lacks the axis, to the adjoint of element `index` of v.
    pub(super) fn give_element(&mut self, v: ValueId, axis: AxisId, index: usize, share: ValueId) {
        let so_far = self.pieces(v).elements.get(&axis).and_then(|e| e.get(&index)).copied();
        let sum = self.plus(so_far, share);
        self.pieces(v).elements.entry(axis).or_default().insert(index, sum);
    }
    /// Adds `share`, which has the axis `to`, to the adjoint of the elements from `start` of v.
    pub(super) fn give_slice(&mut self, v: ValueId, axis: AxisId, start: usize, to: AxisId, share: ValueId) {
        let so_far = self.pieces(v).slices.get(&axis).and_then(|s| s.get(&(start, to))).copied();
        let sum = self.plus(so_far, share);
        self.pieces(v).slices.entry(axis).or_default().insert((start, to), sum);
    }

    fn pieces(&mut self, v: ValueId) -> &mut Adjoint {
        &mut self.adjoints[v.0 as usize][0]
    }
    fn plus(&mut self, so_far: Option<ValueId>, share: ValueId) -> ValueId {
        match so_far {
            Some(sum) => self.b.add(sum, share),
            None => share,
        }
    }

    // ---- taking

    pub(super) fn is_reached(&self, v: ValueId) -> bool {
        let empty = |a: &Adjoint| a.sum.is_none() && a.elements.is_empty() && a.slices.is_empty();
        !self.adjoints[v.0 as usize].iter().all(empty)
    }

    /// The adjoint of a result, complete.
    pub(super) fn take(&mut self, v: ValueId, i: usize) -> Option<ValueId> {
        let Adjoint { mut sum, elements, slices } = std::mem::take(&mut self.adjoints[v.0 as usize][i]);
        for (axis, pieces) in elements {
            let whole = self.join_elements(v, axis, &pieces);
            sum = Some(self.plus(sum, whole));
        }
        for (axis, pieces) in slices {
            let whole = self.join_slices(axis, &pieces);
            sum = whole.into_iter().fold(sum, |sum, part| Some(self.plus(sum, part)));
        }
        sum
    }

    /// A stack where at least half of the elements are there, and otherwise a selection by index for each.
    fn join_elements(&mut self, v: ValueId, axis: AxisId, pieces: &BTreeMap<usize, ValueId>) -> ValueId {
        let zero = self.num(v, 0.0);
        let len = self.len(axis);
        if 2 * pieces.len() >= len {
            let args: Vec<ValueId> = (0..len).map(|i| pieces.get(&i).copied().unwrap_or(zero)).collect();
            return self.b.op(Op::Stack { axis }, &args);
        }
        let index = self.b.iota(axis);
        pieces.iter().fold(zero, |rest, (i, piece)| {
            let i = self.b.int(*i as i32);
            let here = self.b.eq(index, i); // [axis]
            self.b.select(here, *piece, rest)
        })
    }

    /// One concat where the slices tile the axis, and otherwise each of them padded.
    fn join_slices(&mut self, axis: AxisId, pieces: &BTreeMap<(usize, AxisId), ValueId>) -> Vec<ValueId> {
        let mut end = 0;
        let adjacent = pieces.keys().all(|(start, to)| {
            let fits = *start == end;
            end = start + self.len(*to);
            fits
        });
        if adjacent && end == self.len(axis) {
            let parts = pieces.keys().map(|(_, to)| *to).collect();
            let args: Vec<ValueId> = pieces.values().copied().collect();
            return vec![self.b.op(Op::Concat { axis, parts }, &args)];
        }
        pieces
            .iter()
            .map(|((start, to), piece)| self.b.op(Op::Pad { axis: *to, start: *start, to: axis }, &[*piece]))
            .collect()
    }
}
