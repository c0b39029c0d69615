//! The programs of a LOLM: functions of the spec and a shape.
use super::Cx;
use super::decoder::{decoder, tok_emb};
use super::gate::{Paths, fuse, gate};
use super::losses::{argmax, losses, mean_gate, memory_entropy};
use super::memory::memory;
use super::regime::{Noise, regime};
use super::ssm::ssm;
use crate::blocks::{one_hot, token_loss};
use crate::cx::Axes;
use crate::program::{BuildError, Program};
use crate::spec::{LolmSpec, Spec};
use lolm_ir::{DType, Graph, Op, ValueId};

/// Bins of the histogram of gate values over [0, 1].
pub const HISTOGRAM_BINS: usize = 20;

/// The graph of a program.
pub fn build(spec: &Spec, lolm: &LolmSpec, program: &Program) -> Result<Graph, BuildError> {
    let len = program.lengths(spec, lolm.d_model, spec.max_seq_len);
    let mut cx = Cx::new(program.name(), lolm, len, program.goes_on());
    match program {
        Program::Train { noise, .. } => train(&mut cx, *noise),
        Program::Forward { forced_gate, .. } => forward(&mut cx, *forced_gate),
        Program::Eval { .. } => eval(&mut cx),
        Program::Step { .. } => step(&mut cx, false),
        Program::Score { .. } => step(&mut cx, true),
    }
    Ok(cx.into_builder().finish()?)
}

/// What the model gives before the head.
struct Model {
    paths: Paths,
    /// `[b, t, d]`
    gate: Option<ValueId>,
    /// `[b, t, d]`
    o: ValueId,
}

/// `i32[b,t]` under this name.
fn ids(cx: &mut Cx, name: &str) -> ValueId {
    let Axes { b, t, .. } = cx.ax;
    cx.input(name, DType::I32, &[vec![b], vec![t]])
}

/// The model from its tokens to the fused o.
fn model(cx: &mut Cx, noise: Option<Noise>, forced_gate: bool) -> Model {
    let tokens = ids(cx, "tokens");
    let spec = cx.spec;
    let h = decoder(cx, tokens); // [b, t, d]
    let z = spec.ssm.as_ref().map(|s| ssm(cx, s, h)); // [b, t, d]
    let memory = spec.memory.as_ref().map(|s| memory(cx, s, h));
    let regime = spec.regime.as_ref().map(|s| {
        let streams: Vec<ValueId> = [z, Some(h), memory.map(|m| m.read)].into_iter().flatten().collect();
        regime(cx, s, &streams, noise)
    });
    let paths = Paths { h, z, memory, regime };
    let gate = spec.gate.as_ref().map(|s| gate(cx, s, &paths, forced_gate)); // [b, t, d]
    let o = fuse(cx, &paths, gate); // [b, t, d]
    Model { paths, gate, o }
}

/// `o · tok_embᵀ`, over the vocabulary.
fn head(cx: &mut Cx, o: ValueId) -> ValueId {
    cx.scope("head");
    let (d, emb) = (cx.ax.d, tok_emb(cx));
    cx.dot(&[d], o, emb)
}

fn train(cx: &mut Cx, noise: Noise) {
    cx.dropout = (cx.spec.dropout > 0.0).then_some(cx.spec.dropout as f32);
    let m = model(cx, Some(noise), false);
    let logits = head(cx, m.o); // [b, t, v]
    let targets = ids(cx, "targets");
    cx.scope("loss.tok");
    let v = cx.ax.v;
    let token = token_loss(cx, v, logits, targets); // [b, t]
    let losses = losses(cx, &m.paths, m.gate, token, targets);
    cx.output("loss.total", losses.total, &[]);
    for (part, value) in losses.parts {
        cx.output(&format!("loss.{part}"), value, &[]);
    }
    if let Some(g) = m.gate {
        let mean = mean_gate(cx, g);
        cx.output("gate.mean", mean, &[]);
    }
}

fn forward(cx: &mut Cx, forced_gate: bool) {
    let Axes { b, t, d, v, .. } = cx.ax;
    let m = model(cx, None, forced_gate);
    let logits = head(cx, m.o); // [b, t, v]
    let mut rows = |name, value, axis| cx.output(name, value, &[vec![b], vec![t], vec![axis]]);
    rows("logits", logits, v);
    rows("h", m.paths.h, d);
    if let Some(z) = m.paths.z {
        rows("z", z, d);
    }
    if let Some(memory) = m.paths.memory {
        rows("mem_read", memory.read, d);
        rows("mem_attn", memory.attn, memory.m);
    }
    if let Some(regime) = m.paths.regime {
        rows("regime_probs", regime.probs, regime.codes);
    }
    if let Some(gate) = m.gate {
        rows("gate", gate, d);
    }
}

fn eval(cx: &mut Cx) {
    let Axes { b, t, d, v, .. } = cx.ax;
    let m = model(cx, None, true);
    let logits = head(cx, m.o); // [b, t, v]
    let targets = ids(cx, "targets");
    cx.scope("loss.tok");
    let loss = token_loss(cx, v, logits, targets); // [b, t]
    cx.output("loss", loss, &[vec![b], vec![t]]);
    if let Some(g) = m.gate {
        cx.scope("eval.gate");
        let mean = cx.mean(&[b, t], g); // [d]
        cx.output("gate.mean", mean, &[vec![d]]);
        histogram(cx, g);
    }
    if let Some(regime) = &m.paths.regime {
        cx.scope("eval.regime");
        let code = argmax(cx, regime); // i32[b, t]
        let hot = one_hot(cx, regime.codes, code); // [b, t, o]
        let usage = cx.sum(&[b, t], hot); // [o]
        cx.output("regime.usage", usage, &[vec![regime.codes]]);
    }
    if let Some(memory) = &m.paths.memory {
        let entropy = memory_entropy(cx, memory);
        cx.output("memory.entropy", entropy, &[]);
    }
}

/// How often each feature's gate falls in each of the bins; 1 belongs to the last.
fn histogram(cx: &mut Cx, g: ValueId) {
    let Axes { b, t, d, .. } = cx.ax;
    let bins = cx.axis("bins", HISTOGRAM_BINS);
    let place = cx.scale(g, HISTOGRAM_BINS as f32);
    let place = cx.cast(place, DType::I32); // i32[b, t, d]
    let last = cx.int(HISTOGRAM_BINS as i32 - 1);
    let place = cx.min(place, last);
    let hot = one_hot(cx, bins, place); // [b, t, d, bins]
    let counts = cx.sum(&[b, t], hot); // [d, bins]
    cx.output("gate.histogram", counts, &[vec![d], vec![bins]]);
}

/// Tokens that go on from states; with the logits of the last one, or of `all`.
fn step(cx: &mut Cx, all: bool) {
    let Axes { b, t, d, v, .. } = cx.ax;
    let m = model(cx, None, true);
    if all {
        let logits = head(cx, m.o); // [b, t, v]
        cx.output("logits", logits, &[vec![b], vec![t], vec![v]]);
    } else {
        let last = cx.last(m.o); // [b, d]
        let logits = head(cx, last); // [b, v]
        cx.output("logits", logits, &[vec![b], vec![v]]);
    }
    if let Some(gate) = m.gate {
        cx.output("gate", gate, &[vec![b], vec![t], vec![d]]);
    }
    if let Some(regime) = &m.paths.regime {
        let code = argmax(cx, regime); // i32[b, t]
        cx.output("regime", code, &[vec![b], vec![t]]);
    }
    if let Some(memory) = &m.paths.memory {
        cx.scope("memory.focus");
        let entry = cx.op(Op::ArgMax(memory.m), &[memory.attn]); // i32[b, t]
        let weight = cx.reduce_max(&[memory.m], memory.attn); // [b, t]
        cx.output("memory.entry", entry, &[vec![b], vec![t]]);
        cx.output("memory.weight", weight, &[vec![b], vec![t]]);
    }
}
