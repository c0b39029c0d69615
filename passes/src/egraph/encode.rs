//! Operations to e-node heads and back: [`encode`] and [`decode`] are inverse, attribute by attribute.
use super::analysis::Known;
use super::language::{Fun, Head};
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::op::{Attention, Attr, Dropout, Mask};
use lolm_ir::{DType, Op, Scalar};

/// An operation as an e-graph holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Encoded {
    /// A tensor of memory: always an input of a region.
    Leaf,
    Num(Scalar),
    Fun(Fun, Vec<Head>),
}

/// The kind of an operation and its attributes as leaves, in the order of [`Op::parts`].
pub fn encode(op: &Op) -> Encoded {
    let cap = |vocab: AxisId, over: AxisSet, cap: &Option<u32>| {
        let cap = cap.map_or(Head::None, |b| Head::Num(Scalar::F32(b)));
        vec![Head::Axes(vocab.into()), Head::Axes(over), cap]
    };
    let fun = match op {
        Op::Leaf(_) => return Encoded::Leaf,
        Op::Const(s) => return Encoded::Num(*s),
        Op::Attention(a) => return Encoded::Fun(Fun::Attention, attention(a)),
        Op::AttentionGrad(a) => return Encoded::Fun(Fun::AttentionGrad, attention(a)),
        Op::CrossEntropy { vocab, over, cap: c } => return Encoded::Fun(Fun::CrossEntropy, cap(*vocab, *over, c)),
        Op::CrossEntropyGrad { vocab, over, cap: c } => {
            return Encoded::Fun(Fun::CrossEntropyGrad, cap(*vocab, *over, c));
        }
        Op::Iota(_) => Fun::Iota,
        Op::Random { .. } => Fun::Random,
        Op::Unary(u) => Fun::Unary(*u),
        Op::Binary(b) => Fun::Binary(*b),
        Op::Select => Fun::Select,
        Op::Cast(_) => Fun::Cast,
        Op::Reduce { kind, .. } => Fun::Reduce(*kind),
        Op::ArgMax(_) => Fun::ArgMax,
        Op::TopK { .. } => Fun::TopK,
        Op::Sample { .. } => Fun::Sample,
        Op::Dot { .. } => Fun::Dot,
        Op::Recurrence { .. } => Fun::Recurrence,
        Op::Rename { .. } => Fun::Rename,
        Op::At { .. } => Fun::At,
        Op::Slice { .. } => Fun::Slice,
        Op::Pad { .. } => Fun::Pad,
        Op::Stack { .. } => Fun::Stack,
        Op::Concat { .. } => Fun::Concat,
        Op::Shift { .. } => Fun::Shift,
        Op::Gather { .. } => Fun::Gather,
        Op::ScatterAdd { .. } => Fun::ScatterAdd,
        Op::Update { .. } => Fun::Update,
        Op::StopGradient => Fun::StopGradient,
        Op::Part(_) => Fun::Part,
        Op::Softmax { .. } => Fun::Softmax,
        Op::LogSumExp { .. } => Fun::LogSumExp,
        Op::LayerNorm { .. } => Fun::LayerNorm,
        Op::RmsNorm { .. } => Fun::RmsNorm,
        Op::Rope { .. } => Fun::Rope,
        Op::SelectiveScan { .. } => Fun::SelectiveScan,
        Op::SelectiveScanGrad { .. } => Fun::SelectiveScanGrad,
        Op::Mix => Fun::Mix,
        Op::CausalConv { .. } => Fun::CausalConv,
        Op::GatedRecurrence { .. } => Fun::GatedRecurrence,
        Op::GatedRecurrenceGrad { .. } => Fun::GatedRecurrenceGrad,
        Op::RoutedDot { .. } => Fun::RoutedDot,
        Op::RoutedDotGrad { .. } => Fun::RoutedDotGrad,
    };
    Encoded::Fun(fun, op.parts().into_iter().map(|(key, a)| attr(key, a)).collect())
}

fn attr(key: &str, a: Attr) -> Head {
    match a {
        Attr::Axis(a) => Head::Axes(a.into()),
        Attr::Axes(a) => Head::Axes(a),
        Attr::List(l) => Head::List(l),
        Attr::Int(i) if key == "site" => Head::Site(i as u32),
        Attr::Int(i) => Head::Int(i),
        Attr::Float(b) => Head::Num(Scalar::F32(b)),
        Attr::Scalar(s) => Head::Num(s),
        Attr::DType(d) => Head::DType(d),
        Attr::Flag(b) => Head::Flag(b),
        Attr::Leaf(l) => Head::Input(l.0),
    }
}

/// `keys, over, scale, window (or ring), rate, site`; whether it is causal follows from the `qpos` operand.
fn attention(a: &Attention) -> Vec<Head> {
    let window = match a.mask {
        Mask::Full | Mask::Causal => Head::None,
        Mask::Window(w) => Head::Int(w as i64),
        Mask::Ring(w) => Head::Ring(w as i64),
    };
    let (rate, site) = match a.dropout {
        None => (Head::None, Head::None),
        Some(d) => (Head::Num(Scalar::F32(d.rate)), Head::Site(d.site)),
    };
    vec![Head::Axes(a.keys.into()), Head::Axes(a.over), Head::Num(Scalar::F32(a.scale)), window, rate, site]
}

/// Where the operands that an attention may lack stand among the six (or nine) of its e-node.
pub const QPOS: usize = 3;

/// The operation of a kind with these attributes; `None` if they are not what it needs, or if it exists in e-graphs only.
/// `present` says which operands are there.
pub fn decode(fun: Fun, attrs: &[&Known], present: &[bool]) -> Option<Op> {
    let r = Reader(attrs);
    Some(match fun {
        Fun::Iota => Op::Iota(r.axis(0)?),
        Fun::Random => Op::Random { axes: r.list(0)?, site: r.site(1)? },
        Fun::Unary(u) => Op::Unary(u),
        Fun::Binary(b) => Op::Binary(b),
        Fun::Select => Op::Select,
        Fun::Cast => Op::Cast(r.dtype(0)?),
        Fun::Reduce(kind) => Op::Reduce { kind, axes: r.axes(0)? },
        Fun::ArgMax => Op::ArgMax(r.axis(0)?),
        Fun::TopK => Op::TopK { axis: r.axis(0)?, k: r.axis(1)? },
        Fun::Sample => Op::Sample { axis: r.axis(0)? },
        Fun::Dot => Op::Dot { axes: r.axes(0)? },
        Fun::Recurrence => Op::Recurrence { axis: r.axis(0)?, reverse: r.flag(1)? },
        Fun::Rename => Op::Rename { from: r.axis(0)?, to: r.axis(1)? },
        Fun::At => Op::At { axis: r.axis(0)?, index: r.index(1)? },
        Fun::Slice => Op::Slice { axis: r.axis(0)?, start: r.index(1)?, to: r.axis(2)? },
        Fun::Pad => Op::Pad { axis: r.axis(0)?, start: r.index(1)?, to: r.axis(2)? },
        Fun::Stack => Op::Stack { axis: r.axis(0)? },
        Fun::Concat => Op::Concat { axis: r.axis(0)?, parts: r.list(1)? },
        Fun::Shift => Op::Shift { axis: r.axis(0)?, by: r.int(1)? },
        Fun::Gather => Op::Gather { axis: r.axis(0)? },
        Fun::ScatterAdd => Op::ScatterAdd { axis: r.axis(0)?, over: r.axes(1)? },
        Fun::Update => Op::Update { axis: r.axis(0)? },
        Fun::StopGradient => Op::StopGradient,
        Fun::Part => Op::Part(r.index(0)?),
        Fun::Softmax => Op::Softmax { axis: r.axis(0)? },
        Fun::LogSumExp => Op::LogSumExp { axis: r.axis(0)? },
        Fun::LayerNorm => Op::LayerNorm { axis: r.axis(0)?, eps: r.float(1)? },
        Fun::RmsNorm => Op::RmsNorm { axis: r.axis(0)?, eps: r.float(1)? },
        Fun::Rope => Op::Rope { pair: r.axis(0)? },
        Fun::Attention => Op::Attention(r.attention(*present.get(QPOS)?)?),
        Fun::AttentionGrad => Op::AttentionGrad(r.attention(*present.get(QPOS)?)?),
        Fun::SelectiveScan => Op::SelectiveScan { time: r.axis(0)?, state: r.axis(1)? },
        Fun::SelectiveScanGrad => Op::SelectiveScanGrad { time: r.axis(0)?, state: r.axis(1)? },
        Fun::Mix => Op::Mix,
        Fun::CausalConv => Op::CausalConv { time: r.axis(0)?, tap: r.axis(1)? },
        Fun::GatedRecurrence => Op::GatedRecurrence { time: r.axis(0)? },
        Fun::GatedRecurrenceGrad => Op::GatedRecurrenceGrad { time: r.axis(0)? },
        Fun::CrossEntropy => Op::CrossEntropy { vocab: r.axis(0)?, over: r.axes(1)?, cap: r.cap(2)? },
        Fun::CrossEntropyGrad => Op::CrossEntropyGrad { vocab: r.axis(0)?, over: r.axes(1)?, cap: r.cap(2)? },
        Fun::RoutedDot => Op::RoutedDot { expert: r.axis(0)?, over: r.axis(1)? },
        Fun::RoutedDotGrad => Op::RoutedDotGrad { expert: r.axis(0)? },
        Fun::Visible | Fun::Age | Fun::Weights | Fun::Dropped | Fun::Taps => return None,
        Fun::SqrtBounded | Fun::Capped => return None,
        Fun::Last | Fun::Union | Fun::Bit | Fun::Ring => return None,
    })
}

/// Reads attributes by position; `None` where one is of another kind.
struct Reader<'a>(&'a [&'a Known]);

impl Reader<'_> {
    fn axes(&self, i: usize) -> Option<AxisSet> {
        self.0.get(i)?.axes()
    }
    fn axis(&self, i: usize) -> Option<AxisId> {
        self.axes(i)?.single()
    }
    fn list(&self, i: usize) -> Option<Vec<AxisId>> {
        match self.0.get(i)? {
            Known::List(l) => Some(l.clone()),
            _ => None,
        }
    }
    fn int(&self, i: usize) -> Option<i64> {
        self.0.get(i)?.int()
    }
    fn index(&self, i: usize) -> Option<usize> {
        usize::try_from(self.int(i)?).ok()
    }
    fn flag(&self, i: usize) -> Option<bool> {
        match self.0.get(i)? {
            Known::Flag(b) => Some(*b),
            _ => None,
        }
    }
    fn dtype(&self, i: usize) -> Option<DType> {
        match self.0.get(i)? {
            Known::DType(d) => Some(*d),
            _ => None,
        }
    }
    fn float(&self, i: usize) -> Option<u32> {
        match self.0.get(i)? {
            Known::Num(Scalar::F32(b)) => Some(*b),
            _ => None,
        }
    }
    /// A positive number, or none.
    fn cap(&self, i: usize) -> Option<Option<u32>> {
        match self.0.get(i)? {
            Known::Absent => Some(None),
            _ => self.float(i).filter(|b| f32::from_bits(*b) > 0.0).map(Some),
        }
    }
    fn site(&self, i: usize) -> Option<u32> {
        match self.0.get(i)? {
            Known::Site(s) => Some(*s),
            _ => None,
        }
    }
    fn attention(&self, causal: bool) -> Option<Attention> {
        let mask = match (causal, self.0.get(3)?) {
            (false, Known::Absent) => Mask::Full,
            (true, Known::Absent) => Mask::Causal,
            (true, Known::Ring(w)) => Mask::Ring(usize::try_from(*w).ok().filter(|w| *w > 0)?),
            (true, w) => Mask::Window(usize::try_from(w.int()?).ok().filter(|w| *w > 0)?),
            (false, _) => return None,
        };
        let dropout = match self.0.get(4)? {
            Known::Absent => None,
            _ => Some(Dropout { rate: self.float(4)?, site: self.site(5)? }),
        };
        Some(Attention { keys: self.axis(0)?, over: self.axes(1)?, scale: self.float(2)?, mask, dropout })
    }
}
