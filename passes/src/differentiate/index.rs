//! Derivatives of index operations: each is another index operation.
use super::{Backward, Local};
use lolm_ir::axis::AxisId;
use lolm_ir::graph::ValueId;
use lolm_ir::op::Op;

impl Backward {
    pub(super) fn rename(&mut self, n: &Local, from: AxisId, to: AxisId, g: ValueId) {
        let share = if self.axes(g).has(to) { self.b.rename(g, to, from) } else { g };
        self.give(n.args[0], share, self.axes(n.args[0]));
    }

    pub(super) fn at(&mut self, n: &Local, axis: AxisId, index: usize, g: ValueId) {
        if self.wants(n.args[0]) {
            self.give_element(n.args[0], axis, index, g);
        }
    }

    pub(super) fn slice(&mut self, n: &Local, axis: AxisId, start: usize, to: AxisId, g: ValueId) {
        if self.wants(n.args[0]) {
            let g = self.broadcast(g, to.into());
            self.give_slice(n.args[0], axis, start, to, g);
        }
    }

    pub(super) fn pad(&mut self, n: &Local, axis: AxisId, start: usize, to: AxisId, g: ValueId) {
        let share = self.slice_of(g, to, start, axis);
        self.give(n.args[0], share, self.axes(n.args[0]));
    }

    pub(super) fn stack(&mut self, n: &Local, axis: AxisId, g: ValueId) {
        for (i, x) in n.args.iter().enumerate() {
            if self.wants(*x) {
                let share = if self.axes(g).has(axis) { self.b.at(g, axis, i) } else { g };
                self.give(*x, share, n.axes.without(axis));
            }
        }
    }

    pub(super) fn concat(&mut self, n: &Local, axis: AxisId, parts: &[AxisId], g: ValueId) {
        let mut start = 0;
        for (x, part) in n.args.iter().zip(parts) {
            if self.wants(*x) {
                // The result may have an axis `part` of its own, from another operand: x is the same along that one.
                let own = self.sum_over(g, n.axes.intersection((*part).into()));
                let share = self.slice_of(own, axis, start, *part);
                self.give(*x, share, n.axes.without(axis).with(*part));
            }
            start += self.len(*part);
        }
    }

    pub(super) fn shift(&mut self, n: &Local, axis: AxisId, by: i64, g: ValueId) {
        let g = self.broadcast(g, axis.into());
        let share = self.b.shift(g, axis, -by);
        self.give(n.args[0], share, n.axes);
    }

    /// Rows that were read add their adjoints up, over the axes of the index that the table lacks. They are added into
    /// what the table has been given before: a tied embedding has one gradient of its size, not three.
    pub(super) fn gather(&mut self, n: &Local, axis: AxisId, g: ValueId) {
        let (x, index) = (n.args[0], n.args[1]);
        if !self.wants(x) {
            return;
        }
        let over = self.axes(index).minus(self.axes(x));
        let scattered = self.axes(index).union(self.axes(g)).minus(over).with(axis);
        match self.given(x).filter(|base| self.axes(*base) == scattered) {
            Some(base) => {
                let sum = self.b.op(Op::ScatterAdd { axis, over }, &[index, g, base]);
                self.set_given(x, sum);
            }
            None => {
                let share = self.b.op(Op::ScatterAdd { axis, over }, &[index, g]);
                self.give(x, share, self.axes(x));
            }
        }
    }

    pub(super) fn scatter_add(&mut self, n: &Local, axis: AxisId, g: ValueId) {
        let (index, x) = (n.args[0], n.args[1]);
        if self.wants(x) {
            let domain = self.axes(index).union(self.axes(x));
            let from = self.broadcast(g, axis.into());
            let share = self.b.gather(from, axis, index);
            self.give(x, share, domain);
        }
        if let Some(base) = n.args.get(2) {
            self.give(*base, g, n.axes);
        }
    }

    /// What was overwritten has no influence; what was written is read back from where it went.
    pub(super) fn update(&mut self, n: &Local, axis: AxisId, g: ValueId) {
        let (base, index, x) = (n.args[0], n.args[1], n.args[2]);
        if self.wants(base) {
            let (whole, zero) = (self.broadcast(g, n.axes), self.num(g, 0.0));
            let share = self.b.op(Op::Update { axis }, &[whole, index, zero]);
            self.give(base, share, n.axes);
        }
        if self.wants(x) {
            let domain = n.axes.without(axis).union(self.axes(index));
            let from = self.broadcast(g, axis.into());
            let share = self.b.gather(from, axis, index);
            self.give(x, share, domain);
        }
    }

    /// The elements of g from `start` as axis `to`; a g without the axis is the same everywhere.
    fn slice_of(&mut self, g: ValueId, axis: AxisId, start: usize, to: AxisId) -> ValueId {
        if self.axes(g).has(axis) { self.b.slice(g, axis, start, to) } else { g }
    }
}
