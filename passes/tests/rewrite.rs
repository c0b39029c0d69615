//! Rewriting: what is moved, when it pays, and unchanged answers.
use lolm_ir::graph::{Init, LeafId, LeafKind};
use lolm_ir::interp::run;
use lolm_ir::{AxisId, Builder, DType, Graph, Op, ValueId};
use lolm_models::spec::library;
use lolm_models::{Noise, Program, Spec, build};
use lolm_passes::differentiate::differentiate;
use lolm_passes::optimizer::expose_gradients;
use lolm_passes::raise::raise;
use lolm_passes::rewrite::{Machine, RewriteReport, rewrite};

mod raise_util;
use raise_util::{feeds, finish, gap, tiny};

const PLAIN: Machine = Machine { accumulates: false };
const ADDING: Machine = Machine { accumulates: true };

/// Rewrites a graph and checks that its answers stay.
fn rewritten(g: &Graph, machine: Machine) -> (Graph, RewriteReport) {
    let (out, report) = rewrite(g, machine).unwrap();
    let feeds = feeds(g, 5);
    let worst = gap(&run(&out, &feeds).unwrap(), &run(g, &feeds).unwrap());
    assert!(worst < 1e-9, "@{}: rewriting changed the answer by {worst:e}\n{report}", g.name);
    (out, report)
}

fn count(g: &Graph, f: impl Fn(&Op) -> bool) -> usize {
    g.nodes.iter().filter(|n| f(&n.op)).count()
}
fn concats(g: &Graph) -> usize {
    count(g, |op| matches!(op, Op::Concat { .. }))
}
fn dots(g: &Graph) -> usize {
    count(g, |op| matches!(op, Op::Dot { .. }))
}

/// What a map of a concat of three streams is made of.
struct Streams {
    b: Builder,
    t: AxisId,
    all: AxisId,
    joined: ValueId,
    weight: ValueId,
}

/// Streams x, y over d and z over e, joined, and a weight over the joined axis.
fn streams() -> Streams {
    let mut b = Builder::new("concat");
    let (t, d, e, all, o) = (b.axis("t", 32), b.axis("d", 32), b.axis("e", 16), b.axis("all", 80), b.axis("o", 2));
    let [x, y] = ["x", "y"].map(|n| b.input(n, DType::F32, &[vec![t], vec![d]]));
    let z = b.input("z", DType::F32, &[vec![t], vec![e]]);
    let joined = b.op(Op::Concat { axis: all, parts: vec![d, d, e] }, &[x, y, z]);
    let weight = b.param("w", Init::Normal(0.02), &[vec![o], vec![all]]);
    Streams { b, t, all, joined, weight }
}

#[test]
fn a_map_of_a_concat_becomes_a_sum_of_maps() {
    for turned in [false, true] {
        let Streams { mut b, all, joined, weight, .. } = streams();
        let y = if turned { b.dot(&[all], weight, joined) } else { b.dot(&[all], joined, weight) };
        let (g, r) = rewritten(&finish(b, y), ADDING);
        assert_eq!((concats(&g), dots(&g)), (0, 3), "{r}");
        assert_eq!(r.moved[0].made, ["split"]);
        assert!(r.moved[0].cost.1 < r.moved[0].cost.0);
    }
}

/// With another axis contracted beside that of the concat.
#[test]
fn other_contracted_axes_stay() {
    let mut b = Builder::new("concat");
    let (t, n, d, all, o) = (b.axis("t", 32), b.axis("n", 2), b.axis("d", 32), b.axis("all", 64), b.axis("o", 2));
    let [x, y] = ["x", "y"].map(|name| b.input(name, DType::F32, &[vec![t], vec![d], vec![n]]));
    let joined = b.op(Op::Concat { axis: all, parts: vec![d, d] }, &[x, y]);
    let w = b.param("w", Init::Normal(0.02), &[vec![o], vec![all], vec![n]]);
    let y = b.dot(&[all, n], joined, w);
    let (g, _) = rewritten(&finish(b, y), ADDING);
    assert_eq!((concats(&g), dots(&g)), (0, 2));
}

/// A concat that something else reads is written anyway, so a split would save nothing.
#[test]
fn a_concat_that_is_wanted_stays() {
    let Streams { mut b, t, all, joined, weight } = streams();
    b.output("joined", joined, &[vec![t], vec![all]]);
    let y = b.dot(&[all], joined, weight);
    let (g, r) = rewritten(&finish(b, y), ADDING);
    assert_eq!((concats(&g), dots(&g)), (1, 1), "{r}");
    assert_eq!((r.moved[0].offered, r.moved[0].made.len()), (1, 0));
}

/// Two maps of one concat: either alone leaves the concat to the other; together they are rid of it.
#[test]
fn maps_that_share_a_concat_are_split_together() {
    let Streams { mut b, all, joined, weight, .. } = streams();
    let q = b.axis("q", 2);
    let other = b.param("v", Init::Normal(0.02), &[vec![q], vec![all]]);
    let (l, r) = (b.dot(&[all], joined, weight), b.dot(&[all], joined, other));
    let y = b.mul(l, r);
    let (g, r) = rewritten(&finish(b, y), ADDING);
    assert_eq!((concats(&g), dots(&g)), (0, 6), "{r}");
}

fn spec(name: &str) -> Spec {
    library(name).unwrap().unwrap()
}

fn moves(spec: &Spec, program: &Program, machine: Machine) -> Vec<(String, usize)> {
    let (g, _) = raise(&build(spec, program).unwrap()).unwrap();
    let (_, r) = rewrite(&g, machine).unwrap();
    r.moved.into_iter().map(|m| (m.scope, m.made.len())).collect()
}

/// The table of models: scopes with a map of a concat, and whether it is split, without and with accumulating dots.
#[test]
fn concats_of_streams_are_split_where_it_pays() {
    let step = Program::Step { slots: 2, tokens: 1 };
    let table = |c, r, g| vec![("memory.combine".to_string(), c), ("regime".to_string(), r), ("gate".to_string(), g)];
    for (name, combine) in [("lolm-demo", 0), ("lolm-20m", 1), ("lolm-149m", 1), ("lolm-304m", 1), ("lolm-1.6b", 1)] {
        assert_eq!(moves(&spec(name), &step, PLAIN), table(combine, 1, 0), "{name}");
        assert_eq!(moves(&spec(name), &step, ADDING), table(1, 1, 1), "{name}");
    }
}

/// Programs over any number of rows make the same moves, so their sums have one order.
#[test]
fn moves_do_not_depend_on_the_number_of_rows() {
    for machine in [PLAIN, ADDING] {
        let of = |slots, tokens| moves(&spec("lolm-20m"), &Program::Step { slots, tokens }, machine);
        let first = of(1, 1);
        for (slots, tokens) in [(1, 2), (1, 64), (1, 256), (2, 16), (32, 1)] {
            assert_eq!(of(slots, tokens), first, "{slots} slots, {tokens} tokens");
        }
    }
}

#[test]
fn answers_of_models_stay() {
    for name in ["lolm-20m", "lolm-304m"] {
        for program in
            [Program::Train { batch: 2, seq: 8, noise: Noise::Random }, Program::Step { slots: 2, tokens: 2 }]
        {
            let (g, _) = raise(&build(&tiny(name, 0.0), &program).unwrap()).unwrap();
            let (out, _) = rewritten(&g, ADDING);
            assert!(concats(&out) < concats(&g));
        }
    }
}

/// Backward reads the joined streams for the gradient of the weight: there the concat stays.
#[test]
fn the_backward_pass_keeps_its_concats() {
    let (g, _) =
        raise(&build(&tiny("lolm-20m", 0.0), &Program::Train { batch: 2, seq: 8, noise: Noise::Random }).unwrap())
            .unwrap();
    let loss = g.find_output("loss.total").unwrap().value;
    let params = (0..g.leaves.len() as u32).map(LeafId).filter(|l| matches!(g.leaf(*l).kind, LeafKind::Param(_)));
    let wrt: Vec<LeafId> = params.collect();
    let g = expose_gradients(differentiate(&g, loss, &wrt).unwrap(), &wrt).unwrap();
    let (out, r) = rewritten(&g, ADDING);
    assert_eq!(concats(&out), concats(&g.sweep()), "{r}");
}
