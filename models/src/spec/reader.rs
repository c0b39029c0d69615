//! A section of a spec, read key by key. Unknown keys are refused first, so that a misspelt key is never called missing.
use super::error::{Place, SpecError, SpecFault, near_name};
use super::source::{Entry, Node, Value};
use std::ops::RangeInclusive;

pub type Result<T> = std::result::Result<T, SpecError>;

/// The largest length of any dimension.
pub const MAX_LEN: usize = 1 << 24;

/// A table with the keys that it may hold.
pub struct Section {
    /// `ssm.` for the section ssm, empty at the top.
    prefix: String,
    place: Place,
    entries: Vec<Entry>,
}

impl Section {
    /// Opens a table; every key must be among `keys`.
    pub fn open(name: &str, node: Node, keys: &[&str]) -> Result<Section> {
        let prefix = if name.is_empty() { String::new() } else { format!("{name}.") };
        let Value::Table(entries) = node.value else {
            return Err(wrong(node.place, name, &node.value, "a table"));
        };
        let s = Section { prefix, place: node.place, entries };
        match s.entries.iter().find(|e| !keys.contains(&e.key.as_str())) {
            None => Ok(s),
            Some(e) => {
                let near = near_name(&e.key, keys.iter().copied());
                let known = keys.iter().map(|k| k.to_string()).collect();
                Err(SpecError {
                    place: e.place.clone(),
                    key: s.full(&e.key),
                    fault: SpecFault::Unknown { near, known },
                })
            }
        }
    }

    /// Opens a table that may hold any keys.
    pub fn whole(node: Node) -> Result<Section> {
        match node.value {
            Value::Table(entries) => Ok(Section { prefix: String::new(), place: node.place, entries }),
            other => Err(wrong(node.place, "", &other, "a table")),
        }
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|e| e.key == key)
    }
    pub fn find(&self, key: &str) -> Option<&Node> {
        self.entries.iter().find(|e| e.key == key).map(|e| &e.node)
    }
    /// A section inside this one, if it is there.
    pub fn section(&self, key: &str, keys: &[&str]) -> Result<Option<Section>> {
        self.find(key).map(|n| Section::open(&self.full(key), n.clone(), keys)).transpose()
    }

    fn missing(&self, key: &str, expected: &str) -> SpecError {
        let fault = SpecFault::Missing { expected: expected.into() };
        SpecError { place: self.place.clone(), key: self.full(key), fault }
    }
    fn need(&self, key: &str, expected: &str) -> Result<&Node> {
        self.find(key).ok_or_else(|| self.missing(key, expected))
    }

    /// The error that the value of this key is not what it must be; `expected` says what that is.
    pub fn refuse<T>(&self, key: &str, expected: impl Into<String>) -> Result<T> {
        let expected = expected.into();
        Err(match self.find(key) {
            Some(n) => wrong(n.place.clone(), &self.full(key), &n.value, &expected),
            None => self.missing(key, &expected),
        })
    }

    /// A length: an integer from 1 to [`MAX_LEN`].
    pub fn length(&self, key: &str) -> Result<usize> {
        self.count(key, 1..=MAX_LEN)
    }
    pub fn count(&self, key: &str, range: RangeInclusive<usize>) -> Result<usize> {
        let expected = format!("an integer from {} to {}", range.start(), range.end());
        match self.need(key, &expected)?.value {
            Value::Int(i) if usize::try_from(i).is_ok_and(|i| range.contains(&i)) => Ok(i as usize),
            _ => self.refuse(key, expected),
        }
    }
    /// A finite number in the range.
    pub fn number(&self, key: &str, range: RangeInclusive<f64>) -> Result<f64> {
        let expected = match (range.start().is_finite(), range.end().is_finite()) {
            (true, true) => format!("a number from {} to {}", range.start(), range.end()),
            (true, false) => format!("a number, {} or more", range.start()),
            _ => "a number".into(),
        };
        let x = match self.need(key, &expected)?.value {
            Value::Int(i) => i as f64,
            Value::Float(x) => x,
            _ => return self.refuse(key, expected),
        };
        if x.is_finite() && range.contains(&x) { Ok(x) } else { self.refuse(key, expected) }
    }
    pub fn number_or(&self, key: &str, range: RangeInclusive<f64>, default: f64) -> Result<f64> {
        if self.has(key) { self.number(key, range) } else { Ok(default) }
    }
    pub fn count_or(&self, key: &str, range: RangeInclusive<usize>, default: usize) -> Result<usize> {
        if self.has(key) { self.count(key, range) } else { Ok(default) }
    }
    pub fn flag(&self, key: &str) -> Result<bool> {
        match self.need(key, "true or false")?.value {
            Value::Flag(b) => Ok(b),
            _ => self.refuse(key, "true or false"),
        }
    }
    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        if self.has(key) { self.flag(key) } else { Ok(default) }
    }
    /// One of a few words, each with what it stands for.
    pub fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<T> {
        let words: Vec<String> = choices.iter().map(|(w, _)| format!("\"{w}\"")).collect();
        let mut expected = words.join(" or ");
        let Value::Text(word) = &self.need(key, &expected)?.value else { return self.refuse(key, expected) };
        if let Some((_, t)) = choices.iter().find(|(w, _)| w == word) {
            return Ok(*t);
        }
        if let Some(near) = near_name(word, choices.iter().map(|c| c.0)) {
            expected += &format!("; did you mean \"{near}\"?");
        }
        self.refuse(key, expected)
    }
    /// Two numbers in the range.
    pub fn pair(&self, key: &str, range: RangeInclusive<f64>) -> Result<[f64; 2]> {
        let expected = format!("two numbers from {} to {}", range.start(), range.end());
        let Value::List(items) = &self.need(key, &expected)?.value else { return self.refuse(key, expected) };
        let read = |n: &Node| match n.value {
            Value::Int(i) if range.contains(&(i as f64)) => Some(i as f64),
            Value::Float(x) if range.contains(&x) => Some(x),
            _ => None,
        };
        match items.iter().map(read).collect::<Option<Vec<f64>>>().as_deref() {
            Some([a, b]) => Ok([*a, *b]),
            _ => self.refuse(key, expected),
        }
    }
}

fn wrong(place: Place, key: &str, found: &Value, expected: &str) -> SpecError {
    let fault = SpecFault::Wrong { found: found.describe(), expected: expected.into() };
    SpecError { place, key: key.into(), fault }
}
