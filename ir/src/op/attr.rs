//! The attributes of an operation as typed, named parts: one form that text, e-graphs and hashes share.
use super::{Attention, Binary, Dropout, Mask, Op, Reduction, Unary};
use crate::axis::{AxisId, AxisSet};
use crate::dtype::{DType, Scalar};
use crate::graph::LeafId;
use std::fmt;

/// One attribute. A literal index and a literal number are different things.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Attr {
    Axis(AxisId),
    /// An unordered set of axes.
    Axes(AxisSet),
    /// An ordered list of axes.
    List(Vec<AxisId>),
    Int(i64),
    /// Bits of an f32.
    Float(u32),
    Scalar(Scalar),
    DType(DType),
    Leaf(LeafId),
    Flag(bool),
}

/// Why a mnemonic and attributes make no operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AttrError {
    UnknownMnemonic(String),
    Missing { op: String, key: &'static str },
    WrongKind { op: String, key: &'static str, expected: &'static str },
    Unexpected { op: String, key: String },
}

impl fmt::Display for AttrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttrError::UnknownMnemonic(m) => write!(f, "there is no operation named `{m}`"),
            AttrError::Missing { op, key } => write!(f, "`{op}` needs the attribute `{key}`"),
            AttrError::WrongKind { op, key, expected } => write!(f, "`{key}` of `{op}` must be {expected}"),
            AttrError::Unexpected { op, key } => write!(f, "`{op}` has no attribute `{key}`"),
        }
    }
}
impl std::error::Error for AttrError {}

type Parts = Vec<(&'static str, Attr)>;

impl Op {
    /// The attributes by name, in the order in which they are printed. [`Op::from_parts`] is the inverse.
    pub fn parts(&self) -> Parts {
        match self {
            Op::Leaf(l) => vec![("leaf", Attr::Leaf(*l))],
            Op::Const(s) => vec![("value", Attr::Scalar(*s))],
            Op::Iota(a) | Op::ArgMax(a) => vec![("axis", Attr::Axis(*a))],
            Op::Random { axes, site } => vec![("axes", Attr::List(axes.clone())), ("site", Attr::Int(*site as i64))],
            Op::Unary(_) | Op::Binary(_) | Op::Select | Op::StopGradient | Op::Mix => vec![],
            Op::Cast(d) => vec![("to", Attr::DType(*d))],
            Op::Reduce { axes, .. } | Op::Dot { axes } => vec![("axes", Attr::Axes(*axes))],
            Op::Recurrence { axis, reverse } => vec![("axis", Attr::Axis(*axis)), ("reverse", Attr::Flag(*reverse))],
            Op::Rename { from, to } => vec![("from", Attr::Axis(*from)), ("to", Attr::Axis(*to))],
            Op::At { axis, index } => vec![("axis", Attr::Axis(*axis)), ("index", Attr::Int(*index as i64))],
            Op::Slice { axis, start, to } | Op::Pad { axis, start, to } => {
                vec![("axis", Attr::Axis(*axis)), ("start", Attr::Int(*start as i64)), ("to", Attr::Axis(*to))]
            }
            Op::Stack { axis } | Op::Gather { axis } | Op::Update { axis } | Op::Sample { axis } => {
                vec![("axis", Attr::Axis(*axis))]
            }
            Op::Concat { axis, parts } => vec![("axis", Attr::Axis(*axis)), ("parts", Attr::List(parts.clone()))],
            Op::Shift { axis, by } => vec![("axis", Attr::Axis(*axis)), ("by", Attr::Int(*by))],
            Op::ScatterAdd { axis, over } => vec![("axis", Attr::Axis(*axis)), ("over", Attr::Axes(*over))],
            Op::Part(i) => vec![("index", Attr::Int(*i as i64))],
            Op::Softmax { axis } | Op::LogSumExp { axis } => vec![("axis", Attr::Axis(*axis))],
            Op::LayerNorm { axis, eps } | Op::RmsNorm { axis, eps } => {
                vec![("axis", Attr::Axis(*axis)), ("eps", Attr::Float(*eps))]
            }
            Op::Rope { pair } => vec![("pair", Attr::Axis(*pair))],
            Op::Attention(a) | Op::AttentionGrad(a) => a.parts(),
            Op::SelectiveScan { time, state } | Op::SelectiveScanGrad { time, state } => {
                vec![("time", Attr::Axis(*time)), ("state", Attr::Axis(*state))]
            }
            Op::GatedRecurrence { time } | Op::GatedRecurrenceGrad { time } => vec![("time", Attr::Axis(*time))],
            Op::CausalConv { time, tap } => vec![("time", Attr::Axis(*time)), ("tap", Attr::Axis(*tap))],
            Op::CrossEntropy { vocab, over, cap } | Op::CrossEntropyGrad { vocab, over, cap } => {
                let cap = cap.map(|c| ("cap", Attr::Float(c)));
                [("vocab", Attr::Axis(*vocab)), ("over", Attr::Axes(*over))].into_iter().chain(cap).collect()
            }
            Op::TopK { axis, k } => vec![("axis", Attr::Axis(*axis)), ("k", Attr::Axis(*k))],
            Op::RoutedDot { expert, over } => vec![("expert", Attr::Axis(*expert)), ("over", Attr::Axis(*over))],
            Op::RoutedDotGrad { expert } => vec![("expert", Attr::Axis(*expert))],
        }
    }

    /// Builds an operation from its mnemonic and named attributes.
    pub fn from_parts(mnemonic: &str, attrs: &[(String, Attr)]) -> Result<Op, AttrError> {
        let mut r = Reader { op: mnemonic, attrs, used: vec![] };
        let op = r.op()?;
        match attrs.iter().find(|(k, _)| !r.used.contains(&k.as_str())) {
            Some((k, _)) => Err(AttrError::Unexpected { op: mnemonic.into(), key: k.clone() }),
            None => Ok(op),
        }
    }
}

impl Attention {
    fn parts(&self) -> Parts {
        let mut p = vec![
            ("keys", Attr::Axis(self.keys)),
            ("over", Attr::Axes(self.over)),
            ("scale", Attr::Float(self.scale)),
            ("causal", Attr::Flag(self.mask != Mask::Full)),
        ];
        match self.mask {
            Mask::Full | Mask::Causal => {}
            Mask::Window(w) => p.push(("window", Attr::Int(w as i64))),
            Mask::Ring(w) => p.push(("ring", Attr::Int(w as i64))),
        }
        if let Some(d) = self.dropout {
            p.push(("dropout", Attr::Float(d.rate)));
            p.push(("site", Attr::Int(d.site as i64)));
        }
        p
    }
}

/// Takes attributes by name and remembers which were asked for.
struct Reader<'a> {
    op: &'a str,
    attrs: &'a [(String, Attr)],
    used: Vec<&'static str>,
}

impl Reader<'_> {
    fn find(&mut self, key: &'static str) -> Option<Attr> {
        self.used.push(key);
        self.attrs.iter().find(|(k, _)| k == key).map(|(_, a)| a.clone())
    }
    fn need(&mut self, key: &'static str) -> Result<Attr, AttrError> {
        self.find(key).ok_or(AttrError::Missing { op: self.op.into(), key })
    }
    fn wrong<T>(&self, key: &'static str, expected: &'static str) -> Result<T, AttrError> {
        Err(AttrError::WrongKind { op: self.op.into(), key, expected })
    }
    fn axis(&mut self, key: &'static str) -> Result<AxisId, AttrError> {
        match self.need(key)? {
            Attr::Axis(a) => Ok(a),
            _ => self.wrong(key, "an axis"),
        }
    }
    fn axes(&mut self, key: &'static str) -> Result<AxisSet, AttrError> {
        match self.need(key)? {
            Attr::Axes(a) => Ok(a),
            Attr::Axis(a) => Ok(a.into()),
            Attr::List(l) => Ok(AxisSet::of(&l)),
            _ => self.wrong(key, "a set of axes"),
        }
    }
    fn list(&mut self, key: &'static str) -> Result<Vec<AxisId>, AttrError> {
        match self.need(key)? {
            Attr::List(l) => Ok(l),
            Attr::Axis(a) => Ok(vec![a]),
            Attr::Axes(a) => Ok(a.iter().collect()),
            _ => self.wrong(key, "a list of axes"),
        }
    }
    fn int(&mut self, key: &'static str) -> Result<i64, AttrError> {
        match self.need(key)? {
            Attr::Int(i) => Ok(i),
            _ => self.wrong(key, "an integer"),
        }
    }
    fn index(&mut self, key: &'static str) -> Result<usize, AttrError> {
        usize::try_from(self.int(key)?).or_else(|_| self.wrong(key, "an index, 0 or more"))
    }
    fn float(&mut self, key: &'static str) -> Result<u32, AttrError> {
        match self.need(key)? {
            Attr::Float(b) => Ok(b),
            _ => self.wrong(key, "a number"),
        }
    }
    fn flag(&mut self, key: &'static str) -> Result<bool, AttrError> {
        match self.need(key)? {
            Attr::Flag(b) => Ok(b),
            _ => self.wrong(key, "true or false"),
        }
    }
    fn site(&mut self) -> Result<u32, AttrError> {
        u32::try_from(self.int("site")?).or_else(|_| self.wrong("site", "a 32-bit number"))
    }

    /// The cap of a head's logits, if there is one.
    fn cap(&mut self) -> Result<Option<u32>, AttrError> {
        match self.find("cap") {
            None => Ok(None),
            Some(Attr::Float(b)) if f32::from_bits(b) > 0.0 => Ok(Some(b)),
            Some(_) => self.wrong("cap", "a positive number"),
        }
    }

    fn attention(&mut self) -> Result<Attention, AttrError> {
        let (keys, over, scale) = (self.axis("keys")?, self.axes("over")?, self.float("scale")?);
        let causal = self.flag("causal")?;
        let mask = match (causal, self.find("window"), self.find("ring")) {
            (false, None, None) => Mask::Full,
            (true, None, None) => Mask::Causal,
            (true, Some(Attr::Int(w)), None) if w > 0 => Mask::Window(w as usize),
            (true, None, Some(Attr::Int(w))) if w > 0 => Mask::Ring(w as usize),
            (_, Some(_), None) => return self.wrong("window", "a positive integer beside causal=true"),
            (_, _, Some(_)) => return self.wrong("ring", "a positive integer beside causal=true, without `window`"),
        };
        let dropout = match self.find("dropout") {
            None => None,
            Some(Attr::Float(rate)) => Some(Dropout { rate, site: self.site()? }),
            Some(_) => return self.wrong("dropout", "a number"),
        };
        Ok(Attention { keys, over, scale, mask, dropout })
    }

    fn op(&mut self) -> Result<Op, AttrError> {
        if let Some(u) = Unary::ALL.into_iter().find(|u| u.name() == self.op) {
            return Ok(Op::Unary(u));
        }
        if let Some(b) = Binary::ALL.into_iter().find(|b| b.name() == self.op) {
            return Ok(Op::Binary(b));
        }
        if let Some(kind) = Reduction::ALL.into_iter().find(|r| r.name() == self.op) {
            return Ok(Op::Reduce { kind, axes: self.axes("axes")? });
        }
        Ok(match self.op {
            "leaf" => match self.need("leaf")? {
                Attr::Leaf(l) => Op::Leaf(l),
                _ => return self.wrong("leaf", "a leaf"),
            },
            "const" => match self.need("value")? {
                Attr::Scalar(s) => Op::Const(s),
                Attr::Float(b) => Op::Const(Scalar::F32(b)),
                _ => return self.wrong("value", "a constant"),
            },
            "iota" => Op::Iota(self.axis("axis")?),
            "random" => Op::Random { axes: self.list("axes")?, site: self.site()? },
            "select" => Op::Select,
            "cast" => match self.need("to")? {
                Attr::DType(d) => Op::Cast(d),
                _ => return self.wrong("to", "a dtype"),
            },
            "argmax" => Op::ArgMax(self.axis("axis")?),
            "dot" => Op::Dot { axes: self.axes("axes")? },
            "linear_recurrence" => Op::Recurrence { axis: self.axis("axis")?, reverse: self.flag("reverse")? },
            "rename" => Op::Rename { from: self.axis("from")?, to: self.axis("to")? },
            "at" => Op::At { axis: self.axis("axis")?, index: self.index("index")? },
            "slice" => Op::Slice { axis: self.axis("axis")?, start: self.index("start")?, to: self.axis("to")? },
            "pad" => Op::Pad { axis: self.axis("axis")?, start: self.index("start")?, to: self.axis("to")? },
            "stack" => Op::Stack { axis: self.axis("axis")? },
            "concat" => Op::Concat { axis: self.axis("axis")?, parts: self.list("parts")? },
            "shift" => Op::Shift { axis: self.axis("axis")?, by: self.int("by")? },
            "gather" => Op::Gather { axis: self.axis("axis")? },
            "scatter_add" => Op::ScatterAdd { axis: self.axis("axis")?, over: self.axes("over")? },
            "update" => Op::Update { axis: self.axis("axis")? },
            "stop_gradient" => Op::StopGradient,
            "part" => Op::Part(self.index("index")?),
            "softmax" => Op::Softmax { axis: self.axis("axis")? },
            "logsumexp" => Op::LogSumExp { axis: self.axis("axis")? },
            "layer_norm" => Op::LayerNorm { axis: self.axis("axis")?, eps: self.float("eps")? },
            "rms_norm" => Op::RmsNorm { axis: self.axis("axis")?, eps: self.float("eps")? },
            "rope" => Op::Rope { pair: self.axis("pair")? },
            "attention" => Op::Attention(self.attention()?),
            "attention_grad" => Op::AttentionGrad(self.attention()?),
            "selective_scan" => Op::SelectiveScan { time: self.axis("time")?, state: self.axis("state")? },
            "selective_scan_grad" => Op::SelectiveScanGrad { time: self.axis("time")?, state: self.axis("state")? },
            "gated_recurrence" => Op::GatedRecurrence { time: self.axis("time")? },
            "gated_recurrence_grad" => Op::GatedRecurrenceGrad { time: self.axis("time")? },
            "mix" => Op::Mix,
            "causal_conv" => Op::CausalConv { time: self.axis("time")?, tap: self.axis("tap")? },
            "cross_entropy" => {
                Op::CrossEntropy { vocab: self.axis("vocab")?, over: self.axes("over")?, cap: self.cap()? }
            }
            "cross_entropy_grad" => {
                Op::CrossEntropyGrad { vocab: self.axis("vocab")?, over: self.axes("over")?, cap: self.cap()? }
            }
            "top_k" => Op::TopK { axis: self.axis("axis")?, k: self.axis("k")? },
            "sample" => Op::Sample { axis: self.axis("axis")? },
            "routed_dot" => Op::RoutedDot { expert: self.axis("expert")?, over: self.axis("over")? },
            "routed_dot_grad" => Op::RoutedDotGrad { expert: self.axis("expert")? },
            other => return Err(AttrError::UnknownMnemonic(other.into())),
        })
    }
}
