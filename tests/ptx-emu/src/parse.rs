//! Tokens to statements. Nothing is resolved here; what a name or an opcode means is the decoder's business.
use crate::ast::{Entry, File, Guard, Instruction, Operand, Statement, Variable};
use crate::lex::{Spanned, Token, lex};

/// Why a text is not accepted: where, what stands there, and what would do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PTX line {line}: {what}; {advice}")]
pub struct ParseError {
    pub line: u32,
    pub what: String,
    pub advice: String,
}

impl ParseError {
    pub fn new(line: u32, what: impl Into<String>, advice: impl Into<String>) -> Self {
        ParseError { line, what: what.into(), advice: advice.into() }
    }
}

type Result<T> = std::result::Result<T, ParseError>;

struct Parser<'t> {
    tokens: Vec<Spanned<'t>>,
    at: usize,
}

/// The statements of a whole text.
pub fn parse(text: &str) -> Result<File<'_>> {
    let mut p = Parser { tokens: lex(text)?, at: 0 };
    let mut file = File { target: "", variables: vec![], entries: vec![] };
    while let Some(token) = p.peek() {
        match token {
            Token::Name(".version") => {
                p.at += 1;
                p.next("a version such as 7.0")?;
            }
            Token::Name(".target") => {
                p.at += 1;
                file.target = p.name("a target such as sm_80")?;
                while p.eat(b',') {
                    p.name("an option of .target")?;
                }
            }
            Token::Name(".address_size") => {
                p.at += 1;
                let line = p.line();
                if p.int("64")? != 64 {
                    return Err(ParseError::new(line, "an address size other than 64", "only 64 is run here"));
                }
            }
            Token::Name(".visible" | ".weak" | ".common") => p.at += 1,
            Token::Name(".file" | ".pragma" | ".loc") => p.skip_note(),
            Token::Name(".entry") => {
                let entry = p.entry()?;
                file.entries.push(entry);
            }
            Token::Name(".extern" | ".const" | ".global" | ".shared") => {
                let variable = p.variables()?;
                file.variables.extend(variable);
            }
            _ => return p.wrong("a directive of a module (.version, .target, .entry, .shared, .const, .global)"),
        }
    }
    Ok(file)
}

impl<'t> Parser<'t> {
    fn peek(&self) -> Option<Token<'t>> {
        self.tokens.get(self.at).map(|t| t.token)
    }

    fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |t| t.line)
    }

    fn wrong<T>(&self, expected: &str) -> Result<T> {
        let found = match self.peek() {
            None => "the end of the text".to_string(),
            Some(Token::Name(n)) => format!("`{n}`"),
            Some(Token::Sign(c)) => format!("`{}`", c as char),
            Some(Token::Int(v)) => format!("`{v}`"),
            Some(Token::F32(_) | Token::F64(_)) => "a floating-point number".to_string(),
            Some(Token::Text(t)) => format!("{t:?}"),
        };
        Err(ParseError::new(self.line(), format!("{found} stands where it cannot"), format!("expected {expected}")))
    }

    fn next(&mut self, expected: &str) -> Result<Token<'t>> {
        match self.peek() {
            Some(t) => {
                self.at += 1;
                Ok(t)
            }
            None => self.wrong(expected),
        }
    }

    fn eat(&mut self, sign: u8) -> bool {
        let found = self.peek() == Some(Token::Sign(sign));
        self.at += found as usize;
        found
    }

    fn need(&mut self, sign: u8) -> Result<()> {
        if self.eat(sign) { Ok(()) } else { self.wrong(&format!("`{}`", sign as char)) }
    }

    fn name(&mut self, expected: &str) -> Result<&'t str> {
        match self.peek() {
            Some(Token::Name(n)) => {
                self.at += 1;
                Ok(n)
            }
            _ => self.wrong(expected),
        }
    }

    fn int(&mut self, expected: &str) -> Result<u64> {
        match self.peek() {
            Some(Token::Int(v)) => {
                self.at += 1;
                Ok(v)
            }
            _ => self.wrong(expected),
        }
    }

    /// `.loc 1 2 3`, `.file 1 "x"`, `.pragma "…";`: all that stands on its line.
    fn skip_note(&mut self) {
        let line = self.line();
        while self.at < self.tokens.len() && self.line() == line {
            self.at += 1;
        }
    }

    fn entry(&mut self) -> Result<Entry<'t>> {
        let line = self.line();
        self.at += 1;
        let name = self.name("the name of a kernel")?;
        let mut entry = Entry { line, name, params: vec![], max_threads: None, required: None, body: vec![] };
        if self.eat(b'(') && !self.eat(b')') {
            loop {
                entry.params.push(self.parameter()?);
                if !self.eat(b',') {
                    break;
                }
            }
            self.need(b')')?;
        }
        while let Some(Token::Name(directive)) = self.peek() {
            self.directive(directive, &mut entry)?;
        }
        self.need(b'{')?;
        entry.body = self.body()?;
        Ok(entry)
    }

    fn directive(&mut self, directive: &str, entry: &mut Entry<'t>) -> Result<()> {
        let line = self.line();
        if directive == ".pragma" {
            self.skip_note();
            return Ok(());
        }
        if !matches!(directive, ".maxntid" | ".reqntid" | ".minnctapersm" | ".maxnctapersm" | ".maxnreg") {
            return self.wrong("`{`, or one of .maxntid .reqntid .minnctapersm .maxnreg");
        }
        self.at += 1;
        let mut extents = [1u32; 3];
        for (i, extent) in extents.iter_mut().enumerate() {
            if i > 0 && !self.eat(b',') {
                break;
            }
            let v = self.int("a number")?;
            *extent =
                u32::try_from(v).map_err(|_| ParseError::new(line, format!("{v} threads"), "that is too many"))?;
        }
        if matches!(directive, ".maxntid" | ".reqntid") {
            let product = extents.iter().fold(1u32, |a, &b| a.saturating_mul(b));
            entry.max_threads = Some(product);
            if directive == ".reqntid" {
                entry.required = Some(extents);
            }
        }
        Ok(())
    }

    /// `.param .u64 .ptr .global .align 16 name` or `.param .align 8 .b8 name[16]`.
    fn parameter(&mut self) -> Result<Variable<'t>> {
        let line = self.line();
        if self.name("`.param`")? != ".param" {
            self.at -= 1;
            return self.wrong("`.param`");
        }
        let (mut align, mut ty, mut pointer) = (None, "", false);
        loop {
            match self.name("a type or the name of the parameter")? {
                // The alignment of what a pointer points to is not that of the parameter.
                ".align" if pointer => drop(self.int("an alignment")?),
                ".align" => align = Some(self.int("an alignment")?),
                ".ptr" => pointer = true,
                ".global" | ".shared" | ".const" | ".local" if pointer => {}
                t if t.starts_with('.') => ty = t,
                name => {
                    let len = self.extent()?;
                    return Ok(Variable {
                        line,
                        space: ".param",
                        external: false,
                        align,
                        ty,
                        name,
                        len: len.unwrap_or(Some(1)),
                        init: vec![],
                    });
                }
            }
        }
    }

    /// `[12]` or `[2][3]` or `[]` after a name; the outer option says whether there was one.
    fn extent(&mut self) -> Result<Option<Option<u64>>> {
        let mut len: Option<Option<u64>> = None;
        while self.eat(b'[') {
            if self.eat(b']') {
                len = Some(None);
                continue;
            }
            let line = self.line();
            let n = self.int("how many elements")?;
            let before = len.flatten().unwrap_or(1);
            let product = before.checked_mul(n).filter(|&p| p < 1 << 32);
            let product = product.ok_or_else(|| ParseError::new(line, "an array of this size", "that is too many"))?;
            len = Some(Some(product));
            self.need(b']')?;
        }
        Ok(len)
    }

    /// A declaration of variables, up to its semicolon.
    fn variables(&mut self) -> Result<Vec<Variable<'t>>> {
        let line = self.line();
        let (mut space, mut external, mut align, mut ty) = ("", false, None, "");
        let mut out = vec![];
        loop {
            match self.name("a type or a name")? {
                ".extern" => external = true,
                ".visible" | ".weak" | ".common" => {}
                ".align" => align = Some(self.int("an alignment")?),
                s @ (".shared" | ".const" | ".global" | ".local" | ".param") => space = s,
                t if t.starts_with('.') => ty = t,
                name => {
                    let len = self.extent()?.unwrap_or(Some(1));
                    let init = if self.eat(b'=') { self.initialiser()? } else { vec![] };
                    out.push(Variable { line, space, external, align, ty, name, len, init });
                    if !self.eat(b',') {
                        self.need(b';')?;
                        return Ok(out);
                    }
                }
            }
        }
    }

    fn initialiser(&mut self) -> Result<Vec<Operand<'t>>> {
        if self.peek() != Some(Token::Sign(b'{')) {
            return Ok(vec![self.operand()?]);
        }
        let (mut depth, mut out) = (0, vec![]);
        loop {
            if self.eat(b'{') {
                depth += 1;
            } else if self.eat(b'}') {
                depth -= 1;
                if depth == 0 {
                    return Ok(out);
                }
            } else if !self.eat(b',') {
                out.push(self.operand()?);
            }
        }
    }

    /// Up to the brace that closes the kernel.
    fn body(&mut self) -> Result<Vec<Statement<'t>>> {
        let (mut depth, mut out) = (1usize, vec![]);
        loop {
            let line = self.line();
            match self.peek() {
                Some(Token::Sign(b'{')) => {
                    self.at += 1;
                    depth += 1;
                    out.push(Statement::Open);
                }
                Some(Token::Sign(b'}')) => {
                    self.at += 1;
                    depth -= 1;
                    if depth == 0 {
                        return Ok(out);
                    }
                    out.push(Statement::Close);
                }
                Some(Token::Sign(b';')) => self.at += 1,
                Some(Token::Name(".reg")) => out.push(self.registers()?),
                Some(Token::Name(".shared" | ".local" | ".const" | ".global" | ".extern" | ".param")) => {
                    out.extend(self.variables()?.into_iter().map(Statement::Variable));
                }
                Some(Token::Name(".pragma" | ".loc")) => self.skip_note(),
                Some(Token::Name(name)) if self.next_is(1, b':') => {
                    self.at += 2;
                    out.push(Statement::Label { line, name });
                }
                Some(Token::Name(_) | Token::Sign(b'@')) => out.push(Statement::Instruction(self.instruction()?)),
                _ => return self.wrong("an instruction, a label, a declaration or `}`"),
            }
        }
    }

    fn next_is(&self, ahead: usize, sign: u8) -> bool {
        self.tokens.get(self.at + ahead).map(|t| t.token) == Some(Token::Sign(sign))
    }

    fn registers(&mut self) -> Result<Statement<'t>> {
        let line = self.line();
        self.at += 1;
        let ty = self.name("the type of the registers")?;
        let mut names = vec![];
        loop {
            let name = self.name("the name of a register")?;
            let count = match self.eat(b'<') {
                true => {
                    let n = self.int("how many registers")?;
                    self.need(b'>')?;
                    Some(n)
                }
                false => None,
            };
            names.push((name, count));
            if !self.eat(b',') {
                break;
            }
        }
        self.need(b';')?;
        Ok(Statement::Registers { line, ty, names })
    }

    fn instruction(&mut self) -> Result<Instruction<'t>> {
        let line = self.line();
        let mut guard = None;
        if self.eat(b'@') {
            let negated = self.eat(b'!');
            guard = Some(Guard { negated, name: self.name("a predicate")? });
        }
        let opcode = self.name("an instruction")?;
        let mut operands = vec![];
        while !self.eat(b';') {
            if !operands.is_empty() {
                self.need(b',')?;
            }
            operands.push(self.operand()?);
        }
        Ok(Instruction { line, guard, opcode, operands })
    }

    fn operand(&mut self) -> Result<Operand<'t>> {
        if self.eat(b'{') {
            let mut all = vec![];
            loop {
                all.push(self.scalar()?);
                if !self.eat(b',') {
                    break;
                }
            }
            self.need(b'}')?;
            return Ok(Operand::Vector(all));
        }
        if self.eat(b'[') {
            let base = match self.peek() {
                Some(Token::Name(n)) => {
                    self.at += 1;
                    Some(n)
                }
                _ => None,
            };
            let mut offset = 0i64;
            while !self.eat(b']') {
                let minus = match self.peek() {
                    Some(Token::Sign(b'+')) => {
                        self.at += 1;
                        self.eat(b'-')
                    }
                    Some(Token::Sign(b'-')) => {
                        self.at += 1;
                        true
                    }
                    Some(Token::Int(_)) if base.is_none() => false,
                    _ => return self.wrong("`]`, or `+` and a number"),
                };
                let v = self.int("an offset")? as i64;
                offset = if minus { offset.wrapping_sub(v) } else { offset.wrapping_add(v) };
            }
            return Ok(Operand::Address(base, offset));
        }
        self.scalar()
    }

    fn scalar(&mut self) -> Result<Operand<'t>> {
        let minus = self.eat(b'-');
        match self.peek() {
            Some(Token::Int(v)) => {
                self.at += 1;
                Ok(Operand::Int(if minus { v.wrapping_neg() } else { v }))
            }
            Some(Token::F32(v)) => {
                self.at += 1;
                Ok(Operand::F32(if minus { v ^ 1 << 31 } else { v }))
            }
            Some(Token::F64(v)) => {
                self.at += 1;
                Ok(Operand::F64(if minus { v ^ 1 << 63 } else { v }))
            }
            Some(Token::Sign(b'!')) if !minus => {
                self.at += 1;
                Ok(Operand::Not(self.name("a predicate")?))
            }
            Some(Token::Name(name)) if !minus => {
                self.at += 1;
                if self.eat(b'|') {
                    return Ok(Operand::Pair(name, self.name("a second destination")?));
                }
                if self.next_is(0, b'+') {
                    self.at += 1;
                    let minus = self.eat(b'-');
                    let v = self.int("an offset")? as i64;
                    return Ok(Operand::Sum(name, if minus { v.wrapping_neg() } else { v }));
                }
                Ok(Operand::Name(name))
            }
            _ => self.wrong("an operand"),
        }
    }
}
