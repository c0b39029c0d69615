//! Split reductions: a large reduction to few elements becomes two, the first of which has rows to share among threads.
//!
//! Before: any graph. After: the same values; the sum of squares of a matrix is a sum over its columns, then over its
//! rows.
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::graph::{Graph, GraphError};
use lolm_ir::op::{Op, Reduction};
use lolm_ir::{Node, ValueId};

/// Rows below which a reduction of at least `LARGE` elements is split.
const FEW: usize = 16;
const LARGE: usize = 1 << 14;

pub fn split_reductions(mut g: Graph) -> Result<Graph, GraphError> {
    let nodes = std::mem::take(&mut g.nodes);
    g.nodes.reserve(nodes.len());
    let mut map: Vec<ValueId> = Vec::with_capacity(nodes.len());
    for mut n in nodes {
        n.args.iter_mut().for_each(|a| *a = map[a.0 as usize]);
        map.push(match split(&g, &n) {
            Some((first, then)) => {
                let kind = match n.op {
                    Op::Reduce { kind, .. } => kind,
                    _ => Reduction::Sum,
                };
                let inner = match n.op {
                    Op::Dot { .. } => Op::Dot { axes: first },
                    _ => Op::Reduce { kind, axes: first },
                };
                let x = g.push(inner, &n.args, n.scope)?;
                g.push(Op::Reduce { kind, axes: then }, &[x], n.scope)?
            }
            None => g.adopt(n),
        });
    }
    g.outputs.iter_mut().for_each(|o| o.value = map[o.value.0 as usize]);
    g.writes.iter_mut().for_each(|w| w.value = map[w.value.0 as usize]);
    Ok(g)
}

/// The axes to reduce first and last: the last are the outermost in memory, as few as give rows enough.
fn split(g: &Graph, n: &Node) -> Option<(AxisSet, AxisSet)> {
    let axes = match n.op {
        Op::Reduce { axes, .. } => axes,
        Op::Dot { axes } if n.args[0] == n.args[1] => axes,
        _ => return None,
    };
    if axes.len() < 2 || g.elements(n.ty().axes) >= FEW || g.elements(axes) < LARGE {
        return None;
    }
    let operand = g.axes_of(n.args[0]);
    let order: Vec<AxisId> =
        crate::lower::storage::natural_order(g, operand).into_iter().filter(|a| axes.has(*a)).collect();
    let mut last = AxisSet::EMPTY;
    for a in &order[..order.len() - 1] {
        last = last.with(*a);
        if g.elements(last) >= FEW {
            break;
        }
    }
    Some((axes.minus(last), last))
}
