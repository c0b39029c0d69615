//! What a `tokenizer.json` must be before the library for it is handed the file: it takes much on trust.
//!
//! Ids are unique, every merge names tokens that are there, and the parts are of the kinds below, which the library
//! reads without a panic whatever is in them. What the library would leave to chance (dropout, an id of an added token
//! that it does not heed) is refused too.
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The kinds of each part that are read. `Precompiled` is missing among the normalizers: its table of characters is
/// binary and cannot be checked.
const NORMALIZERS: &[&str] = &[
    "BertNormalizer",
    "ByteLevel",
    "Lowercase",
    "NFC",
    "NFD",
    "NFKC",
    "NFKD",
    "Nmt",
    "Prepend",
    "Replace",
    "Sequence",
    "Strip",
    "StripAccents",
];
const PRE_TOKENIZERS: &[&str] = &[
    "BertPreTokenizer",
    "ByteLevel",
    "CharDelimiterSplit",
    "Digits",
    "Metaspace",
    "Punctuation",
    "Sequence",
    "Split",
    "UnicodeScripts",
    "Whitespace",
    "WhitespaceSplit",
];
const MODELS: &[&str] = &["BPE", "Unigram"];
/// Ids above this are no vocabulary; they would only cost memory.
const MOST_IDS: u64 = 1 << 24;
/// A longer piece of a Unigram model is no word.
const LONGEST_PIECE: usize = 1 << 12;

/// A kind that is known, if the part is there.
pub fn kind<'a>(part: &'a Value, what: &str, known: &[&str]) -> Result<Option<&'a str>> {
    if part.is_null() {
        return Ok(None);
    }
    let kind = part.get("type").and_then(Value::as_str);
    let kind = kind.with_context(|| format!("{what} has no text `type`"))?;
    ensure!(known.contains(&kind), "{what} of the type `{kind}` is not supported: these are {}", known.join(", "));
    Ok(Some(kind))
}

/// The parts of a `Sequence`, or the part itself, or none.
pub fn parts<'a>(part: &'a Value, key: &str, what: &str) -> Result<Vec<&'a Value>> {
    match part.get("type").and_then(Value::as_str) {
        _ if part.is_null() => Ok(vec![]),
        Some("Sequence") => {
            let list = part.get(key).and_then(Value::as_array);
            let list = list.with_context(|| format!("{what} is a Sequence without a list `{key}`"))?;
            Ok(list.iter().map(|p| parts(p, key, what)).collect::<Result<Vec<_>>>()?.concat())
        }
        _ => Ok(vec![part]),
    }
}

/// Checks a file, and gives the greatest id in it.
pub fn check(file: &Map<String, Value>) -> Result<u32> {
    let part = |name: &str| file.get(name).unwrap_or(&Value::Null);
    for (name, key, known) in
        [("normalizer", "normalizers", NORMALIZERS), ("pre_tokenizer", "pretokenizers", PRE_TOKENIZERS)]
    {
        for p in parts(part(name), key, name)? {
            kind(p, name, known)?;
        }
    }
    let model = part("model");
    let vocabulary = match kind(model, "model", MODELS)? {
        Some("Unigram") => unigram(model)?,
        Some(_) => bpe(model)?,
        None => bail!("there is no `model`"),
    };
    let added = added(part("added_tokens"))?;
    let greatest = vocabulary.keys().chain(added.iter().map(|(id, _)| id)).max();
    greatest.copied().context("the vocabulary is empty")
}

/// A text and id that may be an id.
fn id(value: &Value, token: &str) -> Result<u32> {
    let id = value.as_u64().filter(|id| *id < MOST_IDS);
    let id = id.with_context(|| format!("`{token}` has the id {value}, expected a number below {MOST_IDS}"))?;
    Ok(id as u32)
}

fn bpe(model: &Value) -> Result<BTreeMap<u32, &str>> {
    let vocab = model.get("vocab").and_then(Value::as_object).context("model.vocab is not a map")?;
    let mut by_id = BTreeMap::new();
    for (token, value) in vocab {
        if let Some(other) = by_id.insert(id(value, token)?, token.as_str()) {
            bail!("`{other}` and `{token}` have the same id {value}");
        }
    }
    ensure!(
        model.get("dropout").is_none_or(|d| d.is_null() || d.as_f64() == Some(0.0)),
        "model.dropout would give other tokens every time"
    );
    let prefix = model.get("continuing_subword_prefix").unwrap_or(&Value::Null);
    ensure!(prefix.is_null() || prefix.as_str() == Some(""), "model.continuing_subword_prefix is not supported");
    let merges = model.get("merges").and_then(Value::as_array).context("model.merges is not a list")?;
    for (i, merge) in merges.iter().enumerate() {
        let pair = pair(merge).with_context(|| format!("merge {i} is {merge}, expected two tokens"))?;
        for token in [pair.0, pair.1, &[pair.0, pair.1].concat()] {
            ensure!(vocab.contains_key(token), "merge {i} needs the token `{token}`, which is not in the vocabulary");
        }
    }
    Ok(by_id)
}

/// A merge as a list of two, or as a text with one space.
fn pair(merge: &Value) -> Option<(&str, &str)> {
    match merge {
        Value::Array(two) if two.len() == 2 => Some((two[0].as_str()?, two[1].as_str()?)),
        Value::String(text) => text.split_once(' ').filter(|(_, b)| !b.contains(' ')),
        _ => None,
    }
}

fn unigram(model: &Value) -> Result<BTreeMap<u32, &str>> {
    let vocab = model.get("vocab").and_then(Value::as_array).context("model.vocab is not a list")?;
    ensure!((vocab.len() as u64) < MOST_IDS, "model.vocab has {} pieces", vocab.len());
    let (mut by_id, mut seen) = (BTreeMap::new(), BTreeSet::new());
    for (i, piece) in vocab.iter().enumerate() {
        let text = piece.get(0).and_then(Value::as_str);
        let text = text.with_context(|| format!("piece {i} is {piece}, expected a text and a score"))?;
        ensure!((1..=LONGEST_PIECE).contains(&text.len()), "piece {i} has {} bytes", text.len());
        ensure!(seen.insert(text), "the piece `{text}` is there twice");
        by_id.insert(i as u32, text);
    }
    Ok(by_id)
}

/// Ids and texts of the added tokens.
pub fn added(list: &Value) -> Result<Vec<(u32, &str)>> {
    if list.is_null() {
        return Ok(vec![]);
    }
    list.as_array().context("added_tokens is not a list")?.iter().map(added_token).collect()
}

fn added_token(token: &Value) -> Result<(u32, &str)> {
    let text = token.get("content").and_then(Value::as_str).context("an added token has no text `content`")?;
    Ok((id(token.get("id").unwrap_or(&Value::Null), text)?, text))
}
