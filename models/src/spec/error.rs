//! What can be wrong with a spec, and where.
use std::fmt;

/// A place in a file, both counted from 1. A spec that came from JSON has no lines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    pub file: String,
    pub line: Option<u32>,
    pub column: Option<u32>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        match (self.line, self.column) {
            (Some(l), Some(c)) => write!(f, ":{l}:{c}"),
            (Some(l), None) => write!(f, ":{l}"),
            (None, _) => Ok(()),
        }
    }
}

/// A fault of a spec: the place, the key with its section (`ssm.d_state`), and what is wrong.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{place}: {}{fault}", show_key(key))]
pub struct SpecError {
    pub place: Place,
    pub key: String,
    pub fault: SpecFault,
}

fn show_key(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("`{key}`: ") }
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SpecFault {
    #[error("the file cannot be read: {0}")]
    Unreadable(String),
    #[error("not valid TOML: {0}")]
    Syntax(String),
    #[error("there is no such key{}", hint(near, known))]
    Unknown { near: Option<String>, known: Vec<String> },
    #[error("the key is missing; expected {expected}")]
    Missing { expected: String },
    #[error("found {found}, expected {expected}")]
    Wrong { found: String, expected: String },
}

fn hint(near: &Option<String>, known: &[String]) -> String {
    match near {
        Some(n) => format!("; did you mean `{n}`?"),
        None => format!("; the keys here are {}", known.join(", ")),
    }
}

/// The candidate that a misspelt word most likely means: at most a third of its letters differ.
pub fn near_name<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let scored = candidates.into_iter().map(|c| (edits(word, c), c));
    let (distance, best) = scored.min_by_key(|(d, _)| *d)?;
    (distance <= (word.len().max(best.len()) / 3).max(1)).then(|| best.to_string())
}

/// Edits between two words: insert, delete, replace, or swap two neighbours (Damerau, Levenshtein).
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            table[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replace = table[i - 1][j - 1] + (a[i - 1] != b[j - 1]) as usize;
                let best = replace.min(table[i - 1][j] + 1).min(table[i][j - 1] + 1);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                if swapped { best.min(table[i - 2][j - 2] + 1) } else { best }
            };
        }
    }
    table[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_near() {
        let keys = ["d_model", "n_heads", "n_layers"];
        assert_eq!(near_name("d_modle", keys).as_deref(), Some("d_model"));
        assert_eq!(near_name("n_head", keys).as_deref(), Some("n_heads"));
        assert_eq!(near_name("colour", keys), None);
        assert_eq!(edits("abcd", "abdc"), 1);
    }
}
