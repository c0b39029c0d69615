//! Relayout: operands and results of library products as matrices.
//!
//! A dimension of a matrix may be several axes, if they are consecutive in memory. Where they are not, an operand is
//! copied by a launch of its own, which every report shows, and a result that nobody else lays out lies as it should.
use super::Lowering;
use super::storage::{Storage, merged};
use super::stream::Stream;
use lolm_ir::ValueId;
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::plan::{Kind, Place};

impl Lowering<'_> {
    /// The value as it lies in memory, if the axes of each dimension merge there, or a copy in which they do. The copy is
    /// written out along axes of a dimension that the value lacks.
    pub(super) fn operand_as(&mut self, v: ValueId, dims: &[&[AxisId]]) -> Result<Storage, String> {
        let g = self.cx.g;
        let view = self.cx.view(v).ok_or(format!("bug: operand %{} of a launch is not in memory", v.0))?;
        if self.fits(&view, dims) {
            return Ok(view);
        }
        let order = order(g.axes_of(v), dims);
        let elements = g.elements(AxisSet::of(&order));
        let name = format!("v{}.{}", v.0, self.cx.buffers.len());
        let b = self.add_buffer(name, g.ty(v).dtype, elements, Place::Arena(0));
        let to = Storage::row_major(g, b, order.iter().copied());
        let mut s = Stream::new(&self.cx, None);
        let map = s.identity(AxisSet::of(&order));
        let x = s.value(v, &map, None);
        s.store(&to, &map, x);
        let lowered = s.finish();
        self.launch(format!("relayout_{elements}"), Kind::Map, lowered);
        Ok(to)
    }

    /// Where a result lies, with the axes of each dimension merged. An output that lies otherwise is copied at the end.
    pub(super) fn result_as(&mut self, v: ValueId, result: usize, dims: &[&[AxisId]]) -> Result<Storage, String> {
        let own = self.cx.storage[v.0 as usize][result].clone().ok_or("bug: the result of a launch has no storage")?;
        if self.fits(&own, dims) {
            return Ok(own);
        }
        let g = self.cx.g;
        self.cx.lie_in_arena(own.buffer, v, result);
        let order = order(g.node(v).types[result].axes, dims);
        let to = Storage::row_major(g, own.buffer, order.into_iter());
        self.cx.storage[v.0 as usize][result] = Some(to.clone());
        Ok(to)
    }

    fn fits(&self, s: &Storage, dims: &[&[AxisId]]) -> bool {
        dims.iter().all(|d| merged(self.cx.g, d, |a| s.stride(a)).is_some())
    }
}

/// The axes that no dimension has, then the dimensions.
fn order(axes: AxisSet, dims: &[&[AxisId]]) -> Vec<AxisId> {
    let dims = dims.concat();
    axes.minus(AxisSet::of(&dims)).iter().chain(dims).collect()
}
