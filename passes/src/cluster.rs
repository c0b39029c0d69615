//! Cluster: every value gets a kernel, or is computed inside the kernels that use it.
//!
//! Before: a graph without dead code. After: [`Clusters`] names the values that are kept in memory (*roots*) and the
//! group (one kernel or one launch) that makes each of them; every other value is computed inline by its users.
//!
//! One walk from the last operation to the first. A value that one stream group needs is computed in it; a value that
//! several need, or that must be in memory, becomes a root and joins a user's group if both walk the same rows and no
//! path leaves the value and comes back (the group graph stays acyclic).
use lolm_ir::axis::AxisSet;
use lolm_ir::graph::{LeafKind, ScopeId};
use lolm_ir::hash::{QuickMap, QuickSet};
use lolm_ir::list::List;
use lolm_ir::op::{Class, Op, Unary};
use lolm_ir::{DType, Graph, ValueId};
use std::collections::BTreeSet;

/// A group, by position in [`Clusters::groups`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GroupId(pub u32);

/// Which generator a group is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupKind {
    /// Elementwise chains and reductions over `rows`, and along `inner` within a row.
    Stream,
    /// A large dot.
    Contract(ValueId),
    /// A sum of rows into a table of rows.
    Scatter(ValueId),
    /// Rows of a state overwritten.
    Update(ValueId),
    /// A recurrence along one axis, plain or gated, or the gradient of a gated one.
    Scan(ValueId),
    /// An attention, a selective scan, a cross-entropy, or a gradient of one; or a draw.
    Fused(ValueId),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    pub kind: GroupKind,
    /// Values that the group writes to memory, in graph order; a group without any has nothing left to do.
    pub roots: BTreeSet<ValueId>,
    /// Axes that number the rows.
    pub rows: AxisSet,
    /// Axes walked within a row; empty for purely elementwise groups.
    pub inner: AxisSet,
    /// Roots of other groups, and leaves, that the group reads.
    pub reads: BTreeSet<ValueId>,
    /// Those of them that it reads at other coordinates than the ones it computes at.
    pub moved: BTreeSet<ValueId>,
    /// Large dots that the group computes just before it uses them, with the axes of their rows (see `fuse`).
    pub products: Vec<(ValueId, AxisSet)>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Clusters {
    pub groups: Vec<Group>,
    /// For each value, the group that has it as a root.
    pub owner: Vec<Option<GroupId>>,
}

impl Clusters {
    /// True if `to` depends on a root of `from`. What ends before `from` begins is not walked.
    pub fn reaches(&self, from: GroupId, to: GroupId) -> bool {
        let first = self.groups[from.0 as usize].roots.first();
        let (mut seen, mut todo) = (QuickSet::from_iter([to]), vec![to]);
        while let Some(x) = todo.pop() {
            for r in &self.groups[x.0 as usize].reads {
                if let Some(o) = self.owner[r.0 as usize]
                    && self.groups[o.0 as usize].roots.last() >= first
                    && seen.insert(o)
                {
                    if o == from {
                        return true;
                    }
                    todo.push(o);
                }
            }
        }
        false
    }
}

/// Dots below this many multiply-adds are reductions inside a stream kernel.
const SMALL_DOT: usize = 1 << 12;

/// Dots with a stored tensor of fewer elements than this too, however many tokens there are: a matrix product adds up in
/// another order than a stream kernel, and a token's bits must not depend on the tokens beside it.
const SMALL_WEIGHT: usize = 1 << 8;

/// Values of a stream kernel after which no more are computed in it: a kernel has a limited number of operands, and the
/// time to compile one grows faster than its length. The sum over all parameters of a deep model is cut here.
const MOST_VALUES: u32 = 128;

/// Rows that are enough to keep every thread at work.
const MANY_ROWS: usize = 64;

/// Groups the values of a graph.
pub fn cluster(g: &Graph) -> Clusters {
    let mut walk = Walk {
        g,
        out: Clusters { groups: vec![], owner: vec![None; g.nodes.len()] },
        needs: vec![List::default(); g.nodes.len()],
        sizes: vec![],
        kept: vec![false; g.nodes.len()],
        by_scope: QuickMap::default(),
        rounded: rounded(g),
    };
    for v in g.outputs.iter().map(|o| o.value).chain(g.writes.iter().map(|w| w.value)) {
        walk.keep(v);
    }
    for v in g.ids().rev() {
        walk.visit(v);
    }
    walk.out
}

/// The value behind renames, fixed indices, slices and widenings: where such a view of memory really lies.
pub fn view_base(g: &Graph, mut v: ValueId) -> ValueId {
    loop {
        match g.node(v).op {
            Op::Rename { .. } | Op::At { .. } | Op::Slice { .. } | Op::StopGradient => {}
            Op::Cast(_) if widens(g, v) => {}
            _ => return v,
        }
        v = g.node(v).args[0];
    }
}

/// True for a bf16 as an f32: whoever reads its memory widens it.
pub fn widens(g: &Graph, v: ValueId) -> bool {
    match g.node(v).op {
        Op::Cast(DType::F32) => g.ty(g.node(v).args[0]).dtype == DType::Bf16,
        _ => false,
    }
}

/// True for dots that are worth a matrix product: both sides have axes of their own and there is enough to do.
pub fn is_contract(g: &Graph, v: ValueId) -> bool {
    let n = g.node(v);
    let Op::Dot { axes } = n.op else { return false };
    let (a, b) = (g.axes_of(n.args[0]), g.axes_of(n.args[1]));
    let (k, m, w) = (g.elements(axes), g.elements(a.minus(b)), g.elements(b.minus(a)));
    let stored = |v: ValueId| match g.node(view_base(g, v)).op {
        Op::Leaf(l) => !matches!(g.leaf(l).kind, LeafKind::Input),
        _ => false,
    };
    let enough = match (stored(n.args[0]), stored(n.args[1])) {
        (true, false) => m >= 4 && k * m >= SMALL_WEIGHT,
        (false, true) => w >= 4 && k * w >= SMALL_WEIGHT,
        _ => m.max(w) >= 4 && k * m * w >= SMALL_DOT,
    };
    !a.minus(b).is_empty() && !b.minus(a).is_empty() && k >= 4 && enough
}

struct Walk<'a> {
    g: &'a Graph,
    out: Clusters,
    /// Groups that compute with the value, in order, and whether they read it at other coordinates than their own.
    needs: Vec<List<(GroupId, bool), 3>>,
    /// How many values each group computes.
    sizes: Vec<u32>,
    /// Values that must be in memory.
    kept: Vec<bool>,
    /// The stream group begun last in each part of the model.
    by_scope: QuickMap<ScopeId, GroupId>,
    /// Products as bf16, where nobody wants the f32.
    rounded: Vec<bool>,
}

/// Casts to bf16 of large dots that have no other user.
fn rounded(g: &Graph) -> Vec<bool> {
    let mut users = vec![0; g.nodes.len()];
    let outside = g.outputs.iter().map(|o| o.value).chain(g.writes.iter().map(|w| w.value));
    let args = g.ids().flat_map(|v| g.node(v).args.iter().copied());
    args.chain(outside).for_each(|v| users[v.0 as usize] += 1);
    let of_product = |v: ValueId| {
        let n = g.node(v);
        n.op == Op::Cast(DType::Bf16) && users[n.args[0].0 as usize] == 1 && is_contract(g, n.args[0])
    };
    g.ids().map(of_product).collect()
}

/// How a value takes part in a stream group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Shape {
    rows: AxisSet,
    inner: AxisSet,
}

impl Walk<'_> {
    /// The value, or the memory it is a view of, must be a root.
    fn keep(&mut self, v: ValueId) {
        let op = &self.g.node(v).op;
        if let Op::Part(_) = op {
            return;
        }
        self.kept[v.0 as usize] |= !matches!(op, Op::Leaf(_));
    }

    fn visit(&mut self, v: ValueId) {
        let n = self.g.node(v);
        let i = v.0 as usize;
        let wanted = self.kept[i] || !self.needs[i].is_empty();
        if !wanted && n.types.len() == 1 {
            return;
        }
        match &n.op {
            Op::Leaf(_) => self.read(v),
            Op::Part(_) => {
                self.keep(n.args[0]);
                for (u, _) in self.needs[i].clone() {
                    self.need(n.args[0], u, true);
                }
            }
            Op::Dot { .. } if is_contract(self.g, v) => self.separate(v, GroupKind::Contract(v)),
            Op::ScatterAdd { .. } => self.separate(v, GroupKind::Scatter(v)),
            Op::Update { .. } => self.separate(v, GroupKind::Update(v)),
            Op::Recurrence { .. } | Op::GatedRecurrence { .. } | Op::GatedRecurrenceGrad { .. } => {
                self.separate(v, GroupKind::Scan(v))
            }
            Op::Sample { .. } => self.separate(v, GroupKind::Fused(v)),
            op if op.info().class == Class::Fused && !op.is_elementwise() => {
                self.separate(v, GroupKind::Fused(v));
            }
            _ => self.stream(v),
        }
    }

    /// Users of memory note that they read it.
    fn read(&mut self, v: ValueId) {
        for (u, moved) in self.needs[v.0 as usize].clone() {
            self.read_by(v, u, moved);
        }
    }

    fn read_by(&mut self, v: ValueId, user: GroupId, moved: bool) {
        let group = &mut self.out.groups[user.0 as usize];
        group.reads.insert(v);
        if moved {
            group.moved.insert(v);
        }
    }

    /// A value with a group of its own.
    fn separate(&mut self, v: ValueId, kind: GroupKind) {
        let axes = self.g.axes_of(v);
        let id = self.new_group(kind, Shape { rows: axes, inner: AxisSet::EMPTY });
        self.own(v, id);
        let args = self.g.node(v).args.clone();
        match kind {
            // Operands of matrix products and of fused operations are views of memory.
            GroupKind::Contract(_) | GroupKind::Fused(_) => {
                for a in args {
                    let base = view_base(self.g, a);
                    self.keep(base);
                    self.need(base, id, true);
                }
            }
            GroupKind::Scatter(_) | GroupKind::Update(_) => {
                for (i, a) in args.into_iter().enumerate() {
                    let base = matches!((kind, i), (GroupKind::Scatter(_), 2) | (GroupKind::Update(_), 0));
                    if base {
                        self.keep(a);
                    }
                    self.need(a, id, base);
                }
            }
            GroupKind::Scan(_) | GroupKind::Stream => {
                // The gradient of a recurrence reads the states one step back.
                let gradient = matches!(self.g.node(v).op, Op::GatedRecurrenceGrad { .. });
                for (i, a) in args.into_iter().enumerate() {
                    self.need(a, id, gradient && i == 3);
                }
            }
        }
    }

    fn new_group(&mut self, kind: GroupKind, s: Shape) -> GroupId {
        let (roots, reads, moved) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let products = vec![];
        self.out.groups.push(Group { kind, roots, rows: s.rows, inner: s.inner, reads, moved, products });
        self.sizes.push(1);
        GroupId(self.out.groups.len() as u32 - 1)
    }

    /// Makes v a root of the group; all its other users read it from memory.
    fn own(&mut self, v: ValueId, id: GroupId) {
        self.out.owner[v.0 as usize] = Some(id);
        self.out.groups[id.0 as usize].roots.insert(v);
        for (u, moved) in self.needs[v.0 as usize].clone() {
            if u != id {
                self.read_by(v, u, moved);
            }
        }
    }

    fn need(&mut self, v: ValueId, by: GroupId, moved: bool) {
        let needs = &mut self.needs[v.0 as usize];
        match needs.binary_search_by_key(&by, |n| n.0) {
            Ok(i) => needs[i].1 |= moved,
            Err(i) => needs.insert(i, (by, moved)),
        }
    }

    /// True if the group reads the value at other coordinates than its own.
    fn is_moved(&self, v: ValueId, by: GroupId) -> bool {
        self.needs[v.0 as usize].contains(&(by, true))
    }

    /// An elementwise operation, an index operation or a reduction.
    fn stream(&mut self, v: ValueId) {
        let i = v.0 as usize;
        let users: List<GroupId, 3> = self.needs[i].iter().map(|n| n.0).collect();
        let one_user = users.len() == 1;
        // It is kept as bf16, half of what its users would round again, unless the one user is made with the product.
        let alone = self.rounded[i] && !(one_user && self.goes_on(v, users[0]));
        let inline = !self.kept[i] && !alone && (self.is_cheap(v) || (one_user && self.fits_inline(v, users[0])));
        if inline {
            for u in users {
                let moved = self.is_moved(v, u);
                self.absorb(v, u);
                self.spread(v, u, moved);
            }
            return;
        }
        let host = users.iter().copied().rev().find(|u| self.can_join(v, *u, &users));
        let host = host.or_else(|| self.sibling(v, &users)).filter(|u| !alone || self.goes_on(v, *u));
        let id = match host {
            Some(u) => {
                self.absorb(v, u);
                u
            }
            None => {
                let shape = self.shape(v);
                let id = self.new_group(GroupKind::Stream, shape);
                self.by_scope.insert(self.g.node(v).scope, id);
                id
            }
        };
        self.own(v, id);
        self.spread(v, id, false);
    }

    /// True for an elementwise group over the value's own elements.
    fn goes_on(&self, v: ValueId, id: GroupId) -> bool {
        let group = &self.out.groups[id.0 as usize];
        let same = group.rows == self.g.axes_of(v) && group.inner.is_empty();
        group.kind == GroupKind::Stream && same && !self.is_moved(v, id)
    }

    /// A group of the same part of the model that walks the same elements: the moments of a parameter and the parameter
    /// are updated together.
    fn sibling(&self, v: ValueId, users: &[GroupId]) -> Option<GroupId> {
        let n = self.g.node(v);
        let mine = self.shape(v);
        let last = *self.by_scope.get(&n.scope)?;
        let group = &self.out.groups[last.0 as usize];
        let same = group.rows == mine.rows && group.inner.is_empty() && mine.inner.is_empty() && !mine.rows.is_empty();
        (same && self.can_join(v, last, users)).then_some(last)
    }

    /// Operands of v are needed where v is computed.
    fn spread(&mut self, v: ValueId, id: GroupId, moved: bool) {
        let n = self.g.node(v);
        let moves = n.op.info().class == Class::Index && !matches!(n.op, Op::StopGradient);
        for (i, a) in n.args.clone().into_iter().enumerate() {
            let lookup = matches!(n.op, Op::Gather { .. }) && i == 0;
            if lookup {
                self.keep(view_base(self.g, a));
            }
            self.need(a, id, moved || (moves && !(matches!(n.op, Op::Gather { .. }) && i == 1)));
        }
    }

    fn reduced(&self, v: ValueId) -> Option<AxisSet> {
        match self.g.node(v).op {
            Op::Reduce { axes, .. } | Op::Dot { axes } => Some(axes),
            Op::ArgMax(a) => Some(a.into()),
            _ => None,
        }
    }

    fn shape(&self, v: ValueId) -> Shape {
        Shape { rows: self.g.axes_of(v), inner: self.reduced(v).unwrap_or_default() }
    }

    /// The shape of the group with v computed in it, if rows and inner axes agree.
    fn merged(&self, v: ValueId, id: GroupId, root: bool) -> Option<Shape> {
        let g = &self.out.groups[id.0 as usize];
        if g.kind != GroupKind::Stream || self.is_full(id) {
            return None;
        }
        let (mine, all) = (self.g.axes_of(v), g.rows.union(g.inner));
        match self.reduced(v) {
            None if !root || mine == all || mine == g.rows => Some(Shape { rows: g.rows, inner: g.inner }),
            None if self.numbers_rows(mine, g) => Some(Shape { rows: mine, inner: g.rows.minus(mine) }),
            None => None,
            Some(x) if g.inner.is_empty() => {
                let rest = g.rows.minus(mine);
                (g.rows.contains(mine) && x.contains(rest)).then_some(Shape { rows: mine, inner: x })
            }
            Some(x) => (mine == g.rows && x == g.inner).then_some(Shape { rows: g.rows, inner: g.inner }),
        }
    }

    /// True for a value that has one element a row of an elementwise group, such as a statistic of the row.
    fn numbers_rows(&self, mine: AxisSet, g: &Group) -> bool {
        let rest = g.rows.minus(mine);
        let last = |a: AxisSet| a.iter().next_back();
        g.inner.is_empty()
            && g.rows.contains(mine)
            && self.g.elements(mine) >= MANY_ROWS
            && last(mine) < rest.iter().next()
    }

    fn is_full(&self, id: GroupId) -> bool {
        self.sizes[id.0 as usize] >= MOST_VALUES
    }

    fn fits_inline(&self, v: ValueId, user: GroupId) -> bool {
        if self.is_full(user) {
            return false;
        }
        if self.reduced(v).is_none() {
            return !self.is_wasteful(v, user);
        }
        !self.is_moved(v, user) && self.merged(v, user, false).is_some()
    }

    fn absorb(&mut self, v: ValueId, id: GroupId) {
        self.sizes[id.0 as usize] += 1;
        if let Some(s) = self.merged(v, id, false) {
            let g = &mut self.out.groups[id.0 as usize];
            (g.rows, g.inner) = (s.rows, s.inner);
        }
    }

    /// Expensive functions of few elements are not recomputed for every row of a large group.
    fn is_wasteful(&self, v: ValueId, user: GroupId) -> bool {
        let costly = match self.g.node(v).op {
            Op::Unary(u) => !matches!(u, Unary::Neg | Unary::Abs | Unary::Not),
            _ => false,
        };
        let g = &self.out.groups[user.0 as usize];
        costly && self.g.elements(self.g.axes_of(v)) * 8 < self.g.elements(g.rows.union(g.inner))
    }

    fn can_join(&self, v: ValueId, id: GroupId, users: &[GroupId]) -> bool {
        !self.is_moved(v, id)
            && self.merged(v, id, true).is_some()
            && users.iter().all(|u| *u == id || !self.out.reaches(*u, id))
    }

    /// Values that cost less to compute again than to keep: constants, indices, draws of randomness and short chains on
    /// one tensor of memory.
    fn is_cheap(&self, v: ValueId) -> bool {
        let mut loads = 0;
        self.cheap(v, self.g.axes_of(v), 3, &mut loads) && loads <= 1
    }

    fn cheap(&self, v: ValueId, of: AxisSet, depth: usize, loads: &mut usize) -> bool {
        let n = self.g.node(v);
        if self.kept[v.0 as usize] || self.rounded[v.0 as usize] {
            *loads += self.is_wide(v, of) as usize;
            return true;
        }
        let more = |s: &Self, loads: &mut usize| depth > 0 && n.args.iter().all(|a| s.cheap(*a, of, depth - 1, loads));
        match &n.op {
            Op::Const(_) | Op::Iota(_) | Op::Random { .. } => true,
            Op::Leaf(_) => {
                *loads += self.is_wide(v, of) as usize;
                true
            }
            Op::Rename { .. } | Op::At { .. } | Op::Slice { .. } | Op::StopGradient | Op::Shift { .. } => {
                self.cheap(n.args[0], of, depth, loads)
            }
            Op::Unary(Unary::Neg | Unary::Abs | Unary::Not) | Op::Cast(_) | Op::Select | Op::Binary(_) => {
                more(self, loads)
            }
            Op::Unary(_) | Op::Mix => false,
            // A value not yet visited may become a root; it is read from memory then.
            // A reduction to one element a row may be computed in the row's group, or read.
            Op::Reduce { .. } | Op::Dot { .. } => !self.is_wide(v, of),
            _ => {
                *loads += 1;
                matches!(n.op, Op::Part(_))
            }
        }
    }

    /// True for tensors that are worth counting when a value over `of` is computed from them again.
    fn is_wide(&self, v: ValueId, of: AxisSet) -> bool {
        self.g.elements(self.g.axes_of(v)) * 8 > self.g.elements(of)
    }
}
