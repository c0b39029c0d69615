//! Random compositions of operations: gradients against finite differences, and against those of the expanded and of the
//! canonical graph.
use super::{assert_same, check_expansion, check_graph, feeds, gradients, param, params};
use lolm_ir::arbitrary;
use lolm_ir::graph::{Builder, Graph, ValueId};
use lolm_ir::op::{Binary, Op, Reduction, Unary};
use lolm_ir::{AxisId, AxisSet};
use lolm_passes::canonicalize::canonicalize;
use lolm_passes::differentiate::{DiffError, differentiate};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// An operation number with numbers that choose its operands and an axis.
type Instruction = (u8, u8, u8, u8);

struct Maker {
    b: Builder,
    t: AxisId,
    /// A second name of the length of t.
    s: AxisId,
    d: AxisId,
    e: AxisId,
    /// d followed by e.
    k: AxisId,
    pool: Vec<ValueId>,
}

impl Maker {
    fn new() -> Self {
        let mut b = Builder::new("composition");
        let [t, s, d, e, k] = [("t", 2), ("s", 2), ("d", 3), ("e", 2), ("k", 5)].map(|(n, l)| b.axis(n, l));
        let shapes: [&[AxisId]; 5] = [&[t, d], &[d, e], &[e], &[], &[t, s]];
        let pool = shapes.iter().enumerate().map(|(i, axes)| param(&mut b, &format!("p{i}"), axes)).collect();
        Maker { b, t, s, d, e, k, pool }
    }

    fn axes(&self, v: ValueId) -> AxisSet {
        self.b.graph().axes_of(v)
    }
    fn has(&self, v: ValueId, a: AxisId) -> bool {
        self.axes(v).has(a)
    }
    fn unary(&mut self, u: Unary, x: ValueId) -> ValueId {
        self.b.unary(u, x)
    }
    /// Keeps numbers small, so that finite differences stay exact.
    fn squash(&mut self, x: ValueId) -> ValueId {
        self.unary(Unary::Tanh, x)
    }

    /// The value of an instruction; one that does not fit its operands is a tanh.
    fn apply(&mut self, (op, i, j, k): Instruction) -> ValueId {
        let pick = |n: u8| self.pool[n as usize % self.pool.len()];
        let (x, y) = (pick(i), pick(j));
        let along = self.axes(x).iter().nth(k as usize % self.axes(x).len().max(1));
        let v = match op % 3 {
            0 => self.elementwise(op / 3, x, y),
            1 => along.and_then(|a| self.reduction(op / 3, x, y, a)),
            _ => along.and_then(|a| self.index(op / 3, x, y, a)),
        };
        v.unwrap_or_else(|| self.squash(x))
    }

    fn elementwise(&mut self, op: u8, x: ValueId, y: ValueId) -> Option<ValueId> {
        Some(match op % 16 {
            0 => self.b.add(x, y),
            1 => self.b.sub(x, y),
            2 | 3 => {
                let product = self.b.mul(x, y);
                self.squash(product)
            }
            4 => {
                let (half, positive) = (self.b.num(0.5), self.unary(Unary::Softplus, y));
                let divisor = self.b.add(positive, half);
                self.b.div(x, divisor)
            }
            5 => self.b.max(x, y),
            6 => self.b.min(x, y),
            7 => self.unary(Unary::Gelu, x),
            8 => self.unary(Unary::Silu, x),
            9 => self.unary(Unary::Softplus, x),
            10 => self.unary(Unary::Erf, x),
            11 => {
                let positive = self.unary(Unary::Sigmoid, x);
                self.unary(Unary::Rsqrt, positive)
            }
            12 => {
                let small = self.squash(x);
                self.unary(Unary::Exp, small)
            }
            13 => {
                let gate = self.unary(Unary::Sigmoid, y);
                self.b.op(Op::Mix, &[gate, x, y])
            }
            14 => {
                let cond = self.b.binary(Binary::Lt, x, y);
                self.b.select(cond, y, x)
            }
            _ => self.unary(Unary::Abs, x),
        })
    }

    fn reduction(&mut self, op: u8, x: ValueId, y: ValueId, a: AxisId) -> Option<ValueId> {
        let axes = a.into();
        let eps = 0.1f32.to_bits();
        Some(match op % 9 {
            0 => self.b.sum(&[a], x),
            1 => self.b.mean(&[a], x),
            2 => self.b.op(Op::Reduce { kind: Reduction::Max, axes }, &[x]),
            3 | 4 if self.has(y, a) => {
                let sum = self.b.dot(&[a], x, y);
                self.squash(sum)
            }
            5 => self.b.op(Op::Softmax { axis: a }, &[x]),
            6 => self.b.op(Op::LogSumExp { axis: a }, &[x]),
            7 if self.has(x, self.d) => self.b.op(Op::LayerNorm { axis: self.d, eps }, &[x]),
            8 if self.has(x, self.d) => self.b.op(Op::RmsNorm { axis: self.d, eps }, &[x, y]),
            _ => return None,
        })
    }

    fn index(&mut self, op: u8, x: ValueId, y: ValueId, a: AxisId) -> Option<ValueId> {
        let (t, s, d, e, k) = (self.t, self.s, self.d, self.e, self.k);
        Some(match op % 10 {
            0 if self.has(x, t) && !self.has(x, s) => self.b.rename(x, t, s),
            1 if self.has(x, s) && !self.has(x, t) => self.b.rename(x, s, t),
            2 => self.b.at(x, a, self.b.graph().len(a) - 1),
            3 => self.b.shift(x, a, 1),
            4 => self.b.shift(x, a, -1),
            5 if self.has(x, d) && !self.has(x, e) => self.b.slice(x, d, 1, e),
            6 if self.has(x, e) && !self.has(x, d) => self.b.op(Op::Pad { axis: e, start: 1, to: d }, &[x]),
            7 if !self.has(x, e) && !self.has(y, e) => self.b.op(Op::Stack { axis: e }, &[x, y]),
            8 if self.has(x, d) && self.has(y, e) && !self.axes(x).union(self.axes(y)).has(k) => {
                self.b.op(Op::Concat { axis: k, parts: vec![d, e] }, &[x, y])
            }
            9 => {
                let decay = self.unary(Unary::Sigmoid, x);
                self.b.op(Op::Recurrence { axis: a, reverse: false }, &[decay, y])
            }
            _ => return None,
        })
    }
}

/// The composition with its loss: a weighted sum of the last value and the mean of the one before it.
fn composed(program: &[Instruction]) -> (Graph, ValueId) {
    let mut m = Maker::new();
    for instruction in program {
        let v = m.apply(*instruction);
        m.pool.push(v);
    }
    let (last, other) = (m.pool[m.pool.len() - 1], m.pool[m.pool.len() - 2]);
    let last_axes: Vec<AxisId> = m.axes(last).iter().collect();
    let other_axes: Vec<AxisId> = m.axes(other).iter().collect();
    let mut b = m.b;
    let weight = super::input(&mut b, "weight", &last_axes);
    let weighted = b.mul(last, weight);
    let sum = if last_axes.is_empty() { weighted } else { b.sum(&last_axes, weighted) };
    let mean = if other_axes.is_empty() { other } else { b.mean(&other_axes, other) };
    let loss = b.add(sum, mean);
    b.output("loss", loss, &[]);
    (b.finish().unwrap(), loss)
}

fn check_canonical(g: &Graph, loss: ValueId, feeds: &lolm_ir::interp::Feeds) {
    let small = canonicalize(g).unwrap();
    let small_loss = small.find_output("loss").unwrap().value;
    let before = gradients(&differentiate(g, loss, &params(g)).unwrap(), feeds);
    let after = gradients(&differentiate(&small, small_loss, &params(&small)).unwrap(), feeds);
    assert_same("canonical composition", &after, &before);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::default()
    })]
    #[test]
    fn gradients_of_random_compositions(program in prop::collection::vec(any::<Instruction>(), 2..14)) {
        let (g, loss) = composed(&program);
        let feeds = feeds(&g, super::PLAIN, &[]);
        check_graph(&g, loss, &feeds, 1e-5);
        check_expansion(&g, loss, &feeds);
        check_canonical(&g, loss, &feeds);
    }
}

/// False for the results that are refused: those of gradients, and all but the first of a fused operation.
fn has_gradient(g: &Graph, v: ValueId) -> bool {
    let n = g.node(v);
    let producer = n.args.first().map(|a| &g.node(*a).op);
    let is_gradient = |op: &Op| {
        matches!(
            op,
            Op::AttentionGrad(_)
                | Op::SelectiveScanGrad { .. }
                | Op::CrossEntropyGrad { .. }
                | Op::GatedRecurrenceGrad { .. }
        )
    };
    match n.op {
        Op::Part(i) => i == 0 && !producer.is_some_and(is_gradient),
        _ => n.ty().dtype.is_float() && n.types.len() == 1,
    }
}

/// Finite differences do not stop.
fn without_stops(mut g: Graph) -> Graph {
    for v in g.ids() {
        for i in 0..g.node(v).args.len() {
            while let Op::StopGradient = g.node(g.node(v).args[i]).op {
                let through = g.node(g.node(v).args[i]).args[0];
                g.nodes[v.0 as usize].args[i] = through;
            }
        }
    }
    g
}

/// A random graph of any operations with the sum of its float results, weighted, as its loss.
fn with_loss(choices: &[u32]) -> (Graph, ValueId) {
    let g = arbitrary::graph(choices, arbitrary::Options::SMOOTH).unwrap();
    let results: Vec<ValueId> = g.outputs.iter().map(|o| o.value).chain(g.writes.iter().map(|w| w.value)).collect();
    let mut b = Builder::extend(g);
    let mut loss = b.num(0.0);
    let floats: Vec<ValueId> = results.into_iter().filter(|v| has_gradient(b.graph(), *v)).collect();
    for (i, v) in floats.into_iter().enumerate() {
        let axes: Vec<AxisId> = b.graph().axes_of(v).iter().collect();
        let sum = if axes.is_empty() { v } else { b.sum(&axes, v) };
        let small = b.unary(Unary::Tanh, sum);
        let share = b.scale(small, 1.0 + i as f32 / 8.0);
        loss = b.add(loss, share);
    }
    b.output("loss", loss, &[]);
    (without_stops(b.finish().unwrap()), loss)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::default()
    })]
    #[test]
    fn gradients_of_random_graphs(choices in prop::collection::vec(any::<u32>(), 0..100), seed in 0u32..100) {
        let (g, loss) = with_loss(&choices);
        let feeds = arbitrary::feeds(&g, seed);
        match differentiate(&g, loss, &params(&g)) {
            // Gradients of gradients, of a scan's last state, of log-sum-exps that are there for the gradient.
            Err(DiffError::Unsupported { .. }) => {}
            Err(e) => prop_assert!(false, "{}", e),
            Ok(_) => {
                check_graph(&g, loss, &feeds, 1e-5);
                check_expansion(&g, loss, &feeds);
                check_canonical(&g, loss, &feeds);
            }
        }
    }
}
