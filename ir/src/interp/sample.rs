//! A draw from a row of logits, by sorting it.
use super::{Call, Tensor};
use crate::axis::AxisId;

pub(super) fn sample(c: &Call, axis: AxisId) -> Tensor {
    let (rows, along) = (c.offsets(0, c.out(0)), c.offsets(0, axis.into()));
    let settings: Vec<Vec<usize>> = (1..6).map(|i| c.offsets(i, c.out(0))).collect();
    let one = |(n, row): (usize, usize)| {
        let row: Vec<f64> = along.iter().map(|o| c.args[0].data[row + o]).collect();
        choose(&row, std::array::from_fn(|i| c.args[i + 1].data[settings[i][n]])) as f64
    };
    Tensor { axes: c.out(0).iter().collect(), data: rows.into_iter().enumerate().map(one).collect() }
}

/// The index that is drawn from a row under `[temperature, top_k, top_p, min_p, uniform]`; see `Op::Sample`.
pub fn choose(row: &[f64], settings: [f64; 5]) -> usize {
    let [temperature, top_k, top_p, min_p, uniform] = settings;
    let mut order: Vec<usize> = (0..row.len()).filter(|i| !row[*i].is_nan()).collect();
    // The sort is stable, and a zero of either sign is the same number.
    order.sort_by(|a, b| (row[*b] + 0.0).total_cmp(&(row[*a] + 0.0)));
    let Some(first) = order.first().copied() else { return 0 };
    if temperature <= 0.0 || temperature.is_nan() {
        return first;
    }
    if top_k >= 1.0 {
        order.truncate(top_k as usize);
    }
    let top = row[first];
    let weight = |i: usize| match top.is_finite() {
        true => ((row[i] - top) / temperature).exp(),
        false => (row[i] == top) as u8 as f64,
    };
    let total: f64 = order.iter().map(|i| weight(*i)).sum();
    let (mut sum, mut kept) = (0.0, vec![]);
    for i in order {
        if !kept.is_empty() && (top_p < 1.0 && sum >= top_p * total || weight(i) < min_p) {
            break;
        }
        sum += weight(i);
        kept.push(i);
    }
    kept.sort_unstable();
    let bar = (uniform * sum).max(0.0);
    let mut sum = 0.0;
    let over = |i: &&usize| {
        sum += weight(**i);
        sum > bar
    };
    let last = kept.iter().rfind(|i| weight(**i) > 0.0).copied();
    kept.iter().find(over).copied().or(last).unwrap_or(first)
}
