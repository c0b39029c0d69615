//! Attention for a GPU, and its gradient: kernels of plain mathematics, scores and weights included.
//!
//! There is no second definition of it: the operation is put into a graph of its own, on leaves that lie where its operands
//! lie, expanded, and lowered like any chain of small operations. Nothing of it is stored but its results; which scores
//! exist at once is a schedule, which code generation chooses.
//!
//! Where queries, keys and values are bf16, so are the weights when they are multiplied with the values. A gradient reads
//! bf16 if the gradient of the results is as well, and multiplies weights and slopes as such.
use super::gpu_segments::{in_segments, joining, segments};
use super::storage::Storage;
use super::stream::{Lowered, Stream};
use super::{Cx, Lowering};
use crate::cluster::Clusters;
use crate::precision::rounded_where;
use lolm_ir::axis::AxisId;
use lolm_ir::expand::expand;
use lolm_ir::graph::{Builder, Graph, GraphError, Leaf, LeafId, LeafKind, Output};
use lolm_ir::kernel::KAxis;
use lolm_ir::op::Op;
use lolm_ir::plan::{Kind, Place};
use lolm_ir::{DType, ValueId};
use std::cell::RefCell;
use std::sync::Arc;

/// The widest heads whose gradients of keys and of values one kernel makes: both are in registers until the end.
const TOGETHER: usize = 256;

/// An operation alone, in small operations; where its leaves lie, and its results.
struct Alone {
    graph: Graph,
    leaves: Vec<Storage>,
    results: Vec<Storage>,
}

impl Lowering<'_> {
    pub(super) fn attention_kernel(&mut self, v: ValueId) -> Result<(), String> {
        let g = self.cx.g;
        let Op::Attention(att) = g.node(v).op else { return Err("bug: not an attention".into()) };
        let small = self.in_small(v, att.keys, &[0, 1, 2])?;
        let rows = g.elements(g.node(v).types[1].axes);
        let name = format!("attention_{rows}x{}x{}", g.len(att.keys), g.elements(att.over));
        let kept = matches!(self.cx.buffer(small.leaves[1].buffer).place, Place::State(_));
        match segments(g.len(att.keys)).filter(|_| kept && att.dropout.is_none()) {
            Some(count) => self.in_segments(&small, att.keys, count, name),
            None => {
                self.kernel_of(&small, &small.outputs(), &[], name);
                Ok(())
            }
        }
    }

    /// An attention of each segment of the keys, and what joins them.
    fn in_segments(&mut self, small: &Alone, keys: AxisId, count: usize, name: String) -> Result<(), String> {
        let fault = |e: GraphError| format!("bug: segments of an attention: {e}");
        let g = &small.graph;
        let [results, rows] = [0, 1].map(|i| g.axes_of(g.outputs[i].value));
        let (graph, segment) = joining(g, results, rows, count).map_err(fault)?;
        let mut parts = vec![];
        for (what, axes) in [("results", results), ("lse", rows)] {
            let buffer = self.temporary(format!("segments.{what}"), count * g.elements(axes));
            parts.push(Storage::row_major(
                &graph,
                buffer,
                [segment].into_iter().chain(axes.iter()).collect::<Vec<_>>().into_iter(),
            ));
        }
        let wanted: Vec<(ValueId, Storage)> = g.outputs.iter().map(|o| o.value).zip(parts.iter().cloned()).collect();
        let (mut lowered, axis) = self.lowered_of(small, &wanted, &[], Some(keys));
        let axis = axis.ok_or("bug: an attention without keys")?;
        lowered.kernel = in_segments(&lowered.kernel, axis, count);
        self.launch(format!("{name}_in_{count}"), Kind::Attention, lowered);
        let joined = Alone { graph, leaves: parts, results: small.results.clone() };
        self.kernel_of(&joined, &joined.outputs(), &[], format!("join_attention_{}x{count}", g.elements(results)));
        Ok(())
    }

    /// The sums of each row's results times their gradients first; then the gradient of the queries, and in another kernel,
    /// which walks the other way, those of the keys and values.
    pub(super) fn attention_grad_kernels(&mut self, v: ValueId) -> Result<(), String> {
        let g = self.cx.g;
        let n = g.node(v);
        let Op::AttentionGrad(att) = n.op else { return Err("bug: not an attention gradient".into()) };
        let (d_o, o) = (n.args.len() - 1, n.args.len() - 3);
        let small = self.in_small(v, att.keys, &[0, 1, 2, d_o])?;
        let [dq, dk, dv] = small.outputs().try_into().map_err(|_| "bug: an attention has three gradients")?;
        let rows = g.axes_of(n.args[o + 1]);
        let (head, wide) = (g.elements(att.over), g.elements(g.axes_of(n.args[o]).minus(rows)));
        let size = format!("{}x{}x{head}", g.elements(rows), g.len(att.keys));
        let sum = row_sums(&small.graph, o);
        let axes = small.graph.axes_of(sum);
        let buffer = self.temporary("delta", g.elements(axes));
        let delta = (sum, Storage::row_major(&small.graph, buffer, axes.iter()));
        self.kernel_of(&small, std::slice::from_ref(&delta), &[], format!("attention_delta_{}", g.elements(axes)));
        self.kernel_of(&small, &[dq], std::slice::from_ref(&delta), format!("attention_grad_queries_{size}"));
        if head + wide <= TOGETHER {
            self.kernel_of(&small, &[dk, dv], &[delta], format!("attention_grad_keys_values_{size}"));
        } else {
            self.kernel_of(&small, &[dk], &[delta], format!("attention_grad_keys_{size}"));
            self.kernel_of(&small, &[dv], &[], format!("attention_grad_values_{size}"));
        }
        Ok(())
    }

    /// The operation alone. If these operands are all bf16, so are weights and slopes where they are multiplied.
    fn in_small(&self, v: ValueId, keys: AxisId, factors: &[usize]) -> Result<Alone, String> {
        let g = self.cx.g;
        let fault = |e: GraphError| format!("bug: an attention alone: {e}");
        let view = |a: &ValueId| self.cx.view(*a).ok_or(format!("bug: operand %{} of an attention has no memory", a.0));
        let leaves = g.node(v).args.iter().map(view).collect::<Result<Vec<_>, _>>()?;
        let results = self.cx.storage[v.0 as usize].iter().cloned().collect::<Option<Vec<_>>>();
        let results = results.ok_or("bug: an attention without storage")?;
        let mut graph = expand(&alone(g, v).map_err(fault)?, &|_| true).map_err(fault)?;
        if factors.iter().all(|i| self.cx.buffer(leaves[*i].buffer).dtype == DType::Bf16) {
            let inside = |g: &Graph, v: ValueId, i: usize| {
                let x = g.node(v).args[0];
                let computed = !matches!(g.node(x).op, Op::Leaf(_)) && g.axes_of(x).has(keys);
                i == 0 && computed && matches!(g.node(v).op, Op::Dot { .. })
            };
            graph = rounded_where(&graph, &inside, &|_| false).map_err(fault)?;
        }
        Ok(Alone { graph, leaves, results })
    }

    /// A launch that computes values of an operation alone, and stores them there. Known values are read.
    fn kernel_of(&mut self, alone: &Alone, wanted: &[(ValueId, Storage)], known: &[(ValueId, Storage)], name: String) {
        let (lowered, _) = self.lowered_of(alone, wanted, known, None);
        self.launch(name, Kind::Attention, lowered);
    }

    /// The kernel, and what this axis is in it.
    fn lowered_of(
        &mut self,
        alone: &Alone,
        wanted: &[(ValueId, Storage)],
        known: &[(ValueId, Storage)],
        axis: Option<AxisId>,
    ) -> (Lowered, Option<KAxis>) {
        let small = &alone.graph;
        let clusters = Clusters { groups: vec![], owner: vec![None; small.nodes.len()] };
        let of = |v: ValueId| match small.node(v).op {
            Op::Leaf(l) => vec![Some(alone.leaves[l.0 as usize].clone())],
            _ => known.iter().filter(|k| k.0 == v).map(|k| Some(k.1.clone())).collect(),
        };
        let storage = small.ids().map(of).collect();
        let buffers = std::mem::take(&mut self.cx.buffers);
        let cx = Cx { g: small, clusters: &clusters, buffers, storage, faults: RefCell::default() };
        let mut s = Stream::new(&cx, None);
        for (v, to) in wanted {
            let map = s.identity(small.axes_of(*v));
            let x = s.value(*v, &map, None);
            s.store(to, &map, x);
        }
        let axis = axis.map(|a| s.axis(a));
        let lowered = s.finish();
        let Cx { buffers, faults, .. } = cx;
        self.cx.buffers = buffers;
        self.cx.faults.borrow_mut().extend(faults.into_inner());
        (lowered, axis)
    }
}

impl Alone {
    /// The results, and where they belong.
    fn outputs(&self) -> Vec<(ValueId, Storage)> {
        self.graph.outputs.iter().map(|o| o.value).zip(self.results.iter().cloned()).collect()
    }
}

/// The last value that is made of this leaf and of no query, key or value: of the results, the sum over each row of the
/// products with their gradients.
fn row_sums(g: &Graph, results: usize) -> ValueId {
    let (mut of_results, mut of_scores) = (vec![], vec![]);
    let mut last = ValueId(0);
    for v in g.ids() {
        let n = g.node(v);
        let any = |of: &[bool]| n.args.iter().any(|a| of[a.0 as usize]);
        let leaf = if let Op::Leaf(l) = n.op { Some(l.0 as usize) } else { None };
        let (results, scores) =
            (leaf == Some(results) || any(&of_results), leaf.is_some_and(|l| l < 3) || any(&of_scores));
        if results && !scores {
            last = v;
        }
        of_results.push(results);
        of_scores.push(scores);
    }
    last
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
