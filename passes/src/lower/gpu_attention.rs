//! Attention for a GPU: one kernel of plain mathematics, scores and weights included.
//!
//! There is no second definition of it: the operation is put into a graph of its own, on leaves that lie where its operands
//! lie, expanded, and lowered like any chain of small operations. Nothing of it is stored but its results; which scores
//! exist at once is a schedule, which code generation chooses.
//!
//! Where queries, keys and values are bf16, so are the weights when they are multiplied with the values.
use super::storage::Storage;
use super::stream::Stream;
use super::{Cx, Lowering};
use crate::cluster::Clusters;
use crate::precision::rounded_where;
use lolm_ir::axis::AxisSet;
use lolm_ir::expand::expand;
use lolm_ir::graph::{Builder, Graph, GraphError, Leaf, LeafId, LeafKind, Output};
use lolm_ir::op::Op;
use lolm_ir::plan::Kind;
use lolm_ir::{DType, ValueId};
use std::cell::RefCell;
use std::sync::Arc;

impl Lowering<'_> {
    pub(super) fn attention_kernel(&mut self, v: ValueId) -> Result<(), String> {
        let g = self.cx.g;
        let Op::Attention(att) = g.node(v).op else { return Err("bug: not an attention".into()) };
        let fault = |e: GraphError| format!("bug: an attention alone: {e}");
        let view = |a: &ValueId| self.cx.view(*a).ok_or(format!("bug: operand %{} of an attention has no memory", a.0));
        let operands = g.node(v).args.iter().map(view).collect::<Result<Vec<_>, _>>()?;
        let results = self.cx.storage[v.0 as usize].iter().cloned().collect::<Option<Vec<_>>>();
        let results = results.ok_or("bug: an attention without storage")?;
        let mut small = expand(&alone(g, v).map_err(fault)?, &|_| true).map_err(fault)?;
        if operands[..3].iter().all(|s| self.cx.buffer(s.buffer).dtype == DType::Bf16) {
            let weights = Op::Dot { axes: AxisSet::from_iter([att.keys]) };
            small = rounded_where(&small, &|g, v| (g.node(v).op == weights) as usize).map_err(fault)?;
        }
        let rows = g.elements(g.node(v).types[1].axes);
        let name = format!("attention_{rows}x{}x{}", g.len(att.keys), g.elements(att.over));
        self.kernel_of(&small, operands, results, name)
    }

    /// A launch that computes the outputs of a graph whose leaves lie there, and stores them there.
    fn kernel_of(
        &mut self,
        small: &Graph,
        leaves: Vec<Storage>,
        results: Vec<Storage>,
        name: String,
    ) -> Result<(), String> {
        let clusters = Clusters { groups: vec![], owner: vec![None; small.nodes.len()] };
        let of = |v: ValueId| match small.node(v).op {
            Op::Leaf(l) => vec![Some(leaves[l.0 as usize].clone())],
            _ => vec![],
        };
        let storage = small.ids().map(of).collect();
        let buffers = std::mem::take(&mut self.cx.buffers);
        let cx = Cx { g: small, clusters: &clusters, buffers, storage, faults: RefCell::default() };
        let mut s = Stream::new(&cx, None);
        for (out, to) in small.outputs.iter().zip(&results) {
            let map = s.identity(small.axes_of(out.value));
            let x = s.value(out.value, &map, None);
            s.store(to, &map, x);
        }
        let lowered = s.finish();
        let Cx { buffers, faults, .. } = cx;
        self.cx.buffers = buffers;
        self.cx.faults.borrow_mut().extend(faults.into_inner());
        self.launch(name, Kind::Attention, lowered);
        Ok(())
    }
}

/// A graph of this operation alone, whose leaves are its operands in order, and whose outputs are its results.
fn alone(g: &Graph, v: ValueId) -> Result<Graph, GraphError> {
    let n = g.node(v);
    let leaf = |a: &ValueId| {
        let t = g.ty(*a);
        let dims = t.axes.iter().map(|a| vec![a]).collect();
        Leaf { name: format!("operand{}", a.0), kind: LeafKind::Input, dtype: t.dtype, dims }
    };
    let leaves = Arc::new(n.args.iter().map(leaf).collect::<Vec<_>>());
    let mut b = Builder::extend(Graph { leaves, ..g.bare() });
    let args: Vec<ValueId> = (0..n.args.len() as u32).map(|i| b.op(Op::Leaf(LeafId(i)), &[])).collect();
    let whole = b.op(n.op.clone(), &args);
    let parts: Vec<ValueId> = (1..n.types.len()).map(|i| b.part(whole, i)).collect();
    let mut out = b.finish()?;
    let output = |v| Output { name: String::new(), value: v, dims: vec![] };
    out.outputs = std::iter::once(whole).chain(parts).map(output).collect();
    Ok(out)
}
