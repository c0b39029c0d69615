//! The most probable tokens, without sorting all.
use super::vectors::any_above;

/// A token and its logit.
pub type Candidate = (u32, f32);

/// Logits that are looked at together: if none of them is great enough, none is looked at alone.
const BLOCK: usize = 64;

/// Puts the `n` greatest logits first, in descending order, equal ones by token; what is not a number is left out.
pub fn most_probable(logits: &[f32], n: usize, out: &mut Vec<Candidate>) {
    out.clear();
    if n == 0 {
        return;
    }
    let room = 2 * n.clamp(BLOCK, logits.len().max(BLOCK));
    // Once `n` are there, only what is above the least of them counts: an equal one that comes later has a later token.
    let mut bar = None;
    for (block, xs) in logits.chunks(BLOCK).enumerate() {
        if bar.is_some_and(|bar| !any_above(xs, bar)) {
            continue;
        }
        for (i, x) in xs.iter().enumerate() {
            if x.is_nan() || bar.is_some_and(|bar| *x <= bar) {
                continue;
            }
            out.push(((block * BLOCK + i) as u32, *x));
            if out.len() == room && n < room {
                keep(n, out);
                bar = out.iter().map(|c| c.1).reduce(f32::min);
            }
        }
    }
    keep(n, out);
    out.sort_unstable_by(descending);
}

fn keep(n: usize, out: &mut Vec<Candidate>) {
    if n < out.len() {
        out.select_nth_unstable_by(n - 1, descending);
        out.truncate(n);
    }
}

/// Greater logits first, equal ones by token. There is nothing here that is not a number.
fn descending(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.1.partial_cmp(&a.1).unwrap_or(std::cmp::Ordering::Equal).then(a.0.cmp(&b.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn they_are_those_of_a_sort(logits in prop::collection::vec(-4i32..5, 0..700), n in 0usize..800) {
            let logits: Vec<f32> = logits.iter().map(|x| if *x == 4 { f32::NAN } else { *x as f32 / 2.0 }).collect();
            let mut want: Vec<Candidate> = logits.iter().enumerate().map(|(i, x)| (i as u32, *x)).collect();
            want.retain(|c| !c.1.is_nan());
            want.sort_by(descending);
            want.truncate(n);
            let mut found = vec![(9, 9.0)];
            most_probable(&logits, n, &mut found);
            prop_assert_eq!(found, want);
        }
    }
}
