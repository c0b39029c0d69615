//! Statements to decoded instructions: names become slots, labels become program counters, symbols become constants.
mod arith;
mod bits;
mod data;
mod float;
mod names;
mod sync;
mod variables;

use crate::ast::{Entry, File, Instruction, Operand, Statement};
use crate::inst::{Class, PredRef, Slot, Space};
use crate::kernel::{Common, Kernel, Module};
use crate::op::{Inst, Op};
use crate::parse::ParseError;
use crate::ty::{Mods, Ty};
use names::{Names, Symbol};
use std::collections::BTreeMap;
use std::sync::Arc;
use variables::Layout;

pub type Result<T> = std::result::Result<T, ParseError>;

/// An instruction whose label was not known yet.
struct Fixup<'t> {
    at: usize,
    scope: usize,
    label: &'t str,
    line: u32,
}

/// What the decoder knows while it walks over a kernel.
pub struct Cx<'t, 'f> {
    names: Names<'t>,
    layout: Layout<'f, 't>,
    code: Vec<Inst>,
    labels: BTreeMap<(usize, &'t str), u32>,
    fixups: Vec<Fixup<'t>>,
    line: u32,
    guard: Option<PredRef>,
    granules: [u32; 2],
    /// The number in the target: 80 of sm_80.
    sm: u32,
    /// The instruction is a mov or cvt: they alone read special registers, and addresses of variables.
    moving: bool,
}

/// All kernels of a text.
pub fn module(text: &str, file: &File<'_>) -> Result<Module> {
    let globals = variables::module(&file.variables)?;
    let common = Arc::new(Common {
        identity: text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ b as u64).wrapping_mul(0x100_0000_01b3)),
        lines: text.lines().map(str::to_string).collect(),
        consts: globals.consts.clone(),
        globals: globals.arrays.clone(),
    });
    let digits: String = file.target.chars().filter(char::is_ascii_digit).collect();
    // A text without a target is taken for the newest.
    let sm = digits.parse().unwrap_or(u32::MAX);
    let mut kernels: Vec<Kernel> = vec![];
    for entry in &file.entries {
        if kernels.iter().any(|k| k.name == entry.name) {
            return Err(ParseError::new(entry.line, format!("a second kernel `{}`", entry.name), "rename one of them"));
        }
        kernels.push(kernel(entry, &globals, &common, sm)?);
    }
    Ok(Module { kernels, target: file.target.to_string() })
}

fn kernel<'t>(entry: &Entry<'t>, globals: &variables::Globals<'t>, common: &Arc<Common>, sm: u32) -> Result<Kernel> {
    let (params, param_bytes) = variables::params(&entry.params)?;
    let mut cx = Cx {
        names: Names::new(),
        layout: Layout::new(globals),
        code: vec![],
        labels: BTreeMap::new(),
        fixups: vec![],
        line: entry.line,
        guard: None,
        granules: [16, 16],
        sm,
        moving: false,
    };
    for (p, v) in params.iter().zip(&entry.params) {
        cx.names.declare_symbol(v.name, Symbol::Param(p.offset as u64), v.line)?;
    }
    for statement in &entry.body {
        cx.statement(statement)?;
    }
    // Falling off the end is the same as an exit.
    cx.guard = None;
    cx.push(Class::Control, Op::Exit);
    cx.resolve_labels()?;
    let (slots, names) = cx.names.finish();
    Ok(Kernel {
        name: entry.name.to_string(),
        params,
        param_bytes,
        max_threads: entry.max_threads,
        required: entry.required,
        code: cx.code,
        slots,
        names,
        narrow_constants: cx.names.narrow_constants(),
        wide_constants: cx.names.wide_constants(),
        specials: cx.names.specials(),
        shared_bytes: cx.layout.shared_bytes(),
        dynamic_align: cx.layout.dynamic_align(),
        local_bytes: cx.layout.local_bytes(),
        granules: cx.granules,
        common: common.clone(),
    })
}

impl<'t, 'f> Cx<'t, 'f> {
    fn statement(&mut self, statement: &Statement<'t>) -> Result<()> {
        match statement {
            Statement::Registers { line, ty, names } => {
                let ty = variables::ty(ty, *line)?;
                names.iter().try_for_each(|(name, count)| self.names.declare(name, *count, ty, *line))
            }
            Statement::Variable(v) => {
                let symbol = self.layout.declare(v)?;
                self.names.declare_symbol(v.name, symbol, v.line)
            }
            Statement::Label { line, name } => {
                let scope = self.names.scope();
                match self.labels.insert((scope, name), self.code.len() as u32) {
                    None => Ok(()),
                    Some(_) => Err(ParseError::new(*line, format!("a second label `{name}`"), "rename one of them")),
                }
            }
            Statement::Instruction(i) => self.instruction(i),
            Statement::Open => {
                self.names.open();
                Ok(())
            }
            Statement::Close => {
                self.names.close();
                Ok(())
            }
        }
    }

    fn push(&mut self, class: Class, op: Op) {
        self.code.push(Inst { guard: self.guard, op, class, line: self.line });
    }

    fn error<T>(&self, what: impl Into<String>, advice: impl Into<String>) -> Result<T> {
        Err(ParseError::new(self.line, what, advice))
    }

    fn instruction(&mut self, i: &Instruction<'t>) -> Result<()> {
        self.line = i.line;
        self.guard = match i.guard {
            None => None,
            Some(g) => Some(PredRef { slot: self.names.register(g.name, Ty::Pred, i.line)?, negated: g.negated }),
        };
        let mut m = Mods::new(i.opcode, i.line);
        self.moving = matches!(m.head, "mov" | "cvt");
        let o = &i.operands[..];
        match m.head {
            "add" | "sub" | "mul" | "mad" | "div" | "rem" | "neg" | "abs" | "min" | "max" | "sad" => {
                self.arithmetic(&mut m, o)?
            }
            "fma" | "sqrt" | "rsqrt" | "rcp" | "ex2" | "lg2" | "sin" | "cos" | "tanh" | "testp" | "copysign" => {
                self.float(&mut m, o)?
            }
            "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" | "shf" | "lop3" | "bfe" | "bfi" | "popc" | "clz"
            | "brev" | "bfind" | "prmt" | "dp4a" => self.bits(&mut m, o)?,
            "setp" | "set" | "selp" | "slct" => self.compare(&mut m, o)?,
            "mov" | "cvt" | "cvta" | "isspacep" | "ld" | "ldu" | "st" | "prefetch" | "prefetchu" | "discard"
            | "applypriority" => self.data(&mut m, o)?,
            "bra" | "exit" | "ret" | "trap" | "brkpt" | "bar" | "barrier" | "membar" | "fence" | "shfl" | "vote"
            | "match" | "activemask" | "redux" | "elect" | "atom" | "red" | "cp" | "ldmatrix" | "mma" | "nanosleep"
            | "griddepcontrol" => self.sync(&mut m, o)?,
            _ => {
                return Err(
                    m.error("is an instruction this emulator does not run", "add it in src/decode and src/exec")
                );
            }
        }
        m.done()
    }

    /// Refuses what older chips do not have.
    fn needs(&self, m: &Mods<'_>, sm: u32) -> Result<()> {
        match self.sm >= sm {
            true => Ok(()),
            false => Err(m.error(&format!("needs sm_{sm}"), &format!("the target is sm_{}", self.sm))),
        }
    }

    fn operands<'a, const N: usize>(&self, m: &Mods<'_>, o: &'a [Operand<'t>]) -> Result<&'a [Operand<'t>; N]> {
        o.try_into().map_err(|_| m.error(&format!("has {} operands", o.len()), &format!("it takes {N}")))
    }

    /// Notes how small the accesses of a space are: the granule of the race detector is the least of them.
    fn touches(&mut self, space: Space, bytes: u32) {
        for (i, s) in [(0, Space::Shared), (1, Space::Global)] {
            if space == s || space == Space::Generic {
                self.granules[i] = self.granules[i].min(bytes);
            }
        }
    }

    fn branch(&mut self, label: &'t str) {
        self.fixups.push(Fixup { at: self.code.len(), scope: self.names.scope(), label, line: self.line });
        self.push(Class::Control, Op::Branch { target: 0 });
    }

    fn resolve_labels(&mut self) -> Result<()> {
        for f in &self.fixups {
            let mut scope = Some(f.scope);
            let target = loop {
                let Some(s) = scope else {
                    let what = format!("the label `{}` is not in this kernel", f.label);
                    return Err(ParseError::new(f.line, what, "declare it in this scope or in one around it"));
                };
                match self.labels.get(&(s, f.label)) {
                    Some(&pc) => break pc,
                    None => scope = self.names.parent(s),
                }
            };
            self.code[f.at].op = Op::Branch { target };
        }
        Ok(())
    }

    /// A source of this type: a register, a constant, a special register.
    fn source(&mut self, o: &Operand<'t>, ty: Ty) -> Result<Slot> {
        let line = self.line;
        match *o {
            Operand::Name(name) if name.starts_with('%') && names::special(name).is_some() => match self.moving {
                true => self.names.special_slot(name, ty, line),
                false => {
                    self.error(format!("the special register `{name}` outside of mov"), "move it to a register first")
                }
            },
            Operand::Name(name) => match self.variable(name) {
                Some(symbol) if self.moving => self.symbol(symbol, 0, ty),
                Some(_) => {
                    self.error(format!("the variable `{name}` outside of mov"), "move its address to a register first")
                }
                None => self.names.register(name, ty, line),
            },
            Operand::Sum(name, offset) => match self.variable(name) {
                Some(symbol) if self.moving => self.symbol(symbol, offset, ty),
                _ => self.error(format!("`{name}` with an offset"), "only mov takes that, of a variable's address"),
            },
            Operand::Int(v) if !ty.float() || matches!(ty, Ty::F16x2 | Ty::BF16x2 | Ty::TF32) => match ty.bytes() {
                8 => self.names.wide_constant(v, line),
                4 => self.names.narrow_constant(v as u32, line),
                2 => self.names.narrow_constant(v as u32 & 0xffff, line),
                _ => self.names.narrow_constant(v as u32 & 0xff, line),
            },
            Operand::F32(v) if matches!(ty, Ty::F32 | Ty::B32) => self.names.narrow_constant(v, line),
            Operand::F64(v) if matches!(ty, Ty::F32) => {
                self.names.narrow_constant((f64::from_bits(v) as f32).to_bits(), line)
            }
            Operand::F64(v) if matches!(ty, Ty::F64 | Ty::B64) => self.names.wide_constant(v, line),
            Operand::F32(v) if matches!(ty, Ty::F64) => {
                self.names.wide_constant((f32::from_bits(v) as f64).to_bits(), line)
            }
            _ => self.error(
                format!("the operand {} is not one of type {ty:?}", shown(o)),
                "use a register or a constant of it",
            ),
        }
    }

    /// What a name stands for if it is that of a variable: of the kernel, or of the module.
    fn variable(&self, name: &str) -> Option<Symbol<'t>> {
        self.names.symbol(name).or_else(|| self.layout.of_module(name))
    }

    /// The address of a variable in its own space, as a constant.
    fn symbol(&mut self, symbol: Symbol<'t>, offset: i64, ty: Ty) -> Result<Slot> {
        let symbol = self.layout.resolve(symbol, self.line)?;
        match (symbol, ty.bytes()) {
            (Symbol::Dynamic, n @ (4 | 8)) => self.names.dynamic_address(offset as u64, n == 8, self.line),
            (Symbol::Global(variable), 8) => self.names.global_address(variable, offset as u64, self.line),
            (Symbol::Global(_), _) => self.error("the address of a global variable in 32 bits", "use a .u64 register"),
            (s, 8) => self.names.wide_constant(s.address().wrapping_add(offset as u64), self.line),
            (s, 4) => self.names.narrow_constant(s.address().wrapping_add(offset as u64) as u32, self.line),
            _ => self.error("an address in fewer than 32 bits", "use a .u32 or .u64 register"),
        }
    }

    fn dest(&mut self, o: &Operand<'t>, ty: Ty) -> Result<Slot> {
        match *o {
            Operand::Name("_") => Ok(self.names.sink(ty)),
            Operand::Name(name) => self.names.register(name, ty, self.line),
            _ => self.error(format!("{} cannot be written", shown(o)), "write to a register"),
        }
    }

    fn pred(&mut self, o: &Operand<'t>) -> Result<PredRef> {
        let (name, negated) = match *o {
            Operand::Name(name) => (name, false),
            Operand::Not(name) => (name, true),
            _ => return self.error(format!("{} is no predicate", shown(o)), "use a register declared .pred"),
        };
        Ok(PredRef { slot: self.names.register(name, Ty::Pred, self.line)?, negated })
    }

    /// A register of whatever type it was declared with.
    fn register(&mut self, o: &Operand<'t>) -> Result<(Ty, Slot)> {
        match *o {
            Operand::Name(name) => self.names.any_register(name, self.line),
            _ => self.error(format!("{} is no register", shown(o)), "use a register"),
        }
    }

    fn constant(&self, o: &Operand<'t>) -> Result<u64> {
        match *o {
            Operand::Int(v) => Ok(v),
            _ => self.error(format!("{} is not a constant", shown(o)), "write an integer"),
        }
    }

    /// The members of a vector operand; a scalar is a vector of one.
    fn members<'a>(&self, o: &'a Operand<'t>) -> &'a [Operand<'t>] {
        match o {
            Operand::Vector(all) => all,
            one => std::slice::from_ref(one),
        }
    }
}

fn shown(o: &Operand<'_>) -> String {
    match o {
        Operand::Name(n) => format!("`{n}`"),
        Operand::Not(n) => format!("`!{n}`"),
        Operand::Pair(a, b) => format!("`{a}|{b}`"),
        Operand::Int(v) => format!("`{}`", *v as i64),
        Operand::F32(v) => format!("`0f{v:08X}`"),
        Operand::F64(v) => format!("`0d{v:016X}`"),
        Operand::Vector(_) => "the vector".to_string(),
        Operand::Address(base, offset) => format!("`[{}+{offset}]`", base.unwrap_or("")),
        Operand::Sum(n, v) => format!("`{n}+{v}`"),
    }
}
