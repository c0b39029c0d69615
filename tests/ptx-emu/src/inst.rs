//! The parts of decoded instructions: every register is a slot of the warp's register file, every constant and symbol too.
use crate::ty::{Round, Ty};

/// The index of a row in the file of 32-bit registers, of 64-bit registers or of predicates, as the instruction says.
pub type Slot = u16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PredRef {
    pub slot: Slot,
    pub negated: bool,
}

/// What kind of work an instruction is; `Counts` has one number for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Integer,
    Float,
    /// Approximate functions, and divisions and roots.
    Special,
    Convert,
    Move,
    Control,
    Global,
    Shared,
    Local,
    /// Reads of parameters and constants.
    Constant,
    Atomic,
    /// Barriers, fences, shuffles and votes.
    Sync,
    Matrix,
    Async,
}

pub const CLASSES: usize = 14;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntFn {
    Add,
    Sub,
    AddSat,
    SubSat,
    MulLo,
    MulHi,
    Div,
    Rem,
    Min,
    Max,
    And,
    Or,
    Xor,
    Neg,
    Abs,
    Not,
    Cnot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BitsFn {
    Popc,
    Clz,
    Bfind,
    BfindShift,
    BfindSigned,
    BfindSignedShift,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TriFn {
    MadLo,
    MadHi,
    Sad,
    BfeUnsigned,
    BfeSigned,
    Lop3(u8),
    Prmt(PrmtMode),
    ShfLeft { wrap: bool },
    ShfRight { wrap: bool },
    Dp4a { a_signed: bool, b_signed: bool },
    Slct { float: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrmtMode {
    Index,
    F4e,
    B4e,
    Rc8,
    Ecl,
    Ecr,
    Rc16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatFn {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    MinNan,
    MaxNan,
    Neg,
    Abs,
    Sqrt,
    Rcp,
    Rsqrt,
    Ex2,
    Lg2,
    Sin,
    Cos,
    Tanh,
    Copysign,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloatMode {
    pub round: Round,
    pub ftz: bool,
    pub sat: bool,
    pub relu: bool,
    /// The result may be off by some units in the last place; the options may move it.
    pub approx: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cmp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    Num,
    Nan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoolFn {
    And,
    Or,
    Xor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    Finite,
    Infinite,
    Number,
    NotANumber,
    Normal,
    Subnormal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Space {
    Generic,
    Global,
    Shared,
    Local,
    Param,
    Const,
}

/// An address: a register (or a constant's slot) and an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addr {
    pub slot: Slot,
    pub wide: bool,
    pub offset: i64,
}

/// How an access of memory is ordered and seen by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Volatile, relaxed or stronger: such accesses do not race with one another.
    pub strong: bool,
    pub acquire: bool,
    pub release: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    pub space: Space,
    pub addr: Addr,
    /// Bytes of one element.
    pub bytes: u8,
    pub signed: bool,
    /// Elements of one lane: 1, 2 or 4.
    pub vector: u8,
    /// Bytes of the registers: an element may be narrower.
    pub register: u8,
    pub order: Order,
    /// The read-only path: nobody may write these bytes during the launch.
    pub read_only: bool,
    /// The sources or destinations; one that is not wanted is the scratch slot.
    pub regs: [Slot; 4],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomFn {
    Add,
    Min,
    Max,
    Exch,
    Cas,
    And,
    Or,
    Xor,
    Inc,
    Dec,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Atom {
    pub space: Space,
    pub f: AtomFn,
    pub ty: Ty,
    pub d: Option<Slot>,
    pub addr: Addr,
    pub b: Slot,
    pub c: Slot,
    pub order: Order,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShflMode {
    Up,
    Down,
    Bfly,
    Idx,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteMode {
    All,
    Any,
    Uni,
    Ballot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    Sync,
    Arrive,
    RedPopc { d: Slot, p: PredRef },
    RedAnd { d: Slot, p: PredRef },
    RedOr { d: Slot, p: PredRef },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    pub kind: BarKind,
    /// True for `bar.*` and `barrier.*.aligned`: all lanes of a warp come together.
    pub aligned: bool,
    pub id: Slot,
    pub count: Option<Slot>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpAsync {
    pub dst: Addr,
    pub src: Addr,
    pub bytes: u8,
    pub src_bytes: Option<Slot>,
    pub ignore: Option<PredRef>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MmaKind {
    /// m16n8k16 of two-byte elements.
    K16,
    /// m16n8k8 of two-byte elements.
    K8,
    /// m16n8k8 of tf32.
    Tf32K8,
    /// m16n8k4 of tf32.
    Tf32K4,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mma {
    pub kind: MmaKind,
    /// The elements of A and B: f16, bf16 or tf32.
    pub ty: Ty,
    /// The accumulator is f16 and not f32.
    pub half: bool,
    pub d: [Slot; 4],
    pub a: [Slot; 4],
    pub b: [Slot; 2],
    pub c: [Slot; 4],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cvt {
    pub from: Ty,
    pub to: Ty,
    pub round: Option<Round>,
    /// Round to an integer that stays a float.
    pub integral: bool,
    pub ftz: bool,
    pub sat: bool,
    pub relu: bool,
    /// Bytes of the source register.
    pub from_register: u8,
    /// Bytes of the destination register.
    pub to_register: u8,
    pub d: Slot,
    pub a: Slot,
}
