//! The types of PTX, and the pieces of an opcode.
use crate::parse::ParseError;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ty {
    Pred,
    B8,
    B16,
    B32,
    B64,
    B128,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    BF16,
    BF16x2,
    TF32,
    F32,
    F64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bits,
    Signed,
    Unsigned,
    Float,
}

impl Ty {
    pub fn parse(text: &str) -> Option<Ty> {
        Some(match text {
            "pred" => Ty::Pred,
            "b8" => Ty::B8,
            "b16" => Ty::B16,
            "b32" => Ty::B32,
            "b64" => Ty::B64,
            "b128" => Ty::B128,
            "u8" => Ty::U8,
            "u16" => Ty::U16,
            "u32" => Ty::U32,
            "u64" => Ty::U64,
            "s8" => Ty::S8,
            "s16" => Ty::S16,
            "s32" => Ty::S32,
            "s64" => Ty::S64,
            "f16" => Ty::F16,
            "f16x2" => Ty::F16x2,
            "bf16" => Ty::BF16,
            "bf16x2" | "b16x2" => Ty::BF16x2,
            "tf32" => Ty::TF32,
            "f32" => Ty::F32,
            "f64" => Ty::F64,
            _ => return None,
        })
    }

    pub fn bytes(self) -> usize {
        match self {
            Ty::Pred => 0,
            Ty::B8 | Ty::U8 | Ty::S8 => 1,
            Ty::B16 | Ty::U16 | Ty::S16 | Ty::F16 | Ty::BF16 => 2,
            Ty::B32 | Ty::U32 | Ty::S32 | Ty::F16x2 | Ty::BF16x2 | Ty::TF32 | Ty::F32 => 4,
            Ty::B64 | Ty::U64 | Ty::S64 | Ty::F64 => 8,
            Ty::B128 => 16,
        }
    }

    pub fn kind(self) -> Kind {
        match self {
            Ty::Pred | Ty::B8 | Ty::B16 | Ty::B32 | Ty::B64 | Ty::B128 => Kind::Bits,
            Ty::U8 | Ty::U16 | Ty::U32 | Ty::U64 => Kind::Unsigned,
            Ty::S8 | Ty::S16 | Ty::S32 | Ty::S64 => Kind::Signed,
            Ty::F16 | Ty::F16x2 | Ty::BF16 | Ty::BF16x2 | Ty::TF32 | Ty::F32 | Ty::F64 => Kind::Float,
        }
    }

    pub fn signed(self) -> bool {
        self.kind() == Kind::Signed
    }

    /// A signed or unsigned integer of at least 16 bits: what arithmetic takes.
    pub fn integer(self) -> bool {
        matches!(self.kind(), Kind::Signed | Kind::Unsigned) && self.bytes() >= 2
    }

    /// Untyped bits, which logic takes.
    pub fn untyped(self) -> bool {
        self.kind() == Kind::Bits && self.bytes() >= 2
    }

    pub fn float(self) -> bool {
        self.kind() == Kind::Float
    }

    /// True if an instruction of this type may name a register that was declared as `register`.
    pub fn takes(self, register: Ty) -> bool {
        let packed = |t: Ty| matches!(t, Ty::F16x2 | Ty::BF16x2 | Ty::TF32);
        let bits = |t: Ty| t.kind() == Kind::Bits || packed(t);
        if self == Ty::Pred || register == Ty::Pred {
            return self == register;
        }
        if packed(self) {
            return register == Ty::B32 || register == self;
        }
        let same =
            bits(self) || bits(register) || self.float() == register.float() && (!self.float() || self == register);
        self.bytes() == register.bytes() && same
    }
}

/// An opcode cut at its dots: the head, and the modifiers that nobody has asked for yet.
pub struct Mods<'t> {
    pub line: u32,
    pub opcode: &'t str,
    pub head: &'t str,
    rest: Vec<&'t str>,
}

/// The rounding of a float result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    Nearest,
    Zero,
    Down,
    Up,
    /// Half away from zero, for tf32.
    Away,
}

impl<'t> Mods<'t> {
    pub fn new(opcode: &'t str, line: u32) -> Self {
        let mut parts = opcode.split('.');
        let head = parts.next().unwrap_or("");
        Mods { line, opcode, head, rest: parts.collect() }
    }

    /// True if the modifier is there; it counts as read from now on.
    pub fn take(&mut self, name: &str) -> bool {
        let found = self.rest.iter().position(|&m| m == name);
        if let Some(i) = found {
            self.rest.remove(i);
        }
        found.is_some()
    }

    /// The first of these names that is there.
    pub fn one_of(&mut self, names: &[&'static str]) -> Option<&'static str> {
        names.iter().copied().find(|n| self.take(n))
    }

    /// Drops modifiers that say nothing about the result.
    pub fn ignore(&mut self, names: &[&str]) {
        for n in names {
            self.take(n);
        }
    }

    /// The first modifier that is left.
    pub fn first(&mut self) -> Option<&'t str> {
        if self.rest.is_empty() { None } else { Some(self.rest.remove(0)) }
    }

    /// The next type among the modifiers, from the left.
    pub fn ty(&mut self) -> Result<Ty, ParseError> {
        match self.rest.iter().position(|m| Ty::parse(m).is_some()) {
            Some(i) => Ok(Ty::parse(self.rest.remove(i)).unwrap_or(Ty::B32)),
            None => Err(self.error("has no type", "write one, as in add.f32")),
        }
    }

    pub fn has_rounding(&self) -> bool {
        self.rest.iter().any(|m| matches!(*m, "rn" | "rz" | "rm" | "rp"))
    }

    pub fn round(&mut self) -> Option<Round> {
        let name = self.one_of(&["rn", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi", "rna"])?;
        Some(match name {
            "rn" | "rni" => Round::Nearest,
            "rz" | "rzi" => Round::Zero,
            "rm" | "rmi" => Round::Down,
            "rp" | "rpi" => Round::Up,
            _ => Round::Away,
        })
    }

    /// Refuses what nobody has read.
    pub fn done(&self) -> Result<(), ParseError> {
        match self.rest.first() {
            None => Ok(()),
            Some(m) => {
                Err(self.error(&format!("has the modifier `.{m}`"), "it is not known for this instruction here"))
            }
        }
    }

    pub fn error(&self, what: &str, advice: &str) -> ParseError {
        ParseError::new(self.line, format!("`{}` {what}", self.opcode), advice)
    }
}
