//! What attention and its gradient have in common: scores, and how their parts are found in a kernel by their structure.
use lolm_ir::kernel::{Fold, KAxes, KAxis, KOp, KValue, Kernel, Mode, OperandId, View};
use lolm_ir::op::Binary;
use lolm_ir::{DType, Scalar};

/// Queries, keys, values or gradients of results in memory.
#[derive(Clone, Debug)]
pub struct Source {
    pub operand: OperandId,
    pub view: View,
    /// Its elements are bf16, or are rounded to it.
    pub rounded: bool,
}

/// The scores of a kernel, and who they are of.
pub struct Scores {
    pub keys: KAxis,
    /// Contracted between queries and keys, and the values' own; outer ones first.
    pub over: Vec<KAxis>,
    pub wide: Vec<KAxis>,
    /// Axes that number separate keys and values, and those of the rows that share them.
    pub batch: Vec<KAxis>,
    pub rows: Vec<KAxis>,
    pub q: Source,
    pub k: Source,
    /// The factor on the scores; it is positive.
    pub scale: f32,
    /// Which keys a row sees, and what its weights are multiplied by.
    pub visible: Option<KValue>,
    pub kept: Option<KValue>,
}

impl Scores {
    pub fn lines(&self) -> KAxes {
        self.batch.iter().chain(&self.rows).copied().collect()
    }
    /// Everything that says which keys are visible and which weights are kept.
    pub fn masks(&self, k: &Kernel) -> Vec<KValue> {
        let roots: Vec<KValue> = self.visible.into_iter().chain(self.kept).collect();
        cone(k, &roots, &[])
    }
}

/// A product of queries and keys, scaled, with what is hidden at -∞.
pub struct Masked {
    pub visible: Option<KValue>,
    /// The product before it is scaled.
    pub product: KValue,
    pub scale: f32,
    pub q: Source,
    pub k: Source,
    pub over: Vec<KAxis>,
}

pub fn masked(k: &Kernel, v: KValue) -> Option<Masked> {
    let (visible, scores) = match (op(k, v), args(k, v)) {
        (KOp::Select, [c, x, hidden]) if constant(k, *hidden) == Some(f32::NEG_INFINITY) => (Some(*c), *x),
        _ => (None, v),
    };
    let (product, scale) = scaled(k, scores)?;
    let (q, key, over) = contraction(k, product)?;
    if scale.is_nan() || scale <= 0.0 {
        return None;
    }
    Some(Masked { visible, product, scale, q: source(k, q)?, k: source(k, key)?, over })
}

/// Rows that see the same keys are neighbours, so that a tile of rows sees few more keys than each of them.
pub fn rows(k: &Kernel, axes: KAxes, visible: Option<KValue>) -> Vec<KAxis> {
    let seen = visible.map_or(KAxes::EMPTY, |v| k.value(v).axes);
    let mut rows: Vec<KAxis> = axes.iter().collect();
    rows.sort_by_key(|a| !seen.has(*a));
    rows
}

/// The axes of a view, those with the longest strides first.
pub fn by_stride(axes: KAxes, view: &View) -> Vec<KAxis> {
    let mut axes: Vec<KAxis> = axes.iter().collect();
    axes.sort_by_key(|a| std::cmp::Reverse(view.stride(*a)));
    axes
}

pub fn axes(v: &View) -> KAxes {
    v.terms.iter().map(|t| t.0).collect()
}

pub fn op(k: &Kernel, v: KValue) -> &KOp {
    &k.value(v).op
}
pub fn args(k: &Kernel, v: KValue) -> &[KValue] {
    &k.value(v).args
}
pub fn constant(k: &Kernel, v: KValue) -> Option<f32> {
    match op(k, v) {
        KOp::Const(Scalar::F32(bits)) => Some(f32::from_bits(*bits)),
        _ => None,
    }
}
pub fn binary(k: &Kernel, v: KValue, b: Binary) -> Option<(KValue, KValue)> {
    (*op(k, v) == KOp::Binary(b)).then(|| (args(k, v)[0], args(k, v)[1]))
}

/// The value before it is rounded.
pub fn unrounded(k: &Kernel, mut v: KValue) -> KValue {
    while let KOp::Cast(DType::F32 | DType::Bf16) = op(k, v)
        && k.value(args(k, v)[0]).dtype.is_float()
    {
        v = args(k, v)[0];
    }
    v
}

pub fn source(k: &Kernel, v: KValue) -> Option<Source> {
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
pub fn only(k: &Kernel, is: impl Fn(&KOp) -> bool) -> Option<KValue> {
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
pub fn is_elementwise(k: &Kernel, v: KValue) -> bool {
    match op(k, v) {
        KOp::Load(o, _) => k.operand(*o).mode == Mode::In,
        KOp::Const(_) | KOp::Index(_) | KOp::Random { .. } | KOp::Unary(_) | KOp::Binary(_) => true,
        KOp::Fma | KOp::Select | KOp::Cast(_) => true,
        KOp::Reduce(..) | KOp::ArgMax(_) | KOp::Dot(_) | KOp::Scan { .. } | KOp::Prev(_) | KOp::Last(_) => false,
        KOp::Sample(_) | KOp::Store(..) | KOp::Accumulate(..) => false,
    }
}

/// The scores before they are scaled, and the factor.
pub fn scaled(k: &Kernel, v: KValue) -> Option<(KValue, f32)> {
    let (a, b) = binary(k, v, Binary::Mul)?;
    match (constant(k, a), constant(k, b)) {
        (_, Some(c)) => Some((a, c)),
        (Some(c), _) => Some((b, c)),
        (None, None) => None,
    }
}

/// A dot and the sums around it: its operands, and the axes, outer ones first.
pub fn contraction(k: &Kernel, mut v: KValue) -> Option<(KValue, KValue, Vec<KAxis>)> {
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
