//! The least key that is kept, found from its first digits to its last: amounts are added up in buckets of shared memory,
//! one for each digit, and from the greatest digit down the bucket is found in which the goal is reached.
use super::{BUCKETS, Cx, FOUND, HIGH, LOW, Top};
use crate::ptx::inst::*;

/// What each element adds.
#[derive(Clone, Copy)]
pub enum Amount {
    One,
    Weight(Top),
}

/// The key at which the goal is reached, what is left to reach of it, and the amount of all that have the key.
pub struct Found {
    pub key: Reg,
    pub left: Reg,
    pub sum: Reg,
}

/// Bits of a digit. Three digits are one bit more than a key; the last one begins with the last bit of the second.
const DIGIT: i64 = BUCKETS.trailing_zeros() as i64;

impl Cx<'_> {
    /// Looks among keys of at least `floor`; the goal, from 1 to their sum, is a function of the latter. All threads take
    /// part.
    pub fn select(&mut self, amount: Amount, floor: Reg, goal: impl FnOnce(&mut Self, Reg) -> Reg) -> Found {
        let key = self.var(Type::B32, Src::Int(0));
        let (left, sum) = (self.var(Type::B64, Src::Int(0)), self.var(Type::B64, Src::Int(0)));
        let known = self.var(Type::B32, Src::Int(32));
        let shift = self.var(Type::B32, Src::Int(32 - DIGIT));
        let again = self.g.e.b.label();
        self.g.e.b.place(again);
        self.g.e.b.open();
        self.clear();
        self.fill(amount, floor, (key, known), shift);
        self.sync();
        let mine = self.of_thread();
        let (before, all) = self.scan(mine);
        let first = self.cmp(Cmp::Eq, Type::U32, known, Src::Int(32));
        let started = self.not(first);
        self.unless(started, |cx| {
            let goal = goal(cx, all);
            cx.set(Type::B64, left, goal);
        });
        self.find(before, left);
        self.sync();
        let digit = self.load(Type::B32, self.shared, FOUND);
        for (d, offset) in [(left, FOUND + 8), (sum, FOUND + 16)] {
            let x = self.load(Type::B64, self.shared, offset);
            self.set(Type::B64, d, x);
        }
        let by = self.bin(BinOp::Sub, Type::U32, known, shift);
        self.to(key, BinOp::Shl, Type::B32, key, by);
        self.to(key, BinOp::Or, Type::B32, key, digit);
        self.set(Type::B32, known, shift);
        self.to(shift, BinOp::Sub, Type::S32, shift, Src::Int(DIGIT));
        self.to(shift, BinOp::Max, Type::S32, shift, Src::Int(0));
        self.g.e.b.close();
        let more = self.cmp(Cmp::Ne, Type::U32, known, Src::Int(0));
        self.g.e.b.bra(again, Some((more, true)));
        Found { key, left, sum }
    }

    fn clear(&mut self) {
        let zero = self.var(Type::B32, Src::Int(0));
        let at = self.var(Type::B32, self.tid);
        let step = self.threads;
        self.count(at, step, Src::Int(2 * BUCKETS), |cx| {
            let to = cx.slot(at, 4);
            cx.save(None, Type::B32, zero, to, LOW);
        });
        self.sync();
    }

    /// Adds every element that has the first digits to the bucket of its next one.
    fn fill(&mut self, amount: Amount, floor: Reg, (prefix, known): (Reg, Reg), shift: Reg) {
        self.each(|cx, x, _| {
            let key = cx.key(x);
            let enough = cx.cmp(Cmp::Ge, Type::U32, key, floor);
            let start = cx.bin(BinOp::Shr, Type::U32, key, known);
            let same = cx.cmp(Cmp::Eq, Type::U32, start, prefix);
            let counts = cx.bin(BinOp::And, Type::Pred, enough, same);
            let digit = cx.bin(BinOp::Shr, Type::U32, key, shift);
            let digit = cx.bin(BinOp::And, Type::B32, digit, Src::Int(BUCKETS - 1));
            let bucket = cx.slot(digit, 4);
            match amount {
                Amount::One => cx.add(counts, None, Src::Int(1), bucket, LOW),
                Amount::Weight(top) => cx.add_weight(counts, top, (x, key), bucket),
            }
        });
    }

    fn add(&mut self, guard: Reg, d: Option<Reg>, a: Src, base: Reg, offset: i32) {
        let op = Op::AddShared { d, a, at: Address { base, offset } };
        self.g.e.b.guarded(Some((guard, true)), op);
    }

    /// A sum of 64 bits in two words: who makes the low one overflow adds the carry to the high one.
    fn add_weight(&mut self, counts: Reg, top: Top, (x, key): (Reg, Reg), bucket: Reg) {
        let any = self.g.e.b.reg(Class::Pred);
        self.op(Op::Any { d: any, a: counts });
        let none = self.not(any);
        self.unless(none, |cx| {
            let weight = cx.weight(top, x, key);
            let (low, high) = (cx.low(weight), cx.high(weight));
            let old = cx.var(Type::B32, Src::Int(0));
            cx.add(counts, Some(old), low.into(), bucket, LOW);
            let new = cx.bin(BinOp::Add, Type::U32, old, low);
            let over = cx.cmp(Cmp::Lt, Type::U32, new, old);
            let carry = cx.pick(Type::B32, over, Src::Int(1), Src::Int(0));
            let high = cx.bin(BinOp::Add, Type::U32, high, carry);
            let some = cx.cmp(Cmp::Ne, Type::U32, high, Src::Int(0));
            let some = cx.bin(BinOp::And, Type::Pred, some, counts);
            cx.add(some, None, high.into(), bucket, HIGH);
        });
    }

    /// Hands the thread its buckets, with the digit, from the greatest down.
    fn buckets(&mut self, f: impl FnOnce(&mut Self, Reg, Reg)) {
        let each = BUCKETS / self.threads;
        let first = self.bin(BinOp::MulLo, Type::U32, self.tid, Src::Int(each));
        let i = self.var(Type::B32, Src::Int(0));
        self.count(i, 1, Src::Int(each), |cx| {
            let down = cx.bin(BinOp::Add, Type::U32, first, i);
            let top = cx.var(Type::B32, Src::Int(BUCKETS - 1));
            let digit = cx.bin(BinOp::Sub, Type::U32, top, down);
            let at = cx.slot(digit, 4);
            let (low, high) = (cx.load(Type::B32, at, LOW), cx.load(Type::B32, at, HIGH));
            let sum = cx.join(low, high);
            f(cx, digit, sum);
        });
    }

    /// The sum of the thread's buckets.
    fn of_thread(&mut self) -> Reg {
        let all = self.var(Type::B64, Src::Int(0));
        self.buckets(|cx, _, sum| cx.to(all, BinOp::Add, Type::U64, all, sum));
        all
    }

    /// Whoever has the bucket in which the goal is reached tells the others its digit, what is left of the goal there, and
    /// what is in it.
    fn find(&mut self, before: Reg, goal: Reg) {
        let reached = self.var(Type::B64, before);
        self.buckets(|cx, digit, sum| {
            let open = cx.cmp(Cmp::Lt, Type::U64, reached, goal);
            let left = cx.bin(BinOp::Sub, Type::U64, goal, reached);
            cx.to(reached, BinOp::Add, Type::U64, reached, sum);
            let closed = cx.cmp(Cmp::Ge, Type::U64, reached, goal);
            let here = cx.bin(BinOp::And, Type::Pred, open, closed);
            cx.save(Some(here), Type::B32, digit, cx.shared, FOUND);
            cx.save(Some(here), Type::B64, left, cx.shared, FOUND + 8);
            cx.save(Some(here), Type::B64, sum, cx.shared, FOUND + 16);
        });
    }
}
