//! The known name that somebody probably meant.

/// The candidate with the fewest edits from `name`, if a third of its letters or fewer differ.
pub(super) fn near<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    let limit = name.chars().count().div_ceil(3).max(1);
    let close = candidates.map(|c| (distance(name, c), c)).filter(|(d, _)| *d <= limit);
    close.min().map(|(_, c)| c.into())
}

/// Insertions, deletions and replacements of one letter that lead from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + (x != *y) as usize;
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("sofmax", "softmax"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn a_far_name_is_no_hint() {
        assert_eq!(near("sofmax", ["dot", "softmax"].into_iter()), Some("softmax".into()));
        assert_eq!(near("xyz", ["dot", "softmax"].into_iter()), None);
    }
}
