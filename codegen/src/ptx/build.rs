//! A builder of entries: it numbers registers and labels, and emits typed instructions.
//!
//! What every unit needs alike (the lane's number, offsets of lanes) is emitted once, into the `head` that stands before
//! everything else, whenever it is first asked for. What was computed once on the way is not computed again.
use super::inst::*;
use std::collections::HashMap;

/// Instructions so far, and the numbers given away.
pub struct Builder {
    pub head: Vec<Inst>,
    pub body: Vec<Inst>,
    pub registers: [u32; Class::ALL.len()],
    labels: u32,
    /// The kernel's line of the next instruction, and of the last one.
    line: Option<u32>,
    noted: Option<u32>,
    in_head: bool,
    /// Values by the instructions that gave them, those of the head first, then by the loops that are open.
    known: Vec<HashMap<Op, Reg>>,
}

impl Builder {
    pub fn new() -> Self {
        let known = vec![HashMap::new(), HashMap::new()];
        let registers = Default::default();
        Builder { head: vec![], body: vec![], registers, labels: 0, line: None, noted: None, in_head: false, known }
    }

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

    /// The register that holds what an instruction gives: a new one, unless the same was computed on the way here.
    fn value(&mut self, class: Class, op: impl Fn(Reg) -> Op) -> Reg {
        let key = op(Reg { class, number: u32::MAX });
        let depth = if self.in_head { 0 } else { self.known.len() - 1 };
        if let Some(r) = self.known[..=depth].iter().rev().find_map(|k| k.get(&key)) {
            return *r;
        }
        let d = self.reg(class);
        self.op(op(d));
        self.known[depth].insert(key, d);
        d
    }
    /// What is computed from here on is only known until the scope is closed: a loop changes what it carries.
    pub fn open(&mut self) {
        self.known.push(HashMap::new());
    }
    pub fn close(&mut self) {
        self.known.pop();
    }

    pub fn mov(&mut self, ty: Type, a: impl Into<Src>) -> Reg {
        let a = a.into();
        self.value(Self::class(ty), |d| Op::Mov { ty, d, a })
    }
    /// The bits of a value of one class as another.
    pub fn bits(&mut self, class: Class, a: Reg) -> Reg {
        self.value(class, |d| Op::Mov { ty: Type::B32, d, a: a.into() })
    }
    /// A register of its own, that starts as this and changes later.
    pub fn variable(&mut self, ty: Type, a: impl Into<Src>) -> Reg {
        let d = self.reg(Self::class(ty));
        self.op(Op::Mov { ty, d, a: a.into() });
        d
    }
    pub fn unary(&mut self, op: UnOp, ty: Type, a: impl Into<Src>) -> Reg {
        let a = a.into();
        self.value(Self::class(ty), |d| Op::Unary { op, ty, d, a })
    }
    pub fn binary(&mut self, op: BinOp, ty: Type, a: impl Into<Src>, b: impl Into<Src>) -> Reg {
        let (a, b) = (a.into(), b.into());
        let class = if op == BinOp::MulWide { Class::B64 } else { Self::class(ty) };
        self.value(class, |d| Op::Binary { op, ty, d, a, b })
    }
    pub fn fma(&mut self, a: Src, b: Src, c: Src) -> Reg {
        self.value(Class::F32, |d| Op::Fma { d, a, b, c })
    }
    pub fn setp(&mut self, cmp: Cmp, ty: Type, a: impl Into<Src>, b: impl Into<Src>) -> Reg {
        let (a, b) = (a.into(), b.into());
        self.value(Class::Pred, |d| Op::Setp { cmp, ty, d, a, b })
    }
    /// A comparison with a variable, which is another one each time.
    pub fn compare(&mut self, cmp: Cmp, ty: Type, a: impl Into<Src>, b: impl Into<Src>) -> Reg {
        let d = self.reg(Class::Pred);
        self.op(Op::Setp { cmp, ty, d, a: a.into(), b: b.into() });
        d
    }
    pub fn selp(&mut self, ty: Type, p: Reg, a: impl Into<Src>, b: impl Into<Src>) -> Reg {
        let (a, b) = (a.into(), b.into());
        self.value(Self::class(ty), |d| Op::Selp { ty, d, a, b, p })
    }
    pub fn cvt(&mut self, to: Type, from: Type, rounding: Rounding, a: impl Into<Src>) -> Reg {
        let a = a.into();
        self.value(Self::class(to), |d| Op::Cvt { to, from, rounding, d, a })
    }
    /// A shuffle of a register of 32 bits.
    pub fn shfl(&mut self, how: Shuffle, a: Reg, lane: impl Into<Src>) -> Reg {
        let lane = lane.into();
        self.value(a.class, |d| Op::Shfl { how, d, a, lane })
    }
    pub fn place(&mut self, l: Label) {
        self.op(Op::Label(l));
    }
    /// Goes there where the predicate is `when`, or always.
    pub fn bra(&mut self, to: Label, guard: Option<(Reg, bool)>) {
        self.guarded(guard, Op::Bra { to });
    }
}
