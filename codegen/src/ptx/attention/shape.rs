//! What of a kernel is an attention: scores, a softmax over the keys, and a product with the values.
//!
//! The parts are found by their structure. Whatever else the kernel says (which keys are visible, dropout, what is made of
//! the results) stays mathematics, which the shared evaluator computes.
use lolm_ir::kernel::{Fold, KAxes, KAxis, KOp, KValue, Kernel, Mode, OperandId, View};
use lolm_ir::op::{Binary, Unary};
use lolm_ir::{DType, Scalar};

/// Queries, keys or values in memory.
#[derive(Clone, Debug)]
pub struct Source {
    pub operand: OperandId,
    pub view: View,
    /// Its elements are bf16, or are rounded to it.
    pub rounded: bool,
}

pub struct Shape {
    pub keys: KAxis,
    /// Contracted between queries and keys, and the values' own; outer ones first.
    pub over: Vec<KAxis>,
    pub wide: Vec<KAxis>,
    /// Axes that number separate keys and values, and those of the rows that share them.
    pub batch: Vec<KAxis>,
    pub rows: Vec<KAxis>,
    pub q: Source,
    pub k: Source,
    pub v: Source,
    /// The factor on the scores; it is positive.
    pub scale: f32,
    /// Which keys a row sees, and what its weights are multiplied by.
    pub visible: Option<KValue>,
    pub kept: Option<KValue>,
    /// A row's greatest score where that is finite, its sum of exponentials, what that is divided by, and its results.
    pub max: KValue,
    pub sum: KValue,
    pub denominator: KValue,
    pub result: KValue,
    /// Stores of single elements, and of whole rows.
    pub elements: Vec<KValue>,
    pub lines: Vec<KValue>,
}

impl Shape {
    /// Products are of bf16.
    pub fn narrow(&self) -> bool {
        self.q.rounded && self.k.rounded && self.v.rounded
    }
}

fn op(k: &Kernel, v: KValue) -> &KOp {
    &k.value(v).op
}
fn args(k: &Kernel, v: KValue) -> &[KValue] {
    &k.value(v).args
}
fn constant(k: &Kernel, v: KValue) -> Option<f32> {
    match op(k, v) {
        KOp::Const(Scalar::F32(bits)) => Some(f32::from_bits(*bits)),
        _ => None,
    }
}
fn binary(k: &Kernel, v: KValue, b: Binary) -> Option<(KValue, KValue)> {
    (*op(k, v) == KOp::Binary(b)).then(|| (args(k, v)[0], args(k, v)[1]))
}

/// The value before it is rounded.
fn unrounded(k: &Kernel, mut v: KValue) -> KValue {
    while let KOp::Cast(DType::F32 | DType::Bf16) = op(k, v)
        && k.value(args(k, v)[0]).dtype.is_float()
    {
        v = args(k, v)[0];
    }
    v
}

fn source(k: &Kernel, v: KValue) -> Option<Source> {
    let load = unrounded(k, v);
    let KOp::Load(o, view) = op(k, load) else { return None };
    let operand = k.operand(*o);
    let plain = view.guard.is_none() && view.dynamic.is_empty() && operand.mode == Mode::In;
    let mut cast = v;
    let mut rounded = false;
    while cast != load {
        rounded |= k.value(cast).dtype == DType::Bf16;
        cast = args(k, cast)[0];
    }
    let rounded = rounded || operand.dtype == DType::Bf16;
    (plain && operand.dtype.is_float()).then(|| Source { operand: *o, view: view.clone(), rounded })
}

/// The one value that satisfies this.
fn only(k: &Kernel, is: impl Fn(&KOp) -> bool) -> Option<KValue> {
    let mut all = k.ids().filter(|v| is(op(k, *v)));
    all.next().filter(|_| all.next().is_none())
}

/// Everything that these are computed from, in order; what `stop` holds for is included, and nothing behind it.
pub fn cone(k: &Kernel, of: &[KValue], stop: &[KValue]) -> Vec<KValue> {
    let (mut seen, mut open) = (vec![false; k.values.len()], of.to_vec());
    while let Some(v) = open.pop() {
        if !std::mem::replace(&mut seen[v.0 as usize], true) && !stop.contains(&v) {
            open.extend(k.uses(v));
        }
    }
    k.ids().filter(|v| seen[v.0 as usize]).collect()
}

/// True for what can be evaluated at any coordinates.
fn is_elementwise(k: &Kernel, v: KValue) -> bool {
    match op(k, v) {
        KOp::Load(o, _) => k.operand(*o).mode == Mode::In,
        KOp::Const(_) | KOp::Index(_) | KOp::Random { .. } | KOp::Unary(_) | KOp::Binary(_) => true,
        KOp::Fma | KOp::Select | KOp::Cast(_) => true,
        KOp::Reduce(..) | KOp::ArgMax(_) | KOp::Dot(_) | KOp::Scan { .. } | KOp::Prev(_) | KOp::Last(_) => false,
        KOp::Store(..) | KOp::Accumulate(..) => false,
    }
}

/// The scores before they are scaled, and the factor.
fn scaled(k: &Kernel, v: KValue) -> Option<(KValue, f32)> {
    let (a, b) = binary(k, v, Binary::Mul)?;
    match (constant(k, a), constant(k, b)) {
        (_, Some(c)) => Some((a, c)),
        (Some(c), _) => Some((b, c)),
        (None, None) => None,
    }
}

/// A dot and the sums around it: its operands, and the axes, outer ones first.
fn contraction(k: &Kernel, mut v: KValue) -> Option<(KValue, KValue, Vec<KAxis>)> {
    let mut over = vec![];
    while let KOp::Reduce(Fold::Sum, a) = op(k, v) {
        over.push(*a);
        v = args(k, v)[0];
    }
    let KOp::Dot(a) = op(k, v) else { return None };
    over.push(*a);
    match args(k, v) {
        [x, y] => Some((*x, *y, over)),
        _ => None,
    }
}

/// The value that is 0 where the greatest score is infinite, and this score elsewhere.
fn finite_max(k: &Kernel, v: KValue, greatest: KValue) -> bool {
    let KOp::Select = op(k, v) else { return false };
    let [cond, zero, max] = args(k, v) else { return false };
    let infinite = binary(k, *cond, Binary::Eq).is_some_and(|(a, inf)| {
        *op(k, a) == KOp::Unary(Unary::Abs) && args(k, a)[0] == greatest && constant(k, inf) == Some(f32::INFINITY)
    });
    infinite && constant(k, *zero) == Some(0.0) && *max == greatest
}

/// The kernel as an attention, if it is one. The answer does not depend on the numbers of rows and keys.
pub fn shape(k: &Kernel) -> Option<Shape> {
    if !k.units.is_empty() || k.axes.iter().any(|a| a.lo.is_some() || a.hi.is_some()) {
        return None;
    }
    let greatest = only(k, |op| matches!(op, KOp::Reduce(Fold::Max, _)))?;
    let keys = op(k, greatest).folds()?;
    let masked = args(k, greatest)[0];
    let (visible, scores) = match (op(k, masked), args(k, masked)) {
        (KOp::Select, [c, x, hidden]) if constant(k, *hidden) == Some(f32::NEG_INFINITY) => (Some(*c), *x),
        _ => (None, masked),
    };
    let (product, scale) = scaled(k, scores)?;
    let (q, key, over) = contraction(k, product)?;
    let result = only(k, |op| *op == KOp::Dot(keys))?;
    let [weights, values] = args(k, result) else { return None };
    let weights = unrounded(k, *weights);
    let quotient = |v: KValue| binary(k, v, Binary::Div);
    let ((e, denominator), kept) = match (quotient(weights), binary(k, weights, Binary::Mul)) {
        (Some(q), _) => (q, None),
        (None, Some((a, b))) => (quotient(a)?, Some(b)),
        (None, None) => return None,
    };
    let (sum, one) = binary(k, denominator, Binary::Max)?;
    let shifted = (*op(k, e) == KOp::Unary(Unary::Exp)).then(|| args(k, e)[0])?;
    let (minuend, max) = binary(k, shifted, Binary::Sub)?;
    let normal = *op(k, sum) == KOp::Reduce(Fold::Sum, keys) && args(k, sum)[0] == e && constant(k, one) == Some(1.0);
    if !normal || minuend != masked || !finite_max(k, max, greatest) || scale.is_nan() || scale <= 0.0 {
        return None;
    }
    let sources = [source(k, q)?, source(k, key)?, source(k, *values)?];
    placed(k, Found { keys, over, sources, scale, visible, kept, max, sum, denominator, result })
}

struct Found {
    keys: KAxis,
    over: Vec<KAxis>,
    sources: [Source; 3],
    scale: f32,
    visible: Option<KValue>,
    kept: Option<KValue>,
    max: KValue,
    sum: KValue,
    denominator: KValue,
    result: KValue,
}

fn axes(v: &View) -> KAxes {
    v.terms.iter().map(|t| t.0).collect()
}

/// Says what the axes are, and that everything else can be evaluated where it is needed.
fn placed(k: &Kernel, f: Found) -> Option<Shape> {
    let [q, key, v] = f.sources;
    let lines = k.value(f.sum).axes;
    let wide = KAxes(k.value(f.result).axes.0 & !lines.0);
    let over: KAxes = f.over.iter().copied().collect();
    let batch = KAxes(lines.0 & axes(&key.view).union(axes(&v.view)).0);
    let own = |view: &View, set: KAxes| set.contains(axes(view));
    let sound = own(&q.view, lines.union(over))
        && own(&key.view, batch.union(over).with(f.keys))
        && own(&v.view, batch.union(wide).with(f.keys))
        && (wide.0 | lines.0) & over.0 == 0;
    let known = [f.max, f.sum, f.result];
    let (mut elements, mut whole) = (vec![], vec![]);
    for s in k.ids().filter(|v| k.value(*v).is_sink()) {
        let of_results = cone(k, &k.uses(s), &known).contains(&f.result);
        let expected = if of_results { lines.union(wide) } else { lines };
        if !matches!(op(k, s), KOp::Store(..)) || k.value(s).axes != expected {
            return None;
        }
        if of_results { elements.push(s) } else { whole.push(s) }
    }
    let inputs: Vec<KValue> = elements.iter().chain(&whole).flat_map(|s| k.uses(*s)).collect();
    let after = cone(k, &inputs, &known);
    let inside: Vec<KValue> = f.visible.into_iter().chain(f.kept).collect();
    let plain = after.iter().all(|v| known.contains(v) || is_elementwise(k, *v))
        && cone(k, &inside, &[]).iter().all(|v| is_elementwise(k, *v));
    if !sound || !plain || elements.is_empty() {
        return None;
    }
    // Rows that see the same keys are neighbours, so that a tile of rows sees few more keys than each of them.
    let seen = f.visible.map_or(KAxes::EMPTY, |v| k.value(v).axes);
    let mut rows: Vec<KAxis> = lines.iter().filter(|a| !batch.has(*a)).collect();
    rows.sort_by_key(|a| !seen.has(*a));
    Some(Shape {
        keys: f.keys,
        over: f.over,
        wide: by_stride(wide, &v.view),
        batch: batch.iter().collect(),
        rows,
        q,
        k: key,
        v,
        scale: f.scale,
        visible: f.visible,
        kept: f.kept,
        max: f.max,
        sum: f.sum,
        denominator: f.denominator,
        result: f.result,
        elements,
        lines: whole,
    })
}

fn by_stride(axes: KAxes, view: &View) -> Vec<KAxis> {
    let mut axes: Vec<KAxis> = axes.iter().collect();
    axes.sort_by_key(|a| std::cmp::Reverse(view.stride(*a)));
    axes
}
