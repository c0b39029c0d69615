//! Choosing the next token from logits: temperature, then top-k, top-p and min-p, then one draw; greedy at temperature 0.
//!
//! A program for a GPU may do the same with `Op::Sample`, and gives the same token, bit for bit: weights are rounded to
//! multiples of 2^-35 of the greatest, so that their sums are exact in every order (of up to 2^18 tokens), and the draw goes
//! by the order of tokens.
use lolm_ir::philox::philox4x32_10;

mod most;
mod vectors;
use most::Candidate;
use most::keep_greatest;
pub use most::most_probable;
use vectors::{UNIT, greatest, log_sum_exp, sum, weigh, weight};

/// How tokens are chosen. The default draws from the model's own distribution.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sampling {
    /// Divides the logits; 0 takes the greatest one.
    pub temperature: f32,
    /// Only the k most probable tokens; 0 for all.
    pub top_k: usize,
    /// Only the most probable tokens that together reach this probability.
    pub top_p: f32,
    /// Only tokens of at least this part of the greatest probability.
    pub min_p: f32,
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0 }
    }
}

/// A setting that means nothing.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[error("{name} is {found}, expected {expected}")]
pub struct SamplingError {
    pub name: &'static str,
    pub found: f32,
    pub expected: &'static str,
}

impl Sampling {
    pub fn check(&self) -> Result<(), SamplingError> {
        let ok = |fits, name, found, expected| if fits { Ok(()) } else { Err(SamplingError { name, found, expected }) };
        let (t, p, m) = (self.temperature, self.top_p, self.min_p);
        ok(t.is_finite() && t >= 0.0, "temperature", t, "0 or more")?;
        ok(p > 0.0 && p <= 1.0, "top_p", p, "more than 0 and at most 1")?;
        ok((0.0..=1.0).contains(&m), "min_p", m, "0 to 1")
    }
}

/// A choice as a program takes it: settings, and the number that decides.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Draw {
    pub temperature: f32,
    /// 0 for all.
    pub top_k: i32,
    pub top_p: f32,
    pub min_p: f32,
    /// In [0, 1), a multiple of 2^-24.
    pub uniform: f32,
}

impl Draw {
    /// The greatest.
    pub const GREEDY: Draw = Draw { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, uniform: 0.0 };
}

impl Sampling {
    /// What decides about draw `index`.
    pub fn draw(&self, index: u64) -> Draw {
        if self.temperature == 0.0 {
            return Draw::GREEDY;
        }
        let top_k = i32::try_from(self.top_k).unwrap_or(i32::MAX);
        let uniform = uniform(self.seed, index) as f32 / STEPS as f32;
        Draw { temperature: self.temperature, top_k, top_p: self.top_p, min_p: self.min_p, uniform }
    }
}

/// Chooses tokens; the choice is a function of the settings, the number of the draw, and the logits. Holds only memory.
#[derive(Default)]
pub struct Sampler {
    candidates: Vec<Candidate>,
    weights: Vec<f32>,
    spare: Vec<f32>,
}

/// Candidates that are sorted for top-p; if they do not reach the probability, none are.
const FIRST: usize = 64;

impl Sampler {
    pub fn new(vocab: usize) -> Sampler {
        Sampler { weights: Vec::with_capacity(vocab), ..Sampler::default() }
    }

    /// The token of draw `index`. Logits that are not numbers are never chosen.
    pub fn choose(&mut self, how: &Sampling, logits: &[f32], index: u64) -> u32 {
        if how.temperature == 0.0 {
            return argmax(logits);
        }
        let u = uniform(how.seed, index);
        let top = greatest(logits);
        let scale = scale(how.temperature);
        if how.top_k > 0 && how.top_k < logits.len() {
            most_probable(logits, how.top_k, &mut self.candidates);
            let total = self.weigh(top, scale);
            let n = self.kept(how, total);
            return self.draw_candidate(n, u);
        }
        let total = weigh(logits, top, scale, &mut self.weights);
        if how.top_p < 1.0 {
            return self.choose_by_top_p(how, logits, top, total, u);
        }
        self.drop_below(how.min_p);
        self.draw(u)
    }

    fn drop_below(&mut self, min_p: f32) {
        if min_p > 0.0 {
            self.weights.iter_mut().for_each(|w| *w = if *w < min_p { 0.0 } else { *w });
        }
    }

    /// Sorts the most probable tokens only if they are enough for top-p, as they are where a model knows what to say.
    fn choose_by_top_p(&mut self, how: &Sampling, logits: &[f32], top: f32, total: f64, u: u32) -> u32 {
        std::mem::swap(&mut self.weights, &mut self.spare);
        most_probable(logits, FIRST, &mut self.candidates);
        if self.weigh(top, scale(how.temperature)) >= part(how.top_p, total) {
            let n = self.kept(how, total);
            let token = self.draw_candidate(n, u);
            std::mem::swap(&mut self.weights, &mut self.spare);
            return token;
        }
        std::mem::swap(&mut self.weights, &mut self.spare);
        let below = |x: f32| (top - x) * scale(how.temperature);
        keep_greatest(logits, &mut self.weights, below, part(how.top_p, total), &mut self.candidates);
        self.drop_below(how.min_p);
        self.draw(u)
    }

    /// Computes the weights of the candidates, and their sum.
    fn weigh(&mut self, top: f32, scale: f32) -> f64 {
        let weight = |x: f32| if top.is_finite() { weight(x, top, scale) } else { (x == top) as u8 as f32 };
        self.weights.clear();
        self.weights.extend(self.candidates.iter().map(|c| weight(c.1)));
        sum(&self.weights)
    }

    /// How many of the candidates top-p of `total` leaves; those that min-p does not leave weigh nothing any more.
    fn kept(&mut self, how: &Sampling, total: f64) -> usize {
        let goal = part(how.top_p, total);
        let mut sum = 0.0;
        let short = self.weights.iter().take_while(|w| {
            let short = sum < goal;
            sum += **w as f64;
            short
        });
        let n = short.count();
        self.drop_below(how.min_p);
        n
    }

    /// One of the first `n` candidates.
    fn draw_candidate(&mut self, n: usize, u: u32) -> u32 {
        // The draw goes by the order of tokens; a candidate's logit is not needed any more.
        self.candidates.truncate(n);
        self.candidates.iter_mut().zip(&self.weights).for_each(|(c, w)| c.1 = *w);
        self.candidates.sort_unstable_by_key(|c| c.0);
        self.weights.clear();
        self.weights.extend(self.candidates.iter().map(|c| c.1));
        let at = self.draw(u);
        self.candidates.get(at as usize).map_or(0, |c| c.0)
    }

    /// The position that has this part of the weights before it.
    fn draw(&self, u: u32) -> u32 {
        const BLOCK: usize = 256;
        let total = self.weights.chunks(BLOCK).map(sum).sum::<f64>();
        let mut left = fraction(units(total) as u128 * u as u128 / STEPS as u128);
        for (block, weights) in self.weights.chunks(BLOCK).enumerate() {
            let all = sum(weights);
            if left >= all {
                left -= all;
                continue;
            }
            for (i, w) in weights.iter().enumerate() {
                left -= *w as f64;
                if left < 0.0 {
                    return (block * BLOCK + i) as u32;
                }
            }
        }
        // Only rounding leads here, or that there are no numbers.
        self.weights.iter().rposition(|w| *w > 0.0).unwrap_or(0) as u32
    }
}

/// The first of the greatest logits.
pub fn argmax(logits: &[f32]) -> u32 {
    let top = greatest(logits);
    logits.iter().position(|x| *x == top).unwrap_or(0) as u32
}

/// The logarithm of each token's probability is its logit less this.
pub fn log_total(logits: &[f32]) -> f64 {
    log_sum_exp(logits)
}

/// What differences of logits are multiplied with.
fn scale(temperature: f32) -> f32 {
    (1.0 / temperature).min(f32::MAX)
}

/// A sum of weights in units of 2^-35, and the other way round.
fn units(sum: f64) -> u64 {
    (sum / UNIT) as u64
}
fn fraction(units: u128) -> f64 {
    units as f64 * UNIT
}

/// The least sum of weights that is this part of a sum; at least one unit. Of the whole, all of it.
fn part(part: f32, total: f64) -> f64 {
    const ONE: u64 = 1 << 40;
    if part >= 1.0 {
        return total;
    }
    let product = (part * ONE as f32) as u128 * units(total) as u128;
    fraction(product.div_ceil(ONE as u128).max(1))
}

/// A uniform number has so many values, which is as many as an f32 tells apart.
const STEPS: u32 = 1 << 24;

/// A number below [`STEPS`], for each seed and draw.
fn uniform(seed: u64, index: u64) -> u32 {
    let counter = [index as u32, (index >> 32) as u32, 0x5a3b_1e00, 0];
    philox4x32_10(counter, [seed as u32, (seed >> 32) as u32])[0] >> 8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(how: Sampling, logits: &[f32]) -> Vec<f64> {
        let mut s = Sampler::new(logits.len());
        let mut counts = vec![0; logits.len()];
        (0..20_000).for_each(|i| counts[s.choose(&how, logits, i) as usize] += 1);
        counts.iter().map(|c| *c as f64 / 20_000.0).collect()
    }

    fn close(a: &[f64], b: &[f64]) {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 0.015), "{a:?} is not {b:?}");
    }

    /// Logits of the probabilities 0.1, 0.5, 0.15, 0.25.
    fn logits() -> Vec<f32> {
        [0.1f32, 0.5, 0.15, 0.25].map(f32::ln).to_vec()
    }

    #[test]
    fn draws_follow_the_distribution_that_the_settings_leave() {
        let d = Sampling::default();
        close(&share(d, &logits()), &[0.1, 0.5, 0.15, 0.25]);
        close(&share(Sampling { top_k: 2, ..d }, &logits()), &[0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]);
        close(&share(Sampling { top_p: 0.7, ..d }, &logits()), &[0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]);
        close(&share(Sampling { min_p: 0.28, ..d }, &logits()), &[0.0, 5.0 / 9.0, 1.5 / 9.0, 2.5 / 9.0]);
        let squares = [0.01, 0.25, 0.0225, 0.0625].map(|x| x / 0.345);
        close(&share(Sampling { temperature: 0.5, ..d }, &logits()), &squares);
        assert_eq!(share(Sampling { top_k: 1, ..d }, &logits())[1], 1.0);
        assert_eq!(share(Sampling { top_p: 1e-9, ..d }, &logits())[1], 1.0);
    }

    #[test]
    fn the_same_seed_gives_the_same_tokens() {
        let draw = |seed| {
            let (mut s, how) = (Sampler::new(4), Sampling { seed, ..Sampling::default() });
            (0..40).map(|i| s.choose(&how, &logits(), i)).collect::<Vec<_>>()
        };
        assert!(draw(1) == draw(1) && draw(1) != draw(2));
    }

    #[test]
    fn greedy_takes_the_first_greatest_and_edges_do_not_panic() {
        let mut s = Sampler::new(4);
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        assert_eq!(s.choose(&greedy, &[1.0, 3.0, 3.0, f32::NAN], 0), 1);
        assert_eq!(s.choose(&greedy, &[f32::NEG_INFINITY, f32::NAN], 0), 0);
        let d = Sampling::default();
        for how in [d, Sampling { top_p: 0.9, ..d }, Sampling { top_k: 1, ..d }, Sampling { min_p: 0.5, ..d }] {
            assert_eq!(s.choose(&how, &[f32::NAN, f32::NAN], 0), 0);
            assert_eq!(s.choose(&how, &[f32::NAN, 1.0, f32::NEG_INFINITY], 0), 1);
            assert_eq!(s.choose(&how, &[0.0, f32::INFINITY, 88.0], 3), 1);
            assert_eq!(s.choose(&how, &[f32::NEG_INFINITY; 2], 0) / 2, 0);
            assert_eq!(s.choose(&how, &[], 0), 0);
        }
    }

    #[test]
    fn top_p_of_a_flat_distribution_takes_its_part_of_it() {
        let (mut s, logits) = (Sampler::new(5000), vec![0.25; 5000]);
        let how = Sampling { top_p: 0.5, ..Sampling::default() };
        let drawn: Vec<u32> = (0..2000).map(|i| s.choose(&how, &logits, i)).collect();
        assert!(drawn.iter().all(|t| *t < 2500) && drawn.iter().any(|t| *t > 2400));
        // Two thirds of the weight lie in every second token.
        let logits: Vec<f32> = (0..5000).map(|i| (1.0 + (i % 2) as f32).ln()).collect();
        let how = Sampling { top_p: 0.6, min_p: 0.1, ..Sampling::default() };
        let drawn: Vec<u32> = (0..2000).map(|i| s.choose(&how, &logits, i)).collect();
        assert!(drawn.iter().all(|t| t % 2 == 1 && *t < 4502) && drawn.iter().any(|t| *t > 4400));
    }

    #[test]
    fn senseless_settings_are_refused() {
        let error = |how: Sampling| how.check().unwrap_err().to_string();
        let d = Sampling::default();
        assert_eq!(error(Sampling { temperature: -1.0, ..d }), "temperature is -1, expected 0 or more");
        assert_eq!(error(Sampling { top_p: 0.0, ..d }), "top_p is 0, expected more than 0 and at most 1");
        assert_eq!(error(Sampling { min_p: f32::NAN, ..d }), "min_p is NaN, expected 0 to 1");
    }
}
