//! The draw from what is kept, in the order of indices: sums of segments by all warps, then the first warp finds the segment
//! and the element in it.
use super::block::AT_ONCE;
use super::{Bar, Cx, EQUALS, FOUND, SUMS, Top};
use crate::ptx::inst::*;

/// What a lane's element is worth: its weight, 0 if it is not above the bar; and 1 if it equals the bar.
struct Worth {
    weight: Reg,
    equal: Reg,
}

/// Weights below `least` count nothing; of what equals the bar each has this weight.
#[derive(Clone, Copy)]
struct Kept {
    top: Top,
    bar: Bar,
    least: Reg,
    at_bar: Reg,
}

impl Cx<'_> {
    /// Sets the answer, on the first warp; the others leave.
    pub fn drawn(&mut self, top: Top, bar: Bar, min_p: Reg, uniform: Reg, answer: Reg, exit: Label) {
        let least = self.least(min_p);
        let at_bar = self.weight_of_key(top, bar.key);
        let at_bar = self.enough(at_bar, least);
        let kept = Kept { top, bar, least, at_bar };
        self.segments(kept);
        self.sync();
        let other = self.cmp(Cmp::Ne, Type::U32, self.warp, Src::Int(0));
        self.g.e.b.bra(exit, Some((other, true)));
        let total = self.total(kept);
        let goal = self.bar_of(uniform, total);
        self.find_segment(goal);
        self.find_element(kept, goal);
        let found = self.load(Type::B32, self.shared, FOUND);
        self.set(Type::B32, answer, found);
    }

    fn enough(&mut self, weight: Reg, least: Reg) -> Reg {
        let enough = self.cmp(Cmp::Ge, Type::U64, weight, least);
        self.pick(Type::B64, enough, weight, Src::Int(0))
    }

    fn worth(&mut self, k: Kept, x: Reg) -> Worth {
        let key = self.key(x);
        let weight = self.weight(k.top, x, key);
        let weight = self.enough(weight, k.least);
        let above = self.cmp(Cmp::Gt, Type::U32, key, k.bar.key);
        let weight = self.pick(Type::B64, above, weight, Src::Int(0));
        let equal = self.cmp(Cmp::Eq, Type::U32, key, k.bar.key);
        let equal = self.pick(Type::B32, equal, Src::Int(1), Src::Int(0));
        Worth { weight, equal }
    }

    fn count_of_segments(&self) -> i64 {
        (self.len + 32 * self.of_segment - 1) / (32 * self.of_segment)
    }

    /// Puts the sum of every segment above the bar, and the number of its elements that equal it, to shared memory.
    fn segments(&mut self, k: Kept) {
        let (warps, size, count) = (self.warps(), self.of_segment, self.count_of_segments());
        let first = self.cmp(Cmp::Eq, Type::U32, self.lane, Src::Int(0));
        let segment = self.var(Type::B32, self.warp);
        let none = self.cmp(Cmp::Ge, Type::U32, segment, Src::Int(count));
        self.unless(none, |cx| {
            cx.count(segment, warps, Src::Int(count), |cx| {
                let from = cx.bin(BinOp::MulLo, Type::U32, segment, Src::Int(32 * size));
                let from = cx.bin(BinOp::Add, Type::U32, from, cx.lane);
                let (sum, equals) = (cx.var(Type::B64, Src::Int(0)), cx.var(Type::B32, Src::Int(0)));
                let i = cx.var(Type::B32, Src::Int(0));
                cx.count(i, 32 * AT_ONCE, Src::Int(32 * size), |cx| {
                    let from = cx.bin(BinOp::Add, Type::U32, from, i);
                    let at = |cx: &mut Self, i: i64| cx.bin(BinOp::Add, Type::U32, from, Src::Int(32 * i));
                    let at: Vec<Reg> = (0..AT_ONCE).map(|i| at(cx, i)).collect();
                    let xs: Vec<Reg> = at.into_iter().map(|i| cx.element(i)).collect();
                    for x in xs {
                        let worth = cx.worth(k, x);
                        cx.to(sum, BinOp::Add, Type::U64, sum, worth.weight);
                        cx.to(equals, BinOp::Add, Type::U32, equals, worth.equal);
                    }
                });
                let (sum, equals) = (cx.warp_sum(sum), cx.warp_count(equals));
                let (of_sums, of_equals) = (cx.slot(segment, 8), cx.slot(segment, 4));
                cx.save(Some(first), Type::B64, sum, of_sums, SUMS);
                cx.save(Some(first), Type::B32, equals, of_equals, EQUALS);
            });
        });
    }

    /// Hands each lane a segment, with its number and where its sum and its equals lie; those beyond the last are not there.
    fn each_segment(&mut self, f: impl FnOnce(&mut Self, Reg, Reg, [Reg; 2])) {
        let count = self.count_of_segments();
        let from = self.var(Type::B32, Src::Int(0));
        self.count(from, 32, Src::Int(count), |cx| {
            let segment = cx.bin(BinOp::Add, Type::U32, from, cx.lane);
            let there = cx.cmp(Cmp::Lt, Type::U32, segment, Src::Int(count));
            let at = [8, 4].map(|size| cx.slot(segment, size));
            f(cx, segment, there, at);
        });
    }

    /// The weight of so many equals before this place, and of so many up to it, less those beyond what the bar lets pass.
    fn passing(&mut self, k: Kept, equals: Reg) -> Reg {
        let some = self.bin(BinOp::Min, Type::U32, equals, k.bar.equals);
        let some = self.cvt(Type::U64, Type::U32, Rounding::None, some);
        self.bin(BinOp::MulLo, Type::U64, some, k.at_bar)
    }

    /// Adds to the sum of every segment what equals the bar and passes, puts the number of equals before it in place of its
    /// own, and gives the sum of all.
    fn total(&mut self, k: Kept) -> Reg {
        let (total, equals) = (self.var(Type::B64, Src::Int(0)), self.var(Type::B32, Src::Int(0)));
        self.each_segment(|cx, _, there, [of_sums, of_equals]| {
            let sum = cx.load_if(there, Type::B64, of_sums, SUMS);
            let mine = cx.load_if(there, Type::B32, of_equals, EQUALS);
            let up_to = cx.warp_scan_counts(mine);
            let up_to = cx.bin(BinOp::Add, Type::U32, up_to, equals);
            let before = cx.bin(BinOp::Sub, Type::U32, up_to, mine);
            let (with, without) = (cx.passing(k, up_to), cx.passing(k, before));
            let more = cx.bin(BinOp::Sub, Type::U64, with, without);
            let sum = cx.bin(BinOp::Add, Type::U64, sum, more);
            cx.save(Some(there), Type::B64, sum, of_sums, SUMS);
            cx.save(Some(there), Type::B32, before, of_equals, EQUALS);
            let all = cx.warp_sum(sum);
            cx.to(total, BinOp::Add, Type::U64, total, all);
            let last = cx.last(up_to);
            cx.set(Type::B32, equals, last);
        });
        total
    }

    /// Puts the segment that the goal falls into to shared memory, with what comes before it: its weight and its equals.
    fn find_segment(&mut self, goal: Reg) {
        let carried = self.var(Type::B64, Src::Int(0));
        self.each_segment(|cx, segment, there, [of_sums, of_equals]| {
            let sum = cx.load_if(there, Type::B64, of_sums, SUMS);
            let equals = cx.load_if(there, Type::B32, of_equals, EQUALS);
            let up_to = cx.warp_scan(sum);
            let up_to = cx.bin(BinOp::Add, Type::U64, up_to, carried);
            let before = cx.bin(BinOp::Sub, Type::U64, up_to, sum);
            let here = cx.falls(goal, before, up_to);
            cx.save(Some(here), Type::B32, segment, cx.shared, FOUND);
            cx.save(Some(here), Type::B32, equals, cx.shared, FOUND + 4);
            cx.save(Some(here), Type::B64, before, cx.shared, FOUND + 8);
            let last = cx.last(up_to);
            cx.set(Type::B64, carried, last);
        });
        self.op(Op::SyncWarp);
    }

    fn falls(&mut self, goal: Reg, before: Reg, up_to: Reg) -> Reg {
        let low = self.cmp(Cmp::Ge, Type::U64, goal, before);
        let high = self.cmp(Cmp::Lt, Type::U64, goal, up_to);
        self.bin(BinOp::And, Type::Pred, low, high)
    }

    /// Puts the index that the goal falls on to shared memory.
    fn find_element(&mut self, k: Kept, goal: Reg) {
        let segment = self.load(Type::B32, self.shared, FOUND);
        let seen = self.load(Type::B32, self.shared, FOUND + 4);
        let carried = self.load(Type::B64, self.shared, FOUND + 8);
        self.op(Op::SyncWarp);
        let size = self.of_segment;
        let from = self.bin(BinOp::MulLo, Type::U32, segment, Src::Int(32 * size));
        let from = self.bin(BinOp::Add, Type::U32, from, self.lane);
        let i = self.var(Type::B32, Src::Int(0));
        self.count(i, 32, Src::Int(32 * size), |cx| {
            let at = cx.bin(BinOp::Add, Type::U32, from, i);
            let x = cx.element(at);
            let worth = cx.worth(k, x);
            let equals = cx.warp_scan_counts(worth.equal);
            let equals = cx.bin(BinOp::Add, Type::U32, equals, seen);
            let passes = cx.cmp(Cmp::Le, Type::U32, equals, k.bar.equals);
            let at_bar = cx.pick(Type::B64, passes, k.at_bar, Src::Int(0));
            let is_equal = cx.cmp(Cmp::Ne, Type::U32, worth.equal, Src::Int(0));
            let weight = cx.pick(Type::B64, is_equal, at_bar, worth.weight);
            let up_to = cx.warp_scan(weight);
            let up_to = cx.bin(BinOp::Add, Type::U64, up_to, carried);
            let before = cx.bin(BinOp::Sub, Type::U64, up_to, weight);
            let here = cx.falls(goal, before, up_to);
            cx.save(Some(here), Type::B32, at, cx.shared, FOUND);
            let (last, equals) = (cx.last(up_to), cx.last(equals));
            cx.set(Type::B64, carried, last);
            cx.set(Type::B32, seen, equals);
        });
        self.op(Op::SyncWarp);
    }
}
