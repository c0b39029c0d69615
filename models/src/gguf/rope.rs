//! Finds the four numbers of Llama 3's scaling of rotary positions from the factors that a file holds instead.
//!
//! The frequency of feature i, f = θ^(-2i/D), is divided by a factor: 1 where its wavelength 2π/f is below L/high, `factor`
//! where it is above L/low, and in between 1 / ((1 - s)/factor + s) with s = (L·f/2π - low)/(high - low).
use super::GgufError;
use serde_json::{Value, json};
use std::f64::consts::TAU;

/// The values of `low` and `high` that are tried; every published model has the first of each.
const LOW: [f64; 2] = [1.0, 2.0];
const HIGH: [f64; 4] = [4.0, 2.0, 8.0, 32.0];
/// Lengths that are tried where the file does not say it, most likely first.
const LENGTHS: [u64; 6] = [8192, 4096, 2048, 16384, 32768, 131072];

#[derive(Clone, Copy, Debug)]
struct Scaling {
    factor: f64,
    low: f64,
    high: f64,
    length: f64,
}

impl Scaling {
    fn at(&self, frequency: f64) -> f64 {
        let turns = self.length * frequency / TAU;
        if turns > self.high {
            return 1.0;
        }
        if turns < self.low {
            return self.factor;
        }
        let s = (turns - self.low) / (self.high - self.low);
        1.0 / ((1.0 - s) / self.factor + s)
    }
}

/// The scaling whose factors these are, as HF writes it.
pub fn llama3(factors: &[f32], theta: f64, original: Option<u64>) -> Result<Value, GgufError> {
    let n = factors.len() as f64;
    let frequency = |i: usize| theta.powf(-(i as f64) / n);
    let fits =
        |s: &Scaling| factors.iter().enumerate().all(|(i, f)| (s.at(frequency(i)) / *f as f64 - 1.0).abs() < 1e-4);
    // The longest wave has the whole factor.
    let factor = factors.last().copied().unwrap_or(1.0) as f64;
    let lengths = original.map_or(LENGTHS.to_vec(), |n| vec![n]);
    let bounds = LOW.iter().flat_map(|low| HIGH.map(|high| (*low, high))).filter(|(low, high)| low < high);
    let all = bounds.flat_map(|(low, high)| lengths.iter().map(move |length| (low, high, *length as f64)));
    let mut scalings = all.map(|(low, high, length)| Scaling { factor, low, high, length });
    match scalings.find(fits) {
        Some(s) => Ok(json!({
            "rope_type": "llama3",
            "factor": s.factor,
            "low_freq_factor": s.low,
            "high_freq_factor": s.high,
            "original_max_position_embeddings": s.length as u64,
        })),
        None => Err(GgufError::RopeFactors { last: factors.last().copied().unwrap_or(1.0), len: factors.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(s: Scaling, theta: f64, n: usize) -> Vec<f32> {
        (0..n).map(|i| s.at(theta.powf(-(i as f64) / n as f64)) as f32).collect()
    }

    #[test]
    fn the_numbers_of_a_scaling_are_found_again() {
        for (factor, length, theta, n) in [(8.0, 8192, 5e5, 64), (32.0, 8192, 5e5, 32), (4.0, 4096, 1e5, 16)] {
            let s = Scaling { factor, low: 1.0, high: 4.0, length: length as f64 };
            for original in [None, Some(length)] {
                let found = llama3(&factors(s, theta, n), theta, original).unwrap();
                let expected = json!({"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0, "original_max_position_embeddings": length});
                assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn other_factors_are_refused() {
        let s = Scaling { factor: 8.0, low: 1.0, high: 4.0, length: 8192.0 };
        let mut f = factors(s, 5e5, 64);
        f[30] *= 1.01;
        for f in [f, vec![f32::NAN; 64], vec![0.0; 64], vec![]] {
            // No factors are those of no scaling, but then every scaling fits.
            assert_eq!(llama3(&f, 5e5, None).is_ok(), f.is_empty());
        }
    }
}
