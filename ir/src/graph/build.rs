//! The builder: a graph written as a model reads, with equal operations merged and the first error kept for the end.
use super::known::Known;
use super::{
    Args, Dim, Graph, GraphError, Init, Leaf, LeafId, LeafKind, Node, Output, RowKind, ScopeId, Table, ValueId, Write,
};
use crate::axis::{AxisId, AxisSet};
use crate::dtype::{DType, Scalar};
use crate::hash::QuickMap;
use crate::op::{Binary, Op, Reduction, Unary};
use std::sync::Arc;

/// Builds a graph operation by operation. A faulty operation is remembered and answered with its first operand, so that
/// model code stays free of error handling; [`Builder::finish`] returns the first fault.
pub struct Builder {
    graph: Graph,
    scope: ScopeId,
    known: Known,
    /// Leaves by name, once one was asked for.
    leaves: Option<QuickMap<String, LeafId>>,
    fault: Option<GraphError>,
    sites: u32,
}

impl Builder {
    pub fn new(name: impl Into<String>) -> Self {
        Builder::extend(Graph::new(name))
    }

    /// Goes on with a graph that exists; new operations merge with equal ones of it.
    pub fn extend(graph: Graph) -> Self {
        let known = Known::of(&graph.nodes);
        let used = graph.nodes.iter().filter_map(|n| match &n.op {
            Op::Random { site, .. } => Some(site + 1),
            Op::Attention(a) | Op::AttentionGrad(a) => a.dropout.map(|d| d.site + 1),
            _ => None,
        });
        let sites = used.max().unwrap_or(0);
        Builder { scope: ScopeId(0), known, leaves: None, fault: None, sites, graph }
    }

    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The graph, or the first thing that was wrong with it.
    pub fn finish(self) -> Result<Graph, GraphError> {
        match self.fault {
            Some(e) => Err(e),
            None => Ok(self.graph),
        }
    }

    /// Operations added from here on belong to this part of the model.
    pub fn scope(&mut self, name: &str) {
        self.scope = self.graph.add_scope(name);
    }
    pub fn current_scope(&self) -> ScopeId {
        self.scope
    }
    /// Goes back to a scope of the graph.
    pub fn set_scope(&mut self, s: ScopeId) {
        self.scope = s;
    }

    /// The axis of this name, added if it is new. A name has one length.
    pub fn axis(&mut self, name: &str, len: usize) -> AxisId {
        match self.graph.find_axis(name) {
            Some(a) if self.graph.len(a) == len => a,
            Some(a) => {
                let was = self.graph.len(a);
                self.fail(format!("axis `{name}` has length {was}, not {len}"));
                a
            }
            None => match self.graph.add_axis(name, len) {
                Ok(a) => a,
                Err(e) => {
                    self.fault.get_or_insert(e);
                    AxisId(0)
                }
            },
        }
    }

    /// A number for a new draw of randomness.
    pub fn site(&mut self) -> u32 {
        self.sites += 1;
        self.sites - 1
    }

    /// Records a fault; the first one is what [`Builder::finish`] returns.
    pub fn fail(&mut self, fault: impl Into<String>) {
        let (graph, scope) = (self.graph.name.clone(), self.graph.scope(self.scope).into());
        self.fault.get_or_insert(GraphError { graph, scope, fault: fault.into() });
    }

    /// Adds an operation, or finds an equal one.
    pub fn op(&mut self, op: Op, args: &[ValueId]) -> ValueId {
        let place = match self.known.find(&self.graph.nodes, &op, args) {
            Ok(v) => return v,
            Err(place) => place,
        };
        match self.graph.push(op, args, self.scope) {
            Ok(v) => {
                self.known.insert(place, v);
                v
            }
            Err(e) => {
                self.fault.get_or_insert(e);
                args.first().copied().unwrap_or(ValueId(0))
            }
        }
    }

    /// As [`Builder::op`], for an operation of another graph on operands of the same types as there: it has the types that
    /// it had, and the scope.
    pub fn adopt(&mut self, node: &Node, args: Args) -> ValueId {
        match self.known.find(&self.graph.nodes, &node.op, &args) {
            Ok(v) => v,
            Err(place) => {
                let v = self.graph.adopt(Node { args, ..node.clone() });
                self.known.insert(place, v);
                v
            }
        }
    }

    // ---- leaves

    /// The leaf of this name as a value; it is declared at first use.
    pub fn leaf(&mut self, name: &str, kind: LeafKind, dtype: DType, dims: &[Dim]) -> ValueId {
        let leaf = Leaf { name: name.into(), kind, dtype, dims: dims.to_vec() };
        let id = match self.find_leaf(name) {
            Some(l) => {
                if *self.graph.leaf(l) != leaf {
                    self.fail(format!("leaf `{name}` is declared in two ways"));
                }
                l
            }
            None => {
                let l = LeafId(self.graph.leaves.len() as u32);
                Arc::make_mut(&mut self.graph.leaves).push(leaf);
                self.leaves.get_or_insert_default().insert(name.into(), l);
                l
            }
        };
        self.op(Op::Leaf(id), &[])
    }
    fn find_leaf(&mut self, name: &str) -> Option<LeafId> {
        let all = &self.graph.leaves;
        let names = || all.iter().zip(0..).map(|(l, i)| (l.name.clone(), LeafId(i))).collect();
        self.leaves.get_or_insert_with(names).get(name).copied()
    }
    pub fn param(&mut self, name: &str, init: Init, dims: &[Dim]) -> ValueId {
        self.leaf(name, LeafKind::Param(init), DType::F32, dims)
    }
    pub fn input(&mut self, name: &str, dtype: DType, dims: &[Dim]) -> ValueId {
        self.leaf(name, LeafKind::Input, dtype, dims)
    }
    pub fn state(&mut self, name: &str, dtype: DType, dims: &[Dim]) -> ValueId {
        self.leaf(name, LeafKind::State { init: None, rows: RowKind::None }, dtype, dims)
    }
    pub fn table(&mut self, name: &str, table: Table, dims: &[Dim]) -> ValueId {
        self.leaf(name, LeafKind::Table(table), DType::F32, dims)
    }
    pub fn num(&mut self, x: f32) -> ValueId {
        self.op(Op::Const(Scalar::f32(x)), &[])
    }
    pub fn int(&mut self, x: i32) -> ValueId {
        self.op(Op::Const(Scalar::I32(x)), &[])
    }
    pub fn iota(&mut self, a: AxisId) -> ValueId {
        self.op(Op::Iota(a), &[])
    }

    // ---- results

    pub fn output(&mut self, name: &str, value: ValueId, dims: &[Dim]) {
        let seen: AxisSet = dims.iter().flatten().copied().collect();
        if seen != self.graph.axes_of(value) {
            let has = self.graph.show_axes(self.graph.axes_of(value));
            self.fail(format!("output `{name}` has axes [{has}], not [{}]", self.graph.show_axes(seen)));
        }
        self.graph.outputs.push(Output { name: name.into(), value, dims: dims.to_vec() });
    }

    /// The leaf that `of` reads becomes `value` when the program ends.
    pub fn write(&mut self, of: ValueId, value: ValueId) {
        let (target, new) = (self.graph.ty(of), self.graph.ty(value));
        match self.graph.node(of).op {
            Op::Leaf(leaf) if target == new => self.graph.writes.push(Write { leaf, value }),
            Op::Leaf(leaf) => {
                let (name, axes) = (self.graph.leaf(leaf).name.clone(), self.graph.show_axes(new.axes));
                self.fail(format!("leaf `{name}` cannot become a {}[{axes}]", new.dtype))
            }
            _ => self.fail("only a leaf can be written"),
        }
    }

    // ---- elementwise

    pub fn unary(&mut self, u: Unary, x: ValueId) -> ValueId {
        self.op(Op::Unary(u), &[x])
    }
    pub fn binary(&mut self, b: Binary, x: ValueId, y: ValueId) -> ValueId {
        self.op(Op::Binary(b), &[x, y])
    }
    pub fn add(&mut self, x: ValueId, y: ValueId) -> ValueId {
        self.binary(Binary::Add, x, y)
    }
    pub fn sub(&mut self, x: ValueId, y: ValueId) -> ValueId {
        self.binary(Binary::Sub, x, y)
    }
    pub fn mul(&mut self, x: ValueId, y: ValueId) -> ValueId {
        self.binary(Binary::Mul, x, y)
    }
    pub fn div(&mut self, x: ValueId, y: ValueId) -> ValueId {
        self.binary(Binary::Div, x, y)
    }
    pub fn max(&mut self, x: ValueId, y: ValueId) -> ValueId {
        self.binary(Binary::Max, x, y)
    }
    pub fn min(&mut self, x: ValueId, y: ValueId) -> ValueId {
        self.binary(Binary::Min, x, y)
    }
    pub fn lt(&mut self, x: ValueId, y: ValueId) -> ValueId {
        self.binary(Binary::Lt, x, y)
    }
    pub fn le(&mut self, x: ValueId, y: ValueId) -> ValueId {
        self.binary(Binary::Le, x, y)
    }
    pub fn eq(&mut self, x: ValueId, y: ValueId) -> ValueId {
        self.binary(Binary::Eq, x, y)
    }
    pub fn scale(&mut self, x: ValueId, by: f32) -> ValueId {
        let c = self.num(by);
        self.mul(x, c)
    }
    pub fn neg(&mut self, x: ValueId) -> ValueId {
        self.unary(Unary::Neg, x)
    }
    pub fn exp(&mut self, x: ValueId) -> ValueId {
        self.unary(Unary::Exp, x)
    }
    pub fn log(&mut self, x: ValueId) -> ValueId {
        self.unary(Unary::Log, x)
    }
    pub fn select(&mut self, c: ValueId, x: ValueId, y: ValueId) -> ValueId {
        self.op(Op::Select, &[c, x, y])
    }
    pub fn cast(&mut self, x: ValueId, to: DType) -> ValueId {
        if self.graph.ty(x).dtype == to { x } else { self.op(Op::Cast(to), &[x]) }
    }
    pub fn stop_gradient(&mut self, x: ValueId) -> ValueId {
        self.op(Op::StopGradient, &[x])
    }

    // ---- reductions and index operations

    pub fn dot(&mut self, axes: &[AxisId], x: ValueId, y: ValueId) -> ValueId {
        self.op(Op::Dot { axes: AxisSet::of(axes) }, &[x, y])
    }
    pub fn sum(&mut self, axes: &[AxisId], x: ValueId) -> ValueId {
        self.op(Op::Reduce { kind: Reduction::Sum, axes: AxisSet::of(axes) }, &[x])
    }
    pub fn mean(&mut self, axes: &[AxisId], x: ValueId) -> ValueId {
        self.op(Op::Reduce { kind: Reduction::Mean, axes: AxisSet::of(axes) }, &[x])
    }
    pub fn reduce_max(&mut self, axes: &[AxisId], x: ValueId) -> ValueId {
        self.op(Op::Reduce { kind: Reduction::Max, axes: AxisSet::of(axes) }, &[x])
    }
    pub fn rename(&mut self, x: ValueId, from: AxisId, to: AxisId) -> ValueId {
        if from == to { x } else { self.op(Op::Rename { from, to }, &[x]) }
    }
    pub fn at(&mut self, x: ValueId, axis: AxisId, index: usize) -> ValueId {
        self.op(Op::At { axis, index }, &[x])
    }
    pub fn slice(&mut self, x: ValueId, axis: AxisId, start: usize, to: AxisId) -> ValueId {
        self.op(Op::Slice { axis, start, to }, &[x])
    }
    pub fn shift(&mut self, x: ValueId, axis: AxisId, by: i64) -> ValueId {
        if by == 0 { x } else { self.op(Op::Shift { axis, by }, &[x]) }
    }
    pub fn gather(&mut self, x: ValueId, axis: AxisId, index: ValueId) -> ValueId {
        self.op(Op::Gather { axis }, &[x, index])
    }
    pub fn part(&mut self, x: ValueId, index: usize) -> ValueId {
        self.op(Op::Part(index), &[x])
    }
    /// Uniform draws in (0, 1), from a new site.
    pub fn random(&mut self, seed: ValueId, step: ValueId, axes: &[AxisId]) -> ValueId {
        let site = self.site();
        self.op(Op::Random { axes: axes.to_vec(), site }, &[seed, step])
    }
}
