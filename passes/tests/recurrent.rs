//! RG-LRU from its block to one operation: what raising finds, its gradient, and steps that go on from a state.
use lolm_ir::graph::{Builder, Dim, Graph, Init, LeafId, LeafKind};
use lolm_ir::interp::{Feeds, run};
use lolm_ir::{AxisId, DType, Op, ValueId};
use lolm_models::blocks;
use lolm_passes::differentiate::differentiate;
use lolm_passes::optimizer::expose_gradients;
use lolm_passes::raise::raise;

mod raise_util;
use raise_util::{feeds, gap, raised_within, summary};

fn dims(axes: &[AxisId]) -> Vec<Dim> {
    axes.iter().map(|a| vec![*a]).collect()
}

const BATCH: usize = 2;
const HEADS: usize = 3;
const BLOCK: usize = 5;

/// An RG-LRU over `tokens`, with every float a parameter; from position 0, or from a position and a state.
fn program(tokens: usize, going_on: bool) -> Graph {
    let mut b = Builder::new("rg_lru");
    let lengths = [("b", BATCH), ("t", tokens), ("h", HEADS), ("j", BLOCK), ("k", BLOCK)];
    let [batch, t, h, j, k] = lengths.map(|(n, l)| b.axis(n, l));
    let param = |b: &mut Builder, name: &str, axes: &[AxisId]| b.param(name, Init::Zeros, &dims(axes));
    let x = param(&mut b, "x", &[batch, t, h, j]);
    let weights = blocks::RgLru {
        j,
        k,
        recurrent_param: param(&mut b, "recurrent_param", &[h, j]),
        input_gate: (param(&mut b, "iw", &[h, k, j]), param(&mut b, "ib", &[h, j])),
        recurrent_gate: (param(&mut b, "rw", &[h, k, j]), param(&mut b, "rb", &[h, j])),
    };
    let here = b.iota(t);
    let op = Op::Recurrence { axis: t, reverse: false };
    let y = if going_on {
        let pos = b.input("pos", DType::I32, &dims(&[batch]));
        let positions = b.add(pos, here);
        let (decay, drive) = blocks::rg_lru(&mut b, &weights, x, positions);
        let before = b.state("state", DType::F32, &dims(&[batch, h, j]));
        let y = b.op(op, &[decay, drive, before]);
        let after = b.at(y, t, tokens - 1);
        b.write(before, after);
        y
    } else {
        let (decay, drive) = blocks::rg_lru(&mut b, &weights, x, here);
        b.op(op, &[decay, drive])
    };
    b.output("y", y, &dims(&[batch, t, h, j]));
    b.finish().unwrap()
}

#[test]
fn the_block_is_one_recurrence() {
    for (tokens, going_on) in [(7, false), (7, true), (1, true)] {
        let (_, r) = raised_within(&program(tokens, going_on), 1e-6);
        assert_eq!(summary(&r), "1 gated_recurrence, 2 sigmoid, 1 softplus", "{r}");
    }
}

/// Chunks of any size, each from the state that the one before it left, give what the whole sequence gives.
#[test]
fn steps_go_on_where_the_last_one_stopped() {
    let whole = program(7, false);
    let all = feeds(&whole, 5);
    let want = run(&whole, &all).unwrap().outputs.remove("y").unwrap();
    let width = HEADS * BLOCK;
    for chunks in [vec![1; 7], vec![3, 4], vec![2, 1, 4]] {
        let mut state = vec![9.0; BATCH * width]; // whatever the last sequence left: position 0 forgets it
        let mut at = 0;
        for n in chunks {
            let (step, _) = raise(&program(n, true)).unwrap();
            let mut feeds = all.clone();
            let row = |b: usize| &all["x"][(b * 7 + at) * width..][..n * width];
            feeds.insert("x".into(), (0..BATCH).flat_map(row).copied().collect());
            feeds.insert("pos".into(), vec![at as f64; BATCH]);
            feeds.insert("state".into(), state);
            let mut out = run(&step, &feeds).unwrap();
            let found = &out.outputs["y"];
            for b in 0..BATCH {
                let want = &want[(b * 7 + at) * width..][..n * width];
                let apart = found[b * n * width..][..n * width].iter().zip(want).map(|(x, y)| (x - y).abs());
                assert!(apart.fold(0.0, f64::max) < 1e-12, "tokens {at} to {}", at + n);
            }
            state = out.writes.remove("state").unwrap();
            at += n;
        }
    }
}

/// The gradients of all parameters of Σ y·along, by the interpreter.
fn gradients(g: &Graph, feeds: &Feeds) -> lolm_ir::interp::Results {
    let mut b = Builder::extend(g.clone());
    let y = g.find_output("y").unwrap();
    let along = b.input("along", DType::F32, &y.dims);
    let axes: Vec<AxisId> = g.axes_of(y.value).iter().collect();
    let loss = b.dot(&axes, y.value, along);
    let g = b.finish().unwrap();
    let is_param = |l: &LeafId| matches!(g.leaf(*l).kind, LeafKind::Param(_));
    let wrt: Vec<LeafId> = (0..g.leaves.len() as u32).map(LeafId).filter(is_param).collect();
    let exposed = expose_gradients(differentiate(&g, loss, &wrt).unwrap(), &wrt).unwrap();
    let mut feeds = feeds.clone();
    let n = g.elements(g.axes_of(y.value));
    feeds.insert("along".into(), (0..n).map(|i| ((i * 7 % 11) as f64 - 5.0) / 5.0).collect());
    run(&exposed, &feeds).unwrap()
}

/// The fused gradient is that of the small operations, where the root is steep too: a decay so close to 1 that the slope
/// has reached its bound.
#[test]
fn its_gradient_is_that_of_the_small_operations() {
    let small = program(6, false);
    let (fused, _) = raise(&small).unwrap();
    for shift in [0.0, -14.0, -20.0] {
        let mut feeds = feeds(&small, 3);
        feeds.get_mut("recurrent_param").unwrap().iter_mut().for_each(|x| *x += shift);
        let worst = gap(&gradients(&fused, &feeds), &gradients(&small, &feeds));
        assert!(worst < 1e-6, "at {shift}: {worst:e}");
    }
}

/// `1/√max(4x, 1e-6)`, by the formula: differences would find the slope of the root, which has no bound.
#[test]
fn the_root_has_a_bounded_slope() {
    let xs = [0.0, 1e-12, 1e-7, 2.4e-7, 2.6e-7, 1e-3, 0.25, 1.0];
    let mut b = Builder::new("root");
    let i = b.axis("i", xs.len());
    let x = b.param("x", Init::Zeros, &dims(&[i]));
    let y: ValueId = blocks::sqrt_bounded(&mut b, x);
    b.output("y", y, &dims(&[i]));
    let g = b.finish().unwrap();
    let feeds = Feeds::from([("x".to_string(), xs.to_vec())]);
    let along = |i: usize| ((i * 7 % 11) as f64 - 5.0) / 5.0;
    let found = gradients(&g, &feeds).outputs.remove("grad.x").unwrap();
    for (n, (x, found)) in xs.iter().zip(found).enumerate() {
        let expected = along(n) / (4.0 * x).max(1e-6f32 as f64).sqrt();
        assert!((found - expected).abs() <= 1e-9 * expected.abs(), "at {x}: {found}, expected {expected}");
    }
}
