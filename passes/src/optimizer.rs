//! AdamW as graph operations behind a backward pass: moments, clipping, and steps that are skipped whole.
//!
//! The order of operations is PyTorch's (`torch.optim.AdamW`, `clip_grad_norm_`). The corrections `1 - β^step` come from
//! the count of applied steps, which is the only state beside the moments.
use crate::differentiate::Gradients;
use lolm_ir::dtype::DType;
use lolm_ir::graph::{Builder, Graph, GraphError, LeafId, LeafKind, ScopeId, ValueId};
use lolm_ir::op::{Binary, Op, Reduction, Unary};

/// What AdamW and the guard around it are told.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AdamW {
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    /// Decoupled, on every weight.
    pub weight_decay: f64,
    /// The largest global norm of the gradient; larger ones are scaled down to it.
    pub clip: Option<f64>,
    /// A step whose loss is above this is skipped.
    pub skip_above: f64,
}

/// Adds one optimizer step for the parameters `wrt` of `loss`.
///
/// New leaves: the states `adam.m.<param>`, `adam.v.<param>` and `adam.step` (i32, applied steps so far), the input `lr`.
/// New outputs: `grad_norm` (before clipping) and `skipped` (0 or 1). A step is skipped if its loss is not finite or
/// above the limit, or if the norm is not finite: then every write, also those that the graph had, keeps the old value.
pub fn attach(gradients: Gradients, loss: ValueId, wrt: &[LeafId], adamw: &AdamW) -> Result<Graph, GraphError> {
    let Gradients { mut graph, grads } = gradients;
    let old_writes = std::mem::take(&mut graph.writes);
    let mut b = Builder::extend(graph);
    check_count(&mut b, wrt, &grads);
    let own = scopes(&mut b, wrt);
    b.scope("optimizer");
    let shared = b.current_scope();

    let squares = grads.iter().zip(&own).map(|(g, scope)| square(&mut b, *scope, *g)).collect::<Vec<_>>();
    b.set_scope(shared);
    let norm = root_of_sum(&mut b, &squares); // []
    let ok = step_counts(&mut b, loss, norm, adamw.skip_above); // []
    for w in old_writes {
        if wrt.contains(&w.leaf) {
            let name = b.graph().leaf(w.leaf).name.clone();
            b.fail(format!("parameter `{name}` is written by the program and by the optimizer"));
        }
        let old = b.op(Op::Leaf(w.leaf), &[]);
        keep_or_write(&mut b, ok, old, w.value);
    }
    let coefficient = adamw.clip.map(|clip| clip_coefficient(&mut b, norm, clip));
    let rates = Rates::new(&mut b, ok, adamw);
    for ((leaf, g), scope) in wrt.iter().zip(grads).zip(own) {
        b.set_scope(scope);
        let g = b.cast(g, DType::F32);
        let g = coefficient.map_or(g, |c| b.mul(g, c));
        update(&mut b, &rates, ok, *leaf, g, adamw);
    }

    b.set_scope(shared);
    let (zero, one) = (b.num(0.0), b.num(1.0));
    let skipped = b.select(ok, zero, one);
    b.output("grad_norm", norm, &[]);
    b.output("skipped", skipped, &[]);
    b.finish()
}

/// Adds the outputs `grad.<param>`, each with the dims of its parameter.
pub fn expose_gradients(gradients: Gradients, wrt: &[LeafId]) -> Result<Graph, GraphError> {
    let Gradients { graph, grads } = gradients;
    let mut b = Builder::extend(graph);
    check_count(&mut b, wrt, &grads);
    for (leaf, g) in wrt.iter().zip(grads) {
        let leaf = b.graph().leaf(*leaf).clone();
        b.output(&format!("grad.{}", leaf.name), g, &leaf.dims);
    }
    b.finish()
}

fn check_count(b: &mut Builder, wrt: &[LeafId], grads: &[ValueId]) {
    if wrt.len() != grads.len() {
        b.fail(format!("bug: {} gradients for {} parameters", grads.len(), wrt.len()));
    }
}

/// A scope for each parameter, so that the updates of equally shaped ones are seen to be equal.
fn scopes(b: &mut Builder, wrt: &[LeafId]) -> Vec<ScopeId> {
    let one = |leaf: &LeafId| {
        let name = format!("optimizer/{}", b.graph().leaf(*leaf).name);
        b.scope(&name);
        b.current_scope()
    };
    wrt.iter().map(one).collect()
}

/// Σ g² of one gradient.
fn square(b: &mut Builder, scope: ScopeId, g: ValueId) -> ValueId {
    b.set_scope(scope);
    let g = b.cast(g, DType::F32);
    let squared = b.mul(g, g);
    let axes = b.graph().axes_of(g);
    if axes.is_empty() { squared } else { b.op(Op::Reduce { kind: Reduction::Sum, axes }, &[squared]) }
}

/// The square root of the sum, added in order.
fn root_of_sum(b: &mut Builder, squares: &[ValueId]) -> ValueId {
    let zero = b.num(0.0);
    let total = squares.iter().fold(zero, |total, s| b.add(total, *s));
    b.unary(Unary::Sqrt, total)
}

/// True if the step is to be taken. Comparisons with NaN are false, which makes them tests for it.
fn step_counts(b: &mut Builder, loss: ValueId, norm: ValueId, skip_above: f64) -> ValueId {
    let loss = b.cast(loss, DType::F32);
    let (limit, largest) = (b.num(skip_above as f32), b.num(f32::MAX));
    let low = b.le(loss, limit);
    let size = b.unary(Unary::Abs, loss);
    let finite_loss = b.le(size, largest);
    let finite_norm = b.le(norm, largest);
    let finite = b.binary(Binary::And, finite_loss, finite_norm);
    b.binary(Binary::And, low, finite)
}

/// min(1, clip / (norm + 1e-6))
fn clip_coefficient(b: &mut Builder, norm: ValueId, clip: f64) -> ValueId {
    let (clip, margin, one) = (b.num(clip as f32), b.num(1e-6), b.num(1.0));
    let padded = b.add(norm, margin);
    let ratio = b.div(clip, padded);
    b.min(ratio, one)
}

/// The scalars of a step.
struct Rates {
    /// 1 - lr · weight_decay
    decay: ValueId,
    /// lr / (1 - β1^step)
    size: ValueId,
    /// sqrt(1 - β2^step)
    spread: ValueId,
}

impl Rates {
    /// Counts the step and computes what all parameters share.
    fn new(b: &mut Builder, ok: ValueId, adamw: &AdamW) -> Rates {
        let lr = b.input("lr", DType::F32, &[]);
        let (before, one) = (b.state("adam.step", DType::I32, &[]), b.int(1));
        let step = b.add(before, one);
        keep_or_write(b, ok, before, step);
        let step = b.cast(step, DType::F32);
        let correction1 = one_minus_power(b, adamw.beta1, step);
        let correction2 = one_minus_power(b, adamw.beta2, step);
        let (one, lost) = (b.num(1.0), b.scale(lr, adamw.weight_decay as f32));
        let decay = b.sub(one, lost);
        let size = b.div(lr, correction1);
        let spread = b.unary(Unary::Sqrt, correction2);
        Rates { decay, size, spread }
    }
}

/// 1 - β^step to the accuracy of f32: with y = step · log β, 1 - exp(y) where nothing cancels, and its series near 0.
fn one_minus_power(b: &mut Builder, beta: f64, step: ValueId) -> ValueId {
    const TERMS: usize = 10; // 0.5^10 / 11! is below 1e-10.
    let y = b.scale(step, beta.ln() as f32);
    let one = b.num(1.0);
    let power = b.exp(y);
    let far = b.sub(one, power);
    let mut series = one; // 1 + y/2 (1 + y/3 (1 + …))
    for k in (2..=TERMS).rev() {
        let part = b.scale(y, (1.0 / k as f64) as f32);
        let rest = b.mul(part, series);
        series = b.add(one, rest);
    }
    let grown = b.mul(y, series);
    let near = b.neg(grown);
    let limit = b.num(-0.5);
    let is_far = b.lt(y, limit);
    b.select(is_far, far, near)
}

/// One parameter, whose (clipped) gradient is g:
///
/// ```text
/// m = β1 m + (1 - β1) g        p = p (1 - lr decay) - lr/(1 - β1^t) · m / (sqrt(v) / sqrt(1 - β2^t) + eps)
/// v = β2 v + (1 - β2) g²
/// ```
fn update(b: &mut Builder, rates: &Rates, ok: ValueId, leaf: LeafId, g: ValueId, adamw: &AdamW) {
    let (name, dims) = (b.graph().leaf(leaf).name.clone(), b.graph().leaf(leaf).dims.clone());
    if !matches!(b.graph().leaf(leaf).kind, LeafKind::Param(_)) {
        b.fail(format!("`{name}` is not a parameter and cannot be trained"));
    }
    let p = b.op(Op::Leaf(leaf), &[]);
    let m = b.state(&format!("adam.m.{name}"), DType::F32, &dims);
    let v = b.state(&format!("adam.v.{name}"), DType::F32, &dims);

    let new_m = moving_average(b, adamw.beta1, m, g);
    let squared = b.mul(g, g);
    let new_v = moving_average(b, adamw.beta2, v, squared);

    let root = b.unary(Unary::Sqrt, new_v);
    let corrected = b.div(root, rates.spread);
    let eps = b.num(adamw.eps as f32);
    let denominator = b.add(corrected, eps);
    let direction = b.div(new_m, denominator);
    let change = b.mul(direction, rates.size);
    let decayed = b.mul(p, rates.decay);
    let new_p = b.sub(decayed, change);
    for (old, new) in [(m, new_m), (v, new_v), (p, new_p)] {
        keep_or_write(b, ok, old, new);
    }
}

/// β·old + (1 - β)·new
fn moving_average(b: &mut Builder, beta: f64, old: ValueId, new: ValueId) -> ValueId {
    let (kept, added) = (b.scale(old, beta as f32), b.scale(new, (1.0 - beta) as f32));
    b.add(kept, added)
}

fn keep_or_write(b: &mut Builder, ok: ValueId, old: ValueId, new: ValueId) {
    let value = b.select(ok, new, old);
    b.write(old, value);
}
