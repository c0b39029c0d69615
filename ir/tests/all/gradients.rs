//! The gradients of fused operations against central differences of their values.
use crate::case::{Case, dims};
use lolm_ir::interp::{Feeds, run};
use lolm_ir::op::{Attention, Dropout, Mask};
use lolm_ir::{AxisId, AxisSet, DType, Graph, Op, ValueId};

/// Checks that outputs `g.<i>` are the derivatives of the sum of output `loss` by the named inputs.
fn check(g: &Graph, feeds: &Feeds, inputs: &[&str]) {
    let loss = |feeds: &Feeds| run(g, feeds).unwrap().outputs["loss"].iter().sum::<f64>();
    let gradients = run(g, feeds).unwrap().outputs;
    for (i, name) in inputs.iter().enumerate() {
        let analytic = &gradients[&format!("g.{i}")];
        for (j, a) in analytic.iter().enumerate() {
            let moved = |by: f64| {
                let mut f = feeds.clone();
                f.get_mut(*name).unwrap()[j] += by;
                loss(&f)
            };
            let numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((a - numeric).abs() < 1e-7, "d/d {name}[{j}]: {a} and {numeric}");
        }
    }
}

/// Adds `loss` = y · dy, where dy is random, and returns dy.
fn weighted_loss(c: &mut Case, y: ValueId) -> ValueId {
    let axes: Vec<AxisId> = c.b.graph().axes_of(y).iter().collect();
    let dy = c.random("dy", &axes, -1., 1.);
    let loss = c.b.dot(&axes, y, dy);
    c.b.output("loss", loss, &[]);
    dy
}

/// Gradients in the order in which the inputs were declared, each over the axes of its input.
fn outputs(c: &mut Case, grads: ValueId, of: &[&[AxisId]]) {
    for (i, axes) in of.iter().enumerate() {
        let part = c.b.part(grads, i);
        c.b.output(&format!("g.{i}"), part, &dims(axes));
    }
}

#[test]
fn attention() {
    for (mask, dropout) in [(Mask::Full, false), (Mask::Causal, true), (Mask::Window(2), false), (Mask::Ring(2), false)]
    {
        let mut c = Case::new();
        let [b, t, r, s] = [("b", 2), ("t", 3), ("r", 2), ("s", 3)].map(|(n, l)| c.b.axis(n, l));
        let [d, j] = [("d", 2), ("j", 2)].map(|(n, l)| c.b.axis(n, l));
        let dropout = dropout.then(|| Dropout { rate: 0.3f32.to_bits(), site: 1 });
        let a = Attention { keys: s, over: d.into(), scale: 0.7f32.to_bits(), mask, dropout };
        let axes: [&[AxisId]; 3] = [&[b, t, r, d], &[b, s, d], &[s, b, j]];
        let [q, k, v] = [("q", 0), ("k", 1), ("v", 2)].map(|(n, i)| c.random(n, axes[i], -1., 1.));
        let mut args = vec![q, k, v];
        if a.has_qpos() {
            args.push(c.input("qpos", DType::I32, &[t], &[0., 1., -1.]));
        }
        if dropout.is_some() {
            args.extend([c.b.int(1), c.b.int(2)]);
        }
        let forward = c.b.op(Op::Attention(a), &args);
        let (o, lse) = (c.b.part(forward, 0), c.b.part(forward, 1));
        let d_o = weighted_loss(&mut c, o);
        args.extend([o, lse, d_o]);
        let grads = c.b.op(Op::AttentionGrad(a), &args);
        outputs(&mut c, grads, &axes);
        check(&c.b.finish().unwrap(), &c.feeds, &["q", "k", "v"]);
    }
}

#[test]
fn selective_scan() {
    let mut c = Case::new();
    let [b, t, e, n] = [("b", 2), ("t", 4), ("e", 2), ("n", 3)].map(|(n, l)| c.b.axis(n, l));
    let axes: [&[AxisId]; 5] = [&[b, t, e], &[e, n], &[b, t, n], &[t, n], &[t, b, e]];
    let names = ["dt", "a", "b", "c", "u"];
    let args: Vec<ValueId> = (0..5).map(|i| c.random(names[i], axes[i], -1., 1.)).collect();
    let y = c.b.op(Op::SelectiveScan { time: t, state: n }, &args);
    let dy = weighted_loss(&mut c, y);
    let args: Vec<ValueId> = args.into_iter().chain([dy]).collect();
    let grads = c.b.op(Op::SelectiveScanGrad { time: t, state: n }, &args);
    outputs(&mut c, grads, &axes);
    check(&c.b.finish().unwrap(), &c.feeds, &names);
}

#[test]
fn gated_recurrence() {
    let mut c = Case::new();
    let [b, t, e] = [("b", 2), ("t", 5), ("e", 2)].map(|(n, l)| c.b.axis(n, l));
    let axes = [b, t, e];
    let (log_a, x) = (c.random("log_a", &axes, -1.5, -0.1), c.random("x", &axes, -1., 1.));
    let place = c.input("place", DType::I32, &[b, t], &[0., 1., 2., 3., 4., 3., 4., 0., 1., 2.]);
    let start = c.b.int(0);
    let reset = c.b.eq(place, start);
    let h = c.b.op(Op::GatedRecurrence { time: t }, &[log_a, x, reset]);
    let dh = weighted_loss(&mut c, h);
    let grads = c.b.op(Op::GatedRecurrenceGrad { time: t }, &[log_a, x, reset, h, dh]);
    outputs(&mut c, grads, &[&axes, &axes]);
    check(&c.b.finish().unwrap(), &c.feeds, &["log_a", "x"]);
}

#[test]
fn cross_entropy() {
    for cap in [None, Some(1.5f32.to_bits())] {
        cross_entropy_of(cap);
    }
}

fn cross_entropy_of(cap: Option<u32>) {
    let mut c = Case::new();
    let [t, d, v] = [("t", 4), ("d", 3), ("v", 5)].map(|(n, l)| c.b.axis(n, l));
    let (o, e) = (c.random("o", &[t, d], -1., 1.), c.random("e", &[v, d], -1., 1.));
    let target = c.input("target", DType::I32, &[t], &[3., -1., 0., 3.]);
    let over = AxisSet::from(d);
    let forward = c.b.op(Op::CrossEntropy { vocab: v, over, cap }, &[o, e, target]);
    let (loss, lse) = (c.b.part(forward, 0), c.b.part(forward, 1));
    let d_loss = weighted_loss(&mut c, loss);
    let grads = c.b.op(Op::CrossEntropyGrad { vocab: v, over, cap }, &[o, e, target, lse, d_loss]);
    outputs(&mut c, grads, &[&[t, d], &[v, d]]);
    check(&c.b.finish().unwrap(), &c.feeds, &["o", "e"]);
}

#[test]
fn routed_dot() {
    let mut c = Case::new();
    let [t, k, e, d, f] = [("t", 4), ("k", 2), ("e", 3), ("d", 3), ("f", 2)].map(|(n, l)| c.b.axis(n, l));
    let (x, w) = (c.random("x", &[t, d], -1., 1.), c.random("w", &[e, f, d], -1., 1.));
    // Nobody chooses expert 2, and one choice is outside.
    let index = c.input("i", DType::I32, &[t, k], &[0., 1., 1., 0., 0., 1., 3., 1.]);
    let y = c.b.op(Op::RoutedDot { expert: e, over: d }, &[x, w, index]);
    let dy = weighted_loss(&mut c, y);
    let d_rows = c.b.op(Op::RoutedDot { expert: e, over: f }, &[dy, w, index]); // [t, k, d]
    let dx = c.b.sum(&[k], d_rows);
    c.b.output("g.0", dx, &dims(&[t, d]));
    let dw = c.b.op(Op::RoutedDotGrad { expert: e }, &[x, dy, index]);
    c.b.output("g.1", dw, &dims(&[e, f, d]));
    check(&c.b.finish().unwrap(), &c.feeds, &["x", "w"]);
}
