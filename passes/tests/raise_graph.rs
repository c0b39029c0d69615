//! Raising whole graphs: long chains, equal regions, what is computed anyway, and what must stay as it is.
use lolm_ir::graph::Init;
use lolm_ir::op::Unary;
use lolm_ir::{AxisId, Builder, DType, Op};

mod raise_util;
use raise_util::*;

/// A long residual stream in one region: the cost of a tree would double at each step and see nothing.
#[test]
fn a_long_chain_is_raised_to_its_end() {
    let Start { mut b, d, mut x } = start("chain");
    for _ in 0..96 {
        let c = centred(&mut b, d, x, 0);
        let y = rms(&mut b, d, c, 0);
        let y = b.op(Op::Softmax { axis: d }, &[y]);
        let y = b.unary(Unary::Tanh, y);
        x = b.add(x, y);
    }
    let (_, r) = raised(&finish(b, x));
    assert_eq!(summary(&r), "96 layer_norm, 96 softmax", "{r}");
}

/// Two draws of randomness are two values, even in regions that are equal otherwise.
#[test]
fn draws_keep_their_identity() {
    let Start { mut b, mut x, .. } = start("draws");
    let (seed, step) = (b.input("seed", DType::I32, &[]), b.input("step", DType::I32, &[]));
    let axes: Vec<AxisId> = b.graph().axes_of(x).iter().collect();
    for layer in 0..3 {
        b.scope(&format!("layers.{layer}"));
        let (u, v) = (b.random(seed, step, &axes), b.random(seed, step, &axes));
        let y = b.mul(u, v);
        x = b.add(x, y);
    }
    let (g, r) = raised(&finish(b, x));
    assert_eq!((r.regions, r.distinct), (3, 1));
    let sites: Vec<u32> =
        g.nodes.iter().filter_map(|n| if let Op::Random { site, .. } = n.op { Some(site) } else { None }).collect();
    assert_eq!(sites, [0, 1, 2, 3, 4, 5]);
}

/// Weights that something else wants are computed once: the attention would compute them again.
#[test]
fn attention_whose_weights_are_wanted_stays_apart() {
    for wanted in [false, true] {
        let mut b = Builder::new("memory");
        let (t, m, u, r) = (b.axis("t", 4), b.axis("m", 3), b.axis("u", 4), b.axis("r", 4));
        let q = b.input("q", DType::F32, &[vec![t], vec![u]]);
        let slots = b.param("slots", Init::Normal(0.02), &[vec![m], vec![u]]);
        let a = b.dot(&[u], q, slots);
        let a = b.scale(a, 0.5);
        let w = b.op(Op::Softmax { axis: m }, &[a]);
        let content = b.rename(slots, u, r);
        let o = b.dot(&[m], w, content);
        if wanted {
            b.output("weights", w, &[vec![t], vec![m]]);
        }
        let (_, report) = raised(&finish(b, o));
        assert_eq!(summary(&report), if wanted { "1 softmax" } else { "1 attention" });
    }
}

/// What the passes leave out of an e-graph comes back as it was.
#[test]
fn every_operation_survives_the_round_trip() {
    use lolm_ir::op::Attention;
    let mut b = Builder::new("round_trip");
    let (ab, t, s, d, j) = (b.axis("b", 2), b.axis("t", 4), b.axis("s", 4), b.axis("d", 4), b.axis("j", 2));
    let (e, n, two) = (b.axis("e", 3), b.axis("n", 2), b.axis("two", 2));
    let x = b.input("x", DType::F32, &[vec![ab], vec![t], vec![d]]);
    let k = b.rename(x, t, s);
    let v = b.slice(k, d, 1, j);
    let pos = b.iota(t);
    let (seed, step) = (b.input("seed", DType::I32, &[]), b.input("step", DType::I32, &[]));
    let site = b.site();
    let mut sum = x;
    for (mask, dropout) in [(0, false), (1, false), (2, false), (0, true), (2, true)] {
        use lolm_ir::op::{Dropout, Mask};
        let mask = [Mask::Full, Mask::Causal, Mask::Window(2)][mask];
        let dropout = dropout.then_some(Dropout { rate: 0.25f32.to_bits(), site });
        let a = Attention { keys: s, over: d.into(), scale: 0.5f32.to_bits(), mask, dropout };
        let mut args = vec![x, k, v];
        if a.has_qpos() {
            args.push(pos);
        }
        if dropout.is_some() {
            args.extend([seed, step]);
        }
        let o = b.op(Op::Attention(a), &args);
        let lse = b.part(o, 1);
        args.extend([o, lse, o]);
        let grad = b.op(Op::AttentionGrad(a), &args);
        let dv = b.part(grad, 2);
        let dv = b.op(Op::Pad { axis: j, start: 1, to: d }, &[dv]);
        let dv = b.rename(dv, s, t);
        let lse = b.add(lse, grad);
        sum = b.add(sum, lse);
        sum = b.add(sum, dv);
    }
    let u = b.slice(x, d, 0, e);
    let c = b.slice(x, d, 2, n);
    let a = b.param("a", Init::Normal(1.0), &[vec![e], vec![n]]);
    let scan = b.op(Op::SelectiveScan { time: t, state: n }, &[u, a, c, c, u]);
    let grad = b.op(Op::SelectiveScanGrad { time: t, state: n }, &[u, a, c, c, u, scan]);
    let parts = [b.part(scan, 1), b.part(grad, 4), b.part(grad, 1)];
    for p in parts {
        let p = if b.graph().axes_of(p).has(n) { b.sum(&[n], p) } else { p };
        let p = b.sum(&[e], p);
        sum = b.add(sum, p);
    }
    let stacked = b.op(Op::Stack { axis: two }, &[x, sum]);
    let joined = b.axis("joined", 6);
    let cat = b.op(Op::Concat { axis: joined, parts: vec![two, d] }, &[stacked, x]);
    let cat = b.sum(&[joined], cat);
    let index = b.op(Op::ArgMax(d), &[x]);
    let place = b.op(Op::ScatterAdd { axis: s, over: t.into() }, &[index, x]);
    let place = b.op(Op::Update { axis: s }, &[place, pos, x]);
    let place = b.sum(&[s], place);
    let y = b.add(cat, place);
    let y = b.stop_gradient(y);
    let y = b.cast(y, DType::Bf16);
    let g = finish(b, y);
    let (out, _) = raised(&g);
    let count = |g: &lolm_ir::Graph| {
        let mut all: Vec<Op> = g.nodes.iter().map(|n| n.op.clone()).collect();
        all.sort();
        all
    };
    assert_eq!(count(&g.sweep()), count(&out));
}
