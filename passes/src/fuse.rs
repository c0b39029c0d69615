//! Fuse: groups that work on the same tiles share a launch.
//!
//! Before: one group a matrix product and one a head's loss. After: a product whose result is used row by row is computed
//! in its user's launch, tile by tile, while the tile is in the cache; a head's loss is computed where its gradient is,
//! from the same logits. The group graph stays acyclic.
//!
//! For a GPU (`fuse_epilogues`): a product whose result one elementwise group reads, element by element, is computed in
//! that group's kernel, so that the result itself is never written; heads as on the CPU.
use crate::cluster::{Clusters, Group, GroupId, GroupKind, view_base};
use lolm_ir::axis::AxisSet;
use lolm_ir::{Graph, Op, ValueId};
use std::collections::BTreeSet;

/// Rows below which tiles of rows do not keep every thread at work.
const FUSED_ROWS: usize = 1024;

pub fn fuse(g: &Graph, c: &mut Clusters) {
    fuse_heads(g, c);
    let mut readers = Readers::of(g, c);
    let given = given(g);
    for v in g.ids().filter(|v| matches!(g.node(*v).op, Op::Dot { .. }) && !given[v.0 as usize]) {
        fuse_product(g, c, &mut readers, v);
    }
}

/// Products join the groups that go on with their results; a kernel has one product.
pub fn fuse_epilogues(g: &Graph, c: &mut Clusters) {
    fuse_heads(g, c);
    let readers = Readers::of(g, c);
    let given = given(g);
    for v in g.ids().filter(|v| matches!(g.node(*v).op, Op::Dot { .. }) && !given[v.0 as usize]) {
        let users: Vec<GroupId> = readers.0[v.0 as usize].iter().copied().collect();
        let own = c.owner[v.0 as usize].filter(|id| c.groups[id.0 as usize].kind == GroupKind::Contract(v));
        if let (Some(from), [to]) = (own, users.as_slice())
            && goes_on(g, c, *to, v)
        {
            let f = &mut c.groups[from.0 as usize];
            f.roots.clear();
            let (reads, moved) = (std::mem::take(&mut f.reads), std::mem::take(&mut f.moved));
            let t = &mut c.groups[to.0 as usize];
            t.reads.remove(&v);
            t.reads.extend(reads);
            t.moved.extend(moved);
            t.products.push((v, t.rows));
            c.owner[v.0 as usize] = None;
        }
    }
}

/// True for an elementwise group over the product's own elements.
fn goes_on(g: &Graph, c: &Clusters, id: GroupId, v: ValueId) -> bool {
    let group = &c.groups[id.0 as usize];
    let rows = g.axes_of(v);
    let same = group.rows == rows && group.inner.is_empty() && group.roots.iter().all(|r| g.axes_of(*r) == rows);
    group.kind == GroupKind::Stream && same && group.products.is_empty() && !group.moved.contains(&v)
}

fn fuse_heads(g: &Graph, c: &mut Clusters) {
    for v in g.ids().filter(|v| matches!(g.node(*v).op, Op::CrossEntropyGrad { .. })) {
        fuse_head(g, c, v);
    }
}

/// The values that the graph gives away.
fn given(g: &Graph) -> Vec<bool> {
    let mut given = vec![false; g.nodes.len()];
    for v in g.outputs.iter().map(|o| o.value).chain(g.writes.iter().map(|w| w.value)) {
        given[v.0 as usize] = true;
    }
    given
}

/// For each value, the groups that read it.
struct Readers(Vec<BTreeSet<GroupId>>);

impl Readers {
    fn of(g: &Graph, c: &Clusters) -> Self {
        let mut all = vec![BTreeSet::new(); g.nodes.len()];
        for (i, group) in c.groups.iter().enumerate() {
            for r in &group.reads {
                all[r.0 as usize].insert(GroupId(i as u32));
            }
        }
        Readers(all)
    }
}

/// The loss and its gradient become one group, if nothing that the gradient waits for needs the loss.
fn fuse_head(g: &Graph, c: &mut Clusters, grad: ValueId) {
    let args = &g.node(grad).args;
    let loss = match g.node(args[3]).op {
        Op::Part(1) => g.node(args[3]).args[0],
        _ => return,
    };
    let same = matches!(g.node(loss).op, Op::CrossEntropy { .. }) && g.node(loss).args[..3] == args[..3];
    let (Some(from), Some(to)) = (c.owner[loss.0 as usize], c.owner[grad.0 as usize]) else { return };
    // Another gradient may have taken the loss already, and what flows back may be made of the loss itself.
    let own = c.groups[from.0 as usize].kind == GroupKind::Fused(loss);
    let direct = view_base(g, args[4]) == loss || g.node(view_base(g, args[4])).args.first() == Some(&loss);
    if !same || !own || direct {
        return;
    }
    c.groups[to.0 as usize].reads.remove(&loss);
    if c.reaches(from, to) {
        set_apart(g, c, from, args[4]);
    }
    if c.reaches(from, to) {
        c.groups[to.0 as usize].reads.insert(loss);
        return;
    }
    let moved = std::mem::take(&mut c.groups[from.0 as usize].roots);
    c.groups[from.0 as usize].reads.clear();
    c.groups[to.0 as usize].roots.extend(&moved);
    c.owner[loss.0 as usize] = Some(to);
}

/// What `v` is made of leaves the groups of scalars that wait for `from`, if it does not wait for it itself: the number of
/// targets, by which a loss is divided, is computed beside that loss.
fn set_apart(g: &Graph, c: &mut Clusters, from: GroupId, v: ValueId) {
    let sources = sources(g, v);
    if sources.iter().any(|s| c.owner[s.0 as usize] == Some(from)) {
        return;
    }
    for n in 0..c.groups.len() {
        let (id, group) = (GroupId(n as u32), &c.groups[n]);
        let (apart, rest): (BTreeSet<ValueId>, BTreeSet<ValueId>) =
            group.roots.iter().partition(|r| sources.contains(r));
        let scalars = group.kind == GroupKind::Stream && group.rows.is_empty() && group.products.is_empty();
        if scalars && !apart.is_empty() && !rest.is_empty() && c.reaches(from, id) {
            let new = GroupId(c.groups.len() as u32);
            apart.iter().for_each(|r| c.owner[r.0 as usize] = Some(new));
            c.groups.push(part(g, c, &c.groups[n], apart));
            c.groups[n] = part(g, c, &c.groups[n], rest);
        }
    }
}

/// A group that makes some roots of another.
fn part(g: &Graph, c: &Clusters, of: &Group, roots: BTreeSet<ValueId>) -> Group {
    let (mut seen, mut reads, mut walked) = (BTreeSet::new(), BTreeSet::new(), AxisSet::EMPTY);
    let mut open: Vec<ValueId> = roots.iter().flat_map(|r| g.node(*r).args.iter().copied()).collect();
    while let Some(v) = open.pop() {
        walked = walked.union(g.axes_of(v));
        if !seen.insert(v) || roots.contains(&v) {
            continue;
        }
        match c.owner[v.0 as usize].is_some() || matches!(g.node(v).op, Op::Leaf(_)) {
            true => drop(reads.insert(v)),
            false => open.extend(g.node(v).args.iter().copied()),
        }
    }
    let moved = of.moved.intersection(&reads).copied().collect();
    Group { roots, reads, moved, inner: of.inner.intersection(walked), ..of.clone() }
}

/// A value and everything that it is computed from.
fn sources(g: &Graph, v: ValueId) -> BTreeSet<ValueId> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![v]);
    while let Some(v) = open.pop() {
        if seen.insert(v) {
            open.extend(g.node(v).args.iter().copied());
        }
    }
    seen
}

/// A product joins the first group that uses it row by row; either operand may give the rows.
fn fuse_product(g: &Graph, c: &mut Clusters, readers: &mut Readers, v: ValueId) {
    let Some(from) = c.owner[v.0 as usize].filter(|id| c.groups[id.0 as usize].kind == GroupKind::Contract(v)) else {
        return;
    };
    let first = |id: &GroupId| c.groups[id.0 as usize].roots.first().copied();
    let users: Vec<GroupId> = readers.0[v.0 as usize].iter().copied().filter(|id| first(id).is_some()).collect();
    let (a, b) = (g.axes_of(g.node(v).args[0]), g.axes_of(g.node(v).args[1]));
    let host = |rows: AxisSet| {
        let takes = users.iter().copied().filter(|id| takes_rows(g, c, *id, v, rows));
        takes.min_by_key(first).map(|id| (id, rows))
    };
    let Some((to, rows)) = host(a.minus(b)).or_else(|| host(b.minus(a))) else { return };
    if users.iter().any(|r| *r != to && c.reaches(*r, to)) {
        return;
    }
    let f = &mut c.groups[from.0 as usize];
    f.roots.clear();
    let (reads, moved) = (std::mem::take(&mut f.reads), std::mem::take(&mut f.moved));
    let t = &mut c.groups[to.0 as usize];
    t.reads.remove(&v);
    for r in &reads {
        readers.0[r.0 as usize].remove(&from);
        readers.0[r.0 as usize].insert(to);
    }
    t.reads.extend(reads);
    t.moved.extend(moved);
    t.products.push((v, rows));
    c.owner[v.0 as usize] = Some(to);
}

/// True if the group can run on a few of the product's rows at a time.
fn takes_rows(g: &Graph, c: &Clusters, id: GroupId, v: ValueId, rows: AxisSet) -> bool {
    let group = &c.groups[id.0 as usize];
    let n = g.node(v);
    let Op::Dot { axes } = n.op else { return false };
    let batch = g.axes_of(n.args[0]).intersection(g.axes_of(n.args[1])).minus(axes);
    let whole = group.roots.iter().all(|r| g.axes_of(*r).contains(rows)) && group.rows.contains(rows);
    let alike = group.products.iter().all(|p| p.1 == rows);
    let many = g.elements(rows) >= FUSED_ROWS;
    group.kind == GroupKind::Stream && many && batch.is_empty() && whole && alike && !group.moved.contains(&v)
}
