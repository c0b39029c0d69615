//! Routing: the greatest elements of a row, and products with the matrix that each row's index names.
use super::index::find;
use super::{Call, Tensor};
use crate::axis::AxisId;

pub(super) fn top_k(c: &Call, axis: AxisId, k: AxisId) -> Vec<Tensor> {
    let (mut values, mut index) = (c.zeros(0), c.zeros(1));
    let rows = c.out(0).without(k);
    let (there, step) = (values.offsets(c.g, rows), values.layout(c.g).stride(k));
    let along = c.offsets(0, axis.into());
    for (row, to) in c.offsets(0, rows).into_iter().zip(there) {
        let x = |i: usize| c.args[0].data[row + along[i]];
        let rank = |i: usize| if x(i).is_nan() { f64::INFINITY } else { x(i) };
        let mut order: Vec<usize> = (0..along.len()).collect();
        // A zero of either sign is the same number, which `total_cmp` alone does not know.
        order.sort_by(|a, b| (rank(*b) + 0.0).total_cmp(&(rank(*a) + 0.0)));
        for (j, i) in order.into_iter().take(c.len(k)).enumerate() {
            values.data[to + j * step] = x(i);
            index.data[to + j * step] = i as f64;
        }
    }
    vec![values, index]
}

pub(super) fn routed_dot(c: &Call, expert: AxisId, over: AxisId) -> Tensor {
    let out = c.out(0);
    let (x_rows, w_rows, index) = (c.offsets(0, out), c.offsets(1, out), c.offsets(2, out));
    let (x_along, w_along) = (c.offsets(0, over.into()), c.offsets(1, over.into()));
    let experts = c.offsets(1, expert.into());
    let f = |p: usize| -> f64 {
        let Some(e) = find(&experts, c.args[2].data[index[p]]) else { return 0.0 };
        let (x, w) = (&c.args[0].data, &c.args[1].data);
        x_along.iter().zip(&w_along).map(|(i, j)| x[x_rows[p] + i] * w[w_rows[p] + e + j]).sum()
    };
    Tensor { axes: out.iter().collect(), data: (0..x_rows.len()).map(f).collect() }
}

pub(super) fn routed_dot_grad(c: &Call, expert: AxisId) -> Tensor {
    let mut out = c.zeros(0);
    let rows = c.args[2].set();
    let matrix = c.out(0).without(expert);
    let (there, experts) = (out.offsets(c.g, matrix), out.offsets(c.g, expert.into()));
    let (x_rows, dy_rows, index) = (c.offsets(0, rows), c.offsets(1, rows), c.offsets(2, rows));
    let (x_along, dy_along) = (c.offsets(0, matrix), c.offsets(1, matrix));
    for (row, i) in index.into_iter().enumerate() {
        let Some(e) = find(&experts, c.args[2].data[i]) else { continue };
        for (p, to) in there.iter().enumerate() {
            out.data[e + to] += c.args[0].data[x_rows[row] + x_along[p]] * c.args[1].data[dy_rows[row] + dy_along[p]];
        }
    }
    out
}
