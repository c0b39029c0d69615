//! Byte pairs of one's own: a `tokenizer.json` from texts.
use anyhow::{Context, Result, anyhow, ensure};
use std::collections::{BTreeSet, HashSet};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, NormalizerWrapper, TokenizerBuilder};

/// What is trained.
#[derive(Clone, Debug)]
pub struct Training {
    /// Tokens: special ones, the 256 bytes, and as many merges as are left.
    pub vocab_size: usize,
    /// Tokens that are no text, such as `<|endoftext|>`; the first ids are theirs.
    pub special: Vec<String>,
}

/// Trains on texts, each with the name that errors call it. Equal texts give equal files. The greatest vocabulary that the
/// texts give may be smaller than what is asked for.
pub fn train(texts: &[(String, Vec<u8>)], how: &Training) -> Result<String> {
    let least = 256 + how.special.len();
    ensure!(how.vocab_size >= least, "a vocabulary of {} is too small: {least} at least", how.vocab_size);
    ensure!(how.vocab_size < 1 << 24, "a vocabulary of {} is too large", how.vocab_size);
    let distinct: BTreeSet<&String> = how.special.iter().collect();
    ensure!(distinct.len() == how.special.len(), "a special token is named twice");
    ensure!(how.special.iter().all(|t| !t.is_empty()), "a special token is empty");
    let mut lines = vec![];
    for (name, text) in texts {
        let text = std::str::from_utf8(text).with_context(|| format!("{name} is not UTF-8"))?;
        lines.extend(text.split_inclusive('\n'));
    }
    let alphabet: HashSet<char> = super::decoder::byte_level().into_iter().map(|(_, c)| c).collect();
    let mut trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(how.vocab_size)
        .min_frequency(2)
        .initial_alphabet(alphabet)
        .special_tokens(how.special.iter().map(|t| AddedToken::from(t.as_str(), true)).collect())
        .build();
    let bytes = ByteLevel::new(false, true, true);
    let mut tokenizer = TokenizerBuilder::<BPE, NormalizerWrapper, ByteLevel, ByteLevel, ByteLevel>::new()
        .with_model(BPE::default())
        .with_normalizer(None)
        .with_pre_tokenizer(Some(bytes))
        .with_post_processor(Some(bytes))
        .with_decoder(Some(bytes))
        .build()
        .map_err(|e| anyhow!("bug: a tokenizer cannot be made: {e}"))?;
    tokenizer.train(&mut trainer, lines.into_iter()).map_err(|e| anyhow!("the tokenizer cannot be trained: {e}"))?;
    let json = tokenizer.to_string(true).map_err(|e| anyhow!("bug: the tokenizer cannot be written: {e}"))?;
    // What was made here is read here.
    super::Tokenizer::parse(json.as_bytes())?;
    Ok(json + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Tokenizer;

    fn trained(text: &str, vocab_size: usize) -> Result<String> {
        let how = Training { vocab_size, special: vec!["<|endoftext|>".into(), "<|user|>".into()] };
        train(&[("text".into(), text.as_bytes().to_vec())], &how)
    }

    #[test]
    fn a_tokenizer_is_trained_the_same_way_every_time() {
        let text = lipsum::LIBER_PRIMUS;
        let json = trained(text, 600).unwrap();
        assert_eq!(json, trained(text, 600).unwrap());
        let t = Tokenizer::parse(json.as_bytes()).unwrap();
        assert_eq!((t.size(), t.id("<|endoftext|>"), t.id("<|user|>")), (600, Some(0), Some(1)));
        let tokens = t.encode(text.as_bytes(), true, "text").unwrap();
        assert!(tokens.len() * 2 < text.len(), "{} tokens for {} bytes", tokens.len(), text.len());
        assert_eq!(t.decode(&tokens).unwrap(), text.as_bytes());
        let other = "Σὲ 漢字 🦀\u{0}\r\n".as_bytes();
        assert_eq!(t.decode(&t.encode(other, true, "text").unwrap()).unwrap(), other);
    }

    #[test]
    fn senseless_sizes_and_texts_are_refused() {
        let error = |text: &str, size| format!("{:#}", trained(text, size).unwrap_err());
        assert_eq!(error("a", 200), "a vocabulary of 200 is too small: 258 at least");
        assert!(error("a", 1 << 30).contains("too large"));
        let how = Training { vocab_size: 300, special: vec![] };
        let e = train(&[("prose.txt".into(), vec![0xff])], &how).unwrap_err().to_string();
        assert_eq!(e, "prose.txt is not UTF-8");
        // A text that is too short for so many tokens gives fewer.
        assert_eq!(Tokenizer::parse(trained("aaaa", 300).unwrap().as_bytes()).unwrap().size(), 259);
        assert_eq!(Tokenizer::parse(trained("", 300).unwrap().as_bytes()).unwrap().size(), 258);
        let twice = Training { vocab_size: 300, special: vec!["x".into(), "x".into()] };
        assert!(train(&[], &twice).unwrap_err().to_string().contains("twice"));
    }
}
