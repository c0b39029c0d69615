//! PTX as data: registers by class, typed instructions, address spaces, entries.
//!
//! Every instruction that the generators emit is a variant here, and `print` is the only place that spells one.

/// A class of registers; each has its own numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    Pred,
    B16,
    B32,
    B64,
    F32,
}

impl Class {
    pub const ALL: [Class; 5] = [Class::Pred, Class::B16, Class::B32, Class::B64, Class::F32];
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Reg {
    pub class: Class,
    pub number: u32,
}

/// How an instruction sees its operands. Loads and stores of `U8` and `U16` take wider registers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Type {
    Pred,
    U8,
    U16,
    B16,
    Bf16,
    B32,
    U32,
    S32,
    F32,
    B64,
    U64,
    S64,
}

/// A special register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Special {
    Tid,
    Block,
}

/// An operand that is read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Src {
    Reg(Reg),
    /// The bits of an f32.
    F32(u32),
    Int(i64),
    Special(Special),
    /// Where the shared memory starts that the entry declares, and that which the launch gives.
    Shared,
    DynamicShared,
}

impl From<Reg> for Src {
    fn from(r: Reg) -> Src {
        Src::Reg(r)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Space {
    Global,
    /// Global memory that nobody writes while the kernel runs, so that loads of it may go before any store.
    ReadOnly,
    Shared,
}

/// `[base + offset]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Address {
    pub base: Reg,
    pub offset: i32,
}

/// Functions of one operand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum UnOp {
    Neg,
    Abs,
    Not,
    SqrtRn,
    /// 2 to the power, within two units in the last place.
    Ex2,
    /// The same, with numbers below the normal range taken and given as 0: one instruction of the machine.
    Ex2Flushed,
}

/// Functions of two operands of one type.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BinOp {
    /// Of integers.
    Add,
    Sub,
    /// The low half of a product.
    MulLo,
    /// The high half.
    MulHi,
    /// Twice as wide as the operands, whose type the instruction names.
    MulWide,
    Div,
    Min,
    Max,
    /// Of f32, rounded to nearest even.
    AddRn,
    SubRn,
    MulRn,
    DivRn,
    /// NaN if an operand is NaN.
    MinNan,
    MaxNan,
    And,
    Or,
    Xor,
    Shl,
    Shr,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cmp {
    Eq,
    Ne,
    /// Not equal, or unordered.
    Neu,
    Lt,
    Le,
    Gt,
    Ge,
}

/// Conversions; the types are the instruction's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Rounding {
    /// Between integers.
    None,
    /// To nearest even.
    Rn,
    /// Towards zero.
    Rzi,
    /// To an integer upwards.
    Rpi,
}

/// Which lane a shuffle reads.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Shuffle {
    /// That with this number.
    Idx,
    /// That whose number differs in these bits.
    Bfly,
    /// That whose number is so much less; the first lanes read themselves.
    Up,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Label(pub u32);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    Mov {
        ty: Type,
        d: Reg,
        a: Src,
    },
    Unary {
        op: UnOp,
        ty: Type,
        d: Reg,
        a: Src,
    },
    Binary {
        op: BinOp,
        ty: Type,
        d: Reg,
        a: Src,
        b: Src,
    },
    /// a·b + c with one rounding.
    Fma {
        d: Reg,
        a: Src,
        b: Src,
        c: Src,
    },
    Setp {
        cmp: Cmp,
        ty: Type,
        d: Reg,
        a: Src,
        b: Src,
    },
    /// `p ? a : b`.
    Selp {
        ty: Type,
        d: Reg,
        a: Src,
        b: Src,
        p: Reg,
    },
    Cvt {
        to: Type,
        from: Type,
        rounding: Rounding,
        d: Reg,
        a: Src,
    },
    /// The pointer that a parameter of the entry is.
    LdParam {
        d: Reg,
        param: u32,
    },
    /// A generic address as one of global memory.
    ToGlobal {
        d: Reg,
        a: Reg,
    },
    Ld {
        space: Space,
        ty: Type,
        d: Reg,
        at: Address,
    },
    St {
        space: Space,
        ty: Type,
        a: Reg,
        at: Address,
    },
    /// Four neighbours at once, aligned to all of them.
    Ld4 {
        space: Space,
        ty: Type,
        d: [Reg; 4],
        at: Address,
    },
    /// Two neighbours of 32 bits at once.
    St2 {
        space: Space,
        a: [Reg; 2],
        at: Address,
    },
    /// Four neighbours of 32 bits at once, aligned to all of them.
    St4 {
        space: Space,
        a: [Reg; 4],
        at: Address,
    },
    /// Two neighbours.
    Ld2 {
        space: Space,
        ty: Type,
        d: [Reg; 2],
        at: Address,
    },
    /// Copies 16 bytes from global to shared memory while the thread goes on; where `read` is 0, zeros in their place.
    CpAsync {
        to: Address,
        from: Address,
        read: Option<Reg>,
    },
    /// What was copied since the last of these is one group.
    CpCommit,
    /// Waits until so many groups, the latest ones, are all that may be under way.
    CpWait(u8),
    /// Four matrices of 8 by 8 elements of 16 bits, whose rows the lanes point at, as fragments; each transposed if so.
    Ldmatrix {
        transposed: bool,
        d: [Reg; 4],
        at: Address,
    },
    /// d += a·b of bf16 in 16 by 8 elements, 16 deep.
    Mma {
        d: [Reg; 4],
        a: [Reg; 4],
        b: [Reg; 2],
    },
    /// Two f32 rounded to nearest bf16, in one register.
    CvtPair {
        d: Reg,
        high: Src,
        low: Src,
    },
    /// All lanes take part.
    Shfl {
        how: Shuffle,
        d: Reg,
        a: Reg,
        lane: Src,
    },
    /// Whether the predicate holds on any lane.
    Any {
        d: Reg,
        a: Reg,
    },
    /// Adds a u32 to shared memory, whoever else does so at the same time; gives what was there, if that is asked for.
    AddShared {
        d: Option<Reg>,
        a: Src,
        at: Address,
    },
    /// All lanes of the warp meet, and see each other's writes.
    SyncWarp,
    /// All threads of the block meet, and see each other's writes to shared memory.
    SyncBlock,
    Label(Label),
    /// All lanes that get here take the same way.
    Bra {
        to: Label,
    },
    Ret,
    /// The kernel's line that the following instructions serve.
    Note(u32),
}

/// An instruction, and the predicate under which a lane executes it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Inst {
    pub guard: Option<(Reg, bool)>,
    pub op: Op,
}

/// Shared memory of a block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Shared {
    /// Bytes that the text declares.
    Static(u32),
    /// Given with the launch.
    Dynamic,
}

/// A kernel as PTX sees it.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    pub name: String,
    pub params: u32,
    pub threads: u32,
    /// Blocks that a processor should have at once: no more registers are used than leave room for them.
    pub blocks: u32,
    pub shared: Shared,
    /// Registers of each class, in the order of [`Class::ALL`].
    pub registers: [u32; Class::ALL.len()],
    pub body: Vec<Inst>,
}
