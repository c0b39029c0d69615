//! What is known of every class: types, a constant or attribute value, whether it depends on parameters alone.
//!
//! The types of a class never change: a rule applies only where both sides have the same type ([`super::rule`]), so the
//! axis support that conditions ask for is exact, and an output keeps its declared axes.
use super::encode::decode;
use super::language::{Enode, Fun, Head};
use egg::{Analysis, DidMerge, Id, Language};
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::graph::{Types, infer_types};
use lolm_ir::op::{Binary, Unary};
use lolm_ir::{DType, Graph, Op, Scalar, Type};
use std::sync::Arc;

/// A value from outside the region.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Operand {
    /// One type a result.
    pub types: Types,
    /// True if it depends on parameters and constants alone.
    pub fixed: bool,
}

/// What the e-graph of a region knows of its surroundings: the graph's axes, and the inputs.
#[derive(Clone, Default)]
pub struct Context {
    /// The graph without its nodes.
    pub graph: Arc<Graph>,
    pub inputs: Vec<Operand>,
}

/// What a class is, if it is an attribute or a constant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Known {
    /// Nothing: an ordinary value.
    Value,
    Num(Scalar),
    Axes(AxisSet),
    List(Vec<AxisId>),
    Int(i64),
    Flag(bool),
    DType(DType),
    Site(u32),
    /// A window of keys in a ring.
    Ring(i64),
    /// An operand or attribute that is not there.
    Absent,
}

impl Known {
    pub fn axes(&self) -> Option<AxisSet> {
        match self {
            Known::Axes(a) => Some(*a),
            _ => None,
        }
    }
    /// An index, or an i32 constant that stands for one.
    pub fn int(&self) -> Option<i64> {
        match self {
            Known::Int(i) => Some(*i),
            Known::Num(Scalar::I32(i)) => Some(*i as i64),
            _ => None,
        }
    }
    pub fn num(&self) -> Option<Scalar> {
        match self {
            Known::Num(s) => Some(*s),
            _ => None,
        }
    }
    fn head(&self) -> Option<Head> {
        Some(match self {
            Known::Value => return None,
            Known::Num(s) => Head::Num(*s),
            Known::Axes(a) => Head::Axes(*a),
            Known::List(l) => Head::List(l.clone()),
            Known::Int(i) => Head::Int(*i),
            Known::Flag(b) => Head::Flag(*b),
            Known::DType(d) => Head::DType(*d),
            Known::Site(s) => Head::Site(*s),
            Known::Ring(w) => Head::Ring(*w),
            Known::Absent => Head::None,
        })
    }
}

/// What is known of a class.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// One type a result; none for an attribute, and for an operation that makes no sense.
    pub types: Types,
    pub known: Known,
    /// True if it depends on parameters and constants alone.
    pub fixed: bool,
    /// True if no element is negative.
    pub nonnegative: bool,
}

impl Facts {
    /// The axes that a value depends on; an attribute depends on none.
    pub fn axes(&self) -> AxisSet {
        self.types.first().map_or(AxisSet::EMPTY, |t| t.axes)
    }
    fn leaf(known: Known, types: Types) -> Facts {
        let nonnegative = known.num().is_some_and(|s| s.as_f64() >= 0.0);
        Facts { types, known, fixed: true, nonnegative }
    }
}

impl Context {
    /// The facts of a node whose children have these facts.
    pub fn facts(&self, node: &Enode, children: &[&Facts]) -> Facts {
        let attribute = |k: Known| Facts::leaf(k, Types::default());
        match &node.head {
            Head::Fun(f) => self.of_fun(*f, children),
            Head::Input(i) => {
                let Operand { types, fixed } = self.inputs[*i as usize].clone();
                Facts { types, known: Known::Value, fixed, nonnegative: false }
            }
            Head::Num(s) => Facts::leaf(Known::Num(*s), Types::one(Type::new(s.dtype(), AxisSet::EMPTY))),
            Head::Axes(a) => attribute(Known::Axes(*a)),
            Head::List(l) => attribute(Known::List(l.clone())),
            Head::Int(i) => attribute(Known::Int(*i)),
            Head::Flag(b) => attribute(Known::Flag(*b)),
            Head::DType(d) => attribute(Known::DType(*d)),
            Head::Site(s) => attribute(Known::Site(*s)),
            Head::Ring(w) => attribute(Known::Ring(*w)),
            Head::None => attribute(Known::Absent),
        }
    }

    fn of_fun(&self, fun: Fun, children: &[&Facts]) -> Facts {
        let (attrs, operands) = children.split_at(fun.row().attrs);
        if let Some(known) = self.attribute(fun, attrs) {
            return Facts::leaf(known, Types::default());
        }
        let types = self.types(fun, attrs, operands).unwrap_or_default();
        let known = fold(fun, operands).map_or(Known::Value, Known::Num);
        let fixed = operands.iter().all(|o| o.fixed);
        let nonnegative = known.num().map_or_else(|| nonnegative(fun, operands), |s| s.as_f64() >= 0.0);
        Facts { types, known, fixed, nonnegative }
    }

    /// Arithmetic of attributes.
    fn attribute(&self, fun: Fun, attrs: &[&Facts]) -> Option<Known> {
        let int = |i: usize| attrs.get(i)?.known.int();
        match fun {
            Fun::Last => Some(Known::Int(self.graph.len(attrs.first()?.known.axes()?.single()?) as i64 - 1)),
            Fun::Union => Some(Known::Int(int(0)? | int(1)?)),
            Fun::Ring => Some(Known::Ring(int(0)?)),
            Fun::Bit => Some(Known::Int(1i64.checked_shl(u32::try_from(int(0)?).ok()?)?)),
            _ => None,
        }
    }

    /// The types of an operation; `None` if it makes no sense.
    fn types(&self, fun: Fun, attrs: &[&Facts], operands: &[&Facts]) -> Option<Types> {
        let known: Vec<&Known> = attrs.iter().map(|a| &a.known).collect();
        let axes = |i: usize| known.get(i).and_then(|k| k.axes());
        let sup = |i: usize| operands.get(i).map_or(AxisSet::EMPTY, |o| o.axes());
        let ty = |i: usize| operands.get(i).and_then(|o| o.types.first()).copied();
        let like = |i: usize, axes: AxisSet| Some(Types::one(Type::new(ty(i)?.dtype, axes)));
        match fun {
            Fun::Part => Some(Types::one(*operands.first()?.types.get(usize::try_from(known[0].int()?).ok()?)?)),
            Fun::Visible => {
                let keys = axes(0)?;
                let ok = ty(0)?.dtype == DType::I32 && keys.disjoint(sup(0));
                ok.then(|| Types::one(Type::new(DType::Bool, keys.union(sup(0)))))
            }
            Fun::Age => {
                let keys = axes(0)?;
                let ok = ty(0)?.dtype == DType::I32 && keys.disjoint(sup(0));
                if ok { like(0, keys.union(sup(0))) } else { None }
            }
            Fun::Weights => {
                let (keys, over, p) = (axes(0)?, axes(1)?, sup(2));
                let contracted = !over.is_empty() && sup(0).contains(over) && sup(1).contains(over);
                let ok = contracted && sup(1).contains(keys) && keys.disjoint(sup(0)) && keys.disjoint(p);
                if ok { like(0, sup(0).union(sup(1)).minus(over).union(p)) } else { None }
            }
            Fun::Dropped => match known[1] {
                // One draw an element, in the order that the fused operation takes them.
                Known::List(l) if sup(2).iter().eq(l.iter().copied()) && sup(0).union(sup(1)).is_empty() => {
                    like(2, sup(2))
                }
                _ => None,
            },
            Fun::Taps => {
                let (time, tap) = (axes(0)?, axes(1)?);
                let ok = sup(0).contains(time) && sup(1).contains(tap) && tap.disjoint(sup(0)) && time.disjoint(sup(1));
                if ok { like(0, sup(0).union(sup(1)).minus(tap)) } else { None }
            }
            Fun::SqrtBounded => like(0, sup(0)),
            Fun::Capped => {
                let cap = known[0].num()?.as_f64();
                if cap > 0.0 { like(0, sup(0)) } else { None }
            }
            _ => {
                let present: Vec<bool> = operands.iter().map(|o| o.known != Known::Absent).collect();
                let op = decode(fun, &known, &present)?;
                let args = operands.iter().filter(|o| o.known != Known::Absent);
                let args: Option<Vec<Type>> = args.map(|o| o.types.first().copied()).collect();
                infer_types(&self.graph, &op, &args?).ok()
            }
        }
    }

    /// How many elements a value over these axes has.
    pub fn elements(&self, axes: AxisSet) -> usize {
        self.graph.elements(axes)
    }

    /// The operation of a node with its operands as children; `None` for a kind that exists in e-graphs only.
    pub fn op(fun: Fun, attrs: &[&Facts], operands: &[&Facts]) -> Option<Op> {
        let known: Vec<&Known> = attrs.iter().map(|a| &a.known).collect();
        let present: Vec<bool> = operands.iter().map(|o| o.known != Known::Absent).collect();
        decode(fun, &known, &present)
    }
}

/// The constant that an operation on constants is; a result that is not finite is left to run time.
fn fold(fun: Fun, operands: &[&Facts]) -> Option<Scalar> {
    let args: Option<Vec<Scalar>> = operands.iter().map(|o| o.known.num()).collect();
    match (fun, args?.as_slice()) {
        (Fun::Unary(u), [Scalar::F32(x)]) => {
            let x = f32::from_bits(*x) as f64;
            finite(match u {
                Unary::Neg => -x,
                Unary::Abs => x.abs(),
                Unary::Exp => x.exp(),
                Unary::Log => x.ln(),
                Unary::Sqrt => x.sqrt(),
                Unary::Rsqrt => 1.0 / x.sqrt(),
                Unary::Not | Unary::Erf | Unary::Tanh => return None,
                Unary::Sigmoid | Unary::Silu | Unary::Gelu | Unary::GeluTanh | Unary::Softplus => return None,
            })
        }
        (Fun::Binary(b), [Scalar::F32(x), Scalar::F32(y)]) => {
            let (x, y) = (f32::from_bits(*x) as f64, f32::from_bits(*y) as f64);
            finite(match b {
                Binary::Add => x + y,
                Binary::Sub => x - y,
                Binary::Mul => x * y,
                Binary::Div => x / y,
                Binary::Max => x.max(y),
                Binary::Min => x.min(y),
                Binary::Rem | Binary::Lt | Binary::Le | Binary::Eq | Binary::And => return None,
            })
        }
        (Fun::Binary(b), [Scalar::I32(x), Scalar::I32(y)]) => match b {
            Binary::Add => x.checked_add(*y),
            Binary::Sub => x.checked_sub(*y),
            Binary::Mul => x.checked_mul(*y),
            Binary::Max => Some(*x.max(y)),
            Binary::Min => Some(*x.min(y)),
            Binary::Div | Binary::Rem | Binary::Lt | Binary::Le | Binary::Eq | Binary::And => None,
        }
        .map(Scalar::I32),
        _ => None,
    }
}

fn finite(x: f64) -> Option<Scalar> {
    (x as f32).is_finite().then(|| Scalar::f32(x as f32))
}

fn nonnegative(fun: Fun, operands: &[&Facts]) -> bool {
    let all = || operands.iter().all(|o| o.nonnegative);
    match fun {
        Fun::Iota | Fun::Unary(Unary::Exp | Unary::Abs | Unary::Sigmoid | Unary::Softplus) => true,
        Fun::Binary(Binary::Add | Binary::Mul | Binary::Min) | Fun::Rename | Fun::At | Fun::Slice => all(),
        Fun::Binary(Binary::Max) => operands.iter().any(|o| o.nonnegative),
        _ => false,
    }
}

impl Analysis<Enode> for Context {
    type Data = Facts;

    fn make(eg: &mut super::EGraph, node: &Enode, _: Id) -> Facts {
        let children: Vec<&Facts> = node.children().iter().map(|c| &eg[*c].data).collect();
        eg.analysis.facts(node, &children)
    }

    fn merge(&mut self, a: &mut Facts, b: Facts) -> DidMerge {
        let before = a.clone();
        if a.types.is_empty() {
            a.types.clone_from(&b.types);
        }
        if a.known == Known::Value {
            a.known.clone_from(&b.known);
        }
        a.fixed |= b.fixed;
        a.nonnegative |= b.nonnegative;
        DidMerge(*a != before, *a != b)
    }

    fn modify(eg: &mut super::EGraph, id: Id) {
        if let Some(head) = eg[id].data.known.head()
            && !eg[id].nodes.iter().any(|n| n.head == head)
        {
            let leaf = eg.add(Enode::leaf(head));
            eg.union(id, leaf);
        }
    }
}
