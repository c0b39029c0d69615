//! One graph that keeps every rule of the verifier, and one for each rule that breaks it.
use crate::case::dims;
use lolm_ir::axis::Axis;
use lolm_ir::graph::{Builder, Init, LeafKind, Output, RowKind, ScopeId, Table, Write};
use lolm_ir::op::{Attention, Dropout, Mask, Unary};
use lolm_ir::verify::verify;
use lolm_ir::{AxisId, AxisSet, DType, Graph, LeafId, Op, Type, ValueId};
use std::sync::Arc;

const T: AxisId = AxisId(0);
const S: AxisId = AxisId(1);
const D: AxisId = AxisId(2);

const X: ValueId = ValueId(1);
const SEED: ValueId = ValueId(5);
const STEP: ValueId = ValueId(6);
const ATTENTION: usize = 8;

/// A program with a parameter, an input, a state, a table, randomness and results.
fn sound() -> Graph {
    let mut b = Builder::new("sound");
    let [t, s, d] = [("t", 2), ("s", 2), ("d", 3)].map(|(n, l)| b.axis(n, l));
    let w = b.param("w", Init::Zeros, &dims(&[d])); // %0
    let x = b.input("x", DType::F32, &dims(&[t, d])); // %1
    let init = LeafKind::State { init: Some("w".into()), rows: RowKind::None };
    let state = b.leaf("state", init, DType::F32, &dims(&[t, d])); // %2
    b.table("cos", Table::RopeCos { theta: 1e4, scaling: None }, &dims(&[t, d])); // %3
    b.scope("layer");
    let k = b.rename(x, t, s); // %4
    let (seed, step) = (b.int(1), b.int(2)); // %5, %6
    let v = b.sum(&[d], k); // %7
    let attention = b.op(Op::Attention(dropped(0)), &[x, k, v, seed, step]); // %8
    let (o, lse) = (b.part(attention, 0), b.part(attention, 1)); // %9, %10
    let y = b.add(state, w); // %11
    b.write(state, y);
    b.output("y", y, &dims(&[d, t]));
    b.output("o", o, &dims(&[t]));
    b.output("lse", lse, &dims(&[t]));
    b.finish().unwrap()
}

fn dropped(site: u32) -> Attention {
    let dropout = Some(Dropout { rate: 0.1f32.to_bits(), site });
    Attention { keys: S, over: D.into(), scale: 1f32.to_bits(), mask: Mask::Full, dropout }
}

/// What the verifier says of the sound graph after a change.
fn broken(change: impl FnOnce(&mut Graph)) -> String {
    let mut g = sound();
    change(&mut g);
    verify(&g).unwrap_err().to_string()
}

fn random(g: &mut Graph, axes: Vec<AxisId>, from: [ValueId; 2]) {
    g.push(Op::Random { axes, site: 0 }, &from, ScopeId(0)).unwrap();
}

#[test]
fn a_sound_graph_passes() {
    assert_eq!(verify(&sound()), Ok(()));
}

#[test]
fn axes() {
    assert_eq!(broken(|g| Arc::make_mut(&mut g.axes)[1].name = "t".into()), "two axes are named `t`");
    assert_eq!(broken(|g| Arc::make_mut(&mut g.axes)[2].len = 0), "axis `d` has length 0");
    let many = (0..200).map(|i| Axis { name: format!("a{i}"), len: 1 });
    assert_eq!(broken(|g| Arc::make_mut(&mut g.axes).extend(many)), "limit: the graph has 203 axes, at most 128 fit");
}

#[test]
fn scopes() {
    let root = "scope 0 must be the root, which has no name";
    assert_eq!(broken(|g| Arc::make_mut(&mut g.scopes)[0] = "layer".into()), root);
    assert_eq!(broken(|g| Arc::make_mut(&mut g.scopes).clear()), root);
    assert_eq!(broken(|g| g.nodes[2].scope = ScopeId(7)), "%2 (leaf) in scope ``: there is no scope 7");
}

#[test]
fn leaves() {
    assert_eq!(broken(|g| Arc::make_mut(&mut g.leaves)[1].name = "w".into()), "two leaves are named `w`");
    assert_eq!(
        broken(|g| Arc::make_mut(&mut g.leaves)[1].dims = dims(&[T, T])),
        "leaf `x`: axis `t` is in its dims twice"
    );
    assert_eq!(broken(|g| Arc::make_mut(&mut g.leaves)[1].dims = dims(&[AxisId(9)])), "leaf `x`: there is no axis 9");
    let table = "leaf `cos`: a table is f32 with two dims, not f32 with 1";
    assert_eq!(broken(|g| Arc::make_mut(&mut g.leaves)[3].dims = vec![vec![T, D]]), table);
    let table = "leaf `cos`: a table is f32 with two dims, not i32 with 2";
    assert_eq!(broken(|g| Arc::make_mut(&mut g.leaves)[3].dtype = DType::I32), table);
}

#[test]
fn the_start_of_a_state() {
    let start = |from: &str| LeafKind::State { init: Some(from.into()), rows: RowKind::None };
    let input = "leaf `state`: it starts as `x`, which is no parameter";
    assert_eq!(broken(|g| Arc::make_mut(&mut g.leaves)[2].kind = start("x")), input);
    let shape = "leaf `state`: f32 [2, 3] cannot start as `w`, which is f32 [2]";
    assert_eq!(broken(|g| Arc::make_mut(&mut g.leaves)[0].dims = dims(&[T])), shape);
    let mut elsewhere = sound();
    Arc::make_mut(&mut elsewhere.leaves)[2].kind = start("a parameter of another program");
    assert_eq!(verify(&elsewhere), Ok(()));
}

#[test]
fn operands_come_first() {
    let late = "%4 (rename) in scope `layer`: it uses %9, which is not defined before it";
    assert_eq!(broken(|g| g.nodes[4].args[0] = ValueId(9)), late);
    let itself = "%4 (rename) in scope `layer`: it uses %4, which is not defined before it";
    assert_eq!(broken(|g| g.nodes[4].args[0] = ValueId(4)), itself);
    let nowhere = "%4 (rename) in scope `layer`: it uses %99, which is not defined before it";
    assert_eq!(broken(|g| g.nodes[4].args[0] = ValueId(99)), nowhere);
}

#[test]
fn attributes_name_what_exists() {
    let axis = "%4 (rename) in scope `layer`: `to`: there is no axis 5";
    assert_eq!(broken(|g| g.nodes[4].op = Op::Rename { from: T, to: AxisId(5) }), axis);
    let set = "%7 (sum) in scope `layer`: `axes`: there is no axis 100";
    let kind = lolm_ir::op::Reduction::Sum;
    assert_eq!(broken(|g| g.nodes[7].op = Op::Reduce { kind, axes: AxisSet::of(&[D, AxisId(100)]) }), set);
    let leaf = "%0 (leaf) in scope ``: `leaf`: there is no leaf 4";
    assert_eq!(broken(|g| g.nodes[0].op = Op::Leaf(LeafId(4))), leaf);
}

#[test]
fn types_are_the_inferred_ones() {
    let types = "%7 (sum) in scope `layer` has types f32[t], inferred are f32[s]";
    assert_eq!(broken(|g| g.nodes[7].types[0].axes = T.into()), types);
    let count = "%8 (attention) in scope `layer` has types f32[t], inferred are f32[t], f32[t]";
    assert_eq!(broken(|g| g.nodes[ATTENTION].types.truncate(1)), count);
    let fault = "%7 (not) in scope `layer`: not of f32[s,d]: not defined for f32";
    assert_eq!(broken(|g| g.nodes[7].op = Op::Unary(Unary::Not)), fault);
}

#[test]
fn parts_are_of_operations_with_several_results() {
    let one = "%9 (part) in scope `layer`: sum has no result 0";
    assert_eq!(broken(|g| g.nodes[9].args[0] = ValueId(7)), one);
    let third = "%9 (part) in scope `layer`: attention has no result 2";
    assert_eq!(broken(|g| g.nodes[9].op = Op::Part(2)), third);
}

#[test]
fn a_site_is_one_draw() {
    let two = "random site 0 draws one thing in %8 and another in %12";
    assert_eq!(broken(|g| random(g, vec![T], [SEED, STEP])), two);
    assert_eq!(broken(|g| random(g, vec![S, T], [SEED, STEP])), two);
    assert_eq!(broken(|g| random(g, vec![T, S], [STEP, STEP])), two);
    assert_eq!(broken(|g| random(g, vec![T, S], [SEED, SEED])), two);
    let mut expanded = sound();
    random(&mut expanded, vec![T, S], [SEED, STEP]);
    assert_eq!(verify(&expanded), Ok(()));
}

#[test]
fn the_gradient_of_an_attention_draws_what_the_attention_drew() {
    let backward = |g: &mut Graph, step: ValueId| {
        let [o, lse] = [ValueId(9), ValueId(10)];
        let args = [X, ValueId(4), ValueId(7), SEED, step, o, lse, o];
        g.push(Op::AttentionGrad(dropped(0)), &args, ScopeId(1)).unwrap();
    };
    let mut g = sound();
    backward(&mut g, STEP);
    assert_eq!(verify(&g), Ok(()));
    let two = "random site 0 draws one thing in %8 and another in %12";
    assert_eq!(broken(|g| backward(g, SEED)), two);
}

#[test]
fn outputs() {
    assert_eq!(broken(|g| g.outputs[1].name = "y".into()), "two outputs are named `y`");
    assert_eq!(broken(|g| g.outputs[0].dims = dims(&[D])), "output `y`: its dims hold [d], its value [t,d]");
    assert_eq!(broken(|g| g.outputs[0].dims = dims(&[D, T, D])), "output `y`: axis `d` is in its dims twice");
    let missing = Output { name: "z".into(), value: ValueId(50), dims: vec![] };
    assert_eq!(broken(|g| g.outputs.push(missing)), "output `z`: there is no value %50");
}

#[test]
fn writes() {
    let write = |leaf: u32, value: u32| Write { leaf: LeafId(leaf), value: ValueId(value) };
    assert_eq!(broken(|g| g.writes.push(write(2, 11))), "write to `state`: it is written twice");
    let input = "write to `x`: it is neither a state nor a parameter";
    assert_eq!(broken(|g| g.writes.push(write(1, 11))), input);
    assert_eq!(broken(|g| g.writes.push(write(0, 11))), "write to `w`: it is f32[d], the value is f32[t,d]");
    assert_eq!(broken(|g| g.writes.push(write(0, 40))), "write to `w`: there is no value %40");
    assert_eq!(broken(|g| g.writes.push(write(9, 11))), "write to `leaf 9`: it does not exist");
    let bf16 = |g: &mut Graph| {
        let v = g.push(Op::Cast(DType::Bf16), &[ValueId(11)], ScopeId(0)).unwrap();
        assert_eq!(g.ty(v), Type::new(DType::Bf16, AxisSet::of(&[T, D])));
        g.writes[0].value = v;
    };
    assert_eq!(broken(bf16), "write to `state`: it is f32[t,d], the value is bf16[t,d]");
}
