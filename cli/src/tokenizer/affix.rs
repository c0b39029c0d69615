//! The tokens that are put around a text: those of a `post_processor`.
use super::check::{kind, parts};
use anyhow::{Context, Result, bail};
use serde_json::Value;

const POST_PROCESSORS: &[&str] = &["BertProcessing", "ByteLevel", "RobertaProcessing", "TemplateProcessing"];

/// Tokens before and behind a text.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Affix {
    pub before: Vec<u32>,
    pub after: Vec<u32>,
}

impl Affix {
    /// Reads a post-processor; none if no part of it says what stands around a text.
    pub fn read(processor: &Value) -> Result<Option<Affix>> {
        let mut found: Option<Affix> = None;
        for part in parts(processor, "processors", "post_processor")? {
            let affix = match kind(part, "post_processor", POST_PROCESSORS)? {
                // It only concerns places in the text.
                None | Some("ByteLevel") => continue,
                Some("TemplateProcessing") => template(part)?,
                Some(_) => Affix { before: vec![named(part, "cls")?], after: vec![named(part, "sep")?] },
            };
            // A later one works on what an earlier one gives.
            let inner = found.unwrap_or_default();
            found = Some(Affix {
                before: [affix.before, inner.before].concat(),
                after: [inner.after, affix.after].concat(),
            });
        }
        Ok(found)
    }

    pub fn around(&self, tokens: Vec<u32>) -> Vec<u32> {
        [&self.before[..], &tokens, &self.after].concat()
    }
}

/// The id in a pair such as `["</s>", 2]`.
fn named(part: &Value, key: &str) -> Result<u32> {
    let id = part.get(key).and_then(|pair| pair.get(1)).and_then(Value::as_u64);
    id.and_then(|id| u32::try_from(id).ok()).with_context(|| format!("post_processor.{key} is not a token and its id"))
}

/// The tokens around `$A` in the template of a single text.
fn template(part: &Value) -> Result<Affix> {
    let single = part.get("single").and_then(Value::as_array).context("post_processor.single is not a list")?;
    let (mut affix, mut text) = (Affix::default(), 0);
    for piece in single {
        if piece.get("Sequence").is_some() {
            text += 1;
            continue;
        }
        let name = piece.get("SpecialToken").and_then(|t| t.get("id")).and_then(Value::as_str);
        let name = name.context("a piece of post_processor.single is neither a Sequence nor a SpecialToken")?;
        let ids = part.get("special_tokens").and_then(|t| t.get(name)).and_then(|t| t.get("ids"));
        let ids: Option<Vec<u32>> = ids
            .and_then(Value::as_array)
            .and_then(|ids| ids.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect());
        let ids = ids.with_context(|| format!("post_processor.special_tokens has no ids for `{name}`"))?;
        if text == 0 { affix.before.extend(ids) } else { affix.after.extend(ids) }
    }
    match text {
        1 => Ok(affix),
        _ => bail!("post_processor.single has the text {text} times, expected once"),
    }
}
