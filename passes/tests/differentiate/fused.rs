//! The fused operations.
use super::{Case, case, check, indices, param};
use lolm_ir::graph::{Builder, Table, ValueId};
use lolm_ir::op::{Attention, Dropout, Mask, Op};
use lolm_ir::{AxisId, AxisSet, DType};

fn axes(b: &mut Builder) -> [AxisId; 2] {
    [b.axis("t", 3), b.axis("d", 4)]
}

#[test]
fn softmax_and_logsumexp() {
    check(&case("softmax", |b| {
        let [t, d] = axes(b);
        let x = param(b, "x", &[t, d]);
        b.op(Op::Softmax { axis: d }, &[x])
    }));
    check(&case("softmax of a square", |b| {
        let [t, d] = axes(b);
        let x = param(b, "x", &[t, d]);
        let y = b.op(Op::Softmax { axis: d }, &[x]);
        b.mul(y, y)
    }));
    check(&case("logsumexp", |b| {
        let [t, d] = axes(b);
        let x = param(b, "x", &[t, d]);
        b.op(Op::LogSumExp { axis: d }, &[x])
    }));
}

fn eps() -> u32 {
    1e-5f32.to_bits()
}

#[test]
fn norms() {
    check(&case("layer_norm", |b| {
        let [t, d] = axes(b);
        let args = [param(b, "x", &[t, d]), param(b, "weight", &[d]), param(b, "bias", &[d])];
        b.op(Op::LayerNorm { axis: d, eps: eps() }, &args)
    }));
    check(&case("layer_norm without weights, squared", |b| {
        let [t, d] = axes(b);
        let x = param(b, "x", &[t, d]);
        let y = b.op(Op::LayerNorm { axis: d, eps: eps() }, &[x]);
        let cubed = b.mul(y, y);
        b.mul(cubed, y)
    }));
    check(&case("layer_norm with a weight for each row", |b| {
        let [t, d] = axes(b);
        let args = [param(b, "x", &[d]), param(b, "weight", &[t]), param(b, "bias", &[d])];
        b.op(Op::LayerNorm { axis: d, eps: eps() }, &args)
    }));
    check(&case("rms_norm", |b| {
        let [t, d] = axes(b);
        let args = [param(b, "x", &[t, d]), param(b, "weight", &[d])];
        b.op(Op::RmsNorm { axis: d, eps: eps() }, &args)
    }));
    check(&case("rms_norm without weight", |b| {
        let [t, d] = axes(b);
        let x = param(b, "x", &[t, d]);
        b.op(Op::RmsNorm { axis: d, eps: eps() }, &[x])
    }));
}

#[test]
fn rope() {
    check(&case("rope", |b| {
        let [t, _] = axes(b);
        let (i, p) = (b.axis("i", 2), b.axis("p", 2));
        let x = param(b, "x", &[t, i, p]);
        let cos = b.table("cos", Table::RopeCos { theta: 100.0, scaling: None }, &[vec![t], vec![i]]);
        let sin = b.table("sin", Table::RopeSin { theta: 100.0, scaling: None }, &[vec![t], vec![i]]);
        b.op(Op::Rope { pair: p }, &[x, cos, sin])
    }));
    check(&case("rope of learned angles", |b| {
        let [t, _] = axes(b);
        let (i, p) = (b.axis("i", 2), b.axis("p", 2));
        let args = [param(b, "x", &[t, i, p]), param(b, "cos", &[t, i]), param(b, "sin", &[i])];
        b.op(Op::Rope { pair: p }, &args)
    }));
}

fn attention(b: &mut Builder, mask: Mask, dropout: Option<Dropout>) -> ValueId {
    let (t, s, h, r) = (b.axis("t", 4), b.axis("s", 4), b.axis("h", 2), b.axis("r", 2));
    let (i, j) = (b.axis("i", 3), b.axis("j", 2));
    // Keys and values are shared by the heads along r.
    let mut args = vec![param(b, "q", &[t, h, r, i]), param(b, "k", &[s, h, i]), param(b, "v", &[s, h, j])];
    if mask != Mask::Full {
        let position = b.iota(t);
        args.push(position);
    }
    if dropout.is_some() {
        args.extend([indices(b, "seed", &[]), indices(b, "step", &[])]);
    }
    let over = AxisSet::from(i);
    b.op(Op::Attention(Attention { keys: s, over, scale: 0.5f32.to_bits(), mask, dropout }), &args)
}

#[test]
fn attention_with_each_mask() {
    check(&case("attention", |b| attention(b, Mask::Full, None)));
    check(&case("causal attention", |b| attention(b, Mask::Causal, None)));
    check(&case("attention in a window", |b| attention(b, Mask::Window(2), None)));
    check(&case("attention in a ring", |b| attention(b, Mask::Ring(3), None)));
    let dropped = |b: &mut Builder| attention(b, Mask::Causal, Some(Dropout { rate: 0.5f32.to_bits(), site: 7 }));
    check(&Case { feeds: &[("seed", &[1.0]), ("step", &[2.0])], ..case("attention with dropout", dropped) });
}

#[test]
fn selective_scan() {
    check(&case("selective_scan", |b| {
        let (b_, t, e, n) = (b.axis("b", 2), b.axis("t", 3), b.axis("e", 2), b.axis("n", 3));
        let dt = param(b, "dt", &[b_, t, e]);
        let args = [dt, param(b, "a", &[e, n]), param(b, "b", &[b_, t, n]), param(b, "c", &[b_, t, n])];
        let u = param(b, "u", &[b_, t, e]);
        b.op(Op::SelectiveScan { time: t, state: n }, &[args[0], args[1], args[2], args[3], u])
    }));
}

/// A gated recurrence with a reset where `place` is 0; log_a may lack the axis of sequences.
fn gated(b: &mut Builder, lacking: bool) -> ValueId {
    let (b_, t, e) = (b.axis("b", 2), b.axis("t", 4), b.axis("e", 3));
    let axes = [b_, t, e];
    let rate = param(b, "rate", if lacking { &axes[1..] } else { &axes });
    let log_a = b.neg(rate);
    let (place, start) = (indices(b, "place", &[b_, t]), b.int(0));
    let reset = b.eq(place, start);
    let x = param(b, "x", &[b_, t, e]);
    b.op(Op::GatedRecurrence { time: t }, &[log_a, x, reset])
}

#[test]
fn gated_recurrence() {
    let feeds: &[(&str, &[f64])] = &[("place", &[0.0, 1.0, 2.0, 3.0, 5.0, 6.0, 0.0, 1.0])];
    check(&Case { feeds, range: super::POSITIVE, ..case("gated_recurrence", |b| gated(b, false)) });
    check(&Case { feeds, range: super::POSITIVE, ..case("gated_recurrence of a shared decay", |b| gated(b, true)) });
}

#[test]
fn causal_conv() {
    check(&case("depthwise causal_conv", |b| {
        let [t, d] = axes(b);
        let k = b.axis("k", 4);
        let args = [param(b, "x", &[t, d]), param(b, "weight", &[d, k]), param(b, "bias", &[d])];
        b.op(Op::CausalConv { time: t, tap: k }, &args)
    }));
    check(&case("causal_conv with one filter", |b| {
        let [t, d] = axes(b);
        let k = b.axis("k", 3);
        let args = [param(b, "x", &[t, d]), param(b, "weight", &[k])];
        b.op(Op::CausalConv { time: d, tap: k }, &args)
    }));
}

#[test]
fn cross_entropy() {
    let build = |b: &mut Builder| {
        let [t, d] = axes(b);
        let v = b.axis("v", 5);
        let args = [param(b, "o", &[t, d]), param(b, "e", &[v, d]), indices(b, "target", &[t])];
        b.op(Op::CrossEntropy { vocab: v, over: d.into(), cap: None }, &args)
    };
    check(&Case { feeds: &[("target", &[4.0, -1.0, 0.0])], ..case("cross_entropy", build) });
    let capped = |b: &mut Builder| {
        let [t, d] = axes(b);
        let v = b.axis("v", 5);
        let args = [param(b, "o", &[t, d]), param(b, "e", &[v, d]), indices(b, "target", &[t])];
        b.op(Op::CrossEntropy { vocab: v, over: d.into(), cap: Some(0.5f32.to_bits()) }, &args)
    };
    check(&Case { feeds: &[("target", &[4.0, -1.0, 0.0])], ..case("capped cross_entropy", capped) });
}

#[test]
fn a_result_may_be_named_as_a_part() {
    check(&case("part 0 and the operation itself", |b| {
        let y = attention(b, Mask::Causal, None);
        let first = b.part(y, 0);
        b.mul(y, first)
    }));
}

#[test]
fn bf16_values_have_bf16_gradients() {
    let mut b = Builder::new("bf16");
    let [t, d] = axes(&mut b);
    let x = param(&mut b, "x", &[t, d]);
    let low = b.cast(x, DType::Bf16);
    let y = b.unary(lolm_ir::op::Unary::Gelu, low);
    let y = b.op(Op::RmsNorm { axis: d, eps: eps() }, &[y]);
    let high = b.cast(y, DType::F32);
    let loss = b.sum(&[t, d], high);
    let g = b.finish().unwrap();
    let found = lolm_passes::differentiate::differentiate(&g, loss, &super::params(&g)).unwrap();
    assert_eq!(found.graph.ty(found.grads[0]).dtype, DType::F32);
}

/// Two experts a row out of three, by the routes in the feed `i`.
fn routed(b: &mut Builder, x: ValueId, w: ValueId, i: ValueId) -> ValueId {
    let (e, d) = (b.axis("e", 3), b.axis("d", 4));
    b.op(Op::RoutedDot { expert: e, over: d }, &[x, w, i])
}

#[test]
fn routed_products() {
    // Nobody chooses expert 2, and one choice is outside.
    let routes: &[(&str, &[f64])] = &[("i", &[0.0, 1.0, 1.0, 0.0, 3.0, 1.0])];
    let whole = |b: &mut Builder| {
        let ([t, d], k, e, f) = (axes(b), b.axis("k", 2), b.axis("e", 3), b.axis("f", 2));
        let (x, w, i) = (param(b, "x", &[t, d]), param(b, "w", &[e, f, d]), indices(b, "i", &[t, k]));
        routed(b, x, w, i)
    };
    check(&Case { feeds: routes, ..case("routed_dot", whole) });
    let of_each = |b: &mut Builder| {
        let ([t, d], k, e, f) = (axes(b), b.axis("k", 2), b.axis("e", 3), b.axis("f", 2));
        let (x, w, i) = (param(b, "x", &[d, k, t]), param(b, "w", &[d, e, f]), indices(b, "i", &[t, k]));
        let y = routed(b, x, w, i);
        b.mul(y, y)
    };
    check(&Case { feeds: routes, ..case("routed_dot of rows of their own", of_each) });
}

#[test]
fn greatest_elements() {
    check(&case("top_k", |b| {
        let ([t, d], k) = (axes(b), b.axis("k", 2));
        let x = param(b, "x", &[t, d]);
        let top = b.op(Op::TopK { axis: d, k }, &[x]);
        let (values, index) = (b.part(top, 0), b.part(top, 1));
        let weight = param(b, "weight", &[d]);
        let weight = b.gather(weight, d, index);
        b.mul(values, weight)
    }));
}
