//! fma, roots, reciprocals, exponentials and the like.
use super::{Cx, Result};
use crate::ast::Operand;
use crate::inst::{Class, FloatFn, Test};
use crate::op::Op;
use crate::ty::{Mods, Round, Ty};

impl<'t> Cx<'t, '_> {
    pub(super) fn float(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>]) -> Result<()> {
        if m.head == "testp" {
            return self.testp(m, o);
        }
        let rounded = m.has_rounding();
        let mode = self.mode(m);
        let ty = m.ty()?;
        if !ty.float() {
            return Err(m.error("has an integer type", "it is defined for floats"));
        }
        if mode.round != Round::Nearest && ty != Ty::F32 {
            return Err(m.error("is rounded in a direction", "that is run here for f32 alone"));
        }
        if m.head == "fma" {
            if !rounded {
                return Err(m.error("says no rounding", "write fma.rn"));
            }
            return self.fma(m, o, ty, mode);
        }
        if m.head == "copysign" {
            // The first operand gives the sign.
            let [d, a, b] = self.operands(m, o)?;
            let (d, a, b) = (self.dest(d, ty)?, self.source(a, ty)?, self.source(b, ty)?);
            self.push(Class::Float, Op::Float { f: FloatFn::Copysign, ty, m: mode, d, a, b });
            return Ok(());
        }
        let f = match m.head {
            "sqrt" => FloatFn::Sqrt,
            "rcp" => FloatFn::Rcp,
            "rsqrt" => FloatFn::Rsqrt,
            "ex2" => FloatFn::Ex2,
            "lg2" => FloatFn::Lg2,
            "sin" => FloatFn::Sin,
            "cos" => FloatFn::Cos,
            _ => FloatFn::Tanh,
        };
        let exact = matches!(f, FloatFn::Sqrt | FloatFn::Rcp);
        let says_how = mode.approx || exact && rounded;
        if !says_how {
            return Err(m.error("says neither .approx nor a rounding", "write .approx, or .rn for sqrt and rcp"));
        }
        let halves = matches!(f, FloatFn::Ex2 | FloatFn::Tanh);
        if !matches!(ty, Ty::F32 | Ty::F64) && !halves || ty == Ty::F64 && !exact && f != FloatFn::Rsqrt {
            return Err(m.error("is not defined for this type", "convert to f32 first"));
        }
        if matches!(ty, Ty::BF16 | Ty::BF16x2) {
            self.needs(m, 90)?;
        }
        let [d, a] = self.operands(m, o)?;
        let (d, a) = (self.dest(d, ty)?, self.source(a, ty)?);
        self.push(Class::Special, Op::Float { f, ty, m: mode, d, a, b: a });
        Ok(())
    }

    fn testp(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>]) -> Result<()> {
        let names = ["finite", "infinite", "number", "notanumber", "normal", "subnormal"];
        let test = match m.one_of(&names) {
            Some("finite") => Test::Finite,
            Some("infinite") => Test::Infinite,
            Some("number") => Test::Number,
            Some("notanumber") => Test::NotANumber,
            Some("normal") => Test::Normal,
            Some(_) => Test::Subnormal,
            None => {
                return Err(m.error("says no test", "one of finite, infinite, number, notanumber, normal, subnormal"));
            }
        };
        let ty = m.ty()?;
        if !matches!(ty, Ty::F32 | Ty::F64) {
            return Err(m.error("tests this type", "it takes .f32 or .f64"));
        }
        let [d, a] = self.operands(m, o)?;
        let (d, a) = (self.dest(d, Ty::Pred)?, self.source(a, ty)?);
        self.push(Class::Float, Op::Testp { test, wide: ty == Ty::F64, d, a });
        Ok(())
    }
}
