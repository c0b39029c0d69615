//! Expansions: every fused operation written in the small ones, which defines it.
//!
//! An expansion computes in f32 and rounds at most once, at its end, as the fused operation does: operands of dtype bf16
//! are cast up first and results cast down last. Softmax and log-sum-exp subtract the maximum. A row of attention that
//! sees no key gives 0 and -∞.
use crate::axis::{AxisId, AxisSet};
use crate::dtype::DType;
use crate::graph::{Args, Builder, Graph, GraphError, Node, ValueId};
use crate::op::{Op, Unary};

mod attention;
mod elementwise;
mod loss;
mod norm;
mod recurrence;
mod routed;
mod sample;
mod scan;

/// What became of a node.
enum Image {
    Kept(ValueId),
    /// The results of an expanded operation, each a value of its own.
    Expanded(Vec<ValueId>),
}

impl Image {
    fn first(&self) -> ValueId {
        match self {
            Image::Kept(v) => *v,
            Image::Expanded(results) => results[0],
        }
    }
}

/// The same program with every fused operation that `which` chooses replaced by small operations; so are `top_k` and
/// `sample`, small ones that smaller ones can compute. Leaves, outputs, writes and scopes stay; equal operations become one.
pub fn expand(g: &Graph, which: &dyn Fn(&Op) -> bool) -> Result<Graph, GraphError> {
    let bare = g.bare();
    let mut ex = Expander { b: Builder::extend(bare) };
    let mut images: Vec<Image> = Vec::with_capacity(g.nodes.len());
    for node in &g.nodes {
        ex.b.set_scope(node.scope);
        let args: Args = node.args.iter().map(|a| images[a.0 as usize].first()).collect();
        let image = match node.op {
            Op::Part(i) => match &images[node.args[0].0 as usize] {
                Image::Kept(v) => Image::Kept(ex.b.part(*v, i)),
                Image::Expanded(results) => Image::Kept(results[i]),
            },
            _ if which(&node.op) => ex.node(g, node, &args),
            _ => Image::Kept(ex.b.adopt(node, args)),
        };
        images.push(image);
    }
    let mut new = ex.b.finish()?;
    let at = |v: ValueId| images[v.0 as usize].first();
    new.outputs = g.outputs.iter().map(|o| crate::graph::Output { value: at(o.value), ..o.clone() }).collect();
    new.writes = g.writes.iter().map(|w| crate::graph::Write { value: at(w.value), ..w.clone() }).collect();
    Ok(new)
}

/// A builder with the phrases that expansions share.
struct Expander {
    b: Builder,
}

impl Expander {
    /// A chosen node in small operations; one that is small already is kept.
    fn node(&mut self, g: &Graph, node: &Node, args: &[ValueId]) -> Image {
        let wide: Vec<ValueId> = args.iter().map(|a| self.widened(*a)).collect();
        let Some(results) = self.results(&node.op, &wide) else {
            return Image::Kept(self.b.op(node.op.clone(), args));
        };
        let narrow = results.into_iter().zip(&node.types).map(|(v, t)| {
            let has = self.b.graph().ty(v);
            if has.axes != t.axes {
                let (has, needs) = (self.b.graph().show_axes(has.axes), g.show_axes(t.axes));
                self.b.fail(format!("bug: {} expands to axes [{has}], not [{needs}]", node.op.mnemonic()));
            }
            self.b.cast(v, t.dtype)
        });
        Image::Expanded(narrow.collect())
    }

    fn results(&mut self, op: &Op, x: &[ValueId]) -> Option<Vec<ValueId>> {
        let one = match op {
            Op::Unary(u) => match u {
                Unary::Sigmoid => self.sigmoid(x[0]),
                Unary::Silu => self.silu(x[0]),
                Unary::Gelu => self.gelu(x[0]),
                Unary::GeluTanh => self.gelu_tanh(x[0]),
                Unary::Softplus => self.softplus(x[0]),
                Unary::Neg | Unary::Abs | Unary::Not | Unary::Exp | Unary::Log | Unary::Sqrt => return None,
                Unary::Rsqrt | Unary::Erf | Unary::Tanh => return None,
            },
            Op::Mix => self.mix(x[0], x[1], x[2]),
            Op::Softmax { axis } => self.softmax(x[0], *axis),
            Op::LogSumExp { axis } => self.logsumexp(x[0], *axis),
            Op::LayerNorm { axis, eps } => self.layer_norm(x, *axis, f32::from_bits(*eps)),
            Op::RmsNorm { axis, eps } => self.rms_norm(x, *axis, f32::from_bits(*eps)),
            Op::Rope { pair } => self.rope(x[0], x[1], x[2], *pair),
            Op::CausalConv { time, tap } => self.causal_conv(x, *time, *tap),
            Op::Attention(a) => return Some(self.attention(a, x)),
            Op::AttentionGrad(a) => return Some(self.attention_grad(a, x)),
            Op::SelectiveScan { time, state } => return Some(self.selective_scan(x, *time, *state)),
            Op::SelectiveScanGrad { time, state } => return Some(self.selective_scan_grad(x, *time, *state)),
            Op::GatedRecurrence { time } => return Some(self.gated_recurrence(x, *time)),
            Op::GatedRecurrenceGrad { time } => return Some(self.gated_recurrence_grad(x, *time)),
            Op::CrossEntropy { vocab, over, cap } => return Some(self.cross_entropy(x, *vocab, *over, *cap)),
            Op::CrossEntropyGrad { vocab, over, cap } => return Some(self.cross_entropy_grad(x, *vocab, *over, *cap)),
            Op::TopK { axis, k } => return Some(self.top_k(x[0], *axis, *k)),
            Op::Sample { axis } => self.sample(x, *axis),
            Op::RoutedDot { expert, over } => self.routed_dot(x, *expert, *over),
            Op::RoutedDotGrad { expert } => self.routed_dot_grad(x, *expert),
            Op::Leaf(_) | Op::Const(_) | Op::Iota(_) | Op::Random { .. } => return None,
            Op::Binary(_) | Op::Select | Op::Cast(_) => return None,
            Op::Reduce { .. } | Op::ArgMax(_) | Op::Dot { .. } | Op::Recurrence { .. } => return None,
            Op::Rename { .. } | Op::At { .. } | Op::Slice { .. } | Op::Pad { .. } | Op::Stack { .. } => return None,
            Op::Concat { .. } | Op::Shift { .. } | Op::Gather { .. } | Op::ScatterAdd { .. } => return None,
            Op::Update { .. } | Op::StopGradient | Op::Part(_) => return None,
        };
        Some(vec![one])
    }

    fn axes(&self, x: ValueId) -> AxisSet {
        self.b.graph().axes_of(x)
    }
    fn len(&self, a: AxisId) -> usize {
        self.b.graph().len(a)
    }
    /// A float as f32; anything else as it is.
    fn widened(&mut self, x: ValueId) -> ValueId {
        if self.b.graph().ty(x).dtype == DType::Bf16 { self.b.cast(x, DType::F32) } else { x }
    }
    /// The sum over all axes that are not in `axes`.
    fn reduce_to(&mut self, x: ValueId, axes: AxisSet) -> ValueId {
        let over: Vec<AxisId> = self.axes(x).minus(axes).iter().collect();
        if over.is_empty() { x } else { self.b.sum(&over, x) }
    }
    /// Σ x·y over all axes that are not in `axes`, which both must have.
    fn contract_to(&mut self, x: ValueId, y: ValueId, axes: AxisSet) -> ValueId {
        let over: Vec<AxisId> = self.axes(x).union(self.axes(y)).minus(axes).iter().collect();
        if over.is_empty() { self.b.mul(x, y) } else { self.b.dot(&over, x, y) }
    }
    /// A gradient that came with fewer axes than its value has, over all of them: later sums must count every element.
    fn spread_to(&mut self, x: ValueId, axes: AxisSet) -> ValueId {
        axes.minus(self.axes(x)).iter().fold(x, |x, a| {
            let (i, zero) = (self.b.iota(a), self.b.int(0));
            let zeros = self.b.op(Op::Binary(crate::op::Binary::Mul), &[i, zero]);
            let zeros = self.b.cast(zeros, DType::F32);
            self.b.add(x, zeros)
        })
    }
}
