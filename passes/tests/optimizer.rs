//! AdamW against a plain loop, with clipping, skipped steps and the first step's correction.
use lolm_ir::dtype::DType;
use lolm_ir::graph::{Builder, Graph, Init, LeafId, ValueId};
use lolm_ir::interp::{self, Feeds};
use lolm_passes::differentiate::{Gradients, differentiate};
use lolm_passes::optimizer::{AdamW, attach, expose_gradients};

const ADAMW: AdamW =
    AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: Some(1.0), skip_above: 1000.0 };

/// Σ (w x + c - y)² over t, with w\[d\] and c\[\], and a parameter that the loss does not reach.
fn regression() -> (Gradients, ValueId, [LeafId; 3]) {
    let mut b = Builder::new("regression");
    let (t, d) = (b.axis("t", 4), b.axis("d", 2));
    let (x, y) = (b.input("x", DType::F32, &[vec![t], vec![d]]), b.input("y", DType::F32, &[vec![t]]));
    let (w, c) = (b.param("w", Init::Zeros, &[vec![d]]), b.param("c", Init::Zeros, &[]));
    b.param("unused", Init::Zeros, &[vec![d]]);
    let y_hat = b.dot(&[d], x, w);
    let y_hat = b.add(y_hat, c);
    let error = b.sub(y_hat, y);
    let squared = b.mul(error, error);
    let loss = b.sum(&[t], squared);
    b.output("loss", loss, &[]);
    let g = b.finish().unwrap();
    let wrt = ["w", "c", "unused"].map(|n| g.find_leaf(n).unwrap());
    (differentiate(&g, loss, &wrt).unwrap(), loss, wrt)
}

fn trained(adamw: &AdamW) -> Graph {
    let (gradients, loss, wrt) = regression();
    attach(gradients, loss, &wrt, adamw).unwrap()
}

const X: [f64; 8] = [0.5, -1.0, 2.0, 0.25, -0.5, 1.5, 1.0, -2.0];
const Y: [f64; 4] = [1.0, -0.5, 2.0, 0.3];

fn start() -> Feeds {
    let mut f = Feeds::new();
    for (name, data) in [("x", X.to_vec()), ("y", Y.to_vec()), ("lr", vec![0.01]), ("adam.step", vec![0.0])] {
        f.insert(name.into(), data);
    }
    for (name, data) in [("w", vec![0.3, -0.2]), ("c", vec![0.1]), ("unused", vec![1.0, -2.0])] {
        f.insert(format!("adam.m.{name}"), vec![0.0; data.len()]);
        f.insert(format!("adam.v.{name}"), vec![0.0; data.len()]);
        f.insert(name.into(), data);
    }
    f
}

/// Runs one step and writes its results back; answers with the outputs.
fn step(g: &Graph, feeds: &mut Feeds) -> std::collections::BTreeMap<String, Vec<f64>> {
    let results = interp::run(g, feeds).unwrap();
    feeds.extend(results.writes);
    results.outputs
}

/// PyTorch's AdamW on w and c together, whose gradient is known in closed form.
struct Plain {
    p: Vec<f64>,
    m: Vec<f64>,
    v: Vec<f64>,
    t: i32,
}

impl Plain {
    fn gradient(&self) -> Vec<f64> {
        let error = |t: usize| X[2 * t] * self.p[0] + X[2 * t + 1] * self.p[1] + self.p[2] - Y[t];
        let of = |f: &dyn Fn(usize) -> f64| (0..4).map(|t| 2.0 * error(t) * f(t)).sum::<f64>();
        vec![of(&|t| X[2 * t]), of(&|t| X[2 * t + 1]), of(&|_| 1.0)]
    }
    fn step(&mut self, a: &AdamW, lr: f64) -> f64 {
        let g = self.gradient();
        let norm = g.iter().map(|g| g * g).sum::<f64>().sqrt();
        let scale = a.clip.map_or(1.0, |c| (c / (norm + 1e-6)).min(1.0));
        self.t += 1;
        let (bc1, bc2) = (1.0 - a.beta1.powi(self.t), 1.0 - a.beta2.powi(self.t));
        for (i, g) in g.iter().map(|g| g * scale).enumerate() {
            self.p[i] *= 1.0 - lr * a.weight_decay;
            self.m[i] = a.beta1 * self.m[i] + (1.0 - a.beta1) * g;
            self.v[i] = a.beta2 * self.v[i] + (1.0 - a.beta2) * g * g;
            self.p[i] -= lr / bc1 * self.m[i] / (self.v[i].sqrt() / bc2.sqrt() + a.eps);
        }
        norm
    }
}

fn close(x: f64, y: f64) -> bool {
    (x - y).abs() <= 1e-6 * y.abs().max(1e-3)
}

#[test]
fn thirty_steps_follow_the_plain_loop() {
    for clip in [Some(1.0), None] {
        let adamw = AdamW { clip, ..ADAMW };
        let (g, mut feeds) = (trained(&adamw), start());
        let mut plain = Plain { p: vec![0.3, -0.2, 0.1], m: vec![0.0; 3], v: vec![0.0; 3], t: 0 };
        for t in 1..=30 {
            let outputs = step(&g, &mut feeds);
            let norm = plain.step(&adamw, 0.01);
            assert!(close(outputs["grad_norm"][0], norm), "step {t}: {} {norm}", outputs["grad_norm"][0]);
            assert_eq!(outputs["skipped"], [0.0]);
            let p = [&feeds["w"][..], &feeds["c"][..]].concat();
            let size = |p: &[f64]| p.iter().map(|x| x * x).sum::<f64>().sqrt();
            let apart: Vec<f64> = p.iter().zip(&plain.p).map(|(x, y)| x - y).collect();
            assert!(size(&apart) < 1e-6 * size(&plain.p), "step {t}: {p:?} {:?}", plain.p);
            assert_eq!(feeds["adam.step"], [t as f64]);
        }
    }
}

#[test]
fn an_unused_parameter_only_decays() {
    let (g, mut feeds) = (trained(&ADAMW), start());
    step(&g, &mut feeds);
    assert!(feeds["unused"].iter().zip([1.0, -2.0]).all(|(x, y)| close(*x, y * (1.0 - 0.01 * 0.1))));
    assert_eq!(feeds["adam.m.unused"], [0.0, 0.0]);
}

#[test]
fn a_step_whose_loss_is_not_usable_changes_nothing() {
    let g = trained(&ADAMW);
    // Nothing may change, and NaN is not equal to itself, so the states are compared as text.
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e6] {
        let mut feeds = start();
        step(&g, &mut feeds);
        feeds.get_mut("y").unwrap()[1] = bad;
        let before = feeds.clone();
        assert_eq!(step(&g, &mut feeds)["skipped"], [1.0]);
        assert_eq!(format!("{before:?}"), format!("{feeds:?}"), "with a target of {bad}");
    }
    let mut feeds = start();
    feeds.get_mut("y").unwrap()[1] = 10.0;
    assert_eq!(step(&g, &mut feeds)["skipped"], [0.0], "this one is below the limit");
}

#[test]
fn a_step_whose_gradient_is_not_finite_changes_nothing() {
    let mut b = Builder::new("root");
    let d = b.axis("d", 2);
    let w = b.param("w", Init::Zeros, &[vec![d]]);
    let count = b.state("count", DType::I32, &[]);
    let one = b.int(1);
    let next = b.add(count, one);
    b.write(count, next);
    let root = b.unary(lolm_ir::op::Unary::Sqrt, w);
    let loss = b.sum(&[d], root);
    let g = b.finish().unwrap();
    let wrt = [g.find_leaf("w").unwrap()];
    let g = attach(differentiate(&g, loss, &wrt).unwrap(), loss, &wrt, &ADAMW).unwrap();
    let leaf = |name: &str, x: &[f64]| (name.to_string(), x.to_vec());
    let zeros = [0.0, 0.0];
    let mut feeds: Feeds = [
        leaf("w", &[0.0, 4.0]),
        leaf("adam.m.w", &zeros),
        leaf("adam.v.w", &zeros),
        leaf("adam.step", &[0.0]),
        leaf("count", &[5.0]),
        leaf("lr", &[0.1]),
    ]
    .into();
    let before = feeds.clone();
    assert_eq!(step(&g, &mut feeds)["skipped"], [1.0]);
    assert_eq!(before, feeds, "states of the program are kept too");
    feeds.insert("w".into(), vec![1.0, 4.0]);
    assert_eq!(step(&g, &mut feeds)["skipped"], [0.0]);
    assert_eq!((feeds["count"][0], feeds["adam.step"][0]), (6.0, 1.0));
}

/// One element with a gradient of 1 from the start has m = 1 - β1^t and v = 1 - β2^t, so its step is lr whatever t is.
#[test]
fn the_correction_is_exact_at_every_step() {
    let mut b = Builder::new("slope");
    let w = b.param("w", Init::Zeros, &[]);
    let loss = b.scale(w, 1.0);
    let g = b.finish().unwrap();
    let wrt = [g.find_leaf("w").unwrap()];
    let adamw = AdamW { beta1: 0.9, beta2: 0.999, eps: 0.0, weight_decay: 0.0, clip: None, skip_above: 1000.0 };
    let g = attach(differentiate(&g, loss, &wrt).unwrap(), loss, &wrt, &adamw).unwrap();
    for t in [1, 2, 4, 5, 6, 7, 100, 499, 501, 10_000] {
        let (m, v) = (1.0 - 0.9f64.powi(t - 1), 1.0 - 0.999f64.powi(t - 1));
        let leaf = |name: &str, x: f64| (name.to_string(), vec![x]);
        let mut feeds: Feeds = [
            leaf("w", 0.0),
            leaf("adam.m.w", m),
            leaf("adam.v.w", v),
            leaf("adam.step", t as f64 - 1.0),
            leaf("lr", 1.0),
        ]
        .into();
        step(&g, &mut feeds);
        assert!((feeds["w"][0] + 1.0).abs() < 1e-6, "step {t} moves by {}", feeds["w"][0]);
    }
}

#[test]
fn gradients_come_out_with_the_dims_of_their_parameters() {
    let mut b = Builder::new("order");
    let (t, d, e) = (b.axis("t", 2), b.axis("d", 3), b.axis("e", 2));
    let x = b.input("x", DType::F32, &[vec![t], vec![d]]);
    let w = b.param("w", Init::Zeros, &[vec![e], vec![d]]);
    let y = b.dot(&[d], x, w);
    let j = b.iota(e);
    let j = b.cast(j, DType::F32);
    let y = b.mul(y, j);
    let loss = b.sum(&[t, e], y);
    let g = b.finish().unwrap();
    let wrt = [g.find_leaf("w").unwrap()];
    let g = expose_gradients(differentiate(&g, loss, &wrt).unwrap(), &wrt).unwrap();
    assert_eq!(g.find_output("grad.w").unwrap().dims, g.leaf(wrt[0]).dims);
    let feeds = [("x".to_string(), vec![1.0, 2.0, 3.0, 10.0, 20.0, 30.0]), ("w".to_string(), vec![0.0; 6])]
        .into_iter()
        .collect();
    let out = interp::run(&g, &feeds).unwrap().outputs;
    assert_eq!(out["grad.w"], [0.0, 0.0, 0.0, 11.0, 22.0, 33.0]);
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let (gradients, loss, wrt) = regression();
    let fewer = attach(gradients.clone(), loss, &wrt[..2], &ADAMW).unwrap_err();
    assert!(fewer.to_string().contains("3 gradients for 2 parameters"), "{fewer}");
    let mut written = gradients;
    written.graph.writes.push(lolm_ir::graph::Write { leaf: wrt[1], value: loss });
    let twice = attach(written, loss, &wrt, &ADAMW).unwrap_err();
    assert!(twice.to_string().contains("`c` is written by the program and by the optimizer"), "{twice}");
}
