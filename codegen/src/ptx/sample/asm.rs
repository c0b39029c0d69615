//! Single instructions, emitted whenever they are asked for: registers change here, so nothing is looked up.
use super::Cx;
use crate::ptx::build::Builder;
use crate::ptx::inst::*;

impl Cx<'_> {
    pub fn op(&mut self, op: Op) {
        self.g.e.b.op(op);
    }
    fn new_of(&mut self, ty: Type) -> Reg {
        self.g.e.b.reg(Builder::class(ty))
    }
    /// A register that changes later.
    pub fn var(&mut self, ty: Type, a: impl Into<Src>) -> Reg {
        self.g.e.b.variable(ty, a)
    }
    pub fn set(&mut self, ty: Type, d: Reg, a: impl Into<Src>) {
        self.op(Op::Mov { ty, d, a: a.into() });
    }
    pub fn bin(&mut self, op: BinOp, ty: Type, a: impl Into<Src>, b: impl Into<Src>) -> Reg {
        let d = self.new_of(if op == BinOp::MulWide { Type::B64 } else { ty });
        self.to(d, op, ty, a, b);
        d
    }
    /// The same into a register that exists.
    pub fn to(&mut self, d: Reg, op: BinOp, ty: Type, a: impl Into<Src>, b: impl Into<Src>) {
        self.op(Op::Binary { op, ty, d, a: a.into(), b: b.into() });
    }
    pub fn cmp(&mut self, cmp: Cmp, ty: Type, a: impl Into<Src>, b: impl Into<Src>) -> Reg {
        self.g.e.b.compare(cmp, ty, a, b)
    }
    pub fn not(&mut self, a: Reg) -> Reg {
        let d = self.new_of(Type::Pred);
        self.op(Op::Unary { op: UnOp::Not, ty: Type::Pred, d, a: a.into() });
        d
    }
    pub fn pick(&mut self, ty: Type, p: Reg, a: impl Into<Src>, b: impl Into<Src>) -> Reg {
        let d = self.new_of(ty);
        self.op(Op::Selp { ty, d, a: a.into(), b: b.into(), p });
        d
    }
    pub fn cvt(&mut self, to: Type, from: Type, rounding: Rounding, a: Reg) -> Reg {
        let d = self.new_of(to);
        self.op(Op::Cvt { to, from, rounding, d, a: a.into() });
        d
    }
    /// The same bits in a register of another class.
    pub fn bits(&mut self, class: Class, a: Reg) -> Reg {
        let d = self.g.e.b.reg(class);
        self.op(Op::Mov { ty: Type::B32, d, a: a.into() });
        d
    }
    /// The low and the high half of 64 bits, and these joined.
    pub fn low(&mut self, a: Reg) -> Reg {
        self.cvt(Type::U32, Type::U64, Rounding::None, a)
    }
    pub fn high(&mut self, a: Reg) -> Reg {
        let a = self.bin(BinOp::Shr, Type::U64, a, Src::Int(32));
        self.low(a)
    }
    pub fn join(&mut self, low: Reg, high: Reg) -> Reg {
        let low = self.cvt(Type::U64, Type::U32, Rounding::None, low);
        let high = self.cvt(Type::U64, Type::U32, Rounding::None, high);
        let high = self.bin(BinOp::Shl, Type::B64, high, Src::Int(32));
        self.bin(BinOp::Or, Type::B64, low, high)
    }

    /// Where element `index` of this size lies, of what starts there in shared memory.
    pub fn slot(&mut self, index: Reg, size: i64) -> Reg {
        let at = self.bin(BinOp::MulLo, Type::U32, index, Src::Int(size));
        self.bin(BinOp::Add, Type::U32, self.shared, at)
    }
    pub fn load(&mut self, ty: Type, base: Reg, offset: i32) -> Reg {
        let d = self.new_of(ty);
        self.op(Op::Ld { space: Space::Shared, ty, d, at: Address { base, offset } });
        d
    }
    /// The same where the predicate holds, 0 elsewhere.
    pub fn load_if(&mut self, p: Reg, ty: Type, base: Reg, offset: i32) -> Reg {
        let d = self.var(ty, Src::Int(0));
        let ld = Op::Ld { space: Space::Shared, ty, d, at: Address { base, offset } };
        self.g.e.b.guarded(Some((p, true)), ld);
        d
    }
    pub fn save(&mut self, guard: Option<Reg>, ty: Type, a: Reg, base: Reg, offset: i32) {
        let st = Op::St { space: Space::Shared, ty, a, at: Address { base, offset } };
        self.g.e.b.guarded(guard.map(|p| (p, true)), st);
    }

    /// Emits code that the warp skips where the predicate, one for all lanes, holds.
    pub fn unless(&mut self, p: Reg, f: impl FnOnce(&mut Self)) {
        let over = self.g.e.b.label();
        self.g.e.b.bra(over, Some((p, true)));
        self.g.e.b.open();
        f(self);
        self.g.e.b.close();
        self.g.e.b.place(over);
    }
    /// A loop in which this counter grows by `step` as long as it is less than the end; it has at least one turn.
    pub fn count(&mut self, counter: Reg, step: i64, end: impl Into<Src>, f: impl FnOnce(&mut Self)) {
        let again = self.g.e.b.label();
        self.g.e.b.place(again);
        self.g.e.b.open();
        f(self);
        self.g.e.b.close();
        self.to(counter, BinOp::Add, Type::U32, counter, Src::Int(step));
        let more = self.cmp(Cmp::Lt, Type::U32, counter, end);
        self.g.e.b.bra(again, Some((more, true)));
    }
}
