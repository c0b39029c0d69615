//! Names to slots: registers by scope, constants and special registers as slots of their own.
use super::Result;
use crate::inst::Slot;
use crate::kernel::{Special, Wide};
use crate::parse::ParseError;
use crate::ty::Ty;
use std::collections::{BTreeMap, HashMap};

/// What a name of a variable stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Symbol<'t> {
    /// Its place in the bytes of the launch.
    Param(u64),
    /// Its address in the shared window of the block.
    Shared(u64),
    /// Shared memory of the module, which a kernel has only if it names it.
    ModuleShared(&'t str),
    /// Shared memory whose size the launch gives.
    Dynamic,
    Local(u64),
    Const(u64),
    /// The index of a global variable.
    Global(u32),
}

impl Symbol<'_> {
    pub fn address(self) -> u64 {
        match self {
            Symbol::Param(a) | Symbol::Shared(a) | Symbol::Local(a) | Symbol::Const(a) => a,
            Symbol::ModuleShared(_) | Symbol::Dynamic | Symbol::Global(_) => 0,
        }
    }
}

#[derive(Default)]
struct Scope<'t> {
    parent: Option<usize>,
    registers: HashMap<&'t str, Ty>,
    ranges: HashMap<&'t str, (u64, Ty)>,
    symbols: HashMap<&'t str, Symbol<'t>>,
}

/// The files: 32 bits, 64 bits, predicates.
fn file_of(ty: Ty) -> usize {
    match ty {
        Ty::Pred => 2,
        _ if ty.bytes() == 8 => 1,
        _ => 0,
    }
}

pub struct Names<'t> {
    scopes: Vec<Scope<'t>>,
    current: usize,
    slots: HashMap<(usize, &'t str), Slot>,
    names: [Vec<String>; 3],
    narrow: BTreeMap<u32, Slot>,
    wide: BTreeMap<Wide, Slot>,
    specials: BTreeMap<Special, Slot>,
    sinks: [Option<Slot>; 3],
}

impl<'t> Names<'t> {
    pub fn new() -> Self {
        Names {
            scopes: vec![Scope::default()],
            current: 0,
            slots: HashMap::new(),
            names: Default::default(),
            narrow: BTreeMap::new(),
            wide: BTreeMap::new(),
            specials: BTreeMap::new(),
            sinks: [None; 3],
        }
    }

    pub fn open(&mut self) {
        self.scopes.push(Scope { parent: Some(self.current), ..Scope::default() });
        self.current = self.scopes.len() - 1;
    }

    pub fn close(&mut self) {
        self.current = self.scopes[self.current].parent.unwrap_or(0);
    }

    pub fn scope(&self) -> usize {
        self.current
    }

    pub fn parent(&self, scope: usize) -> Option<usize> {
        self.scopes[scope].parent
    }

    pub fn declare(&mut self, name: &'t str, count: Option<u64>, ty: Ty, line: u32) -> Result<()> {
        if ty == Ty::B128 {
            return Err(ParseError::new(line, "a register of 128 bits", "use two of .b64"));
        }
        let scope = &mut self.scopes[self.current];
        let old = match count {
            Some(n) => scope.ranges.insert(name, (n, ty)).is_some(),
            None => scope.registers.insert(name, ty).is_some(),
        };
        match old {
            true => Err(ParseError::new(line, format!("a second register `{name}`"), "rename one of them")),
            false => Ok(()),
        }
    }

    pub fn declare_symbol(&mut self, name: &'t str, symbol: Symbol<'t>, line: u32) -> Result<()> {
        match self.scopes[self.current].symbols.insert(name, symbol) {
            Some(_) => Err(ParseError::new(line, format!("a second variable `{name}`"), "rename one of them")),
            None => Ok(()),
        }
    }

    pub fn symbol(&self, name: &str) -> Option<Symbol<'t>> {
        self.chain().find_map(|s| self.scopes[s].symbols.get(name).copied())
    }

    /// The scopes from the inner one outwards.
    fn chain(&self) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(self.current), |&s| self.scopes[s].parent)
    }

    fn find(&self, name: &str) -> Option<(usize, Ty)> {
        let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let digits = &name[prefix.len()..];
        let plain = !digits.is_empty() && (digits == "0" || !digits.starts_with('0'));
        let index: Option<u64> = if plain { digits.parse().ok() } else { None };
        self.chain().find_map(|s| {
            let scope = &self.scopes[s];
            let range = || {
                let (n, ty) = *scope.ranges.get(prefix)?;
                index.filter(|&i| i < n).map(|_| ty)
            };
            scope.registers.get(name).copied().or_else(range).map(|ty| (s, ty))
        })
    }

    fn new_slot(names: &mut Vec<String>, name: &str, line: u32) -> Result<Slot> {
        let slot = Slot::try_from(names.len()).ok().filter(|&s| s < Slot::MAX);
        let too_many = || ParseError::new(line, "more than 65534 registers and constants of one size", "re-use some");
        names.push(name.to_string());
        slot.ok_or_else(too_many)
    }

    pub fn any_register(&mut self, name: &'t str, line: u32) -> Result<(Ty, Slot)> {
        let Some((scope, ty)) = self.find(name) else {
            let advice = "declare it with .reg, in this scope or in one around it";
            return Err(ParseError::new(line, format!("the name `{name}` is not known"), advice));
        };
        if let Some(&slot) = self.slots.get(&(scope, name)) {
            return Ok((ty, slot));
        }
        let slot = Self::new_slot(&mut self.names[file_of(ty)], name, line)?;
        self.slots.insert((scope, name), slot);
        Ok((ty, slot))
    }

    /// The slot of a register that an instruction of this type may name.
    pub fn register(&mut self, name: &'t str, ty: Ty, line: u32) -> Result<Slot> {
        let (declared, slot) = self.any_register(name, line)?;
        if ty.takes(declared) {
            return Ok(slot);
        }
        let what = format!("the register `{name}` is declared {declared:?} and stands where {ty:?} is wanted");
        Err(ParseError::new(line, what, "declare it otherwise, or convert"))
    }

    pub fn sink(&mut self, ty: Ty) -> Slot {
        let file = file_of(ty);
        if self.sinks[file].is_none() {
            self.sinks[file] = Self::new_slot(&mut self.names[file], "_", 0).ok();
        }
        self.sinks[file].unwrap_or(0)
    }

    pub fn narrow_constant(&mut self, v: u32, line: u32) -> Result<Slot> {
        if let Some(&s) = self.narrow.get(&v) {
            return Ok(s);
        }
        let slot = Self::new_slot(&mut self.names[0], "a constant", line)?;
        self.narrow.insert(v, slot);
        Ok(slot)
    }

    fn wide(&mut self, v: Wide, line: u32) -> Result<Slot> {
        if let Some(&s) = self.wide.get(&v) {
            return Ok(s);
        }
        let slot = Self::new_slot(&mut self.names[1], "a constant", line)?;
        self.wide.insert(v, slot);
        Ok(slot)
    }

    pub fn wide_constant(&mut self, v: u64, line: u32) -> Result<Slot> {
        self.wide(Wide::Bits(v), line)
    }

    /// The address of dynamic shared memory, which is known when all that is static is.
    pub fn dynamic_address(&mut self, offset: u64, wide: bool, line: u32) -> Result<Slot> {
        if wide {
            return self.wide(Wide::Dynamic { offset }, line);
        }
        let special = Special::DynamicAddress(offset as u32);
        if let Some(&s) = self.specials.get(&special) {
            return Ok(s);
        }
        let slot = Self::new_slot(&mut self.names[0], "a constant", line)?;
        self.specials.insert(special, slot);
        Ok(slot)
    }

    pub fn global_address(&mut self, variable: u32, offset: u64, line: u32) -> Result<Slot> {
        self.wide(Wide::Global { variable, offset }, line)
    }

    pub fn special_slot(&mut self, name: &str, ty: Ty, line: u32) -> Result<Slot> {
        let Some(special) = special(name) else {
            return Err(ParseError::new(line, format!("the special register `{name}`"), "it is not known here"));
        };
        if !ty.takes(Ty::U32) {
            return Err(ParseError::new(line, format!("`{name}` where {ty:?} is wanted"), "it has 32 bits"));
        }
        if let Some(&s) = self.specials.get(&special) {
            return Ok(s);
        }
        let slot = Self::new_slot(&mut self.names[0], name, line)?;
        self.specials.insert(special, slot);
        Ok(slot)
    }

    pub fn finish(&mut self) -> ([usize; 3], [Vec<String>; 3]) {
        let names = std::mem::take(&mut self.names);
        ([names[0].len(), names[1].len(), names[2].len()], names)
    }

    pub fn narrow_constants(&self) -> Vec<(Slot, u32)> {
        self.narrow.iter().map(|(&v, &s)| (s, v)).collect()
    }

    pub fn wide_constants(&self) -> Vec<(Slot, Wide)> {
        self.wide.iter().map(|(&v, &s)| (s, v)).collect()
    }

    pub fn specials(&self) -> Vec<(Slot, Special)> {
        self.specials.iter().map(|(&v, &s)| (s, v)).collect()
    }
}

/// The special register of this name.
pub fn special(name: &str) -> Option<Special> {
    let (stem, axis) = name.rsplit_once('.').unwrap_or((name, ""));
    let axis = match axis {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    if let Some(axis) = axis {
        return match stem {
            "%tid" => Some(Special::Tid(axis)),
            "%ntid" => Some(Special::Ntid(axis)),
            "%ctaid" => Some(Special::Ctaid(axis)),
            "%nctaid" => Some(Special::Nctaid(axis)),
            _ => None,
        };
    }
    Some(match name {
        "%laneid" => Special::LaneId,
        "%warpid" => Special::WarpId,
        "%nwarpid" => Special::NwarpId,
        "%smid" => Special::SmId,
        "%nsmid" => Special::NsmId,
        "%lanemask_eq" => Special::MaskEq,
        "%lanemask_lt" => Special::MaskLt,
        "%lanemask_le" => Special::MaskLe,
        "%lanemask_gt" => Special::MaskGt,
        "%lanemask_ge" => Special::MaskGe,
        "%dynamic_smem_size" => Special::DynamicShared,
        "%total_smem_size" => Special::TotalShared,
        _ => return None,
    })
}
