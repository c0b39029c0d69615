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
use lolm_ir::graph::{Args, Builder, Graph, GraphError, LeafId, LeafKind, Output, ValueId, Write, infer};
use lolm_ir::op::Op;

mod fold;
mod identities;

/// The same program, smaller.
pub fn canonicalize(g: &Graph) -> Result<Graph, GraphError> {
    Ok(swept(&rewritten(g)?))
}

/// Builds a graph again, each operation in its simplest form.
struct Rewriter {
    b: Builder,
}

fn rewritten(g: &Graph) -> Result<Graph, GraphError> {
    let mut r = Rewriter { b: Builder::extend(g.bare()) };
    let live = live(g);
    // Values that nothing reaches keep the place of value 0, which nobody reads.
    let mut new = vec![ValueId(0); g.nodes.len()];
    for v in g.ids().filter(|v| live[v.0 as usize]) {
        let node = g.node(v);
        r.b.set_scope(node.scope);
        let args: Args = node.args.iter().map(|a| new[a.0 as usize]).collect();
        new[v.0 as usize] = r.make(node.op.clone(), &args);
    }
    let mut out = r.b.finish()?;
    out.outputs = g.outputs.iter().map(|o| Output { value: new[o.value.0 as usize], ..o.clone() }).collect();
    out.writes = g.writes.iter().map(|w| Write { value: new[w.value.0 as usize], ..w.clone() }).collect();
    Ok(out)
}

impl Rewriter {
    /// The simplest value that equals this operation on these operands.
    fn make(&mut self, op: Op, args: &[ValueId]) -> ValueId {
        if let Some(c) = fold::constant(self.b.graph(), &op, args) {
            return self.b.op(Op::Const(c), &[]);
        }
        match self.simpler(&op, args) {
            Some(v) if self.has_type_of(v, &op, args) => v,
            Some(_) | None => self.b.op(op, args),
        }
    }

    fn has_type_of(&self, v: ValueId, op: &Op, args: &[ValueId]) -> bool {
        infer(self.b.graph(), op, args).is_ok_and(|types| types == [self.b.graph().ty(v)])
    }
}

/// Which values an output or a write needs.
fn live(g: &Graph) -> Vec<bool> {
    let mut live = vec![false; g.nodes.len()];
    for v in g.outputs.iter().map(|o| o.value).chain(g.writes.iter().map(|w| w.value)) {
        live[v.0 as usize] = true;
    }
    for v in g.ids().rev() {
        if live[v.0 as usize] {
            for a in &g.node(v).args {
                live[a.0 as usize] = true;
            }
        }
    }
    live
}

/// The graph without dead operations and dead leaves.
fn swept(g: &Graph) -> Graph {
    let live = live(g);
    let leaf_id = kept_leaves(g, &live);
    let mut new = vec![ValueId(0); g.nodes.len()];
    let mut out = Graph {
        name: g.name.clone(),
        axes: g.axes.clone(),
        leaves: g.leaves.iter().zip(&leaf_id).filter(|(_, id)| id.is_some()).map(|(l, _)| l.clone()).collect(),
        scopes: g.scopes.clone(),
        ..Graph::default()
    };
    for v in g.ids().filter(|v| live[v.0 as usize]) {
        let mut node = g.node(v).clone();
        if let Op::Leaf(l) = &mut node.op
            && let Some(id) = leaf_id[l.0 as usize]
        {
            *l = id;
        }
        for a in &mut node.args {
            *a = new[a.0 as usize];
        }
        new[v.0 as usize] = ValueId(out.nodes.len() as u32);
        out.nodes.push(node);
    }
    out.outputs = g.outputs.iter().map(|o| Output { value: new[o.value.0 as usize], ..o.clone() }).collect();
    let writes = g.writes.iter().filter_map(|w| Some((leaf_id[w.leaf.0 as usize]?, w.value)));
    out.writes = writes.map(|(leaf, v)| Write { leaf, value: new[v.0 as usize] }).collect();
    out
}

/// The new id of each leaf that stays: parameters, and what is read or written.
fn kept_leaves(g: &Graph, live: &[bool]) -> Vec<Option<LeafId>> {
    let mut keep: Vec<bool> = g.leaves.iter().map(|l| matches!(l.kind, LeafKind::Param(_))).collect();
    for (n, live) in g.nodes.iter().zip(live) {
        if let (Op::Leaf(l), true) = (&n.op, *live) {
            keep[l.0 as usize] = true;
        }
    }
    for w in &g.writes {
        keep[w.leaf.0 as usize] = true;
    }
    let mut next = 0..;
    keep.into_iter().map(|k| if k { next.next().map(LeafId) } else { None }).collect()
}
