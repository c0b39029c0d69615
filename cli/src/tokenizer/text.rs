//! The text of tokens that come one by one: whole characters, without special tokens, up to a text that ends it.
use super::{Characters, Stop, Tokenizer};
use anyhow::Result;

/// What of a text is seen, and where it ends.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Seen<'a> {
    /// Texts that end it, and tokens that do.
    pub stops: &'a [String],
    pub ends: &'a [u32],
    /// What ended it belongs to it.
    pub with_end: bool,
    /// Tokens that steer a model are spelt out.
    pub with_special: bool,
    /// No text ends it within so many tokens.
    pub least: usize,
}

/// A text that grows.
pub struct Text {
    characters: Characters,
    stop: Stop,
    /// Tokens that end a text and are none of it.
    ends: Vec<u32>,
    with_special: bool,
    least: usize,
    tokens: usize,
}

impl Text {
    pub fn new(seen: &Seen) -> Text {
        let Seen { stops, ends, with_end, with_special, least } = *seen;
        Text {
            characters: Characters::default(),
            stop: Stop::new(stops, with_end),
            ends: if with_end { vec![] } else { ends.to_vec() },
            with_special,
            least,
            tokens: 0,
        }
    }

    /// What is certain of the text after one more token.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> Result<String> {
        let bytes = if self.with_special { tokenizer.bytes(token)? } else { tokenizer.shown(token)? };
        if self.ends.contains(&token) {
            return Ok(String::new());
        }
        self.tokens += 1;
        let text = self.characters.push(bytes);
        Ok(if self.tokens <= self.least { text } else { self.stop.push(&text) })
    }

    /// True if a stop text came.
    pub fn found(&self) -> bool {
        self.stop.found()
    }

    /// What is left when nothing more comes.
    pub fn finish(&mut self) -> String {
        self.stop.push(&self.characters.finish()) + &self.stop.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_ends_at_a_stop_text_or_at_a_token() {
        let t = Tokenizer::bytewise();
        let run = |text: &[u8]| {
            let mut out = Text::new(&Seen { stops: &["END".into()], ends: &[0], ..Seen::default() });
            let mut all: String = text.iter().map(|b| out.push(&t, *b as u32).unwrap()).collect();
            all += &out.finish();
            (all, out.found())
        };
        assert_eq!(run("aé ENDb".as_bytes()), ("aé ".into(), true));
        assert_eq!(run(b"EN\0"), ("EN".into(), false));
        assert_eq!(run(b"\xe6\xbc"), ("\u{fffd}".into(), false));
        assert!(Text::new(&Seen::default()).push(&t, 256).is_err());
        // Neither within the first tokens, nor by what only begins there.
        let mut out = Text::new(&Seen { stops: &["ab".into()], least: 3, ..Seen::default() });
        let all: String = b"ababab".iter().map(|b| out.push(&t, *b as u32).unwrap()).collect();
        assert_eq!((all.as_str(), out.found()), ("abab", true));
    }
}
