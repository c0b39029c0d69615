//! One decoded instruction: what it does, and under which guard.
use crate::inst::*;
use crate::ty::{Round, Ty};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Nop,
    Mov32 {
        d: Slot,
        a: Slot,
    },
    Mov64 {
        d: Slot,
        a: Slot,
    },
    /// Registers of `bits` bits side by side, the first lowest, into one of 32 or 64 bits.
    Pack {
        wide: bool,
        bits: u8,
        n: u8,
        d: Slot,
        parts: [Slot; 4],
    },
    Unpack {
        wide: bool,
        bits: u8,
        n: u8,
        a: Slot,
        parts: [Slot; 4],
    },
    Clock {
        wide: bool,
        d: Slot,
    },
    Int {
        f: IntFn,
        ty: Ty,
        d: Slot,
        a: Slot,
        b: Slot,
    },
    Shift {
        left: bool,
        ty: Ty,
        d: Slot,
        a: Slot,
        b: Slot,
    },
    MulWide {
        ty: Ty,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Option<Slot>,
    },
    Bits {
        f: BitsFn,
        wide: bool,
        d: Slot,
        a: Slot,
    },
    Brev {
        wide: bool,
        d: Slot,
        a: Slot,
    },
    Tri {
        f: TriFn,
        ty: Ty,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    Bfi {
        wide: bool,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
        len: Slot,
    },
    Float {
        f: FloatFn,
        ty: Ty,
        m: FloatMode,
        d: Slot,
        a: Slot,
        b: Slot,
    },
    Fma {
        ty: Ty,
        m: FloatMode,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    Testp {
        test: Test,
        wide: bool,
        d: Slot,
        a: Slot,
    },
    Setp {
        cmp: Cmp,
        ty: Ty,
        ftz: bool,
        d: Slot,
        q: Option<Slot>,
        a: Slot,
        b: Slot,
        with: Option<(BoolFn, PredRef)>,
    },
    Set {
        cmp: Cmp,
        ty: Ty,
        ftz: bool,
        float: bool,
        d: Slot,
        a: Slot,
        b: Slot,
        with: Option<(BoolFn, PredRef)>,
    },
    Selp {
        wide: bool,
        d: Slot,
        a: Slot,
        b: Slot,
        p: PredRef,
    },
    PredLogic {
        f: BoolFn,
        d: Slot,
        a: PredRef,
        b: PredRef,
    },
    PredMov {
        d: Slot,
        a: PredRef,
    },
    PredConst {
        d: Slot,
        value: bool,
    },
    Cvt(Cvt),
    /// Two f32 into a pair of halves; `a` becomes the upper one.
    CvtPair {
        to: Ty,
        round: Round,
        relu: bool,
        d: Slot,
        a: Slot,
        b: Slot,
    },
    /// The address in a space, from the generic one; it checks that it lies there.
    ToSpace {
        space: Space,
        d: Slot,
        a: Slot,
    },
    Isspacep {
        space: Space,
        d: Slot,
        a: Slot,
    },
    Load(Access),
    Store(Access),
    Atom(Atom),
    CpAsync(CpAsync),
    CpCommit,
    CpWait {
        pending: u32,
        all: bool,
    },
    Branch {
        target: u32,
    },
    Exit,
    Trap,
    Bar(Bar),
    WarpSync {
        mask: Slot,
    },
    Fence,
    Shfl {
        mode: ShflMode,
        d: Slot,
        p: Option<Slot>,
        a: Slot,
        b: Slot,
        c: Slot,
        mask: Slot,
    },
    Vote {
        mode: VoteMode,
        d: Slot,
        p: PredRef,
        mask: Slot,
    },
    MatchAny {
        wide: bool,
        d: Slot,
        a: Slot,
        mask: Slot,
    },
    MatchAll {
        wide: bool,
        d: Slot,
        p: Option<Slot>,
        a: Slot,
        mask: Slot,
    },
    Activemask {
        d: Slot,
    },
    Redux {
        f: IntFn,
        signed: bool,
        d: Slot,
        a: Slot,
        mask: Slot,
    },
    Elect {
        d: Slot,
        p: Slot,
        mask: Slot,
    },
    Ldmatrix {
        num: u8,
        trans: bool,
        addr: Addr,
        d: [Slot; 4],
    },
    Mma(Mma),
}

#[derive(Clone, Copy, Debug)]
pub struct Inst {
    pub guard: Option<PredRef>,
    pub op: Op,
    pub class: Class,
    pub line: u32,
}
