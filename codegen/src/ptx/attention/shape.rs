//! What of a kernel is an attention: scores, a softmax over the keys, and a product with the values.
//!
//! The parts are found by their structure. Whatever else the kernel says (which keys are visible, dropout, what is made of
//! the results) stays mathematics, which the shared evaluator computes.
use super::parts::*;
use lolm_ir::kernel::{Fold, KAxes, KAxis, KOp, KValue, Kernel};
use lolm_ir::op::{Binary, Unary};

pub struct Shape {
    pub scores: Scores,
    pub v: Source,
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
        self.scores.q.rounded && self.scores.k.rounded && self.v.rounded
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
    let hidden = args(k, greatest)[0];
    let masked = masked(k, hidden)?;
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
    if !normal || minuend != hidden || !finite_max(k, max, greatest) {
        return None;
    }
    let v = source(k, *values)?;
    placed(k, Found { keys, masked, v, kept, max, sum, denominator, result })
}

struct Found {
    keys: KAxis,
    masked: Masked,
    v: Source,
    kept: Option<KValue>,
    max: KValue,
    sum: KValue,
    denominator: KValue,
    result: KValue,
}

/// Says what the axes are, and that everything else can be evaluated where it is needed.
fn placed(k: &Kernel, f: Found) -> Option<Shape> {
    let Masked { visible, scale, q, k: key, over, .. } = f.masked;
    let v = f.v;
    let lines = k.value(f.sum).axes;
    let wide = KAxes(k.value(f.result).axes.0 & !lines.0);
    let all_over: KAxes = over.iter().copied().collect();
    let batch = KAxes(lines.0 & axes(&key.view).union(axes(&v.view)).0);
    let own = |s: &Source, set: KAxes| set.contains(axes(&s.view));
    let sound = own(&q, lines.union(all_over))
        && own(&key, batch.union(all_over).with(f.keys))
        && own(&v, batch.union(wide).with(f.keys))
        && (wide.0 | lines.0) & all_over.0 == 0;
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
    let inside: Vec<KValue> = visible.into_iter().chain(f.kept).collect();
    let plain = after.iter().all(|v| known.contains(v) || is_elementwise(k, *v))
        && cone(k, &inside, &[]).iter().all(|v| is_elementwise(k, *v));
    if !sound || !plain || elements.is_empty() {
        return None;
    }
    let scores = Scores {
        keys: f.keys,
        over,
        wide: by_stride(wide, &v.view),
        batch: batch.iter().collect(),
        rows: rows(k, KAxes(lines.0 & !batch.0), visible),
        q,
        k: key,
        scale,
        visible,
        kept: f.kept,
    };
    let Found { max, sum, denominator, result, .. } = f;
    Some(Shape { scores, v, max, sum, denominator, result, elements, lines: whole })
}
