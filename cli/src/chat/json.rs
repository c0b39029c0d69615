//! Values as JSON, written as Python's `json.dumps` writes them.
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

/// A deeper value would be one that holds itself.
const DEEPEST: usize = 64;

struct Style {
    indent: Option<usize>,
    ascii: bool,
    sorted: bool,
    /// Between the items of a list, and behind a key.
    separators: (String, String),
}

/// The filter `tojson`, with `indent`, `ensure_ascii`, `sort_keys` and `separators`.
pub fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let comma = if indent.is_some() { "," } else { ", " };
    let separators = match separators.as_deref() {
        None => (comma.to_string(), ": ".to_string()),
        Some([a, b]) => (a.clone(), b.clone()),
        Some(_) => return Err(invalid("tojson: separators are two texts")),
    };
    let ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sorted = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let mut out = String::new();
    write(value, &Style { indent, ascii, sorted, separators }, 0, &mut out)?;
    Ok(out)
}

fn invalid(text: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, text)
}

fn write(value: &Value, style: &Style, depth: usize, out: &mut String) -> Result<(), Error> {
    if depth > DEEPEST {
        return Err(invalid("tojson: the value is too deep"));
    }
    match value.kind() {
        ValueKind::None | ValueKind::Undefined => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&value.to_string()),
        ValueKind::String => quote(value.as_str().unwrap_or_default(), style.ascii, out),
        ValueKind::Map => {
            let mut entries: Vec<(String, Value)> = vec![];
            for key in value.try_iter()? {
                entries.push((key.to_string(), value.get_item(&key)?));
            }
            if style.sorted {
                entries.sort_by(|a, b| a.0.cmp(&b.0));
            }
            list(('{', '}'), &entries, style, depth, out, &mut |(key, value), out| {
                quote(key, style.ascii, out);
                out.push_str(&style.separators.1);
                write(value, style, depth + 1, out)
            })?;
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            list(('[', ']'), &items, style, depth, out, &mut |item, out| write(item, style, depth + 1, out))?;
        }
        _ => return Err(invalid("tojson: the value is no JSON")),
    }
    Ok(())
}

/// Items between brackets, on lines of their own if there is an indent.
fn list<T>(
    brackets: (char, char),
    items: &[T],
    style: &Style,
    depth: usize,
    out: &mut String,
    each: &mut dyn FnMut(&T, &mut String) -> Result<(), Error>,
) -> Result<(), Error> {
    let line = |depth: usize, out: &mut String| {
        if let Some(n) = style.indent.filter(|_| !items.is_empty()) {
            out.push('\n');
            out.push_str(&" ".repeat(n.min(16) * depth));
        }
    };
    out.push(brackets.0);
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push_str(&style.separators.0);
        }
        line(depth + 1, out);
        each(item, out)?;
    }
    line(depth, out);
    out.push(brackets.1);
    Ok(())
}

fn quote(text: &str, ascii: bool, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || ascii && !c.is_ascii() => {
                let mut units = [0; 2];
                c.encode_utf16(&mut units).iter().for_each(|u| out.push_str(&format!("\\u{u:04x}")));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
