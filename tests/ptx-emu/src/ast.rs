//! What the parser makes of the text: statements as they stand, with nothing resolved.

/// An operand as written.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand<'t> {
    Name(&'t str),
    /// `!%p`.
    Not(&'t str),
    /// `%p|%q`, and `_` for a side that is not wanted.
    Pair(&'t str, &'t str),
    /// The 64 bits of an integer, the sign applied.
    Int(u64),
    F32(u32),
    F64(u64),
    /// `{a, b}`.
    Vector(Vec<Operand<'t>>),
    /// `[base + offset]`; no base for an absolute address.
    Address(Option<&'t str>, i64),
    /// `symbol + 4`, without brackets.
    Sum(&'t str, i64),
}

/// `@%p` or `@!%p`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guard<'t> {
    pub name: &'t str,
    pub negated: bool,
}

#[derive(Clone, Debug)]
pub struct Instruction<'t> {
    pub line: u32,
    pub guard: Option<Guard<'t>>,
    pub opcode: &'t str,
    pub operands: Vec<Operand<'t>>,
}

/// A variable of a state space: `.shared .align 16 .b8 tile[4096]`.
#[derive(Clone, Debug)]
pub struct Variable<'t> {
    pub line: u32,
    pub space: &'t str,
    pub external: bool,
    pub align: Option<u64>,
    pub ty: &'t str,
    pub name: &'t str,
    /// How many elements; an extent left open is none.
    pub len: Option<u64>,
    pub init: Vec<Operand<'t>>,
}

#[derive(Clone, Debug)]
pub enum Statement<'t> {
    /// `.reg .b32 %r<10>, %x;`: type, names, and how many where a range is declared.
    Registers {
        line: u32,
        ty: &'t str,
        names: Vec<(&'t str, Option<u64>)>,
    },
    Variable(Variable<'t>),
    Label {
        line: u32,
        name: &'t str,
    },
    Instruction(Instruction<'t>),
    Open,
    Close,
}

#[derive(Clone, Debug)]
pub struct Entry<'t> {
    pub line: u32,
    pub name: &'t str,
    pub params: Vec<Variable<'t>>,
    /// The product of `.maxntid` or `.reqntid`.
    pub max_threads: Option<u32>,
    /// The extents of `.reqntid`.
    pub required: Option<[u32; 3]>,
    pub body: Vec<Statement<'t>>,
}

#[derive(Clone, Debug)]
pub struct File<'t> {
    pub target: &'t str,
    pub variables: Vec<Variable<'t>>,
    pub entries: Vec<Entry<'t>>,
}
