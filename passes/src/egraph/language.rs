//! The egg language: an e-node is the kind of an operation with its attributes and operands as children.
//!
//! Attributes are typed leaves before the operands, so that pattern variables bind them. An axis is a set of one axis:
//! the `k` of `softmax {k}` and of `sum {k}` are one class. An operand that may be left out is a `none` leaf. An operation with
//! several results is a *bundle*, and each of its results, the first included, is a `part` of it.
//!
//! In text: `#3` is an index, `3i` an i32, `0.5` and `-inf` are f32, `none` is an operand or attribute that is not there.
use egg::Id;
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::op::{Binary, Reduction, Unary};
use lolm_ir::{DType, Scalar};
use std::fmt;

/// The kind of an operation: an [`lolm_ir::Op`] without its attributes; and the kinds which exist in an e-graph only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fun {
    Iota,
    Random,
    Unary(Unary),
    Binary(Binary),
    Select,
    Cast,
    Reduce(Reduction),
    ArgMax,
    TopK,
    Sample,
    Dot,
    Recurrence,
    Rename,
    At,
    Slice,
    Pad,
    Stack,
    Concat,
    Shift,
    Gather,
    ScatterAdd,
    Update,
    StopGradient,
    Part,
    Softmax,
    LogSumExp,
    LayerNorm,
    RmsNorm,
    Rope,
    Attention,
    AttentionGrad,
    SelectiveScan,
    SelectiveScanGrad,
    Mix,
    CausalConv,
    GatedRecurrence,
    GatedRecurrenceGrad,
    CrossEntropy,
    CrossEntropyGrad,
    RoutedDot,
    RoutedDotGrad,
    // ---- steps on the way to a fused operation, never extracted
    /// `(s, qpos, window)`: key s is visible from qpos, `s <= qpos` and, with a window, `qpos - window < s`; where the window
    /// is a `ring`, the age of slot s is below it and at most qpos.
    Visible,
    /// `(s, qpos)`: how many positions before qpos ring slot s was filled, `(qpos - s) mod len(s)`.
    Age,
    /// `(s, over, scale, window, q, k, qpos)`: the softmax of an attention.
    Weights,
    /// `(rate, axes, site, seed, step, x)`: inverted dropout of x.
    Dropped,
    /// `(time, tap, mask, x, w)`: the taps in the bit mask of a causal convolution.
    Taps,
    /// `(x)`: the root of x with a bounded derivative (see `Op::GatedRecurrence`).
    SqrtBounded,
    /// `(cap, x)`: cap · tanh(x / cap).
    Capped,
    // ---- arithmetic of attributes
    /// `(t)`: the last index of an axis.
    Last,
    /// `(m, n)`: the union of two bit masks.
    Union,
    /// `(j)`: the bit mask of one tap.
    Bit,
    /// `(w)`: a window of keys in a ring.
    Ring,
}

/// The row of a kind: its name in patterns, how many attributes and how many operands it has (`None`: any number).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FunRow {
    pub name: &'static str,
    pub attrs: usize,
    pub operands: Option<usize>,
}

impl Fun {
    #[rustfmt::skip]
    pub fn row(self) -> FunRow {
        let row = |name, attrs, operands| FunRow { name, attrs, operands: Some(operands) };
        match self {
            Fun::Iota              => row("iota", 1, 0),
            Fun::Random            => row("random", 2, 2),
            Fun::Unary(u)          => row(u.name(), 0, 1),
            Fun::Binary(b)         => row(b.name(), 0, 2),
            Fun::Select            => row("select", 0, 3),
            Fun::Cast              => row("cast", 1, 1),
            Fun::Reduce(r)         => row(r.name(), 1, 1),
            Fun::ArgMax            => row("argmax", 1, 1),
            Fun::TopK              => row("top_k", 2, 1),
            Fun::Sample            => row("sample", 1, 6),
            Fun::Dot               => row("dot", 1, 2),
            Fun::Recurrence        => row("linear_recurrence", 2, 3),
            Fun::Rename            => row("rename", 2, 1),
            Fun::At                => row("at", 2, 1),
            Fun::Slice             => row("slice", 3, 1),
            Fun::Pad               => row("pad", 3, 1),
            Fun::Stack             => FunRow { name: "stack", attrs: 1, operands: None },
            Fun::Concat            => FunRow { name: "concat", attrs: 2, operands: None },
            Fun::Shift             => row("shift", 2, 1),
            Fun::Gather            => row("gather", 1, 2),
            Fun::ScatterAdd        => row("scatter_add", 2, 3),
            Fun::Update            => row("update", 1, 3),
            Fun::StopGradient      => row("stop_gradient", 0, 1),
            Fun::Part              => row("part", 1, 1),
            Fun::Softmax           => row("softmax", 1, 1),
            Fun::LogSumExp         => row("logsumexp", 1, 1),
            Fun::LayerNorm         => row("layer_norm", 2, 3),
            Fun::RmsNorm           => row("rms_norm", 2, 2),
            Fun::Rope              => row("rope", 1, 3),
            Fun::Attention         => row("attention", 6, 6),
            Fun::AttentionGrad     => row("attention_grad", 6, 9),
            Fun::SelectiveScan     => row("selective_scan", 2, 6),
            Fun::SelectiveScanGrad => row("selective_scan_grad", 2, 6),
            Fun::Mix               => row("mix", 0, 3),
            Fun::CausalConv        => row("causal_conv", 2, 3),
            Fun::GatedRecurrence   => row("gated_recurrence", 1, 4),
            Fun::GatedRecurrenceGrad => row("gated_recurrence_grad", 1, 5),
            Fun::CrossEntropy      => row("cross_entropy", 3, 3),
            Fun::CrossEntropyGrad  => row("cross_entropy_grad", 3, 5),
            Fun::RoutedDot         => row("routed_dot", 2, 3),
            Fun::RoutedDotGrad     => row("routed_dot_grad", 1, 3),
            Fun::Visible           => row("visible", 1, 2),
            Fun::Age               => row("age", 1, 1),
            Fun::Weights           => row("weights", 4, 3),
            Fun::Dropped           => row("dropped", 3, 3),
            Fun::Taps              => row("taps", 3, 2),
            Fun::SqrtBounded       => row("sqrt_bounded", 0, 1),
            Fun::Capped            => row("capped", 1, 1),
            Fun::Last              => row("last", 1, 0),
            Fun::Union             => row("union", 2, 0),
            Fun::Bit               => row("bit", 1, 0),
            Fun::Ring              => row("ring", 1, 0),
        }
    }

    /// True for operations that have several results.
    pub fn is_bundle(self) -> bool {
        use Fun::*;
        let scan = matches!(self, SelectiveScan | SelectiveScanGrad | GatedRecurrence | GatedRecurrenceGrad);
        scan || matches!(self, Attention | AttentionGrad | CrossEntropy | CrossEntropyGrad | TopK)
    }

    /// Every kind, in the order of declaration.
    pub fn all() -> Vec<Fun> {
        use Fun::*;
        let mut all = vec![Iota, Random];
        all.extend(lolm_ir::op::Unary::ALL.map(Unary));
        all.extend(lolm_ir::op::Binary::ALL.map(Binary));
        all.extend([Select, Cast]);
        all.extend(Reduction::ALL.map(Reduce));
        all.extend([
            ArgMax, TopK, Sample, Dot, Recurrence, Rename, At, Slice, Pad, Stack, Concat, Shift, Gather, ScatterAdd,
        ]);
        all.extend([Update, StopGradient, Part, Softmax, LogSumExp, LayerNorm, RmsNorm, Rope, Attention]);
        all.extend([AttentionGrad, SelectiveScan, SelectiveScanGrad, Mix, CausalConv, GatedRecurrence]);
        all.extend([GatedRecurrenceGrad, CrossEntropy, CrossEntropyGrad, RoutedDot, RoutedDotGrad]);
        all.extend([Visible, Age, Weights, Dropped, Taps, SqrtBounded, Capped, Last, Union, Bit, Ring]);
        all
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<Fun> {
        Fun::all().into_iter().find(|f| f.row().name == name)
    }
}

/// What an e-node is, without its children. A literal index and a literal number are different leaves.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Head {
    Fun(Fun),
    /// A value from outside the region.
    Input(u32),
    /// A constant, as a value and as an attribute alike.
    Num(Scalar),
    Axes(AxisSet),
    List(Vec<AxisId>),
    Int(i64),
    Flag(bool),
    DType(DType),
    /// The identity of a draw of randomness, numbered within the region.
    Site(u32),
    /// A window of keys in a ring.
    Ring(i64),
    None,
}

/// A node of the e-graph.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Enode {
    pub head: Head,
    pub children: Vec<Id>,
}

impl Enode {
    pub fn leaf(head: Head) -> Self {
        Enode { head, children: vec![] }
    }
    pub fn fun(fun: Fun, children: Vec<Id>) -> Self {
        Enode { head: Head::Fun(fun), children }
    }
    /// The kind, if this is an operation.
    pub fn as_fun(&self) -> Option<Fun> {
        match self.head {
            Head::Fun(f) => Some(f),
            _ => None,
        }
    }
    /// The attributes and the operands of an operation; a leaf has neither.
    pub fn split(&self) -> (&[Id], &[Id]) {
        match self.head {
            Head::Fun(f) => self.children.split_at(f.row().attrs),
            _ => (&[], &[]),
        }
    }
}

impl egg::Language for Enode {
    type Discriminant = Head;
    fn discriminant(&self) -> Head {
        self.head.clone()
    }
    fn matches(&self, other: &Self) -> bool {
        self.head == other.head && self.children.len() == other.children.len()
    }
    fn children(&self) -> &[Id] {
        &self.children
    }
    fn children_mut(&mut self) -> &mut [Id] {
        &mut self.children
    }
}

impl fmt::Display for Enode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.head {
            Head::Fun(k) => f.write_str(k.row().name),
            Head::Input(i) => write!(f, "%{i}"),
            Head::Num(Scalar::F32(b)) => write!(f, "{}", f32::from_bits(*b)),
            Head::Num(Scalar::I32(i)) => write!(f, "{i}i"),
            Head::Num(Scalar::Bool(b)) => write!(f, "{b}"),
            Head::Axes(a) => write!(f, "{a:?}"),
            Head::List(l) => write!(f, "{l:?}"),
            Head::Int(i) => write!(f, "#{i}"),
            Head::Flag(b) => write!(f, "{b}"),
            Head::DType(d) => write!(f, "{d}"),
            Head::Site(s) => write!(f, "@{s}"),
            Head::Ring(w) => write!(f, "ring#{w}"),
            Head::None => f.write_str("none"),
        }
    }
}

/// A word of a pattern that is no kind of operation, or one with the wrong number of children.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PatternError {
    #[error("`{0}` is neither an operation nor a literal")]
    Unknown(String),
    #[error("`{word}` has {expected} children, not {found}")]
    Arity { word: &'static str, expected: usize, found: usize },
}

impl egg::FromOp for Enode {
    type Error = PatternError;
    fn from_op(word: &str, children: Vec<Id>) -> Result<Self, PatternError> {
        let unknown = || PatternError::Unknown(word.to_string());
        if let Some(fun) = Fun::from_name(word) {
            let FunRow { name, attrs, operands } = fun.row();
            return match operands {
                Some(n) if attrs + n != children.len() => {
                    Err(PatternError::Arity { word: name, expected: attrs + n, found: children.len() })
                }
                _ => Ok(Enode::fun(fun, children)),
            };
        }
        let head = match word {
            "none" => Head::None,
            "true" => Head::Flag(true),
            "false" => Head::Flag(false),
            _ => literal(word).ok_or_else(unknown)?,
        };
        if children.is_empty() { Ok(Enode::leaf(head)) } else { Err(unknown()) }
    }
}

fn literal(word: &str) -> Option<Head> {
    if let Some(d) = DType::from_name(word) {
        return Some(Head::DType(d));
    }
    if let Some(i) = word.strip_prefix('#') {
        return i.parse().ok().map(Head::Int);
    }
    if let Some(i) = word.strip_suffix('i').and_then(|i| i.parse().ok()) {
        return Some(Head::Num(Scalar::I32(i)));
    }
    word.parse().ok().map(|x| Head::Num(Scalar::f32(x)))
}
