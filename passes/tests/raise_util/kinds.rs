//! What the variables of a pattern stand for, by where they stand.
use egg::{ENodeOrVar, PatternAst, Var};
use lolm_ir::Scalar;
use lolm_ir::op::{Binary, Unary};
use lolm_passes::egraph::{Enode, Fun, Head};
use std::collections::BTreeMap;

/// What a variable stands for, by where it stands.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    Axis,
    Axes,
    List,
    Index,
    Site,
    /// A literal f32.
    Number,
    Float,
    Integer,
    /// An i32 without axes.
    Seed,
    Boolean,
    /// A position that may be missing, an i32 where it is there.
    MaybeInteger,
    /// A literal i32 that may be missing.
    MaybeCount,
    /// A float value that may be missing.
    MaybeFloat,
}

/// The kind of child i of an operation; `near_integer` if a sibling is one.
fn kind(fun: Fun, i: usize, near_integer: bool) -> Kind {
    use Kind::*;
    let attrs: &[Kind] = match fun {
        Fun::Reduce(_) | Fun::Dot => &[Axes],
        Fun::At | Fun::Shift => &[Axis, Index],
        Fun::Rename | Fun::SelectiveScan | Fun::CausalConv => &[Axis, Axis],
        Fun::Random => &[List, Site],
        Fun::Taps => &[Axis, Axis, Index],
        Fun::Weights => &[Axis, Axes, Number, MaybeCount],
        Fun::Dropped => &[Number, List, Site],
        Fun::Attention => &[Axis, Axes, Number, MaybeCount, Number, Site],
        Fun::CrossEntropy => &[Axis, Axes, Number],
        Fun::Capped => &[Number],
        Fun::LayerNorm | Fun::RmsNorm => &[Axis, Number],
        Fun::Visible | Fun::Age => &[Axis],
        Fun::Ring => &[MaybeCount],
        _ => &[Axis, Axis],
    };
    let count = fun.row().attrs;
    if i < count {
        return attrs[i];
    }
    match (fun, i - count) {
        (Fun::GatedRecurrence, 2) => Boolean,
        (Fun::Select, 0) | (Fun::Unary(Unary::Not), _) | (Fun::Binary(Binary::And), _) | (Fun::Cast, _) => Boolean,
        (Fun::Random, _) | (Fun::Dropped, 0 | 1) | (Fun::Attention, 4 | 5) => Seed,
        (Fun::Visible | Fun::Age, 0) | (Fun::Gather, 1) | (Fun::CrossEntropy | Fun::RoutedDot, 2) => Integer,
        (Fun::Visible, 1) => MaybeCount,
        (Fun::Weights, 2) | (Fun::Attention, 3) => MaybeInteger,
        (Fun::Recurrence | Fun::SelectiveScan, 2 | 5) | (Fun::GatedRecurrence, 3) => MaybeFloat,
        (Fun::Binary(_), _) if near_integer => Integer,
        _ => Float,
    }
}

/// A variable that stands in two places is what both allow.
pub fn narrow(old: &mut Kind, new: Kind) {
    let wide = |k: Kind| matches!(k, Kind::Float | Kind::Integer | Kind::MaybeInteger);
    if *old == Kind::Float || (*old == Kind::MaybeInteger && new == Kind::Integer) || (wide(*old) && !wide(new)) {
        *old = new;
    }
}

/// Which nodes of a pattern are integers: an iota, an age, a literal one, and what is computed from or compared with one.
fn integers(nodes: &[ENodeOrVar<Enode>]) -> Vec<bool> {
    let literal = |n: &ENodeOrVar<Enode>| match n {
        ENodeOrVar::ENode(n) => {
            matches!(n.head, Head::Fun(Fun::Iota | Fun::Age | Fun::Binary(Binary::Rem)) | Head::Num(Scalar::I32(_)))
        }
        ENodeOrVar::Var(_) => false,
    };
    let mut found: Vec<bool> = nodes.iter().map(literal).collect();
    loop {
        let before = found.clone();
        for (i, n) in nodes.iter().enumerate() {
            match n {
                // The same variable may stand in several places.
                ENodeOrVar::Var(v) => {
                    let same = |m: &ENodeOrVar<Enode>| matches!(m, ENodeOrVar::Var(w) if w == v);
                    found[i] = nodes.iter().zip(&before).any(|(m, known)| *known && same(m));
                }
                ENodeOrVar::ENode(n) => {
                    let (Some(Fun::Binary(b)), children) = (n.as_fun(), &n.children) else { continue };
                    let number = !b.is_predicate() && found[i];
                    let any = number || children.iter().any(|c| found[usize::from(*c)]);
                    found[i] |= any && !b.is_predicate();
                    children.iter().for_each(|c| found[usize::from(*c)] |= any && b != Binary::And);
                }
            }
        }
        if found == before {
            return found;
        }
    }
}

/// The kinds of all variables of a pattern.
pub fn kinds(p: &PatternAst<Enode>) -> BTreeMap<Var, Kind> {
    let mut out: BTreeMap<Var, Kind> = BTreeMap::new();
    let nodes = p.as_ref();
    let integers = integers(nodes);
    for n in nodes {
        let ENodeOrVar::ENode(n) = n else { continue };
        let Some(fun) = n.as_fun() else { continue };
        for (i, c) in n.children.iter().enumerate() {
            let ENodeOrVar::Var(v) = &nodes[usize::from(*c)] else { continue };
            let new = kind(fun, i, integers[usize::from(*c)]);
            narrow(out.entry(*v).or_insert(new), new);
        }
    }
    out
}
