//! Text to a graph, by recursive descent, one statement a line.
use super::cursor::{Cursor, Result, bracketed};
use super::lex::Kind;
use crate::axis::{AxisId, AxisSet};
use crate::graph::{Dim, Graph, Leaf, LeafId, LeafKind, Output, ScopeId, Type, ValueId, Write};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

mod operation;
#[cfg(test)]
pub(crate) use operation::mnemonics;

/// The graph that a text says.
pub fn parse(text: &str) -> Result<Graph> {
    let mut p = Parser {
        cursor: Cursor::new(text)?,
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
    cursor: Cursor,
    g: Graph,
    axes: BTreeMap<String, AxisId>,
    leaves: BTreeMap<String, LeafId>,
    values: BTreeMap<String, ValueId>,
    scope: ScopeId,
}

const STATEMENTS: [&str; 8] = ["axis", "param", "input", "state", "table", "scope", "output", "write"];

impl Deref for Parser {
    type Target = Cursor;
    fn deref(&self) -> &Cursor {
        &self.cursor
    }
}
impl DerefMut for Parser {
    fn deref_mut(&mut self) -> &mut Cursor {
        &mut self.cursor
    }
}

// ---- names
impl Parser {
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
            Arc::make_mut(&mut self.g.scopes).push(name);
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
        bracketed(self, |p| {
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
            "state" => {
                let rows = self.state_rows()?;
                LeafKind::State { init: self.state_init()?, rows }
            }
            "table" => LeafKind::Table(self.table()?),
            _ => LeafKind::Input,
        };
        self.leaves.insert(name.clone(), LeafId(self.g.leaves.len() as u32));
        Arc::make_mut(&mut self.g.leaves).push(Leaf { name, kind, dtype, dims });
        Ok(())
    }

    fn output_line(&mut self) -> Result<()> {
        let name = self.at_name("the output's name, as in `@name`")?;
        let at = self.at;
        let dims = self.dims()?;
        self.mark('=')?;
        let value = self.operand()?;
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
        let value = self.operand()?;
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
