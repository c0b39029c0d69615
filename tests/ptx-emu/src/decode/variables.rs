//! Variables get their places: parameters, shared, local, constant and global memory.
use super::Result;
use super::names::Symbol;
use crate::ast::{Operand, Variable};
use crate::kernel::{GlobalVariable, Param, SHARED_BASE};
use crate::parse::ParseError;
use crate::ty::Ty;
use std::collections::BTreeMap;

/// The most that one variable may have, so that a hostile text cannot ask for all of the memory.
const MOST: u64 = 1 << 28;

pub fn ty(text: &str, line: u32) -> Result<Ty> {
    let known = text.strip_prefix('.').and_then(Ty::parse);
    known.ok_or_else(|| ParseError::new(line, format!("the type `{text}`"), "write one such as .b32 or .f32"))
}

/// The bytes of a variable and its alignment.
fn extent(v: &Variable<'_>) -> Result<(u64, u64)> {
    let element = ty(v.ty, v.line)?;
    if element == Ty::Pred {
        return Err(ParseError::new(v.line, format!("`{}` is a predicate in memory", v.name), "use .b8"));
    }
    let bytes = v.len.unwrap_or(0).saturating_mul(element.bytes() as u64);
    let align = v.align.unwrap_or(element.bytes() as u64);
    if !align.is_power_of_two() || align > 1024 || bytes > MOST {
        let what = format!("`{}` has {bytes} bytes aligned to {align}", v.name);
        return Err(ParseError::new(v.line, what, "an alignment is a power of two up to 1024, a size at most 256 MiB"));
    }
    Ok((bytes, align.max(element.bytes() as u64)))
}

/// The places of the parameters, and how many bytes they take together.
pub fn params(all: &[Variable<'_>]) -> Result<(Vec<Param>, usize)> {
    let (mut out, mut at) = (vec![], 0usize);
    for v in all {
        let (bytes, align) = extent(v)?;
        at = at.next_multiple_of(align as usize);
        out.push(Param { name: v.name.to_string(), offset: at, bytes: bytes as usize, align: align as usize });
        at += bytes as usize;
    }
    Ok((out, at))
}

/// The variables of a module.
pub struct Globals<'t> {
    pub consts: Vec<u8>,
    pub arrays: Vec<GlobalVariable>,
    pub symbols: BTreeMap<&'t str, Symbol<'t>>,
    shared: BTreeMap<&'t str, Variable<'t>>,
}

pub fn module<'t>(all: &[Variable<'t>]) -> Result<Globals<'t>> {
    let mut g = Globals { consts: vec![], arrays: vec![], symbols: BTreeMap::new(), shared: BTreeMap::new() };
    for v in all {
        let (bytes, align) = extent(v)?;
        let symbol = match v.space {
            ".const" => {
                let at = g.consts.len().next_multiple_of(align as usize);
                g.consts.resize(at, 0);
                g.consts.extend(initial(v, bytes)?);
                if g.consts.len() > 1 << 16 {
                    return Err(ParseError::new(v.line, "more than 64 KiB of constants", "put it into .global"));
                }
                Symbol::Const(at as u64)
            }
            ".global" => {
                g.arrays.push(GlobalVariable { bytes: bytes as usize, init: initial(v, bytes)? });
                Symbol::Global(g.arrays.len() as u32 - 1)
            }
            ".shared" => {
                g.shared.insert(v.name, v.clone());
                Symbol::ModuleShared(v.name)
            }
            other => {
                let what = format!("`{}` in the space `{other}`", v.name);
                return Err(ParseError::new(v.line, what, "a module has .const, .global and .shared"));
            }
        };
        if g.symbols.insert(v.name, symbol).is_some() {
            return Err(ParseError::new(v.line, format!("a second variable `{}`", v.name), "rename one of them"));
        }
    }
    Ok(g)
}

/// The bytes that a variable starts with.
fn initial(v: &Variable<'_>, bytes: u64) -> Result<Vec<u8>> {
    let element = ty(v.ty, v.line)?;
    let mut out = vec![];
    for value in &v.init {
        let bits = match (value, element) {
            (Operand::Int(i), t) if !t.float() => *i,
            (Operand::F32(f), Ty::F32 | Ty::B32) => *f as u64,
            (Operand::F64(f), Ty::F32) => (f64::from_bits(*f) as f32).to_bits() as u64,
            (Operand::F64(f), Ty::F64 | Ty::B64) => *f,
            (Operand::F32(f), Ty::F64) => (f32::from_bits(*f) as f64).to_bits(),
            _ => {
                let what = format!("a value of `{}` that is not one of {element:?}", v.name);
                return Err(ParseError::new(v.line, what, "write numbers of the type of the array"));
            }
        };
        out.extend_from_slice(&bits.to_le_bytes()[..element.bytes().min(8)]);
    }
    if out.len() as u64 > bytes {
        let what = format!("`{}` has more values than places", v.name);
        return Err(ParseError::new(v.line, what, "give the array its length"));
    }
    out.resize(bytes as usize, 0);
    Ok(out)
}

/// Where the variables of one kernel lie.
pub struct Layout<'f, 't> {
    globals: &'f Globals<'t>,
    /// The module's shared variables that this kernel names, with their addresses.
    used: BTreeMap<&'t str, u64>,
    shared: u64,
    dynamic: Option<u64>,
    local: u64,
}

impl<'f, 't> Layout<'f, 't> {
    pub fn new(globals: &'f Globals<'t>) -> Self {
        Layout { globals, used: BTreeMap::new(), shared: 0, dynamic: None, local: 0 }
    }

    pub fn declare(&mut self, v: &Variable<'t>) -> Result<Symbol<'t>> {
        match v.space {
            ".shared" if v.external || v.len.is_none() => self.dynamic(v),
            ".shared" => Ok(Symbol::Shared(self.shared(v)?)),
            ".local" => {
                let (bytes, align) = extent(v)?;
                let at = self.local.next_multiple_of(align);
                self.local = at + bytes;
                if self.local > 1 << 19 {
                    return Err(ParseError::new(
                        v.line,
                        "more than 512 KiB of local memory",
                        "the hardware has no more",
                    ));
                }
                Ok(Symbol::Local(at))
            }
            other => {
                let what = format!("`{}` in the space `{other}` inside of a kernel", v.name);
                Err(ParseError::new(v.line, what, "a kernel declares .reg, .shared and .local"))
            }
        }
    }

    fn shared(&mut self, v: &Variable<'t>) -> Result<u64> {
        let (bytes, align) = extent(v)?;
        let at = (self.shared + SHARED_BASE as u64).next_multiple_of(align);
        self.shared = at + bytes - SHARED_BASE as u64;
        if self.shared > 1 << 18 {
            return Err(ParseError::new(v.line, "more than 256 KiB of shared memory", "no chip has as much"));
        }
        Ok(at)
    }

    /// A variable of the module gets its place in this kernel when it is first named.
    pub fn resolve(&mut self, symbol: Symbol<'t>, line: u32) -> Result<Symbol<'t>> {
        let Symbol::ModuleShared(name) = symbol else {
            return Ok(symbol);
        };
        if let Some(&at) = self.used.get(name) {
            return Ok(Symbol::Shared(at));
        }
        let Some(v) = self.globals.shared.get(name) else {
            return Err(ParseError::new(line, format!("the variable `{name}` is not known"), "declare it"));
        };
        if v.external || v.len.is_none() {
            return self.dynamic(v);
        }
        let at = self.shared(v)?;
        self.used.insert(name, at);
        Ok(Symbol::Shared(at))
    }

    /// Shared memory whose size the launch gives; all such variables start at one place, behind what is static.
    fn dynamic(&mut self, v: &Variable<'t>) -> Result<Symbol<'t>> {
        let (_, align) = extent(v)?;
        self.dynamic = Some(self.dynamic.unwrap_or(1).max(align));
        Ok(Symbol::Dynamic)
    }

    /// What a name of the module stands for.
    pub fn of_module(&self, name: &str) -> Option<Symbol<'t>> {
        self.globals.symbols.get(name).copied()
    }

    pub fn shared_bytes(&self) -> usize {
        self.shared as usize
    }

    pub fn dynamic_align(&self) -> Option<usize> {
        self.dynamic.map(|a| a as usize)
    }

    pub fn local_bytes(&self) -> usize {
        self.local as usize
    }
}
