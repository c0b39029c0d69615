//! Logic, shifts and fields of bits; comparisons and selections.
use super::{Cx, Result};
use crate::ast::Operand;
use crate::inst::{BitsFn, BoolFn, Class, Cmp, IntFn, PredRef, PrmtMode, TriFn};
use crate::op::Op;
use crate::ty::{Kind, Mods, Ty};

impl<'t> Cx<'t, '_> {
    pub(super) fn bits(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>]) -> Result<()> {
        match m.head {
            "and" | "or" | "xor" => self.logic(m, o),
            "not" | "cnot" => self.not(m, o),
            "shl" | "shr" => self.shift(m, o),
            "shf" => {
                let left = m.take("l");
                let right = m.take("r");
                let wrap = m.take("wrap");
                let clamp = m.take("clamp");
                if left == right || wrap == clamp {
                    return Err(m.error("lacks a direction or a mode", "write shf.l.wrap.b32 or the like"));
                }
                let ty = self.untyped(m)?;
                let f = if left { TriFn::ShfLeft { wrap } } else { TriFn::ShfRight { wrap } };
                self.tri(m, o, f, ty)
            }
            "lop3" => {
                self.untyped(m)?;
                let [d, a, b, c, table] = self.operands(m, o)?;
                let f = TriFn::Lop3(self.constant(table)? as u8);
                let ty = Ty::B32;
                let (d, a, b, c) = (self.dest(d, ty)?, self.source(a, ty)?, self.source(b, ty)?, self.source(c, ty)?);
                self.push(Class::Integer, Op::Tri { f, ty, d, a, b, c });
                Ok(())
            }
            "bfe" => {
                let ty = self.integer(m)?;
                let [d, a, b, c] = self.operands(m, o)?;
                let f = if ty.signed() { TriFn::BfeSigned } else { TriFn::BfeUnsigned };
                let (d, a) = (self.dest(d, ty)?, self.source(a, ty)?);
                let (b, c) = (self.source(b, Ty::U32)?, self.source(c, Ty::U32)?);
                self.push(Class::Integer, Op::Tri { f, ty, d, a, b, c });
                Ok(())
            }
            "bfi" => {
                let ty = self.untyped(m)?;
                let [d, a, b, c, len] = self.operands(m, o)?;
                let (d, a, b) = (self.dest(d, ty)?, self.source(a, ty)?, self.source(b, ty)?);
                let (c, len) = (self.source(c, Ty::U32)?, self.source(len, Ty::U32)?);
                self.push(Class::Integer, Op::Bfi { wide: ty.bytes() == 8, d, a, b, c, len });
                Ok(())
            }
            "popc" | "clz" | "bfind" => self.count(m, o),
            "brev" => {
                let ty = self.untyped(m)?;
                let [d, a] = self.operands(m, o)?;
                let (d, a) = (self.dest(d, ty)?, self.source(a, ty)?);
                self.push(Class::Integer, Op::Brev { wide: ty.bytes() == 8, d, a });
                Ok(())
            }
            "prmt" => {
                self.untyped(m)?;
                let mode = match m.one_of(&["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"]) {
                    None => PrmtMode::Index,
                    Some("f4e") => PrmtMode::F4e,
                    Some("b4e") => PrmtMode::B4e,
                    Some("rc8") => PrmtMode::Rc8,
                    Some("ecl") => PrmtMode::Ecl,
                    Some("ecr") => PrmtMode::Ecr,
                    Some(_) => PrmtMode::Rc16,
                };
                self.tri(m, o, TriFn::Prmt(mode), Ty::B32)
            }
            _ => {
                let (a, b) = (m.ty()?, m.ty()?);
                let f = TriFn::Dp4a { a_signed: a.signed(), b_signed: b.signed() };
                self.tri(m, o, f, Ty::B32)
            }
        }
    }

    /// The type of an instruction that takes untyped bits.
    fn untyped(&self, m: &mut Mods<'t>) -> Result<Ty> {
        match m.ty()? {
            ty if ty.untyped() => Ok(ty),
            ty => Err(m.error(&format!("has the type {ty:?}"), "it takes untyped bits, such as .b32")),
        }
    }

    /// The type of an instruction that takes integers.
    fn integer(&self, m: &mut Mods<'t>) -> Result<Ty> {
        match m.ty()? {
            ty if ty.integer() => Ok(ty),
            ty => Err(m.error(&format!("has the type {ty:?}"), "it takes integers, such as .u32")),
        }
    }

    fn logic(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>]) -> Result<()> {
        let ty = m.ty()?;
        let (f, p) = match m.head {
            "and" => (IntFn::And, BoolFn::And),
            "or" => (IntFn::Or, BoolFn::Or),
            _ => (IntFn::Xor, BoolFn::Xor),
        };
        if ty != Ty::Pred && !ty.untyped() {
            return Err(m.error(&format!("has the type {ty:?}"), "it takes untyped bits, such as .b32, or .pred"));
        }
        if ty != Ty::Pred {
            return self.int2(m, o, f, ty);
        }
        let [d, a, b] = self.operands(m, o)?;
        let (d, a, b) = (self.dest(d, ty)?, self.pred(a)?, self.pred(b)?);
        self.push(Class::Integer, Op::PredLogic { f: p, d, a, b });
        Ok(())
    }

    fn not(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>]) -> Result<()> {
        let ty = m.ty()?;
        let [d, a] = self.operands(m, o)?;
        if ty == Ty::Pred {
            let (d, a) = (self.dest(d, ty)?, self.pred(a)?);
            self.push(Class::Integer, Op::PredMov { d, a: PredRef { negated: !a.negated, ..a } });
            return Ok(());
        }
        if !ty.untyped() {
            return Err(m.error(&format!("has the type {ty:?}"), "it takes untyped bits, such as .b32"));
        }
        let f = if m.head == "not" { IntFn::Not } else { IntFn::Cnot };
        let (d, a) = (self.dest(d, ty)?, self.source(a, ty)?);
        self.push(Class::Integer, Op::Int { f, ty, d, a, b: a });
        Ok(())
    }

    fn shift(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>]) -> Result<()> {
        let ty = m.ty()?;
        let takes = ty.untyped() || m.head == "shr" && ty.integer();
        if !takes {
            return Err(m.error(&format!("has the type {ty:?}"), "shl takes .b32 or the like, shr integers as well"));
        }
        let [d, a, b] = self.operands(m, o)?;
        let (d, a, b) = (self.dest(d, ty)?, self.source(a, ty)?, self.source(b, Ty::U32)?);
        self.push(Class::Integer, Op::Shift { left: m.head == "shl", ty, d, a, b });
        Ok(())
    }

    fn count(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>]) -> Result<()> {
        let shift = m.take("shiftamt");
        let ty = if m.head == "bfind" { self.integer(m)? } else { self.untyped(m)? };
        let f = match (m.head, ty.signed(), shift) {
            ("popc", _, _) => BitsFn::Popc,
            ("clz", _, _) => BitsFn::Clz,
            (_, false, false) => BitsFn::Bfind,
            (_, false, true) => BitsFn::BfindShift,
            (_, true, false) => BitsFn::BfindSigned,
            (_, true, true) => BitsFn::BfindSignedShift,
        };
        let [d, a] = self.operands(m, o)?;
        let (d, a) = (self.dest(d, Ty::U32)?, self.source(a, ty)?);
        self.push(Class::Integer, Op::Bits { f, wide: ty.bytes() == 8, d, a });
        Ok(())
    }

    pub(super) fn compare(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>]) -> Result<()> {
        match m.head {
            "selp" => {
                let ty = m.ty()?;
                let [d, a, b, p] = self.operands(m, o)?;
                let (d, a, b, p) = (self.dest(d, ty)?, self.source(a, ty)?, self.source(b, ty)?, self.pred(p)?);
                self.push(Class::Move, Op::Selp { wide: ty.bytes() == 8, d, a, b, p });
                Ok(())
            }
            "slct" => {
                m.take("ftz");
                let (ty, by) = (m.ty()?, m.ty()?);
                let [d, a, b, c] = self.operands(m, o)?;
                let f = TriFn::Slct { float: by == Ty::F32 };
                let (d, a, b, c) = (self.dest(d, ty)?, self.source(a, ty)?, self.source(b, ty)?, self.source(c, by)?);
                self.push(Class::Move, Op::Tri { f, ty, d, a, b, c });
                Ok(())
            }
            _ => self.setp(m, o),
        }
    }

    fn setp(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>]) -> Result<()> {
        let ftz = m.take("ftz");
        let logic = match m.one_of(&["and", "or", "xor"]) {
            None => None,
            Some("and") => Some(BoolFn::And),
            Some("or") => Some(BoolFn::Or),
            Some(_) => Some(BoolFn::Xor),
        };
        let name = m.first().unwrap_or("");
        let float = if m.head == "set" { Some(m.ty()?) } else { None };
        let ty = m.ty()?;
        let known = ty.integer() || ty.untyped() || matches!(ty, Ty::F16 | Ty::BF16 | Ty::F32 | Ty::F64);
        if !known {
            return Err(m.error(&format!("compares values of type {ty:?}"), "take them apart first"));
        }
        if ty == Ty::BF16 {
            self.needs(m, 90)?;
        }
        let Some(cmp) = comparison(name, ty) else {
            return Err(m.error(
                &format!("compares by `{name}`"),
                "write eq ne lt le gt ge, lo ls hi hs, or equ … nan for floats",
            ));
        };
        let with = match (logic, o.len()) {
            (None, 3) => None,
            (Some(f), 4) => Some((f, self.pred(&o[3])?)),
            _ => return Err(m.error(&format!("has {} operands", o.len()), "it takes 3, and 4 with .and, .or or .xor")),
        };
        let (a, b) = (self.source(&o[1], ty)?, self.source(&o[2], ty)?);
        if let Some(result) = float {
            let d = self.dest(&o[0], result)?;
            self.push(Class::Integer, Op::Set { cmp, ty, ftz, float: result == Ty::F32, d, a, b, with });
            return Ok(());
        }
        let (d, q) = match o[0] {
            Operand::Pair(d, q) => {
                (self.dest(&Operand::Name(d), Ty::Pred)?, Some(self.dest(&Operand::Name(q), Ty::Pred)?))
            }
            ref one => (self.dest(one, Ty::Pred)?, None),
        };
        let class = if ty.float() { Class::Float } else { Class::Integer };
        self.push(class, Op::Setp { cmp, ty, ftz, d, q, a, b, with });
        Ok(())
    }
}

fn comparison(name: &str, ty: Ty) -> Option<Cmp> {
    let float = ty.float();
    let unsigned = ty.kind() == Kind::Unsigned;
    if ty.untyped() && !matches!(name, "eq" | "ne") {
        return None;
    }
    Some(match name {
        "eq" => Cmp::Eq,
        "ne" => Cmp::Ne,
        "lt" => Cmp::Lt,
        "le" => Cmp::Le,
        "gt" => Cmp::Gt,
        "ge" => Cmp::Ge,
        "lo" if unsigned => Cmp::Lt,
        "ls" if unsigned => Cmp::Le,
        "hi" if unsigned => Cmp::Gt,
        "hs" if unsigned => Cmp::Ge,
        "equ" if float => Cmp::Equ,
        "neu" if float => Cmp::Neu,
        "ltu" if float => Cmp::Ltu,
        "leu" if float => Cmp::Leu,
        "gtu" if float => Cmp::Gtu,
        "geu" if float => Cmp::Geu,
        "num" if float => Cmp::Num,
        "nan" if float => Cmp::Nan,
        _ => return None,
    })
}
