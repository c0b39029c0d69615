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

/// Distances of one bucket have the same exponent and the same first digits.
const DIGITS: u32 = 16;
/// Nothing that is further below the greatest has a weight.
const FURTHEST: f32 = 128.0;

/// Leaves only the weights of the greatest logits that together reach `goal`, of equal logits those that come first; the
/// others become 0. `below` is how far a logit is below the greatest, and is not less for lesser ones. Sorts only those
/// near the border, in `border`.
pub fn keep_greatest(
    logits: &[f32],
    weights: &mut [f32],
    below: impl Fn(f32) -> f32,
    goal: f64,
    border: &mut Vec<Candidate>,
) {
    // Floats that are not negative are in the order of their bits. Where the greatest is infinite, what weighs equals it.
    let bucket = |d: f32| (d.to_bits() >> DIGITS) as usize;
    let of = |x: &f32, w: &f32| match below(*x) {
        _ if *w == 0.0 => bucket(FURTHEST),
        d if d > 0.0 => bucket(d.min(FURTHEST)),
        _ => 0,
    };
    let mut sums = vec![0.0f64; bucket(FURTHEST) + 1];
    logits.iter().zip(&*weights).for_each(|(x, w)| sums[of(x, w)] += *w as f64);
    let (mut at, mut above) = (0, 0.0);
    while at + 1 < sums.len() && above + sums[at] < goal {
        above += sums[at];
        at += 1;
    }
    border.clear();
    let all = || logits.iter().zip(0..);
    let near = |(x, i): &(&f32, u32)| !x.is_nan() && of(x, &weights[*i as usize]) == at;
    border.extend(all().filter(near).map(|(x, i)| (i, *x)));
    border.sort_unstable_by(descending);
    let kept = border.iter().take_while(|c| {
        let short = above < goal;
        above += weights[c.0 as usize] as f64;
        short
    });
    let kept = kept.count();
    logits.iter().zip(weights.iter_mut()).filter(|(x, w)| of(x, w) > at).for_each(|(_, w)| *w = 0.0);
    border[kept..].iter().for_each(|c| weights[c.0 as usize] = 0.0);
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

        #[test]
        fn the_greatest_that_reach_a_goal_are_those_of_a_sort(
            weights in prop::collection::vec(prop::sample::select(vec![0.0f32, 1e-9, 0.125, 0.25, 0.2501, 0.5, 1.0]), 1..300),
            part in 1u32..=16,
        ) {
            let goal = part as f64 / 16.0 * weights.iter().map(|w| *w as f64).sum::<f64>();
            let mut sorted: Vec<Candidate> = weights.iter().enumerate().map(|(i, w)| (i as u32, *w)).collect();
            sorted.sort_by(descending);
            let (mut sum, mut want) = (0.0, vec![0.0; weights.len()]);
            for (i, w) in sorted {
                if sum < goal {
                    want[i as usize] = w;
                }
                sum += w as f64;
            }
            let (mut found, mut border) = (weights, vec![]);
            let logits = found.clone();
            keep_greatest(&logits, &mut found, |x| 1.0 - x, goal, &mut border);
            // Sums of other orders may differ in the last digit, and decide otherwise about a last one that hardly counts.
            let differ = found.iter().zip(&want).filter(|(a, b)| a != b && a.max(**b) > 1e-6).count();
            prop_assert_eq!(differ, 0);
        }
    }
}
