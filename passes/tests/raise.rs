//! Raising, block by block: each fused operation from the spellings that models use, and unchanged answers.
use lolm_ir::graph::Init;
use lolm_ir::op::Unary;
use lolm_ir::{Builder, DType, Op, ValueId};

mod raise_util;
use raise_util::*;

#[test]
fn elementwise_functions_are_found_in_every_spelling() {
    type Spelling = fn(&mut Builder, ValueId) -> ValueId;
    let spellings: &[(&str, Spelling)] = &[
        ("1 sigmoid", |b, x| {
            let n = b.neg(x);
            let e = b.exp(n);
            let one = b.num(1.0);
            let s = b.add(e, one);
            b.div(one, s)
        }),
        ("1 sigmoid", |b, x| {
            let e = b.exp(x);
            let one = b.num(1.0);
            let s = b.add(one, e);
            b.div(e, s)
        }),
        ("1 sigmoid", |b, x| {
            let h = b.scale(x, 0.5);
            let t = b.unary(Unary::Tanh, h);
            let one = b.num(1.0);
            let s = b.add(t, one);
            b.scale(s, 0.5)
        }),
        ("1 silu", |b, x| {
            let s = b.unary(Unary::Sigmoid, x);
            b.mul(s, x)
        }),
        ("1 silu", |b, x| {
            let n = b.scale(x, -1.0);
            let e = b.exp(n);
            let one = b.num(1.0);
            let s = b.add(one, e);
            b.div(x, s)
        }),
        ("1 softplus", |b, x| {
            let e = b.exp(x);
            let one = b.num(1.0);
            let s = b.add(one, e);
            b.log(s)
        }),
        ("1 softplus", |b, x| {
            let (zero, one) = (b.num(0.0), b.num(1.0));
            let a = b.unary(Unary::Abs, x);
            let n = b.neg(a);
            let e = b.exp(n);
            let s = b.add(e, one);
            let l = b.log(s);
            let m = b.max(zero, x);
            b.add(l, m)
        }),
        ("1 softplus", |b, x| {
            let (zero, at) = (b.num(0.0), b.num(20.0));
            let m = b.max(x, zero);
            let (l, r) = (b.sub(x, m), b.neg(m));
            let (l, r) = (b.exp(l), b.exp(r));
            let s = b.add(l, r);
            let l = b.log(s);
            let y = b.add(m, l);
            let c = b.lt(at, x);
            b.select(c, x, y)
        }),
    ];
    for (expected, f) in spellings {
        let mut s = start("elementwise");
        let y = f(&mut s.b, s.x);
        let (_, r) = raised(&finish(s.b, y));
        assert_eq!(summary(&r), *expected, "{r}");
    }
}

#[test]
fn gelu_is_found_with_its_rounded_constant() {
    for style in 0..4 {
        let Start { mut b, x, .. } = start("gelu");
        let root = std::f32::consts::SQRT_2;
        let inner = if style % 2 == 0 {
            b.scale(x, 1.0 / root)
        } else {
            let c = b.num(root);
            b.div(x, c)
        };
        let erf = b.unary(Unary::Erf, inner);
        let y = if style < 2 {
            let one = b.num(1.0);
            let s = b.add(erf, one);
            let h = b.scale(x, 0.5);
            b.mul(h, s)
        } else {
            let h = b.scale(erf, 0.5);
            let half = b.num(0.5);
            let cdf = b.add(half, h);
            b.mul(cdf, x)
        };
        let (_, r) = raised_within(&finish(b, y), 1e-7);
        assert_eq!(summary(&r), "1 gelu", "{r}");
    }
}

#[test]
fn norms_are_found_with_and_without_their_maps() {
    for style in 0..12 {
        let Start { mut b, d, x, .. } = start("layer_norm");
        let c = centred(&mut b, d, x, style);
        let mut y = rms(&mut b, d, c, style % 4);
        if style >= 4 {
            let (w, bias) = (b.param("w", Init::Constant(1.0), &[vec![d]]), b.param("bias", Init::Zeros, &[vec![d]]));
            y = b.mul(w, y);
            y = b.add(y, bias);
        }
        let (_, r) = raised(&finish(b, y));
        assert_eq!(summary(&r), "1 layer_norm", "style {style}: {r}");
        let Start { mut b, d, x, .. } = start("rms_norm");
        let mut y = rms(&mut b, d, x, style % 4);
        if style >= 4 {
            let w = b.param("w", Init::Constant(1.0), &[vec![d]]);
            y = b.mul(y, w);
        }
        let (_, r) = raised(&finish(b, y));
        assert_eq!(summary(&r), "1 rms_norm", "style {style}: {r}");
    }
}

#[test]
fn a_variance_by_squares_is_a_norm() {
    let Start { mut b, d, x, .. } = start("layer_norm");
    let m = b.mean(&[d], x);
    let q = b.mul(x, x);
    let q = b.mean(&[d], q);
    let mm = b.mul(m, m);
    let v = b.sub(q, mm);
    let eps = b.num(1e-5);
    let v = b.add(v, eps);
    let (c, r) = (b.sub(x, m), b.unary(Unary::Rsqrt, v));
    let y = b.mul(c, r);
    let (_, r) = raised(&finish(b, y));
    assert_eq!(summary(&r), "1 layer_norm", "{r}");
}

#[test]
fn mixes_are_found_and_blends_by_one_number_are_not() {
    for style in 0..4 {
        let Start { mut b, x, .. } = start("mix");
        let (g, one) = (b.unary(Unary::Sigmoid, x), b.num(1.0));
        let (l, r) = (b.unary(Unary::Tanh, x), b.scale(x, 3.0));
        let y = match style {
            0 => {
                let (p, h) = (b.mul(g, l), b.sub(one, g));
                let q = b.mul(r, h);
                b.add(p, q)
            }
            1 => {
                let (p, h) = (b.mul(g, l), b.sub(one, g));
                let q = b.mul(h, r);
                b.add(q, p)
            }
            2 => {
                let p = b.sub(l, r);
                let p = b.mul(g, p);
                b.add(r, p)
            }
            _ => {
                let p = b.sub(r, l);
                let p = b.mul(p, g);
                b.sub(r, p)
            }
        };
        let (_, r) = raised(&finish(b, y));
        assert_eq!(summary(&r), "1 mix, 1 sigmoid", "style {style}: {r}");
    }
    let Start { mut b, x, .. } = start("blend");
    let beta = b.input("beta", DType::F32, &[]);
    let (one, y) = (b.num(1.0), b.unary(Unary::Tanh, x));
    let (l, h) = (b.mul(beta, x), b.sub(one, beta));
    let r = b.mul(h, y);
    let y = b.add(l, r);
    let (_, r) = raised(&finish(b, y));
    assert_eq!(summary(&r), "", "{r}");
}

#[test]
fn a_convolution_is_found_in_any_order_of_its_taps() {
    let orders: [[usize; 4]; 5] = [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1], [3, 0, 2, 1]];
    for (style, order) in orders.iter().enumerate() {
        for biased in [0, 1, 2] {
            let Start { mut b, d, x } = start("conv");
            let t = b.axis("t", 4);
            let k = b.axis("k", 4);
            let w = b.param("w", Init::Normal(0.02), &[vec![d], vec![k]]);
            let bias = b.param("bias", Init::Zeros, &[vec![d]]);
            let mut terms = vec![];
            for j in order {
                let (x, w) = (b.shift(x, t, 3 - *j as i64), b.at(w, k, *j));
                terms.push(if style % 2 == 0 { b.mul(x, w) } else { b.mul(w, x) });
            }
            if biased == 1 {
                terms.push(bias);
            } else if biased == 2 {
                terms.insert(0, bias);
            }
            let y = terms.into_iter().reduce(|y, z| b.add(y, z)).unwrap();
            let (g, r) = raised(&finish(b, y));
            assert_eq!(summary(&r), "1 causal_conv", "order {order:?}, {biased}: {r}");
            assert!(!g.nodes.iter().any(|n| matches!(n.op, Op::Binary(_))), "the bias stays outside");
        }
    }
}
