//! The softmax of a tile: exponentials relative to the greatest score so far, and what came before scaled to it.
use super::{Cx, Fragments};
use crate::expand;
use crate::ptx::inst::*;
use crate::ptx::simt::V;
use lolm_ir::op::Unary;

/// What a lane knows of a row so far: the greatest score, and its part of the sum of exponentials relative to it.
pub struct Running {
    pub max: Reg,
    pub sum: Reg,
}

impl Cx<'_> {
    /// Rows that have seen nothing yet.
    pub fn running(&mut self) -> Vec<Running> {
        let start = f32::NEG_INFINITY.to_bits();
        let mut one = || {
            let max = self.g.e.b.variable(Type::F32, Src::F32(start));
            Running { max, sum: self.g.e.b.variable(Type::F32, Src::F32(0)) }
        };
        (0..2 * self.p.fragments).map(|_| one()).collect()
    }

    /// Exponentials of the scores; sums and results so far are scaled to them.
    pub fn softmax(&mut self, scores: &Fragments, rows: &[Running], results: &Fragments) -> Fragments {
        let mut weights: Fragments = scores.clone();
        for (i, row) in rows.iter().enumerate() {
            let (f, half) = (i / 2, i % 2 * 2);
            let of_row = |x: &Fragments| x[f].iter().flat_map(|r| [r[half], r[half + 1]]).collect::<Vec<Reg>>();
            let exponentials = self.normalise(row, &of_row(scores), &of_row(results));
            for (w, e) in weights[f].iter_mut().zip(exponentials.chunks(2)) {
                w[half..half + 2].copy_from_slice(e);
            }
        }
        weights
    }

    fn normalise(&mut self, row: &Running, scores: &[Reg], results: &[Reg]) -> Vec<Reg> {
        // In bf16 the factor of the scores goes into the exponent, which is that of 2.
        let scores: Vec<Reg> = match self.p.narrow {
            true => scores.to_vec(),
            false => scores.iter().map(|s| self.times(*s, self.s.scale)).collect(),
        };
        let greatest = self.greatest(row, &scores);
        let b = &mut self.g.e.b;
        // A row that has seen nothing yet has exponentials of -∞.
        let none = b.setp(Cmp::Eq, Type::F32, greatest, Src::F32(f32::NEG_INFINITY.to_bits()));
        let reference = b.selp(Type::F32, none, Src::F32(0), greatest);
        let (before, after) = (self.exponent(row.max), self.exponent(reference));
        let less = self.g.e.b.binary(BinOp::SubRn, Type::F32, before, after);
        let factor = self.exp(less);
        let weights: Vec<Reg> = scores.iter().map(|s| self.weight(*s, after)).collect();
        let b = &mut self.g.e.b;
        let scale = |b: &mut crate::ptx::build::Builder, d: Reg| {
            b.op(Op::Binary { op: BinOp::MulRn, ty: Type::F32, d, a: d.into(), b: factor.into() })
        };
        b.op(Op::Mov { ty: Type::F32, d: row.max, a: greatest.into() });
        scale(b, row.sum);
        for w in &weights {
            b.op(Op::Binary { op: BinOp::AddRn, ty: Type::F32, d: row.sum, a: row.sum.into(), b: (*w).into() });
        }
        results.iter().for_each(|r| scale(b, *r));
        weights
    }

    pub fn times(&mut self, x: Reg, by: f32) -> Reg {
        self.g.e.b.binary(BinOp::MulRn, Type::F32, x, Src::F32(by.to_bits()))
    }

    /// The greatest score of the row so far; four lanes have its columns.
    fn greatest(&mut self, row: &Running, scores: &[Reg]) -> Reg {
        let b = &mut self.g.e.b;
        let mut max = row.max;
        for s in scores {
            max = b.binary(BinOp::MaxNan, Type::F32, max, *s);
        }
        for distance in [1, 2] {
            let other = b.shfl(Shuffle::Bfly, max, Src::Int(distance));
            max = b.binary(BinOp::MaxNan, Type::F32, max, other);
        }
        max
    }

    /// What a score is as an exponent.
    pub fn exponent(&mut self, score: Reg) -> Reg {
        if self.p.narrow { self.times(score, self.factor()) } else { score }
    }
    pub fn factor(&self) -> f32 {
        (self.s.scale as f64 * std::f64::consts::LOG2_E) as f32
    }
    pub fn exp(&mut self, x: Reg) -> Reg {
        if self.p.narrow {
            return self.g.e.b.unary(UnOp::Ex2, Type::F32, x);
        }
        let y = expand::unary(self.g.e, Unary::Exp, V::Reg(x));
        self.g.e.reg(y)
    }
    /// The exponential of a score relative to this exponent.
    fn weight(&mut self, score: Reg, reference: Reg) -> Reg {
        let b = &mut self.g.e.b;
        let x = if self.p.narrow {
            let minus = b.unary(UnOp::Neg, Type::F32, reference);
            let factor = self.factor();
            self.g.e.b.fma(score.into(), Src::F32(factor.to_bits()), minus.into())
        } else {
            b.binary(BinOp::SubRn, Type::F32, score, reference)
        };
        self.exp(x)
    }

    /// The greatest scaled score, 0 where it is infinite.
    pub fn finite(&mut self, max: Reg) -> V {
        let scale = self.s.scale;
        let b = &mut self.g.e.b;
        let max = if self.p.narrow { b.binary(BinOp::MulRn, Type::F32, max, Src::F32(scale.to_bits())) } else { max };
        let size = b.unary(UnOp::Abs, Type::F32, max);
        let infinite = b.setp(Cmp::Eq, Type::F32, size, Src::F32(f32::INFINITY.to_bits()));
        V::Reg(b.selp(Type::F32, infinite, Src::F32(0), max))
    }

    /// The sum of a row's four lanes.
    pub fn total(&mut self, sum: Reg) -> V {
        let b = &mut self.g.e.b;
        let pair = b.shfl(Shuffle::Bfly, sum, Src::Int(1));
        let pair = b.binary(BinOp::AddRn, Type::F32, sum, pair);
        let other = b.shfl(Shuffle::Bfly, pair, Src::Int(2));
        V::Reg(b.binary(BinOp::AddRn, Type::F32, pair, other))
    }
}
