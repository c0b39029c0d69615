//! Type inference: the result types of every operation, in one place.
use super::{Graph, Type, Types, ValueId};
use crate::axis::{AxisId, AxisSet};
use crate::dtype::DType;
use crate::list::List;
use crate::op::{Attention, Binary, Op, Reduction, Unary};
use std::fmt;

/// What is wrong with an operation and its operands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault(pub String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for Fault {}

type Result<T> = std::result::Result<T, Fault>;

/// Operand types with the questions that inference asks of them.
struct Cx<'a> {
    g: &'a Graph,
    op: &'a Op,
    args: &'a [Type],
}

/// The types of all results of `op` on these operands.
pub fn infer(g: &Graph, op: &Op, args: &[ValueId]) -> Result<Types> {
    let info = op.info();
    if let Some(a) = args.iter().find(|a| a.0 as usize >= g.nodes.len()) {
        return Err(Fault(format!("{} uses %{}, which is not defined before it", info.mnemonic, a.0)));
    }
    if let Op::Part(i) = op {
        let [arg] = args else { return Err(Fault(format!("part has {} operands", args.len()))) };
        let n = g.node(*arg);
        return match n.types.get(*i) {
            Some(t) if n.types.len() > 1 => Ok(List::one(*t)),
            _ => Err(Fault(format!("{} has no result {i}", n.op.mnemonic()))),
        };
    }
    let args: List<Type, 4> = args.iter().map(|a| g.ty(*a)).collect();
    infer_types(g, op, &args)
}

/// The same for operands that are known by type only, as in an e-graph; `g` gives the axes and leaves. Every operation
/// but `part`, whose type is in the row of its operand.
pub fn infer_types(g: &Graph, op: &Op, args: &[Type]) -> Result<Types> {
    let info = op.info();
    if args.len() < info.args.0 || args.len() > info.args.1 {
        return Err(Fault(format!("{} has {} operands", info.mnemonic, args.len())));
    }
    Cx { g, op, args }.results()
}

impl Cx<'_> {
    fn fail<T>(&self, why: impl fmt::Display) -> Result<T> {
        let types: Vec<String> =
            self.args.iter().map(|t| format!("{}[{}]", t.dtype, self.g.show_axes(t.axes))).collect();
        Err(Fault(format!("{} of {}: {why}", self.op.mnemonic(), types.join(", "))))
    }
    fn axes(&self, i: usize) -> AxisSet {
        self.args[i].axes
    }
    fn union(&self) -> AxisSet {
        self.args.iter().fold(AxisSet::EMPTY, |s, t| s.union(t.axes))
    }
    fn name(&self, a: AxisId) -> &str {
        &self.g.axis(a).name
    }
    fn need(&self, i: usize, a: AxisId) -> Result<()> {
        if self.axes(i).has(a) { Ok(()) } else { self.fail(format!("operand {i} lacks axis `{}`", self.name(a))) }
    }
    fn lack(&self, i: usize, a: AxisId) -> Result<()> {
        if self.axes(i).has(a) { self.fail(format!("operand {i} has axis `{}` already", self.name(a))) } else { Ok(()) }
    }
    fn dtype(&self, i: usize, d: DType) -> Result<()> {
        if self.args[i].dtype == d { Ok(()) } else { self.fail(format!("operand {i} must be {d}")) }
    }
    fn within(&self, i: usize, axes: AxisSet) -> Result<()> {
        if axes.contains(self.axes(i)) {
            return Ok(());
        }
        self.fail(format!("operand {i} varies over more than [{}]", self.g.show_axes(axes)))
    }
    /// Gradients take results of the forward operation and their gradients, which may lack axes.
    fn like(&self, results: &[(usize, Type)]) -> Result<()> {
        for (i, t) in results {
            self.dtype(*i, t.dtype)?;
            self.within(*i, t.axes)?;
        }
        Ok(())
    }
    /// Operands `range` are floats of one dtype, which is the result's.
    fn floats(&self, range: std::ops::Range<usize>) -> Result<DType> {
        let d = self.args[range.start].dtype;
        for t in &self.args[range] {
            if !t.dtype.is_float() || t.dtype != d {
                return self.fail("operands must be floats of one dtype");
            }
        }
        Ok(d)
    }
    fn one(&self, dtype: DType, axes: AxisSet) -> Result<Types> {
        Ok(List::one(Type { dtype, axes }))
    }
    fn same_len(&self, a: AxisId, b: AxisId) -> Result<()> {
        if self.g.len(a) == self.g.len(b) {
            return Ok(());
        }
        self.fail(format!(
            "axes `{}` ({}) and `{}` ({}) differ in length",
            self.name(a),
            self.g.len(a),
            self.name(b),
            self.g.len(b)
        ))
    }

    fn results(&self) -> Result<Types> {
        let all = self.args.len();
        match self.op {
            Op::Leaf(l) => match self.g.leaves.get(l.0 as usize) {
                Some(leaf) => self.one(leaf.dtype, leaf.axes()),
                None => self.fail(format!("there is no leaf {}", l.0)),
            },
            Op::Const(s) => self.one(s.dtype(), AxisSet::EMPTY),
            Op::Iota(a) => self.one(DType::I32, (*a).into()),
            Op::Random { axes, .. } => {
                self.dtype(0, DType::I32)?;
                self.dtype(1, DType::I32)?;
                if AxisSet::of(axes).len() != axes.len() {
                    return self.fail("it draws twice over one axis");
                }
                self.one(DType::F32, AxisSet::of(axes).union(self.union()))
            }
            Op::Unary(u) => self.unary(*u),
            Op::Binary(b) => self.binary(*b),
            Op::Select => {
                self.dtype(0, DType::Bool)?;
                self.dtype(2, self.args[1].dtype)?;
                self.one(self.args[1].dtype, self.union())
            }
            Op::Cast(d) => self.one(*d, self.axes(0)),
            Op::Reduce { kind, axes } => self.reduce(*kind, *axes),
            Op::ArgMax(a) => {
                self.need(0, *a)?;
                self.one(DType::I32, self.axes(0).without(*a))
            }
            Op::TopK { axis, k } => self.top_k(*axis, *k),
            Op::Sample { axis } => self.sample(*axis),
            Op::Dot { axes } => self.dot(*axes),
            Op::Recurrence { axis, .. } => {
                let d = self.floats(0..all)?;
                if all == 3 {
                    self.lack(2, *axis)?;
                }
                self.one(d, self.union().with(*axis))
            }
            Op::Rename { from, to } => {
                self.need(0, *from)?;
                self.lack(0, *to)?;
                self.same_len(*from, *to)?;
                self.one(self.args[0].dtype, self.axes(0).renamed(*from, *to))
            }
            Op::At { axis, index } => {
                self.need(0, *axis)?;
                if *index >= self.g.len(*axis) {
                    return self.fail(format!("index {index} is outside axis `{}`", self.name(*axis)));
                }
                self.one(self.args[0].dtype, self.axes(0).without(*axis))
            }
            Op::Slice { axis, start, to } => self.window(*axis, *to, *start, *axis, *to),
            Op::Pad { axis, start, to } => self.window(*axis, *to, *start, *to, *axis),
            Op::Stack { axis } => self.stack(*axis),
            Op::Concat { axis, parts } => self.concat(*axis, parts),
            Op::Shift { axis, .. } => {
                self.need(0, *axis)?;
                self.one(self.args[0].dtype, self.axes(0))
            }
            Op::Gather { axis } => {
                self.need(0, *axis)?;
                self.lack(1, *axis)?;
                self.dtype(1, DType::I32)?;
                self.one(self.args[0].dtype, self.axes(0).without(*axis).union(self.axes(1)))
            }
            Op::ScatterAdd { axis, over } => self.scatter_add(*axis, *over),
            Op::Update { axis } => {
                self.need(0, *axis)?;
                self.lack(1, *axis)?;
                self.lack(2, *axis)?;
                self.dtype(1, DType::I32)?;
                self.dtype(2, self.args[0].dtype)?;
                if !self.axes(0).union(self.axes(1)).contains(self.axes(2)) {
                    return self.fail("the value varies over an axis that neither base nor index has");
                }
                self.one(self.args[0].dtype, self.axes(0))
            }
            Op::StopGradient => Ok(self.args[..1].into()),
            Op::Part(_) => self.fail("bug: part is inferred from its operation"),
            Op::Softmax { axis } => {
                self.need(0, *axis)?;
                self.one(self.floats(0..1)?, self.axes(0))
            }
            Op::LogSumExp { axis } => {
                self.need(0, *axis)?;
                self.one(self.floats(0..1)?, self.axes(0).without(*axis))
            }
            Op::LayerNorm { axis, .. } | Op::RmsNorm { axis, .. } => {
                self.need(0, *axis)?;
                if all == 2 && matches!(self.op, Op::LayerNorm { .. }) {
                    return self.fail("a weight needs a bias beside it");
                }
                self.one(self.floats(0..all)?, self.union())
            }
            Op::Rope { pair } => {
                self.need(0, *pair)?;
                self.lack(1, *pair)?;
                self.lack(2, *pair)?;
                if self.g.len(*pair) != 2 {
                    return self.fail("the pair axis must have length 2");
                }
                self.one(self.floats(0..3)?, self.union())
            }
            Op::Attention(a) => self.attention(a),
            Op::AttentionGrad(a) => {
                let (forward, o) = (self.attention(a)?, 3 + a.extra_args());
                self.like(&[(o, forward[0]), (o + 1, forward[1]), (o + 2, forward[0])])?;
                Ok(self.args[..3].into())
            }
            Op::SelectiveScan { time, state } => self.scan(*time, *state),
            Op::SelectiveScanGrad { time, state } => {
                let forward = self.scan(*time, *state)?;
                self.like(&[(5, forward[0])])?;
                Ok(self.args[..5].into())
            }
            Op::GatedRecurrence { time } => self.gated_recurrence(*time),
            Op::GatedRecurrenceGrad { time } => {
                let forward = self.gated_recurrence(*time)?;
                if (0..2).any(|i| self.axes(i) != forward[0].axes) {
                    return self.fail("log_a and x need all axes of the states");
                }
                self.like(&[(3, forward[0]), (4, forward[0])])?;
                Ok(self.args[..2].into())
            }
            Op::Mix => self.one(self.floats(0..3)?, self.union()),
            Op::CausalConv { time, tap } => {
                self.need(0, *time)?;
                self.need(1, *tap)?;
                self.lack(0, *tap)?;
                self.one(self.floats(0..all)?, self.union().without(*tap))
            }
            Op::CrossEntropy { vocab, over, .. } => self.cross_entropy(*vocab, *over),
            Op::CrossEntropyGrad { vocab, over, .. } => {
                let forward = self.cross_entropy(*vocab, *over)?;
                self.like(&[(3, forward[1]), (4, forward[0])])?;
                Ok(self.args[..2].into())
            }
            Op::RoutedDot { expert, over } => self.routed_dot(*expert, *over),
            Op::RoutedDotGrad { expert } => self.routed_dot_grad(*expert),
        }
    }

    fn unary(&self, u: Unary) -> Result<Types> {
        let d = self.args[0].dtype;
        let ok = match u {
            Unary::Not => d == DType::Bool,
            Unary::Neg | Unary::Abs => d.is_float() || d == DType::I32,
            _ => d.is_float(),
        };
        if ok { self.one(d, self.axes(0)) } else { self.fail(format!("not defined for {d}")) }
    }

    fn binary(&self, b: Binary) -> Result<Types> {
        let d = self.args[0].dtype;
        self.dtype(1, d)?;
        let ok = match b {
            Binary::And => d == DType::Bool,
            Binary::Rem => d == DType::I32,
            _ => d != DType::Bool,
        };
        if !ok {
            return self.fail(format!("not defined for {d}"));
        }
        self.one(if b.is_predicate() { DType::Bool } else { d }, self.union())
    }

    fn reduce(&self, kind: Reduction, axes: AxisSet) -> Result<Types> {
        let d = self.args[0].dtype;
        if axes.is_empty() || !self.axes(0).contains(axes) {
            return self.fail(format!("the operand lacks one of the axes [{}]", self.g.show_axes(axes)));
        }
        if d == DType::Bool || (kind == Reduction::Mean && !d.is_float()) {
            return self.fail(format!("not defined for {d}"));
        }
        self.one(d, self.axes(0).minus(axes))
    }

    fn top_k(&self, axis: AxisId, k: AxisId) -> Result<Types> {
        let d = self.floats(0..1)?;
        self.need(0, axis)?;
        self.lack(0, k)?;
        if self.g.len(k) > self.g.len(axis) {
            return self.fail(format!("`{}` is longer than `{}`", self.name(k), self.name(axis)));
        }
        let axes = self.axes(0).without(axis).with(k);
        Ok(vec![Type::new(d, axes), Type::new(DType::I32, axes)].into())
    }

    fn sample(&self, axis: AxisId) -> Result<Types> {
        self.need(0, axis)?;
        for (i, d) in [DType::F32, DType::F32, DType::I32, DType::F32, DType::F32, DType::F32].into_iter().enumerate() {
            self.dtype(i, d)?;
            if i > 0 {
                self.lack(i, axis)?;
            }
        }
        self.one(DType::I32, self.union().without(axis))
    }

    fn dot(&self, axes: AxisSet) -> Result<Types> {
        let d = self.floats(0..2)?;
        if axes.is_empty() || !self.axes(0).contains(axes) || !self.axes(1).contains(axes) {
            return self.fail(format!("both operands need the axes [{}]", self.g.show_axes(axes)));
        }
        self.one(d, self.union().minus(axes))
    }

    /// Slice and pad: a window `inner` at `start` of `outer`; the operand has `have`, the result the other.
    fn window(&self, have: AxisId, give: AxisId, start: usize, outer: AxisId, inner: AxisId) -> Result<Types> {
        self.need(0, have)?;
        self.lack(0, give)?;
        if start + self.g.len(inner) > self.g.len(outer) {
            return self.fail(format!("`{}` at {start} leaves `{}`", self.name(inner), self.name(outer)));
        }
        self.one(self.args[0].dtype, self.axes(0).renamed(have, give))
    }

    fn stack(&self, axis: AxisId) -> Result<Types> {
        if self.args.len() != self.g.len(axis) {
            return self.fail(format!("axis `{}` has length {}", self.name(axis), self.g.len(axis)));
        }
        for i in 0..self.args.len() {
            self.lack(i, axis)?;
            self.dtype(i, self.args[0].dtype)?;
        }
        self.one(self.args[0].dtype, self.union().with(axis))
    }

    fn concat(&self, axis: AxisId, parts: &[AxisId]) -> Result<Types> {
        let total: usize = parts.iter().map(|p| self.g.len(*p)).sum();
        if parts.len() != self.args.len() || total != self.g.len(axis) {
            return self.fail(format!("parts do not add up to axis `{}`", self.name(axis)));
        }
        let mut out = AxisSet::from(axis);
        for (i, p) in parts.iter().enumerate() {
            self.need(i, *p)?;
            self.lack(i, axis)?;
            self.dtype(i, self.args[0].dtype)?;
            out = out.union(self.axes(i).without(*p));
        }
        self.one(self.args[0].dtype, out)
    }

    fn scatter_add(&self, axis: AxisId, over: AxisSet) -> Result<Types> {
        self.dtype(0, DType::I32)?;
        self.lack(0, axis)?;
        self.lack(1, axis)?;
        let from = self.axes(0).union(self.axes(1));
        if !from.contains(over) {
            return self.fail("it sums over an axis that no operand has");
        }
        let out = from.minus(over).with(axis);
        if let Some(base) = self.args.get(2)
            && (base.axes != out || base.dtype != self.args[1].dtype)
        {
            return self.fail("the base must have the result's type");
        }
        self.one(self.args[1].dtype, out)
    }

    fn attention(&self, a: &Attention) -> Result<Types> {
        let d = self.floats(0..3)?;
        let (q, k, v) = (self.axes(0), self.axes(1), self.axes(2));
        self.lack(0, a.keys)?;
        self.need(1, a.keys)?;
        self.need(2, a.keys)?;
        if a.over.is_empty() || !q.contains(a.over) || !k.contains(a.over) || !v.disjoint(a.over) {
            return self.fail("query and key, and not value, need the contracted axes");
        }
        let rows = q.union(k).minus(a.over).without(a.keys);
        for i in 3..3 + a.extra_args() {
            self.dtype(i, DType::I32)?;
            self.within(i, rows)?;
        }
        Ok(vec![Type::new(d, rows.union(v.without(a.keys))), Type::new(DType::F32, rows)].into())
    }

    fn scan(&self, time: AxisId, state: AxisId) -> Result<Types> {
        let d = self.floats(0..self.args.len())?;
        let (dt, a, b, c, u) = (self.axes(0), self.axes(1), self.axes(2), self.axes(3), self.axes(4));
        if !a.has(state) || a.has(time) || !b.has(state) || !c.has(state) || dt.has(state) || u.has(state) {
            return self.fail("a, b and c have the state axis, dt and u do not, a lacks the time axis");
        }
        if !dt.has(time) || !u.has(time) {
            return self.fail("dt and u need the time axis");
        }
        let all = dt.union(a).union(b).union(u);
        if self.args.len() == 6 && matches!(self.op, Op::SelectiveScan { .. }) && self.axes(5) != all.without(time) {
            return self.fail("the initial state has the axes of a step's state");
        }
        Ok(vec![Type::new(d, all.union(c).without(state)), Type::new(d, all.without(time))].into())
    }

    fn gated_recurrence(&self, time: AxisId) -> Result<Types> {
        let d = self.floats(0..2)?;
        self.need(0, time)?;
        self.need(1, time)?;
        self.dtype(2, DType::Bool)?;
        let all = self.axes(0).union(self.axes(1)).union(self.axes(2));
        if self.args.len() == 4 {
            self.dtype(3, d)?;
            if self.axes(3) != all.without(time) {
                return self.fail("the initial state has the axes of a step's state");
            }
        }
        Ok(vec![Type::new(d, all), Type::new(d, all.without(time))].into())
    }

    fn cross_entropy(&self, vocab: AxisId, over: AxisSet) -> Result<Types> {
        self.floats(0..2)?;
        self.lack(0, vocab)?;
        self.need(1, vocab)?;
        self.dtype(2, DType::I32)?;
        if over.is_empty() || !self.axes(0).contains(over) || !self.axes(1).contains(over) {
            return self.fail("both operands need the contracted axes");
        }
        let rows = self.axes(0).union(self.axes(1)).minus(over).without(vocab);
        if self.axes(2) != rows {
            return self.fail("the target has one entry a row");
        }
        Ok(vec![Type::new(DType::F32, rows), Type::new(DType::F32, rows)].into())
    }

    fn routed_dot(&self, expert: AxisId, over: AxisId) -> Result<Types> {
        let d = self.floats(0..2)?;
        self.dtype(2, DType::I32)?;
        let (x, w, index) = (self.axes(0), self.axes(1), self.axes(2));
        let out = w.without(expert).without(over).single();
        let Some(out) = out.filter(|_| w.len() == 3 && expert != over) else {
            return self.fail("the weight has three axes: the expert, the contracted one and one of the result");
        };
        self.need(0, over)?;
        if !index.disjoint(w) || !index.contains(x.without(over)) {
            return self.fail("the rows are the axes of the index: the weight has none of them, x no others");
        }
        self.one(d, index.with(out))
    }

    fn routed_dot_grad(&self, expert: AxisId) -> Result<Types> {
        let d = self.floats(0..2)?;
        self.dtype(2, DType::I32)?;
        self.lack(2, expert)?;
        let own = |i: usize| self.axes(i).minus(self.axes(2)).single().filter(|a| *a != expert);
        match (own(0), own(1)) {
            (Some(over), Some(out)) if over != out => self.one(d, AxisSet::of(&[expert, over, out])),
            _ => self.fail("x and dy have one axis each that the index lacks, and not the same"),
        }
    }
}
