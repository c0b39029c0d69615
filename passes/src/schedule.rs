//! Schedule: the order of the groups, and which writes happen in place.
//!
//! Before: acyclic groups. After: a topological order, the earliest operation first among those that are ready; a leaf
//! that is written in place is written after every other group has read it.
use crate::cluster::{Clusters, GroupId, GroupKind};
use lolm_ir::graph::{LeafId, Write};
use lolm_ir::{Graph, Op, ValueId};
use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Schedule {
    pub order: Vec<GroupId>,
    /// Values that are stored straight into the leaf which they become.
    pub in_place: BTreeMap<ValueId, LeafId>,
}

/// Orders the groups, or says that they wait for one another, which is a bug of the clustering.
pub fn schedule(g: &Graph, c: &Clusters) -> Result<Schedule, String> {
    let mut deps: DiGraph<GroupId, ()> = DiGraph::new();
    let nodes: Vec<NodeIndex> = (0..c.groups.len()).map(|i| deps.add_node(GroupId(i as u32))).collect();
    let mut readers: BTreeMap<LeafId, Vec<GroupId>> = BTreeMap::new();
    for (i, group) in c.groups.iter().enumerate() {
        for r in &group.reads {
            if let Op::Leaf(l) = g.node(*r).op {
                readers.entry(l).or_default().push(GroupId(i as u32));
            } else if let Some(o) = c.owner[r.0 as usize] {
                deps.update_edge(nodes[o.0 as usize], nodes[i], ());
            }
        }
    }
    let mut in_place = BTreeMap::new();
    let wanted = wanted(g);
    for w in &g.writes {
        if let Some(writer) = place_in(g, c, w, wanted[w.value.0 as usize] > 1) {
            let others: Vec<GroupId> =
                readers.get(&w.leaf).into_iter().flatten().copied().filter(|r| *r != writer).collect();
            let late = |r: &GroupId| {
                petgraph::algo::has_path_connecting(&deps, nodes[writer.0 as usize], nodes[r.0 as usize], None)
            };
            if !others.iter().any(late) && in_place.insert(w.value, w.leaf).is_none() {
                for r in others {
                    deps.update_edge(nodes[r.0 as usize], nodes[writer.0 as usize], ());
                }
            }
        }
    }
    let order = topological(&deps, c)?;
    Ok(Schedule { order, in_place })
}

/// How many outputs and leaves become each value.
fn wanted(g: &Graph) -> Vec<u32> {
    let mut n = vec![0; g.nodes.len()];
    for v in g.outputs.iter().map(|o| o.value).chain(g.writes.iter().map(|w| w.value)) {
        n[v.0 as usize] += 1;
    }
    n
}

/// The group that may write the value straight into its leaf: one that reads the leaf, if at all, where it writes it.
fn place_in(g: &Graph, c: &Clusters, w: &Write, shared: bool) -> Option<GroupId> {
    let n = g.node(w.value);
    let base = if let Op::Part(_) = n.op { n.args[0] } else { w.value };
    let id = c.owner[base.0 as usize]?;
    let group = &c.groups[id.0 as usize];
    let same_leaf = |v: &ValueId| matches!(g.node(*v).op, Op::Leaf(l) if l == w.leaf);
    match group.kind {
        GroupKind::Stream if !group.moved.iter().any(same_leaf) && !shared => Some(id),
        GroupKind::Update(u) if !shared && same_leaf(&g.node(u).args[0]) => Some(id),
        GroupKind::Fused(_) | GroupKind::Scan(_) if !shared && goes_on(g, w) => Some(id),
        _ => None,
    }
}

/// True if the value is the last state of a scan that starts from the leaf, and nothing else reads it: the kernel reads
/// each element before it writes it.
fn goes_on(g: &Graph, w: &Write) -> bool {
    let n = g.node(w.value);
    let Op::Part(1) = n.op else { return false };
    let scan = g.node(n.args[0]);
    let init = match scan.op {
        Op::SelectiveScan { .. } => scan.args.get(5),
        Op::GatedRecurrence { .. } => scan.args.get(3),
        _ => None,
    };
    let Some(init) = init.filter(|i| matches!(g.node(**i).op, Op::Leaf(l) if l == w.leaf)) else { return false };
    g.nodes.iter().flat_map(|n| &n.args).filter(|a| *a == init).count() == 1
}

fn topological(deps: &DiGraph<GroupId, ()>, c: &Clusters) -> Result<Vec<GroupId>, String> {
    let first = |n: NodeIndex| c.groups[deps[n].0 as usize].roots.first().copied();
    let mut waiting: Vec<usize> =
        deps.node_indices().map(|n| deps.neighbors_directed(n, Direction::Incoming).count()).collect();
    let mut ready: BinaryHeap<_> =
        deps.node_indices().filter(|n| waiting[n.index()] == 0).map(|n| Reverse((first(n), n))).collect();
    let mut order = vec![];
    while let Some(Reverse((_, n))) = ready.pop() {
        order.push(deps[n]);
        for next in deps.neighbors(n) {
            waiting[next.index()] -= 1;
            if waiting[next.index()] == 0 {
                ready.push(Reverse((first(next), next)));
            }
        }
    }
    if order.len() != c.groups.len() {
        return Err("bug: groups wait for one another".into());
    }
    order.retain(|id| !c.groups[id.0 as usize].roots.is_empty());
    Ok(order)
}
