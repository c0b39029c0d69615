//! Keys of a spec that are set from outside of its file, such as `training.steps=1000` on a command line.
use super::error::{Place, SpecError, SpecFault};
use super::source::{self, Entry, Node, Value};

/// A key with its sections (`training.steps`) and its value as it was typed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Override {
    pub key: String,
    pub value: String,
}

impl Override {
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Override { key: key.into(), value: value.into() }
    }

    /// Where errors say that the value comes from.
    fn place(&self) -> Place {
        Place { file: format!("{}={}", self.key, self.value), line: None, column: None }
    }

    /// The value as TOML reads it; a bare word is a text, as a shell takes the quotes away.
    fn node(&self) -> Node {
        let parsed = source::from_toml("", &format!("v = {}", self.value));
        let value = match parsed.map(|n| n.value) {
            Ok(Value::Table(mut entries)) if entries.len() == 1 => entries.remove(0).node.value,
            Ok(_) | Err(_) => Value::Text(self.value.clone()),
        };
        Node { place: self.place(), value }
    }

    /// Sets the key in a spec, with the sections that it names.
    pub(super) fn apply(&self, root: &mut Node) -> Result<(), SpecError> {
        let mut at = root;
        let mut sections: Vec<&str> = self.key.split('.').collect();
        let last = sections.pop().unwrap_or_default();
        for name in sections {
            let new = || Node { place: self.place(), value: Value::Table(vec![]) };
            at = self.entry(at, name, new)?;
        }
        self.entry(at, last, || self.node()).map(|node| *node = self.node())
    }

    /// The value of a key of a table, which is made if it is not there.
    fn entry<'a>(&self, table: &'a mut Node, key: &str, new: impl FnOnce() -> Node) -> Result<&'a mut Node, SpecError> {
        let found = table.value.describe();
        let Value::Table(entries) = &mut table.value else {
            let fault = SpecFault::Wrong { found, expected: "a section".into() };
            return Err(SpecError { place: self.place(), key: self.key.clone(), fault });
        };
        let at = match entries.iter().position(|e| e.key == key) {
            Some(at) => at,
            None => {
                entries.push(Entry { key: key.into(), place: self.place(), node: new() });
                entries.len() - 1
            }
        };
        Ok(&mut entries[at].node)
    }
}
