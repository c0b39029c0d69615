//! What the threads of a block find out together.
use super::{Cx, OF_WARPS};
use crate::ptx::inst::*;

/// Elements that a thread has on the way at once.
pub const AT_ONCE: i64 = 4;

impl Cx<'_> {
    pub fn warps(&self) -> i64 {
        self.threads / 32
    }
    pub fn sync(&mut self) {
        self.op(Op::SyncBlock);
    }

    /// Hands every element, with its index, to a thread; neighbours go to neighbours. What is beyond the end is not a number.
    pub fn each(&mut self, mut f: impl FnMut(&mut Self, Reg, Reg)) {
        let at_once = AT_ONCE.min((self.len + self.threads - 1) / self.threads);
        let from = self.var(Type::B32, Src::Int(0));
        let (step, len) = (self.threads * at_once, self.len);
        self.count(from, step, Src::Int(len), |cx| {
            let mine = cx.bin(BinOp::Add, Type::U32, from, cx.tid);
            let part = |cx: &mut Self, i: i64| cx.bin(BinOp::Add, Type::U32, mine, Src::Int(i * cx.threads));
            let at: Vec<Reg> = (0..at_once).map(|i| part(cx, i)).collect();
            let xs: Vec<Reg> = at.iter().map(|i| cx.element(*i)).collect();
            xs.into_iter().zip(at).for_each(|(x, i)| f(cx, x, i));
        });
    }

    /// The greatest key, and the first index that has it; 0 and 0 if there is no number.
    pub fn greatest(&mut self) -> (Reg, Reg) {
        let (best, at) = (self.var(Type::B32, Src::Int(0)), self.var(Type::B32, Src::Int(0)));
        self.each(|cx, x, i| {
            let key = cx.key(x);
            let better = cx.cmp(Cmp::Gt, Type::U32, key, best);
            let (key, i) = (cx.pick(Type::B32, better, key, best), cx.pick(Type::B32, better, i, at));
            cx.set(Type::B32, best, key);
            cx.set(Type::B32, at, i);
        });
        let key = self.of_block(BinOp::Max, best, 0, OF_WARPS);
        let has = self.cmp(Cmp::Eq, Type::U32, key, best);
        let mine = self.pick(Type::B32, has, at, Src::Int(-1));
        let first = self.of_block(BinOp::Min, mine, -1, OF_WARPS + 4 * 32);
        (key, first)
    }

    /// The greatest or the least u32 of all threads, which meet at this place; nothing changes `neutral`.
    fn of_block(&mut self, op: BinOp, x: Reg, neutral: i64, place: i32) -> Reg {
        let x = self.of_warp(op, x);
        if self.warps() == 1 {
            return x;
        }
        let first = self.cmp(Cmp::Eq, Type::U32, self.lane, Src::Int(0));
        let mine = self.slot(self.warp, 4);
        self.save(Some(first), Type::B32, x, mine, place);
        self.sync();
        let some = self.cmp(Cmp::Lt, Type::U32, self.lane, Src::Int(self.warps()));
        let other = self.slot(self.lane, 4);
        let x = self.load_if(some, Type::B32, other, place);
        let x = self.pick(Type::B32, some, x, Src::Int(neutral));
        self.of_warp(op, x)
    }
    fn of_warp(&mut self, op: BinOp, x: Reg) -> Reg {
        [16, 8, 4, 2, 1].into_iter().fold(x, |x, distance| {
            let other = self.shuffle(Shuffle::Bfly, x, distance);
            self.bin(op, Type::U32, x, other)
        })
    }

    fn shuffle(&mut self, how: Shuffle, a: Reg, lane: i64) -> Reg {
        let d = self.g.e.b.reg(Class::B32);
        self.op(Op::Shfl { how, d, a, lane: Src::Int(lane) });
        d
    }
    /// The same of 64 bits.
    pub fn shuffle_wide(&mut self, how: Shuffle, a: Reg, lane: i64) -> Reg {
        let (low, high) = (self.low(a), self.high(a));
        let (low, high) = (self.shuffle(how, low, lane), self.shuffle(how, high, lane));
        self.join(low, high)
    }

    /// The sum of u64 over the warp.
    pub fn warp_sum(&mut self, x: Reg) -> Reg {
        [16, 8, 4, 2, 1].into_iter().fold(x, |x, distance| {
            let other = self.shuffle_wide(Shuffle::Bfly, x, distance);
            self.bin(BinOp::Add, Type::U64, x, other)
        })
    }
    /// The same of u32.
    pub fn warp_count(&mut self, x: Reg) -> Reg {
        self.of_warp(BinOp::Add, x)
    }
    /// The sum of u64 over the lanes up to this one.
    pub fn warp_scan(&mut self, x: Reg) -> Reg {
        [1, 2, 4, 8, 16].into_iter().fold(x, |x, distance| {
            let other = self.shuffle_wide(Shuffle::Up, x, distance);
            let some = self.cmp(Cmp::Ge, Type::U32, self.lane, Src::Int(distance));
            let other = self.pick(Type::B64, some, other, Src::Int(0));
            self.bin(BinOp::Add, Type::U64, x, other)
        })
    }
    /// The same of u32.
    pub fn warp_scan_counts(&mut self, x: Reg) -> Reg {
        [1, 2, 4, 8, 16].into_iter().fold(x, |x, distance| {
            let other = self.shuffle(Shuffle::Up, x, distance);
            let some = self.cmp(Cmp::Ge, Type::U32, self.lane, Src::Int(distance));
            let other = self.pick(Type::B32, some, other, Src::Int(0));
            self.bin(BinOp::Add, Type::U32, x, other)
        })
    }
    /// The value of the last lane, for all.
    pub fn last(&mut self, x: Reg) -> Reg {
        match x.class {
            Class::B64 => self.shuffle_wide(Shuffle::Idx, x, 31),
            _ => self.shuffle(Shuffle::Idx, x, 31),
        }
    }

    /// The sum of u64 over the threads before this one, and over all. All threads must meet before the next one.
    pub fn scan(&mut self, x: Reg) -> (Reg, Reg) {
        let up_to = self.warp_scan(x);
        let before = self.bin(BinOp::Sub, Type::U64, up_to, x);
        if self.warps() == 1 {
            return (before, self.last(up_to));
        }
        let last = self.cmp(Cmp::Eq, Type::U32, self.lane, Src::Int(31));
        let mine = self.slot(self.warp, 8);
        self.save(Some(last), Type::B64, up_to, mine, OF_WARPS);
        self.sync();
        let some = self.cmp(Cmp::Lt, Type::U32, self.lane, Src::Int(self.warps()));
        let other = self.slot(self.lane, 8);
        let sums = self.load_if(some, Type::B64, other, OF_WARPS);
        let earlier = self.cmp(Cmp::Lt, Type::U32, self.lane, self.warp);
        let earlier = self.pick(Type::B64, earlier, sums, Src::Int(0));
        let (earlier, all) = (self.warp_sum(earlier), self.warp_sum(sums));
        (self.bin(BinOp::Add, Type::U64, before, earlier), all)
    }
}
