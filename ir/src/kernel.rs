//! `ir::kernel`: mathematics over axis sets. A value is typed by its dtype and the *set of axes it varies over*.
//!
//! Nothing here says loop, thread or tile: broadcast, hoisting, loop level and vectorness follow from the axis sets, and
//! a schedule maps axes to hardware. The interpreter and every back end run the same text.
use crate::dtype::{DType, Scalar};
use crate::op::{Binary, Unary};
use serde::{Deserialize, Serialize};

pub mod interp;
pub mod text;
pub mod verify;

/// An axis of a kernel, by position in [`Kernel::axes`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct KAxis(pub u8);

/// A value of a kernel, by position in [`Kernel::values`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KValue(pub u32);

/// An operand of a kernel, by position in [`Kernel::operands`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OperandId(pub u16);

/// A set of axes of one kernel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct KAxes(pub u32);

/// An index variable 0..len. With `lo` or `hi` (i32 values that do not vary over this axis) reductions and scans along it
/// cover lo..hi only, cut to 0..len: a causal, windowed or run-time length. A step of a scan outside keeps the state. The
/// bounds are set before the first value along the axis is pushed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Range {
    pub name: String,
    pub len: u32,
    pub lo: Option<KValue>,
    pub hi: Option<KValue>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    In,
    Out,
    /// Read and written; every element is read, if at all, before it is written, at the same coordinates.
    InOut,
}

/// A tensor in memory of `len` elements.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Operand {
    pub name: String,
    pub dtype: DType,
    pub len: u64,
    pub mode: Mode,
}

/// Where an access goes: element `base + Σ stride · axis + Σ stride · value`. A load whose guard is false reads 0 and
/// does not touch memory; a store whose guard is false does nothing.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct View {
    pub terms: Vec<(KAxis, i64)>,
    pub dynamic: Vec<(KValue, i64)>,
    pub base: i64,
    pub guard: Option<KValue>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fold {
    Sum,
    Max,
}

/// One operation; `args` are in [`Value`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum KOp {
    Const(Scalar),
    /// `i32`: the coordinate along an axis.
    Index(KAxis),
    Load(OperandId, View),
    /// `(seed, step, index)`: element `index` of the random tensor of this site (see `ir::op::Op::Random`).
    Random {
        site: u32,
    },
    Unary(Unary),
    Binary(Binary),
    /// `(a, b, c)`: a·b + c with one rounding.
    Fma,
    Select,
    Cast(DType),
    /// Folds the axis away; the order is a function of the axis length, the dtype and the target alone.
    Reduce(Fold, KAxis),
    /// `i32`: first index along the axis at which the operand is greatest.
    ArgMax(KAxis),
    /// `(x, temperature, top_k, top_p, min_p, uniform)`, i32: the index along the axis that is drawn (see
    /// `ir::op::Op::Sample`). The weights are sums in whole multiples of 2^-35, so every order of them is the same. No
    /// kernel for the CPU has one.
    Sample(KAxis),
    /// `(a, b[, acc])`: acc + Σ a·b along the axis, a chain of fma.
    Dot(KAxis),
    /// `(a, b, init)`: h = a·h + b along the axis, from init, upwards or (reverse) downwards. Varies over the axis.
    Scan {
        axis: KAxis,
        reverse: bool,
    },
    /// `(scan)`: the state before each step.
    Prev(KAxis),
    /// `(scan)`: the state after the last step; the axis is gone.
    Last(KAxis),
    /// `(x)`: writes x; each element of the operand at most once.
    Store(OperandId, View),
    /// `(x)`: adds x to the operand in ascending order of the axes that the view lacks, which must not be units.
    Accumulate(OperandId, View),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Value {
    pub op: KOp,
    pub args: Vec<KValue>,
    pub dtype: DType,
    pub axes: KAxes,
}

/// A kernel. `units`, where given, fixes the partition: the unit index runs row-major over these axes, each cut in tiles
/// of this many coordinates; where it is empty, the scheduler chooses.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Kernel {
    pub name: String,
    pub axes: Vec<Range>,
    pub operands: Vec<Operand>,
    pub values: Vec<Value>,
    pub units: Vec<(KAxis, u32)>,
}

impl KAxes {
    pub const EMPTY: KAxes = KAxes(0);
    /// How many axes one kernel may have.
    pub const CAPACITY: usize = 32;

    pub fn has(self, a: KAxis) -> bool {
        self.0 >> a.0 & 1 == 1
    }
    pub fn with(self, a: KAxis) -> Self {
        KAxes(self.0 | 1 << a.0)
    }
    pub fn without(self, a: KAxis) -> Self {
        KAxes(self.0 & !(1 << a.0))
    }
    pub fn union(self, o: Self) -> Self {
        KAxes(self.0 | o.0)
    }
    pub fn contains(self, o: Self) -> bool {
        o.0 & !self.0 == 0
    }
    pub fn iter(self) -> impl DoubleEndedIterator<Item = KAxis> {
        let end = u32::BITS - self.0.leading_zeros();
        (0..end as u8).map(KAxis).filter(move |a| self.has(*a))
    }
}

impl Value {
    /// Where it reads or writes memory, if it does.
    pub fn access(&self) -> Option<(OperandId, &View)> {
        match &self.op {
            KOp::Load(o, v) | KOp::Store(o, v) | KOp::Accumulate(o, v) => Some((*o, v)),
            KOp::Const(_) | KOp::Index(_) | KOp::Random { .. } | KOp::Unary(_) | KOp::Binary(_) => None,
            KOp::Fma | KOp::Select | KOp::Cast(_) | KOp::Reduce(..) | KOp::ArgMax(_) | KOp::Dot(_) => None,
            KOp::Sample(_) => None,
            KOp::Scan { .. } | KOp::Prev(_) | KOp::Last(_) => None,
        }
    }
    /// True for what the kernel is run for: writes to memory.
    pub fn is_sink(&self) -> bool {
        matches!(self.op, KOp::Store(..) | KOp::Accumulate(..))
    }
}

impl KOp {
    /// The axis that a value folds or runs along; its bounds are operands too.
    pub fn folds(&self) -> Option<KAxis> {
        match self {
            KOp::Reduce(_, a) | KOp::ArgMax(a) | KOp::Sample(a) | KOp::Dot(a) | KOp::Last(a) => Some(*a),
            KOp::Scan { axis: a, .. } => Some(*a),
            KOp::Const(_) | KOp::Index(_) | KOp::Load(..) | KOp::Random { .. } | KOp::Unary(_) => None,
            KOp::Binary(_) | KOp::Fma | KOp::Select | KOp::Cast(_) | KOp::Prev(_) => None,
            KOp::Store(..) | KOp::Accumulate(..) => None,
        }
    }
}

impl View {
    /// The stride along an axis; 0 if the view lacks it.
    pub fn stride(&self, a: KAxis) -> i64 {
        self.terms.iter().find(|t| t.0 == a).map_or(0, |t| t.1)
    }
}

impl FromIterator<KAxis> for KAxes {
    fn from_iter<I: IntoIterator<Item = KAxis>>(it: I) -> Self {
        it.into_iter().fold(KAxes::EMPTY, KAxes::with)
    }
}

impl Kernel {
    pub fn value(&self, v: KValue) -> &Value {
        &self.values[v.0 as usize]
    }
    pub fn axis(&self, a: KAxis) -> &Range {
        &self.axes[a.0 as usize]
    }
    pub fn operand(&self, o: OperandId) -> &Operand {
        &self.operands[o.0 as usize]
    }

    /// The values that bound an axis at run time.
    pub fn bounds(&self, a: KAxis) -> impl Iterator<Item = KValue> {
        let r = self.axis(a);
        r.lo.into_iter().chain(r.hi)
    }
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = KValue> + use<> {
        (0..self.values.len() as u32).map(KValue)
    }
    /// Every value that this one is computed from: operands, offsets, guard, and the bounds of the axis it folds.
    pub fn uses(&self, v: KValue) -> Vec<KValue> {
        let value = self.value(v);
        let view = value.access().into_iter().flat_map(|(_, w)| w.dynamic.iter().map(|d| d.0).chain(w.guard));
        let bounds = value.op.folds().into_iter().flat_map(|a| self.bounds(a));
        value.args.iter().copied().chain(view).chain(bounds).collect()
    }

    /// Adds an axis.
    pub fn add_axis(&mut self, name: impl Into<String>, len: usize) -> KAxis {
        self.axes.push(Range { name: name.into(), len: len as u32, lo: None, hi: None });
        KAxis(self.axes.len() as u8 - 1)
    }
    pub fn add_operand(&mut self, name: impl Into<String>, dtype: DType, len: usize, mode: Mode) -> OperandId {
        self.operands.push(Operand { name: name.into(), dtype, len: len as u64, mode });
        OperandId(self.operands.len() as u16 - 1)
    }
    /// Adds a value; its axis set follows from its operands.
    pub fn push(&mut self, op: KOp, args: &[KValue], dtype: DType) -> KValue {
        let axes = self.infer(&op, args);
        self.values.push(Value { op, args: args.to_vec(), dtype, axes });
        KValue(self.values.len() as u32 - 1)
    }

    /// The axes a value varies over.
    pub fn infer(&self, op: &KOp, args: &[KValue]) -> KAxes {
        let of = |s: KAxes, v: &KValue| s.union(self.value(*v).axes);
        let all = args.iter().fold(KAxes::EMPTY, of);
        match op {
            KOp::Load(_, v) | KOp::Store(_, v) | KOp::Accumulate(_, v) => {
                let s = v.terms.iter().fold(all, |s, (a, _)| s.with(*a));
                let s = v.dynamic.iter().fold(s, |s, (d, _)| of(s, d));
                v.guard.iter().fold(s, of)
            }
            KOp::Index(a) => all.with(*a),
            KOp::Scan { axis: a, .. } => self.bounds(*a).fold(all, |s, v| of(s, &v)).with(*a),
            KOp::Reduce(_, a) | KOp::ArgMax(a) | KOp::Sample(a) | KOp::Dot(a) | KOp::Last(a) => {
                self.bounds(*a).fold(all, |s, v| of(s, &v)).without(*a)
            }
            KOp::Const(_) | KOp::Random { .. } | KOp::Unary(_) | KOp::Binary(_) => all,
            KOp::Fma | KOp::Select | KOp::Cast(_) | KOp::Prev(_) => all,
        }
    }
}
