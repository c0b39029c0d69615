//! The text of tokens that come one by one: whole characters, without special tokens, up to a text that ends it.
use super::{Characters, Stop, Tokenizer};
use anyhow::Result;

/// A text that grows.
pub struct Text {
    characters: Characters,
    stop: Stop,
    /// Tokens that end a text and are none of it.
    ends: Vec<u32>,
}

impl Text {
    /// A text that ends before one of `stops` comes, or at one of the tokens `ends`.
    pub fn new(stops: &[String], ends: &[u32]) -> Text {
        Text { characters: Characters::default(), stop: Stop::new(stops), ends: ends.to_vec() }
    }

    /// What is certain of the text after one more token.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> Result<String> {
        let bytes = tokenizer.shown(token)?;
        Ok(if self.ends.contains(&token) { String::new() } else { self.stop.push(&self.characters.push(bytes)) })
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
            let mut out = Text::new(&["END".into()], &[0]);
            let mut all: String = text.iter().map(|b| out.push(&t, *b as u32).unwrap()).collect();
            all += &out.finish();
            (all, out.found())
        };
        assert_eq!(run("aé ENDb".as_bytes()), ("aé ".into(), true));
        assert_eq!(run(b"EN\0"), ("EN".into(), false));
        assert_eq!(run(b"\xe6\xbc"), ("\u{fffd}".into(), false));
        assert!(Text::new(&[], &[]).push(&t, 256).is_err());
    }
}
