//! Expansions of routing: the greatest elements of a row, and products with the matrix that each row's index names.
use super::Expander;
use crate::axis::AxisId;
use crate::dtype::DType;
use crate::graph::ValueId;
use crate::op::{Binary, Op};

impl Expander {
    /// An element comes j-th if exactly j others precede it: greater ones, and equal ones that stand before it. So the
    /// places of a row are all different, whatever its elements.
    pub(super) fn top_k(&mut self, x: ValueId, axis: AxisId, k: AxisId) -> Vec<ValueId> {
        let rival = format!("{}.rival", self.b.graph().axis(axis).name);
        let rival = self.b.axis(&rival, self.len(axis));
        let (zero, one, most) = (self.b.num(0.0), self.b.num(1.0), self.b.num(f32::INFINITY));
        let number = self.b.eq(x, x);
        let x_rank = self.b.select(number, x, most); // [rows, axis]
        let y_rank = self.b.rename(x_rank, axis, rival); // [rows, rival]
        let greater = self.b.lt(x_rank, y_rank); // [rows, axis, rival]
        let (here, there) = (self.b.iota(axis), self.b.iota(rival));
        let before = self.b.lt(there, here);
        let equal = self.b.eq(x_rank, y_rank);
        let tie = self.b.op(Op::Binary(Binary::And), &[equal, before]);
        let by_tie = self.b.select(tie, one, zero);
        let precedes = self.b.select(greater, one, by_tie);
        let place = self.b.sum(&[rival], precedes); // [rows, axis]
        let wanted = self.b.iota(k);
        let wanted = self.b.cast(wanted, DType::F32);
        let hit = self.b.eq(place, wanted); // [rows, axis, k]
        let mine = self.b.select(hit, x, zero);
        let values = self.b.sum(&[axis], mine); // [rows, k]
        let at = self.b.cast(here, DType::F32);
        let at = self.b.select(hit, at, zero);
        let index = self.b.sum(&[axis], at); // [rows, k]
        vec![values, self.b.cast(index, DType::I32)]
    }

    pub(super) fn routed_dot(&mut self, x: &[ValueId], expert: AxisId, over: AxisId) -> ValueId {
        let w = self.b.gather(x[1], expert, x[2]); // [rows, over, out]
        self.b.dot(&[over], x[0], w)
    }

    /// Rows of other experts are taken out of both operands, so that what is not a number stays with its own expert.
    pub(super) fn routed_dot_grad(&mut self, x: &[ValueId], expert: AxisId) -> ValueId {
        let rows = self.axes(x[2]);
        let matrix = self.axes(x[0]).union(self.axes(x[1])).minus(rows);
        let (here, zero) = (self.b.iota(expert), self.b.num(0.0));
        let mine = self.b.eq(here, x[2]); // [rows, expert]
        let (a, b) = (self.b.select(mine, x[0], zero), self.b.select(mine, x[1], zero)); // [rows, expert, …]
        self.contract_to(a, b, matrix.with(expert))
    }
}
