//! Texts at which generation ends, found also where they lie across tokens.

/// Holds back what may be the beginning of a stop text, and cuts where one is whole.
pub struct Stop {
    texts: Vec<String>,
    /// What was found belongs to what is before it.
    kept: bool,
    held: String,
    found: bool,
}

impl Stop {
    /// Empty texts would stop everything and are left out. The one that is found is given on as well if it is `kept`.
    pub fn new(texts: &[String], kept: bool) -> Stop {
        let texts = texts.iter().filter(|t| !t.is_empty()).cloned().collect();
        Stop { texts, kept, held: String::new(), found: false }
    }

    /// True if a stop text came; what follows it is dropped.
    pub fn found(&self) -> bool {
        self.found
    }

    /// Takes text in and gives on what is certainly before a stop text.
    pub fn push(&mut self, text: &str) -> String {
        if self.found {
            return String::new();
        }
        self.held += text;
        let place = |t: &String| self.held.find(t.as_str()).map(|at| (at, at + t.len()));
        if let Some((at, end)) = self.texts.iter().filter_map(place).min() {
            self.found = true;
            self.held.truncate(if self.kept { end } else { at });
            return std::mem::take(&mut self.held);
        }
        let keep = self.texts.iter().map(|t| overlap(&self.held, t)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, rest)
    }

    /// What was held back when nothing more comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// The longest end of `text`, in bytes, that `stop` begins with and is longer than.
fn overlap(text: &str, stop: &str) -> usize {
    let most = text.len().min(stop.len() - 1);
    (1..=most).rev().find(|n| text.as_bytes().ends_with(&stop.as_bytes()[..*n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut s = Stop::new(&stops, false);
        let mut out: Vec<String> = pieces.iter().map(|p| s.push(p)).collect();
        out.push(s.finish());
        (out, s.found())
    }

    #[test]
    fn stop_texts_are_found_across_pieces() {
        assert_eq!(run(&["END"], &["a E", "N", "D b"]), (vec!["a ".into(), "".into(), "".into(), "".into()], true));
        assert_eq!(run(&["END"], &["a E", "N", "X"]), (vec!["a ".into(), "".into(), "ENX".into(), "".into()], false));
        assert_eq!(run(&["END"], &["EN"]).0.concat(), "EN");
        // The earliest of several, whatever their order.
        assert_eq!(run(&["b", "ab"], &["xab"]).0.concat(), "x");
        assert_eq!(
            run(&["", "漢字"], &["a漢", "b漢", "字"]),
            (vec!["a".into(), "漢b".into(), "".into(), "".into()], true)
        );
        assert_eq!(run(&[], &["a", "b"]).0.concat(), "ab");
        // A stop text that begins again within itself.
        assert_eq!(run(&["aab"], &["a", "a", "a", "b", "c"]).0.concat(), "a");
    }

    #[test]
    fn a_stop_text_may_belong_to_the_text() {
        let mut s = Stop::new(&["END".into(), "ENDS".into()], true);
        assert_eq!(["a E", "ND", "S b"].map(|p| s.push(p)), ["a ", "END", ""]);
    }
}
