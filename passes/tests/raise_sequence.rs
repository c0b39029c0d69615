//! Raising what runs along a sequence: attention, scans and the loss of a head, in the styles of models.
use lolm_ir::graph::Init;
use lolm_ir::op::{Binary, Unary};
use lolm_ir::{AxisId, Builder, DType, Op, ValueId};

mod raise_util;
use raise_util::*;

#[test]
fn attention_is_found_in_many_styles() {
    for style in 0..64 {
        let mut b = Builder::new("attention");
        let (ab, t, s, d) = (b.axis("b", 2), b.axis("t", 4), b.axis("s", 4), b.axis("d", 4));
        let (h, r, i, p, j) = (b.axis("h", 2), b.axis("r", 2), b.axis("i", 2), b.axis("p", 2), b.axis("j", 4));
        let x = b.input("x", DType::F32, &[vec![ab], vec![t], vec![d]]);
        let grouped = style & 1 == 1;
        let heads = if grouped { vec![h, r] } else { vec![h] };
        let half_split = style & 2 == 2;
        let pair = if half_split { vec![p, i] } else { vec![i, p] };
        let wq = b.param("wq", Init::Normal(0.02), &[[heads, pair.clone()].concat(), vec![d]]);
        let wk = b.param("wk", Init::Normal(0.02), &[[vec![h], pair].concat(), vec![d]]);
        let wv = b.param("wv", Init::Normal(0.02), &[vec![h, j], vec![d]]);
        let (q, k, v) = (b.dot(&[d], x, wq), b.dot(&[d], wk, x), b.dot(&[d], x, wv));
        let cos = b.input("cos", DType::F32, &[vec![t], vec![i]]);
        let sin = b.input("sin", DType::F32, &[vec![t], vec![i]]);
        let q = if style & 4 == 4 { b.scale(q, 0.5) } else { q };
        let (q, k) = (rope(&mut b, q, p, cos, sin, style), rope(&mut b, k, p, cos, sin, style + 8));
        let (k, v) = (b.rename(k, t, s), b.rename(v, t, s));
        let mut a = if style & 16 == 16 { b.dot(&[i, p], q, k) } else { b.dot(&[i, p], k, q) };
        if style & 4 == 0 {
            a = if style & 8 == 8 {
                b.scale(a, 0.5)
            } else {
                let c = b.num(2.0);
                b.div(a, c)
            };
        }
        let (it, is) = (b.iota(t), b.iota(s));
        let m = b.le(is, it);
        let inf = b.num(f32::NEG_INFINITY);
        let a = if style & 32 == 32 {
            let zero = b.num(0.0);
            let bias = b.select(m, zero, inf);
            b.add(a, bias)
        } else {
            b.select(m, a, inf)
        };
        let a = if style & 16 == 16 {
            let mx = b.reduce_max(&[s], a);
            b.sub(a, mx)
        } else {
            a
        };
        let e = b.exp(a);
        let z = b.sum(&[s], e);
        let w = b.div(e, z);
        let o = if style & 8 == 8 {
            b.dot(&[s], w, v)
        } else {
            let wv = b.mul(w, v);
            b.sum(&[s], wv)
        };
        let (_, r) = raised(&finish(b, o));
        assert_eq!(summary(&r), "1 attention, 2 rope", "style {style}: {r}");
    }
}

fn rope(b: &mut Builder, x: ValueId, p: AxisId, cos: ValueId, sin: ValueId, style: usize) -> ValueId {
    let (x0, x1) = (b.at(x, p, 0), b.at(x, p, 1));
    if style & 8 == 8 {
        let n = b.neg(x1);
        let turned = b.op(Op::Stack { axis: p }, &[n, x0]);
        let (l, r) = (b.mul(x, cos), b.mul(turned, sin));
        return b.add(l, r);
    }
    let (a, c) = (b.mul(x0, cos), b.mul(sin, x1));
    let (d, e) = (b.mul(x0, sin), b.mul(cos, x1));
    let (l, r) = (b.sub(a, c), b.add(e, d));
    b.op(Op::Stack { axis: p }, &[l, r])
}

#[test]
fn windows_and_positions_become_attributes_and_operands() {
    for style in 0..4 {
        let mut b = Builder::new("decode");
        let (n, s, d, j, w) = (b.axis("n", 3), b.axis("s", 8), b.axis("d", 4), b.axis("j", 4), b.int(3));
        let q = b.input("q", DType::F32, &[vec![n], vec![d]]);
        let k = b.state("k", DType::F32, &[vec![n], vec![s], vec![d]]);
        let v = b.state("v", DType::F32, &[vec![n], vec![s], vec![j]]);
        let (pos, is) = (b.input("pos", DType::I32, &[vec![n]]), b.iota(s));
        let a = b.dot(&[d], q, k);
        let causal = b.le(is, pos);
        let near = match style {
            0 => {
                let x = b.sub(pos, is);
                b.lt(x, w)
            }
            1 => {
                let x = b.sub(pos, w);
                b.lt(x, is)
            }
            _ => {
                let x = b.add(is, w);
                b.lt(pos, x)
            }
        };
        let m = if style == 3 { causal } else { b.binary(Binary::And, near, causal) };
        let inf = b.num(f32::NEG_INFINITY);
        let a = b.select(m, a, inf);
        let p = b.op(Op::Softmax { axis: s }, &[a]);
        let o = b.dot(&[s], p, v);
        let (g, r) = raised(&finish(b, o));
        assert_eq!(summary(&r), "1 attention", "style {style}: {r}");
        let mask = g.nodes.iter().find_map(|n| if let Op::Attention(a) = &n.op { Some(a.mask) } else { None });
        let expected = if style == 3 { lolm_ir::op::Mask::Causal } else { lolm_ir::op::Mask::Window(3) };
        assert_eq!(mask, Some(expected));
    }
}

/// Inverted dropout of attention weights, as models write it.
#[test]
fn dropout_of_weights_belongs_to_the_attention() {
    for style in 0..5 {
        let mut b = Builder::new("dropout");
        let (n, t, s, d, j) = (b.axis("n", 2), b.axis("t", 4), b.axis("s", 4), b.axis("d", 4), b.axis("j", 2));
        let q = b.input("q", DType::F32, &[vec![n], vec![t], vec![d]]);
        let k = b.input("k", DType::F32, &[vec![n], vec![s], vec![d]]);
        let v = b.input("v", DType::F32, &[vec![n], vec![s], vec![j]]);
        let (seed, step) = (b.input("seed", DType::I32, &[]), b.input("step", DType::I32, &[]));
        let (it, is, inf, zero) = (b.iota(t), b.iota(s), b.num(f32::NEG_INFINITY), b.num(0.0));
        let a = b.dot(&[d], q, k);
        let m = b.le(is, it);
        let a = b.select(m, a, inf);
        let w = b.op(Op::Softmax { axis: s }, &[a]);
        let (u, rate, factor) = (b.random(seed, step, &[n, t, s]), b.num(0.25), b.num(1.0 / 0.75));
        let w = match style {
            0 => {
                let (m, w) = (b.lt(u, rate), b.mul(w, factor));
                b.select(m, zero, w)
            }
            1 => {
                let m = b.le(rate, u);
                let m = b.cast(m, DType::F32);
                let m = b.mul(m, factor);
                b.mul(w, m)
            }
            2 => {
                let m = b.le(rate, u);
                let m = b.select(m, factor, zero);
                b.mul(m, w)
            }
            3 => {
                let m = b.le(rate, u);
                let m = b.cast(m, DType::F32);
                let (w, keep) = (b.mul(m, w), b.num(0.75));
                b.div(w, keep)
            }
            _ => {
                let m = b.lt(u, rate);
                let w = b.select(m, zero, w);
                b.mul(w, factor)
            }
        };
        let o = b.dot(&[s], w, v);
        // The factor is a rounded f32; the fused operation divides exactly.
        let (g, r) = raised_within(&finish(b, o), 1e-7);
        assert_eq!(summary(&r), "1 attention", "style {style}: {r}");
        assert!(!g.nodes.iter().any(|n| matches!(n.op, Op::Random { .. })), "the draw is still there");
    }
}

/// A selective scan in several associations, with its last state and an initial one.
#[test]
fn scans_are_found_with_their_states() {
    for style in 0..16 {
        let mut b = Builder::new("scan");
        let (ab, t, e, n) = (b.axis("b", 2), b.axis("t", 4), b.axis("e", 3), b.axis("n", 2));
        let x = b.input("x", DType::F32, &[vec![ab], vec![t], vec![e]]);
        let u = b.input("u", DType::F32, &[vec![ab], vec![t], vec![e]]);
        let bt = b.input("b", DType::F32, &[vec![ab], vec![t], vec![n]]);
        let ct = b.input("c", DType::F32, &[vec![ab], vec![t], vec![n]]);
        let log = b.param("A_log", Init::LogRange, &[vec![e], vec![n]]);
        let h0 = b.state("h", DType::F32, &[vec![ab], vec![e], vec![n]]);
        let dt = {
            let ex = b.exp(x);
            let one = b.num(1.0);
            let s = b.add(one, ex);
            b.log(s)
        };
        let ea = b.exp(log);
        let decay = if style & 1 == 0 {
            let a = b.neg(ea);
            b.mul(dt, a)
        } else {
            let p = b.mul(ea, dt);
            b.neg(p)
        };
        let decay = b.exp(decay);
        let input = match style >> 1 & 3 {
            0 => {
                let p = b.mul(dt, bt);
                b.mul(p, u)
            }
            1 => {
                let p = b.mul(dt, u);
                b.mul(bt, p)
            }
            2 => {
                let p = b.mul(u, bt);
                b.mul(p, dt)
            }
            _ => {
                let p = b.mul(bt, u);
                b.mul(dt, p)
            }
        };
        let op = Op::Recurrence { axis: t, reverse: false };
        let s = if style & 8 == 8 { b.op(op, &[decay, input, h0]) } else { b.op(op, &[decay, input]) };
        let y = if style & 1 == 0 {
            b.dot(&[n], s, ct)
        } else {
            let p = b.mul(ct, s);
            b.sum(&[n], p)
        };
        if style & 8 == 8 {
            let last = b.at(s, t, 3);
            b.write(h0, last);
        }
        let (g, r) = raised(&finish(b, y));
        assert_eq!(summary(&r), "1 selective_scan, 1 softplus", "style {style}: {r}");
        assert_eq!(g.writes.len(), (style & 8 == 8) as usize);
    }
}

#[test]
fn a_gated_recurrence_is_reported_as_left_over() {
    let mut b = Builder::new("rg_lru");
    let (t, e) = (b.axis("t", 4), b.axis("e", 3));
    let x = b.input("x", DType::F32, &[vec![t], vec![e]]);
    let a = b.unary(Unary::Sigmoid, x);
    let y = b.op(Op::Recurrence { axis: t, reverse: false }, &[a, x]);
    let (_, r) = raised(&finish(b, y));
    assert_eq!(summary(&r), "1 sigmoid | 1 linear_recurrence");
}

/// The loss of a head: log-sum-exp and pick, in several spellings, with ignored targets.
#[test]
fn the_loss_of_a_head_is_found() {
    for style in 0..10 {
        let mut b = Builder::new("head");
        let (t, d, v) = (b.axis("t", 4), b.axis("d", 4), b.axis("v", 3));
        let o = b.input("o", DType::F32, &[vec![t], vec![d]]);
        let e = b.param("emb", Init::Normal(0.02), &[vec![v], vec![d]]);
        let target = b.input("target", DType::I32, &[vec![t]]);
        b.scope("head");
        let l = b.dot(&[d], o, e);
        b.scope("loss");
        let (zero, none) = (b.num(0.0), b.int(0));
        let valid = b.le(none, target);
        let mx = b.reduce_max(&[v], l);
        let shifted = b.sub(l, mx);
        let lse_of = |b: &mut Builder, x: ValueId| {
            let ex = b.exp(x);
            let sum = b.sum(&[v], ex);
            b.log(sum)
        };
        let loss = match style {
            0 => {
                let lse = lse_of(&mut b, l);
                let pick = b.gather(l, v, target);
                b.sub(lse, pick)
            }
            1 => {
                let lse = lse_of(&mut b, shifted);
                let lse = b.add(lse, mx);
                let pick = b.gather(l, v, target);
                b.sub(lse, pick)
            }
            2 => {
                let lse = lse_of(&mut b, shifted);
                let lse = b.add(mx, lse);
                let safe = b.max(target, none);
                let pick = b.gather(l, v, safe);
                b.sub(lse, pick)
            }
            3 => {
                let lse = lse_of(&mut b, shifted);
                let logp = b.sub(shifted, lse);
                let pick = b.gather(logp, v, target);
                b.neg(pick)
            }
            4 => {
                let p = b.op(Op::Softmax { axis: v }, &[l]);
                let logp = b.log(p);
                let pick = b.gather(logp, v, target);
                b.neg(pick)
            }
            5 => {
                let lse = lse_of(&mut b, l);
                let iv = b.iota(v);
                let hit = b.eq(iv, target);
                let only = b.select(hit, l, zero);
                let pick = b.sum(&[v], only);
                b.sub(lse, pick)
            }
            6 => {
                let lse = lse_of(&mut b, l);
                let iv = b.iota(v);
                let hit = b.eq(target, iv);
                let hot = b.cast(hit, DType::F32);
                let pick = b.dot(&[v], l, hot);
                b.sub(lse, pick)
            }
            7 => {
                let lse = lse_of(&mut b, shifted);
                let logp = b.sub(shifted, lse);
                let safe = b.max(none, target);
                let pick = b.gather(logp, v, safe);
                b.neg(pick)
            }
            8 => {
                let lse = lse_of(&mut b, l);
                let pick = b.gather(l, v, target);
                b.sub(pick, lse)
            }
            _ => {
                let lse = b.op(Op::LogSumExp { axis: v }, &[l]);
                let logp = b.sub(l, lse);
                b.gather(logp, v, target)
            }
        };
        let loss = match style {
            0 | 3 | 7 => {
                let m = b.cast(valid, DType::F32);
                b.mul(loss, m)
            }
            1 | 4 => {
                let ignored = b.lt(target, none);
                b.select(ignored, zero, loss)
            }
            8 | 9 => {
                let kept = b.select(valid, loss, zero);
                b.neg(kept)
            }
            _ => b.select(valid, loss, zero),
        };
        let (_, r) = raised(&finish(b, loss));
        assert_eq!(summary(&r), "1 cross_entropy", "style {style}: {r}");
    }
}

/// Without the mask, an ignored target would have another loss; it stays a log-sum-exp and a pick.
#[test]
fn a_loss_that_ignores_nothing_is_no_cross_entropy() {
    for known in [false, true] {
        let mut b = Builder::new("head");
        let (v, d, w) = (b.axis("v", 4), b.axis("d", 4), b.axis("w", 4));
        let o = b.input("o", DType::F32, &[vec![w], vec![d]]);
        let e = b.input("e", DType::F32, &[vec![v], vec![d]]);
        let target = if known { b.iota(w) } else { b.input("target", DType::I32, &[vec![w]]) };
        let l = b.dot(&[d], o, e);
        let lse = b.op(Op::LogSumExp { axis: v }, &[l]);
        let pick = b.gather(l, v, target);
        let loss = b.sub(lse, pick);
        let (_, r) = raised(&finish(b, loss));
        assert_eq!(summary(&r), if known { "1 cross_entropy" } else { "1 logsumexp" });
    }
}
