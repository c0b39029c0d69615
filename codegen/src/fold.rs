//! Folds: what they start from, how an element is folded in, how partial results are joined.
use crate::emit::{Bin, Emit};
use crate::eval::{Acc, Gen, Gives, Inst, with};
use lolm_ir::DType;
use lolm_ir::kernel::{Fold, KAxis, KOp, KValue};

impl<E: Emit> Gen<'_, E> {
    /// What a fold starts from.
    pub fn fold_start(&mut self, v: KValue) -> Acc<E::V> {
        let value = self.k.value(v);
        let least = match (&value.op, value.dtype) {
            (KOp::Reduce(Fold::Sum, _), DType::I32) => self.e.i32(0),
            (KOp::Reduce(Fold::Max, _), DType::I32) => self.e.i32(i32::MIN),
            (KOp::Reduce(Fold::Max, _) | KOp::ArgMax(_), _) => self.e.f32(f32::NEG_INFINITY),
            _ => self.e.f32(0.0),
        };
        Acc { x: least, at: None }
    }

    /// Folds one more element in, that of the instance.
    pub fn fold_step(&mut self, v: KValue, axis: KAxis, acc: Acc<E::V>, inst: &Inst) -> Gives<Acc<E::V>> {
        let value = self.k.value(v);
        let x = self.eval(value.args[0], inst)?;
        let mask = self.mask(axis, inst)?;
        let mut at = acc.at;
        let next = match &value.op {
            KOp::Reduce(Fold::Sum, _) => self.e.binary(Bin::Add, value.dtype, acc.x, x),
            KOp::Reduce(Fold::Max, _) => self.e.binary(Bin::Max, value.dtype, acc.x, x),
            KOp::Dot(_) => {
                let y = self.eval(value.args[1], inst)?;
                self.e.fma(x, y, acc.x)
            }
            KOp::ArgMax(_) => {
                let here = self.index(axis, inst)?;
                let mut better = self.e.binary(Bin::Lt, DType::F32, acc.x, x);
                if let Some(m) = mask {
                    better = self.e.binary(Bin::And, DType::Bool, better, m);
                }
                at = acc.at.map(|at| self.e.select(better, here, at));
                return Ok(Acc { x: self.e.select(better, x, acc.x), at });
            }
            _ => return Err(self.nowhere(v)),
        };
        let x = mask.map_or(next, |m| self.e.select(m, next, acc.x));
        Ok(Acc { x, at })
    }

    /// Joins two partial folds, of which `a` holds the earlier elements or, of an argmax, any.
    pub fn fold_join(&mut self, v: KValue, a: Acc<E::V>, b: Acc<E::V>) -> Acc<E::V> {
        let value = self.k.value(v);
        let (KOp::ArgMax(_), Some(i), Some(j)) = (&value.op, a.at, b.at) else {
            let max = matches!(value.op, KOp::Reduce(Fold::Max, _));
            let op = if max { Bin::Max } else { Bin::Add };
            return Acc { x: self.e.binary(op, value.dtype, a.x, b.x), at: None };
        };
        let greater = self.e.binary(Bin::Lt, DType::F32, a.x, b.x);
        let equal = self.e.binary(Bin::Eq, DType::F32, a.x, b.x);
        let first = self.e.binary(Bin::Lt, DType::I32, j, i);
        let tie = self.e.binary(Bin::And, DType::Bool, equal, first);
        let better = self.e.binary(Bin::Or, DType::Bool, greater, tie);
        Acc { x: self.e.select(better, b.x, a.x), at: Some(self.e.select(better, j, i)) }
    }

    /// What a fold starts from, with the accumulator of a dot and the first index of an argmax.
    pub fn fold_seed(&mut self, v: KValue, inst: &Inst, first: E::V) -> Gives<Acc<E::V>> {
        let value = self.k.value(v);
        let start = self.fold_start(v);
        Ok(match (&value.op, value.args.get(2)) {
            (KOp::Dot(_), Some(acc)) => Acc { x: self.eval(*acc, inst)?, at: None },
            (KOp::ArgMax(_), _) => Acc { x: start.x, at: Some(first) },
            _ => start,
        })
    }

    /// A fold along an axis that lies unrolled in registers: a chain in ascending order.
    pub fn fold_registers(&mut self, v: KValue, a: KAxis, inst: &Inst) -> Gives<E::V> {
        let slot = self.s.slot(a).ok_or_else(|| self.nowhere(v))?;
        let first = match self.k.axis(a).lo {
            Some(lo) => self.eval(lo, inst)?,
            None => self.e.i32(0),
        };
        let mut acc = self.fold_seed(v, inst, first)?;
        for q in 0..self.k.axis(a).len {
            acc = self.fold_step(v, a, acc, &with(*inst, slot, q as u8))?;
        }
        Ok(acc.at.unwrap_or(acc.x))
    }
}
