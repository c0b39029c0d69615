//! Split reductions: a large reduction to few elements becomes two, the first of which has rows to share among threads.
//!
//! Before: any graph. After: the same values; the sum of squares of a matrix is a sum over its columns, then over its
//! rows.
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::graph::{Args, Builder, Graph, GraphError, Output, Write};
use lolm_ir::op::{Op, Reduction};
use lolm_ir::{Node, ValueId};

/// Rows below which a reduction of at least `LARGE` elements is split.
const FEW: usize = 16;
const LARGE: usize = 1 << 14;

pub fn split_reductions(g: &Graph) -> Result<Graph, GraphError> {
    let bare = g.bare();
    let mut b = Builder::extend(bare);
    let mut map: Vec<ValueId> = Vec::with_capacity(g.nodes.len());
    for n in &g.nodes {
        b.set_scope(n.scope);
        let args: Args = n.args.iter().map(|a| map[a.0 as usize]).collect();
        let v = match split(g, n) {
            Some((first, then)) => {
                let kind = match n.op {
                    Op::Reduce { kind, .. } => kind,
                    _ => Reduction::Sum,
                };
                let inner = match n.op {
                    Op::Dot { .. } => Op::Dot { axes: first },
                    _ => Op::Reduce { kind, axes: first },
                };
                let x = b.op(inner, &args);
                b.op(Op::Reduce { kind, axes: then }, &[x])
            }
            None => b.op(n.op.clone(), &args),
        };
        map.push(v);
    }
    let mut out = b.finish()?;
    let at = |v: ValueId| map[v.0 as usize];
    out.outputs = g.outputs.iter().map(|o| Output { value: at(o.value), ..o.clone() }).collect();
    out.writes = g.writes.iter().map(|w| Write { value: at(w.value), ..w.clone() }).collect();
    Ok(out)
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
