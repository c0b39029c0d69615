//! Index operations: the same elements elsewhere.
use super::{Call, Tensor};
use crate::axis::{AxisId, AxisSet};

pub(super) fn rename(c: &Call, from: AxisId, to: AxisId) -> Tensor {
    let at = c.layout(0).renamed(from, to).offsets(c.g, c.out(0));
    Tensor { axes: c.out(0).iter().collect(), data: at.into_iter().map(|o| c.args[0].data[o]).collect() }
}

/// The elements from `start` of `axis`, along the axis `to`, or only the first of them.
pub(super) fn window(c: &Call, axis: AxisId, start: usize, to: Option<AxisId>) -> Tensor {
    let layout = c.layout(0);
    let first = start * layout.stride(axis);
    let layout = to.map_or(layout.clone(), |to| layout.renamed(axis, to));
    let at = layout.offsets(c.g, c.out(0));
    Tensor { axes: c.out(0).iter().collect(), data: at.into_iter().map(|o| c.args[0].data[first + o]).collect() }
}

/// Writes operand `i`, which runs along `from`, into `out` from `start` of the axis `to`.
fn place(c: &Call, out: &mut Tensor, i: usize, (from, to): (AxisId, AxisId), start: usize) {
    let (step, x_step) = (out.layout(c.g).stride(to), c.layout(i).stride(from));
    // The result may have an axis `from` of its own, which is not the one that is laid along `to`.
    let space = out.set().without(to);
    let xs = c.layout(i).renamed(from, to).offsets(c.g, space);
    for (o, x) in out.offsets(c.g, space).into_iter().zip(xs) {
        for k in 0..c.len(from) {
            out.data[o + (start + k) * step] = c.args[i].data[x + k * x_step];
        }
    }
}

pub(super) fn pad(c: &Call, axis: AxisId, start: usize, to: AxisId) -> Tensor {
    let mut out = c.zeros(0);
    place(c, &mut out, 0, (axis, to), start);
    out
}

pub(super) fn concat(c: &Call, axis: AxisId, parts: &[AxisId]) -> Tensor {
    let mut out = c.zeros(0);
    let mut start = 0;
    for (i, part) in parts.iter().enumerate() {
        place(c, &mut out, i, (*part, axis), start);
        start += c.len(*part);
    }
    out
}

pub(super) fn stack(c: &Call, axis: AxisId) -> Tensor {
    let mut out = c.zeros(0);
    let space = c.out(0).without(axis);
    let (there, step) = (out.offsets(c.g, space), out.layout(c.g).stride(axis));
    for i in 0..c.args.len() {
        for (o, x) in there.iter().zip(c.offsets(i, space)) {
            out.data[i * step + o] = c.args[i].data[x];
        }
    }
    out
}

pub(super) fn shift(c: &Call, axis: AxisId, by: i64) -> Tensor {
    let mut out = c.zeros(0);
    let (rows, along) = (c.offsets(0, c.out(0).without(axis)), c.offsets(0, axis.into()));
    for row in rows {
        for (t, o) in along.iter().enumerate() {
            if let Some(from) = (t as i64).checked_sub(by).and_then(|t| along.get(usize::try_from(t).ok()?)) {
                out.data[row + o] = c.args[0].data[row + from];
            }
        }
    }
    out
}

/// The place of an index in a table of offsets; nothing if it points outside.
pub(super) fn find(along: &[usize], index: f64) -> Option<usize> {
    if index < 0.0 { None } else { along.get(index as usize).copied() }
}

pub(super) fn gather(c: &Call, axis: AxisId) -> Tensor {
    let (x, index) = (c.args[0], c.args[1]);
    let rows = c.offsets(0, c.out(0).without(axis));
    let along = c.offsets(0, axis.into());
    let indices = c.offsets(1, c.out(0));
    let f = |(row, i): (usize, usize)| find(&along, index.data[i]).map_or(0.0, |o| x.data[row + o]);
    Tensor { axes: c.out(0).iter().collect(), data: rows.into_iter().zip(indices).map(f).collect() }
}

pub(super) fn scatter_add(c: &Call, axis: AxisId, over: AxisSet) -> Tensor {
    let mut out = c.args.get(2).map_or_else(|| c.zeros(0), |base| (*base).clone());
    let rows = c.out(0).without(axis);
    let (there, along) = (out.offsets(c.g, rows), out.offsets(c.g, axis.into()));
    let (index_rows, x_rows) = (c.offsets(0, rows), c.offsets(1, rows));
    let (index_over, x_over) = (c.offsets(0, over), c.offsets(1, over));
    for (r, row) in there.into_iter().enumerate() {
        for (i, x) in index_over.iter().zip(&x_over) {
            if let Some(o) = find(&along, c.args[0].data[index_rows[r] + i]) {
                out.data[row + o] += c.args[1].data[x_rows[r] + x];
            }
        }
    }
    out
}

pub(super) fn update(c: &Call, axis: AxisId) -> Tensor {
    let mut out = c.args[0].clone();
    let along = c.offsets(0, axis.into());
    let space = c.out(0).without(axis).union(c.args[1].set());
    let (there, index, x) = (c.offsets(0, space), c.offsets(1, space), c.offsets(2, space));
    for (p, row) in there.into_iter().enumerate() {
        if let Some(o) = find(&along, c.args[1].data[index[p]]) {
            out.data[row + o] = c.args[2].data[x[p]];
        }
    }
    out
}
