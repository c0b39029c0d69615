//! Chat: messages become a prompt by the template that comes with a model.
//!
//! A template is a program of whoever made the model, in the language Jinja, so it is run with limits: a number of steps
//! for all of it, a depth of recursion and a length of what it writes. It sees what it sees with Hugging Face's library:
//! `messages`, `add_generation_prompt`, `bos_token`, `eos_token`, `raise_exception`, `strftime_now`, and a `tojson` that
//! writes as Python does; blocks take their line breaks and the space before them along.
pub(crate) mod clock;
mod json;

use crate::tokenizer::{Special, object, read_file};
use anyhow::{Context, Result, anyhow, bail, ensure};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Steps that a template may take; real ones take some hundred a message.
const FUEL: u64 = 5_000_000;
/// A longer template is none.
const LONGEST_TEMPLATE: usize = 1 << 20;
/// No model has a context for more.
const LONGEST_PROMPT: usize = 1 << 25;

/// What someone says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    pub content: String,
}

impl Message {
    pub fn new(role: &str, content: &str) -> Message {
        Message { role: role.into(), content: content.into() }
    }
}

/// A template and the tokens that it may name.
#[derive(Debug)]
pub struct ChatTemplate {
    source: String,
    /// The file that it is in, for errors.
    file: PathBuf,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// The template of a model's folder: `chat_template.jinja`, or what `tokenizer_config.json` holds.
    pub fn of(folder: &Path, special: &Special) -> Result<ChatTemplate> {
        let alone = folder.join("chat_template.jinja");
        let config = folder.join("tokenizer_config.json");
        let (source, file) = if crate::bundle::is_file(&alone) {
            let text = String::from_utf8(read_file(&alone)?);
            (text.with_context(|| format!("{} is not UTF-8", alone.display()))?, alone)
        } else {
            let found = object(&config)?.remove("chat_template").filter(|v| !v.is_null());
            let found = found.with_context(|| {
                format!(
                    "{} has no chat template: there is neither a chat_template.jinja nor a `chat_template` in \
                     tokenizer_config.json; generate without --chat",
                    folder.display()
                )
            })?;
            (chosen(&found).with_context(|| format!("chat_template of {}", config.display()))?, config)
        };
        ensure!(source.len() <= LONGEST_TEMPLATE, "the chat template has {} bytes", source.len());
        Ok(ChatTemplate { file, ..ChatTemplate::parse(&source, special) })
    }

    /// A template by itself.
    pub fn parse(source: &str, special: &Special) -> ChatTemplate {
        let text = |token: &Option<crate::tokenizer::Named>| token.as_ref().map_or(String::new(), |t| t.text.clone());
        let file = PathBuf::from("chat_template");
        ChatTemplate { source: source.into(), file, bos: text(&special.bos), eos: text(&special.eos) }
    }

    /// The template as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The prompt that messages make, up to where the model goes on.
    pub fn prompt(&self, messages: &[Message], now: SystemTime) -> Result<String> {
        let environment = environment(now)?;
        let messages = messages.iter().map(|m| {
            Value::from_pairs([("role", Value::from(m.role.as_str())), ("content", Value::from(m.content.as_str()))])
        });
        let context = Value::from_pairs([
            ("messages", messages.collect::<Value>()),
            ("add_generation_prompt", Value::from(true)),
            ("bos_token", Value::from(self.bos.as_str())),
            ("eos_token", Value::from(self.eos.as_str())),
        ]);
        let source = without_marks(&self.source);
        let mut out = Limited(vec![]);
        let template = environment.template_from_named_str("chat_template", &source);
        let done = template.and_then(|t| t.render_captured_to(context, &mut out).map(drop));
        done.map_err(|e| self.explain(&e))?;
        String::from_utf8(out.0).context("bug: a template wrote half a character")
    }

    /// An error with the line of the template that it comes from.
    fn explain(&self, e: &Error) -> anyhow::Error {
        let what = match (e.kind(), e.detail()) {
            (ErrorKind::OutOfFuel, _) => format!("it takes more than {FUEL} steps"),
            (ErrorKind::WriteFailure, _) => format!("it writes more than {LONGEST_PROMPT} bytes"),
            (ErrorKind::InvalidOperation, Some(detail)) => detail.to_string(),
            (kind, Some(detail)) => format!("{kind}: {detail}"),
            (kind, None) => kind.to_string(),
        };
        let line = e.line().and_then(|n| Some((n, self.source.lines().nth(n - 1)?.trim())));
        let short = |text: &str| text.chars().take(120).collect::<String>();
        match line {
            Some((n, text)) => {
                anyhow!("the chat template of {}, line {n}, `{}`: {what}", self.file.display(), short(text))
            }
            None => anyhow!("the chat template of {}: {what}", self.file.display()),
        }
    }
}

/// The template itself, or the one called `default` of several.
fn chosen(found: &serde_json::Value) -> Result<String> {
    if let Some(text) = found.as_str() {
        return Ok(text.into());
    }
    let list = found.as_array().context("expected a text, or a list of templates with names")?;
    let field = |v: &serde_json::Value, key: &str| v.get(key).and_then(|f| f.as_str()).map(String::from);
    let named: Vec<(String, String)> =
        list.iter().filter_map(|v| Some((field(v, "name")?, field(v, "template")?))).collect();
    ensure!(named.len() == list.len(), "expected a `name` and a `template` for each");
    match named.iter().find(|(name, _)| name == "default") {
        Some((_, text)) => Ok(text.clone()),
        None => bail!("there is none called `default`"),
    }
}

/// Jinja as chat templates expect it.
fn environment(now: SystemTime) -> Result<Environment<'static>> {
    let mut e = Environment::new();
    e.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    e.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    e.set_fuel(Some(FUEL));
    e.set_recursion_limit(100);
    e.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    e.add_function("raise_exception", |text: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, text))
    });
    e.add_function("strftime_now", move |format: String| {
        clock::format(&format, now).map_err(|text| Error::new(ErrorKind::InvalidOperation, text))
    });
    e.add_filter("tojson", json::tojson);
    Ok(e)
}

/// The template without the marks around what the assistant says, which only concern training; line numbers stay.
fn without_marks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out += before;
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let (tag, after) = tag.split_at(end);
        let name: String = tag.chars().filter(|c| c.is_ascii_alphabetic()).collect();
        match name.as_str() {
            "generation" => out += &tag.replace("generation", "if true"),
            "endgeneration" => out += &tag.replace("endgeneration", "endif"),
            _ => out += tag,
        }
        rest = after;
    }
    out + rest
}

/// What a template writes, up to a length.
struct Limited(Vec<u8>);

impl std::io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > LONGEST_PROMPT {
            return Err(std::io::Error::other("too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
