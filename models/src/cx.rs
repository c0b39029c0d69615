//! What the parts of a model share while one program is built: the builder, the family's spec, the common axes, and how
//! time passes: a whole sequence at once, or a few tokens that go on from states.
use crate::blocks::{concat, slice_or_rename};
use lolm_ir::graph::{Dim, Init, LeafKind, RowKind};
use lolm_ir::{AxisId, Builder, DType, Op, ValueId};
use std::ops::{Deref, DerefMut};

/// Axes that more than one part uses. Equal letters in two parts are the same axis, so equal layers are equal graphs.
#[derive(Clone, Copy)]
pub struct Axes {
    /// Sequences, or slots when serving.
    pub b: AxisId,
    /// Tokens.
    pub t: AxisId,
    /// Keys: as long as `t`, or as many as are kept when tokens go on from states.
    pub s: AxisId,
    /// Features of the residual stream.
    pub d: AxisId,
    /// The vocabulary.
    pub v: AxisId,
}

/// A program under construction. It is a [`Builder`] with more knowledge, and derefs to it.
pub struct Cx<'a, S> {
    builder: Builder,
    pub spec: &'a S,
    pub ax: Axes,
    /// The longest sequence.
    pub context: usize,
    /// `i32[b]`, the position of the first token, when tokens go on from states.
    pub pos: Option<ValueId>,
    /// The rate of dropout, where it is in force.
    pub dropout: Option<f32>,
}

/// The lengths of a program and of the model that it is of.
#[derive(Clone, Copy)]
pub struct Lengths {
    pub batch: usize,
    pub tokens: usize,
    pub hidden: usize,
    pub vocab: usize,
    /// The longest sequence.
    pub context: usize,
    /// Keys that are kept when tokens go on from states.
    pub kept: usize,
}

impl<S> Deref for Cx<'_, S> {
    type Target = Builder;
    fn deref(&self) -> &Builder {
        &self.builder
    }
}
impl<S> DerefMut for Cx<'_, S> {
    fn deref_mut(&mut self) -> &mut Builder {
        &mut self.builder
    }
}

impl<'a, S> Cx<'a, S> {
    /// A program of these lengths; `going_on` says that its tokens continue from states.
    pub fn new(name: &str, spec: &'a S, len: Lengths, going_on: bool) -> Self {
        let mut g = Builder::new(name);
        let (b, t) = (g.axis("b", len.batch), g.axis("t", len.tokens));
        let s = g.axis("s", if going_on { len.kept } else { len.tokens });
        let (d, v) = (g.axis("d", len.hidden), g.axis("v", len.vocab));
        let pos = going_on.then(|| g.input("pos", DType::I32, &[vec![b]]));
        Cx { builder: g, spec, ax: Axes { b, t, s, d, v }, context: len.context, pos, dropout: None }
    }

    pub fn into_builder(self) -> Builder {
        self.builder
    }

    /// Tokens of this program.
    pub fn tokens(&self) -> usize {
        self.graph().len(self.ax.t)
    }

    // ---- parameters, with the initialisation of each kind

    /// A map of the published form `[out, in]`.
    pub fn map(&mut self, name: &str, out: Dim, inp: Dim) -> ValueId {
        self.param(name, Init::Normal(0.02), &[out, inp])
    }
    /// A map that ends one of `branches` residual branches.
    pub fn closing_map(&mut self, name: &str, branches: usize, out: Dim, inp: Dim) -> ValueId {
        let std = 0.02 / (branches as f32).sqrt();
        self.param(name, Init::Normal(std), &[out, inp])
    }
    /// Scale and shift of a norm over d.
    pub fn norm(&mut self, name: &str) -> (ValueId, ValueId) {
        let d = self.ax.d;
        let weight = self.param(&format!("{name}.weight"), Init::Constant(1.0), &[vec![d]]);
        (weight, self.param(&format!("{name}.bias"), Init::Zeros, &[vec![d]]))
    }
    /// The scale of an RMSNorm over d.
    pub fn scale_of(&mut self, name: &str, start: f32) -> ValueId {
        let d = self.ax.d;
        self.param(name, Init::Constant(start), &[vec![d]])
    }
    /// A vector of zeros.
    pub fn bias(&mut self, name: &str, axis: AxisId) -> ValueId {
        self.param(name, Init::Zeros, &[vec![axis]])
    }

    // ---- randomness

    /// The inputs that draws of randomness depend on.
    fn seed_and_step(&mut self) -> (ValueId, ValueId) {
        (self.input("seed", DType::I32, &[]), self.input("step", DType::I32, &[]))
    }
    /// Uniform draws in (0, 1), one for each element of these axes.
    pub fn uniform(&mut self, axes: &[AxisId]) -> ValueId {
        let (seed, step) = self.seed_and_step();
        self.random(seed, step, axes)
    }
    /// Inverted dropout, where it is in force.
    pub fn dropped(&mut self, x: ValueId) -> ValueId {
        let Some(rate) = self.dropout else { return x };
        let axes: Vec<AxisId> = self.graph().axes_of(x).iter().collect();
        let u = self.uniform(&axes); // the axes of x
        let (limit, zero) = (self.num(rate), self.num(0.0));
        let kept = self.le(limit, u);
        let scaled = self.scale(x, 1.0 / (1.0 - rate));
        self.select(kept, scaled, zero)
    }

    // ---- time

    /// A state of each sequence, over b and then what is said of its rows.
    pub fn row_state(&mut self, name: &str, rows: RowKind, dims: &[Dim]) -> ValueId {
        self.leaf(name, LeafKind::State { init: None, rows }, DType::F32, dims)
    }

    /// The last token of a value with time.
    pub fn last(&mut self, x: ValueId) -> ValueId {
        let (t, n) = (self.ax.t, self.tokens());
        self.at(x, t, n - 1)
    }

    /// Positions of the tokens: `i32[t]`, or `i32[b,t]` when they go on from states.
    pub fn positions(&mut self) -> ValueId {
        let t = self.ax.t;
        let here = self.iota(t);
        match self.pos {
            None => here,
            Some(pos) => self.add(pos, here),
        }
    }

    /// `S_t = decay_t · S_{t-1} + drive_t` over time, from zero or from the state of this name, which then becomes the
    /// last S. `dims` are those of S without time.
    pub fn scan(&mut self, decay: ValueId, drive: ValueId, state: &str, dims: &[Dim]) -> ValueId {
        let op = Op::Recurrence { axis: self.ax.t, reverse: false };
        if self.pos.is_none() {
            return self.op(op, &[decay, drive]);
        }
        let before = self.row_state(state, RowKind::Whole, dims);
        let s = self.op(op, &[decay, drive, before]);
        let after = self.last(s);
        self.write(before, after);
        s
    }

    /// What a causal window of `taps` positions sees at each token, the oldest first: x delayed by `taps - 1` down to 0.
    /// Before the start stand zeros, or the state of this name: the last `taps - 1` values of x over `channels`.
    pub fn window(&mut self, x: ValueId, channels: &[AxisId], taps: usize, state: &str, axis: &str) -> Vec<ValueId> {
        let Axes { b, t, .. } = self.ax;
        if self.pos.is_none() || taps == 1 {
            return (0..taps).map(|j| self.shift(x, t, (taps - 1 - j) as i64)).collect();
        }
        let tokens = self.tokens();
        let past = self.axis(&format!("{axis}.past"), taps - 1);
        let all = self.axis(&format!("{axis}.all"), taps - 1 + tokens);
        let before = self.row_state(state, RowKind::Whole, &[vec![b], vec![past], channels.to_vec()]);
        let line = concat(self, all, &[(before, past), (x, t)]); // [b, all, channels]
        let after = self.slice(line, all, tokens, past); // [b, past, channels]
        self.write(before, after);
        (0..taps).map(|j| slice_or_rename(self, line, all, j, t)).collect()
    }
}
