//! What a backward pass looks like: stops, ties, unused parameters, equal layers, errors.
use super::{check_graph, dims, feeds, gradients, indices, input, param, params};
use lolm_ir::graph::{Builder, Graph, ValueId};
use lolm_ir::op::{Op, Reduction};
use lolm_ir::{AxisId, DType};
use lolm_passes::differentiate::{DiffError, Gradients, differentiate};

fn backward(g: &Graph, loss: ValueId) -> Gradients {
    differentiate(g, loss, &params(g)).unwrap()
}

#[test]
fn no_gradient_flows_through_a_stop() {
    let mut b = Builder::new("stop");
    let d = b.axis("d", 3);
    let (x, y) = (param(&mut b, "x", &[d]), param(&mut b, "y", &[d]));
    let stopped = b.stop_gradient(x);
    let product = b.mul(stopped, y);
    let loss = b.sum(&[d], product);
    let g = b.finish().unwrap();
    let f = feeds(&g, (1.0, 2.0), &[]);
    assert_eq!(gradients(&backward(&g, loss), &f), [vec![0.0; 3], f["x"].clone()]);
}

#[test]
fn a_parameter_without_use_has_zeros_even_where_it_is_not_a_number() {
    let mut b = Builder::new("unused");
    let (d, e) = (b.axis("d", 3), b.axis("e", 2));
    let x = param(&mut b, "x", &[d]);
    param(&mut b, "unused", &[d, e]);
    let loss = b.sum(&[d], x);
    let g = b.finish().unwrap();
    let f = feeds(&g, (0.0, 1.0), &[("unused", &[f64::NAN; 6])]);
    assert_eq!(gradients(&backward(&g, loss), &f), [vec![1.0; 3], vec![0.0; 6]]);
}

#[test]
fn a_clamp_passes_its_bounds_in_either_order() {
    for constant_first in [false, true] {
        let mut b = Builder::new("clamp");
        let d = b.axis("d", 5);
        let (x, lo, hi) = (param(&mut b, "x", &[d]), b.num(-1.0), b.num(1.0));
        let y = if constant_first { b.max(lo, x) } else { b.max(x, lo) };
        let y = if constant_first { b.min(hi, y) } else { b.min(y, hi) };
        let loss = b.sum(&[d], y);
        let g = b.finish().unwrap();
        let f = feeds(&g, (0.0, 1.0), &[("x", &[-2.0, -1.0, 0.5, 1.0, 2.0])]);
        assert_eq!(gradients(&backward(&g, loss), &f), [[0.0, 1.0, 1.0, 1.0, 0.0]]);
    }
}

#[test]
fn ties_go_to_the_first_operand_and_are_shared_in_a_reduction() {
    let mut b = Builder::new("ties");
    let d = b.axis("d", 3);
    let (x, y, z) = (param(&mut b, "x", &[d]), param(&mut b, "y", &[d]), param(&mut b, "z", &[d]));
    let larger = b.max(x, y);
    let smaller = b.min(x, y);
    let both = b.sub(larger, smaller);
    let sum = b.sum(&[d], both);
    let top = b.reduce_max(&[d], z);
    let loss = b.add(sum, top);
    let g = b.finish().unwrap();
    let f = feeds(&g, (0.0, 1.0), &[("x", &[1.0, 2.0, 3.0]), ("y", &[1.0, 3.0, 2.0]), ("z", &[4.0, 4.0, 1.0])]);
    let expected = [vec![0.0, -1.0, 1.0], vec![0.0, 1.0, -1.0], vec![0.5, 0.5, 0.0]];
    assert_eq!(gradients(&backward(&g, loss), &f), expected);
}

/// Residual layers over a tied embedding, with a parameter whose parts are used apart.
fn layers(n: usize) -> (Graph, ValueId) {
    let mut b = Builder::new("layers");
    let (t, d, e) = (b.axis("t", 3), b.axis("d", 4), b.axis("e", 3));
    let (two, v) = (b.axis("two", 2), b.axis("v", 5));
    let table = param(&mut b, "table", &[v, d]);
    let tokens = indices(&mut b, "tokens", &[t]);
    let mut x = b.gather(table, v, tokens); // [t, d]
    for i in 0..n {
        b.scope(&format!("layers.{i}"));
        x = layer(&mut b, i, x, [d, e, two]);
    }
    b.scope("head");
    let logits = b.dot(&[d], x, table); // [t, v]
    let lse = b.op(Op::LogSumExp { axis: v }, &[logits]);
    let loss = b.mean(&[t], lse);
    (b.finish().unwrap(), loss)
}

fn layer(b: &mut Builder, i: usize, x: ValueId, [d, e, two]: [AxisId; 3]) -> ValueId {
    let w = b.param(&format!("{i}.w"), lolm_ir::graph::Init::Zeros, &[vec![two, e], vec![d]]);
    let out = param(b, &format!("{i}.out"), &[d, e]);
    let scale = param(b, &format!("{i}.scale"), &[d]);
    let normal = b.op(Op::RmsNorm { axis: d, eps: 1e-5f32.to_bits() }, &[x, scale]);
    let (w0, w1) = (b.at(w, two, 0), b.at(w, two, 1));
    let (u, g) = (b.dot(&[d], normal, w0), b.dot(&[d], normal, w1)); // [t, e]
    let gate = b.unary(lolm_ir::op::Unary::Silu, g);
    let y = b.mul(u, gate);
    let y = b.dot(&[e], y, out);
    b.add(x, y)
}

#[test]
fn layers_over_a_tied_embedding() {
    let (g, loss) = layers(2);
    check_graph(&g, loss, &feeds(&g, super::PLAIN, &[("tokens", &[1.0, 4.0, 1.0])]), 1e-6);
}

#[test]
fn equal_layers_have_equal_backward_code_under_their_own_scope() {
    let (g, loss) = layers(4);
    let back = backward(&g, loss);
    let code = |scope: &str| {
        let inside = back.graph.nodes.iter().filter(|n| back.graph.scope(n.scope) == scope);
        inside.map(|n| (n.op.mnemonic(), n.types.clone())).collect::<Vec<_>>()
    };
    let first = code("grad/layers.2");
    assert!(first.len() > 20);
    // The last layer introduces constants that the others share, so the ones before it are compared.
    assert_eq!(first, code("grad/layers.1"));
    assert!(code("grad/head").len() > 2);
    let used = |i: usize| back.graph.nodes.iter().any(|n| n.scope.0 as usize == i);
    assert!((g.scopes.len()..back.graph.scopes.len()).all(used), "a scope of the backward pass is empty");
}

#[test]
fn parts_of_a_parameter_are_stacked_and_not_padded() {
    let (g, loss) = layers(1);
    let back = backward(&g, loss);
    let w = back.grads[params(&g).iter().position(|l| g.leaf(*l).name == "0.w").unwrap()];
    assert!(matches!(back.graph.node(w).op, Op::Stack { .. }));
}

#[test]
fn rows_of_a_tied_embedding_are_added_into_the_gradient_of_the_head() {
    let (g, loss) = layers(1);
    let back = backward(&g, loss);
    let table = back.graph.node(back.grads[params(&g).iter().position(|l| g.leaf(*l).name == "table").unwrap()]);
    assert!(matches!(table.op, Op::ScatterAdd { .. }) && table.args.len() == 3);
}

#[test]
fn a_backward_pass_is_the_same_every_time() {
    let (g, loss) = layers(2);
    assert_eq!(backward(&g, loss).graph, backward(&g, loss).graph);
}

#[test]
fn randomness_is_drawn_once() {
    let mut b = Builder::new("dropout");
    let d = b.axis("d", 6);
    let x = param(&mut b, "x", &[d]);
    let (seed, step) = (indices(&mut b, "seed", &[]), indices(&mut b, "step", &[]));
    let u = b.random(seed, step, &[d]);
    let rate = b.num(0.5);
    let keep = b.le(rate, u);
    let (kept, zero) = (b.scale(x, 2.0), b.num(0.0));
    let y = b.select(keep, kept, zero);
    let y = b.mul(y, y);
    let loss = b.sum(&[d], y);
    let g = b.finish().unwrap();
    check_graph(&g, loss, &feeds(&g, super::PLAIN, &[("seed", &[3.0]), ("step", &[5.0])]), 1e-6);
    let draws = backward(&g, loss).graph.nodes.iter().filter(|n| matches!(n.op, Op::Random { .. })).count();
    assert_eq!(draws, 1);
}

#[test]
fn what_has_no_gradient_is_refused_with_facts() {
    let mut b = Builder::new("errors");
    let (t, d, e, n) = (b.axis("t", 3), b.axis("d", 4), b.axis("e", 2), b.axis("n", 2));
    let x = param(&mut b, "x", &[d]);
    let i = indices(&mut b, "i", &[t]);
    b.scope("scan");
    let args = [param(&mut b, "dt", &[t, e]), param(&mut b, "a", &[e, n]), param(&mut b, "b", &[t, n])];
    let more = [param(&mut b, "c", &[t, n]), param(&mut b, "u", &[t, e])];
    let y = b.op(Op::SelectiveScan { time: t, state: n }, &[args[0], args[1], args[2], more[0], more[1]]);
    let last = b.part(y, 1);
    let loss = b.op(Op::Reduce { kind: Reduction::Sum, axes: [e, n].into_iter().collect() }, &[last]);
    let g = b.finish().unwrap();

    let error = differentiate(&g, loss, &params(&g)).unwrap_err();
    assert_eq!(error.to_string(), "limit: selective_scan in scope `scan`: the last state must carry no gradient");
    assert!(matches!(differentiate(&g, x, &params(&g)), Err(DiffError::Loss { found, .. }) if found == "f32[d]"));
    let lolm_ir::graph::Node { op: Op::Leaf(index), .. } = g.node(i) else { panic!() };
    assert!(matches!(differentiate(&g, loss, &[*index]), Err(DiffError::Leaf { dtype: DType::I32, .. })));
}

#[test]
fn only_what_depends_on_the_leaves_is_differentiated() {
    let mut b = Builder::new("input");
    let d = b.axis("d", 3);
    let (x, w) = (input(&mut b, "x", &[d]), b.param("w", lolm_ir::graph::Init::Zeros, &dims(&[d])));
    let e = b.exp(x);
    let y = b.mul(e, w);
    let loss = b.sum(&[d], y);
    let g = b.finish().unwrap();
    let exps = backward(&g, loss).graph.nodes.iter().filter(|n| n.args.contains(&x)).count();
    assert_eq!(exps, 1, "the derivative of exp(x) is built although nobody asked for it");
}
