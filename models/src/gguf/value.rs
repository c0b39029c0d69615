//! Metadata values: numbers, texts and arrays of them, read where they lie in the file.
use super::GgufError;
use super::cursor::Cursor;
use std::fmt;

/// Arrays may hold arrays; deeper ones than this no writer makes.
const DEEPEST: usize = 4;

/// The types that a value can have, in the order of the numbers that the file gives them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    const ALL: [ValueType; 13] = {
        use ValueType::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, Text, Array, U64, I64, F64]
    };

    /// Bytes of the shortest value: texts and arrays are at least their headers.
    fn least(self) -> u64 {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => 1,
            ValueType::U16 | ValueType::I16 => 2,
            ValueType::U32 | ValueType::I32 | ValueType::F32 => 4,
            ValueType::U64 | ValueType::I64 | ValueType::F64 | ValueType::Text => 8,
            ValueType::Array => 12,
        }
    }

    fn read(c: &mut Cursor, what: &str) -> Result<ValueType, GgufError> {
        let at = c.at();
        let found = c.u32(what)?;
        ValueType::ALL.get(found as usize).copied().ok_or_else(|| GgufError::Wrong {
            what: format!("the type of {what}"),
            at,
            found: found.to_string(),
            expected: format!("0 to {}", ValueType::ALL.len() - 1),
        })
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ValueType::U8 => "u8",
            ValueType::I8 => "i8",
            ValueType::U16 => "u16",
            ValueType::I16 => "i16",
            ValueType::U32 => "u32",
            ValueType::I32 => "i32",
            ValueType::F32 => "f32",
            ValueType::Bool => "bool",
            ValueType::Text => "text",
            ValueType::Array => "array",
            ValueType::U64 => "u64",
            ValueType::I64 => "i64",
            ValueType::F64 => "f64",
        })
    }
}

/// A value.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    Text(&'a str),
    Array(Array<'a>),
}

/// An array whose elements were checked when the file was parsed, and are decoded as they are asked for.
#[derive(Clone, Copy, PartialEq)]
pub struct Array<'a> {
    kind: ValueType,
    len: usize,
    bytes: &'a [u8],
}

impl fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}; {}]", self.kind, self.len)
    }
}

impl<'a> Array<'a> {
    pub fn kind(&self) -> ValueType {
        self.kind
    }
    pub fn len(&self) -> usize {
        self.len
    }
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (kind, mut c) = (self.kind, Cursor::new(self.bytes, 0));
        // Parsing read every element once, so that reading again cannot fail.
        (0..self.len).map_while(move |_| Value::read_as(kind, &mut c, "an element", 0).ok())
    }
}

impl<'a> Value<'a> {
    /// Reads a type and a value of it, and checks every element of arrays.
    pub fn read(c: &mut Cursor<'a>, what: &str) -> Result<Value<'a>, GgufError> {
        let kind = ValueType::read(c, what)?;
        Value::read_as(kind, c, what, 0)
    }

    fn read_as(kind: ValueType, c: &mut Cursor<'a>, what: &str, depth: usize) -> Result<Value<'a>, GgufError> {
        Ok(match kind {
            ValueType::U8 => Value::U8(u8::from_le_bytes(c.array(what)?)),
            ValueType::I8 => Value::I8(i8::from_le_bytes(c.array(what)?)),
            ValueType::U16 => Value::U16(u16::from_le_bytes(c.array(what)?)),
            ValueType::I16 => Value::I16(i16::from_le_bytes(c.array(what)?)),
            ValueType::U32 => Value::U32(u32::from_le_bytes(c.array(what)?)),
            ValueType::I32 => Value::I32(i32::from_le_bytes(c.array(what)?)),
            ValueType::U64 => Value::U64(u64::from_le_bytes(c.array(what)?)),
            ValueType::I64 => Value::I64(i64::from_le_bytes(c.array(what)?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(c.array(what)?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(c.array(what)?)),
            ValueType::Bool => Value::Bool(flag(c, what)?),
            ValueType::Text => Value::Text(c.text(what)?),
            ValueType::Array => Value::Array(array(c, what, depth)?),
        })
    }

    pub fn kind(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F32(_) => ValueType::F32,
            Value::F64(_) => ValueType::F64,
            Value::Bool(_) => ValueType::Bool,
            Value::Text(_) => ValueType::Text,
            Value::Array(_) => ValueType::Array,
        }
    }

    /// An integer of any width that is not negative.
    pub fn unsigned(&self) -> Option<u64> {
        match *self {
            Value::U8(x) => Some(x.into()),
            Value::U16(x) => Some(x.into()),
            Value::U32(x) => Some(x.into()),
            Value::U64(x) => Some(x),
            Value::I8(x) => x.try_into().ok(),
            Value::I16(x) => x.try_into().ok(),
            Value::I32(x) => x.try_into().ok(),
            Value::I64(x) => x.try_into().ok(),
            Value::F32(_) | Value::F64(_) | Value::Bool(_) | Value::Text(_) | Value::Array(_) => None,
        }
    }
    pub fn float(&self) -> Option<f64> {
        match *self {
            Value::F32(x) => Some(x.into()),
            Value::F64(x) => Some(x),
            _ => None,
        }
    }
    pub fn flag(&self) -> Option<bool> {
        if let Value::Bool(x) = *self { Some(x) } else { None }
    }
    pub fn text(&self) -> Option<&'a str> {
        if let Value::Text(x) = *self { Some(x) } else { None }
    }
    pub fn array(&self) -> Option<Array<'a>> {
        if let Value::Array(x) = *self { Some(x) } else { None }
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::U8(x) => write!(f, "{x}"),
            Value::I8(x) => write!(f, "{x}"),
            Value::U16(x) => write!(f, "{x}"),
            Value::I16(x) => write!(f, "{x}"),
            Value::U32(x) => write!(f, "{x}"),
            Value::I32(x) => write!(f, "{x}"),
            Value::U64(x) => write!(f, "{x}"),
            Value::I64(x) => write!(f, "{x}"),
            Value::F32(x) => write!(f, "{x}"),
            Value::F64(x) => write!(f, "{x}"),
            Value::Bool(x) => write!(f, "{x}"),
            Value::Text(x) if x.chars().count() > 60 => write!(f, "{:?}…", x.chars().take(60).collect::<String>()),
            Value::Text(x) => write!(f, "{x:?}"),
            Value::Array(x) => write!(f, "an array of {} {}", x.len, x.kind),
        }
    }
}

fn flag(c: &mut Cursor, what: &str) -> Result<bool, GgufError> {
    let at = c.at();
    match c.array(what)? {
        [0] => Ok(false),
        [1] => Ok(true),
        [other] => Err(GgufError::Wrong {
            what: what.into(),
            at,
            found: format!("the boolean {other}"),
            expected: "0 or 1".into(),
        }),
    }
}

fn array<'a>(c: &mut Cursor<'a>, what: &str, depth: usize) -> Result<Array<'a>, GgufError> {
    let at = c.at();
    if depth == DEEPEST {
        let expected = format!("at most {DEEPEST} levels");
        return Err(GgufError::Wrong { what: what.into(), at, found: "arrays within arrays".into(), expected });
    }
    let kind = ValueType::read(c, what)?;
    let len = c.count(kind.least(), what)?;
    let begin = c.at();
    match kind {
        ValueType::Bool => (0..len).try_for_each(|_| flag(c, what).map(drop))?,
        ValueType::Text => (0..len).try_for_each(|_| c.text(what).map(drop))?,
        ValueType::Array => (0..len).try_for_each(|_| array(c, what, depth + 1).map(drop))?,
        ValueType::U8
        | ValueType::I8
        | ValueType::U16
        | ValueType::I16
        | ValueType::U32
        | ValueType::I32
        | ValueType::F32
        | ValueType::U64
        | ValueType::I64
        | ValueType::F64 => c.take(len as u64 * kind.least(), what).map(drop)?,
    }
    Ok(Array { kind, len, bytes: &c.bytes()[begin..c.at()] })
}
