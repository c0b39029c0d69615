//! Canonicalize: each identity, what it must leave alone, and that values do not change.
use lolm_ir::arbitrary;
use lolm_ir::axis::AxisId;
use lolm_ir::dtype::{DType, Scalar};
use lolm_ir::graph::{Builder, Dim, Graph, Init, ValueId};
use lolm_ir::interp::{self, Feeds};
use lolm_ir::op::{Binary, Op, Unary};
use lolm_passes::canonicalize::canonicalize;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn dims(axes: &[AxisId]) -> Vec<Dim> {
    axes.iter().map(|a| vec![*a]).collect()
}
fn x_of(b: &mut Builder) -> ValueId {
    let d = b.axis("d", 4);
    b.input("x", DType::F32, &[vec![d]])
}
fn feeds() -> Feeds {
    let x = vec![-2.5, -0.0, 0.75, f64::INFINITY];
    let tensor = (0..12).map(|i| 0.3 * i as f64 - 1.0).collect();
    [("x".into(), x), ("y".into(), tensor), ("n".into(), vec![3.0])].into()
}

/// The operations that remain of an expression, the input left out, after checking that its value is the same.
fn left(build: impl Fn(&mut Builder) -> ValueId) -> Vec<&'static str> {
    let mut b = Builder::new("case");
    let y = build(&mut b);
    let axes: Vec<AxisId> = b.graph().axes_of(y).iter().collect();
    b.output("y", y, &dims(&axes));
    let g = b.finish().unwrap();
    let small = canonicalize(&g).unwrap();
    let (before, after) = (interp::run(&g, &feeds()).unwrap(), interp::run(&small, &feeds()).unwrap());
    let same = |(x, y): (&f64, &f64)| x == y || x.is_nan() && y.is_nan();
    assert!(before.outputs["y"].iter().zip(&after.outputs["y"]).all(same), "{before:?} {after:?}");
    assert_eq!(canonicalize(&small).unwrap(), small, "a second run changes it again");
    small.nodes.iter().map(|n| n.op.mnemonic()).filter(|m| *m != "leaf").collect()
}

const NOTHING: [&str; 0] = [];

#[test]
fn neutral_operands_go() {
    let neutral = |op: Binary, c: f32, first: bool| {
        left(|b| {
            let (x, c) = (x_of(b), b.num(c));
            if first { b.binary(op, c, x) } else { b.binary(op, x, c) }
        })
    };
    for (op, c) in [(Binary::Add, 0.0), (Binary::Mul, 1.0)] {
        assert_eq!(neutral(op, c, false), NOTHING);
        assert_eq!(neutral(op, c, true), NOTHING);
    }
    assert_eq!(neutral(Binary::Sub, 0.0, false), NOTHING);
    assert_eq!(neutral(Binary::Div, 1.0, false), NOTHING);
    assert_eq!(neutral(Binary::Sub, 0.0, true), ["const", "sub"]);
    assert_eq!(neutral(Binary::Mul, 0.0, false), ["const", "mul"], "0·x is NaN where x is");
}

#[test]
fn integers_and_booleans_have_neutral_operands_too() {
    let integers = |b: &mut Builder| {
        let (n, zero, one) = (b.input("n", DType::I32, &[]), b.int(0), b.int(1));
        let sum = b.add(n, zero);
        b.mul(one, sum)
    };
    assert_eq!(left(integers), NOTHING);
    let booleans = |b: &mut Builder| {
        let (x, yes) = (x_of(b), b.op(Op::Const(Scalar::Bool(true)), &[]));
        let zero = b.num(0.0);
        let below = b.lt(x, zero);
        let both = b.binary(Binary::And, below, yes);
        let both = b.binary(Binary::And, both, below);
        let not = b.unary(Unary::Not, both);
        b.unary(Unary::Not, not)
    };
    assert_eq!(left(booleans), ["const", "lt"]);
}

#[test]
fn signs_move_to_where_they_cost_nothing() {
    let neg = |b: &mut Builder| {
        let x = x_of(b);
        let y = b.neg(x);
        b.neg(y)
    };
    assert_eq!(left(neg), NOTHING);
    let minus_one = |b: &mut Builder| {
        let x = x_of(b);
        b.scale(x, -1.0)
    };
    assert_eq!(left(minus_one), ["neg"]);
    let sum = |b: &mut Builder| {
        let x = x_of(b);
        let (e, n) = (b.exp(x), b.neg(x));
        let below = b.add(n, e);
        b.sub(below, n)
    };
    assert_eq!(left(sum), ["exp", "sub", "add"]);
    let product = |b: &mut Builder| {
        let x = x_of(b);
        let n = b.neg(x);
        let y = b.scale(n, 3.0);
        b.mul(n, y)
    };
    // x·-3 has its sign in the constant; the other factor keeps its own.
    assert_eq!(left(product), ["neg", "const", "mul", "mul"]);
}

#[test]
fn scaling_by_powers_of_two_is_one_product() {
    let chain = |first: f32, second: f32| {
        left(|b| {
            let x = x_of(b);
            let y = b.scale(x, first);
            b.scale(y, second)
        })
    };
    assert_eq!(chain(0.3, 0.5), ["const", "mul"]);
    assert_eq!(chain(0.5, 2.0), NOTHING);
    assert_eq!(chain(0.3, 0.7), ["const", "mul", "const", "mul"], "two roundings are not one");
    assert_eq!(chain(2.0, f32::MAX), ["const", "mul", "const", "mul"], "the product is infinite");
    assert_eq!(chain(0.5, f32::from_bits(3)), ["const", "mul", "const", "mul"], "the product is rounded");
}

#[test]
fn constants_fold_unless_the_result_is_not_finite() {
    let expression = |b: &mut Builder| {
        let (x, four, five) = (x_of(b), b.num(4.0), b.num(5.0));
        let nine = b.add(four, five);
        let root = b.unary(Unary::Sqrt, nine);
        b.add(x, root)
    };
    assert_eq!(left(expression), ["const", "add"]);
    let infinite = |b: &mut Builder| {
        let (x, low) = (x_of(b), b.num(f32::NEG_INFINITY));
        let high = b.neg(low);
        b.min(x, high)
    };
    assert_eq!(left(infinite), ["const", "neg", "min"]);
    let overflow = |b: &mut Builder| {
        let (x, y) = (x_of(b), b.num(1e30));
        let z = b.mul(y, y);
        b.min(x, z)
    };
    assert_eq!(left(overflow), ["const", "mul", "min"]);
    let rounded = |b: &mut Builder| {
        let (x, y) = (x_of(b), b.num(1.2345));
        let y = b.cast(y, DType::Bf16);
        let y = b.cast(y, DType::F32);
        b.add(x, y)
    };
    assert_eq!(left(rounded), ["const", "cast", "cast", "add"], "there is no bf16 constant");
}

#[test]
fn selections_that_are_decided_go() {
    let decided = |b: &mut Builder| {
        let (x, one, two) = (x_of(b), b.int(1), b.int(2));
        let cond = b.lt(one, two);
        let e = b.exp(x);
        b.select(cond, x, e)
    };
    assert_eq!(left(decided), NOTHING);
    let not = |b: &mut Builder| {
        let (x, zero) = (x_of(b), b.num(0.0));
        let cond = b.lt(x, zero);
        let not = b.unary(Unary::Not, cond);
        b.select(not, x, zero)
    };
    assert_eq!(left(not), ["const", "lt", "select"]);
    let equal = |b: &mut Builder| {
        let (x, zero) = (x_of(b), b.num(0.0));
        let cond = b.lt(x, zero);
        b.select(cond, x, x)
    };
    assert_eq!(left(equal), NOTHING);
}

#[test]
fn a_selection_that_gives_a_scalar_an_axis_stays() {
    let broadcast = |b: &mut Builder| {
        let d = b.axis("d", 4);
        let (i, zero, one) = (b.iota(d), b.int(0), b.num(1.0));
        let never = b.lt(i, zero);
        b.select(never, one, one)
    };
    assert_eq!(left(broadcast), ["iota", "const", "const", "lt", "select"]);
    let decided = |b: &mut Builder| {
        let (x, one, yes) = (x_of(b), b.num(1.0), b.op(Op::Const(Scalar::Bool(true)), &[]));
        b.select(yes, one, x)
    };
    assert_eq!(left(decided), ["const", "const", "select"]);
}

#[test]
fn casts_that_lose_nothing_go() {
    let there_and_back = |first: DType, second: DType| {
        left(|b| {
            let x = x_of(b);
            let x = b.cast(x, first);
            let y = b.op(Op::Cast(second), &[x]);
            let y = b.op(Op::Cast(first), &[y]);
            b.op(Op::Cast(DType::F32), &[y])
        })
    };
    assert_eq!(there_and_back(DType::Bf16, DType::F32), ["cast", "cast"]);
    assert_eq!(there_and_back(DType::Bool, DType::I32), ["cast", "cast"]);
    assert_eq!(there_and_back(DType::F32, DType::Bf16), ["cast", "cast"]);
    assert_eq!(there_and_back(DType::I32, DType::F32), ["cast", "cast", "cast", "cast"], "f32 has 24 bits");
}

fn tensor(b: &mut Builder) -> (ValueId, [AxisId; 2]) {
    let (t, d) = (b.axis("t", 3), b.axis("d", 4));
    (b.input("y", DType::F32, &dims(&[t, d])), [t, d])
}

#[test]
fn index_operations_that_undo_each_other_go() {
    let renames = |b: &mut Builder, back: bool| {
        let (y, [t, _]) = tensor(b);
        let (s, r) = (b.axis("s", 3), b.axis("r", 3));
        let z = b.rename(y, t, s);
        b.rename(z, s, if back { t } else { r })
    };
    assert_eq!(left(|b| renames(b, true)), NOTHING);
    assert_eq!(left(|b| renames(b, false)), ["rename"]);
    let element = |b: &mut Builder| {
        let (y, _) = tensor(b);
        let two = b.axis("two", 2);
        let e = b.exp(y);
        let both = b.op(Op::Stack { axis: two }, &[e, y]);
        b.at(both, two, 1)
    };
    assert_eq!(left(element), NOTHING);
    let part = |b: &mut Builder| {
        let (y, [t, d]) = tensor(b);
        let long = b.axis("long", 8);
        let e = b.exp(y);
        let both = b.op(Op::Concat { axis: long, parts: vec![d, d] }, &[e, y]);
        let (z, s) = (b.slice(both, long, 4, d), b.axis("s", 3));
        b.slice(z, t, 0, s)
    };
    assert_eq!(left(part), ["rename"]);
    let stops = |b: &mut Builder| {
        let (y, _) = tensor(b);
        let y = b.stop_gradient(y);
        b.stop_gradient(y)
    };
    assert_eq!(left(stops), ["stop_gradient"]);
}

#[test]
fn an_element_of_a_stack_of_scalars_keeps_the_axes_of_the_stack() {
    let scalar = |b: &mut Builder| {
        let (y, _) = tensor(b);
        let (two, one) = (b.axis("two", 2), b.num(1.0));
        let both = b.op(Op::Stack { axis: two }, &[one, y]);
        b.at(both, two, 0)
    };
    assert_eq!(left(scalar), ["const", "stack", "at"]);
}

#[test]
fn shifts_add_up_in_one_direction_only() {
    let shifts = |first: i64, second: i64| {
        left(|b| {
            let (y, [t, _]) = tensor(b);
            let y = b.shift(y, t, first);
            b.shift(y, t, second)
        })
    };
    assert_eq!(shifts(1, 1), ["shift"]);
    assert_eq!(shifts(1, -1), ["shift", "shift"]);
    assert_eq!(shifts(0, 2), ["shift"]);
}

#[test]
fn equal_operations_merge_and_draws_do_not() {
    let mut g = Graph::new("merge");
    let d = g.add_axis("d", 4).unwrap();
    let s = lolm_ir::graph::ScopeId(0);
    let [seed, step] = [1, 2].map(|i| g.push(Op::Const(Scalar::I32(i)), &[], s).unwrap());
    let draw = |g: &mut Graph, site| g.push(Op::Random { axes: vec![d], site }, &[seed, step], s).unwrap();
    let draws = [draw(&mut g, 0), draw(&mut g, 0), draw(&mut g, 1)];
    let sum = g.push(Op::Binary(Binary::Add), &[draws[0], draws[1]], s).unwrap();
    let sum = g.push(Op::Binary(Binary::Sub), &[sum, draws[2]], s).unwrap();
    g.outputs.push(lolm_ir::graph::Output { name: "y".into(), value: sum, dims: dims(&[d]) });
    let small = canonicalize(&g).unwrap();
    assert_eq!(small.nodes.iter().filter(|n| matches!(n.op, Op::Random { .. })).count(), 2);
    let run = |g: &Graph| interp::run(g, &Feeds::new()).unwrap();
    assert_eq!(run(&g), run(&small));
}

#[test]
fn dead_leaves_go_and_parameters_stay() {
    let mut b = Builder::new("leaves");
    let d = b.axis("d", 4);
    let dead = b.input("dead", DType::F32, &[vec![d]]);
    b.exp(dead);
    b.param("unused", Init::Zeros, &[vec![d]]);
    b.state("forgotten", DType::F32, &[vec![d]]);
    let written = b.state("written", DType::F32, &[vec![d]]);
    let x = x_of(&mut b);
    b.write(written, x);
    let g = canonicalize(&b.finish().unwrap()).unwrap();
    let names: Vec<&str> = g.leaves.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(names, ["unused", "written", "x"]);
    assert_eq!(g.leaf(g.writes[0].leaf).name, "written");
    assert_eq!(g.nodes.len(), 1, "the written state is not read");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::default()
    })]
    #[test]
    fn values_of_random_graphs_do_not_change(choices in prop::collection::vec(any::<u32>(), 0..200), seed in 0u32..100) {
        let g = arbitrary::graph(&choices, arbitrary::Options::SMOOTH).unwrap();
        let small = canonicalize(&g).unwrap();
        prop_assert!(small.nodes.len() <= g.nodes.len());
        prop_assert_eq!(&canonicalize(&small).unwrap(), &small);
        let feeds = arbitrary::feeds(&g, seed);
        let (before, after) = (interp::run(&g, &feeds).unwrap(), interp::run(&small, &feeds).unwrap());
        let tensors = |r: &interp::Results| [r.outputs.clone(), r.writes.clone()];
        for (before, after) in tensors(&before).iter().zip(tensors(&after)) {
            prop_assert!(before.keys().eq(after.keys()));
            for (name, x) in before {
                // Constants are folded to f32.
                let same = x.iter().zip(&after[name]).all(|(x, y)| (x - y).abs() <= 1e-6 * (1.0 + x.abs()) || x == y);
                prop_assert!(same, "{}: {:?} {:?}", name, x, &after[name]);
            }
        }
    }
}
