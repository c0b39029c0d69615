//! Text to a graph, by recursive descent, one statement a line.
use super::TextError;
use super::lex::{Kind, Token, lex};
use super::near::near;
use crate::axis::{AxisId, AxisSet};
use crate::dtype::DType;
use crate::graph::{Dim, Graph, Init, Leaf, LeafId, LeafKind, Output, ScopeId, Table, Type, ValueId, Write};
use std::collections::BTreeMap;

mod operation;
#[cfg(test)]
pub(crate) use operation::mnemonics;

type Result<T> = std::result::Result<T, TextError>;

/// The graph that a text says.
pub fn parse(text: &str) -> Result<Graph> {
    let mut p = Parser {
        tokens: lex(text)?,
        at: 0,
        g: Graph::new(""),
        axes: BTreeMap::new(),
        leaves: BTreeMap::new(),
        values: BTreeMap::new(),
        scope: ScopeId(0),
    };
    p.skip_newlines();
    p.keyword("func")?;
    p.g.name = p.at_name("the graph's name, as in `@main`")?;
    p.end_of_statement()?;
    while p.peek() != &Kind::End {
        p.statement()?;
        p.end_of_statement()?;
    }
    Ok(p.g)
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    g: Graph,
    axes: BTreeMap<String, AxisId>,
    leaves: BTreeMap<String, LeafId>,
    values: BTreeMap<String, ValueId>,
    scope: ScopeId,
}

const STATEMENTS: [&str; 8] = ["axis", "param", "input", "state", "table", "scope", "output", "write"];

// ---- tokens
impl Parser {
    fn peek(&self) -> &Kind {
        &self.tokens[self.at].kind
    }
    fn next(&mut self) -> Kind {
        let kind = self.peek().clone();
        // The last token is `End`, which is never passed.
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        kind
    }
    /// An error at token `at`.
    fn error(&self, at: usize, found: impl Into<String>, expected: impl Into<String>) -> TextError {
        let Token { line, column, .. } = self.tokens[at];
        TextError { line, column, found: found.into(), expected: expected.into(), near: None }
    }
    /// An error at the next token.
    fn fail<T>(&self, expected: impl Into<String>) -> Result<T> {
        Err(self.error(self.at, self.peek().to_string(), expected))
    }
    fn unknown<'a, T>(&self, expected: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Result<T> {
        let e = self.error(self.at, self.peek().to_string(), expected);
        Err(TextError { near: near(name, known), ..e })
    }
    fn eat(&mut self, mark: char) -> bool {
        let here = self.peek() == &Kind::Mark(mark);
        if here {
            self.next();
        }
        here
    }
    fn mark(&mut self, mark: char) -> Result<()> {
        if self.eat(mark) { Ok(()) } else { self.fail(format!("`{mark}`")) }
    }
    fn keyword(&mut self, word: &str) -> Result<()> {
        match self.peek() {
            Kind::Word(w) if w == word => {
                self.next();
                Ok(())
            }
            _ => self.fail(format!("`{word}`")),
        }
    }
    fn skip_newlines(&mut self) {
        while self.peek() == &Kind::Newline {
            self.next();
        }
    }
    fn end_of_statement(&mut self) -> Result<()> {
        match self.peek() {
            Kind::Newline | Kind::End => {
                self.skip_newlines();
                Ok(())
            }
            _ => self.fail("the end of the line"),
        }
    }
    /// Items between brackets, with commas.
    fn bracketed<T>(&mut self, item: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        self.mark('[')?;
        let mut items = vec![];
        while !self.eat(']') {
            if !items.is_empty() {
                self.mark(',')?;
            }
            items.push(item(self)?);
        }
        Ok(items)
    }
}

// ---- names and numbers
impl Parser {
    fn at_name(&mut self, expected: &str) -> Result<String> {
        match self.peek().clone() {
            Kind::At(name) => {
                self.next();
                Ok(name)
            }
            _ => self.fail(expected),
        }
    }
    fn known_axis(&mut self) -> Result<AxisId> {
        let (Kind::Word(name) | Kind::Quoted(name)) = self.peek().clone() else { return self.fail("an axis") };
        match self.axes.get(&name) {
            Some(a) => {
                let a = *a;
                self.next();
                Ok(a)
            }
            None => self.unknown("an axis", &name, self.axes.keys().map(String::as_str)),
        }
    }
    fn known_leaf(&mut self) -> Result<LeafId> {
        let Kind::At(name) = self.peek().clone() else { return self.fail("a leaf, as in `@name`") };
        match self.leaves.get(&name) {
            Some(l) => {
                let l = *l;
                self.next();
                Ok(l)
            }
            None => self.unknown("a declared leaf", &name, self.leaves.keys().map(String::as_str)),
        }
    }
    fn known_value(&mut self) -> Result<ValueId> {
        let Kind::Value(name) = self.peek().clone() else { return self.fail("a value, as in `%name`") };
        match self.values.get(&name) {
            Some(v) => {
                let v = *v;
                self.next();
                Ok(v)
            }
            None => self.unknown("a value that is defined above", &name, self.values.keys().map(String::as_str)),
        }
    }
    fn integer<T: std::str::FromStr>(&mut self, expected: &str) -> Result<T> {
        match self.peek() {
            Kind::Number(n) => match n.parse() {
                Ok(n) => {
                    self.next();
                    Ok(n)
                }
                Err(_) => self.fail(expected),
            },
            _ => self.fail(expected),
        }
    }
    fn float32(&mut self) -> Result<f32> {
        match read_f32(self.peek()) {
            Some(x) => {
                self.next();
                Ok(x)
            }
            None => self.fail("a number with a point or an exponent"),
        }
    }
    fn float64(&mut self) -> Result<f64> {
        match read_f64(self.peek()) {
            Some(x) => {
                self.next();
                Ok(x)
            }
            None => self.fail("a number with a point or an exponent"),
        }
    }
    fn dtype(&mut self) -> Result<DType> {
        let Kind::Word(name) = self.peek().clone() else { return self.fail("a dtype") };
        match DType::from_name(&name) {
            Some(d) => {
                self.next();
                Ok(d)
            }
            None => self.unknown("a dtype", &name, DType::ALL.into_iter().map(DType::name)),
        }
    }
}

/// A float has a point, an exponent or no digits; digits alone are an integer.
fn is_float(number: &str) -> bool {
    number.contains(['.', 'e', 'E', 'i'])
}

/// The bits behind `nan` and `nan.<hex>`.
fn nan_bits(word: &str, quiet: u64) -> Option<u64> {
    match word.strip_prefix("nan")? {
        "" => Some(quiet),
        rest => u64::from_str_radix(rest.strip_prefix('.')?, 16).ok(),
    }
}

/// A number so large that it would read as infinity is refused; infinity is written `inf`.
fn read_f32(kind: &Kind) -> Option<f32> {
    match kind {
        Kind::Number(n) if is_float(n) => n.parse().ok().filter(|x: &f32| x.is_finite() || n == "-inf"),
        Kind::Word(w) if w == "inf" => Some(f32::INFINITY),
        Kind::Word(w) => Some(f32::from_bits(u32::try_from(nan_bits(w, 0x7fc0_0000)?).ok()?)),
        Kind::Quoted(_) | Kind::At(_) | Kind::Value(_) | Kind::Number(_) => None,
        Kind::Mark(_) | Kind::Newline | Kind::End => None,
    }
}

fn read_f64(kind: &Kind) -> Option<f64> {
    match kind {
        Kind::Number(n) if is_float(n) => n.parse().ok().filter(|x: &f64| x.is_finite() || n == "-inf"),
        Kind::Word(w) if w == "inf" => Some(f64::INFINITY),
        Kind::Word(w) => Some(f64::from_bits(nan_bits(w, 0x7ff8_0000_0000_0000)?)),
        Kind::Quoted(_) | Kind::At(_) | Kind::Value(_) | Kind::Number(_) => None,
        Kind::Mark(_) | Kind::Newline | Kind::End => None,
    }
}

// ---- statements
impl Parser {
    fn statement(&mut self) -> Result<()> {
        let word = match self.peek().clone() {
            Kind::Value(_) => return self.operation(),
            Kind::Word(word) if STATEMENTS.contains(&word.as_str()) => word,
            Kind::Word(word) => return self.unknown("a statement", &word, STATEMENTS.into_iter()),
            _ => return self.fail("a statement"),
        };
        self.next();
        match word.as_str() {
            "axis" => self.axis_line(),
            "scope" => self.scope_line(),
            "output" => self.output_line(),
            "write" => self.write_line(),
            kind => self.leaf_line(kind),
        }
    }

    fn axis_line(&mut self) -> Result<()> {
        while let Kind::Word(name) | Kind::Quoted(name) = self.peek().clone() {
            let at = self.at;
            self.next();
            self.mark('=')?;
            let len = self.integer("the length of the axis")?;
            let added = self.g.add_axis(name.clone(), len);
            let a = added.map_err(|e| self.error(at, e.fault, "a new axis"))?;
            self.axes.insert(name, a);
        }
        Ok(())
    }

    /// `scope "a"` declares, `scope 1 "a"` goes back.
    fn scope_line(&mut self) -> Result<()> {
        let at = self.at;
        let back: Option<u32> = match self.peek() {
            Kind::Number(_) => Some(self.integer("the number of a scope")?),
            _ => None,
        };
        let Kind::Quoted(name) = self.peek().clone() else { return self.fail("the scope's name in quotes") };
        self.next();
        let Some(back) = back else {
            self.g.scopes.push(name);
            self.scope = ScopeId(self.g.scopes.len() as u32 - 1);
            return Ok(());
        };
        match self.g.scopes.get(back as usize) {
            Some(known) if *known == name => self.scope = ScopeId(back),
            Some(known) => return Err(self.error(at, format!("scope {back} as `{name}`"), format!("`{known}`"))),
            None => return Err(self.error(at, format!("scope {back}"), "a scope that is declared above")),
        }
        Ok(())
    }

    fn dims(&mut self) -> Result<Vec<Dim>> {
        self.bracketed(|p| {
            if p.peek() == &Kind::Number("1".into()) {
                p.next();
                return Ok(vec![]);
            }
            let mut dim = vec![p.known_axis()?];
            while p.eat('*') {
                dim.push(p.known_axis()?);
            }
            Ok(dim)
        })
    }

    fn leaf_line(&mut self, word: &str) -> Result<()> {
        let at = self.at;
        let name = self.at_name("the leaf's name, as in `@name`")?;
        if self.leaves.contains_key(&name) {
            return Err(self.error(at, format!("`@{name}`, which is declared above"), "a new leaf"));
        }
        self.mark(':')?;
        let (dtype, dims) = (self.dtype()?, self.dims()?);
        let kind = match word {
            "param" => LeafKind::Param(self.init()?),
            "state" => LeafKind::State { init: self.state_init()? },
            "table" => LeafKind::Table(self.table()?),
            _ => LeafKind::Input,
        };
        self.leaves.insert(name.clone(), LeafId(self.g.leaves.len() as u32));
        self.g.leaves.push(Leaf { name, kind, dtype, dims });
        Ok(())
    }

    fn init(&mut self) -> Result<Init> {
        const KINDS: [&str; 5] = ["zeros", "constant", "normal", "log_range", "dt_bias"];
        self.keyword("init")?;
        let Kind::Word(word) = self.peek().clone() else { return self.fail("how the parameter starts") };
        if !KINDS.contains(&word.as_str()) {
            return self.unknown("how the parameter starts", &word, KINDS.into_iter());
        }
        self.next();
        Ok(match word.as_str() {
            "zeros" => Init::Zeros,
            "constant" => Init::Constant(self.float32()?),
            "normal" => Init::Normal(self.float32()?),
            "log_range" => Init::LogRange,
            _ => Init::DtBias { lo: self.float32()?, hi: self.float32()? },
        })
    }

    fn state_init(&mut self) -> Result<Option<String>> {
        match self.peek() {
            Kind::Newline | Kind::End => Ok(None),
            _ => {
                self.keyword("init")?;
                Ok(Some(self.at_name("the parameter that the state starts as")?))
            }
        }
    }

    fn table(&mut self) -> Result<Table> {
        const KINDS: [&str; 2] = ["rope_cos", "rope_sin"];
        let Kind::Word(word) = self.peek().clone() else { return self.fail("the table's formula") };
        if !KINDS.contains(&word.as_str()) {
            return self.unknown("the table's formula", &word, KINDS.into_iter());
        }
        self.next();
        let theta = self.float64()?;
        Ok(if word == "rope_cos" { Table::RopeCos { theta } } else { Table::RopeSin { theta } })
    }

    fn output_line(&mut self) -> Result<()> {
        let name = self.at_name("the output's name, as in `@name`")?;
        let at = self.at;
        let dims = self.dims()?;
        self.mark('=')?;
        let value = self.known_value()?;
        let (seen, has) = (AxisSet::of(&dims.concat()), self.g.axes_of(value));
        if seen != has || seen.len() != dims.concat().len() {
            let expected = format!("each of the axes [{}] once", self.g.show_axes(has));
            return Err(self.error(at, "other dimensions than the value has", expected));
        }
        self.g.outputs.push(Output { name, value, dims });
        Ok(())
    }

    fn write_line(&mut self) -> Result<()> {
        let leaf = self.known_leaf()?;
        self.mark('=')?;
        let at = self.at;
        let value = self.known_value()?;
        let (has, target) = (self.g.ty(value), self.g.leaf(leaf));
        let needs = Type::new(target.dtype, target.axes());
        if has != needs {
            return Err(self.error(at, self.show_type(has), format!("{}, as the leaf has", self.show_type(needs))));
        }
        self.g.writes.push(Write { leaf, value });
        Ok(())
    }

    fn show_type(&self, t: Type) -> String {
        format!("{}[{}]", t.dtype, self.g.show_axes(t.axes))
    }
}
