//! Linear maps, rotary embedding, and the index operations that join and cut.
use lolm_ir::{AxisId, Builder, Op, ValueId};

/// `x · Wᵀ (+ bias)`, contracting `axes`.
pub fn linear(b: &mut Builder, axes: &[AxisId], x: ValueId, weight: ValueId, bias: Option<ValueId>) -> ValueId {
    let y = b.dot(axes, x, weight);
    bias.map_or(y, |bias| b.add(y, bias))
}

/// Operands with their axes, one after the other along `axis`.
pub fn concat(b: &mut Builder, axis: AxisId, parts: &[(ValueId, AxisId)]) -> ValueId {
    let (values, axes): (Vec<ValueId>, Vec<AxisId>) = parts.iter().copied().unzip();
    b.op(Op::Concat { axis, parts: axes }, &values)
}

/// Like [`concat`], but a single operand is only renamed.
pub fn joined(b: &mut Builder, axis: AxisId, parts: &[(ValueId, AxisId)]) -> ValueId {
    match parts {
        [(x, from)] => b.rename(*x, *from, axis),
        _ => concat(b, axis, parts),
    }
}

/// The terms one after the other, from the first.
pub fn sum_of(b: &mut Builder, terms: &[ValueId]) -> ValueId {
    match terms.iter().copied().reduce(|sum, x| b.add(sum, x)) {
        Some(sum) => sum,
        None => {
            b.fail("bug: a sum of no terms");
            b.num(0.0)
        }
    }
}

/// One operand for each index of `axis`.
pub fn stack(b: &mut Builder, axis: AxisId, parts: &[ValueId]) -> ValueId {
    b.op(Op::Stack { axis }, parts)
}

/// The window of `axis` at `start`, as `to`; the whole axis is only renamed.
pub fn slice_or_rename(b: &mut Builder, x: ValueId, axis: AxisId, start: usize, to: AxisId) -> ValueId {
    let whole = b.graph().len(axis) == b.graph().len(to) && start == 0;
    if whole { b.rename(x, axis, to) } else { b.slice(x, axis, start, to) }
}

/// The interleaved rotary form: the pair along `pair` turns by the angle whose cosine and sine are given.
pub fn rope_interleaved(b: &mut Builder, pair: AxisId, x: ValueId, cos: ValueId, sin: ValueId) -> ValueId {
    let (x0, x1) = (b.at(x, pair, 0), b.at(x, pair, 1));
    let (c0, s1) = (b.mul(x0, cos), b.mul(x1, sin));
    let (s0, c1) = (b.mul(x0, sin), b.mul(x1, cos));
    let (first, second) = (b.sub(c0, s1), b.add(s0, c1));
    stack(b, pair, &[first, second])
}

/// A causal depthwise convolution of what its window sees at each token, the oldest first: Σ_j weight\[j\] · seen_j (+ bias).
pub fn causal_conv(b: &mut Builder, tap: AxisId, seen: &[ValueId], weight: ValueId, bias: Option<ValueId>) -> ValueId {
    let term = |(j, x): (usize, &ValueId)| {
        let w = b.at(weight, tap, j);
        b.mul(w, *x)
    };
    let terms: Vec<ValueId> = seen.iter().enumerate().map(term).chain(bias).collect();
    sum_of(b, &terms)
}

/// 1 where the index along `axis` equals `index`, else 0.
pub fn one_hot(b: &mut Builder, axis: AxisId, index: ValueId) -> ValueId {
    let here = b.iota(axis);
    let hit = b.eq(here, index);
    let (one, zero) = (b.num(1.0), b.num(0.0));
    b.select(hit, one, zero)
}
