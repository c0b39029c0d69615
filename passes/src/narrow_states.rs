//! Narrow states: those that are rounded to bf16 wherever they are read are stored as bf16.
//!
//! Why: where products are in bf16, attention rounds all kept keys and values before each token, which moves more memory
//! than the attention itself. Rounded once, when they are written, they are the same numbers in half the bytes.
//!
//! Before: `precision` was here, so that every rounding stands in the graph. After: each such state is a leaf of bf16, what
//! updates it is rounded, and what read it rounded reads it as it is. No result changes, to the bit.
use lolm_ir::graph::{Args, Builder, Graph, GraphError, LeafId, LeafKind, Output, Write};
use lolm_ir::op::Op;
use lolm_ir::{DType, Node, ValueId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The names of the states that can be stored as bf16: in all of these programs whoever reads them rounds them, and there
/// is someone who does.
pub fn rounded_states<'a>(programs: impl Iterator<Item = &'a Graph>) -> BTreeSet<String> {
    let (mut rounded, mut other) = (BTreeSet::new(), BTreeSet::new());
    for g in programs {
        let reads = Reads::of(g);
        let names = |leaves: &BTreeSet<LeafId>| leaves.iter().map(|l| g.leaf(*l).name.clone()).collect::<Vec<_>>();
        rounded.extend(names(&reads.rounded));
        other.extend(names(&reads.otherwise));
    }
    &rounded - &other
}

/// The states of a program by how they are read.
#[derive(Default)]
struct Reads {
    rounded: BTreeSet<LeafId>,
    otherwise: BTreeSet<LeafId>,
}

impl Reads {
    fn of(g: &Graph) -> Reads {
        let origins = origins(g, |l| matches!(l.kind, LeafKind::State { .. }));
        let origin = |v: ValueId| origins[v.0 as usize];
        let mut out = Reads::default();
        for (n, result) in g.nodes.iter().zip(&origins) {
            for l in n.args.iter().filter_map(|a| origin(*a)) {
                match n.op {
                    Op::Cast(DType::Bf16) => out.rounded.insert(l),
                    _ if *result == Some(l) => continue,
                    _ => out.otherwise.insert(l),
                };
            }
        }
        out.otherwise.extend(g.outputs.iter().filter_map(|o| origin(o.value)));
        // A state may go on as itself.
        out.otherwise.extend(g.writes.iter().filter_map(|w| origin(w.value).filter(|l| *l != w.leaf)));
        let fixed = |l: &LeafId| {
            let leaf = g.leaf(*l);
            leaf.dtype != DType::F32 || matches!(&leaf.kind, LeafKind::State { init: Some(_), .. })
        };
        out.otherwise.extend((0..g.leaves.len() as u32).map(LeafId).filter(fixed));
        out
    }
}

/// For each value the leaf of those asked for that it is made of, by views and by updates in place.
fn origins(g: &Graph, of: impl Fn(&lolm_ir::graph::Leaf) -> bool) -> Vec<Option<LeafId>> {
    let mut out: Vec<Option<LeafId>> = Vec::with_capacity(g.nodes.len());
    for n in &g.nodes {
        let first = n.args.first().and_then(|a| out[a.0 as usize]);
        out.push(match n.op {
            Op::Leaf(l) => Some(l).filter(|l| of(g.leaf(*l))),
            _ if passes_on(&n.op) => first,
            _ => None,
        });
    }
    out
}

/// True for operations that give elements of their first operand as they are, and what else they give can be rounded.
fn passes_on(op: &Op) -> bool {
    matches!(op, Op::Rename { .. } | Op::At { .. } | Op::Slice { .. } | Op::StopGradient | Op::Update { .. })
}

/// The program with these states stored as bf16.
pub fn narrow_states(g: &Graph, names: &BTreeSet<String>) -> Result<Graph, GraphError> {
    let narrowed = |l: &lolm_ir::graph::Leaf| matches!(l.kind, LeafKind::State { .. }) && names.contains(&l.name);
    let origins = origins(g, narrowed);
    let mut bare = g.bare();
    Arc::make_mut(&mut bare.leaves).iter_mut().filter(|l| narrowed(l)).for_each(|l| l.dtype = DType::Bf16);
    let mut b = Builder::extend(bare);
    let mut map: Vec<ValueId> = Vec::with_capacity(g.nodes.len());
    for (n, origin) in g.nodes.iter().zip(&origins) {
        b.set_scope(n.scope);
        let args: Args = n.args.iter().map(|a| map[a.0 as usize]).collect();
        let is_narrow = |a: &ValueId| origins[a.0 as usize].is_some();
        map.push(match n.op {
            Op::Cast(DType::Bf16) if n.args.iter().any(is_narrow) => args[0],
            _ if origin.is_some() => narrow_node(&mut b, n, args),
            _ => b.adopt(n, args),
        });
    }
    let written = |b: &mut Builder, w: &Write| {
        let value = map[w.value.0 as usize];
        match narrowed(g.leaf(w.leaf)) {
            true => b.cast(value, DType::Bf16),
            false => value,
        }
    };
    let writes = g.writes.iter().map(|w| Write { value: written(&mut b, w), ..w.clone() }).collect();
    let mut out = b.finish()?;
    out.outputs = g.outputs.iter().map(|o| Output { value: map[o.value.0 as usize], ..o.clone() }).collect();
    out.writes = writes;
    Ok(out)
}

/// A view or an update of a narrow state: what is put into it is rounded.
fn narrow_node(b: &mut Builder, n: &Node, mut args: Args) -> ValueId {
    if let (Op::Update { .. }, [_, _, x]) = (&n.op, &mut args[..]) {
        *x = b.cast(*x, DType::Bf16);
    }
    b.op(n.op.clone(), &args)
}
