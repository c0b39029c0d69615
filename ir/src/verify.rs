//! What a graph must be. Every pass takes a graph that keeps these rules and leaves one that does.
//!
//! **Axes.** There are at most [`AxisSet::CAPACITY`]; their names differ; each is at least 1 long.
//!
//! **Scopes.** Scope 0 is the root and has no name. Every operation is in a scope that exists.
//!
//! **Leaves.** Their names differ. Their dims are made of axes that exist, no axis twice. A table is f32 and has two
//! dims, position and frequency. If a state starts as a parameter and the graph holds a leaf of that name, then this
//! leaf is a parameter, of the state's dtype and with the state's innermost dims.
//!
//! **Operations.** Operands are defined before they are used. Attributes name axes and leaves that exist. The stored
//! types are the inferred ones ([`crate::graph::infer`]); `part` is taken of operations with several results only. Such
//! an operation, used as an operand itself, stands for its first result.
//!
//! **Randomness.** A site is one draw: wherever it appears — as `random`, in an attention or in its gradient — it draws
//! over the same axes in the same order, from the same seed and step.
//!
//! **Results.** The names of outputs differ; an output's dims hold each axis of its value exactly once. A write goes to
//! a state or a parameter, with a value of the leaf's type, and no leaf is written twice. Outputs and writes name values
//! and leaves that exist.
use crate::axis::{AxisId, AxisSet};
use crate::dtype::DType;
use crate::graph::{Dim, Graph, Leaf, LeafId, LeafKind, Type, ValueId, infer};
use crate::hash::QuickSet;
use crate::op::{Attr, Op};
use std::collections::{BTreeMap, BTreeSet};

/// The first broken rule, and where. Every one of these is a bug in what made the graph.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("limit: the graph has {0} axes, at most {max} fit", max = AxisSet::CAPACITY)]
    TooManyAxes(usize),
    #[error("two axes are named `{0}`")]
    AxisName(String),
    #[error("axis `{0}` has length 0")]
    AxisLength(String),
    #[error("scope 0 must be the root, which has no name")]
    Root,
    #[error("two leaves are named `{0}`")]
    LeafName(String),
    #[error("leaf `{leaf}`: {what}")]
    Leaf { leaf: String, what: String },
    #[error("%{node} ({op}) in scope `{scope}`: {what}")]
    Node { node: u32, op: &'static str, scope: String, what: String },
    #[error("%{node} ({op}) in scope `{scope}` has types {found}, inferred are {expected}")]
    Types { node: u32, op: &'static str, scope: String, found: String, expected: String },
    #[error("random site {site} draws one thing in %{first} and another in %{second}")]
    Site { site: u32, first: u32, second: u32 },
    #[error("two outputs are named `{0}`")]
    OutputName(String),
    #[error("output `{output}`: {what}")]
    Output { output: String, what: String },
    #[error("write to `{leaf}`: {what}")]
    Write { leaf: String, what: String },
}

type Result = std::result::Result<(), VerifyError>;

/// Checks all rules, in the order of the module's documentation.
pub fn verify(g: &Graph) -> Result {
    axes(g)?;
    if g.scopes.first().is_none_or(|s| !s.is_empty()) {
        return Err(VerifyError::Root);
    }
    leaves(g)?;
    let mut draws = BTreeMap::new();
    for v in g.ids() {
        node(g, v)?;
        if let Some(draw) = draw(g, v) {
            site(g, v, draw, &mut draws)?;
        }
    }
    outputs(g)?;
    writes(g)
}

fn axes(g: &Graph) -> Result {
    if g.axes.len() > AxisSet::CAPACITY {
        return Err(VerifyError::TooManyAxes(g.axes.len()));
    }
    let mut names = BTreeSet::new();
    for axis in g.axes.iter() {
        if !names.insert(&axis.name) {
            return Err(VerifyError::AxisName(axis.name.clone()));
        }
        if axis.len == 0 {
            return Err(VerifyError::AxisLength(axis.name.clone()));
        }
    }
    Ok(())
}

/// What is wrong with the axes of stored dims, if anything is.
fn dims_fault(g: &Graph, dims: &[Dim]) -> Option<String> {
    let mut seen = AxisSet::EMPTY;
    for a in dims.iter().flatten() {
        if a.0 as usize >= g.axes.len() {
            return Some(format!("there is no axis {}", a.0));
        }
        if seen.has(*a) {
            return Some(format!("axis `{}` is in its dims twice", g.axis(*a).name));
        }
        seen = seen.with(*a);
    }
    None
}

fn leaves(g: &Graph) -> Result {
    let mut names = QuickSet::default();
    for leaf in g.leaves.iter() {
        if !names.insert(&leaf.name) {
            return Err(VerifyError::LeafName(leaf.name.clone()));
        }
        let fault = |what: String| VerifyError::Leaf { leaf: leaf.name.clone(), what };
        if let Some(what) = dims_fault(g, &leaf.dims) {
            return Err(fault(what));
        }
        match &leaf.kind {
            LeafKind::Table(_) if leaf.dtype != DType::F32 || leaf.dims.len() != 2 => {
                return Err(fault(format!(
                    "a table is f32 with two dims, not {} with {}",
                    leaf.dtype,
                    leaf.dims.len()
                )));
            }
            LeafKind::State { rows, .. } if leaf.dims.len() < rows.dims() => {
                let (has, rows, least) = (leaf.dims.len(), rows.name(), rows.dims());
                return Err(fault(format!("a state with rows ({rows}) has {least} dims or more, not {has}")));
            }
            LeafKind::State { init: Some(from), .. } => start(g, leaf, from).map_err(fault)?,
            LeafKind::Param(_) | LeafKind::Input | LeafKind::State { init: None, .. } | LeafKind::Table(_) => {}
        }
    }
    Ok(())
}

/// A state's start may be a parameter that the graph does not hold.
fn start(g: &Graph, state: &Leaf, from: &str) -> std::result::Result<(), String> {
    let Some(param) = g.leaves.iter().find(|l| l.name == from) else { return Ok(()) };
    if !matches!(param.kind, LeafKind::Param(_)) {
        return Err(format!("it starts as `{from}`, which is no parameter"));
    }
    if param.dtype != state.dtype || !state.shape(g).ends_with(&param.shape(g)) {
        let (has, needs) = (param.shape(g), state.shape(g));
        return Err(format!("{} {needs:?} cannot start as `{from}`, which is {} {has:?}", state.dtype, param.dtype));
    }
    Ok(())
}

fn node(g: &Graph, v: ValueId) -> Result {
    let node = g.node(v);
    let op = node.op.mnemonic();
    let scope = || g.scopes.get(node.scope.0 as usize).cloned().unwrap_or_default();
    let fault = |what: String| VerifyError::Node { node: v.0, op, scope: scope(), what };
    if node.scope.0 as usize >= g.scopes.len() {
        return Err(fault(format!("there is no scope {}", node.scope.0)));
    }
    if let Some(a) = node.args.iter().find(|a| **a >= v) {
        return Err(fault(format!("it uses %{}, which is not defined before it", a.0)));
    }
    for (name, attr) in node.op.parts() {
        if let Some(what) = attr_fault(g, &attr) {
            return Err(fault(format!("`{name}`: {what}")));
        }
    }
    let inferred = infer(g, &node.op, &node.args).map_err(|e| fault(e.0))?;
    if inferred == node.types {
        return Ok(());
    }
    let (found, expected) = (show_types(g, &node.types), show_types(g, &inferred));
    Err(VerifyError::Types { node: v.0, op, scope: scope(), found, expected })
}

fn attr_fault(g: &Graph, attr: &Attr) -> Option<String> {
    let missing = |a: &AxisId| a.0 as usize >= g.axes.len();
    let axis = match attr {
        Attr::Axis(a) => Some(*a).filter(missing),
        Attr::Axes(axes) => axes.iter().next_back().filter(missing),
        Attr::List(axes) => axes.iter().copied().find(missing),
        Attr::Leaf(l) if l.0 as usize >= g.leaves.len() => return Some(format!("there is no leaf {}", l.0)),
        Attr::Leaf(_) | Attr::Int(_) | Attr::Float(_) | Attr::Scalar(_) | Attr::DType(_) | Attr::Flag(_) => None,
    }?;
    Some(format!("there is no axis {}", axis.0))
}

/// Axes that a faulty type names may not exist, so they are shown by number then.
fn show_types(g: &Graph, types: &[Type]) -> String {
    let axis = |a: AxisId| g.axes.get(a.0 as usize).map_or(format!("axis {}", a.0), |x| x.name.clone());
    let show = |t: &Type| format!("{}[{}]", t.dtype, t.axes.iter().map(axis).collect::<Vec<_>>().join(","));
    types.iter().map(show).collect::<Vec<_>>().join(", ")
}

/// A draw of randomness.
struct Draw {
    node: u32,
    site: u32,
    axes: Vec<AxisId>,
    /// Seed and step.
    from: [ValueId; 2],
}

/// The draw that an operation makes, if it makes one.
fn draw(g: &Graph, v: ValueId) -> Option<Draw> {
    let node = g.node(v);
    let axes_of = |i: usize| g.axes_of(node.args[i]);
    match &node.op {
        Op::Random { axes, site } => {
            Some(Draw { node: v.0, site: *site, axes: axes.clone(), from: [node.args[0], node.args[1]] })
        }
        Op::Attention(a) | Op::AttentionGrad(a) => {
            let weights = axes_of(0).union(axes_of(1)).minus(a.over).with(a.keys);
            let first = 3 + a.has_qpos() as usize; // q, k, v, qpos
            a.dropout.map(|d| {
                let from = [node.args[first], node.args[first + 1]];
                Draw { node: v.0, site: d.site, axes: weights.iter().collect(), from }
            })
        }
        Op::Leaf(_) | Op::Const(_) | Op::Iota(_) | Op::Unary(_) | Op::Binary(_) | Op::Select | Op::Cast(_) => None,
        Op::Reduce { .. } | Op::ArgMax(_) | Op::Dot { .. } | Op::Recurrence { .. } => None,
        Op::Rename { .. } | Op::At { .. } | Op::Slice { .. } | Op::Pad { .. } | Op::Stack { .. } => None,
        Op::Concat { .. } | Op::Shift { .. } | Op::Gather { .. } | Op::ScatterAdd { .. } | Op::Update { .. } => None,
        Op::StopGradient | Op::Part(_) | Op::Softmax { .. } | Op::LogSumExp { .. } | Op::LayerNorm { .. } => None,
        Op::RmsNorm { .. } | Op::Rope { .. } | Op::SelectiveScan { .. } | Op::SelectiveScanGrad { .. } => None,
        Op::GatedRecurrence { .. } | Op::GatedRecurrenceGrad { .. } => None,
        Op::Mix | Op::CausalConv { .. } | Op::CrossEntropy { .. } | Op::CrossEntropyGrad { .. } => None,
        Op::TopK { .. } | Op::Sample { .. } | Op::RoutedDot { .. } | Op::RoutedDotGrad { .. } => None,
    }
}

/// True if two values are one or would be merged into one.
fn same(g: &Graph, a: ValueId, b: ValueId) -> bool {
    let (x, y) = (g.node(a), g.node(b));
    a == b || (x.op == y.op && x.args == y.args)
}

fn site(g: &Graph, v: ValueId, draw: Draw, draws: &mut BTreeMap<u32, Draw>) -> Result {
    let Some(first) = draws.get(&draw.site) else {
        draws.insert(draw.site, draw);
        return Ok(());
    };
    if first.axes == draw.axes && same(g, first.from[0], draw.from[0]) && same(g, first.from[1], draw.from[1]) {
        return Ok(());
    }
    Err(VerifyError::Site { site: draw.site, first: first.node, second: v.0 })
}

fn outputs(g: &Graph) -> Result {
    let mut names = BTreeSet::new();
    for o in &g.outputs {
        if !names.insert(&o.name) {
            return Err(VerifyError::OutputName(o.name.clone()));
        }
        let fault = |what: String| VerifyError::Output { output: o.name.clone(), what };
        if o.value.0 as usize >= g.nodes.len() {
            return Err(fault(format!("there is no value %{}", o.value.0)));
        }
        if let Some(what) = dims_fault(g, &o.dims) {
            return Err(fault(what));
        }
        let (stored, has) = (o.dims.iter().flatten().copied().collect(), g.axes_of(o.value));
        if stored != has {
            return Err(fault(format!("its dims hold [{}], its value [{}]", g.show_axes(stored), g.show_axes(has))));
        }
    }
    Ok(())
}

fn writes(g: &Graph) -> Result {
    let mut written: BTreeSet<LeafId> = BTreeSet::new();
    for w in &g.writes {
        let leaf = g.leaves.get(w.leaf.0 as usize);
        let name = leaf.map_or(format!("leaf {}", w.leaf.0), |l| l.name.clone());
        let fault = |what: &str| Err(VerifyError::Write { leaf: name.clone(), what: what.into() });
        let Some(leaf) = leaf else { return fault("it does not exist") };
        if w.value.0 as usize >= g.nodes.len() {
            return fault(&format!("there is no value %{}", w.value.0));
        }
        match leaf.kind {
            LeafKind::State { .. } | LeafKind::Param(_) => {}
            LeafKind::Input | LeafKind::Table(_) => return fault("it is neither a state nor a parameter"),
        }
        let (has, needs) = (g.ty(w.value), Type::new(leaf.dtype, leaf.axes()));
        if has != needs {
            return fault(&format!("it is {}, the value is {}", show_types(g, &[needs]), show_types(g, &[has])));
        }
        if !written.insert(w.leaf) {
            return fault("it is written twice");
        }
    }
    Ok(())
}
