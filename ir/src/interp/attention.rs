//! Attention and its gradient, row by row: a row is one query of one head of one sequence.
use super::norm::log_sum_exp;
use super::{Call, Layout, Tensor};
use crate::axis::AxisSet;
use crate::op::{Attention, Mask};
use crate::philox;

/// The operands of an attention with the offsets that every row needs.
struct Rows<'a> {
    c: &'a Call<'a>,
    a: &'a Attention,
    /// Axes that the scores vary over, without the keys.
    rows: AxisSet,
    /// Axes of v that rows and keys lack.
    values: AxisSet,
    /// Offsets of every row into q, k and v.
    q: Vec<usize>,
    k: Vec<usize>,
    v: Vec<usize>,
    /// Offsets along the contracted axes into q and k.
    q_over: Vec<usize>,
    k_over: Vec<usize>,
    /// Offsets along `values` into v.
    v_values: Vec<usize>,
    k_step: usize,
    v_step: usize,
    /// Offsets of every row into the operands after v, and into the weights that dropout draws for.
    extra: Vec<Vec<usize>>,
    weights: Vec<usize>,
}

impl<'a> Rows<'a> {
    fn new(c: &'a Call<'a>, a: &'a Attention) -> Self {
        let rows = c.args[0].set().union(c.args[1].set()).minus(a.over).without(a.keys);
        let values = c.args[2].set().minus(rows).without(a.keys);
        let (q, k, v) = (c.offsets(0, rows), c.offsets(1, rows), c.offsets(2, rows));
        let (q_over, k_over, v_values) = (c.offsets(0, a.over), c.offsets(1, a.over), c.offsets(2, values));
        let (k_step, v_step) = (c.layout(1).stride(a.keys), c.layout(2).stride(a.keys));
        let extra = (3..3 + a.extra_args()).map(|i| c.offsets(i, rows)).collect();
        let weights = Layout::of(c.g, rows.with(a.keys).iter()).offsets(c.g, rows);
        Rows { c, a, rows, values, q, k, v, q_over, k_over, v_values, k_step, v_step, extra, weights }
    }
    fn keys(&self) -> usize {
        self.c.len(self.a.keys)
    }
    /// Operand 3 + `i` at row `r`, an integer.
    fn extra(&self, i: usize, r: usize) -> i32 {
        self.c.args[3 + i].data[self.extra[i][r]] as i32
    }

    /// scale · q·k of row `r` for every key; -∞ where the mask hides it.
    fn scores(&self, r: usize) -> Vec<f64> {
        let (q, k) = (&self.c.args[0].data, &self.c.args[1].data);
        let score = |s: usize| {
            let terms = self.q_over.iter().zip(&self.k_over);
            let dot: f64 = terms.map(|(i, j)| q[self.q[r] + i] * k[self.k[r] + s * self.k_step + j]).sum();
            self.a.scale() as f64 * dot
        };
        let visible = self.visible(r);
        (0..self.keys()).map(|s| if visible(s) { score(s) } else { f64::NEG_INFINITY }).collect()
    }

    fn visible(&self, r: usize) -> impl Fn(usize) -> bool {
        let (mask, slots) = (self.a.mask, self.keys() as i64);
        let position = if self.a.has_qpos() { self.extra(0, r) as i64 } else { 0 };
        move |s| match mask {
            Mask::Full => true,
            Mask::Causal => s as i64 <= position,
            Mask::Window(w) => s as i64 <= position && s as i64 > position - w as i64,
            Mask::Ring(w) => {
                let age = (position - s as i64).rem_euclid(slots);
                age < w as i64 && age <= position
            }
        }
    }

    /// What dropout multiplies the weights of row `r` by.
    fn kept(&self, r: usize) -> Vec<f64> {
        let Some(dropout) = self.a.dropout else { return vec![1.0; self.keys()] };
        let first = self.a.has_qpos() as usize;
        let (seed, step) = (self.extra(first, r) as u32, self.extra(first + 1, r) as u32);
        let stride = Layout::of(self.c.g, self.rows.with(self.a.keys).iter()).stride(self.a.keys);
        let rate = f32::from_bits(dropout.rate) as f64;
        let draw = |s: usize| philox::uniform(seed, dropout.site, step, (self.weights[r] + s * stride) as u64) as f64;
        (0..self.keys()).map(|s| if draw(s) >= rate { 1.0 / (1.0 - rate) } else { 0.0 }).collect()
    }
}

/// exp(score - lse), which is 0 for a hidden key even in a row that sees none.
fn weight(score: f64, lse: f64) -> f64 {
    if score == f64::NEG_INFINITY { 0.0 } else { (score - lse).exp() }
}

pub(super) fn attention(c: &Call, a: &Attention) -> Vec<Tensor> {
    let rows = Rows::new(c, a);
    let (mut o, mut lse) = (c.zeros(0), c.zeros(1));
    let (o_rows, o_values) = (o.offsets(c.g, rows.rows), o.offsets(c.g, rows.values));
    for (r, o_row) in o_rows.into_iter().enumerate() {
        let scores = rows.scores(r);
        lse.data[r] = log_sum_exp(scores.iter().copied());
        for (s, kept) in rows.kept(r).into_iter().enumerate() {
            let w = weight(scores[s], lse.data[r]) * kept;
            for (i, j) in o_values.iter().zip(&rows.v_values) {
                o.data[o_row + i] += w * c.args[2].data[rows.v[r] + s * rows.v_step + j];
            }
        }
    }
    vec![o, lse]
}

/// With the weights p, dropout's factors m and Δ = Σ do·o: ds = p (m do·v - Δ), and q, k and v take what passes through
/// them, summed over the rows that share them.
pub(super) fn attention_grad(c: &Call, a: &Attention) -> Vec<Tensor> {
    let rows = Rows::new(c, a);
    let (mut dq, mut dk, mut dv) = (c.zeros(0), c.zeros(1), c.zeros(2));
    let (o, lse, d_o) = (c.args.len() - 3, c.args.len() - 2, c.args.len() - 1);
    let at = |i: usize| (c.offsets(i, rows.rows), c.offsets(i, rows.values));
    let ((o_rows, o_values), (d_rows, d_values), (lse_rows, _)) = (at(o), at(d_o), at(lse));
    for r in 0..rows.q.len() {
        let d_out = |i: usize| c.args[d_o].data[d_rows[r] + d_values[i]];
        let delta: f64 = (0..o_values.len()).map(|i| d_out(i) * c.args[o].data[o_rows[r] + o_values[i]]).sum();
        let scores = rows.scores(r);
        for (s, kept) in rows.kept(r).into_iter().enumerate() {
            let p = weight(scores[s], c.args[lse].data[lse_rows[r]]);
            let (k, v) = (rows.k[r] + s * rows.k_step, rows.v[r] + s * rows.v_step);
            let mut d_weight = 0.0;
            for (i, j) in rows.v_values.iter().enumerate() {
                d_weight += kept * d_out(i) * c.args[2].data[v + j];
                dv.data[v + j] += p * kept * d_out(i);
            }
            let d_score = a.scale() as f64 * p * (d_weight - delta);
            for (i, j) in rows.q_over.iter().zip(&rows.k_over) {
                dq.data[rows.q[r] + i] += d_score * c.args[1].data[k + j];
                dk.data[k + j] += d_score * c.args[0].data[rows.q[r] + i];
            }
        }
    }
    vec![dq, dk, dv]
}
