//! Choosing the next token from logits: temperature, then top-k, top-p and min-p, then one draw; greedy at temperature 0.
use lolm_ir::philox::philox4x32_10;

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

/// Chooses tokens; the choice is a function of the settings, the number of the draw, and the logits.
pub struct Sampler {
    how: Sampling,
    /// Token and logit, later token and probability.
    candidates: Vec<(u32, f64)>,
}

impl Sampler {
    pub fn new(how: Sampling, vocab: usize) -> Result<Sampler, SamplingError> {
        how.check()?;
        Ok(Sampler { how, candidates: Vec::with_capacity(vocab) })
    }

    /// The token of draw `index`. Logits that are not numbers are never chosen.
    pub fn choose(&mut self, logits: &[f32], index: u64) -> u32 {
        if self.how.temperature == 0.0 {
            return argmax(logits);
        }
        let scale = 1.0 / self.how.temperature as f64;
        let numbers = logits.iter().enumerate().filter(|(_, x)| !x.is_nan());
        self.candidates.clear();
        self.candidates.extend(numbers.map(|(i, x)| (i as u32, *x as f64 * scale)));
        self.order();
        let Some(greatest) = self.candidates.first().map(|c| c.1) else { return 0 };
        // exp(inf - inf) is not a number; an infinite logit takes all.
        let weight = |x: f64| if x == greatest { 1.0 } else { libm::exp(x - greatest) };
        self.candidates.iter_mut().for_each(|c| c.1 = weight(c.1));
        self.truncate();
        self.draw(uniform(self.how.seed, index))
    }

    /// Sorts as far as the settings need: the greatest first, equal ones by token.
    fn order(&mut self) {
        let by_logit = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        let k = self.how.top_k;
        if k > 0 && k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k - 1, by_logit);
            self.candidates.truncate(k);
        }
        self.candidates.sort_unstable_by(by_logit);
    }

    /// Applies top-p and min-p to candidates in descending order, of which the first has weight 1.
    fn truncate(&mut self) {
        let goal = self.how.top_p as f64 * self.candidates.iter().map(|c| c.1).sum::<f64>();
        let mut sum = 0.0;
        let mut keep = 0;
        for (_, w) in &self.candidates {
            if keep > 0 && (sum >= goal || *w < self.how.min_p as f64) {
                break;
            }
            sum += w;
            keep += 1;
        }
        self.candidates.truncate(keep);
    }

    fn draw(&self, u: f64) -> u32 {
        let mut left = u * self.candidates.iter().map(|c| c.1).sum::<f64>();
        for (token, w) in &self.candidates {
            left -= w;
            if left < 0.0 {
                return *token;
            }
        }
        // Only rounding leads here.
        self.candidates.last().map_or(0, |c| c.0)
    }
}

/// The first of the greatest logits.
pub fn argmax(logits: &[f32]) -> u32 {
    let greater = |best: (usize, f32), (i, x): (usize, &f32)| if *x > best.1 { (i, *x) } else { best };
    logits.iter().enumerate().fold((0, f32::NEG_INFINITY), greater).0 as u32
}

/// A number in [0, 1), for each seed and draw.
fn uniform(seed: u64, index: u64) -> f64 {
    let counter = [index as u32, (index >> 32) as u32, 0x5a3b_1e00, 0];
    let w = philox4x32_10(counter, [seed as u32, (seed >> 32) as u32]);
    (((w[0] as u64) << 32 | w[1] as u64) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(how: Sampling, logits: &[f32]) -> Vec<f64> {
        let mut s = Sampler::new(how, logits.len()).unwrap();
        let mut counts = vec![0; logits.len()];
        (0..20_000).for_each(|i| counts[s.choose(logits, i) as usize] += 1);
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
            let mut s = Sampler::new(Sampling { seed, ..Sampling::default() }, 4).unwrap();
            (0..40).map(|i| s.choose(&logits(), i)).collect::<Vec<_>>()
        };
        assert!(draw(1) == draw(1) && draw(1) != draw(2));
    }

    #[test]
    fn greedy_takes_the_first_greatest_and_edges_do_not_panic() {
        let mut s = Sampler::new(Sampling { temperature: 0.0, ..Sampling::default() }, 4).unwrap();
        assert_eq!(s.choose(&[1.0, 3.0, 3.0, f32::NAN], 0), 1);
        assert_eq!(s.choose(&[f32::NEG_INFINITY, f32::NAN], 0), 0);
        let mut s = Sampler::new(Sampling::default(), 4).unwrap();
        assert_eq!(s.choose(&[f32::NAN, f32::NAN], 0), 0);
        assert_eq!(s.choose(&[f32::NAN, 1.0, f32::NEG_INFINITY], 0), 1);
        assert_eq!(s.choose(&[0.0, f32::INFINITY, 88.0], 3), 1);
        assert_eq!(s.choose(&[f32::NEG_INFINITY; 2], 0) / 2, 0);
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
