//! The fields of a JSON object, taken out one by one; what is left at the end is unknown, and an error.
//!
//! As OpenAI's clients send `null` for what is not set, null is the same as nothing.
use super::errors::Fault;
use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// Characters of a wrong value that an error repeats.
const QUOTED: usize = 60;

/// An object on its way to become a request.
pub struct Fields {
    /// What stands before a name in errors: `` or `stream_options.`.
    path: String,
    left: Map<String, Value>,
}

impl Fields {
    /// The body of a request.
    pub fn parse(body: &[u8]) -> Result<Fields, Fault> {
        let value = serde_json::from_slice(body).map_err(|e| Fault::invalid(format!("the body is not JSON: {e}")))?;
        match value {
            Value::Object(left) => Ok(Fields { path: String::new(), left }),
            other => Err(Fault::invalid(format!("the body is {}, expected an object", quote(&other)))),
        }
    }

    /// An object within another one, of this name.
    pub fn within(name: &str, value: Value) -> Result<Fields, Fault> {
        match value {
            Value::Object(left) => Ok(Fields { path: format!("{name}."), left }),
            other => Err(wrong(name, &other, "an object")),
        }
    }

    /// The whole name of a field.
    pub fn name(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }

    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.left.remove(name).filter(|v| !v.is_null())
    }

    /// Takes a field that `read` makes something of.
    fn read<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        let Some(value) = self.take(name) else { return Ok(None) };
        read(&value).map(Some).ok_or_else(|| wrong(&self.name(name), &value, expected))
    }

    pub fn text(&mut self, name: &str) -> Result<Option<String>, Fault> {
        self.read(name, "a text", |v| v.as_str().map(String::from))
    }

    pub fn flag(&mut self, name: &str) -> Result<Option<bool>, Fault> {
        self.read(name, "true or false", Value::as_bool)
    }

    pub fn number(&mut self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, Fault> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        self.read(name, &expected, |v| v.as_f64().filter(|x| range.contains(x)))
    }

    pub fn integer(&mut self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, Fault> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.read(name, &expected, |v| whole(v).filter(|x| range.contains(x)))
    }

    /// A count or a size.
    pub fn count(&mut self, name: &str, range: RangeInclusive<usize>) -> Result<Option<usize>, Fault> {
        Ok(self.integer(name, *range.start() as i64..=*range.end() as i64)?.map(|n| n as usize))
    }

    /// One text or a list of them.
    pub fn texts(&mut self, name: &str) -> Result<Vec<String>, Fault> {
        let texts = |v: &Value| match v {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(list) => list.iter().map(|t| t.as_str().map(String::from)).collect(),
            _ => None,
        };
        Ok(self.read(name, "a text or a list of texts", texts)?.unwrap_or_default())
    }

    /// A list of tokens.
    pub fn tokens(&mut self, name: &str) -> Result<Option<Vec<u32>>, Fault> {
        self.read(name, "a list of token numbers", |v| v.as_array().and_then(|list| tokens(list)))
    }

    pub fn object(&mut self, name: &str) -> Result<Option<Fields>, Fault> {
        let whole = self.name(name);
        self.take(name).map(|v| Fields::within(&whole, v)).transpose()
    }

    /// A field of which only what changes nothing is taken.
    pub fn only(&mut self, name: &str, harmless: &[Value]) -> Result<(), Fault> {
        match self.take(name) {
            Some(v) if !harmless.contains(&v) => {
                let name = self.name(name);
                Err(Fault::field(&name, format!("`{name}` is not supported, other than {}", list(harmless))))
            }
            _ => Ok(()),
        }
    }

    /// A field that means nothing to this server, whatever it says.
    pub fn ignore(&mut self, name: &str) {
        self.left.remove(name);
    }

    /// Complains about the first field that nobody took.
    pub fn end(self) -> Result<(), Fault> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(unknown) => {
                let name: String = self.name(unknown).chars().take(QUOTED).collect();
                let fault = Fault::field(&name, format!("`{name}` is not a field that this request has"));
                Err(Fault { code: Some("unknown_field"), ..fault })
            }
        }
    }
}

/// Integers, also those that are written as `3.0`.
fn whole(v: &Value) -> Option<i64> {
    let integral = |x: f64| (x.fract() == 0.0 && x.abs() < 9e15).then_some(x as i64);
    v.as_i64().or_else(|| v.as_f64().and_then(integral))
}

/// A list of token numbers, if that is what it is.
pub fn tokens(list: &[Value]) -> Option<Vec<u32>> {
    list.iter().map(|v| v.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
}

/// A field of the wrong type or beyond its range.
pub fn wrong(name: &str, value: &Value, expected: &str) -> Fault {
    Fault::field(name, format!("`{name}` is {}, expected {expected}", quote(value)))
}

fn quote(value: &Value) -> String {
    let all = value.to_string();
    let mut short: String = all.chars().take(QUOTED).collect();
    if short.len() < all.len() {
        short.push('…');
    }
    short
}

fn list(values: &[Value]) -> String {
    let all: Vec<String> = values.iter().map(Value::to_string).chain(["null".into()]).collect();
    all.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(v: Value) -> Fields {
        Fields::parse(v.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn fields_are_taken_and_the_rest_is_named() {
        let mut f =
            fields(json!({"a": "x", "b": null, "c": 3.0, "d": [1, 2], "e": {"f": 1}, "g": ["p", "q"], "zz": 1}));
        assert_eq!(f.text("a").unwrap().as_deref(), Some("x"));
        assert_eq!(f.flag("b").unwrap(), None);
        assert_eq!(f.integer("c", 0..=5).unwrap(), Some(3));
        assert_eq!(f.tokens("d").unwrap(), Some(vec![1, 2]));
        assert_eq!(f.texts("g").unwrap(), ["p", "q"]);
        let e = f.object("e").unwrap().unwrap().end().unwrap_err();
        assert_eq!(e.param.as_deref(), Some("e.f"));
        assert_eq!(f.end().unwrap_err().message, "`zz` is not a field that this request has");
    }

    #[test]
    fn wrong_values_are_quoted() {
        let mut f = fields(json!({"t": "hot", "n": 2.5, "k": -1, "l": ["x", 3], "o": "p".repeat(500), "m": [-1]}));
        let says = |e: Fault| e.message;
        assert_eq!(says(f.number("t", 0.0..=2.0).unwrap_err()), "`t` is \"hot\", expected a number from 0 to 2");
        assert_eq!(says(f.integer("n", 0..=9).unwrap_err()), "`n` is 2.5, expected a whole number from 0 to 9");
        assert_eq!(says(f.count("k", 1..=9).unwrap_err()), "`k` is -1, expected a whole number from 1 to 9");
        assert_eq!(says(f.texts("l").unwrap_err()), "`l` is [\"x\",3], expected a text or a list of texts");
        assert!(says(f.flag("o").unwrap_err()).len() < 120);
        assert!(says(f.tokens("m").unwrap_err()).contains("token numbers"));
        assert_eq!(says(Fields::parse(b"[]").err().unwrap()), "the body is [], expected an object");
        assert!(says(Fields::parse(b"{").err().unwrap()).starts_with("the body is not JSON: EOF"));
        let mut f = fields(json!({"tools": [1], "suffix": null}));
        assert_eq!(says(f.only("tools", &[json!([])]).unwrap_err()), "`tools` is not supported, other than [] or null");
        f.only("suffix", &[]).unwrap();
    }
}
