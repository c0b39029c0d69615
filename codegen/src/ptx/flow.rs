//! What loops are made of: counters that change, comparisons with them, and moves of what is carried from one iteration to
//! the next.
use super::coord::{self, C};
use super::inst::*;
use super::simt::{Simt, V};

impl Simt {
    /// A register for a coordinate that changes, which starts there and stays within this range.
    pub fn counter(&mut self, start: C, range: Option<(i64, i64)>) -> C {
        match range {
            Some((lo, hi)) if lo >= i32::MIN as i64 && hi <= i32::MAX as i64 => {
                let x = coord::int(&mut self.b, start);
                C::Int { reg: self.b.variable(Type::B32, x), lo, hi }
            }
            _ => {
                let x = coord::long(&mut self.b, start);
                C::Long(self.b.variable(Type::B64, x))
            }
        }
    }
    /// Moves a counter on.
    pub fn step(&mut self, c: C, by: Src) {
        match c {
            C::Int { reg, .. } => self.b.op(Op::Binary { op: BinOp::Add, ty: Type::S32, d: reg, a: reg.into(), b: by }),
            C::Long(reg) => self.b.op(Op::Binary { op: BinOp::Add, ty: Type::S64, d: reg, a: reg.into(), b: by }),
            C::Const(_) | C::Global(..) | C::Shared(_) => {
                self.wrong("a loop without a counter");
            }
        }
    }
    pub fn compare(&mut self, cmp: Cmp, a: C, b: C) -> Reg {
        let narrow = a.range().is_some() && b.range().is_some();
        let (ty, a, b) = match narrow {
            true => (Type::S32, coord::int(&mut self.b, a), coord::int(&mut self.b, b)),
            false => (Type::S64, coord::long(&mut self.b, a), coord::long(&mut self.b, b)),
        };
        self.b.compare(cmp, ty, a, b)
    }

    /// Moves several values at once: none is overwritten before it was read.
    pub fn move_all(&mut self, to: &[Reg], from: &[V]) {
        let mut ready = vec![];
        for (d, v) in to.iter().zip(from) {
            let other = matches!(v, V::Reg(r) if r != d && to.contains(r));
            ready.push(if other {
                let r = self.reg(*v);
                V::Reg(self.b.variable(ty_of(r.class), r))
            } else {
                *v
            });
        }
        for (d, v) in to.iter().zip(ready) {
            if v == V::Reg(*d) {
                continue;
            }
            let a = self.src(v);
            self.b.op(Op::Mov { ty: ty_of(d.class), d: *d, a });
        }
    }
}

fn ty_of(c: Class) -> Type {
    match c {
        Class::Pred => Type::Pred,
        Class::B16 => Type::B16,
        Class::B32 => Type::B32,
        Class::B64 => Type::B64,
        Class::F32 => Type::F32,
    }
}
