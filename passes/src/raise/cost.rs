//! The rank cost: fused below small, without dimensions; and the choice of fused operations that pay.
use crate::egraph::extract::{self, Choice};
use crate::egraph::region::RegionError;
use crate::egraph::{EGraph, Enode, Fun};
use egg::{Id, Language};
use lolm_ir::op::Unary;
use std::collections::HashSet;

/// One rank; a node that the author did not write costs one more, so that of equals his spelling stays.
const RANK: u64 = 100;

/// The e-nodes of the graph as it was given.
pub struct Original(HashSet<Enode>);

impl Original {
    pub fn of(eg: &EGraph) -> Self {
        Original(eg.classes().flat_map(|c| c.nodes.iter().cloned()).collect())
    }
    /// The same nodes, named by the classes of now.
    pub fn now(self, eg: &EGraph) -> Self {
        Original(self.0.into_iter().map(|n| n.map_children(|c| eg.find(c))).collect())
    }
}

/// The rank of a kind; `None` for steps on the way, which are never extracted.
///
/// A fused operation that holds a contraction is a little dearer than a contraction: it pays only if something inside
/// it is not needed anyway. So the read of a memory whose weights a loss wants is not computed twice.
#[rustfmt::skip]
fn rank(fun: Fun) -> Option<u64> {
    Some(match fun {
        Fun::Visible | Fun::Age | Fun::Weights | Fun::Dropped | Fun::Taps => return None,
        Fun::Last | Fun::Union | Fun::Bit | Fun::Ring => return None,
        Fun::SqrtBounded | Fun::Capped => return None,
        Fun::Part | Fun::Iota | Fun::Rename | Fun::At | Fun::Slice | Fun::StopGradient               => 1,
        Fun::Unary(Unary::Sigmoid | Unary::Silu | Unary::Gelu | Unary::GeluTanh | Unary::Softplus)   => 2,
        Fun::Softmax | Fun::LogSumExp | Fun::LayerNorm | Fun::RmsNorm | Fun::Rope | Fun::Mix         => 2,
        Fun::CausalConv | Fun::Gather                                                                => 2,
        // The logarithm of a softmax is dearer than the difference that does not underflow.
        Fun::Unary(Unary::Log)                                                                       => 11,
        Fun::Unary(_) | Fun::Binary(_) | Fun::Select | Fun::Cast | Fun::Reduce(_) | Fun::ArgMax      => 10,
        Fun::Random | Fun::Recurrence | Fun::Pad | Fun::Stack | Fun::Concat | Fun::Shift             => 10,
        Fun::TopK | Fun::Sample | Fun::ScatterAdd | Fun::Update                                      => 10,
        Fun::Dot | Fun::RoutedDot | Fun::RoutedDotGrad                                              => 20,
        Fun::GatedRecurrence | Fun::GatedRecurrenceGrad                                              => 2,
        Fun::Attention | Fun::SelectiveScan | Fun::CrossEntropy                                      => 21,
        Fun::AttentionGrad | Fun::SelectiveScanGrad | Fun::CrossEntropyGrad                          => 21,
    })
}

fn own(original: &Original, node: &Enode) -> Option<u64> {
    let rank = rank(node.as_fun()?)?;
    Some(rank * RANK + !original.0.contains(node) as u64)
}

/// Extracts the roots; then goes back on every fused contraction whose inside is computed anyway.
pub fn choose(eg: &EGraph, roots: &[Id], original: &Original) -> Result<Choice, RegionError> {
    let cost = |_: &EGraph, _: Id, n: &Enode| own(original, n);
    let fail = || RegionError::Broken("a root cannot be extracted".into());
    let mut force = Choice::new();
    let mut choice = extract::greedy_dag(eg, &cost, &force);
    let mut best = extract::total(eg, &cost, &choice, roots).ok_or_else(fail)?;
    let parts = |choice: &Choice| -> Vec<Id> {
        let fused = |n: &Enode| {
            n.as_fun() == Some(Fun::Part)
                && choice.get(&eg.find(n.children[1])).and_then(|b| b.as_fun()).is_some_and(|f| f.is_bundle())
        };
        choice.iter().filter(|(_, n)| fused(n)).map(|(id, _)| *id).collect()
    };
    for id in parts(&choice) {
        for other in eg[id].nodes.iter().filter(|n| n.as_fun() == Some(Fun::Dot)) {
            let mut trial = force.clone();
            trial.insert(id, other.clone());
            let with = extract::greedy_dag(eg, &cost, &trial);
            if let Some(c) = extract::total(eg, &cost, &with, roots)
                && c < best
            {
                (best, choice, force) = (c, with, trial);
            }
        }
    }
    Ok(choice)
}
