//! The programs of a plain language model: tokens, an embedding, a stream of layers, a head, and the loss of its logits.
use crate::blocks::{mean_over_targets, token_loss};
use crate::cx::{Axes, Cx};
use crate::program::Program;
use lolm_ir::graph::Init;
use lolm_ir::{DType, ValueId};

/// A family whose model is a stream from tokens to logits.
pub trait LanguageModel: Sized {
    fn hidden_size(&self) -> usize;
    /// The window of attention, if every layer that attends has one.
    fn window(&self) -> Option<usize>;
    /// The name of the embedding.
    fn embedding(&self) -> &'static str;
    /// The head is the embedding.
    fn tied(&self) -> bool;
    /// From the rows of the embedding, `[b, t, d]`, to what the head maps, `[b, t, d]`.
    fn stream(cx: &mut Cx<Self>, x: ValueId) -> ValueId;
    /// What becomes of the products with the head.
    fn logits(_: &mut Cx<Self>, logits: ValueId) -> ValueId {
        logits
    }
}

/// The name of a head that is not the embedding.
const HEAD: &str = "lm_head.weight";

pub fn program<S: LanguageModel>(cx: &mut Cx<S>, program: &Program) {
    let Axes { b, t, v, .. } = cx.ax;
    let tokens = cx.input("tokens", DType::I32, &[vec![b], vec![t]]);
    cx.scope("embedding");
    let emb = embedding(cx); // [v, d]
    let x = cx.gather(emb, v, tokens); // [b, t, d]
    let o = S::stream(cx, x); // [b, t, d]
    match program {
        Program::Train { .. } => {
            let (token, targets) = losses(cx, o);
            let total = mean_over_targets(cx, b, t, token, targets);
            cx.output("loss.total", total, &[]);
            cx.output("loss.tok", total, &[]);
        }
        Program::Forward { .. } | Program::Score { .. } => {
            let logits = head(cx, o); // [b, t, v]
            cx.output("logits", logits, &[vec![b], vec![t], vec![v]]);
        }
        Program::Eval { .. } => {
            let (token, _) = losses(cx, o);
            cx.output("loss", token, &[vec![b], vec![t]]);
        }
        Program::Step { .. } => {
            let last = cx.last(o); // [b, d]
            let logits = head(cx, last); // [b, v]
            cx.output("logits", logits, &[vec![b], vec![v]]);
        }
    }
}

/// The embedding. `[v, d]`
fn embedding<S: LanguageModel>(cx: &mut Cx<S>) -> ValueId {
    let Axes { d, v, .. } = cx.ax;
    let name = cx.spec.embedding();
    cx.param(name, Init::Normal(0.02), &[vec![v], vec![d]])
}

/// The logits, with the vocabulary in place of d.
fn head<S: LanguageModel>(cx: &mut Cx<S>, o: ValueId) -> ValueId {
    cx.scope("head");
    let Axes { d, v, .. } = cx.ax;
    let map = match cx.spec.tied() {
        true => embedding(cx),
        false => cx.param(HEAD, Init::Normal(0.02), &[vec![v], vec![d]]),
    };
    let logits = cx.dot(&[d], o, map);
    S::logits(cx, logits)
}

/// The loss of each token, `[b, t]`, and the targets.
fn losses<S: LanguageModel>(cx: &mut Cx<S>, o: ValueId) -> (ValueId, ValueId) {
    let Axes { b, t, v, .. } = cx.ax;
    let logits = head(cx, o); // [b, t, v]
    let targets = cx.input("targets", DType::I32, &[vec![b], vec![t]]);
    cx.scope("loss.tok");
    (token_loss(cx, v, logits, targets), targets)
}
