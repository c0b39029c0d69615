//! The initial weights: every element is a function of the seed, the parameter's name and the element's index.
use crate::model::Model;
use lolm_ir::graph::Init;
use lolm_ir::philox::philox4x32_10;
use std::f64::consts::TAU;

/// Draws all parameters of a model and resets its states.
pub fn init(model: &mut Model, seed: u64) {
    let records: Vec<(String, Init, usize)> = model
        .manifest()
        .params
        .iter()
        .map(|p| (p.name.clone(), p.init, p.shape.last().copied().unwrap_or(1)))
        .collect();
    for (slot, (name, how, last)) in records.into_iter().enumerate() {
        let draws = Draws::new(seed, &name);
        let len = model.params().slots()[slot].len;
        let mut values = [0.0; CHUNK];
        for at in (0..len).step_by(CHUNK) {
            let values = &mut values[..CHUNK.min(len - at)];
            fill(values, at, how, last, &draws);
            model.write_param(slot, at, values.iter().copied());
        }
    }
    model.reset_states();
}

/// Elements that are drawn at once; even, as normal numbers come in pairs.
const CHUNK: usize = 4096;

/// Fills `to`, which begins at the parameter's element `at`, an even one.
fn fill(to: &mut [f32], at: usize, how: Init, last: usize, draws: &Draws) {
    match how {
        Init::Zeros => to.fill(0.0),
        Init::Constant(x) => to.fill(x),
        Init::Normal(std) => {
            for (i, pair) in to.chunks_mut(2).enumerate() {
                let normal = draws.normals((at / 2 + i) as u64).map(|x| (x * std as f64) as f32);
                pair.copy_from_slice(&normal[..pair.len()]);
            }
        }
        Init::LogRange => {
            for (i, x) in to.iter_mut().enumerate() {
                *x = libm::log(((at + i) % last.max(1) + 1) as f64) as f32;
            }
        }
        Init::Decay { lo, hi } => {
            let (lo, hi) = (lo as f64 * lo as f64, hi as f64 * hi as f64);
            for (i, pair) in to.chunks_mut(2).enumerate() {
                // softplus⁻¹(-log a) of a = sqrt(draw): log(1/a - 1).
                let param = draws.uniforms((at / 2 + i) as u64).map(|u| -0.5 * libm::log(lo + u * (hi - lo)));
                let param = param.map(|y| inverse_softplus(y) as f32);
                pair.copy_from_slice(&param[..pair.len()]);
            }
        }
        Init::DtBias { lo, hi } => {
            let (lo, hi) = (libm::log(lo as f64), libm::log(hi as f64));
            for (i, pair) in to.chunks_mut(2).enumerate() {
                let bias =
                    draws.uniforms((at / 2 + i) as u64).map(|u| inverse_softplus(libm::exp(lo + u * (hi - lo))) as f32);
                pair.copy_from_slice(&bias[..pair.len()]);
            }
        }
    }
}

/// x such that softplus(x) = y: y + log(1 - exp(-y)).
fn inverse_softplus(y: f64) -> f64 {
    y + libm::log(-libm::expm1(-y))
}

/// The random numbers of one parameter: Philox keyed by the seed, with a hash of the name in the counter.
struct Draws {
    key: [u32; 2],
    name: [u32; 2],
}

impl Draws {
    fn new(seed: u64, name: &str) -> Draws {
        let h = blake3::hash(name.as_bytes());
        let word = |i: usize| u32::from_le_bytes([0, 1, 2, 3].map(|b| h.as_bytes()[4 * i + b]));
        Draws { key: [seed as u32, (seed >> 32) as u32], name: [word(0), word(1)] }
    }

    /// Two uniform numbers in (0, 1).
    fn uniforms(&self, index: u64) -> [f64; 2] {
        let w = philox4x32_10([index as u32, (index >> 32) as u32, self.name[0], self.name[1]], self.key);
        let unit = |hi: u32, lo: u32| (((hi as u64) << 32 | lo as u64) >> 12) as f64 + 0.5;
        [unit(w[0], w[1]), unit(w[2], w[3])].map(|x| x / (1u64 << 52) as f64)
    }

    /// Two normal numbers (Box, Muller 1958).
    fn normals(&self, index: u64) -> [f64; 2] {
        let [u, v] = self.uniforms(index);
        let radius = (-2.0 * libm::log(u)).sqrt();
        [radius * libm::cos(TAU * v), radius * libm::sin(TAU * v)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(how: Init, n: usize, last: usize, seed: u64, name: &str) -> Vec<f32> {
        let mut x = vec![f32::NAN; n];
        for (i, x) in x.chunks_mut(CHUNK).enumerate() {
            fill(x, i * CHUNK, how, last, &Draws::new(seed, name));
        }
        let mut whole = vec![f32::NAN; n];
        fill(&mut whole, 0, how, last, &Draws::new(seed, name));
        assert_eq!(x, whole, "chunks change nothing");
        x
    }

    #[test]
    fn normal_draws_have_their_moments_and_depend_on_seed_and_name_only() {
        let x = drawn(Init::Normal(0.02), 100_001, 1, 7, "w");
        let mean = x.iter().map(|x| *x as f64).sum::<f64>() / x.len() as f64;
        let var = x.iter().map(|x| (*x as f64 - mean).powi(2)).sum::<f64>() / x.len() as f64;
        assert!(mean.abs() < 3e-4 && (var.sqrt() / 0.02 - 1.0).abs() < 0.01, "mean {mean}, std {}", var.sqrt());
        assert_eq!(x[..50], drawn(Init::Normal(0.02), 50, 1, 7, "w"));
        assert_ne!(x[..50], drawn(Init::Normal(0.02), 50, 1, 8, "w"));
        assert_ne!(x[..50], drawn(Init::Normal(0.02), 50, 1, 7, "v"));
    }

    #[test]
    fn the_state_space_starts_as_its_authors_start_it() {
        let a = drawn(Init::LogRange, 6, 3, 0, "A_log");
        assert_eq!(a, [1.0f64, 2.0, 3.0, 1.0, 2.0, 3.0].map(|x| x.ln() as f32));
        let (lo, hi) = (1e-3f32, 1e-1f32);
        for x in drawn(Init::DtBias { lo, hi }, 999, 999, 3, "dt") {
            let dt = (x as f64).exp().ln_1p();
            assert!((0.999e-3..=1.001e-1).contains(&dt), "{dt}");
        }
    }
}
