//! Random well-typed graphs and contents for their leaves, for property tests.
//!
//! A graph is a function of a list of numbers, each of which decides one thing, so that a property-testing library can
//! make graphs smaller by making the list shorter. Operations with a pole or an overflow are kept away from it: the
//! values of a random graph are finite.
use crate::axis::{AxisId, AxisSet};
use crate::dtype::DType;
use crate::graph::{Builder, Dim, Graph, GraphError, Init, LeafKind, RowKind, ScopeId, Type, ValueId};
use crate::interp::Feeds;
use crate::op::{Op, Unary};
use crate::philox;

mod fused;
mod small;
#[cfg(test)]
mod tests;

/// What a random graph may contain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Values of dtype bf16: a difference in the last digit of an operand can become one of a hundredth.
    pub bf16: bool,
    pub fused: bool,
    /// Steps in floats (comparisons, argmax, casts to integers): a difference in the last digit can become any.
    pub steps: bool,
}

impl Options {
    pub const ALL: Options = Options { bf16: true, fused: true, steps: true };
    /// Graphs whose value can be compared with that of a rewritten one.
    pub const SMOOTH: Options = Options { bf16: false, fused: true, steps: false };
}

/// A graph of a few operations for every dozen choices.
pub fn graph(choices: &[u32], options: Options) -> Result<Graph, GraphError> {
    of_size(choices, options, &AXES)
}

/// The same graph over longer axes, so that lowering cuts its sequences, products and sums in pieces.
pub fn long_graph(choices: &[u32], options: Options) -> Result<Graph, GraphError> {
    of_size(choices, options, &LONG_AXES)
}

fn of_size(choices: &[u32], options: Options, axes: &[(&str, usize)]) -> Result<Graph, GraphError> {
    let mut gen_ = Generator::new(choices, options, axes);
    while gen_.at < choices.len() {
        gen_.step();
    }
    gen_.results();
    gen_.b.finish()
}

/// Contents for all leaves: floats in (-1, 1), small integers (a few of them outside any axis), any booleans.
pub fn feeds(g: &Graph, seed: u32) -> Feeds {
    let content = |site: usize, dtype: DType, n: usize| -> Vec<f64> {
        let draw = |i: usize| philox::uniform(seed, site as u32, 0, i as u64) as f64;
        let value = |u: f64| match dtype {
            DType::F32 | DType::Bf16 => 2.0 * u - 1.0,
            DType::I32 => (u * 7.0).floor() - 1.0,
            DType::Bool => (2.0 * u).floor(),
        };
        (0..n).map(|i| value(draw(i))).collect()
    };
    let given = g.leaves.iter().enumerate().filter(|(_, l)| !matches!(l.kind, LeafKind::Table(_)));
    given.map(|(i, l)| (l.name.clone(), content(i, l.dtype, l.shape(g).iter().product()))).collect()
}

/// The axes of every random graph; `w` has the length of `d` and `n` together.
const AXES: [(&str, usize); 11] =
    [("b", 2), ("t", 3), ("s", 3), ("d", 4), ("e", 4), ("h", 2), ("p", 2), ("n", 3), ("v", 5), ("w", 7), ("k", 2)];

/// The same axes, longer; what one operation needs of another's length is the same.
const LONG_AXES: [(&str, usize); 11] =
    [("b", 2), ("t", 130), ("s", 130), ("d", 8), ("e", 8), ("h", 2), ("p", 2), ("n", 3), ("v", 9), ("w", 11), ("k", 2)];

const SCOPES: [&str; 3] = ["layers.0", "layers.1", "head"];

struct Generator<'a> {
    b: Builder,
    choices: &'a [u32],
    at: usize,
    options: Options,
    scopes: Vec<ScopeId>,
}

impl<'a> Generator<'a> {
    fn new(choices: &'a [u32], options: Options, axes: &[(&str, usize)]) -> Self {
        let mut b = Builder::new("random");
        for (name, len) in axes {
            b.axis(name, *len);
        }
        Generator { b, choices, at: 0, options, scopes: vec![ScopeId(0)] }
    }

    // ---- choices

    /// A number below `n`; 0 when all choices are made.
    fn pick(&mut self, n: usize) -> usize {
        let choice = self.choices.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        choice as usize % n.max(1)
    }
    fn chance(&mut self, one_in: usize) -> bool {
        self.pick(one_in) == 1
    }
    fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.pick(items.len())]
    }
    fn axis(&self, name: &str) -> AxisId {
        AxisId(AXES.iter().position(|(n, _)| *n == name).unwrap_or(0) as u8)
    }
    fn axes(&self, names: &str) -> AxisSet {
        names.split_whitespace().map(|n| self.axis(n)).collect()
    }
    /// Up to two axes, and then `with` but not `without`.
    fn any_axes(&mut self, with: AxisSet, without: AxisSet) -> AxisSet {
        let some: AxisSet = (0..self.pick(3)).map(|_| AxisId(self.pick(AXES.len()) as u8)).collect();
        some.union(with).minus(without)
    }
    /// Some of these axes.
    fn some_of(&mut self, axes: AxisSet) -> AxisSet {
        let bits = self.pick(usize::MAX);
        axes.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 0).map(|(_, a)| a).collect()
    }
    fn dtype(&mut self) -> DType {
        if self.options.bf16 && self.chance(8) { DType::Bf16 } else { DType::F32 }
    }

    // ---- operands

    /// A value of exactly this type: one that exists, or a new leaf.
    fn operand(&mut self, dtype: DType, axes: AxisSet) -> ValueId {
        let g = self.b.graph();
        let wanted = Type::new(dtype, axes);
        let known: Vec<ValueId> = g.ids().filter(|v| g.ty(*v) == wanted).collect();
        if known.is_empty() || self.chance(4) { self.fresh(dtype, axes) } else { self.one_of(&known) }
    }
    fn fresh(&mut self, dtype: DType, axes: AxisSet) -> ValueId {
        let name = format!("leaf{}", self.b.graph().leaves.len());
        let kind = match self.pick(4) {
            0 if dtype == DType::F32 => LeafKind::Param(Init::Normal(0.02)),
            1 => LeafKind::State { init: None, rows: RowKind::None },
            _ => LeafKind::Input,
        };
        let dims = self.dims(axes);
        self.b.leaf(&name, kind, dtype, &dims)
    }
    /// These axes in some order, two of them in one dimension perhaps, with a dimension of none perhaps.
    fn dims(&mut self, axes: AxisSet) -> Vec<Dim> {
        let mut order: Vec<AxisId> = axes.iter().collect();
        let by = self.pick(order.len());
        order.rotate_left(by);
        let mut dims: Vec<Dim> = order.into_iter().map(|a| vec![a]).collect();
        if dims.len() > 1 && self.chance(4) {
            let inner = dims.remove(1);
            dims[0].extend(inner);
        }
        if self.chance(8) {
            dims.push(vec![]);
        }
        dims
    }
    /// A float over some axes, among them `with` and not `without`.
    fn float(&mut self, with: AxisSet, without: AxisSet) -> ValueId {
        let (dtype, axes) = (self.dtype(), self.any_axes(with, without));
        self.operand(dtype, axes)
    }
    fn dtype_of(&self, x: ValueId) -> DType {
        self.b.graph().ty(x).dtype
    }
    fn axes_of(&self, x: ValueId) -> AxisSet {
        self.b.graph().axes_of(x)
    }
    /// A constant of the dtype of `like`.
    fn constant(&mut self, x: f32, like: ValueId) -> ValueId {
        let (c, dtype) = (self.b.num(x), self.dtype_of(like));
        self.b.cast(c, dtype)
    }
    /// |x| + 1/2: away from the poles of division, logarithm and root.
    fn positive(&mut self, x: ValueId) -> ValueId {
        let (abs, half) = (self.b.unary(Unary::Abs, x), self.constant(0.5, x));
        self.b.add(abs, half)
    }
    fn parts(&mut self, x: ValueId) -> Vec<ValueId> {
        (0..self.b.graph().node(x).types.len()).map(|i| self.b.part(x, i)).collect()
    }

    // ---- statements

    fn step(&mut self) {
        if self.chance(6) {
            self.enter_scope();
        }
        if self.options.fused && self.chance(3) { self.fused() } else { self.small() }
    }

    fn enter_scope(&mut self) {
        if self.chance(2) {
            let back = self.one_of(&self.scopes.clone());
            self.b.set_scope(back);
        } else {
            let name = self.one_of(&SCOPES);
            self.b.scope(name);
            self.scopes.push(self.b.current_scope());
        }
    }

    /// Every value that nobody uses becomes an output or is written to a state of its type.
    fn results(&mut self) {
        let (g, uses) = (self.b.graph(), self.b.graph().uses());
        let unused: Vec<ValueId> = g.ids().filter(|v| uses[v.0 as usize] == 0 && g.node(*v).types.len() == 1).collect();
        for v in unused {
            let written = |g: &Graph, l: u32| g.writes.iter().any(|w| w.leaf.0 == l);
            let g = self.b.graph();
            let state = g.ids().find(|s| match g.node(*s).op {
                Op::Leaf(l) => {
                    matches!(g.leaf(l).kind, LeafKind::State { .. }) && g.ty(*s) == g.ty(v) && !written(g, l.0)
                }
                _ => false,
            });
            match state {
                Some(state) if self.chance(2) => self.b.write(state, v),
                _ => {
                    let dims = self.dims(self.axes_of(v));
                    self.b.output(&format!("out{}", v.0), v, &dims);
                }
            }
        }
    }
}
