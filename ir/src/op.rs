//! The operations of a graph: one closed enum, each row with its mnemonic, arity and class.
//!
//! Models are written in the *small* operations; passes find the *fused* ones, each of which is defined by its
//! expansion into small ones (`expand/`). To add an operation:
//!
//! 1. a variant here, with its meaning as a formula; the compiler then lists every place that must know it:
//! 2. its row in [`Op::info`] and its attributes in `op/attr.rs`, which give it a text form and an e-graph form;
//! 3. its result types in `graph/infer.rs`;
//! 4. its value in `interp/` (plain loops in f64), and, if it is fused, its expansion in `expand/`;
//! 5. its derivative in `passes/src/differentiate/`;
//! 6. its lowering in `passes/src/lower/`; and, if it is fused, a row that raises it in `passes/src/raise/rules.rs`.
use crate::axis::{AxisId, AxisSet};
use crate::dtype::{DType, Scalar};
use crate::graph::LeafId;

mod attr;
pub use attr::{Attr, AttrError};

/// Functions of one element.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Unary {
    Neg,
    Abs,
    Not,
    Exp,
    Log,
    Sqrt,
    /// `1/sqrt(x)`
    Rsqrt,
    Erf,
    Tanh,
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `x · sigmoid(x)`
    Silu,
    /// `x · (1 + erf(x/√2)) / 2`
    Gelu,
    /// `x · (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2`, both constants rounded to f32. Hendrycks, Gimpel 2016.
    GeluTanh,
    /// `max(x, 0) + log1p(exp(-|x|))`
    Softplus,
}

/// Functions of two elements. Comparisons and `And` give booleans; `Rem` is of integers and takes the sign of the divisor,
/// and `Div` of integers rounds towards -∞ with it. `Max` and `Min` give NaN if an operand is NaN.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    Max,
    Min,
    Lt,
    Le,
    Eq,
    And,
}

/// What a reduction does along its axes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reduction {
    Sum,
    Mean,
    Max,
}

/// Which keys a query may see. Key `s` stands at position `iota{s}`, in a ring excepted; the query's position is an operand
/// (`qpos`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mask {
    /// Every key; there is no `qpos` operand.
    Full,
    /// Keys with `s <= qpos`.
    Causal,
    /// Keys with `qpos - window < s <= qpos`.
    Window(usize),
    /// Keys in a ring: slot s holds the last position up to `qpos` that is s modulo the number of slots, so its age is
    /// `(qpos - s) mod len(s)`, not negative; keys with `age < window` and `age <= qpos`.
    Ring(usize),
}

/// Inverted dropout on attention weights: `w · [u >= rate] / (1 - rate)` with `u` the random tensor of `site`, whose
/// index runs over the axes of the weights in ascending order. Adds the operands `seed` and `step`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Dropout {
    /// Bits of the f32 rate in [0, 1).
    pub rate: u32,
    pub site: u32,
}

/// Everything that an attention and its gradient must agree on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Attention {
    /// The key axis, over which the softmax runs.
    pub keys: AxisId,
    /// The axes contracted between query and key (head_dim, perhaps in two parts).
    pub over: AxisSet,
    /// Bits of the f32 factor on the scores.
    pub scale: u32,
    pub mask: Mask,
    pub dropout: Option<Dropout>,
}

/// An operation. `x.axes` below is the axis set of operand x; operands broadcast over axes they lack.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Op {
    // ---- leaves
    /// A named tensor of memory: parameter, input, state or table.
    Leaf(LeafId),
    Const(Scalar),
    /// `i32[axis]`: the index along an axis.
    Iota(AxisId),
    /// `(seed, step) -> f32[axes]`: uniform in (0, 1) by Philox4x32-10 with key (seed, site) and counter
    /// (index / 4, step), index row-major over `axes` in this order; `u = (bits >> 9 + 0.5) · 2^-23`. Two draws with
    /// different sites are different values.
    Random {
        axes: Vec<AxisId>,
        site: u32,
    },

    // ---- elementwise: result axes are the union of the operands'
    Unary(Unary),
    Binary(Binary),
    /// `(cond, a, b)`: a where cond, else b.
    Select,
    Cast(DType),

    // ---- reductions
    Reduce {
        kind: Reduction,
        axes: AxisSet,
    },
    /// `i32`: index of the first maximum along the axis.
    ArgMax(AxisId),
    /// `x -> (values, index)`: the len(k) greatest elements along `axis`, the greatest first, and where they stand (i32).
    /// Of equals, the first comes first; NaN counts as +∞.
    TopK {
        axis: AxisId,
        k: AxisId,
    },
    /// `(x, temperature, top_k, top_p, min_p, uniform) -> i32`: the index of an element along the axis, drawn by the number
    /// `uniform` in [0, 1). Of the elements those are kept that are among the `top_k` greatest (all, if it is not from 1 to
    /// less than the length); of these the greatest that together reach `top_p` of their weights (all, if it is 1 or more);
    /// of these those with at least `min_p` of the greatest weight. Of equals, the first comes first. The weight of x is
    /// exp((x - max) / temperature); where the maximum is infinite, what equals it weighs 1 and the rest nothing. It is the
    /// first kept index up to which the weights are more than `uniform` of all that is kept. Without a positive temperature
    /// it is that of the greatest element. NaN is never chosen; if there is nothing else, the index is 0.
    Sample {
        axis: AxisId,
    },
    /// `(a, b)`: Σ over `axes` of a·b, a chain of fused multiply-adds.
    Dot {
        axes: AxisSet,
    },
    /// `(a, b[, init])`: S_t = a_t · S_{t-1} + b_t along the axis, S_{-1} = init or 0; `reverse` runs from the end.
    Recurrence {
        axis: AxisId,
        reverse: bool,
    },

    // ---- index operations
    /// The same values as a function of another axis of equal length.
    Rename {
        from: AxisId,
        to: AxisId,
    },
    /// The element at a static index; the axis is gone.
    At {
        axis: AxisId,
        index: usize,
    },
    /// Elements start .. start + len(to) of `axis`, as axis `to`.
    Slice {
        axis: AxisId,
        start: usize,
        to: AxisId,
    },
    /// The inverse of `Slice`: axis `axis` placed at `start` of `to`, zeros elsewhere.
    Pad {
        axis: AxisId,
        start: usize,
        to: AxisId,
    },
    /// Operands that lack `axis`, one for each of its indices.
    Stack {
        axis: AxisId,
    },
    /// Operand i, which has axis `parts[i]`, follows operand i-1 along `axis`; len(axis) = Σ len(parts).
    Concat {
        axis: AxisId,
        parts: Vec<AxisId>,
    },
    /// out\[t\] = x\[t - by\], zero outside.
    Shift {
        axis: AxisId,
        by: i64,
    },
    /// `(x, index)`: x at index along `axis`; an index outside reads 0. Axes: (x.axes - axis) ∪ index.axes.
    Gather {
        axis: AxisId,
    },
    /// `(index, x[, base])`: out\[v\] = base\[v\] + Σ over `over` of x where index = v; v runs over `axis`. An index
    /// outside adds nothing. Terms are added in ascending order of `over`.
    ScatterAdd {
        axis: AxisId,
        over: AxisSet,
    },
    /// `(base, index, x)`: base with out\[index\] = x along `axis`; an index outside writes nothing. The axes that index
    /// has and base lacks must address distinct elements.
    Update {
        axis: AxisId,
    },
    /// The same value, through which no gradient flows.
    StopGradient,
    /// Result i of an operation that has several.
    Part(usize),

    // ---- fused operations
    Softmax {
        axis: AxisId,
    },
    /// log Σ exp along the axis.
    LogSumExp {
        axis: AxisId,
    },
    /// `(x[, weight, bias])`: (x - mean) / sqrt(var + eps), biased variance. Ba, Kiros, Hinton 2016.
    LayerNorm {
        axis: AxisId,
        eps: u32,
    },
    /// `(x[, weight])`: x / sqrt(mean(x²) + eps). Zhang, Sennrich 2019.
    RmsNorm {
        axis: AxisId,
        eps: u32,
    },
    /// `(x, cos, sin)`: the pair (x₀, x₁) along `pair` (of length 2) becomes (x₀c - x₁s, x₀s + x₁c). Su et al. 2021.
    Rope {
        pair: AxisId,
    },
    /// `(q, k, v[, qpos][, seed, step]) -> (o, lse)`: softmax over keys of scale·q·k, masked, times v; lse is the log of
    /// the softmax's denominator, in f32. A row that sees no key gives 0 and -inf.
    Attention(Attention),
    /// `(q, k, v[, qpos][, seed, step], o, lse, do) -> (dq, dk, dv)`.
    AttentionGrad(Attention),
    /// `(dt, a, b, c, u[, init]) -> (y, last)`: S_t = exp(dt_t a) S_{t-1} + (dt_t b_t) u_t, y_t = Σ_n S_t c_t; last is S
    /// at the end. dt, u: \[…,t,e\], a: \[e,n\], b, c: \[…,t,n\], init, last: \[…,e,n\]. Gu, Dao 2023, eq. 2.
    SelectiveScan {
        time: AxisId,
        state: AxisId,
    },
    /// `(dt, a, b, c, u, dy) -> (d_dt, da, db, dc, du)`, of a scan from zero.
    SelectiveScanGrad {
        time: AxisId,
        state: AxisId,
    },
    /// `(log_a, x, reset[, init]) -> (h, last)`: h_t = a_t h_{t-1} + √(1 - a_t²) x_t with a = exp(log_a); where the boolean
    /// `reset` holds, a is 0 and the root 1. last is h at the end; init and last are h's at one step. The root's
    /// derivative is 1/√max(4 (1 - a²), 1e-6). De et al. 2024, eq. 4.
    GatedRecurrence {
        time: AxisId,
    },
    /// `(log_a, x, reset, h, dh) -> (d_log_a, dx)`, of a recurrence from zero whose log_a and x have all of h's axes.
    GatedRecurrenceGrad {
        time: AxisId,
    },
    /// `(g, a, b)`: g·a + (1 - g)·b.
    Mix,
    /// `(x, weight[, bias])`: Σ_j weight\[j\] · x\[t - (len(tap) - 1 - j)\] + bias, x zero before the start. Depthwise where
    /// weight varies with a channel axis of x.
    CausalConv {
        time: AxisId,
        tap: AxisId,
    },
    /// `(o, e, target) -> (loss, lse)` of logits Σ_over o·e along `vocab`: loss = lse - logits\[target\], 0 where target < 0.
    /// Both are f32. With a cap (the bits of an f32), the logits are cap · tanh(Σ o·e / cap).
    CrossEntropy {
        vocab: AxisId,
        over: AxisSet,
        cap: Option<u32>,
    },
    /// `(o, e, target, lse, dloss) -> (do, de)`.
    CrossEntropyGrad {
        vocab: AxisId,
        over: AxisSet,
        cap: Option<u32>,
    },
    /// `(x, w, index)`: Σ_over x · w\[expert = index\]: each row goes through the matrix of the expert that its index names.
    /// w: \[expert, over, out\]; rows are the axes of index, x varies over some of them and `over`, the result over all of
    /// them and `out`. An index outside gives 0. The experts of Shazeer et al. 2017.
    RoutedDot {
        expert: AxisId,
        over: AxisId,
    },
    /// `(x, dy, index) -> dw`: dw\[e\] = Σ over the rows whose index is e of x · dy. x and dy have one axis beside rows each.
    RoutedDotGrad {
        expert: AxisId,
    },
}

/// What kind of thing an operation is; `Fused` ones have an expansion into the others.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    Leaf,
    Elementwise,
    Reduction,
    Index,
    Fused,
}

/// The row of an operation: its mnemonic, the fewest and most operands, its class, and how many results it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpInfo {
    pub mnemonic: &'static str,
    pub args: (usize, usize),
    pub class: Class,
    pub results: usize,
}

/// Any number of operands.
pub const MANY: usize = usize::MAX;

impl Op {
    /// The table of operations.
    #[rustfmt::skip]
    pub fn info(&self) -> OpInfo {
        use Class::*;
        let row = |mnemonic, lo, hi, class, results| OpInfo { mnemonic, args: (lo, hi), class, results };
        match self {
            Op::Leaf(_)                  => row("leaf", 0, 0, Leaf, 1),
            Op::Const(_)                 => row("const", 0, 0, Leaf, 1),
            Op::Iota(_)                  => row("iota", 0, 0, Leaf, 1),
            Op::Random { .. }            => row("random", 2, 2, Leaf, 1),
            Op::Unary(u)                 => row(u.name(), 1, 1, if u.is_fused() { Fused } else { Elementwise }, 1),
            Op::Binary(b)                => row(b.name(), 2, 2, Elementwise, 1),
            Op::Select                   => row("select", 3, 3, Elementwise, 1),
            Op::Cast(_)                  => row("cast", 1, 1, Elementwise, 1),
            Op::Reduce { kind, .. }      => row(kind.name(), 1, 1, Reduction, 1),
            Op::ArgMax(_)                => row("argmax", 1, 1, Reduction, 1),
            Op::TopK { .. }              => row("top_k", 1, 1, Reduction, 2),
            Op::Sample { .. }            => row("sample", 6, 6, Reduction, 1),
            Op::Dot { .. }               => row("dot", 2, 2, Reduction, 1),
            Op::Recurrence { .. }        => row("linear_recurrence", 2, 3, Reduction, 1),
            Op::Rename { .. }            => row("rename", 1, 1, Index, 1),
            Op::At { .. }                => row("at", 1, 1, Index, 1),
            Op::Slice { .. }             => row("slice", 1, 1, Index, 1),
            Op::Pad { .. }               => row("pad", 1, 1, Index, 1),
            Op::Stack { .. }             => row("stack", 1, MANY, Index, 1),
            Op::Concat { .. }            => row("concat", 1, MANY, Index, 1),
            Op::Shift { .. }             => row("shift", 1, 1, Index, 1),
            Op::Gather { .. }            => row("gather", 2, 2, Index, 1),
            Op::ScatterAdd { .. }        => row("scatter_add", 2, 3, Index, 1),
            Op::Update { .. }            => row("update", 3, 3, Index, 1),
            Op::StopGradient             => row("stop_gradient", 1, 1, Index, 1),
            Op::Part(_)                  => row("part", 1, 1, Index, 1),
            Op::Softmax { .. }           => row("softmax", 1, 1, Fused, 1),
            Op::LogSumExp { .. }         => row("logsumexp", 1, 1, Fused, 1),
            Op::LayerNorm { .. }         => row("layer_norm", 1, 3, Fused, 1),
            Op::RmsNorm { .. }           => row("rms_norm", 1, 2, Fused, 1),
            Op::Rope { .. }              => row("rope", 3, 3, Fused, 1),
            Op::Attention(a)             => row("attention", 3 + a.extra_args(), 3 + a.extra_args(), Fused, 2),
            Op::AttentionGrad(a)         => row("attention_grad", 6 + a.extra_args(), 6 + a.extra_args(), Fused, 3),
            Op::SelectiveScan { .. }     => row("selective_scan", 5, 6, Fused, 2),
            Op::SelectiveScanGrad { .. } => row("selective_scan_grad", 6, 6, Fused, 5),
            Op::GatedRecurrence { .. }   => row("gated_recurrence", 3, 4, Fused, 2),
            Op::GatedRecurrenceGrad { .. } => row("gated_recurrence_grad", 5, 5, Fused, 2),
            Op::Mix                      => row("mix", 3, 3, Fused, 1),
            Op::CausalConv { .. }        => row("causal_conv", 2, 3, Fused, 1),
            Op::CrossEntropy { .. }      => row("cross_entropy", 3, 3, Fused, 2),
            Op::CrossEntropyGrad { .. }  => row("cross_entropy_grad", 5, 5, Fused, 2),
            Op::RoutedDot { .. }         => row("routed_dot", 3, 3, Fused, 1),
            Op::RoutedDotGrad { .. }     => row("routed_dot_grad", 3, 3, Fused, 1),
        }
    }

    pub fn mnemonic(&self) -> &'static str {
        self.info().mnemonic
    }
    /// True for functions of one element at a time, fused or not.
    pub fn is_elementwise(&self) -> bool {
        self.info().class == Class::Elementwise || matches!(self, Op::Unary(_) | Op::Mix)
    }
}

impl Attention {
    pub fn scale(&self) -> f32 {
        f32::from_bits(self.scale)
    }
    /// True if there is a `qpos` operand.
    pub fn has_qpos(&self) -> bool {
        self.mask != Mask::Full
    }
    /// Operands beyond q, k and v.
    pub fn extra_args(&self) -> usize {
        self.has_qpos() as usize + 2 * self.dropout.is_some() as usize
    }
}

impl Unary {
    pub const ALL: [Unary; 14] = {
        use Unary::*;
        [Neg, Abs, Not, Exp, Log, Sqrt, Rsqrt, Erf, Tanh, Sigmoid, Silu, Gelu, GeluTanh, Softplus]
    };
    pub fn name(self) -> &'static str {
        match self {
            Unary::Neg => "neg",
            Unary::Abs => "abs",
            Unary::Not => "not",
            Unary::Exp => "exp",
            Unary::Log => "log",
            Unary::Sqrt => "sqrt",
            Unary::Rsqrt => "rsqrt",
            Unary::Erf => "erf",
            Unary::Tanh => "tanh",
            Unary::Sigmoid => "sigmoid",
            Unary::Silu => "silu",
            Unary::Gelu => "gelu",
            Unary::GeluTanh => "gelu_tanh",
            Unary::Softplus => "softplus",
        }
    }
    /// True for functions that are made of smaller ones.
    pub fn is_fused(self) -> bool {
        match self {
            Unary::Sigmoid | Unary::Silu | Unary::Gelu | Unary::GeluTanh | Unary::Softplus => true,
            Unary::Neg | Unary::Abs | Unary::Not | Unary::Exp | Unary::Log | Unary::Sqrt => false,
            Unary::Rsqrt | Unary::Erf | Unary::Tanh => false,
        }
    }
}

impl Binary {
    pub const ALL: [Binary; 11] = {
        use Binary::*;
        [Add, Sub, Mul, Div, Rem, Max, Min, Lt, Le, Eq, And]
    };
    pub fn name(self) -> &'static str {
        match self {
            Binary::Add => "add",
            Binary::Sub => "sub",
            Binary::Mul => "mul",
            Binary::Div => "div",
            Binary::Rem => "rem",
            Binary::Max => "max",
            Binary::Min => "min",
            Binary::Lt => "lt",
            Binary::Le => "le",
            Binary::Eq => "eq",
            Binary::And => "and",
        }
    }
    /// True for operations whose result is a boolean.
    pub fn is_predicate(self) -> bool {
        match self {
            Binary::Lt | Binary::Le | Binary::Eq | Binary::And => true,
            Binary::Add | Binary::Sub | Binary::Mul | Binary::Div => false,
            Binary::Rem | Binary::Max | Binary::Min => false,
        }
    }
    pub fn is_commutative(self) -> bool {
        match self {
            Binary::Add | Binary::Mul | Binary::Max | Binary::Min | Binary::Eq | Binary::And => true,
            Binary::Sub | Binary::Div | Binary::Rem | Binary::Lt | Binary::Le => false,
        }
    }
}

impl Reduction {
    pub const ALL: [Reduction; 3] = [Reduction::Sum, Reduction::Mean, Reduction::Max];
    /// `max` is the elementwise one, so a reduction by maximum is `reduce_max`.
    pub fn name(self) -> &'static str {
        match self {
            Reduction::Sum => "sum",
            Reduction::Mean => "mean",
            Reduction::Max => "reduce_max",
        }
    }
}
