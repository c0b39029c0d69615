//! Derivatives of routing: the greatest elements of a row, and products with the matrix that each row's index names.
use super::{Backward, Local};
use lolm_ir::axis::AxisId;
use lolm_ir::graph::ValueId;
use lolm_ir::op::Op;

impl Backward {
    /// The adjoint of a value goes to the element that was chosen; which one it was does not change with it.
    pub(super) fn top_k(&mut self, n: &Local, axis: AxisId, results: &[Option<ValueId>]) {
        let Some(g) = results[0] else { return };
        let index = self.b.part(n.y, 1); // [rows, k]
        let here = self.b.iota(axis);
        let chosen = self.b.eq(index, here); // [rows, k, axis]
        let zero = self.num(g, 0.0);
        let share = self.b.select(chosen, g, zero);
        self.give(n.args[0], share, n.axes.with(axis));
    }

    /// dx goes back through the matrices of the same experts; each matrix gathers from the rows that were routed to it.
    pub(super) fn routed_dot(&mut self, n: &Local, expert: AxisId, over: AxisId, g: ValueId) {
        let (x, w, index) = (n.args[0], n.args[1], n.args[2]);
        let g = self.broadcast(g, n.axes); // [rows, out]
        if self.wants(x)
            && let Some(out) = n.axes.minus(self.axes(index)).single()
        {
            let share = self.b.op(Op::RoutedDot { expert, over: out }, &[g, w, index]);
            self.give(x, share, self.axes(index).with(over));
        }
        if self.wants(w) {
            let share = self.b.op(Op::RoutedDotGrad { expert }, &[x, g, index]);
            self.give(w, share, self.axes(w));
        }
    }
}
