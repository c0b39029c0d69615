//! Differentiate: reverse mode on the (fused) graph, one rule an operation.
//!
//! Every rule is the local derivative times the adjoint of the result, summed over the axes that the operand lacks.
//! Gradients of fused operations are fused ones again where the language has them (attention, scan, cross-entropy, rope),
//! and small operations elsewhere.
//!
//! *Before*: a graph whose loss is one float. *After*: the same graph with the backward operations behind it; equal
//! operations are merged, so backward uses what forward has computed. Nothing of the given graph is changed, and its
//! value ids stay what they were.
//!
//! An adjoint may lack axes of its value: it is then the same along them. So the gradient of a sum is the adjoint itself,
//! and a broadcast is written out only where an operation needs the axis ([`Backward::broadcast`]).
//!
//! Backward operations have the scope `grad/` + that of the operation they differentiate, and contributions are added in
//! reverse order of their uses, so equal layers have equal backward code.
use lolm_ir::axis::AxisSet;
use lolm_ir::dtype::DType;
use lolm_ir::graph::{Args, Builder, Graph, GraphError, LeafId, ScopeId, ValueId};
use lolm_ir::op::Op;

mod adjoint;
mod elementwise;
mod fused;
mod index;
mod reduce;
mod routed;
use adjoint::Adjoint;

/// A graph with its backward pass, and the gradient of each leaf asked for, with the leaf's dtype and axes.
#[derive(Clone, Debug)]
pub struct Gradients {
    pub graph: Graph,
    pub grads: Vec<ValueId>,
}

/// Why a graph has no gradient.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DiffError {
    #[error("the loss %{} of graph @{graph} is {found}, not one float", .value.0)]
    Loss { graph: String, value: ValueId, found: String },
    #[error("leaf `{leaf}` is {dtype}: only floats have gradients")]
    Leaf { leaf: String, dtype: DType },
    #[error("graph @{graph} has no leaf {}", .leaf.0)]
    NoLeaf { graph: String, leaf: LeafId },
    #[error("limit: {op} in scope `{scope}`: {why}")]
    Unsupported { op: &'static str, scope: String, why: &'static str },
    #[error("bug in the backward pass: {0}")]
    Graph(#[from] GraphError),
}

/// Adds the gradients of `loss` with respect to the leaves `wrt`. A leaf that the loss does not reach gets zeros.
pub fn differentiate(g: &Graph, loss: ValueId, wrt: &[LeafId]) -> Result<Gradients, DiffError> {
    check(g, loss, wrt)?;
    let mut back = Backward::new(g, wrt);
    back.seed(loss);
    for v in g.ids().rev().skip_while(|v| *v > loss) {
        back.step(v)?;
    }
    let grads = wrt.iter().map(|l| back.leaf_gradient(*l)).collect();
    Ok(Gradients { graph: back.b.finish()?, grads })
}

fn check(g: &Graph, loss: ValueId, wrt: &[LeafId]) -> Result<(), DiffError> {
    let wrong = |found: String| Err(DiffError::Loss { graph: g.name.clone(), value: loss, found });
    match g.nodes.get(loss.0 as usize).map(|n| n.ty()) {
        None => return wrong("no value".into()),
        Some(t) if !t.axes.is_empty() || !t.dtype.is_float() => {
            return wrong(format!("{}[{}]", t.dtype, g.show_axes(t.axes)));
        }
        Some(_) => {}
    }
    for l in wrt {
        match g.leaves.get(l.0 as usize) {
            None => return Err(DiffError::NoLeaf { graph: g.name.clone(), leaf: *l }),
            Some(leaf) if !leaf.dtype.is_float() => {
                return Err(DiffError::Leaf { leaf: leaf.name.clone(), dtype: leaf.dtype });
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// One operation on the way back: its operands and the axes of its first result.
struct Local {
    y: ValueId,
    op: Op,
    args: Args,
    axes: AxisSet,
    scope: ScopeId,
}

/// The state of the backward pass.
struct Backward {
    b: Builder,
    /// For each forward value, whether gradient flows through it: a float that depends on a leaf asked for.
    active: Vec<bool>,
    /// For each forward operation, the adjoints of its results.
    adjoints: Vec<Vec<Adjoint>>,
    /// Gradients of the leaves that have been reached.
    leaves: Vec<Option<ValueId>>,
    /// For each forward scope, its `grad/` counterpart once there is one.
    scopes: Vec<Option<ScopeId>>,
}

impl Backward {
    fn new(g: &Graph, wrt: &[LeafId]) -> Self {
        Backward {
            active: activity(g, wrt),
            adjoints: g.nodes.iter().map(|n| vec![Adjoint::default(); n.types.len()]).collect(),
            leaves: vec![None; g.leaves.len()],
            scopes: vec![None; g.scopes.len()],
            b: Builder::extend(g.clone()),
        }
    }

    fn seed(&mut self, loss: ValueId) {
        self.enter(self.b.graph().node(loss).scope);
        let one = self.num(loss, 1.0);
        self.give(loss, one, AxisSet::EMPTY);
    }

    /// Operations from here on belong to the gradient of this scope.
    fn enter(&mut self, forward: ScopeId) {
        let i = forward.0 as usize;
        match self.scopes[i] {
            Some(s) => self.b.set_scope(s),
            None => {
                let name = match self.b.graph().scope(forward) {
                    "" => "grad".to_string(),
                    s => format!("grad/{s}"),
                };
                self.b.scope(&name);
                self.scopes[i] = Some(self.b.current_scope());
            }
        }
    }

    /// Takes the adjoints of an operation's results and gives each operand its share.
    fn step(&mut self, v: ValueId) -> Result<(), DiffError> {
        if !self.is_reached(v) {
            return Ok(());
        }
        let node = self.b.graph().node(v).clone();
        self.enter(node.scope);
        let results: Vec<Option<ValueId>> = (0..node.types.len()).map(|i| self.take(v, i)).collect();
        let Some(g) = results.iter().flatten().copied().next() else { return Ok(()) };
        let axes = node.types[0].axes;
        let n = Local { y: v, op: node.op, args: node.args, axes, scope: node.scope };
        self.rule(&n, g, &results)
    }

    /// Gives each operand its share. `g` is the adjoint of the result; an operation of several looks at `results`.
    fn rule(&mut self, n: &Local, g: ValueId, results: &[Option<ValueId>]) -> Result<(), DiffError> {
        match &n.op {
            Op::Leaf(l) => {
                let sum = match self.leaves[l.0 as usize] {
                    Some(other) => self.b.add(other, g),
                    None => g,
                };
                self.leaves[l.0 as usize] = Some(sum);
            }
            // No float operand, or gradient stops here by definition.
            Op::Const(_) | Op::Iota(_) | Op::Random { .. } | Op::StopGradient => {}
            Op::ArgMax(_) | Op::Sample { .. } => {}

            Op::Unary(u) => self.unary(n, *u, g),
            Op::Binary(b) => self.binary(n, *b, g),
            Op::Select => self.select(n, g),
            Op::Cast(_) => self.cast(n, g),
            Op::Mix => self.mix(n, g),

            Op::Reduce { kind, axes } => self.reduce(n, *kind, *axes, g),
            Op::TopK { axis, .. } => self.top_k(n, *axis, results),
            Op::Dot { .. } => self.dot(n, g),
            Op::Recurrence { axis, reverse } => self.recurrence(n, *axis, *reverse, g),

            Op::Rename { from, to } => self.rename(n, *from, *to, g),
            Op::At { axis, index } => self.at(n, *axis, *index, g),
            Op::Slice { axis, start, to } => self.slice(n, *axis, *start, *to, g),
            Op::Pad { axis, start, to } => self.pad(n, *axis, *start, *to, g),
            Op::Stack { axis } => self.stack(n, *axis, g),
            Op::Concat { axis, parts } => self.concat(n, *axis, parts, g),
            Op::Shift { axis, by } => self.shift(n, *axis, *by, g),
            Op::Gather { axis } => self.gather(n, *axis, g),
            Op::ScatterAdd { axis, .. } => self.scatter_add(n, *axis, g),
            Op::Update { axis } => self.update(n, *axis, g),
            Op::Part(i) => self.give_result(n.args[0], *i, g, n.axes),

            Op::Softmax { axis } => self.softmax(n, *axis, g),
            Op::LogSumExp { .. } => self.logsumexp(n, g),
            Op::LayerNorm { axis, eps } => self.layer_norm(n, *axis, *eps, g),
            Op::RmsNorm { axis, eps } => self.rms_norm(n, *axis, *eps, g),
            Op::Rope { pair } => self.rope(n, *pair, g),
            Op::CausalConv { time, tap } => self.causal_conv(n, *time, *tap, g),

            Op::Attention(a) => return self.attention(n, a, results),
            Op::SelectiveScan { time, state } => return self.selective_scan(n, *time, *state, results),
            Op::GatedRecurrence { time } => return self.gated_recurrence(n, *time, results),
            Op::CrossEntropy { .. } => return self.cross_entropy(n, results),
            Op::RoutedDot { expert, over } => self.routed_dot(n, *expert, *over, g),
            Op::AttentionGrad(_)
            | Op::SelectiveScanGrad { .. }
            | Op::CrossEntropyGrad { .. }
            | Op::GatedRecurrenceGrad { .. }
            | Op::RoutedDotGrad { .. } => {
                return self.refuse(n, "a gradient has no gradient");
            }
        }
        Ok(())
    }

    fn refuse(&self, n: &Local, why: &'static str) -> Result<(), DiffError> {
        let scope = self.b.graph().scope(n.scope).to_string();
        Err(DiffError::Unsupported { op: n.op.mnemonic(), scope, why })
    }

    /// The gradient of a leaf, with its axes.
    fn leaf_gradient(&mut self, l: LeafId) -> ValueId {
        let (dtype, axes) = (self.b.graph().leaf(l).dtype, self.b.graph().leaf(l).axes());
        let found = match self.leaves[l.0 as usize] {
            Some(g) => g,
            None => {
                let zero = self.b.num(0.0);
                self.b.cast(zero, dtype)
            }
        };
        if self.axes(found) != axes {
            self.enter(ScopeId(0));
        }
        self.broadcast(found, axes)
    }
}

/// Which values carry gradient: floats that depend on a leaf of `wrt` through something other than a stop.
fn activity(g: &Graph, wrt: &[LeafId]) -> Vec<bool> {
    let mut active: Vec<bool> = Vec::with_capacity(g.nodes.len());
    for n in &g.nodes {
        let flows = match &n.op {
            Op::Leaf(l) => wrt.contains(l),
            Op::StopGradient => false,
            _ => n.args.iter().any(|a| active[a.0 as usize]),
        };
        active.push(flows && n.ty().dtype.is_float());
    }
    active
}
