//! Alike groups: what is equal to a group lowered before, in all but the memory that it touches, becomes a copy of its
//! launches.
//!
//! Equal layers have equal groups, so kernels are built once for each distinct one and lowering a deep model costs
//! little more than numbering what its groups read and write. A group's *form* holds all that lowering looks at: its
//! operations, from the roots to memory, and how that memory lies; buffers are numbered as the walk meets them.
use super::Lowering;
use super::storage::Storage;
use crate::cluster::{Group, GroupId, GroupKind};
use lolm_ir::axis::AxisSet;
use lolm_ir::hash::QuickMap;
use lolm_ir::op::Op;
use lolm_ir::plan::{Buffer, BufferId, Place, Step};
use lolm_ir::{DType, Graph, ValueId};

/// A group without names: operations in the order of a walk from its roots, and everything else as numbers.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
struct Form {
    ops: Vec<Op>,
    words: Vec<i64>,
}

/// The launches of a form. Buffer i is the i-th that the walk meets; those behind belong to the launches alone.
struct Pattern {
    steps: Vec<Step>,
    own: Vec<Buffer>,
    /// Results of roots that lowering laid out anew: position of the root, result, where it lies.
    moved: Vec<(usize, usize, Storage)>,
}

/// The forms that were met, and the memory that walks need.
#[derive(Default)]
pub(super) struct Alike {
    known: QuickMap<Form, Pattern>,
    form: Form,
    /// For each value and each buffer, its number in the walk that met it last.
    values: Marks,
    buffers: Marks,
    met: Vec<BufferId>,
    walk: u32,
}

/// Numbers that hold for one walk.
#[derive(Default)]
struct Marks(Vec<(u32, u32)>);

impl Marks {
    fn get(&self, walk: u32, i: usize) -> Option<u32> {
        self.0.get(i).filter(|m| m.0 == walk).map(|m| m.1)
    }
    fn set(&mut self, walk: u32, i: usize, n: u32) {
        if self.0.len() <= i {
            self.0.resize((i + 1).next_power_of_two(), (0, 0));
        }
        self.0[i] = (walk, n);
    }
}

/// A walk over a group.
struct Walk<'a, 'b> {
    lw: &'b Lowering<'a>,
    id: GroupId,
    group: &'b Group,
    to: Alike,
    count: u32,
}

/// How the numbers of a form begin.
const MEMORY: i64 = -1;
const OPERATION: i64 = -2;
const NOWHERE: i64 = -3;

impl Walk<'_, '_> {
    fn whole(&mut self) {
        let group = self.group;
        let (kind, of) = match group.kind {
            GroupKind::Stream => (0, None),
            GroupKind::Contract(v) => (1, Some(v)),
            GroupKind::Scatter(v) => (2, Some(v)),
            GroupKind::Update(v) => (3, Some(v)),
            GroupKind::Scan(v) => (4, Some(v)),
            GroupKind::Fused(v) => (5, Some(v)),
        };
        self.words([kind, self.lw.updates(group) as i64]);
        self.axes(group.rows);
        self.axes(group.inner);
        for (v, rows) in &group.products {
            let n = self.visit(*v);
            self.words([n]);
            self.axes(*rows);
        }
        for r in group.roots.iter().copied().chain(of) {
            let n = self.visit(r);
            self.words([n]);
        }
    }

    fn words<const N: usize>(&mut self, words: [i64; N]) {
        self.to.form.words.extend(words);
    }
    fn axes(&mut self, axes: AxisSet) {
        let bits = axes.bits();
        self.words([bits as i64, (bits >> 64) as i64]);
    }

    /// The number of a value: of memory, or of an operation after those it needs.
    fn visit(&mut self, v: ValueId) -> i64 {
        if let Some(n) = self.to.values.get(self.to.walk, v.0 as usize) {
            return n as i64;
        }
        let lw = self.lw;
        let own = lw.cx.clusters.owner[v.0 as usize] == Some(self.id);
        match lw.cx.stored(v).filter(|_| !own) {
            Some(s) => self.storage(s),
            None => self.operation(v, own),
        }
        self.count += 1;
        self.to.values.set(self.to.walk, v.0 as usize, self.count);
        self.count as i64
    }

    fn operation(&mut self, v: ValueId, own: bool) {
        let lw = self.lw;
        let n = lw.cx.g.node(v);
        for a in &n.args {
            self.visit(*a);
        }
        self.to.form.ops.push(n.op.clone());
        self.words([OPERATION, own as i64, n.args.len() as i64]);
        for a in &n.args {
            let number = self.visit(*a);
            self.words([number]);
        }
        // What an attention knows of its positions, it sees behind memory; equal layers share these values.
        if let Op::Attention(_) | Op::AttentionGrad(_) = n.op {
            let positions = n.args.iter().filter(|a| lw.cx.g.ty(**a).dtype == DType::I32);
            self.to.form.words.extend(positions.map(|a| a.0 as i64));
        }
        if !own {
            return;
        }
        self.words([lw.parts[v.0 as usize] as i64]);
        for (t, s) in n.types.iter().zip(&lw.cx.storage[v.0 as usize]) {
            self.axes(t.axes);
            match s {
                Some(s) => self.storage(s),
                None => self.words([NOWHERE]),
            }
        }
    }

    fn storage(&mut self, s: &Storage) {
        let known = self.to.buffers.get(self.to.walk, s.buffer.0 as usize);
        let n = known.unwrap_or(self.to.met.len() as u32);
        self.words([MEMORY, n as i64, s.base, s.strides.len() as i64]);
        self.to.form.words.extend(s.strides.iter().flat_map(|(a, stride)| [a.0 as i64, *stride]));
        if known.is_none() {
            self.to.buffers.set(self.to.walk, s.buffer.0 as usize, n);
            self.to.met.push(s.buffer);
            let b = self.lw.cx.buffer(s.buffer);
            self.words([b.len as i64, dtype(b.dtype), place(&b.place)]);
        }
    }
}

fn dtype(d: DType) -> i64 {
    match d {
        DType::F32 => 0,
        DType::Bf16 => 1,
        DType::I32 => 2,
        DType::Bool => 3,
    }
}

/// The kind of a place; which parameter or output it is makes no difference.
fn place(p: &Place) -> i64 {
    match p {
        Place::Arena(_) => 0,
        Place::Scratch(_) => 1,
        Place::Param(_) => 2,
        Place::State(_) => 3,
        Place::Table(_) => 4,
        Place::Input(_) => 5,
        Place::Output(_) => 6,
    }
}

impl Lowering<'_> {
    /// Lowers a group, or copies what became of one like it.
    pub(super) fn group_or_copy(&mut self, id: GroupId) -> Result<(), String> {
        if self.shares(id) {
            return self.group(id);
        }
        let mut to = std::mem::take(&mut self.alike);
        to.walk += 1;
        to.met.clear();
        to.form.ops.clear();
        to.form.words.clear();
        let group = &self.cx.clusters.groups[id.0 as usize];
        let mut walk = Walk { lw: self, id, group, to, count: 0 };
        walk.whole();
        let Walk { to, .. } = walk;
        self.alike = to;
        if self.copied(group) {
            return Ok(());
        }
        let of = |v: &ValueId| self.cx.storage[v.0 as usize].clone();
        let before: Vec<Vec<Option<Storage>>> = group.roots.iter().map(of).collect();
        let (first_step, first) = (self.steps.len(), self.cx.buffers.len());
        let form = self.alike.form.clone();
        self.group(id)?;
        let pattern = self.pattern(first_step, first, group, &before)?;
        self.alike.known.insert(form, pattern);
        Ok(())
    }

    /// True for routed products: the first that follows an index groups its rows, and the others use what it made.
    fn shares(&self, id: GroupId) -> bool {
        match self.cx.clusters.groups[id.0 as usize].kind {
            GroupKind::Fused(v) => matches!(self.cx.g.node(v).op, Op::RoutedDot { .. } | Op::RoutedDotGrad { .. }),
            GroupKind::Stream | GroupKind::Contract(_) | GroupKind::Scatter(_) => false,
            GroupKind::Update(_) | GroupKind::Scan(_) => false,
        }
    }

    /// Copies the launches of the form that was just walked, if it is known.
    fn copied(&mut self, group: &Group) -> bool {
        let Some(p) = self.alike.known.get(&self.alike.form) else { return false };
        let (met, first) = (&self.alike.met, self.cx.buffers.len());
        let at = |b: BufferId| match met.get(b.0 as usize) {
            Some(b) => *b,
            None => BufferId((b.0 as usize - met.len() + first) as u32),
        };
        for s in &p.steps {
            let mut s = s.clone();
            s.buffers_mut(|b| *b = at(*b));
            self.steps.push(s);
        }
        self.cx.buffers.extend(p.own.iter().cloned());
        for (root, result, s) in &p.moved {
            let s = Storage { buffer: at(s.buffer), ..s.clone() };
            if let Some(v) = group.roots.iter().nth(*root) {
                self.cx.lie_in_arena(s.buffer, *v, *result);
                self.cx.storage[v.0 as usize][*result] = Some(s);
            }
        }
        true
    }

    /// What lowering added since there were so many steps and buffers, with the buffers as the walk numbers them.
    fn pattern(
        &self,
        first_step: usize,
        first: usize,
        group: &Group,
        before: &[Vec<Option<Storage>>],
    ) -> Result<Pattern, String> {
        let mut unknown = None;
        let mut number = |b: BufferId| match self.alike.buffers.get(self.alike.walk, b.0 as usize) {
            Some(n) => BufferId(n),
            None if b.0 as usize >= first => BufferId((b.0 as usize - first + self.alike.met.len()) as u32),
            None => {
                unknown = Some(b);
                b
            }
        };
        let mut steps = self.steps[first_step..].to_vec();
        steps.iter_mut().for_each(|s| s.buffers_mut(|b| *b = number(*b)));
        let mut moved = vec![];
        for (i, (v, before)) in group.roots.iter().zip(before).enumerate() {
            for (result, (old, new)) in before.iter().zip(&self.cx.storage[v.0 as usize]).enumerate() {
                if let Some(s) = new
                    && old != new
                {
                    moved.push((i, result, Storage { buffer: number(s.buffer), ..s.clone() }));
                }
            }
        }
        match unknown {
            None => Ok(Pattern { steps, own: self.cx.buffers[first..].to_vec(), moved }),
            Some(b) => Err(format!("bug: a group touches `{}`, which its form lacks", self.cx.buffer(b).name)),
        }
    }
}

/// For each value, a bit for each of its results that somebody takes.
pub(super) fn parts(g: &Graph) -> Vec<u64> {
    let mut all = vec![0; g.nodes.len()];
    for n in &g.nodes {
        if let Op::Part(i) = n.op {
            all[n.args[0].0 as usize] |= 1 << i;
        }
    }
    all
}
