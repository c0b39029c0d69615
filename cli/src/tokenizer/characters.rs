//! Bytes that come a few at a time, given on as whole characters.

/// What came of a character that is not whole yet.
#[derive(Default)]
pub struct Characters {
    waiting: Vec<u8>,
}

impl Characters {
    /// The characters that are whole now. Bytes that can be part of none become U+FFFD, as many as the standard library
    /// makes of them.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.waiting.extend_from_slice(bytes);
        let mut out = String::new();
        let mut left = self.waiting.len();
        for chunk in self.waiting.utf8_chunks() {
            out += chunk.valid();
            let bad = chunk.invalid();
            left -= chunk.valid().len() + bad.len();
            if left == 0 && unfinished(bad) {
                left = bad.len();
                break;
            }
            if !bad.is_empty() {
                out.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.waiting.drain(..self.waiting.len() - left);
        out
    }

    /// What is left when nothing more comes.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.waiting)).into_owned()
    }
}

/// True of the beginning of a character.
fn unfinished(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    proptest! {
        /// However bytes are cut, the same text comes out, and it is what they are as a whole.
        #[test]
        fn any_bytes_in_any_pieces_give_one_text(
            pieces in prop::collection::vec(
                prop_oneof![prop::collection::vec(any::<u8>(), 0..6), "\\PC{0,3}".prop_map(String::into_bytes)],
                0..12,
            ),
            cuts in prop::collection::vec(0usize..8, 0..40),
        ) {
            let bytes: Vec<u8> = pieces.concat();
            let (mut c, mut out, mut rest) = (Characters::default(), String::new(), &bytes[..]);
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                out += &c.push(now);
                rest = later;
            }
            out += &c.push(rest);
            out += &c.finish();
            prop_assert_eq!(out, String::from_utf8_lossy(&bytes));
        }
    }
}
