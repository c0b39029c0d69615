//! mov, cvt, cvta, ld and st.
use super::names::Symbol;
use super::{Cx, Result};
use crate::ast::Operand;
use crate::inst::{Access, Addr, Class, Cvt, Order, Space};
use crate::op::Op;
use crate::ty::{Kind, Mods, Round, Ty};

/// Cache operators and hints: they say nothing about the value.
const HINTS: &[&str] = &[
    "ca",
    "cg",
    "cs",
    "lu",
    "cv",
    "wb",
    "wt",
    "L1::no_allocate",
    "L1::evict_first",
    "L1::evict_last",
    "L1::evict_normal",
    "L1::evict_unchanged",
    "L2::evict_first",
    "L2::evict_last",
    "L2::evict_normal",
    "L2::64B",
    "L2::128B",
    "L2::256B",
    "weak",
];

const SPACES: &[(&str, Space)] = &[
    ("global", Space::Global),
    ("shared", Space::Shared),
    ("shared::cta", Space::Shared),
    ("local", Space::Local),
    ("param", Space::Param),
    ("const", Space::Const),
];

impl<'t> Cx<'t, '_> {
    pub(super) fn data(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>]) -> Result<()> {
        match m.head {
            "mov" => self.mov(m, o),
            "cvt" => self.cvt(m, o),
            "cvta" => self.cvta(m, o),
            "isspacep" => {
                let Some(space) = self.space(m) else {
                    return Err(m.error("names no space", "write isspacep.shared or the like"));
                };
                let [d, a] = self.operands(m, o)?;
                let (d, a) = (self.dest(d, Ty::Pred)?, self.source(a, Ty::U64)?);
                self.push(Class::Integer, Op::Isspacep { space, d, a });
                Ok(())
            }
            "ld" | "ldu" => self.load(m, o),
            "st" => self.store(m, o),
            _ => {
                // Prefetches change nothing that a program sees, so the address is not looked at either.
                while m.first().is_some() {}
                self.push(Class::Global, Op::Nop);
                Ok(())
            }
        }
    }

    fn mov(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>]) -> Result<()> {
        let ty = m.ty()?;
        let [d, a] = self.operands(m, o)?;
        if ty == Ty::Pred {
            let d = self.dest(d, ty)?;
            let op = match *a {
                Operand::Int(v) => Op::PredConst { d, value: v != 0 },
                ref a => Op::PredMov { d, a: self.pred(a)? },
            };
            self.push(Class::Move, op);
            return Ok(());
        }
        let wide = ty.bytes() == 8;
        let vector = matches!(d, Operand::Vector(_)) || matches!(a, Operand::Vector(_));
        if vector && !ty.untyped() {
            return Err(m.error("packs another type than bits", "write mov.b32 or mov.b64"));
        }
        let op = match (d, a) {
            (Operand::Vector(parts), a) => {
                let (bits, n, parts) = self.parts(parts, ty)?;
                Op::Unpack { wide, bits, n, a: self.source(a, ty)?, parts }
            }
            (d, Operand::Vector(parts)) => {
                let (bits, n, parts) = self.parts(parts, ty)?;
                Op::Pack { wide, bits, n, d: self.dest(d, ty)?, parts }
            }
            (d, Operand::Name("%clock" | "%clock_hi")) => Op::Clock { wide: false, d: self.dest(d, ty)? },
            (d, Operand::Name("%clock64" | "%globaltimer")) => Op::Clock { wide: true, d: self.dest(d, ty)? },
            (d, a) => {
                let (d, a) = (self.dest(d, ty)?, self.source(a, ty)?);
                if wide { Op::Mov64 { d, a } } else { Op::Mov32 { d, a } }
            }
        };
        self.push(Class::Move, op);
        Ok(())
    }

    /// The registers that together make one of this type: how many bits each has, and their slots.
    fn parts(&mut self, parts: &[Operand<'t>], whole: Ty) -> Result<(u8, u8, [u16; 4])> {
        let n = parts.len();
        let bytes = whole.bytes() / n.max(1);
        let ty = match bytes {
            4 => Ty::B32,
            2 => Ty::B16,
            1 => Ty::B8,
            _ => return self.error(format!("{n} registers for one of {whole:?}"), "take 2 or 4 that fill it"),
        };
        if bytes * n != whole.bytes() || n > 4 {
            return self.error(format!("{n} registers for one of {whole:?}"), "take 2 or 4 that fill it");
        }
        let mut slots = [0; 4];
        for (slot, part) in slots.iter_mut().zip(parts) {
            // Eight bits live in a register of sixteen.
            *slot = match part {
                Operand::Name(n) if bytes == 1 && *n != "_" => self.names.any_register(n, self.line)?.1,
                Operand::Int(_) => self.source(part, ty)?,
                part => self.dest(part, ty)?,
            };
        }
        Ok((bytes as u8 * 8, n as u8, slots))
    }

    fn cvt(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>]) -> Result<()> {
        let integral = m.one_of(&["rni", "rzi", "rmi", "rpi"]);
        let round = match integral {
            Some("rni") => Some(Round::Nearest),
            Some("rzi") => Some(Round::Zero),
            Some("rmi") => Some(Round::Down),
            Some(_) => Some(Round::Up),
            None => m.round(),
        };
        let (ftz, sat, relu) = (m.take("ftz"), m.take("sat"), m.take("relu"));
        m.take("satfinite");
        let (to, from) = (m.ty()?, m.ty()?);
        if matches!(to, Ty::F16x2 | Ty::BF16x2) {
            let [d, a, b] = self.operands(m, o)?;
            let (d, a, b) = (self.dest(d, to)?, self.source(a, from)?, self.source(b, from)?);
            let Some(round) = round.filter(|_| from == Ty::F32) else {
                return Err(m.error("converts to a pair", "write cvt.rn.bf16x2.f32 d, upper, lower"));
            };
            self.push(Class::Convert, Op::CvtPair { to, round, relu, d, a, b });
            return Ok(());
        }
        let narrows = to.float() && (!from.float() || to.bytes() < from.bytes() || to == Ty::TF32);
        let widens = from.float() && to.float() && to.bytes() > from.bytes();
        if (narrows || from.float() && !to.float()) && round.is_none() {
            return Err(m.error("says no rounding", "this conversion is not exact, so it needs one"));
        }
        if widens && round.is_some() {
            return Err(m.error("rounds what is exact", "leave the rounding out"));
        }
        let [d, a] = self.operands(m, o)?;
        let (d, to_register) = self.register_for(d, to)?;
        let (a, from_register) = match a {
            Operand::Name(n) if self.names.symbol(n).is_none() && super::names::special(n).is_none() => {
                self.register_for(a, from)?
            }
            other => (self.source(other, from)?, from.bytes().max(4) as u8),
        };
        let c = Cvt { from, to, round, integral: integral.is_some(), ftz, sat, relu, from_register, to_register, d, a };
        self.push(Class::Convert, Op::Cvt(c));
        Ok(())
    }

    /// A register at least as wide as this type, and its bytes.
    fn register_for(&mut self, o: &Operand<'t>, ty: Ty) -> Result<(u16, u8)> {
        if let Operand::Name("_") = o {
            return Ok((self.names.sink(ty), ty.bytes().max(4) as u8));
        }
        let (declared, slot) = self.register(o)?;
        let mixes = declared.float() && ty.kind() != Kind::Bits && ty != declared;
        if declared == Ty::Pred || declared.bytes() < ty.bytes() || mixes || ty.float() && !ty.takes(declared) {
            let what = format!("{} is declared {declared:?} and stands where {ty:?} is wanted", super::shown(o));
            return self.error(what, "declare it otherwise");
        }
        Ok((slot, declared.bytes() as u8))
    }

    fn space(&self, m: &mut Mods<'t>) -> Option<Space> {
        SPACES.iter().find(|(name, _)| m.take(name)).map(|s| s.1)
    }

    fn cvta(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>]) -> Result<()> {
        let to = m.take("to");
        let Some(space) = self.space(m) else {
            return Err(m.error("names no space", "write cvta.to.global or cvta.shared"));
        };
        if m.ty()?.bytes() != 8 {
            return Err(m.error("converts addresses of 32 bits", "write .u64"));
        }
        let [d, a] = self.operands(m, o)?;
        let (d, a) = (self.dest(d, Ty::U64)?, self.source(a, Ty::U64)?);
        let window = match space {
            Space::Shared => crate::kernel::SHARED_WINDOW,
            Space::Local => crate::kernel::LOCAL_WINDOW,
            Space::Const => crate::kernel::CONST_WINDOW,
            Space::Global | Space::Generic => 0,
            Space::Param => return Err(m.error("converts addresses of parameters", "read them with ld.param")),
        };
        let b = self.names.wide_constant(window, self.line)?;
        let op = match to {
            true => Op::ToSpace { space, d, a },
            false => Op::Int { f: crate::inst::IntFn::Add, ty: Ty::U64, d, a, b },
        };
        self.push(Class::Integer, op);
        Ok(())
    }

    /// The address operand of an access of this space.
    pub(super) fn address(&mut self, o: &Operand<'t>, space: Space) -> Result<Addr> {
        let Operand::Address(base, offset) = *o else {
            return self.error(format!("{} is no address", super::shown(o)), "write [register+offset] or [variable]");
        };
        let Some(base) = base else {
            return Ok(Addr { slot: self.names.wide_constant(0, self.line)?, wide: true, offset });
        };
        if let Some(symbol) = self.variable(base) {
            let symbol = self.layout.resolve(symbol, self.line)?;
            let fits = match symbol {
                Symbol::Param(_) => space == Space::Param,
                Symbol::Shared(_) | Symbol::ModuleShared(_) | Symbol::Dynamic => space == Space::Shared,
                Symbol::Local(_) => space == Space::Local,
                Symbol::Const(_) => space == Space::Const,
                Symbol::Global(_) => matches!(space, Space::Global | Space::Generic),
            };
            if !fits {
                return self.error(format!("`{base}` does not lie in the space {space:?}"), "name its own space");
            }
            return Ok(Addr { slot: self.symbol(symbol, 0, Ty::U64)?, wide: true, offset });
        }
        let (ty, slot) = self.names.any_register(base, self.line)?;
        let narrow = matches!(space, Space::Shared | Space::Local | Space::Param | Space::Const);
        match ty.bytes() {
            8 => Ok(Addr { slot, wide: true, offset }),
            4 if narrow && ty != Ty::Pred => Ok(Addr { slot, wide: false, offset }),
            _ => self.error(format!("the address register `{base}` is {ty:?}"), "use .u64, or .u32 for shared memory"),
        }
    }

    /// The ordering that an access asks for.
    pub(super) fn order(&mut self, m: &mut Mods<'t>) -> Order {
        let strong = m.one_of(&["volatile", "relaxed", "mmio"]).is_some();
        let (acq_rel, acquire, release) = (m.take("acq_rel"), m.take("acquire"), m.take("release"));
        m.ignore(&["gpu", "cta", "sys", "cluster"]);
        let (acquire, release) = (acquire || acq_rel, release || acq_rel);
        Order { strong: strong || acquire || release, acquire, release }
    }

    fn access(&mut self, m: &mut Mods<'t>, address: &Operand<'t>, values: &Operand<'t>, store: bool) -> Result<Access> {
        let order = self.order(m);
        let read_only = m.take("nc") || m.head == "ldu";
        m.ignore(HINTS);
        let space = self.space(m).unwrap_or(Space::Generic);
        let vector: u8 = match m.one_of(&["v2", "v4"]) {
            None => 1,
            Some("v2") => 2,
            Some(_) => 4,
        };
        let ty = m.ty()?;
        let members = self.members(values);
        if matches!(ty, Ty::F16 | Ty::BF16 | Ty::F16x2 | Ty::BF16x2 | Ty::TF32) {
            return Err(m.error(&format!("moves values of type {ty:?}"), "move .b16 or .b32"));
        }
        if members.len() != vector as usize || ty == Ty::Pred || ty == Ty::B128 {
            let what = format!("moves {} registers of {ty:?}", members.len());
            return Err(m.error(&what, "the vector modifier and the registers in braces go together"));
        }
        if ty.bytes() * vector as usize > 16 {
            return Err(m.error("moves more than 16 bytes a lane", "take a shorter vector"));
        }
        let addr = self.address(address, space)?;
        let (mut regs, mut register) = ([0; 4], 0);
        for (i, member) in members.iter().enumerate() {
            let (slot, bytes) = match member {
                Operand::Int(_) | Operand::F32(_) | Operand::F64(_) if store => {
                    (self.source(member, ty)?, ty.bytes().max(4) as u8)
                }
                member => self.register_for(member, ty)?,
            };
            if i > 0 && (bytes == 8) != (register == 8) {
                return Err(m.error("mixes registers of 32 and of 64 bits", "take equal ones"));
            }
            (regs[i], register) = (slot, bytes);
        }
        let bytes = ty.bytes() as u8;
        self.touches(space, bytes as u32 * vector as u32);
        Ok(Access { space, addr, bytes, signed: ty.signed(), vector, register, order, read_only, regs })
    }

    fn load(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>]) -> Result<()> {
        let [d, a] = self.operands(m, o)?;
        let access = self.access(m, a, d, false)?;
        self.push(class_of(access.space), Op::Load(access));
        Ok(())
    }

    fn store(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>]) -> Result<()> {
        let [a, v] = self.operands(m, o)?;
        let access = self.access(m, a, v, true)?;
        if matches!(access.space, Space::Param | Space::Const) {
            return Err(m.error("writes what cannot be written", "write to .global, .shared or .local"));
        }
        self.push(class_of(access.space), Op::Store(access));
        Ok(())
    }
}

fn class_of(space: Space) -> Class {
    match space {
        Space::Generic | Space::Global => Class::Global,
        Space::Shared => Class::Shared,
        Space::Local => Class::Local,
        Space::Param | Space::Const => Class::Constant,
    }
}
