//! Operations along time: recurrences, selective scans and causal convolutions.
use super::{Call, Layout, Tensor};
use crate::axis::{AxisId, AxisSet};

/// S_t = a_t · S_{t-1} + b_t.
pub(super) fn recurrence(c: &Call, axis: AxisId, reverse: bool) -> Tensor {
    let mut out = c.zeros(0);
    let (rows, step) = (c.out(0).without(axis), out.layout(c.g).stride(axis));
    let (a, b, there) = (c.offsets(0, rows), c.offsets(1, rows), out.offsets(c.g, rows));
    let (a_step, b_step) = (c.layout(0).stride(axis), c.layout(1).stride(axis));
    let init = c.args.get(2).map(|x| (x, x.offsets(c.g, rows)));
    for (r, o) in there.into_iter().enumerate() {
        let mut state = init.as_ref().map_or(0.0, |(x, at)| x.data[at[r]]);
        for i in 0..c.len(axis) {
            let t = if reverse { c.len(axis) - 1 - i } else { i };
            state = c.args[0].data[a[r] + t * a_step] * state + c.args[1].data[b[r] + t * b_step];
            out.data[o + t * step] = state;
        }
    }
    out
}

/// Σ_j weight\[j\] · x\[t - (taps - 1 - j)\] + bias.
pub(super) fn causal_conv(c: &Call, time: AxisId, tap: AxisId) -> Tensor {
    let mut out = c.zeros(0);
    let rows = c.out(0).without(time);
    let (xs, ws, there) = (c.offsets(0, rows), c.offsets(1, c.out(0)), out.offsets(c.g, rows));
    let (x_step, w_step, step) = (c.layout(0).stride(time), c.layout(1).stride(tap), out.layout(c.g).stride(time));
    let bias = c.args.get(2).map(|b| (b, b.offsets(c.g, c.out(0))));
    let (taps, steps) = (c.len(tap), c.len(time));
    for (r, row) in there.into_iter().enumerate() {
        for t in 0..steps {
            let o = row + t * step;
            let mut sum = bias.as_ref().map_or(0.0, |(b, at)| b.data[at[o]]);
            for j in (0..taps).filter(|j| t + j + 1 >= taps) {
                sum += c.args[1].data[ws[o] + j * w_step] * c.args[0].data[xs[r] + (t + j + 1 - taps) * x_step];
            }
            out.data[o] = sum;
        }
    }
    out
}

/// The axes of the states over time: those of dt, a, b and u.
fn state_axes(c: &Call) -> AxisSet {
    [0, 1, 2, 4].iter().fold(AxisSet::EMPTY, |s, i| s.union(c.args[*i].set()))
}

/// The states of a scan, and where its operands lie. Points are laid out with time innermost, whatever its place among
/// the axes, so that the step before a point is the point before it.
struct Scan {
    /// Offsets of every point into dt, a, b, c, u.
    at: [Vec<usize>; 5],
    steps: usize,
    layout: Layout,
    /// S after every step, [rows, t].
    states: Vec<f64>,
}

impl Scan {
    fn new(c: &Call, time: AxisId, init: Option<&Tensor>) -> Scan {
        let rows = state_axes(c).without(time);
        let order: Vec<AxisId> = rows.iter().chain([time]).collect();
        let at = [0, 1, 2, 3, 4].map(|i| c.layout(i).offsets_in_order(c.g, &order));
        let layout = Layout::of(c.g, order.into_iter());
        let init = init.map(|x| (x, x.offsets(c.g, rows)));
        let mut scan = Scan { states: vec![0.0; at[0].len()], at, steps: c.len(time), layout };
        for p in 0..scan.states.len() {
            let before = match (p % scan.steps, &init) {
                (0, None) => 0.0,
                (0, Some((x, at))) => x.data[at[p / scan.steps]],
                _ => scan.states[p - 1],
            };
            let [dt, a, b, _, u] = scan.operands(c, p);
            scan.states[p] = (dt * a).exp() * before + dt * b * u;
        }
        scan
    }
    /// dt, a, b, c, u at a point.
    fn operands(&self, c: &Call, p: usize) -> [f64; 5] {
        [0, 1, 2, 3, 4].map(|i| c.args[i].data[self.at[i][p]])
    }
}

pub(super) fn selective_scan(c: &Call, time: AxisId, state: AxisId) -> Vec<Tensor> {
    let scan = Scan::new(c, time, c.args.get(5).copied());
    let (mut y, mut last) = (c.zeros(0), c.zeros(1));
    // c may vary over axes that the states lack: the result has them, the states are the same along them.
    let wide: Vec<AxisId> = c.out(0).with(state).iter().collect();
    let states = scan.layout.offsets_in_order(c.g, &wide);
    let cs = c.layout(3).offsets_in_order(c.g, &wide);
    let ys = y.layout(c.g).offsets_in_order(c.g, &wide);
    for (i, o) in ys.into_iter().enumerate() {
        y.data[o] += scan.states[states[i]] * c.args[3].data[cs[i]];
    }
    for (r, x) in last.data.iter_mut().enumerate() {
        *x = scan.states[(r + 1) * scan.steps - 1];
    }
    vec![y, last]
}

/// With D_t = exp(dt_t a) and G_t the gradient of S_t: G_t = c_t dy_t + D_{t+1} G_{t+1}; every operand then takes G_t
/// times its local derivative, summed over the axes that it lacks.
pub(super) fn selective_scan_grad(c: &Call, time: AxisId) -> Vec<Tensor> {
    let scan = Scan::new(c, time, None);
    let mut grads: Vec<Tensor> = (0..5).map(|i| c.zeros(i)).collect();
    let wide: Vec<AxisId> = state_axes(c).union(c.args[3].set()).union(c.args[5].set()).iter().collect();
    let states = scan.layout.offsets_in_order(c.g, &wide);
    let cs = c.layout(3).offsets_in_order(c.g, &wide);
    let dys = c.layout(5).offsets_in_order(c.g, &wide);
    let mut carry = vec![0.0; scan.states.len()]; // G, [rows, t]
    for (i, s) in states.into_iter().enumerate() {
        let dy = c.args[5].data[dys[i]];
        carry[s] += c.args[3].data[cs[i]] * dy;
        grads[3].data[cs[i]] += scan.states[s] * dy;
    }
    for p in (0..carry.len()).rev() {
        let t = p % scan.steps;
        if t + 1 < scan.steps {
            let [dt, a, ..] = scan.operands(c, p + 1);
            carry[p] += (dt * a).exp() * carry[p + 1];
        }
        let before = if t == 0 { 0.0 } else { scan.states[p - 1] };
        let [dt, a, b, _, u] = scan.operands(c, p);
        let (g, decay) = (carry[p], (dt * a).exp());
        let local = [decay * a * before + b * u, decay * dt * before, dt * u, 0.0, dt * b];
        for i in [0, 1, 2, 4] {
            grads[i].data[scan.at[i][p]] += g * local[i];
        }
    }
    grads
}

/// What a gated recurrence multiplies the state and x by at one step, and the slope of each by log_a: a and √(1 - a²), or 0
/// and 1, which do not depend on it, at a reset.
fn gates(log_a: f64, reset: bool) -> ([f64; 2], [f64; 2]) {
    if reset {
        return ([0.0, 1.0], [0.0, 0.0]);
    }
    let (a, rest) = (log_a.exp(), 1.0 - (2.0 * log_a).exp());
    let slope = 1.0 / (4.0 * rest).max(1e-6).sqrt();
    ([a, rest.sqrt()], [a, -2.0 * a * a * slope])
}

/// h_t = a_t h_{t-1} + √(1 - a_t²) x_t.
pub(super) fn gated_recurrence(c: &Call, time: AxisId) -> Vec<Tensor> {
    let (mut h, mut last) = (c.zeros(0), c.zeros(1));
    let rows = c.out(0).without(time);
    let [log_a, x, reset] = [0, 1, 2].map(|i| (c.offsets(i, rows), c.layout(i).stride(time)));
    let (there, step) = (h.offsets(c.g, rows), h.layout(c.g).stride(time));
    let init = c.args.get(3).map(|x| (x, x.offsets(c.g, rows)));
    for (r, o) in there.into_iter().enumerate() {
        let mut state = init.as_ref().map_or(0.0, |(x, at)| x.data[at[r]]);
        for t in 0..c.len(time) {
            let at = |i: usize, (offsets, step): &(Vec<usize>, usize)| c.args[i].data[offsets[r] + t * step];
            let ([decay, scale], _) = gates(at(0, &log_a), at(2, &reset) != 0.0);
            state = decay * state + scale * at(1, &x);
            h.data[o + t * step] = state;
        }
        last.data[r] = state;
    }
    vec![h, last]
}

/// With G_t the gradient of h_t: G_t = dh_t + a_{t+1} G_{t+1}, from the end.
pub(super) fn gated_recurrence_grad(c: &Call, time: AxisId) -> Vec<Tensor> {
    let (mut d_log_a, mut dx) = (c.zeros(0), c.zeros(1));
    let rows = c.out(0).without(time);
    let places: Vec<(Vec<usize>, usize)> = (0..5).map(|i| (c.offsets(i, rows), c.layout(i).stride(time))).collect();
    let (there, step) = (dx.offsets(c.g, rows), dx.layout(c.g).stride(time));
    for (r, o) in there.into_iter().enumerate() {
        let at = |i: usize, t: usize| c.args[i].data[places[i].0[r] + t * places[i].1];
        let mut carried = 0.0;
        for t in (0..c.len(time)).rev() {
            let ([decay, scale], [decay_slope, scale_slope]) = gates(at(0, t), at(2, t) != 0.0);
            let g = at(4, t) + carried;
            let before = if t == 0 { 0.0 } else { at(3, t - 1) };
            dx.data[o + t * step] = g * scale;
            d_log_a.data[o + t * step] = g * (before * decay_slope + at(1, t) * scale_slope);
            carried = decay * g;
        }
    }
    vec![d_log_a, dx]
}
