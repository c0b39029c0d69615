//! A builder of entries: it numbers registers and labels, and emits typed instructions.
//!
//! What every unit needs alike (the lane's number, offsets of lanes) is emitted once, into the `head` that stands before
//! everything else, whenever it is first asked for.
use super::inst::*;

/// Instructions so far, and the numbers given away.
#[derive(Default)]
pub struct Builder {
    pub head: Vec<Inst>,
    pub body: Vec<Inst>,
    pub registers: [u32; Class::ALL.len()],
    labels: u32,
    /// The kernel's line of the next instruction, and of the last one.
    line: Option<u32>,
    noted: Option<u32>,
    in_head: bool,
}

impl Builder {
    pub fn reg(&mut self, class: Class) -> Reg {
        let n = &mut self.registers[class as usize];
        *n += 1;
        Reg { class, number: *n - 1 }
    }
    pub fn label(&mut self) -> Label {
        self.labels += 1;
        Label(self.labels - 1)
    }
    pub fn note(&mut self, line: u32) {
        self.line = Some(line);
    }

    /// Emits what `f` emits into the head.
    pub fn at_head<T>(&mut self, f: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.in_head, true);
        let out = f(self);
        self.in_head = before;
        out
    }

    pub fn guarded(&mut self, guard: Option<(Reg, bool)>, op: Op) {
        if self.in_head {
            return self.head.push(Inst { guard, op });
        }
        if let Some(line) = self.line.filter(|_| self.line != self.noted) {
            self.body.push(Inst { guard: None, op: Op::Note(line) });
            self.noted = self.line;
        }
        self.body.push(Inst { guard, op });
    }
    pub fn op(&mut self, op: Op) {
        self.guarded(None, op);
    }

    /// The register that an instruction of this type writes.
    pub fn class(ty: Type) -> Class {
        match ty {
            Type::Pred => Class::Pred,
            Type::B16 | Type::Bf16 => Class::B16,
            Type::U8 | Type::U16 | Type::B32 | Type::U32 | Type::S32 => Class::B32,
            Type::B64 | Type::U64 | Type::S64 => Class::B64,
            Type::F32 => Class::F32,
        }
    }

    pub fn mov(&mut self, ty: Type, a: impl Into<Src>) -> Reg {
        let d = self.reg(Self::class(ty));
        self.op(Op::Mov { ty, d, a: a.into() });
        d
    }
    pub fn unary(&mut self, op: UnOp, ty: Type, a: impl Into<Src>) -> Reg {
        let d = self.reg(Self::class(ty));
        self.op(Op::Unary { op, ty, d, a: a.into() });
        d
    }
    pub fn binary(&mut self, op: BinOp, ty: Type, a: impl Into<Src>, b: impl Into<Src>) -> Reg {
        let wide = op == BinOp::MulWide;
        let d = self.reg(if wide { Class::B64 } else { Self::class(ty) });
        self.op(Op::Binary { op, ty, d, a: a.into(), b: b.into() });
        d
    }
    pub fn fma(&mut self, a: Src, b: Src, c: Src) -> Reg {
        let d = self.reg(Class::F32);
        self.op(Op::Fma { d, a, b, c });
        d
    }
    pub fn setp(&mut self, cmp: Cmp, ty: Type, a: impl Into<Src>, b: impl Into<Src>) -> Reg {
        let d = self.reg(Class::Pred);
        self.op(Op::Setp { cmp, ty, d, a: a.into(), b: b.into() });
        d
    }
    pub fn selp(&mut self, ty: Type, p: Reg, a: impl Into<Src>, b: impl Into<Src>) -> Reg {
        let d = self.reg(Self::class(ty));
        self.op(Op::Selp { ty, d, a: a.into(), b: b.into(), p });
        d
    }
    pub fn cvt(&mut self, to: Type, from: Type, rounding: Rounding, a: impl Into<Src>) -> Reg {
        let d = self.reg(Self::class(to));
        self.op(Op::Cvt { to, from, rounding, d, a: a.into() });
        d
    }
    /// A shuffle of a register of 32 bits.
    pub fn shfl(&mut self, how: Shuffle, a: Reg, lane: impl Into<Src>) -> Reg {
        let d = self.reg(a.class);
        self.op(Op::Shfl { how, d, a, lane: lane.into() });
        d
    }
    pub fn place(&mut self, l: Label) {
        self.op(Op::Label(l));
    }
    /// Goes there where the predicate is `when`, or always.
    pub fn bra(&mut self, to: Label, guard: Option<(Reg, bool)>) {
        self.guarded(guard, Op::Bra { to });
    }
}
