//! Blocks in small operations against their formulas, computed in plain loops.
use lolm_ir::graph::{Builder, Dim};
use lolm_ir::interp::{Feeds, run};
use lolm_ir::{AxisId, DType, Op, ValueId, philox};
use lolm_models::blocks;

/// Numbers in [-1, 1), different for every name.
fn numbers(name: &str, n: usize) -> Vec<f64> {
    let seed = name.bytes().fold(7u32, |h, c| h.wrapping_mul(31).wrapping_add(c as u32));
    (0..n).map(|i| 2.0 * philox::uniform(seed, 0, 0, i as u64) as f64 - 1.0).collect()
}

struct Case {
    b: Builder,
    feeds: Feeds,
}

impl Case {
    fn new() -> Case {
        Case { b: Builder::new("blocks"), feeds: Feeds::new() }
    }
    fn input(&mut self, name: &str, axes: &[AxisId], data: &[f64]) -> ValueId {
        self.feeds.insert(name.into(), data.to_vec());
        self.b.input(name, DType::F32, &dims(axes))
    }
    fn random(&mut self, name: &str, axes: &[AxisId]) -> ValueId {
        let n = axes.iter().map(|a| self.b.graph().len(*a)).product();
        self.input(name, axes, &numbers(name, n))
    }
    fn value(self, v: ValueId, axes: &[AxisId]) -> Vec<f64> {
        let Case { mut b, feeds } = self;
        b.output("y", v, &dims(axes));
        run(&b.finish().unwrap(), &feeds).unwrap().outputs.remove("y").unwrap()
    }
}

fn dims(axes: &[AxisId]) -> Vec<Dim> {
    axes.iter().map(|a| vec![*a]).collect()
}

fn close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (x, y) in found.iter().zip(expected) {
        assert!((x - y).abs() <= tolerance * y.abs().max(1.0), "{found:?}\n{expected:?}");
    }
}

/// What a block of one element gives.
fn apply(xs: &[f64], block: fn(&mut Builder, ValueId) -> ValueId) -> Vec<f64> {
    let mut c = Case::new();
    let i = c.b.axis("i", xs.len());
    let x = c.input("x", &[i], xs);
    let y = block(&mut c.b, x);
    c.value(y, &[i])
}

const XS: [f64; 7] = [-100.0, -3.0, -0.5, 0.0, 0.25, 2.0, 100.0];

#[test]
fn gelu_tanh() {
    let formula = |x: &f64| {
        let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
        0.5 * x * (1.0 + inner.tanh())
    };
    close(&apply(&XS, blocks::gelu_tanh), &XS.iter().map(formula).collect::<Vec<_>>(), 1e-6);
}

#[test]
fn soft_cap() {
    let found = apply(&XS, |b, x| blocks::soft_cap(b, x, 30.0));
    close(&found, &XS.map(|x| 30.0 * (x / 30.0).tanh()), 1e-12);
}

/// The value of the bounded root is the root, to the last bit.
#[test]
fn sqrt_bounded() {
    let xs = [0.0, 1e-9, 2.5e-7, 1e-3, 0.5, 1.0];
    assert_eq!(apply(&xs, blocks::sqrt_bounded), xs.map(f64::sqrt));
}

#[test]
fn rms_norm() {
    let rows = numbers("x", 6);
    let weight = numbers("w", 3);
    for plus in [0.0, 1.0] {
        let mut c = Case::new();
        let (r, d) = (c.b.axis("r", 2), c.b.axis("d", 3));
        let (x, w) = (c.random("x", &[r, d]), c.random("w", &[d]));
        let gain = if plus == 0.0 { blocks::Gain::Weight(w) } else { blocks::Gain::OnePlus(w) };
        let y = blocks::rms_norm(&mut c.b, d, x, gain, 1e-3);
        let expected = rows.chunks(3).flat_map(|row| {
            let mean = row.iter().map(|x| x * x).sum::<f64>() / 3.0;
            row.iter().zip(&weight).map(move |(x, w)| x / (mean + 1e-3).sqrt() * (plus + w))
        });
        close(&c.value(y, &[r, d]), &expected.collect::<Vec<_>>(), 1e-6);
    }
}

const BATCH: usize = 2;
const STEPS: usize = 5;
const HEADS: usize = 3;
const BLOCK: usize = 5;

/// States of an RG-LRU over the given positions, from zero, in plain loops. `[b, t, h, j]`
fn rg_lru_loops(position: impl Fn(usize) -> usize) -> Vec<f64> {
    let width = HEADS * BLOCK;
    let [x, param, iw, ib, rw, rb] = ["x", "param", "iw", "ib", "rw", "rb"].map(|n| numbers(n, 1000));
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let mut out = vec![];
    for b in 0..BATCH {
        let mut state = vec![0.0; width];
        for t in 0..STEPS {
            let row = &x[(b * STEPS + t) * width..][..width];
            for w in 0..width {
                let (h, j) = (w / BLOCK, w % BLOCK);
                let gate = |map: &[f64], bias: &[f64]| {
                    let terms = (0..BLOCK).map(|k| row[h * BLOCK + k] * map[(h * BLOCK + k) * BLOCK + j]);
                    sigmoid(bias[w] + terms.sum::<f64>())
                };
                let a = (-8.0 * gate(&rw, &rb) * (1.0 + param[w].exp()).ln()).exp();
                let (a, root) = if position(t) == 0 { (0.0, 1.0) } else { (a, (1.0 - a * a).sqrt()) };
                state[w] = a * state[w] + root * row[w] * gate(&iw, &ib);
            }
            out.extend(&state);
        }
    }
    out
}

/// The same by the block and a recurrence.
fn rg_lru_block(positions: fn(&mut Builder, AxisId) -> ValueId) -> Vec<f64> {
    let mut c = Case::new();
    let [b, t, h, j, k] =
        [("b", BATCH), ("t", STEPS), ("h", HEADS), ("j", BLOCK), ("k", BLOCK)].map(|(n, l)| c.b.axis(n, l));
    let x = c.random("x", &[b, t, h, j]);
    let recurrent_param = c.random("param", &[h, j]);
    let input_gate = (c.random("iw", &[h, k, j]), c.random("ib", &[h, j]));
    let recurrent_gate = (c.random("rw", &[h, k, j]), c.random("rb", &[h, j]));
    let weights = blocks::RgLru { j, k, recurrent_param, input_gate, recurrent_gate };
    let positions = positions(&mut c.b, t);
    let (decay, drive) = blocks::rg_lru(&mut c.b, &weights, x, positions);
    let states = c.b.op(Op::Recurrence { axis: t, reverse: false }, &[decay, drive]);
    c.value(states, &[b, t, h, j])
}

#[test]
fn rg_lru() {
    close(&rg_lru_block(|b, t| b.iota(t)), &rg_lru_loops(|t| t), 1e-6);
}

/// A sequence starts anew wherever the position is 0.
#[test]
fn rg_lru_starts_anew() {
    let positions = |b: &mut Builder, t: AxisId| {
        let (here, length) = (b.iota(t), b.int(3));
        b.binary(lolm_ir::op::Binary::Rem, here, length)
    };
    close(&rg_lru_block(positions), &rg_lru_loops(|t| t % 3), 1e-6);
}
