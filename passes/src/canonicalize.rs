//! Canonicalize: constants folded, identities applied, equal operations merged, dead code gone.
//!
//! *Before*: any graph. *After*: one that computes the same values with no more operations, in topological order. Every
//! operation is reached from an output or a write, no two have the same operation and operands (draws of randomness are
//! told apart by their site), and none has constant operands only if its value is a finite constant.
//!
//! An identity is applied where it never changes a result for the worse: signs of zero aside, the bits stay the same.
//! `x·0` stays, because x may be NaN. A replacement has the type of what it replaces, so a scalar never stands for a
//! tensor.
//!
//! Axes and scopes keep their ids. Leaves that nothing reads or writes are dropped, except parameters: one without a use
//! still exists, and has a zero gradient. So values and leaves have new ids; find them again by name.
use lolm_ir::graph::{Args, Builder, Graph, GraphError, LeafId, LeafKind, Node, Output, ValueId, Write, infer};
use lolm_ir::op::Op;
use std::sync::Arc;

mod fold;
mod identities;

/// The same program, smaller.
pub fn canonicalize(g: &Graph) -> Result<Graph, GraphError> {
    Ok(swept(rewritten(g)?))
}

/// Builds a graph again, each operation in its simplest form.
struct Rewriter {
    b: Builder,
}

fn rewritten(g: &Graph) -> Result<Graph, GraphError> {
    let mut r = Rewriter { b: Builder::extend(g.bare()) };
    let live = g.live();
    // Values that nothing reaches keep the place of value 0, which nobody reads.
    let mut new = vec![ValueId(0); g.nodes.len()];
    for v in g.ids().filter(|v| live[v.0 as usize]) {
        let node = g.node(v);
        r.b.set_scope(node.scope);
        let args: Args = node.args.iter().map(|a| new[a.0 as usize]).collect();
        new[v.0 as usize] = r.simplest(node, args);
    }
    let mut out = r.b.finish()?;
    out.outputs = g.outputs.iter().map(|o| Output { value: new[o.value.0 as usize], ..o.clone() }).collect();
    out.writes = g.writes.iter().map(|w| Write { value: new[w.value.0 as usize], ..w.clone() }).collect();
    Ok(out)
}

impl Rewriter {
    /// The simplest value that equals this operation on these operands.
    fn make(&mut self, op: Op, args: &[ValueId]) -> ValueId {
        match infer(self.b.graph(), &op, args) {
            Ok(types) => {
                let node = Node { op, args: args.into(), types, scope: self.b.current_scope() };
                self.simplest(&node, args.into())
            }
            // The builder remembers what is wrong with it.
            Err(_) => self.b.op(op, args),
        }
    }

    /// As [`Rewriter::make`], for an operation whose types are known.
    fn simplest(&mut self, node: &Node, args: Args) -> ValueId {
        if let Some(c) = fold::constant(self.b.graph(), &node.op, &args) {
            return self.b.op(Op::Const(c), &[]);
        }
        match self.simpler(&node.op, &args) {
            Some(v) if *node.types == [self.b.graph().ty(v)] => v,
            Some(_) | None => self.b.adopt(node, args),
        }
    }
}

/// The graph without dead operations and dead leaves.
fn swept(g: Graph) -> Graph {
    let mut g = g.swept();
    let ids = kept_leaves(&g);
    if ids.iter().all(|id| id.is_some()) {
        return g;
    }
    for n in &mut g.nodes {
        if let Op::Leaf(l) = &mut n.op
            && let Some(id) = ids[l.0 as usize]
        {
            *l = id;
        }
    }
    g.writes.iter_mut().for_each(|w| w.leaf = ids[w.leaf.0 as usize].unwrap_or(w.leaf));
    let mut ids = ids.iter();
    Arc::make_mut(&mut g.leaves).retain(|_| ids.next().is_some_and(|id| id.is_some()));
    g
}

/// The new id of each leaf that stays: parameters, and what is read or written.
fn kept_leaves(g: &Graph) -> Vec<Option<LeafId>> {
    let mut keep: Vec<bool> = g.leaves.iter().map(|l| matches!(l.kind, LeafKind::Param(_))).collect();
    for n in &g.nodes {
        if let Op::Leaf(l) = n.op {
            keep[l.0 as usize] = true;
        }
    }
    for w in &g.writes {
        keep[w.leaf.0 as usize] = true;
    }
    let mut next = 0..;
    keep.into_iter().map(|k| if k { next.next().map(LeafId) } else { None }).collect()
}
