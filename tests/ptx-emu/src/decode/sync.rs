//! Control flow, barriers, exchanges between lanes, atomics, asynchronous copies and matrix instructions.
use super::{Cx, Result};
use crate::ast::Operand;
use crate::inst::{
    Atom, AtomFn, Bar, BarKind, Class, CpAsync, IntFn, Mma, MmaKind, Order, PredRef, ShflMode, Slot, Space, VoteMode,
};
use crate::op::Op;
use crate::ty::{Mods, Ty};

impl<'t> Cx<'t, '_> {
    pub(super) fn sync(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>]) -> Result<()> {
        match m.head {
            "bra" => {
                m.take("uni");
                let [label] = self.operands(m, o)?;
                let Operand::Name(label) = *label else {
                    return Err(m.error("has no label", "write bra LABEL"));
                };
                self.branch(label);
                Ok(())
            }
            "exit" | "ret" => {
                m.take("uni");
                self.plain(m, o, Class::Control, Op::Exit)
            }
            "trap" | "brkpt" => self.plain(m, o, Class::Control, Op::Trap),
            "nanosleep" | "griddepcontrol" => {
                while m.first().is_some() {}
                self.push(Class::Sync, Op::Nop);
                Ok(())
            }
            "membar" | "fence" => {
                let block = m.take("cta");
                m.ignore(&["gl", "sys", "sc", "acq_rel", "acquire", "release", "gpu", "cluster"]);
                // Inside of a block the barriers order; a fence of that scope alone changes nothing that is run here.
                self.plain(m, o, Class::Sync, if block { Op::Nop } else { Op::Fence })
            }
            "bar" | "barrier" => self.barrier(m, o),
            "shfl" => self.shfl(m, o),
            "vote" => self.vote(m, o),
            "match" => self.match_lanes(m, o),
            "activemask" => {
                m.ty()?;
                let [d] = self.operands(m, o)?;
                let d = self.dest(d, Ty::B32)?;
                self.push(Class::Sync, Op::Activemask { d });
                Ok(())
            }
            "redux" => self.redux(m, o),
            "elect" => {
                m.take("sync");
                self.needs(m, 90)?;
                let [d, mask] = self.operands(m, o)?;
                let Operand::Pair(d, p) = *d else {
                    return Err(m.error("has one destination", "write elect.sync d|p, mask"));
                };
                let d = self.dest(&Operand::Name(d), Ty::B32)?;
                let p = self.dest(&Operand::Name(p), Ty::Pred)?;
                let mask = self.source(mask, Ty::B32)?;
                self.push(Class::Sync, Op::Elect { d, p, mask });
                Ok(())
            }
            "atom" | "red" => self.atom(m, o),
            "cp" => self.cp_async(m, o),
            "ldmatrix" => self.ldmatrix(m, o),
            _ => self.mma(m, o),
        }
    }

    fn plain(&mut self, m: &Mods<'t>, o: &[Operand<'t>], class: Class, op: Op) -> Result<()> {
        let [] = self.operands(m, o)?;
        self.push(class, op);
        Ok(())
    }

    fn barrier(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>]) -> Result<()> {
        let mut aligned = m.head == "bar";
        m.take("cta");
        if m.take("warp") {
            m.take("sync");
            let [mask] = self.operands(m, o)?;
            let mask = self.source(mask, Ty::B32)?;
            self.push(Class::Sync, Op::WarpSync { mask });
            return Ok(());
        }
        aligned |= m.take("aligned");
        let kind = m.one_of(&["sync", "arrive", "red"]);
        let (o, kind) = match kind {
            Some("sync") => (o, BarKind::Sync),
            Some("arrive") => (o, BarKind::Arrive),
            Some(_) => self.reduction(m, o)?,
            None => return Err(m.error("says neither .sync nor .arrive nor .red", "write bar.sync 0")),
        };
        let id = match o.first() {
            Some(id) => self.source(id, Ty::U32)?,
            None => return Err(m.error("names no barrier", "write bar.sync 0")),
        };
        let count = match o.get(1) {
            Some(n) => Some(self.source(n, Ty::U32)?),
            None => None,
        };
        if o.len() > 2 || count.is_none() && kind == BarKind::Arrive {
            return Err(
                m.error("has the wrong number of operands", "a barrier, and how many threads; arrive needs both")
            );
        }
        self.push(Class::Sync, Op::Bar(Bar { kind, aligned, id, count }));
        Ok(())
    }

    /// `bar.red.popc.u32 d, a{, b}, p` and `bar.red.and.pred q, a{, b}, p`: the kind, and the operands between.
    fn reduction<'a>(&mut self, m: &mut Mods<'t>, o: &'a [Operand<'t>]) -> Result<(&'a [Operand<'t>], BarKind)> {
        let f = m.one_of(&["popc", "and", "or"]);
        let ty = m.ty()?;
        let [d, middle @ .., p] = o else {
            return Err(m.error("has too few operands", "write bar.red.popc.u32 d, 0, p"));
        };
        let (d, p) = (self.dest(d, ty)?, self.pred(p)?);
        let kind = match (f, ty) {
            (Some("popc"), Ty::U32) => BarKind::RedPopc { d, p },
            (Some("and"), Ty::Pred) => BarKind::RedAnd { d, p },
            (Some("or"), Ty::Pred) => BarKind::RedOr { d, p },
            _ => return Err(m.error("reduces in a way that is not known", "popc.u32, and.pred or or.pred")),
        };
        Ok((middle, kind))
    }

    fn pair(&mut self, o: &Operand<'t>, ty: Ty) -> Result<(Slot, Option<Slot>)> {
        match *o {
            Operand::Pair(d, p) => {
                Ok((self.dest(&Operand::Name(d), ty)?, Some(self.dest(&Operand::Name(p), Ty::Pred)?)))
            }
            ref d => Ok((self.dest(d, ty)?, None)),
        }
    }

    fn shfl(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>]) -> Result<()> {
        if !m.take("sync") {
            return Err(m.error("is the form without a mask", "write shfl.sync; the other is gone since sm_70"));
        }
        let mode = match m.one_of(&["up", "down", "bfly", "idx"]) {
            Some("up") => ShflMode::Up,
            Some("down") => ShflMode::Down,
            Some("bfly") => ShflMode::Bfly,
            Some(_) => ShflMode::Idx,
            None => return Err(m.error("says no mode", "one of up, down, bfly, idx")),
        };
        m.ty()?;
        let [d, a, b, c, mask] = self.operands(m, o)?;
        let (d, p) = self.pair(d, Ty::B32)?;
        let (a, b) = (self.source(a, Ty::B32)?, self.source(b, Ty::B32)?);
        let (c, mask) = (self.source(c, Ty::B32)?, self.source(mask, Ty::B32)?);
        self.push(Class::Sync, Op::Shfl { mode, d, p, a, b, c, mask });
        Ok(())
    }

    fn vote(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>]) -> Result<()> {
        if !m.take("sync") {
            return Err(m.error("is the form without a mask", "write vote.sync"));
        }
        let mode = match m.one_of(&["all", "any", "uni", "ballot"]) {
            Some("all") => VoteMode::All,
            Some("any") => VoteMode::Any,
            Some("uni") => VoteMode::Uni,
            Some(_) => VoteMode::Ballot,
            None => return Err(m.error("says no mode", "one of all, any, uni, ballot")),
        };
        let ty = m.ty()?;
        let [d, p, mask] = self.operands(m, o)?;
        if (ty == Ty::Pred) == (mode == VoteMode::Ballot) {
            return Err(m.error("has the wrong type", "ballot gives .b32, the others .pred"));
        }
        let (d, p, mask) = (self.dest(d, ty)?, self.pred(p)?, self.source(mask, Ty::B32)?);
        self.push(Class::Sync, Op::Vote { mode, d, p, mask });
        Ok(())
    }

    fn match_lanes(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>]) -> Result<()> {
        let (any, all) = (m.take("any"), m.take("all"));
        let sync = m.take("sync");
        let ty = m.ty()?;
        if any == all || !sync {
            return Err(m.error("lacks a modifier", "write match.any.sync.b32 or match.all.sync.b32"));
        }
        let wide = ty.bytes() == 8;
        let [d, a, mask] = self.operands(m, o)?;
        let ((d, p), a, mask) = (self.pair(d, Ty::B32)?, self.source(a, ty)?, self.source(mask, Ty::B32)?);
        let op = if any { Op::MatchAny { wide, d, a, mask } } else { Op::MatchAll { wide, d, p, a, mask } };
        self.push(Class::Sync, op);
        Ok(())
    }

    fn redux(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>]) -> Result<()> {
        m.take("sync");
        let f = match m.one_of(&["add", "min", "max", "and", "or", "xor"]) {
            Some("add") => IntFn::Add,
            Some("min") => IntFn::Min,
            Some("max") => IntFn::Max,
            Some("and") => IntFn::And,
            Some("or") => IntFn::Or,
            Some(_) => IntFn::Xor,
            None => return Err(m.error("says no operation", "one of add, min, max, and, or, xor")),
        };
        let ty = m.ty()?;
        let logic = matches!(f, IntFn::And | IntFn::Or | IntFn::Xor);
        if ty.bytes() != 4 || !(if logic { ty.untyped() } else { ty.integer() }) {
            return Err(
                m.error("reduces another type than its own", "add, min and max take .u32 or .s32, the others .b32")
            );
        }
        let [d, a, mask] = self.operands(m, o)?;
        let (d, a, mask) = (self.dest(d, ty)?, self.source(a, ty)?, self.source(mask, Ty::B32)?);
        self.push(Class::Sync, Op::Redux { f, signed: ty.signed(), d, a, mask });
        Ok(())
    }

    fn atom(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>]) -> Result<()> {
        let order = Order { strong: true, ..self.order(m) };
        let space = match m.one_of(&["global", "shared", "shared::cta"]) {
            Some("global") => Space::Global,
            Some(_) => Space::Shared,
            None => Space::Generic,
        };
        let f = match m.one_of(&["add", "min", "max", "exch", "cas", "and", "or", "xor", "inc", "dec"]) {
            Some("add") => AtomFn::Add,
            Some("min") => AtomFn::Min,
            Some("max") => AtomFn::Max,
            Some("exch") => AtomFn::Exch,
            Some("cas") => AtomFn::Cas,
            Some("and") => AtomFn::And,
            Some("or") => AtomFn::Or,
            Some("xor") => AtomFn::Xor,
            Some("inc") => AtomFn::Inc,
            Some("dec") => AtomFn::Dec,
            Some(_) | None => {
                return Err(m.error("says no operation", "one of add min max exch cas and or xor inc dec"));
            }
        };
        m.ignore(&["noftz", "L2::cache_hint"]);
        let ty = m.ty()?;
        let known = match f {
            AtomFn::Add => ty.float() && ty != Ty::TF32 || ty.integer() && ty.bytes() >= 4,
            AtomFn::Min | AtomFn::Max => ty.integer() && ty.bytes() >= 4,
            AtomFn::And | AtomFn::Or | AtomFn::Xor | AtomFn::Exch => ty.untyped() && ty.bytes() >= 4,
            AtomFn::Cas => ty.untyped(),
            AtomFn::Inc | AtomFn::Dec => ty == Ty::U32,
        };
        if !known || ty == Ty::Pred || ty == Ty::B128 {
            return Err(m.error("is not defined for this type", "see the table of atom in the manual of PTX"));
        }
        if matches!(ty, Ty::BF16 | Ty::BF16x2) {
            self.needs(m, 90)?;
        }
        let (d, rest) = match (m.head, o) {
            ("red", rest) => (None, rest),
            (_, [d, rest @ ..]) => (Some(self.dest(d, ty)?), rest),
            _ => return Err(m.error("has no operands", "write atom.global.add.u32 d, [a], b")),
        };
        let (addr, b, c) = match (f, rest) {
            (AtomFn::Cas, [addr, b, c]) => (addr, self.source(b, ty)?, self.source(c, ty)?),
            (AtomFn::Cas, _) => return Err(m.error("has the wrong number of operands", "cas compares b and writes c")),
            (_, [addr, b]) => {
                let b = self.source(b, ty)?;
                (addr, b, b)
            }
            _ => return Err(m.error("has the wrong number of operands", "an address and a value")),
        };
        let addr = self.address(addr, space)?;
        self.touches(space, ty.bytes() as u32);
        self.push(Class::Atomic, Op::Atom(Atom { space, f, ty, d, addr, b, c, order }));
        Ok(())
    }

    fn cp_async(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>]) -> Result<()> {
        if !m.take("async") || m.take("bulk") {
            return Err(
                m.error("is a copy that this emulator does not run", "it knows cp.async, commit_group and wait_group")
            );
        }
        if m.take("commit_group") {
            return self.plain(m, o, Class::Async, Op::CpCommit);
        }
        if m.take("wait_all") {
            return self.plain(m, o, Class::Async, Op::CpWait { pending: 0, all: true });
        }
        if m.take("wait_group") {
            let [n] = self.operands(m, o)?;
            let pending = self.constant(n)?.min(u32::MAX as u64) as u32;
            self.push(Class::Async, Op::CpWait { pending, all: false });
            return Ok(());
        }
        let whole_line = m.take("cg");
        let any = m.take("ca");
        m.ignore(&["shared", "shared::cta", "global", "L2::64B", "L2::128B", "L2::256B"]);
        let [dst, src, bytes, rest @ ..] = o else {
            return Err(m.error("has too few operands", "write cp.async.cg.shared.global [dst], [src], 16"));
        };
        let bytes = self.constant(bytes)?;
        if whole_line == any || !(bytes == 16 || any && (bytes == 4 || bytes == 8)) {
            return Err(m.error(&format!("copies {bytes} bytes"), ".cg takes 16, .ca takes 4, 8 or 16"));
        }
        let (mut src_bytes, mut ignore): (Option<Slot>, Option<PredRef>) = (None, None);
        match rest {
            [] => {}
            [Operand::Not(_)] => ignore = Some(self.pred(&rest[0])?),
            [one @ Operand::Name(name)] if self.is_predicate(name) => ignore = Some(self.pred(one)?),
            [one] => src_bytes = Some(self.source(one, Ty::U32)?),
            _ => return Err(m.error("has too many operands", "at most the bytes to read, or a predicate")),
        }
        let (dst, src) = (self.address(dst, Space::Shared)?, self.address(src, Space::Global)?);
        self.touches(Space::Generic, bytes as u32);
        self.push(Class::Async, Op::CpAsync(CpAsync { dst, src, bytes: bytes as u8, src_bytes, ignore }));
        Ok(())
    }

    fn is_predicate(&mut self, name: &'t str) -> bool {
        self.names.any_register(name, self.line).is_ok_and(|r| r.0 == Ty::Pred)
    }

    fn ldmatrix(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>]) -> Result<()> {
        m.ignore(&["sync", "aligned", "m8n8", "shared", "shared::cta"]);
        let trans = m.take("trans");
        let num: u8 = match m.one_of(&["x1", "x2", "x4"]) {
            Some("x1") => 1,
            Some("x2") => 2,
            Some(_) => 4,
            None => return Err(m.error("says no count", "write .x1, .x2 or .x4")),
        };
        if m.ty()? != Ty::B16 {
            return Err(m.error("loads another type than b16", "write .b16"));
        }
        let [d, a] = self.operands(m, o)?;
        let d = self.fragment::<4>(m, d, num as usize, Ty::B32, true)?;
        let addr = self.address(a, Space::Shared)?;
        self.push(Class::Shared, Op::Ldmatrix { num, trans, addr, d });
        Ok(())
    }

    /// The registers of a fragment. The assembler takes `.b32` for packed ones and nothing else.
    fn fragment<const N: usize>(
        &mut self,
        m: &Mods<'t>,
        o: &Operand<'t>,
        n: usize,
        ty: Ty,
        d: bool,
    ) -> Result<[Slot; N]> {
        let members = self.members(o);
        if members.len() != n {
            return Err(m.error(&format!("has a fragment of {} registers", members.len()), &format!("it takes {n}")));
        }
        let mut slots = [0; N];
        for (slot, member) in slots.iter_mut().zip(members) {
            if let (Operand::Name(name), false) = (member, *member == Operand::Name("_")) {
                let declared = self.names.any_register(name, self.line)?.0;
                if ty == Ty::B32 && declared != Ty::B32 {
                    return self.error(format!("the register `{name}` is declared {declared:?}"), "declare it .b32");
                }
            }
            *slot = if d { self.dest(member, ty)? } else { self.source(member, ty)? };
        }
        Ok(slots)
    }

    fn mma(&mut self, m: &mut Mods<'t>, o: &[Operand<'t>]) -> Result<()> {
        if !(m.take("sync") && m.take("aligned") && m.take("row") && m.take("col")) {
            return Err(m.error("is not of the form mma.sync.aligned.SHAPE.row.col", "the others are not run here"));
        }
        let shape = m.first().unwrap_or("");
        let types = [m.ty()?, m.ty()?, m.ty()?, m.ty()?];
        let kind = match (shape, types[1]) {
            ("m16n8k16", Ty::F16 | Ty::BF16) => MmaKind::K16,
            ("m16n8k8", Ty::F16 | Ty::BF16) => MmaKind::K8,
            ("m16n8k8", Ty::TF32) => MmaKind::Tf32K8,
            ("m16n8k4", Ty::TF32) => MmaKind::Tf32K4,
            _ => {
                return Err(m.error(
                    "has a shape or type that is not run here",
                    "m16n8k16 or k8 of f16 and bf16, k8 or k4 of tf32",
                ));
            }
        };
        let half = types[0] == Ty::F16;
        let accumulates = types[0] == types[3] && (types[0] == Ty::F32 || half && types[1] == Ty::F16);
        if types[1] != types[2] || !accumulates {
            return Err(m.error("mixes types", "A and B have one type, C and D another: f32, or f16 for f16"));
        }
        let (na, nb) = match kind {
            MmaKind::K16 | MmaKind::Tf32K8 => (4, 2),
            MmaKind::K8 | MmaKind::Tf32K4 => (2, 1),
        };
        let (nc, tc) = if half { (2, Ty::B32) } else { (4, Ty::F32) };
        let [d, a, b, c] = self.operands(m, o)?;
        let d = self.fragment::<4>(m, d, nc, tc, true)?;
        let a = self.fragment::<4>(m, a, na, Ty::B32, false)?;
        let b = self.fragment::<2>(m, b, nb, Ty::B32, false)?;
        let c = self.fragment::<4>(m, c, nc, tc, false)?;
        self.push(Class::Matrix, Op::Mma(Mma { kind, ty: types[1], half, d, a, b, c }));
        Ok(())
    }
}
