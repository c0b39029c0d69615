//! What of a kernel is a gradient of an attention: weights recomputed from the logarithms of their sums, slopes of the
//! scores, and products of these with what passes by.
use crate::ptx::attention::parts::*;
use lolm_ir::kernel::{KAxes, KAxis, KOp, KValue, Kernel};
use lolm_ir::op::{Binary, Unary};

/// A gradient, and the stores of what is made of it.
pub struct Outcome {
    pub value: KValue,
    pub stores: Vec<KValue>,
}

pub struct Shape {
    pub scores: Scores,
    /// The gradient of the results, and the values where slopes need them.
    pub d_o: Source,
    pub v: Option<Source>,
    /// Of each row: the logarithm of its sum of exponentials, and the sum of its results times their gradients.
    pub lse: KValue,
    pub delta: Option<KValue>,
    /// The lines are keys, and rows pass by; otherwise the lines are rows, and keys pass by.
    pub by_keys: bool,
    /// Slopes times what passes by along what scores contract: the gradient of queries or keys.
    pub of_over: Option<Outcome>,
    /// Weights times the gradient of the results: the gradient of the values.
    pub of_wide: Option<Outcome>,
}

impl Shape {
    /// Products are of bf16.
    pub fn narrow(&self) -> bool {
        let values = self.v.as_ref().is_none_or(|v| v.rounded);
        self.scores.q.rounded && self.scores.k.rounded && self.d_o.rounded && values
    }
}

/// Weights of keys: `exp (scores - lse)` where they are visible.
struct Weights {
    masked: Masked,
    lse: KValue,
}

fn weights(k: &Kernel, v: KValue) -> Option<Weights> {
    let (visible, e) = match (op(k, v), args(k, v)) {
        (KOp::Select, [c, x, zero]) if constant(k, *zero) == Some(0.0) => (Some(*c), *x),
        _ => (None, v),
    };
    let shifted = (*op(k, e) == KOp::Unary(Unary::Exp)).then(|| args(k, e)[0])?;
    let (scores, lse) = binary(k, shifted, Binary::Sub)?;
    let masked = masked(k, scores)?;
    (masked.visible == visible).then_some(Weights { masked, lse })
}

/// What weights are multiplied with, or the same of their gradient, and by what, if dropout is there.
fn dropped<T>(k: &Kernel, v: KValue, is: impl Fn(KValue) -> Option<T>) -> Option<(T, Option<KValue>)> {
    match (is(v), binary(k, v, Binary::Mul)) {
        (Some(x), _) => Some((x, None)),
        (None, Some((a, b))) => Some((is(a)?, Some(b))),
        (None, None) => None,
    }
}

/// One factor of a product with what passes by.
struct Factor {
    weights: Weights,
    kept: Option<KValue>,
    /// Where it is slopes: the gradient of the results, the values, their axes, and the rows' sums.
    slopes: Option<(Source, Source, Vec<KAxis>, KValue)>,
}

fn factor(k: &Kernel, v: KValue) -> Option<Factor> {
    let v = unrounded(k, v);
    if let Some((weights, kept)) = dropped(k, v, |v| weights(k, v)) {
        return Some(Factor { weights, kept, slopes: None });
    }
    let (of_masked, scale) = scaled(k, v)?;
    let (p, difference) = binary(k, of_masked, Binary::Mul)?;
    let weights = weights(k, p)?;
    let (d_weights, delta) = binary(k, difference, Binary::Sub)?;
    let ((d_o, values, wide), kept) = dropped(k, d_weights, |v| contraction(k, v))?;
    let slopes = Some((source(k, d_o)?, source(k, values)?, wide, delta));
    (scale == weights.masked.scale).then_some(Factor { weights, kept, slopes })
}

/// The one product that is stored, with elementwise operations behind it.
fn product_of(k: &Kernel, store: KValue) -> Option<KValue> {
    let (mut seen, mut open, mut products) = (KAxes::EMPTY, k.uses(store), vec![]);
    while let Some(v) = open.pop() {
        seen = seen.union(k.value(v).axes);
        match is_elementwise(k, v) {
            true => open.extend(k.uses(v)),
            false => products.push(v),
        }
    }
    products.dedup();
    let [one] = products.as_slice() else { return None };
    k.value(*one).axes.contains(seen).then_some(*one)
}

fn same(a: &Source, b: &Source) -> bool {
    a.operand == b.operand && a.view == b.view && a.rounded == b.rounded
}

/// The kernel as a gradient of an attention, if it is one. The answer does not depend on the numbers of rows and keys.
pub fn shape(k: &Kernel) -> Option<Shape> {
    if !k.units.is_empty() || k.axes.iter().any(|a| a.lo.is_some() || a.hi.is_some()) {
        return None;
    }
    let mut outcomes: Vec<Outcome> = vec![];
    for s in k.ids().filter(|v| k.value(*v).is_sink()) {
        let value = product_of(k, s).filter(|_| matches!(op(k, s), KOp::Store(..)))?;
        match outcomes.iter_mut().find(|o| o.value == value) {
            Some(o) => o.stores.push(s),
            None => outcomes.push(Outcome { value, stores: vec![s] }),
        }
    }
    let mut found: Option<Shape> = None;
    for outcome in outcomes {
        let one = one(k, outcome)?;
        found = Some(match found {
            None => one,
            Some(before) => joined(before, one)?,
        });
    }
    found.filter(|s| is_sound(k, s))
}

/// The gradient of one operand.
fn one(k: &Kernel, outcome: Outcome) -> Option<Shape> {
    let (x, y, across) = contraction(k, outcome.value)?;
    let (f, y) = (factor(k, x)?, source(k, y)?);
    let Weights { masked, lse } = f.weights;
    let Masked { visible, product, scale, q, k: key, over } = masked;
    let lines = k.value(lse).axes;
    let keys = KAxes(k.value(product).axes.0 & !lines.0);
    let across: KAxes = across.into_iter().collect();
    let by_keys = across != keys;
    let mut all = keys.iter();
    let (Some(keys), None) = (all.next(), all.next()) else { return None };
    let passes = match (&f.slopes, by_keys) {
        (Some(_), true) => same(&y, &q),
        (Some(_), false) => same(&y, &key),
        (None, by_keys) => by_keys,
    };
    let in_batch = match (by_keys, &f.slopes) {
        (true, _) => KAxes(lines.0 & !across.0),
        (false, Some((_, v, ..))) => KAxes(lines.0 & axes(&key.view).union(axes(&v.view)).0),
        (false, None) => return None,
    };
    let all_rows = KAxes(lines.0 & !in_batch.0);
    if !passes || by_keys && across != all_rows {
        return None;
    }
    let (d_o, v, wide, delta) = match f.slopes {
        Some((d_o, v, wide, delta)) => (d_o, Some(v), wide, Some(delta)),
        None => {
            let wide = by_stride(KAxes(axes(&y.view).0 & !lines.0), &y.view);
            (y, None, wide, None)
        }
    };
    let rows = rows(k, all_rows, visible);
    let batch = in_batch.iter().collect();
    let scores = Scores { keys, over, wide, batch, rows, q, k: key, scale, visible, kept: f.kept };
    let (of_over, of_wide) = if delta.is_some() { (Some(outcome), None) } else { (None, Some(outcome)) };
    Some(Shape { scores, d_o, v, lse, delta, by_keys, of_over, of_wide })
}

/// Gradients of keys and of values at once.
fn joined(a: Shape, b: Shape) -> Option<Shape> {
    let (over, wide) = if a.of_over.is_some() { (a, b) } else { (b, a) };
    let (s, t) = (&over.scores, &wide.scores);
    let alike = s.keys == t.keys && s.batch == t.batch && s.rows == t.rows && s.scale == t.scale;
    let masks = s.visible == t.visible && s.kept == t.kept && over.lse == wide.lse;
    let sources = same(&s.q, &t.q) && same(&s.k, &t.k) && same(&over.d_o, &wide.d_o);
    let both = over.of_wide.is_none() && wide.of_over.is_none() && over.by_keys && wide.by_keys;
    let all = alike && masks && sources && both && over.of_over.is_some() && wide.of_wide.is_some();
    all.then_some(Shape { of_wide: wide.of_wide, ..over })
}

/// Everything varies over what it should, and can be evaluated where it is needed.
fn is_sound(k: &Kernel, s: &Shape) -> bool {
    let c = &s.scores;
    let set = |axes: &[KAxis]| -> KAxes { axes.iter().copied().collect() };
    let (lines, batch, over, wide) = (c.lines(), set(&c.batch), set(&c.over), set(&c.wide));
    let own = |s: &Source, set: KAxes| set.contains(axes(&s.view));
    let apart = over.0 & (lines.with(c.keys).0 | wide.0) == 0 && wide.0 & lines.with(c.keys).0 == 0;
    let sources = own(&c.q, lines.union(over))
        && own(&c.k, batch.union(over).with(c.keys))
        && own(&s.d_o, lines.union(wide))
        && s.v.as_ref().is_none_or(|v| own(v, batch.union(wide).with(c.keys)));
    let line = if s.by_keys { batch.with(c.keys) } else { lines };
    let stored = |o: &Option<Outcome>, along: KAxes| {
        let whole = line.union(along);
        o.iter().all(|o| k.value(o.value).axes == whole && o.stores.iter().all(|s| k.value(*s).axes == whole))
    };
    let of_rows: Vec<KValue> = [s.lse].into_iter().chain(s.delta).collect();
    let rows = of_rows.iter().all(|v| lines.contains(k.value(*v).axes));
    let roots: Vec<KValue> = of_rows.into_iter().chain(c.visible).chain(c.kept).collect();
    let plain = cone(k, &roots, &[]).iter().all(|v| is_elementwise(k, *v));
    apart && sources && stored(&s.of_over, over) && stored(&s.of_wide, wide) && rows && plain
}
