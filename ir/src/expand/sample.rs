//! The expansion of a draw: every element is compared with every other one. A definition, and enough for short rows.
use super::Expander;
use crate::axis::AxisId;
use crate::dtype::{DType, Scalar};
use crate::graph::ValueId;
use crate::op::{Binary, Op, Unary};

impl Expander {
    /// `(x, temperature, top_k, top_p, min_p, uniform)`; rows are the axes of x and of the settings, without the axis.
    pub(super) fn sample(&mut self, x: &[ValueId], axis: AxisId) -> ValueId {
        let [x, temperature, top_k, top_p, min_p, uniform] = [x[0], x[1], x[2], x[3], x[4], x[5]];
        let rival = format!("{}.rival", self.b.graph().axis(axis).name);
        let rival = self.b.axis(&rival, self.len(axis));
        let (zero, one, none) = (self.b.num(0.0), self.b.num(1.0), self.b.int(0));
        let valid = self.b.eq(x, x); // [rows, axis]
        let place = self.place(x, axis, rival); // i32[rows, axis]
        let weight = self.weight_of(x, valid, axis, temperature); // [rows, axis]

        let length = self.b.int(self.len(axis) as i32);
        let from_one = self.b.lt(none, top_k);
        let k = self.b.select(from_one, top_k, length);
        let among = self.b.lt(place, k);
        let among = self.b.binary(Binary::And, valid, among);
        let weight = self.b.select(among, weight, zero);

        let total = self.b.sum(&[axis], weight); // [rows]
        let goal = self.b.mul(top_p, total);
        let (others, their_place) = (self.b.rename(weight, axis, rival), self.b.rename(place, axis, rival));
        let before = self.b.lt(their_place, place); // [rows, axis, rival]
        let greater = self.b.select(before, others, zero);
        let greater = self.b.sum(&[rival], greater); // [rows, axis]
        let short = self.b.lt(greater, goal);
        let whole = self.b.le(one, top_p);
        let short = self.either(whole, short);
        let enough = self.b.le(min_p, weight);
        let first = self.b.eq(place, none);
        let wanted = self.b.binary(Binary::And, short, enough);
        let wanted = self.either(wanted, first);
        let weight = self.b.select(wanted, weight, zero);

        let up_to = self.b.op(Op::Recurrence { axis, reverse: false }, &[one, weight]); // [rows, axis]
        let total = self.b.sum(&[axis], weight);
        let bar = self.b.mul(uniform, total);
        let bar = self.b.max(bar, zero);
        let below = self.b.le(up_to, bar);
        let below = self.b.cast(below, DType::I32);
        let drawn = self.b.sum(&[axis], below); // i32[rows]
        // A sum that was rounded may stop short of the bar.
        let (here, weighs) = (self.b.iota(axis), self.b.lt(zero, weight));
        let last = self.b.select(weighs, here, none);
        let last = self.b.reduce_max(&[axis], last);
        let drawn = self.b.min(drawn, last);

        let winner = self.b.binary(Binary::And, valid, first);
        let greatest = self.b.select(winner, here, none);
        let greatest = self.b.sum(&[axis], greatest);
        let any = self.b.cast(valid, DType::I32);
        let any = self.b.reduce_max(&[axis], any);
        let some = self.b.lt(none, any);
        let warm = self.b.lt(zero, temperature);
        let draws = self.b.binary(Binary::And, warm, some);
        self.b.select(draws, drawn, greatest)
    }

    /// How many elements precede each: greater ones, and equal ones before it. What is not a number precedes nothing.
    fn place(&mut self, x: ValueId, axis: AxisId, rival: AxisId) -> ValueId {
        let y = self.b.rename(x, axis, rival);
        let (valid, other) = (self.b.eq(x, x), self.b.eq(y, y));
        let invalid = self.b.unary(Unary::Not, valid);
        let greater = self.b.lt(x, y);
        let greater = self.either(greater, invalid);
        let (here, there) = (self.b.iota(axis), self.b.iota(rival));
        let before = self.b.lt(there, here);
        let equal = self.b.eq(x, y);
        let tie = self.b.binary(Binary::And, equal, before);
        let precedes = self.either(greater, tie);
        let precedes = self.b.binary(Binary::And, other, precedes); // [rows, axis, rival]
        let precedes = self.b.cast(precedes, DType::I32);
        self.b.sum(&[rival], precedes)
    }

    fn weight_of(&mut self, x: ValueId, valid: ValueId, axis: AxisId, temperature: ValueId) -> ValueId {
        let (zero, one) = (self.b.num(0.0), self.b.num(1.0));
        let (least, most) = (self.b.num(f32::NEG_INFINITY), self.b.num(f32::INFINITY));
        let number = self.b.select(valid, x, least);
        let top = self.b.reduce_max(&[axis], number); // [rows]
        let (above, below) = (self.b.lt(least, top), self.b.lt(top, most));
        let finite = self.b.binary(Binary::And, above, below);
        // Where the maximum is infinite, the difference is not used.
        let base = self.b.select(finite, top, zero);
        let scaled = self.b.sub(number, base);
        let scaled = self.b.div(scaled, temperature);
        let weight = self.b.exp(scaled);
        let equal = self.b.eq(x, top);
        let equal = self.b.select(equal, one, zero);
        let weight = self.b.select(finite, weight, equal);
        self.b.select(valid, weight, zero)
    }

    fn either(&mut self, a: ValueId, b: ValueId) -> ValueId {
        let yes = self.b.op(Op::Const(Scalar::Bool(true)), &[]);
        self.b.select(a, yes, b)
    }
}
