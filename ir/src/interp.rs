//! The reference interpreter: what every operation means, in plain loops over f64.
//!
//! It is the oracle for everything else, so it is written to be read, not to be fast. Values of dtype f32 are *not*
//! rounded to f32; a result of dtype bf16 is computed exactly and then rounded to the nearest even bf16; a cast to i32
//! truncates and saturates, and integer arithmetic wraps at 32 bits. Booleans are 0 and 1. Every value is stored row-major over its axes in ascending order,
//! and every operation reads its operands through tables of offsets (`space.rs`), in which an axis that the operand
//! lacks has stride zero: that is all there is to broadcasting.
use crate::axis::{AxisId, AxisSet};
use crate::dtype::DType;
use crate::graph::{Graph, Node, ValueId};
use crate::op::Op;
use std::collections::BTreeMap;

mod attention;
mod elementwise;
mod index;
mod leaf;
mod loss;
mod norm;
mod reduce;
mod routed;
mod sample;
mod scan;
mod space;

pub use elementwise::round_bf16;
pub(crate) use elementwise::{binary_scalar, cast_scalar, maximum, unary_scalar};
pub use leaf::table;
pub use sample::choose;
use space::Layout;

/// A value: its axes in ascending order, and its elements row-major over them.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Tensor {
    pub axes: Vec<AxisId>,
    pub data: Vec<f64>,
}

impl Tensor {
    /// A tensor of equal elements.
    pub fn filled(g: &Graph, axes: AxisSet, x: f64) -> Tensor {
        Tensor { axes: axes.iter().collect(), data: vec![x; g.elements(axes)] }
    }
    pub fn set(&self) -> AxisSet {
        AxisSet::of(&self.axes)
    }
    /// Offsets into `data` of all points over `space`, row-major over its axes in ascending order.
    fn offsets(&self, g: &Graph, space: AxisSet) -> Vec<usize> {
        Layout::of(g, self.axes.iter().copied()).offsets(g, space)
    }
    fn layout(&self, g: &Graph) -> Layout {
        Layout::of(g, self.axes.iter().copied())
    }
}

/// The contents of the leaves by name, row-major over the leaf's dims.
pub type Feeds = BTreeMap<String, Vec<f64>>;

/// What a run leaves behind.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Results {
    /// By name, row-major over the output's dims.
    pub outputs: BTreeMap<String, Vec<f64>>,
    /// By name of the leaf, row-major over its dims.
    pub writes: BTreeMap<String, Vec<f64>>,
}

/// Why a graph has no value.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum InterpError {
    #[error("leaf `{leaf}` needs {expected} elements and was not given")]
    MissingFeed { leaf: String, expected: usize },
    #[error("leaf `{leaf}` has shape {shape:?}, {expected} elements, and was given {found}")]
    FeedLength { leaf: String, shape: Vec<usize>, expected: usize, found: usize },
    #[error("leaf `{leaf}` is {dtype}, and its element {index} was given as {value}")]
    FeedValue { leaf: String, dtype: DType, index: usize, value: f64 },
    #[error("table `{leaf}` has {dims} dims, and needs two: position and frequency")]
    TableDims { leaf: String, dims: usize },
    #[error("%{node} divides an integer by zero")]
    DivisionByZero { node: u32 },
    #[error("bug: %{node} ({op}) is evaluated although its types do not fit: {what}")]
    IllTyped { node: u32, op: &'static str, what: String },
}

/// Outputs and writes of a graph on these leaves.
pub fn run(g: &Graph, feeds: &Feeds) -> Result<Results, InterpError> {
    let values = values(g, feeds)?;
    let stored = |v: ValueId, order: Vec<AxisId>| {
        let x = &values[v.0 as usize][0];
        x.layout(g).offsets_in_order(g, &order).into_iter().map(|o| x.data[o]).collect::<Vec<f64>>()
    };
    let outputs = g.outputs.iter().map(|o| (o.name.clone(), stored(o.value, o.dims.concat()))).collect();
    let writes = g.writes.iter().map(|w| {
        let leaf = g.leaf(w.leaf);
        (leaf.name.clone(), stored(w.value, leaf.dims.concat()))
    });
    Ok(Results { outputs, writes: writes.collect() })
}

/// Every result of every node.
pub fn values(g: &Graph, feeds: &Feeds) -> Result<Vec<Vec<Tensor>>, InterpError> {
    let mut values: Vec<Vec<Tensor>> = Vec::with_capacity(g.nodes.len());
    for (i, node) in g.nodes.iter().enumerate() {
        let call = Call::new(g, i as u32, node, &values)?;
        let mut results = call.results(feeds, &values)?;
        call.check(&results)?;
        round_results(&mut results, node);
        values.push(results);
    }
    Ok(values)
}

/// What is stored as bf16 is a bf16: an operation computes exactly and rounds its results once.
fn round_results(results: &mut [Tensor], node: &Node) {
    for (x, _) in results.iter_mut().zip(&node.types).filter(|(_, t)| t.dtype == DType::Bf16) {
        x.data.iter_mut().for_each(|x| *x = round_bf16(*x));
    }
}

/// One operation with the first results of its operands.
struct Call<'a> {
    g: &'a Graph,
    id: u32,
    node: &'a Node,
    args: Vec<&'a Tensor>,
}

impl<'a> Call<'a> {
    fn new(g: &'a Graph, id: u32, node: &'a Node, values: &'a [Vec<Tensor>]) -> Result<Self, InterpError> {
        let args = node.args.iter().map(|v| values.get(v.0 as usize).map(|r| &r[0])).collect::<Option<Vec<_>>>();
        let op = node.op.mnemonic();
        let args =
            args.ok_or_else(|| InterpError::IllTyped { node: id, op, what: "operand is not yet known".into() })?;
        Ok(Call { g, id, node, args })
    }

    /// The axes of result `i`.
    fn out(&self, i: usize) -> AxisSet {
        self.node.types[i].axes
    }
    /// Result `i` filled with zeros.
    fn zeros(&self, i: usize) -> Tensor {
        Tensor::filled(self.g, self.out(i), 0.0)
    }
    /// The dtype of operand `i`.
    fn dtype(&self, i: usize) -> DType {
        self.g.ty(self.node.args[i]).dtype
    }
    /// Offsets into operand `i` of all points over `space`.
    fn offsets(&self, i: usize, space: AxisSet) -> Vec<usize> {
        self.args[i].offsets(self.g, space)
    }
    fn len(&self, a: AxisId) -> usize {
        self.g.len(a)
    }
    fn layout(&self, i: usize) -> Layout {
        self.args[i].layout(self.g)
    }

    fn check(&self, results: &[Tensor]) -> Result<(), InterpError> {
        let types = &self.node.types;
        let fits = |t: &Tensor, axes: AxisSet| t.set() == axes && t.data.len() == self.g.elements(axes);
        if results.len() == types.len() && results.iter().zip(types).all(|(r, t)| fits(r, t.axes)) {
            return Ok(());
        }
        let got: Vec<_> = results.iter().map(|r| self.g.show_axes(r.set())).collect();
        let op = self.node.op.mnemonic();
        Err(InterpError::IllTyped { node: self.id, op, what: format!("its value has axes {got:?}") })
    }

    fn results(&self, feeds: &Feeds, values: &[Vec<Tensor>]) -> Result<Vec<Tensor>, InterpError> {
        let one = match &self.node.op {
            Op::Leaf(l) => leaf::read(self.g, *l, feeds)?,
            Op::Const(s) => Tensor::filled(self.g, AxisSet::EMPTY, s.as_f64()),
            Op::Iota(a) => Tensor { axes: vec![*a], data: (0..self.len(*a)).map(|i| i as f64).collect() },
            Op::Random { axes, site } => leaf::random(self, axes, *site),
            Op::Unary(u) => elementwise::unary(self, *u),
            Op::Binary(b) => elementwise::binary(self, *b)?,
            Op::Select => elementwise::select(self),
            Op::Cast(d) => elementwise::cast(self, *d),
            Op::Mix => elementwise::mix(self),
            Op::Reduce { kind, axes } => reduce::reduce(self, *kind, *axes),
            Op::ArgMax(a) => reduce::argmax(self, *a),
            Op::Sample { axis } => sample::sample(self, *axis),
            Op::Dot { axes } => reduce::dot(self, *axes),
            Op::Recurrence { axis, reverse } => scan::recurrence(self, *axis, *reverse),
            Op::Rename { from, to } => index::rename(self, *from, *to),
            Op::At { axis, index } => index::window(self, *axis, *index, None),
            Op::Slice { axis, start, to } => index::window(self, *axis, *start, Some(*to)),
            Op::Pad { axis, start, to } => index::pad(self, *axis, *start, *to),
            Op::Stack { axis } => index::stack(self, *axis),
            Op::Concat { axis, parts } => index::concat(self, *axis, parts),
            Op::Shift { axis, by } => index::shift(self, *axis, *by),
            Op::Gather { axis } => index::gather(self, *axis),
            Op::ScatterAdd { axis, over } => index::scatter_add(self, *axis, *over),
            Op::Update { axis } => index::update(self, *axis),
            Op::StopGradient => self.args[0].clone(),
            Op::Part(i) => values[self.node.args[0].0 as usize][*i].clone(),
            Op::Softmax { axis } => norm::softmax(self, *axis),
            Op::LogSumExp { axis } => norm::logsumexp(self, *axis),
            Op::LayerNorm { axis, eps } => norm::layer_norm(self, *axis, f32::from_bits(*eps) as f64),
            Op::RmsNorm { axis, eps } => norm::rms_norm(self, *axis, f32::from_bits(*eps) as f64),
            Op::Rope { pair } => norm::rope(self, *pair),
            Op::CausalConv { time, tap } => scan::causal_conv(self, *time, *tap),
            Op::Attention(a) => return Ok(attention::attention(self, a)),
            Op::AttentionGrad(a) => return Ok(attention::attention_grad(self, a)),
            Op::SelectiveScan { time, state } => return Ok(scan::selective_scan(self, *time, *state)),
            Op::SelectiveScanGrad { time, state: _ } => return Ok(scan::selective_scan_grad(self, *time)),
            Op::GatedRecurrence { time } => return Ok(scan::gated_recurrence(self, *time)),
            Op::GatedRecurrenceGrad { time } => return Ok(scan::gated_recurrence_grad(self, *time)),
            Op::CrossEntropy { vocab, over, cap } => return Ok(loss::cross_entropy(self, *vocab, *over, *cap)),
            Op::CrossEntropyGrad { vocab, over, cap } => {
                return Ok(loss::cross_entropy_grad(self, *vocab, *over, *cap));
            }
            Op::TopK { axis, k } => return Ok(routed::top_k(self, *axis, *k)),
            Op::RoutedDot { expert, over } => routed::routed_dot(self, *expert, *over),
            Op::RoutedDotGrad { expert } => routed::routed_dot_grad(self, *expert),
        };
        Ok(vec![one])
    }
}
