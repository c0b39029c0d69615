//! Coordinates and addresses: 32 bits wide where the value is known to fit, since the machine's integers are.
use super::build::Builder;
use super::inst::*;

/// The same in all lanes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum C {
    Const(i64),
    /// In 32 bits, with what it is at least and at most.
    Int {
        reg: Reg,
        lo: i64,
        hi: i64,
    },
    /// In 64 bits.
    Long(Reg),
    /// An address in the operand with this number.
    Global(Reg, u16),
    /// An address in shared memory.
    Shared(Reg),
}

fn fits(lo: i64, hi: i64) -> bool {
    lo >= i32::MIN as i64 && hi <= i32::MAX as i64
}

impl C {
    /// What it is at least and at most, if that is known.
    pub fn range(self) -> Option<(i64, i64)> {
        match self {
            C::Const(x) => Some((x, x)),
            C::Int { lo, hi, .. } => Some((lo, hi)),
            C::Long(_) | C::Global(..) | C::Shared(_) => None,
        }
    }
    fn of(reg: Reg, lo: i64, hi: i64) -> C {
        C::Int { reg, lo, hi }
    }
}

/// A coordinate of at most 32 bits as an operand.
fn narrow(c: C) -> Option<Src> {
    match c {
        C::Const(x) => fits(x, x).then_some(Src::Int(x)),
        C::Int { reg, .. } => Some(Src::Reg(reg)),
        C::Long(_) | C::Global(..) | C::Shared(_) => None,
    }
}

/// A coordinate as an operand of 64 bits.
pub fn long(b: &mut Builder, c: C) -> Src {
    match c {
        C::Const(x) => Src::Int(x),
        C::Int { reg, .. } => b.cvt(Type::S64, Type::S32, Rounding::None, reg).into(),
        C::Long(r) | C::Global(r, _) => r.into(),
        C::Shared(r) => b.cvt(Type::U64, Type::U32, Rounding::None, r).into(),
    }
}

/// A coordinate as an operand of 32 bits; what does not fit loses its upper half.
pub fn int(b: &mut Builder, c: C) -> Src {
    match c {
        C::Const(x) => Src::Int(x as i32 as i64),
        C::Int { reg, .. } | C::Shared(reg) => reg.into(),
        C::Long(r) | C::Global(r, _) => b.cvt(Type::U32, Type::U64, Rounding::None, r).into(),
    }
}

pub fn add(b: &mut Builder, x: C, y: C) -> C {
    match (x, y) {
        (C::Const(x), C::Const(y)) => C::Const(x + y),
        (x, C::Const(0)) | (C::Const(0), x) => x,
        (C::Global(base, o), other) | (other, C::Global(base, o)) => {
            let other = long(b, other);
            C::Global(b.binary(BinOp::Add, Type::S64, base, other), o)
        }
        (C::Shared(base), other) | (other, C::Shared(base)) => {
            let other = int(b, other);
            C::Shared(b.binary(BinOp::Add, Type::S32, base, other))
        }
        (x, y) => {
            if let (Some((a, c)), Some((d, e)), Some(p), Some(q)) = (x.range(), y.range(), narrow(x), narrow(y))
                && fits(a + d, c + e)
            {
                return C::of(b.binary(BinOp::Add, Type::S32, p, q), a + d, c + e);
            }
            let (x, y) = (long(b, x), long(b, y));
            C::Long(b.binary(BinOp::Add, Type::S64, x, y))
        }
    }
}

pub fn mul(b: &mut Builder, x: C, by: i64) -> C {
    match (x, by) {
        (C::Const(x), by) => C::Const(x * by),
        (_, 0) => C::Const(0),
        (x, 1) => x,
        (C::Int { reg, lo, hi }, by) => {
            let (a, c) = (lo.saturating_mul(by), hi.saturating_mul(by));
            let (lo, hi) = (a.min(c), a.max(c));
            if fits(lo, hi) {
                return C::of(b.binary(BinOp::MulLo, Type::S32, reg, Src::Int(by)), lo, hi);
            }
            if fits(by, by) {
                return C::Long(b.binary(BinOp::MulWide, Type::S32, reg, Src::Int(by)));
            }
            let x = long(b, x);
            C::Long(b.binary(BinOp::MulLo, Type::S64, x, Src::Int(by)))
        }
        (x, by) => {
            let x = long(b, x);
            C::Long(b.binary(BinOp::MulLo, Type::S64, x, Src::Int(by)))
        }
    }
}

/// The smaller or the greater of two.
pub fn either(b: &mut Builder, x: C, y: C, op: BinOp) -> C {
    let pick = |x: i64, y: i64| if op == BinOp::Min { x.min(y) } else { x.max(y) };
    if let (C::Const(x), C::Const(y)) = (x, y) {
        return C::Const(pick(x, y));
    }
    match (x.range(), y.range(), narrow(x), narrow(y)) {
        // One of them always is.
        (Some((_, hi)), Some((lo, _)), ..) if hi <= lo => return if op == BinOp::Min { x } else { y },
        (Some((lo, _)), Some((_, hi)), ..) if hi <= lo => return if op == BinOp::Min { y } else { x },
        (Some((a, c)), Some((d, e)), Some(p), Some(q)) => {
            return C::of(b.binary(op, Type::S32, p, q), pick(a, d), pick(c, e));
        }
        _ => {}
    }
    let (x, y) = (long(b, x), long(b, y));
    C::Long(b.binary(op, Type::S64, x, y))
}

/// Quotient and remainder of what is not negative.
pub fn divmod(b: &mut Builder, x: C, by: i64) -> (C, C) {
    match x {
        C::Const(x) => (C::Const(x.div_euclid(by)), C::Const(x.rem_euclid(by))),
        x if by == 1 => (x, C::Const(0)),
        C::Int { hi, .. } if hi < by => (C::Const(0), x),
        C::Int { reg, hi, .. } if fits(by, by) => {
            let hi = hi.max(0);
            let (q, r) = if by & (by - 1) == 0 {
                let q = b.binary(BinOp::Shr, Type::U32, reg, Src::Int(by.trailing_zeros() as i64));
                (q, b.binary(BinOp::And, Type::B32, reg, Src::Int(by - 1)))
            } else {
                let q = b.binary(BinOp::Div, Type::U32, reg, Src::Int(by));
                let back = b.binary(BinOp::MulLo, Type::S32, q, Src::Int(by));
                (q, b.binary(BinOp::Sub, Type::S32, reg, back))
            };
            (C::of(q, 0, hi / by), C::of(r, 0, hi.min(by - 1)))
        }
        x => {
            let x = long(b, x);
            let q = b.binary(BinOp::Div, Type::U64, x, Src::Int(by));
            let back = b.binary(BinOp::MulLo, Type::S64, q, Src::Int(by));
            let r = b.binary(BinOp::Sub, Type::S64, x, back);
            if !fits(by, by) {
                return (C::Long(q), C::Long(r));
            }
            let r = b.cvt(Type::U32, Type::U64, Rounding::None, r);
            (C::Long(q), C::of(r, 0, by - 1))
        }
    }
}
