//! Loops over all logits of a token: the greatest, weights, sums. Written in lanes, so that a compiler makes vectors of
//! them; the order of every sum is the same on every machine.

const LANES: usize = 16;

/// The greatest number, or negative infinity if there is none.
pub fn greatest(xs: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    let chunks = xs.chunks_exact(LANES);
    let rest = chunks.remainder().iter().fold(f32::NEG_INFINITY, |a, b| greater(a, *b));
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(a, b)| *a = greater(*a, *b));
    }
    lanes.iter().fold(rest, |a, b| greater(a, *b))
}

/// Whether any number is greater than this.
pub fn any_above(xs: &[f32], bar: f32) -> bool {
    xs.iter().fold(false, |any, x| any | (*x > bar))
}

/// exp(x) for x at most 0, to within two units in the last place; 0 below -87, and of what is not a number.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let y = exp_within(x);
    if x >= -87.0 { y } else { 0.0 }
}

/// The same from -87 to 0.
#[inline(always)]
fn exp_within(x: f32) -> f32 {
    // x = n ln 2 + r, in two parts of ln 2, the first of which has so few digits that its products are exact.
    // Adding a number of 24 digits rounds to an integer, which stands in the last digits then.
    const ROUND: f32 = 12_582_912.0;
    let digits = x * std::f32::consts::LOG2_E + ROUND;
    let n = digits - ROUND;
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let p = 1.987_569_1e-4_f32;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 5e-1;
    let p = (p * r) * r + r + 1.0;
    let power = f32::from_bits(digits.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23);
    p * power
}

/// What weights are multiples of.
pub const UNIT: f64 = 1.0 / (1u64 << 35) as f64;

/// exp((x - top) scale), rounded to a multiple of [`UNIT`]; 0 of what is not a number.
#[inline(always)]
pub fn weight(x: f32, top: f32, scale: f32) -> f32 {
    // All floats from here on are multiples of it, so a sum with one is rounded to such.
    const WHOLE: f32 = 1.0 / 4096.0;
    // Here the weight is less than half of it.
    const LEAST: f32 = -26.0;
    let t = (x - top) * scale;
    let t = if t > LEAST { t } else { LEAST };
    (exp_within(t) + WHOLE) - WHOLE
}

/// The [`weight`] of each, and their sum. The numbers that equal `top` have the weight 1, infinite ones too.
pub fn weigh(xs: &[f32], top: f32, scale: f32, weights: &mut Vec<f32>) -> f64 {
    weights.clear();
    if top.is_finite() {
        weights.extend(xs.iter().map(|x| weight(*x, top, scale)));
    } else {
        weights.extend(xs.iter().map(|x| (*x == top) as u8 as f32));
    }
    sum(weights)
}

/// The sum of floats in f64.
pub fn sum(xs: &[f32]) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let chunks = xs.chunks_exact(LANES);
    let rest: f64 = chunks.remainder().iter().map(|x| *x as f64).sum();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(a, x)| *a += *x as f64);
    }
    lanes.iter().sum::<f64>() + rest
}

/// ln Σ exp(x): what is taken from a logit to get the logarithm of its probability.
pub fn log_sum_exp(xs: &[f32]) -> f64 {
    let top = greatest(xs);
    if !top.is_finite() {
        return top as f64;
    }
    let mut lanes = [0.0f64; LANES];
    let chunks = xs.chunks_exact(LANES);
    let rest: f64 = chunks.remainder().iter().map(|x| exp(x - top) as f64).sum();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(a, x)| *a += exp(x - top) as f64);
    }
    top as f64 + libm::log(lanes.iter().sum::<f64>() + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let worst = (0..=870_000u32).map(|i| {
            let x = -(i as f32) / 1e4;
            let want = libm::exp(x as f64);
            ((exp(x) as f64 - want) / want).abs()
        });
        let worst = worst.fold(0.0, f64::max);
        assert!(worst < 2.0 * f32::EPSILON as f64, "{worst}");
        assert_eq!((exp(0.0), exp(-0.0)), (1.0, 1.0));
        assert_eq!((exp(-88.0), exp(f32::NEG_INFINITY), exp(f32::NAN), exp(-1e30)), (0.0, 0.0, 0.0, 0.0));
    }

    #[test]
    fn the_greatest_is_found_wherever_it_is_and_what_is_no_number_is_passed_over() {
        for n in [1, 5, 16, 17, 40] {
            for at in 0..n {
                let mut xs = vec![f32::NAN; n];
                xs[n - 1 - at] = -7.0;
                xs[at] = 3.0;
                assert_eq!(greatest(&xs), 3.0);
                assert!(any_above(&xs, 2.0) && !any_above(&xs, 3.0));
            }
        }
        assert_eq!(greatest(&[f32::NAN]), f32::NEG_INFINITY);
    }

    #[test]
    fn the_logarithm_of_the_sum_is_that_of_f64() {
        for n in [1usize, 15, 16, 50, 1000] {
            let xs: Vec<f32> = (0..n).map(|i| ((i * 7919) % 1009) as f32 / 50.0 - 9.0).collect();
            let want = libm::log(xs.iter().map(|x| libm::exp(*x as f64)).sum::<f64>());
            assert!((log_sum_exp(&xs) - want).abs() < 2e-7, "{n}: {} is not {want}", log_sum_exp(&xs));
        }
        assert_eq!(log_sum_exp(&[1.0, f32::INFINITY]), f64::INFINITY);
        assert_eq!(log_sum_exp(&[f32::NEG_INFINITY]), f64::NEG_INFINITY);
    }
}
