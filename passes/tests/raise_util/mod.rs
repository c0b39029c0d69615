//! What the tests of raising share: random data for a graph, and the comparison of two graphs by the interpreter.
#![allow(dead_code)]
use lolm_ir::graph::LeafKind;
use lolm_ir::interp::{Feeds, Results, run};
use lolm_ir::op::Unary;
use lolm_ir::verify::verify;
use lolm_ir::{AxisId, Builder, DType, Graph, ValueId};
use lolm_models::spec::library;
use lolm_models::{Family, Spec};
use lolm_passes::raise::{RaiseReport, raise};

/// A small deterministic generator (xorshift).
pub struct Draw(u64);

impl Draw {
    pub fn new(seed: u64) -> Self {
        Draw(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    pub fn below(&mut self, n: u64) -> u64 {
        (self.bits() >> 11) % n
    }
    /// Uniform in (-1.5, 1.5), never close to zero, so that divisions are tame.
    pub fn number(&mut self) -> f64 {
        let x = (self.bits() >> 11) as f64 / (1u64 << 53) as f64;
        if self.bits() >> 63 == 0 { 0.1 + 1.4 * x } else { -0.1 - 1.4 * x }
    }
}

/// Random contents for every leaf; integers are below 3, and targets (by name) -1, 0 or 1.
pub fn feeds(g: &Graph, seed: u64) -> Feeds {
    let mut d = Draw::new(seed);
    let mut out = Feeds::new();
    for l in g.leaves.iter() {
        if matches!(l.kind, LeafKind::Table(_)) {
            continue;
        }
        let n = l.shape(g).iter().product::<usize>();
        let low = l.name.contains("target") as u8;
        let value = |d: &mut Draw| match l.dtype {
            DType::F32 | DType::Bf16 => d.number(),
            DType::I32 => d.below(3) as f64 - low as f64,
            DType::Bool => d.below(2) as f64,
        };
        out.insert(l.name.clone(), (0..n).map(|_| value(&mut d)).collect());
    }
    out
}

/// An output this small, of operands near 1, is zero but for the rounding of f64, such as the slope of a softmax of one
/// element: how far two roundings of zero are apart says nothing.
const ZERO: f64 = 1e-10;

/// The largest relative distance ‖a - b‖ / ‖b‖ over all outputs and writes; infinite where one is NaN and the other not.
pub fn gap(a: &Results, b: &Results) -> f64 {
    let both = a.outputs.iter().chain(&a.writes).zip(b.outputs.iter().chain(&b.writes));
    let mut worst: f64 = 0.0;
    for ((name, x), (other, y)) in both {
        assert_eq!(name, other);
        assert_eq!(x.len(), y.len());
        let square = |it: &mut dyn Iterator<Item = f64>| it.map(|v| v * v).sum::<f64>().sqrt();
        let equal = |x: f64, y: f64| x == y || (x.is_nan() && y.is_nan());
        let distance = square(&mut x.iter().zip(y).map(|(x, y)| if equal(*x, *y) { 0.0 } else { x - y }));
        let size = square(&mut y.iter().map(|y| if y.is_finite() { *y } else { 0.0 }));
        let relative = distance / size.max(ZERO);
        worst = worst.max(if relative.is_nan() { f64::INFINITY } else { relative });
    }
    worst
}

/// Raises a graph and checks that its answers stay within the tolerance.
pub fn raised_within(g: &Graph, tolerance: f64) -> (Graph, RaiseReport) {
    let (out, report) = raise(g).unwrap();
    verify(&out).unwrap();
    for seed in 1..3 {
        let feeds = feeds(g, seed);
        let worst = gap(&run(&out, &feeds).unwrap(), &run(g, &feeds).unwrap());
        assert!(worst <= tolerance, "@{}: raising changed the answer by {worst:e}\n{report}", g.name);
    }
    (out, report)
}

/// The same, to rounding in f64.
pub fn raised(g: &Graph) -> (Graph, RaiseReport) {
    raised_within(g, 1e-9)
}

/// One value as the only output.
pub fn finish(mut b: Builder, y: ValueId) -> Graph {
    let dims: Vec<Vec<AxisId>> = b.graph().axes_of(y).iter().map(|a| vec![a]).collect();
    b.output("y", y, &dims);
    b.finish().unwrap()
}

/// `2 softmax, 1 gelu` of the raised graph and its residue after a bar.
pub fn summary(r: &RaiseReport) -> String {
    let list = |m: std::collections::BTreeMap<&str, usize>| {
        m.iter().map(|(k, n)| format!("{n} {k}")).collect::<Vec<_>>().join(", ")
    };
    match list(r.residues()) {
        rest if rest.is_empty() => list(r.totals()),
        rest => format!("{} | {rest}", list(r.totals())),
    }
}

/// A builder with the axes b=2 t=4 d=4, and an input x over them.
pub struct Start {
    pub b: Builder,
    pub d: AxisId,
    pub x: ValueId,
}

pub fn start(name: &str) -> Start {
    let mut b = Builder::new(name);
    let (ab, t, d) = (b.axis("b", 2), b.axis("t", 4), b.axis("d", 4));
    let x = b.input("x", DType::F32, &[vec![ab], vec![t], vec![d]]);
    Start { b, d, x }
}

/// The mean and the centred x, with the mean in one of three spellings.
pub fn centred(b: &mut Builder, d: AxisId, x: ValueId, style: usize) -> ValueId {
    let m = match style % 3 {
        0 => b.mean(&[d], x),
        1 => {
            let s = b.sum(&[d], x);
            b.scale(s, 0.25)
        }
        _ => {
            let (s, n) = (b.sum(&[d], x), b.num(4.0));
            b.div(s, n)
        }
    };
    b.sub(x, m)
}

/// x / sqrt(mean x² + eps), in one of four spellings.
pub fn rms(b: &mut Builder, d: AxisId, x: ValueId, style: usize) -> ValueId {
    let sq = if style.is_multiple_of(2) {
        let q = b.mul(x, x);
        b.mean(&[d], q)
    } else {
        let q = b.dot(&[d], x, x);
        b.scale(q, 0.25)
    };
    let eps = b.num(1e-5);
    let v = b.add(sq, eps);
    if style < 2 {
        let r = b.unary(Unary::Rsqrt, v);
        b.mul(r, x)
    } else {
        let r = b.unary(Unary::Sqrt, v);
        b.div(x, r)
    }
}

/// A model of every part, small enough for the interpreter.
pub fn tiny(name: &str, dropout: f64) -> Spec {
    let mut spec = Spec { vocab_size: 5, max_seq_len: 8, ..library(name).unwrap().unwrap() };
    let Family::Lolm(s) = &mut spec.family else { panic!("{name} is no LOLM") };
    (s.d_model, s.n_heads, s.n_layers, s.d_ff, s.dropout) = (8, 2, 2, 8, dropout);
    if let Some(m) = &mut s.memory {
        (m.n_slots, m.slot_dim, m.n_chunks) = (4, 4, m.n_chunks.min(2));
    }
    if let Some(x) = &mut s.ssm {
        (x.n_layers, x.d_state) = (2, 4);
    }
    if let Some(r) = &mut s.regime {
        (r.n_codes, r.d_regime) = (4, 4);
    }
    if let Some(g) = &mut s.gate {
        g.d_regime = 4;
    }
    (s.loss.future_window, s.loss.cpc_proj_dim, s.loss.cpc_max_positions) = (2, 4, 8);
    spec
}
