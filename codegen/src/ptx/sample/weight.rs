//! Elements of the row, their keys and their weights.
use super::{Cx, Top};
use crate::ptx::inst::*;

/// Weights are multiples of 2^-35 of the greatest.
const ONE: i64 = 1 << 35;
/// From this exponent down a weight rounds to nothing: e^-26 is less than half of 2^-35.
const LEAST: f32 = -26.0;
/// All floats from here on are multiples of 2^-35, so a sum with one is rounded to such.
const WHOLE: f32 = 1.0 / 4096.0;

const ROUND: f32 = 12_582_912.0;
const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
const EXP: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1];

fn float(x: f32) -> Src {
    Src::F32(x.to_bits())
}

impl Cx<'_> {
    /// The element of this index; beyond the end, what is not a number.
    pub fn element(&mut self, index: Reg) -> Reg {
        let inside = self.cmp(Cmp::Lt, Type::U32, index, Src::Int(self.len));
        let at = self.bin(BinOp::MulWide, Type::U32, index, Src::Int(self.step));
        let base = self.bin(BinOp::Add, Type::U64, self.row, at);
        let d = self.var(Type::F32, float(f32::NAN));
        let ld = Op::Ld { space: Space::ReadOnly, ty: Type::F32, d, at: Address { base, offset: 0 } };
        self.g.e.b.guarded(Some((inside, true)), ld);
        d
    }

    /// A u32 in the order of the floats; a zero of either sign has the same, what is not a number has 0.
    pub fn key(&mut self, x: Reg) -> Reg {
        let y = self.bin(BinOp::AddRn, Type::F32, x, float(0.0));
        let bits = self.bits(Class::B32, y);
        let sign = self.bin(BinOp::Shr, Type::S32, bits, Src::Int(31));
        let flip = self.bin(BinOp::Or, Type::B32, sign, Src::Int(1 << 31));
        let key = self.bin(BinOp::Xor, Type::B32, bits, flip);
        let number = self.cmp(Cmp::Eq, Type::F32, x, x);
        self.pick(Type::B32, number, key, Src::Int(0))
    }
    /// The float that has this key.
    fn of_key(&mut self, key: Reg) -> Reg {
        let sign = self.bin(BinOp::Shr, Type::S32, key, Src::Int(31));
        let flip = self.bin(BinOp::Xor, Type::B32, sign, Src::Int(-1));
        let flip = self.bin(BinOp::Or, Type::B32, flip, Src::Int(1 << 31));
        let bits = self.bin(BinOp::Xor, Type::B32, key, flip);
        self.bits(Class::F32, bits)
    }

    pub fn top(&mut self, key: Reg, temperature: Reg) -> Top {
        let x = self.of_key(key);
        let size = self.g.e.b.reg(Class::F32);
        self.op(Op::Unary { op: UnOp::Abs, ty: Type::F32, d: size, a: x.into() });
        let finite = self.cmp(Cmp::Lt, Type::F32, size, float(f32::INFINITY));
        let scale = self.bin(BinOp::DivRn, Type::F32, float(1.0), temperature);
        let scale = self.bin(BinOp::Min, Type::F32, scale, float(f32::MAX));
        Top { key, x, scale, finite }
    }

    /// exp((x - top) · scale) in multiples of 2^-35, by the steps that the host takes; nothing is contracted.
    pub fn weight(&mut self, top: Top, x: Reg, key: Reg) -> Reg {
        let f = Type::F32;
        let t = self.bin(BinOp::SubRn, f, x, top.x);
        let t = self.bin(BinOp::MulRn, f, t, top.scale);
        // What is not a number becomes the least.
        let t = self.bin(BinOp::Max, f, t, float(LEAST));
        let digits = self.bin(BinOp::MulRn, f, t, float(std::f32::consts::LOG2_E));
        let digits = self.bin(BinOp::AddRn, f, digits, float(ROUND));
        let n = self.bin(BinOp::SubRn, f, digits, float(ROUND));
        let mut r = t;
        for part in LN2 {
            let product = self.bin(BinOp::MulRn, f, n, float(part));
            r = self.bin(BinOp::SubRn, f, r, product);
        }
        let mut p = self.bin(BinOp::MulRn, f, r, float(EXP[0]));
        for c in &EXP[1..] {
            p = self.bin(BinOp::AddRn, f, p, float(*c));
            p = self.bin(BinOp::MulRn, f, p, r);
        }
        p = self.bin(BinOp::MulRn, f, p, r);
        p = self.bin(BinOp::AddRn, f, p, r);
        p = self.bin(BinOp::AddRn, f, p, float(1.0));
        let bits = self.bits(Class::B32, digits);
        let power =
            self.bin(BinOp::Add, Type::U32, bits, Src::Int((127 - ROUND.to_bits() as i64) as u32 as i32 as i64));
        let power = self.bin(BinOp::Shl, Type::B32, power, Src::Int(23));
        let power = self.bits(Class::F32, power);
        let w = self.bin(BinOp::MulRn, f, p, power);
        let w = self.bin(BinOp::AddRn, f, w, float(WHOLE));
        let w = self.bin(BinOp::SubRn, f, w, float(WHOLE));
        let w = self.bin(BinOp::MulRn, f, w, float(ONE as f32));
        let w = self.cvt(Type::U64, f, Rounding::Rzi, w);
        // Beside an infinite maximum nothing else has weight.
        let equal = self.cmp(Cmp::Eq, Type::U32, key, top.key);
        let other = self.pick(Type::B64, equal, Src::Int(ONE), Src::Int(0));
        self.pick(Type::B64, top.finite, w, other)
    }
    /// The weight of what has this key; none of what is not a number.
    pub fn weight_of_key(&mut self, top: Top, key: Reg) -> Reg {
        let x = self.of_key(key);
        self.weight(top, x, key)
    }

    /// The least whole number that is at least this part, less than 1, of a sum; at least 1.
    pub fn part(&mut self, part: Reg, sum: Reg) -> Reg {
        let part = self.bin(BinOp::MulRn, Type::F32, part, float((1u64 << 40) as f32));
        let part = self.cvt(Type::U64, Type::F32, Rounding::Rzi, part);
        let part = self.bin(BinOp::Shl, Type::B64, part, Src::Int(24));
        let whole = self.bin(BinOp::MulHi, Type::U64, part, sum);
        let rest = self.bin(BinOp::MulLo, Type::U64, part, sum);
        let some = self.cmp(Cmp::Ne, Type::U64, rest, Src::Int(0));
        let more = self.pick(Type::B64, some, Src::Int(1), Src::Int(0));
        let up = self.bin(BinOp::Add, Type::U64, whole, more);
        self.bin(BinOp::Max, Type::U64, up, Src::Int(1))
    }
    /// The least weight that is at least this part of the greatest.
    pub fn least(&mut self, part: Reg) -> Reg {
        let x = self.bin(BinOp::MulRn, Type::F32, part, float(ONE as f32));
        let x = self.cvt(Type::U64, Type::F32, Rounding::Rpi, x);
        self.bin(BinOp::Min, Type::U64, x, Src::Int(ONE))
    }
    /// This part, less than 1, of a sum, in steps of 2^-24 and rounded down.
    pub fn bar_of(&mut self, uniform: Reg, sum: Reg) -> Reg {
        let n = self.bin(BinOp::MulRn, Type::F32, uniform, float((1 << 24) as f32));
        let n = self.cvt(Type::U32, Type::F32, Rounding::Rzi, n);
        let n = self.bin(BinOp::Min, Type::U32, n, Src::Int((1 << 24) - 1));
        let n = self.cvt(Type::U64, Type::U32, Rounding::None, n);
        let n = self.bin(BinOp::Shl, Type::B64, n, Src::Int(40));
        self.bin(BinOp::MulHi, Type::U64, sum, n)
    }
}
