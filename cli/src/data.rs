//! Texts as tokens, for training and evaluation.
use crate::tokenizer::Tokenizer;
use anyhow::{Context, Result};
use lolm_models::Spec;
use lolm_runtime::train::Tokens;
use std::path::{Path, PathBuf};

/// A text in tokens.
pub struct Text {
    pub tokens: Tokens,
    /// Bytes behind the first token: what a model that reads the text predicts.
    pub predicted_bytes: u64,
}

/// Reads files and joins them, each tokenized on its own by the tokenizer of a spec, whose files lie in `folder`.
pub fn read(files: &[PathBuf], spec: &Spec, folder: Option<&Path>) -> Result<Text> {
    let mut parts = vec![];
    for path in files {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        parts.push((path.display().to_string(), bytes));
    }
    let parts: Vec<(&str, &[u8])> = parts.iter().map(|(n, b)| (n.as_str(), b.as_slice())).collect();
    join(&parts, &Tokenizer::of(spec, folder)?)
}

/// The tokens of texts, each with the name that errors call it.
pub fn join(parts: &[(&str, &[u8])], tokenizer: &Tokenizer) -> Result<Text> {
    let mut all = vec![];
    for (name, bytes) in parts {
        all.extend(tokenizer.encode(bytes, true, name)?);
    }
    let bytes: usize = parts.iter().map(|p| p.1.len()).sum();
    let first = all.first().map_or(Ok(0), |t| tokenizer.shown(*t).map(<[u8]>::len))?;
    // Two bytes a token are enough for most tokenizers.
    let tokens = match all.iter().map(|t| u16::try_from(*t)).collect::<Result<Vec<u16>, _>>() {
        Ok(small) => Tokens::U16(small),
        Err(_) => Tokens::U32(all),
    };
    Ok(Text { tokens, predicted_bytes: bytes.saturating_sub(first) as u64 })
}

/// Cuts a text in two at a character border: what is trained on, and the last part of it.
pub fn split(text: &[u8], held_out: f64) -> (&[u8], &[u8]) {
    let mut at = (text.len() as f64 * (1.0 - held_out)) as usize;
    // Bytes of the form 10xxxxxx go on with a character.
    while at < text.len() && text[at] & 0xc0 == 0x80 {
        at += 1;
    }
    text.split_at(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_joined_and_counted() {
        let spec = lolm_models::spec::library("lolm-demo").unwrap().unwrap();
        let tokenizer = Tokenizer::of(&spec, None).unwrap();
        let t = join(&[("a", b"ab"), ("b", b"c")], &tokenizer).unwrap();
        assert_eq!((t.tokens, t.predicted_bytes), (Tokens::U16(vec![97, 98, 99]), 2));
        assert_eq!(join(&[], &tokenizer).unwrap().predicted_bytes, 0);
        let e = read(&["no such file".into()], &spec, None).err().unwrap();
        assert!(e.to_string().contains("no such file"));
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let text = "ab漢cd";
        assert_eq!(split(text.as_bytes(), 0.5), ("ab漢".as_bytes(), "cd".as_bytes()));
        assert_eq!(split(b"abcd", 0.25), (&b"abc"[..], &b"d"[..]));
        assert_eq!(split(b"", 0.5), (&b""[..], &b""[..]));
    }
}
