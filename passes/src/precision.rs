//! Precision: products take operands rounded to bf16 and add up in f32; in a program that trains, what they give is
//! rounded as well.
//!
//! Why: a GPU multiplies matrices of bf16 sixteen times as fast as those of f32, and they are half the memory. What is
//! not a product stays f32: norms, softmax, the states of scans, sums of the residual stream, losses, and the parameters
//! themselves, whose small steps bf16 would lose. So do the gradients of parameters, which the optimizer takes. So does a
//! product by which something is chosen (an expert, a code), since a choice has no error that is small.
//!
//! Before: any graph. After: the operands of every such product are `cast f32 (cast bf16 x)`. These casts are the only
//! places at which something is rounded, the same on every target. An attention is two products, and its gradient five:
//! what they read is rounded here, and weights and slopes inside of them, where they are lowered. So are a head's rows and
//! its embedding, and the gradient of its logits.
//!
//! Results are rounded where activations are kept for a backward pass, which is bound by their memory; there the points are
//! those of `torch.autocast`, but for parameters' gradients, which it rounds. A program without a backward pass is bound by
//! its weights, and keeps its results as they are.
use crate::cluster::is_contract;
use lolm_ir::axis::AxisSet;
use lolm_ir::graph::LeafKind;
use lolm_ir::graph::{Args, Builder, Graph, GraphError, Output, Write};
use lolm_ir::op::{Class, Op};
use lolm_ir::{DType, ValueId};

/// The program with its products in bf16, and what they give if it trains.
pub fn precision(g: &Graph, trains: bool) -> Result<Graph, GraphError> {
    let exact = chooses(g);
    let tokens = g
        .leaves
        .iter()
        .filter(|l| l.kind == LeafKind::Input)
        .flat_map(|l| l.dims.iter().flatten())
        .fold(AxisSet::EMPTY, |all, a| all.with(*a));
    let result = |v: ValueId| trains && !exact[v.0 as usize] && is_product(g, v) && !sums_tokens(g, v, tokens);
    rounded_where(g, &|g, v, i| !exact[v.0 as usize] && is_factor(g, v, i), &result)
}

/// The program with those operands rounded for which this holds: of this value, the one with this number; and with those
/// values rounded for which this holds.
pub fn rounded_where(
    g: &Graph,
    is_operand: &dyn Fn(&Graph, ValueId, usize) -> bool,
    is_result: &dyn Fn(ValueId) -> bool,
) -> Result<Graph, GraphError> {
    let mut b = Builder::extend(g.bare());
    let mut map: Vec<ValueId> = Vec::with_capacity(g.nodes.len());
    for v in g.ids() {
        let n = g.node(v);
        b.set_scope(n.scope);
        let mut args: Args = n.args.iter().map(|a| map[a.0 as usize]).collect();
        args.iter_mut().enumerate().filter(|(i, _)| is_operand(g, v, *i)).for_each(|(_, a)| *a = rounded(&mut b, *a));
        let x = b.adopt(n, args);
        map.push(if is_result(v) { rounded(&mut b, x) } else { x });
    }
    let mut out = b.finish()?;
    let at = |v: ValueId| map[v.0 as usize];
    out.outputs = g.outputs.iter().map(|o| Output { value: at(o.value), ..o.clone() }).collect();
    out.writes = g.writes.iter().map(|w| Write { value: at(w.value), ..w.clone() }).collect();
    Ok(out)
}

/// True for products of matrices with one result.
fn is_product(g: &Graph, v: ValueId) -> bool {
    match g.node(v).op {
        Op::Dot { .. } => is_contract(g, v),
        Op::RoutedDot { .. } => true,
        _ => false,
    }
}

/// True for a product over all tokens, as the gradient of a parameter is.
fn sums_tokens(g: &Graph, v: ValueId, tokens: AxisSet) -> bool {
    match g.node(v).op {
        Op::Dot { axes } => !axes.disjoint(tokens) && g.axes_of(v).disjoint(tokens),
        _ => false,
    }
}

/// True for operands that are multiplied as matrices.
fn is_factor(g: &Graph, v: ValueId, i: usize) -> bool {
    let n = g.node(v);
    match n.op {
        Op::Dot { .. } if is_contract(g, v) => i < 2,
        Op::RoutedDot { .. } | Op::RoutedDotGrad { .. } => i < 2,
        Op::CrossEntropy { .. } | Op::CrossEntropyGrad { .. } => i < 2,
        Op::Attention(_) => i < 3,
        // Queries, keys and values, and the gradient of the results, which comes last.
        Op::AttentionGrad(_) => i < 3 || i + 1 == n.args.len(),
        _ => false,
    }
}

/// The value rounded, and as f32 again. What several views of one value share is rounded once.
fn rounded(b: &mut Builder, v: ValueId) -> ValueId {
    let n = b.graph().node(v).clone();
    match n.op {
        Op::Rename { .. } | Op::StopGradient => {
            let x = rounded(b, n.args[0]);
            b.op(n.op, &[x])
        }
        // It is rounded already.
        Op::Cast(DType::F32) if b.graph().ty(n.args[0]).dtype == DType::Bf16 => v,
        _ => {
            let half = b.cast(v, DType::Bf16);
            b.cast(half, DType::F32)
        }
    }
}

/// Values on the way to a choice, with nothing but maps, views and reductions between.
fn chooses(g: &Graph) -> Vec<bool> {
    let mut out = vec![false; g.nodes.len()];
    for v in g.ids().rev() {
        let n = g.node(v);
        let choice = matches!(n.op, Op::ArgMax(_) | Op::TopK { .. });
        let passes_on = n.op.is_elementwise() || matches!(n.op, Op::Reduce { .. } | Op::Softmax { .. });
        let view = n.op.info().class == Class::Index;
        if choice || (out[v.0 as usize] && (passes_on || view)) {
            n.args.iter().for_each(|a| out[a.0 as usize] = true);
        }
    }
    out
}
