//! Leaves: fed tensors, tables and randomness.
use super::{Call, Feeds, InterpError, Layout, Tensor};
use crate::axis::{AxisId, AxisSet};
use crate::dtype::DType;
use crate::graph::{Graph, Leaf, LeafId, LeafKind, Table};
use crate::philox;

/// A leaf's contents, brought from the order of its dims to ascending order.
pub(super) fn read(g: &Graph, id: LeafId, feeds: &Feeds) -> Result<Tensor, InterpError> {
    let leaf = g.leaf(id);
    let stored = match &leaf.kind {
        LeafKind::Table(t) => stored_table(g, leaf, t)?,
        LeafKind::Param(_) | LeafKind::Input | LeafKind::State { .. } => fed(g, leaf, feeds)?,
    };
    let order: Vec<AxisId> = leaf.order().collect();
    let offsets = Layout::of(g, order.iter().copied()).offsets(g, leaf.axes());
    Ok(Tensor { axes: leaf.axes().iter().collect(), data: offsets.into_iter().map(|o| stored[o]).collect() })
}

fn fed(g: &Graph, leaf: &Leaf, feeds: &Feeds) -> Result<Vec<f64>, InterpError> {
    let shape = leaf.shape(g);
    let (name, expected) = (leaf.name.clone(), shape.iter().product());
    let Some(data) = feeds.get(&leaf.name) else {
        return Err(InterpError::MissingFeed { leaf: name, expected });
    };
    if data.len() != expected {
        return Err(InterpError::FeedLength { leaf: name, shape, expected, found: data.len() });
    }
    let fits = |x: f64| match leaf.dtype {
        DType::F32 | DType::Bf16 => true,
        DType::I32 => x == x as i32 as f64,
        DType::Bool => x == 0.0 || x == 1.0,
    };
    match data.iter().position(|x| !fits(*x)) {
        Some(index) => Err(InterpError::FeedValue { leaf: name, dtype: leaf.dtype, index, value: data[index] }),
        None => Ok(data.clone()),
    }
}

fn stored_table(g: &Graph, leaf: &Leaf, t: &Table) -> Result<Vec<f64>, InterpError> {
    match leaf.shape(g)[..] {
        [rows, cols] => Ok(table(t, rows, cols)),
        ref shape => Err(InterpError::TableDims { leaf: leaf.name.clone(), dims: shape.len() }),
    }
}

/// The contents of a table of positions × frequencies, row-major.
pub fn table(t: &Table, rows: usize, cols: usize) -> Vec<f64> {
    let (theta, scaling, f): (f64, _, fn(f64) -> f64) = match t {
        Table::RopeCos { theta, scaling } => (*theta, scaling, f64::cos),
        Table::RopeSin { theta, scaling } => (*theta, scaling, f64::sin),
    };
    let rate = |i: usize| {
        let frequency = theta.powf(-(i as f64) / cols as f64);
        scaling.map_or(frequency, |s| s.apply(frequency))
    };
    (0..rows).flat_map(|pos| (0..cols).map(move |i| f(pos as f64 * rate(i)))).collect()
}

/// Draws over `axes` in their order, for every seed and step that the operands hold.
pub(super) fn random(c: &Call, axes: &[AxisId], site: u32) -> Tensor {
    let mut out = c.zeros(0);
    let rest = c.out(0).minus(AxisSet::of(axes));
    let (at, rows) = (out.layout(c.g).offsets_in_order(c.g, axes), out.offsets(c.g, rest));
    // An axis that a seed varies over may be drawn over too, so its offsets run over all axes of the result.
    let (seeds, steps) = (c.offsets(0, c.out(0)), c.offsets(1, c.out(0)));
    for row in rows {
        for (index, o) in at.iter().map(|o| row + o).enumerate() {
            let (seed, step) = (c.args[0].data[seeds[o]] as i32 as u32, c.args[1].data[steps[o]] as i32 as u32);
            out.data[o] = philox::uniform(seed, site, step, index as u64) as f64;
        }
    }
    out
}
