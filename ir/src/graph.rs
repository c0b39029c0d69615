//! `ir::graph`: a program as values that are functions of named axes.
//!
//! A value's type is a dtype and the *set* of axes it depends on; order is layout and appears only where memory is
//! seen: in leaves (parameters, inputs, states, tables) and outputs. So there is no reshape, transpose or broadcast.
use crate::axis::{Axis, AxisId, AxisSet};
use crate::dtype::{DType, Scalar};
use crate::list::List;
use crate::op::Op;
use std::fmt;
use std::sync::Arc;

mod build;
mod infer;
mod known;
mod leaf;
mod sweep;
pub use build::Builder;
pub use infer::{Fault, infer, infer_types};
pub use leaf::{Dim, Init, Leaf, LeafId, LeafKind, RopeScaling, RowKind, Table};

/// One operation of a graph, and by extension its first result.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ValueId(pub u32);

/// A named part of the model, such as `decoder.layers.3`; equal layers differ in scope only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ScopeId(pub u32);

/// What a value is: the type of its elements and the axes it varies over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Type {
    pub dtype: DType,
    pub axes: AxisSet,
}

impl Type {
    pub fn new(dtype: DType, axes: AxisSet) -> Self {
        Type { dtype, axes }
    }
}

/// The operands of an operation.
pub type Args = List<ValueId, 4>;

/// The types of an operation's results.
pub type Types = List<Type, 1>;

/// An operation with its operands and the types of its results (one, unless the operation's row says more).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    pub op: Op,
    pub args: Args,
    pub types: Types,
    pub scope: ScopeId,
}

impl Node {
    pub fn ty(&self) -> Type {
        self.types[0]
    }
}

/// A result that the caller sees, stored row-major over `dims`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Output {
    pub name: String,
    pub value: ValueId,
    pub dims: Vec<Dim>,
}

/// At the end of the program the leaf (a state or a parameter) becomes the value. Every read of the leaf in the program
/// sees what it was before.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Write {
    pub leaf: LeafId,
    pub value: ValueId,
}

/// A program: nodes in topological order over a table of axes and a table of leaves. The tables are shared by the graphs
/// that passes make of each other.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Graph {
    pub name: String,
    pub axes: Arc<Vec<Axis>>,
    pub leaves: Arc<Vec<Leaf>>,
    pub scopes: Arc<Vec<String>>,
    pub nodes: Vec<Node>,
    pub outputs: Vec<Output>,
    pub writes: Vec<Write>,
}

/// An operation that could not be added: where, and what is wrong with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GraphError {
    pub graph: String,
    pub scope: String,
    pub fault: String,
}

impl fmt::Display for GraphError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in graph @{}, scope `{}`: {}", self.graph, self.scope, self.fault)
    }
}
impl std::error::Error for GraphError {}

impl Graph {
    pub fn new(name: impl Into<String>) -> Self {
        Graph { name: name.into(), scopes: Arc::new(vec![String::new()]), ..Graph::default() }
    }

    /// The same axes, leaves and scopes without any operation: where a pass begins to make the graph anew.
    pub fn bare(&self) -> Graph {
        Graph {
            name: self.name.clone(),
            axes: self.axes.clone(),
            leaves: self.leaves.clone(),
            scopes: self.scopes.clone(),
            nodes: Vec::with_capacity(self.nodes.len()),
            ..Graph::default()
        }
    }

    pub fn node(&self, v: ValueId) -> &Node {
        &self.nodes[v.0 as usize]
    }
    pub fn ty(&self, v: ValueId) -> Type {
        self.node(v).ty()
    }
    pub fn axes_of(&self, v: ValueId) -> AxisSet {
        self.ty(v).axes
    }
    pub fn axis(&self, a: AxisId) -> &Axis {
        &self.axes[a.0 as usize]
    }
    pub fn len(&self, a: AxisId) -> usize {
        self.axis(a).len
    }
    /// Elements of a value over these axes.
    pub fn elements(&self, axes: AxisSet) -> usize {
        axes.iter().map(|a| self.len(a)).product()
    }
    pub fn leaf(&self, l: LeafId) -> &Leaf {
        &self.leaves[l.0 as usize]
    }
    pub fn scope(&self, s: ScopeId) -> &str {
        &self.scopes[s.0 as usize]
    }
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = ValueId> + use<> {
        (0..self.nodes.len() as u32).map(ValueId)
    }
    pub fn find_axis(&self, name: &str) -> Option<AxisId> {
        self.axes.iter().position(|a| a.name == name).map(|i| AxisId(i as u8))
    }
    pub fn find_leaf(&self, name: &str) -> Option<LeafId> {
        self.leaves.iter().position(|l| l.name == name).map(|i| LeafId(i as u32))
    }
    pub fn find_output(&self, name: &str) -> Option<&Output> {
        self.outputs.iter().find(|o| o.name == name)
    }
    /// The constant that a value is, if it is one.
    pub fn constant(&self, v: ValueId) -> Option<Scalar> {
        match self.node(v).op {
            Op::Const(s) => Some(s),
            _ => None,
        }
    }

    /// Adds an axis; its name must be new and the table not full.
    pub fn add_axis(&mut self, name: impl Into<String>, len: usize) -> Result<AxisId, GraphError> {
        let name = name.into();
        if self.axes.len() == AxisSet::CAPACITY {
            return Err(self.error(ScopeId(0), format!("limit: more than {} axes", AxisSet::CAPACITY)));
        }
        if self.find_axis(&name).is_some() {
            return Err(self.error(ScopeId(0), format!("axis `{name}` is declared twice")));
        }
        Arc::make_mut(&mut self.axes).push(Axis { name, len });
        Ok(AxisId(self.axes.len() as u8 - 1))
    }

    /// Adds a scope, or finds it if it is the last one added.
    pub fn add_scope(&mut self, name: &str) -> ScopeId {
        if self.scopes.last().is_none_or(|s| s != name) {
            Arc::make_mut(&mut self.scopes).push(name.into());
        }
        ScopeId(self.scopes.len() as u32 - 1)
    }

    /// Adds an operation with inferred types.
    pub fn push(&mut self, op: Op, args: &[ValueId], scope: ScopeId) -> Result<ValueId, GraphError> {
        let types = infer(self, &op, args).map_err(|e| self.error(scope, e.to_string()))?;
        self.nodes.push(Node { op, args: args.into(), types, scope });
        Ok(ValueId(self.nodes.len() as u32 - 1))
    }

    /// Adds an operation whose types are known, as that of a graph with the same tables is.
    pub fn adopt(&mut self, node: Node) -> ValueId {
        self.nodes.push(node);
        ValueId(self.nodes.len() as u32 - 1)
    }

    fn error(&self, scope: ScopeId, fault: String) -> GraphError {
        GraphError { graph: self.name.clone(), scope: self.scope(scope).into(), fault }
    }

    /// How often each value is used, outputs and writes included.
    pub fn uses(&self) -> Vec<u32> {
        let mut n = vec![0; self.nodes.len()];
        let args = self.nodes.iter().flat_map(|x| x.args.iter().copied());
        for v in args.chain(self.outputs.iter().map(|o| o.value)).chain(self.writes.iter().map(|w| w.value)) {
            n[v.0 as usize] += 1;
        }
        n
    }

    /// Axes as a person writes them, `b,t,d`.
    pub fn show_axes(&self, axes: AxisSet) -> String {
        axes.iter().map(|a| self.axis(a).name.as_str()).collect::<Vec<_>>().join(",")
    }
}
