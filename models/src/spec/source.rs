//! One tree for the two sources of a spec, TOML (with places) and JSON (without), so that one schema reads both.
use super::error::{Place, SpecError, SpecFault};
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// A value with the place at which it stands.
#[derive(Clone, Debug)]
pub struct Node {
    pub place: Place,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub enum Value {
    Int(i64),
    Float(f64),
    Flag(bool),
    Text(String),
    List(Vec<Node>),
    Table(Vec<Entry>),
    /// Something that no spec holds, by its name: `null`, `a date`, `an integer beyond 64 bits`.
    Other(&'static str),
}

/// A key of a table, with the place of the key.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub place: Place,
    pub node: Node,
}

impl Value {
    /// What was found, as an error says it.
    pub fn describe(&self) -> String {
        match self {
            Value::Int(i) => format!("{i}"),
            Value::Float(x) => format!("{x:?}"),
            Value::Flag(b) => format!("{b}"),
            Value::Text(s) => format!("\"{s}\""),
            Value::List(l) => format!("a list of {}", l.len()),
            Value::Table(_) => "a table".into(),
            Value::Other(what) => (*what).into(),
        }
    }
}

/// Byte offsets to lines and columns of one file.
struct Lines<'a> {
    file: &'a str,
    text: &'a str,
}

impl Lines<'_> {
    fn place(&self, span: Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let start = before.rfind('\n').map_or(0, |i| i + 1);
        Place {
            file: self.file.into(),
            line: Some(before.matches('\n').count() as u32 + 1),
            column: Some(before[start..].chars().count() as u32 + 1),
        }
    }

    fn table(&self, table: &DeTable<'_>) -> Value {
        let entry = |(key, value): (&toml::Spanned<toml::de::DeString<'_>>, &toml::Spanned<DeValue<'_>>)| Entry {
            key: key.get_ref().to_string(),
            place: self.place(key.span()),
            node: self.node(value),
        };
        Value::Table(table.iter().map(entry).collect())
    }

    fn node(&self, v: &toml::Spanned<DeValue<'_>>) -> Node {
        let value = match v.get_ref() {
            DeValue::String(s) => Value::Text(s.to_string()),
            DeValue::Integer(i) => match i64::from_str_radix(i.as_str(), i.radix()) {
                Ok(i) => Value::Int(i),
                Err(_) => Value::Other("an integer beyond 64 bits"),
            },
            DeValue::Float(x) => match x.as_str().parse() {
                Ok(x) => Value::Float(x),
                Err(_) => Value::Other("a malformed number"),
            },
            DeValue::Boolean(b) => Value::Flag(*b),
            DeValue::Datetime(_) => Value::Other("a date"),
            DeValue::Array(a) => Value::List(a.iter().map(|x| self.node(x)).collect()),
            DeValue::Table(t) => self.table(t),
        };
        Node { place: self.place(v.span()), value }
    }
}

/// The tree of a TOML text; `file` is the name that errors show.
pub fn from_toml(file: &str, text: &str) -> Result<Node, SpecError> {
    let lines = Lines { file, text };
    match DeTable::parse(text) {
        Ok(t) => Ok(Node { place: lines.place(0..0), value: lines.table(t.get_ref()) }),
        Err(e) => Err(SpecError {
            place: lines.place(e.span().unwrap_or(0..0)),
            key: String::new(),
            fault: SpecFault::Syntax(e.message().trim().replace('\n', ", ")),
        }),
    }
}

/// The tree of a JSON value.
pub fn from_json(file: &str, v: &serde_json::Value) -> Node {
    use serde_json::Value as J;
    let place = Place { file: file.into(), line: None, column: None };
    let value = match v {
        J::Null => Value::Other("null"),
        J::Bool(b) => Value::Flag(*b),
        J::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(i), _) => Value::Int(i),
            (None, Some(x)) => Value::Float(x),
            (None, None) => Value::Other("a number beyond 64 bits"),
        },
        J::String(s) => Value::Text(s.clone()),
        J::Array(a) => Value::List(a.iter().map(|x| from_json(file, x)).collect()),
        J::Object(o) => {
            let entry =
                |(k, x): (&String, &J)| Entry { key: k.clone(), place: place.clone(), node: from_json(file, x) };
            Value::Table(o.iter().map(entry).collect())
        }
    };
    Node { place, value }
}
