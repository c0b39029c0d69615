//! Every fused operation equals its expansion.
use crate::case::Case;
use lolm_ir::expand::expand;
use lolm_ir::interp::run;
use lolm_ir::op::{Attention, Class, Dropout, Mask, Unary};
use lolm_ir::{AxisId, AxisSet, DType, Op, ValueId};

fn is_fused(op: &Op) -> bool {
    op.info().class == Class::Fused
}

/// Compares the graph with its expansion, in which no fused operation may be left.
fn check(c: Case, tolerance: f64) {
    let g = c.b.finish().unwrap();
    let small = expand(&g, &is_fused).unwrap();
    assert!(g.nodes.iter().any(|n| is_fused(&n.op)), "nothing was expanded");
    assert!(!small.nodes.iter().any(|n| is_fused(&n.op)));
    assert_eq!((&g.leaves, &g.scopes, &g.axes), (&small.leaves, &small.scopes, &small.axes));
    let (fused, small) = (run(&g, &c.feeds).unwrap(), run(&small, &c.feeds).unwrap());
    assert_eq!(fused.outputs.len(), g.outputs.len());
    for (name, a) in &fused.outputs {
        let b = &small.outputs[name];
        assert_eq!(a.len(), b.len());
        for (x, y) in a.iter().zip(b) {
            let near = x == y || (x - y).abs() <= tolerance * (1.0 + x.abs()) || (x.is_nan() && y.is_nan());
            assert!(near, "{name}: {x} and {y}\n{a:?}\n{b:?}");
        }
    }
}

fn one(build: impl FnOnce(&mut Case) -> ValueId) {
    let mut c = Case::new();
    let v = build(&mut c);
    c.output("y", v);
    check(c, 1e-10);
}

#[test]
fn elementwise() {
    for u in [Unary::Sigmoid, Unary::Silu, Unary::Gelu, Unary::GeluTanh, Unary::Softplus] {
        one(|c| {
            let n = c.b.axis("n", 40);
            let x = c.random("x", &[n], -8., 8.);
            c.b.unary(u, x)
        });
        one(|c| {
            let n = c.b.axis("n", 10);
            let (inf, nan) = (f64::INFINITY, f64::NAN);
            let x = c.f32("x", &[n], &[inf, -inf, nan, 0., -0., 100., -100., 1e-310, 800., -800.]);
            c.b.unary(u, x)
        });
    }
}

#[test]
fn mix() {
    one(|c| {
        let (m, n) = (c.b.axis("m", 3), c.b.axis("n", 4));
        let (g, a, b) = (c.random("g", &[n], 0., 1.), c.random("a", &[m, n], -1., 1.), c.random("b", &[m], -1., 1.));
        c.b.op(Op::Mix, &[g, a, b])
    });
}

#[test]
fn softmax_and_log_sum_exp() {
    for softmax in [true, false] {
        for scale in [1., 1000.] {
            one(|c| {
                let (m, n) = (c.b.axis("m", 3), c.b.axis("n", 5));
                let x = c.random("x", &[n, m], -scale, scale);
                c.b.op(if softmax { Op::Softmax { axis: n } } else { Op::LogSumExp { axis: n } }, &[x])
            });
        }
    }
    one(|c| {
        let (m, n) = (c.b.axis("m", 3), c.b.axis("n", 2));
        let inf = f64::INFINITY;
        let x = c.f32("x", &[m, n], &[-inf, -inf, -inf, 1., inf, 1.]);
        c.b.op(Op::LogSumExp { axis: n }, &[x])
    });
}

#[test]
fn norms() {
    let eps = 1e-5f32.to_bits();
    for (layer, operands) in [(true, 1), (true, 3), (false, 1), (false, 2)] {
        one(|c| {
            let (t, d) = (c.b.axis("t", 3), c.b.axis("d", 6));
            let args = [c.random("x", &[t, d], -2., 2.), c.random("w", &[d], 0., 2.), c.random("b", &[d], -1., 1.)];
            let op = if layer { Op::LayerNorm { axis: d, eps } } else { Op::RmsNorm { axis: d, eps } };
            c.b.op(op, &args[..operands])
        });
    }
}

#[test]
fn rope() {
    one(|c| {
        let (t, h) = (c.b.axis("t", 3), c.b.axis("h", 2));
        let (i, p) = (c.b.axis("i", 4), c.b.axis("p", 2));
        let x = c.random("x", &[t, h, p, i], -1., 1.);
        let (cos, sin) = (c.random("cos", &[t, i], -1., 1.), c.random("sin", &[t, i], -1., 1.));
        c.b.op(Op::Rope { pair: p }, &[x, cos, sin])
    });
}

/// The axes of an attention: batch, queries, heads, queries a head of keys, keys, head_dim, value dim.
struct Shape {
    q: Vec<AxisId>,
    k: Vec<AxisId>,
    v: Vec<AxisId>,
    qpos: Vec<AxisId>,
    keys: AxisId,
    over: AxisSet,
}

/// Grouped-query attention with a head_dim in two parts; `shared` keys have no batch.
fn shape(c: &mut Case, shared: bool) -> Shape {
    let [b, t, h, r] = [("b", 2), ("t", 4), ("h", 2), ("r", 3)].map(|(n, l)| c.b.axis(n, l));
    let [s, i, p, j] = [("s", 5), ("i", 2), ("p", 2), ("j", 3)].map(|(n, l)| c.b.axis(n, l));
    let (k, v) = if shared { (vec![h, s, p, i], vec![s, j]) } else { (vec![b, s, h, i, p], vec![b, s, h, j]) };
    Shape { q: vec![b, t, h, r, i, p], k, v, qpos: vec![t, b], keys: s, over: AxisSet::of(&[i, p]) }
}

fn masks() -> [Mask; 4] {
    [Mask::Full, Mask::Causal, Mask::Window(2), Mask::Ring(3)]
}

fn attention(c: &mut Case, dtype: DType, mask: Mask, dropout: bool, shared: bool) -> (Attention, Vec<ValueId>) {
    let x = shape(c, shared);
    let dropout = dropout.then(|| Dropout { rate: 0.3f32.to_bits(), site: 11 });
    let a = Attention { keys: x.keys, over: x.over, scale: 0.7f32.to_bits(), mask, dropout };
    let mut args = vec![
        c.random_of("q", dtype, &x.q, -1., 1.),
        c.random_of("k", dtype, &x.k, -1., 1.),
        c.random_of("v", dtype, &x.v, -1., 1.),
    ];
    if a.has_qpos() {
        // Positions before the first key are rows that see none.
        args.push(c.random_of("qpos", DType::I32, &x.qpos, -2., 7.));
    }
    if dropout.is_some() {
        args.extend([c.b.int(5), c.input("step", DType::I32, &[], &[3.])]);
    }
    (a, args)
}

#[test]
fn attention_with_every_mask() {
    for mask in masks() {
        for (dropout, shared) in [(false, false), (true, false), (true, true), (false, true)] {
            one(|c| {
                let (a, args) = attention(c, DType::F32, mask, dropout, shared);
                c.b.op(Op::Attention(a), &args)
            });
        }
    }
}

#[test]
fn gradients_of_attention() {
    for mask in masks() {
        for (dropout, shared) in [(false, false), (true, false), (true, true), (false, true)] {
            one(|c| {
                let (a, mut args) = attention(c, DType::F32, mask, dropout, shared);
                let forward = c.b.op(Op::Attention(a), &args);
                let (o, lse) = (c.b.part(forward, 0), c.b.part(forward, 1));
                let axes: Vec<AxisId> = c.b.graph().axes_of(o).iter().collect();
                let d_o = c.random("do", &axes, -1., 1.);
                args.extend([o, lse, d_o]);
                c.b.op(Op::AttentionGrad(a), &args)
            });
        }
    }
}

#[test]
fn a_gradient_that_lacks_axes_is_spread() {
    one(|c| {
        let (a, mut args) = attention(c, DType::F32, Mask::Causal, false, false);
        let forward = c.b.op(Op::Attention(a), &args);
        let (o, lse) = (c.b.part(forward, 0), c.b.part(forward, 1));
        let d_o = c.b.num(0.25);
        args.extend([o, lse, d_o]);
        c.b.op(Op::AttentionGrad(a), &args)
    });
}

#[test]
fn bf16_rounds_at_the_end_only() {
    for mask in masks() {
        one(|c| {
            let (a, args) = attention(c, DType::Bf16, mask, false, false);
            c.b.op(Op::Attention(a), &args)
        });
    }
    one(|c| {
        let n = c.b.axis("n", 40);
        let x = c.random_of("x", DType::Bf16, &[n], -4., 4.);
        c.b.unary(Unary::Gelu, x)
    });
}

/// dt, a, b, c, u and the axes t, n; `wide` gives b and c axes that the others lack.
fn scan(c: &mut Case, wide: bool) -> ([ValueId; 5], AxisId, AxisId, Vec<AxisId>) {
    let [b, t, e, n] = [("b", 2), ("t", 5), ("e", 3), ("n", 4)].map(|(n, l)| c.b.axis(n, l));
    let g = c.b.axis("g", 2);
    let (bs, cs) = if wide { (vec![t, n, g], vec![n, g, b]) } else { (vec![b, t, n], vec![b, t, n]) };
    let dt = c.random("dt", &[b, t, e], 0., 1.);
    let a = c.random("a", &[e, n], -2., 0.);
    let (bv, cv) = (c.random("b", &bs, -1., 1.), c.random("c", &cs, -1., 1.));
    let u = if wide { c.random("u", &[t, e], -1., 1.) } else { c.random("u", &[b, t, e], -1., 1.) };
    let rows = if wide { vec![b, e, n, g] } else { vec![b, e, n] };
    ([dt, a, bv, cv, u], t, n, rows)
}

#[test]
fn selective_scans() {
    for (wide, init) in [(false, false), (false, true), (true, false), (true, true)] {
        one(|c| {
            let (args, time, state, rows) = scan(c, wide);
            let mut args = args.to_vec();
            if init {
                args.push(c.random("init", &rows, -1., 1.));
            }
            c.b.op(Op::SelectiveScan { time, state }, &args)
        });
    }
}

#[test]
fn gradients_of_selective_scans() {
    for (wide, narrow) in [(false, false), (true, false), (true, true)] {
        one(|c| {
            let (args, time, state, _) = scan(c, wide);
            let y = c.b.op(Op::SelectiveScan { time, state }, &args);
            let mut axes: Vec<AxisId> = c.b.graph().axes_of(y).iter().collect();
            if narrow {
                axes.truncate(1);
            }
            let dy = c.random("dy", &axes, -1., 1.);
            let args: Vec<ValueId> = args.into_iter().chain([dy]).collect();
            c.b.op(Op::SelectiveScanGrad { time, state }, &args)
        });
    }
}

#[test]
fn causal_convolutions() {
    for (depthwise, bias, taps) in [(true, true, 4), (true, false, 1), (false, true, 7), (false, false, 3)] {
        one(|c| {
            let [b, t, ch, tap] = [("b", 2), ("t", 5), ("c", 3), ("tap", taps)].map(|(n, l)| c.b.axis(n, l));
            let x = c.random("x", &[b, t, ch], -1., 1.);
            let filter = [tap, ch];
            let w = c.random("w", if depthwise { &filter } else { &filter[..1] }, -1., 1.);
            let bias = bias.then(|| c.random("bias", &[ch], -1., 1.));
            let args: Vec<ValueId> = [x, w].into_iter().chain(bias).collect();
            c.b.op(Op::CausalConv { time: t, tap }, &args)
        });
    }
}

/// o, e and a target with ignored entries and one beyond the vocabulary.
fn head(c: &mut Case, batched: bool) -> ([ValueId; 3], AxisId, AxisSet, Vec<AxisId>) {
    let [b, t, d, v] = [("b", 2), ("t", 4), ("d", 3), ("v", 6)].map(|(n, l)| c.b.axis(n, l));
    let rows = vec![b, t];
    let o = if batched { c.random("o", &[b, t, d], -2., 2.) } else { c.random("o", &[t, d], -2., 2.) };
    let e = if batched { c.random("e", &[v, d], -2., 2.) } else { c.random("e", &[b, v, d], -2., 2.) };
    let target = c.input("target", DType::I32, &rows, &[0., -1., 5., 2., 6., 3., -7., 1.]);
    ([o, e, target], v, d.into(), rows)
}

#[test]
fn cross_entropies_and_their_gradients() {
    for (batched, cap) in [(true, None), (false, None), (true, Some(1.5f32.to_bits()))] {
        one(|c| {
            let (args, vocab, over, _) = head(c, batched);
            c.b.op(Op::CrossEntropy { vocab, over, cap }, &args)
        });
        for whole in [true, false] {
            one(|c| {
                let (args, vocab, over, rows) = head(c, batched);
                let forward = c.b.op(Op::CrossEntropy { vocab, over, cap }, &args);
                let lse = c.b.part(forward, 1);
                let d_loss = if whole { c.random("dloss", &rows, -1., 1.) } else { c.b.num(0.125) };
                let args: Vec<ValueId> = args.into_iter().chain([lse, d_loss]).collect();
                c.b.op(Op::CrossEntropyGrad { vocab, over, cap }, &args)
            });
        }
    }
}

/// log_a, x, reset and the axes t, and those of a step; `wide` gives x an axis that log_a lacks.
fn gated(c: &mut Case, wide: bool) -> ([ValueId; 3], AxisId, Vec<AxisId>) {
    let [b, t, e] = [("b", 2), ("t", 5), ("e", 3)].map(|(n, l)| c.b.axis(n, l));
    let axes = [b, t, e];
    let log_a = c.random("log_a", if wide { &axes[1..] } else { &axes }, -2., -0.1);
    let x = c.random("x", &[b, t, e], -1., 1.);
    let place = c.input("place", DType::I32, &[b, t], &[0., 1., 2., 3., 4., 3., 4., 0., 1., 2.]);
    let start = c.b.int(0);
    ([log_a, x, c.b.eq(place, start)], t, vec![b, e])
}

#[test]
fn gated_recurrences() {
    for (wide, init) in [(false, false), (false, true), (true, false), (true, true)] {
        one(|c| {
            let (args, time, rows) = gated(c, wide);
            let mut args = args.to_vec();
            if init {
                args.push(c.random("init", &rows, -1., 1.));
            }
            c.b.op(Op::GatedRecurrence { time }, &args)
        });
    }
}

#[test]
fn gradients_of_gated_recurrences() {
    for narrow in [false, true] {
        one(|c| {
            let (args, time, _) = gated(c, false);
            let h = c.b.op(Op::GatedRecurrence { time }, &args);
            let mut axes: Vec<AxisId> = c.b.graph().axes_of(h).iter().collect();
            if narrow {
                axes.truncate(1);
            }
            let dh = c.random("dh", &axes, -1., 1.);
            let args: Vec<ValueId> = args.into_iter().chain([h, dh]).collect();
            c.b.op(Op::GatedRecurrenceGrad { time }, &args)
        });
    }
}

#[test]
fn routed_products_and_their_gradients() {
    for rows in [vec!["b", "k"], vec!["b"], vec![]] {
        let operands = |c: &mut Case| {
            let [b, k, e, d, f] = [("b", 3), ("k", 2), ("e", 3), ("d", 4), ("f", 5)].map(|(n, l)| c.b.axis(n, l));
            let rows: Vec<AxisId> = rows.iter().map(|n| if *n == "b" { b } else { k }).collect();
            let shared: Vec<AxisId> = rows.iter().copied().take(1).collect();
            let x = c.random("x", &[&shared[..], &[d]].concat(), -1., 1.);
            let w = c.random("w", &[e, f, d], -1., 1.);
            // Some are outside.
            let index = c.random_of("i", DType::I32, &rows, -1., 4.);
            (e, d, [x, w, index], [&rows[..], &[f]].concat())
        };
        one(|c| {
            let (expert, over, args, _) = operands(c);
            c.b.op(Op::RoutedDot { expert, over }, &args)
        });
        one(|c| {
            let (expert, _, [x, _, index], out) = operands(c);
            let dy = c.random("dy", &out, -1., 1.);
            c.b.op(Op::RoutedDotGrad { expert }, &[x, dy, index])
        });
    }
}

#[test]
fn the_greatest_by_comparisons() {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    for x in [[3., 1., 2., 4., 0.], [1., 1., 1., 1., 1.], [nan, 1., inf, -inf, nan], [-inf; 5], [nan; 5]] {
        for k in [1, 2, 5] {
            let mut c = Case::new();
            let (axis, k) = (c.b.axis("e", 5), c.b.axis("k", k));
            let x = c.f32("x", &[axis], &x);
            let top = c.b.op(Op::TopK { axis, k }, &[x]);
            c.output("y", top);
            let g = c.b.finish().unwrap();
            let small = expand(&g, &|op| matches!(op, Op::TopK { .. })).unwrap();
            assert!(small.nodes.iter().all(|n| !matches!(n.op, Op::TopK { .. })));
            let (a, b) = (run(&g, &c.feeds).unwrap(), run(&small, &c.feeds).unwrap());
            assert_eq!(format!("{:?}", a.outputs), format!("{:?}", b.outputs));
        }
    }
}

#[test]
fn draws_by_comparisons() {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let rows =
        [[3., 1., 2., 3., 0.], [1.; 5], [nan, 1., inf, inf, -inf], [nan, -inf, 2., nan, 1.], [-inf; 5], [nan; 5]];
    for (n, row) in rows.iter().enumerate() {
        for settings in 0..72 {
            let pick = |of: &[f64], at: usize| of[settings / at % of.len()];
            let (t, k) = (pick(&[0., 1., 0.7], 1), pick(&[0., 2., 3., 7.], 3));
            let (p, m) = (pick(&[1., 0.55, 0.9], 12), pick(&[0., 0.3], 36));
            let mut c = Case::new();
            let (b, v) = (c.b.axis("b", 4), c.b.axis("v", 5));
            let x = c.f32("x", &[v], row);
            let k = c.input("k", DType::I32, &[], &[k]);
            let [t, p, m] = [("t", t), ("p", p), ("m", m)].map(|(n, s)| c.f32(n, &[], &[s]));
            let u = c.f32("u", &[b], &[0.03, 0.37, 0.69, 0.98]);
            let y = c.b.op(Op::Sample { axis: v }, &[x, t, k, p, m, u]);
            c.b.output("y", y, &[vec![b]]);
            let g = c.b.finish().unwrap();
            let small = expand(&g, &|op| matches!(op, Op::Sample { .. })).unwrap();
            assert!(small.nodes.iter().all(|n| !matches!(n.op, Op::Sample { .. })));
            let (a, b) = (run(&g, &c.feeds).unwrap(), run(&small, &c.feeds).unwrap());
            assert_eq!(a.outputs, b.outputs, "row {n}, settings {settings}");
        }
    }
}

#[test]
fn what_is_not_chosen_stays() {
    let mut c = Case::new();
    c.b.scope("head");
    let (args, vocab, over, _) = head(&mut c, true);
    let ce = c.b.op(Op::CrossEntropy { vocab, over, cap: None }, &args);
    c.output("y", ce);
    let g = c.b.finish().unwrap();
    assert_eq!(expand(&g, &|_| false).unwrap(), g);
    let expanded = expand(&g, &is_fused).unwrap();
    assert!(expanded.nodes.iter().all(|n| n.scope == g.nodes[0].scope));
}

#[test]
fn the_first_result_needs_no_part() {
    one(|c| {
        let (a, args) = attention(c, DType::F32, Mask::Causal, false, false);
        let o = c.b.op(Op::Attention(a), &args);
        c.b.neg(o)
    });
}
