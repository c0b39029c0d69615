//! Narrow: the parameters that only feed products and look-ups are stored as bf16.
//!
//! Why: a token that is generated reads every weight once, so half the bytes are nearly half the time. Sums stay in f32, and
//! so does what is not multiplied by many numbers that average its rounding out: norms, biases, decays.
//!
//! Before: programs that do not train. After: each such parameter is a leaf of dtype bf16 behind a cast to f32, in every
//! program of the artifact; the other leaves are as before.
use lolm_ir::graph::{Builder, Graph, GraphError, LeafId, LeafKind, Output, Write};
use lolm_ir::op::Op;
use lolm_ir::{DType, Node, ValueId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The names of the parameters that can be stored as bf16: products and look-ups are all that reads them, through views or
/// not, in all of these programs.
pub fn narrowable<'a>(programs: impl Iterator<Item = &'a Graph>) -> BTreeSet<String> {
    let (mut all, mut other) = (BTreeSet::new(), BTreeSet::new());
    for g in programs {
        let params = g.leaves.iter().filter(|l| matches!(l.kind, LeafKind::Param(_)) && l.dtype == DType::F32);
        all.extend(params.map(|l| l.name.clone()));
        other.extend(read_otherwise(g));
    }
    &all - &other
}

/// The leaves of which a program reads or writes more than what products and look-ups take.
fn read_otherwise(g: &Graph) -> BTreeSet<String> {
    // For each value, the leaf that it is a view of.
    let mut views: Vec<Option<LeafId>> = Vec::with_capacity(g.nodes.len());
    let mut out: BTreeSet<LeafId> = BTreeSet::new();
    for n in &g.nodes {
        let sources = || n.args.iter().map(|a| views[a.0 as usize]);
        let view = match n.op {
            Op::Leaf(l) => Some(l),
            Op::Rename { .. } | Op::At { .. } | Op::Slice { .. } | Op::StopGradient => sources().next().flatten(),
            _ => {
                out.extend(sources().enumerate().filter(|(i, _)| !multiplies(n, *i)).filter_map(|(_, l)| l));
                None
            }
        };
        views.push(view);
    }
    let kept = g.outputs.iter().map(|o| o.value).chain(g.writes.iter().map(|w| w.value));
    out.extend(kept.filter_map(|v| views[v.0 as usize]));
    out.extend(g.writes.iter().map(|w| w.leaf));
    let starts = g.leaves.iter().filter_map(|l| match &l.kind {
        LeafKind::State { init, .. } => init.clone(),
        LeafKind::Param(_) | LeafKind::Input | LeafKind::Table(_) => None,
    });
    out.iter().map(|l| g.leaf(*l).name.clone()).chain(starts).collect()
}

/// True if the operation multiplies this operand with others and sums, or looks rows of it up. What is not named here reads
/// its operands as f32.
fn multiplies(n: &Node, operand: usize) -> bool {
    match n.op {
        Op::Dot { .. } => true,
        Op::Gather { .. } => operand == 0,
        Op::CrossEntropy { .. } | Op::RoutedDot { .. } => operand == 1,
        _ => false,
    }
}

/// The program with these parameters stored as bf16.
pub fn narrow(g: &Graph, names: &BTreeSet<String>) -> Result<Graph, GraphError> {
    let mut bare = Graph { nodes: vec![], outputs: vec![], writes: vec![], ..g.clone() };
    let narrowed = |l: &lolm_ir::graph::Leaf| matches!(l.kind, LeafKind::Param(_)) && names.contains(&l.name);
    Arc::make_mut(&mut bare.leaves).iter_mut().filter(|l| narrowed(l)).for_each(|l| l.dtype = DType::Bf16);
    let mut b = Builder::extend(bare);
    let mut map: Vec<ValueId> = Vec::with_capacity(g.nodes.len());
    for n in &g.nodes {
        b.set_scope(n.scope);
        let args: Vec<ValueId> = n.args.iter().map(|a| map[a.0 as usize]).collect();
        let v = b.op(n.op.clone(), &args);
        map.push(match n.op {
            Op::Leaf(l) if narrowed(g.leaf(l)) => b.cast(v, DType::F32),
            _ => v,
        });
    }
    let mut out = b.finish()?;
    let at = |v: ValueId| map[v.0 as usize];
    out.outputs = g.outputs.iter().map(|o| Output { value: at(o.value), ..o.clone() }).collect();
    out.writes = g.writes.iter().map(|w| Write { value: at(w.value), ..w.clone() }).collect();
    Ok(out)
}
