//! Reductions: sums, maxima and contractions.
use super::elementwise::maximum;
use super::{Call, Tensor};
use crate::axis::{AxisId, AxisSet};
use crate::dtype::DType;
use crate::op::Reduction;

pub(super) fn reduce(c: &Call, kind: Reduction, axes: AxisSet) -> Tensor {
    let (rows, along) = (c.offsets(0, c.out(0)), c.offsets(0, axes));
    let int = c.dtype(0) == DType::I32;
    let f = |row: usize| {
        let terms = along.iter().map(|o| c.args[0].data[row + o]);
        match kind {
            Reduction::Sum if int => terms.sum::<f64>() as i64 as i32 as f64,
            Reduction::Sum => terms.sum(),
            Reduction::Mean => terms.sum::<f64>() / along.len() as f64,
            Reduction::Max => terms.reduce(maximum).unwrap_or(f64::NEG_INFINITY),
        }
    };
    Tensor { axes: c.out(0).iter().collect(), data: rows.into_iter().map(f).collect() }
}

pub(super) fn argmax(c: &Call, axis: AxisId) -> Tensor {
    let (rows, along) = (c.offsets(0, c.out(0)), c.offsets(0, axis.into()));
    let x = |row: usize, i: usize| c.args[0].data[row + along[i]];
    let f = |row: usize| (1..along.len()).fold(0, |best, i| if x(row, i) > x(row, best) { i } else { best }) as f64;
    Tensor { axes: c.out(0).iter().collect(), data: rows.into_iter().map(f).collect() }
}

pub(super) fn dot(c: &Call, axes: AxisSet) -> Tensor {
    let (x_rows, y_rows) = (c.offsets(0, c.out(0)), c.offsets(1, c.out(0)));
    let (x_along, y_along) = (c.offsets(0, axes), c.offsets(1, axes));
    let (x, y) = (&c.args[0].data, &c.args[1].data);
    let f =
        |(xr, yr): (usize, usize)| -> f64 { x_along.iter().zip(&y_along).map(|(i, j)| x[xr + i] * y[yr + j]).sum() };
    Tensor { axes: c.out(0).iter().collect(), data: x_rows.into_iter().zip(y_rows).map(f).collect() }
}
