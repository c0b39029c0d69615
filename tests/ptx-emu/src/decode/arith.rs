//! add, sub, mul, mad, div, rem, neg, abs, min, max, sad: of integers, and of floats where the type says so.
use super::{Cx, Result};
use crate::ast::Operand;
use crate::inst::{Class, FloatFn, FloatMode, IntFn, TriFn};
use crate::op::Op;
use crate::ty::{Mods, Round, Ty};

impl<'t> Cx<'t, '_> {
    pub(super) fn arithmetic(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>]) -> Result<()> {
        let rounded = m.has_rounding();
        let mode = self.mode(m);
        let ty = m.ty()?;
        if ty.float() && matches!(m.head, "div" | "mad") && !rounded && !mode.approx {
            return Err(m.error("says no rounding", "write .rn, or .approx for a division"));
        }
        let directed = mode.round != Round::Nearest && ty != Ty::F32;
        if ty.float() && directed {
            return Err(m.error("is rounded in a direction", "that is run here for f32 alone"));
        }
        if ty.float() {
            return self.float_arithmetic(m, o, ty, mode);
        }
        if !ty.integer() {
            return Err(m.error("computes with untyped bits", "say .u32 or .s32, or the like"));
        }
        let head = m.head;
        match head {
            "mul" if m.take("wide") => self.wide(m, o, ty, false),
            "mad" if m.take("wide") => self.wide(m, o, ty, true),
            "mad" => {
                let f = if m.take("hi") { TriFn::MadHi } else { TriFn::MadLo };
                m.take("lo");
                self.tri(m, o, f, ty)
            }
            "sad" => self.tri(m, o, TriFn::Sad, ty),
            "neg" | "abs" => {
                let [d, a] = self.operands(m, o)?;
                let f = if m.head == "neg" { IntFn::Neg } else { IntFn::Abs };
                let (d, a) = (self.dest(d, ty)?, self.source(a, ty)?);
                self.push(Class::Integer, Op::Int { f, ty, d, a, b: a });
                Ok(())
            }
            head => {
                let f = match (head, mode.sat) {
                    ("add", false) => IntFn::Add,
                    ("add", true) => IntFn::AddSat,
                    ("sub", false) => IntFn::Sub,
                    ("sub", true) => IntFn::SubSat,
                    ("mul", _) if m.take("hi") => IntFn::MulHi,
                    ("mul", _) if m.take("lo") => IntFn::MulLo,
                    ("mul", _) => {
                        return Err(m.error("says neither .lo nor .hi nor .wide", "an integer product needs one"));
                    }
                    ("div", _) => IntFn::Div,
                    ("rem", _) => IntFn::Rem,
                    ("min", _) => IntFn::Min,
                    _ => IntFn::Max,
                };
                if matches!(f, IntFn::AddSat | IntFn::SubSat) && ty != Ty::S32 {
                    return Err(m.error("saturates another type than s32", "PTX has .sat for s32 alone"));
                }
                self.int2(m, o, f, ty)
            }
        }
    }

    pub(super) fn int2(&mut self, m: &Mods<'t>, o: &[Operand<'t>], f: IntFn, ty: Ty) -> Result<()> {
        let [d, a, b] = self.operands(m, o)?;
        let (d, a, b) = (self.dest(d, ty)?, self.source(a, ty)?, self.source(b, ty)?);
        let class = if matches!(f, IntFn::Div | IntFn::Rem) { Class::Special } else { Class::Integer };
        self.push(class, Op::Int { f, ty, d, a, b });
        Ok(())
    }

    pub(super) fn tri(&mut self, m: &Mods<'t>, o: &[Operand<'t>], f: TriFn, ty: Ty) -> Result<()> {
        let [d, a, b, c] = self.operands(m, o)?;
        let (d, a, b, c) = (self.dest(d, ty)?, self.source(a, ty)?, self.source(b, ty)?, self.source(c, ty)?);
        self.push(Class::Integer, Op::Tri { f, ty, d, a, b, c });
        Ok(())
    }

    fn wide(&mut self, m: &Mods<'t>, o: &[Operand<'t>], ty: Ty, add: bool) -> Result<()> {
        let double = match ty {
            Ty::U16 => Ty::U32,
            Ty::S16 => Ty::S32,
            Ty::U32 => Ty::U64,
            Ty::S32 => Ty::S64,
            _ => return Err(m.error("widens this type", "it takes .u16, .s16, .u32 or .s32")),
        };
        let c = match (add, o) {
            (true, [_, _, _, c]) => Some(self.source(c, double)?),
            (false, [_, _, _]) => None,
            _ => return Err(m.error(&format!("has {} operands", o.len()), "mul.wide takes 3, mad.wide 4")),
        };
        let (d, a, b) = (self.dest(&o[0], double)?, self.source(&o[1], ty)?, self.source(&o[2], ty)?);
        self.push(Class::Integer, Op::MulWide { ty, d, a, b, c });
        Ok(())
    }

    /// The modifiers of float arithmetic.
    pub(super) fn mode(&mut self, m: &mut Mods<'t>) -> FloatMode {
        FloatMode {
            round: m.round().unwrap_or(Round::Nearest),
            ftz: m.take("ftz"),
            sat: m.take("sat"),
            relu: m.take("relu"),
            approx: m.take("approx") | m.take("full"),
        }
    }

    fn float_arithmetic(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>], ty: Ty, mode: FloatMode) -> Result<()> {
        if matches!(ty, Ty::BF16 | Ty::BF16x2) && matches!(m.head, "add" | "sub" | "mul") {
            self.needs(m, 90)?;
        }
        let nan = m.take("NaN");
        let f = match m.head {
            "add" => FloatFn::Add,
            "sub" => FloatFn::Sub,
            "mul" => FloatFn::Mul,
            "div" => FloatFn::Div,
            "min" if nan => FloatFn::MinNan,
            "max" if nan => FloatFn::MaxNan,
            "min" => FloatFn::Min,
            "max" => FloatFn::Max,
            "neg" | "abs" => {
                let [d, a] = self.operands(m, o)?;
                let f = if m.head == "neg" { FloatFn::Neg } else { FloatFn::Abs };
                let (d, a) = (self.dest(d, ty)?, self.source(a, ty)?);
                self.push(Class::Float, Op::Float { f, ty, m: mode, d, a, b: a });
                return Ok(());
            }
            "mad" => return self.fma(m, o, ty, mode),
            _ => return Err(m.error("has no float form", "use integers")),
        };
        let packed = !matches!(ty, Ty::F32 | Ty::F64);
        if f == FloatFn::Div && packed {
            return Err(m.error("divides halves", "convert to f32 first"));
        }
        let [d, a, b] = self.operands(m, o)?;
        let (d, a, b) = (self.dest(d, ty)?, self.source(a, ty)?, self.source(b, ty)?);
        let class = if f == FloatFn::Div { Class::Special } else { Class::Float };
        self.push(class, Op::Float { f, ty, m: mode, d, a, b });
        Ok(())
    }

    pub(super) fn fma(&mut self, m: &Mods<'t>, o: &[Operand<'t>], ty: Ty, mode: FloatMode) -> Result<()> {
        let [d, a, b, c] = self.operands(m, o)?;
        let (d, a, b, c) = (self.dest(d, ty)?, self.source(a, ty)?, self.source(b, ty)?, self.source(c, ty)?);
        self.push(Class::Float, Op::Fma { ty, m: mode, d, a, b, c });
        Ok(())
    }
}
