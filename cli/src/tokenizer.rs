//! Text to tokens and back: bytes, or GPT-2's byte pairs.
use anyhow::{Context, Result};
use lolm_models::LolmSpec;
use lolm_models::spec::Tokenizer as Kind;
use tiktoken_rs::CoreBPE;

/// A tokenizer of a spec.
pub enum Tokenizer {
    Bytes,
    Gpt2(&'static CoreBPE),
}

impl Tokenizer {
    pub fn of(spec: &LolmSpec) -> Tokenizer {
        match spec.tokenizer {
            Kind::Bytes => Tokenizer::Bytes,
            Kind::Gpt2 => Tokenizer::Gpt2(tiktoken_rs::r50k_base_singleton()),
        }
    }

    /// The tokens of a text; `name` is what errors call it. Byte pairs need UTF-8, bytes take anything.
    pub fn encode(&self, text: &[u8], name: &str) -> Result<Vec<u32>> {
        match self {
            Tokenizer::Bytes => Ok(text.iter().map(|b| *b as u32).collect()),
            Tokenizer::Gpt2(bpe) => {
                let text = std::str::from_utf8(text);
                let text = text.with_context(|| format!("{name} is not UTF-8, which the tokenizer gpt2 needs"))?;
                Ok(bpe.encode_ordinary(text))
            }
        }
    }

    /// The bytes of tokens. A token that stands for no text, as a vocabulary may be larger than its tokenizer, gives none.
    pub fn decode(&self, tokens: &[u32]) -> Vec<u8> {
        match self {
            Tokenizer::Bytes => tokens.iter().filter_map(|t| u8::try_from(*t).ok()).collect(),
            Tokenizer::Gpt2(bpe) => tokens.iter().flat_map(|t| bpe.decode_bytes(&[*t]).unwrap_or_default()).collect(),
        }
    }
}

/// Bytes that come a few at a time, given on as whole characters.
#[derive(Default)]
pub struct Characters {
    waiting: Vec<u8>,
}

impl Characters {
    /// The characters that are whole now. Bytes that can be part of none become U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.waiting.extend_from_slice(bytes);
        let mut out = String::new();
        loop {
            match std::str::from_utf8(&self.waiting) {
                Ok(text) => {
                    out += text;
                    self.waiting.clear();
                    return out;
                }
                Err(e) => {
                    let (good, rest) = self.waiting.split_at(e.valid_up_to());
                    out += &String::from_utf8_lossy(good);
                    let Some(bad) = e.error_len() else {
                        self.waiting = rest.to_vec();
                        return out;
                    };
                    out.push(char::REPLACEMENT_CHARACTER);
                    self.waiting = rest[bad..].to_vec();
                }
            }
        }
    }

    /// What is left when nothing more comes.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.waiting)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_never_split() {
        let text = "aé漢🦀b";
        for cut in 0..=text.len() {
            let mut c = Characters::default();
            let first = c.push(&text.as_bytes()[..cut]);
            assert!(text.starts_with(&first));
            assert_eq!(first + &c.push(&text.as_bytes()[cut..]) + &c.finish(), text);
        }
        let mut c = Characters::default();
        assert_eq!(c.push(b"a\xffb\xe6"), "a\u{fffd}b");
        assert_eq!(c.finish(), "\u{fffd}");
    }

    #[test]
    fn texts_come_back() {
        let text = "Non eram nescius, Brute — 漢字";
        for t in [Tokenizer::Bytes, Tokenizer::Gpt2(tiktoken_rs::r50k_base_singleton())] {
            let tokens = t.encode(text.as_bytes(), "text").unwrap();
            assert!(tokens.iter().all(|t| *t < 50257));
            assert_eq!(t.decode(&tokens), text.as_bytes());
            assert_eq!(t.decode(&[60000]), b"");
        }
        let gpt2 = Tokenizer::Gpt2(tiktoken_rs::r50k_base_singleton());
        assert_eq!(gpt2.encode(b"Hello world", "text").unwrap(), [15496, 995]);
        assert!(gpt2.encode(b"\xff", "prose.txt").unwrap_err().to_string().starts_with("prose.txt is not UTF-8"));
    }
}
