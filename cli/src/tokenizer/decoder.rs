//! What each token of a `tokenizer.json` stands for in bytes, so that tokens can be joined one by one.
//!
//! The library decodes whole lists of tokens to text and puts U+FFFD where a character is cut. Here the same decoders are
//! applied to each token alone, once, and only what concerns the beginning of a text is kept for later ([`Head`]).
use super::check::{kind, parts};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeMap;

const DECODERS: &[&str] = &["ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Strip"];

/// What is dropped where a text begins.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Head {
    /// Up to this many of this character.
    pub strip: Option<(char, usize)>,
    /// All of this character within the first token.
    pub within_first: Option<char>,
}

/// A decoder, as what it does to one token.
#[derive(Default)]
pub struct Decoder {
    steps: Vec<Step>,
    pub head: Head,
    /// Without a decoder tokens are words, with spaces between them.
    spaced: bool,
}

enum Step {
    /// Every character stands for a byte; a token with another character stands for itself.
    ByteLevel(BTreeMap<char, u8>),
    Replace {
        from: String,
        to: String,
    },
    /// `<0x0A>` is a byte.
    ByteFallback,
    Strip {
        content: char,
        start: usize,
        stop: usize,
    },
}

impl Decoder {
    pub fn read(decoder: &Value) -> Result<Decoder> {
        let mut out = Decoder { spaced: decoder.is_null(), ..Decoder::default() };
        let mut fused = false;
        for part in parts(decoder, "decoders", "decoder")? {
            let Some(kind) = kind(part, "decoder", DECODERS)? else { continue };
            ensure!(!fused || kind == "Strip", "a decoder `{kind}` behind `Fuse` is not supported");
            match kind {
                "ByteLevel" => out.steps.push(Step::ByteLevel(byte_level().into_iter().map(|(b, c)| (c, b)).collect())),
                "ByteFallback" => out.steps.push(Step::ByteFallback),
                "Fuse" => fused = true,
                "Metaspace" => out.metaspace(part)?,
                "Replace" => out.steps.push(replace(part)?),
                _ => out.strip(part, fused)?,
            }
        }
        Ok(out)
    }

    fn metaspace(&mut self, part: &Value) -> Result<()> {
        let mark = character(part, "replacement")?;
        let never = part.get("prepend_scheme").and_then(Value::as_str) == Some("never")
            || part.get("add_prefix_space").and_then(Value::as_bool) == Some(false);
        self.head.within_first = (!never).then_some(mark);
        self.steps.push(Step::Replace { from: mark.into(), to: " ".into() });
        Ok(())
    }

    fn strip(&mut self, part: &Value, fused: bool) -> Result<()> {
        let count = |key: &str| {
            let n = part.get(key).and_then(Value::as_u64);
            n.map(|n| n as usize).with_context(|| format!("decoder.{key} of `Strip` is not a number"))
        };
        let (content, start, stop) = (character(part, "content")?, count("start")?, count("stop")?);
        match (fused, stop, &self.head.strip) {
            (false, _, _) => self.steps.push(Step::Strip { content, start, stop }),
            (true, 0, None) => self.head.strip = Some((content, start)),
            _ => bail!("a decoder that strips the end of a text is not supported: a text that still grows has none"),
        }
        Ok(())
    }

    /// The bytes of a token where a text begins with it.
    pub fn first_bytes(&self, token: &str) -> Vec<u8> {
        match self.head.within_first {
            Some(mark) => self.converted(&token.replace(mark, "")),
            None => self.converted(token),
        }
    }

    /// The bytes of a token behind others.
    pub fn bytes(&self, token: &str) -> Vec<u8> {
        let space: &[u8] = if self.spaced { b" " } else { b"" };
        [space, &self.converted(token)].concat()
    }

    fn converted(&self, token: &str) -> Vec<u8> {
        let mut text = token.to_string();
        for step in &self.steps {
            match step {
                Step::ByteLevel(bytes) => {
                    let all: Option<Vec<u8>> = text.chars().map(|c| bytes.get(&c).copied()).collect();
                    return all.unwrap_or(text.into_bytes());
                }
                Step::ByteFallback => {
                    if let Some(byte) = byte_token(&text) {
                        return vec![byte];
                    }
                }
                Step::Replace { from, to } => text = text.replace(from, to),
                Step::Strip { content, start, stop } => text = stripped(&text, *content, *start, *stop).into(),
            }
        }
        text.into_bytes()
    }
}

impl Head {
    /// Drops from a text what its beginning loses.
    pub fn cut(&self, text: &mut Vec<u8>) {
        let Some((content, most)) = self.strip else { return };
        let mut buffer = [0; 4];
        let one = content.encode_utf8(&mut buffer).as_bytes();
        let there = (0..most.min(text.len())).take_while(|i| text[i * one.len()..].starts_with(one)).count();
        text.drain(..there * one.len());
    }
}

/// Up to `start` and `stop` times this character, from either end.
fn stripped(text: &str, content: char, start: usize, stop: usize) -> &str {
    let mut text = text;
    for _ in 0..start.min(text.len()) {
        text = text.strip_prefix(content).unwrap_or(text);
    }
    for _ in 0..stop.min(text.len()) {
        text = text.strip_suffix(content).unwrap_or(text);
    }
    text
}

fn replace(part: &Value) -> Result<Step> {
    let from = part.get("pattern").and_then(|p| p.get("String")).and_then(Value::as_str);
    let from = from.filter(|f| !f.is_empty()).context("a decoder `Replace` needs a text to replace")?;
    let to = part.get("content").and_then(Value::as_str).context("a decoder `Replace` needs a text `content`")?;
    Ok(Step::Replace { from: from.into(), to: to.into() })
}

fn character(part: &Value, key: &str) -> Result<char> {
    let text = part.get(key).and_then(Value::as_str).unwrap_or("");
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) => Ok(c),
        _ => bail!("decoder.{key} is not one character"),
    }
}

/// The byte of a token such as `<0x0A>`.
pub fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let hex = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    hex.then(|| u8::from_str_radix(digits, 16).ok())?
}

/// The characters that stand for bytes in byte-level vocabularies: a printable byte for itself, the others in order from
/// U+0100 on.
pub fn byte_level() -> Vec<(u8, char)> {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 0x100u32;
    let mut of = |b: u8| match printable(b) {
        true => char::from(b),
        false => {
            next += 1;
            char::from_u32(next - 1).unwrap_or(char::REPLACEMENT_CHARACTER)
        }
    };
    (0..=255).map(|b| (b, of(b))).collect()
}
