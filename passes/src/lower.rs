//! Lower: groups become kernels, matrix products and launches; values get buffers.
//!
//! Before: a graph in which every fused operation that has no launch of its own is expanded, its groups and their order.
//! After: a plan whose buffers have no addresses yet (`memory` gives them).
use crate::cluster::{Clusters, Group, GroupId, GroupKind, widens};
use crate::pipeline::Target;
use crate::schedule::Schedule;
use gpu_routed::Sorted;
use layout::Layouts;
use lolm_ir::axis::AxisId;
use lolm_ir::graph::{LeafId, LeafKind, Output};
use lolm_ir::hash::QuickMap;
use lolm_ir::kernel::{KOp, Kernel};
use lolm_ir::op::Op;
use lolm_ir::plan::{Access, Buffer, BufferId, KernelStage, Kind, Launch, Place, Plan, Port, Span, Stage, Step};
use lolm_ir::{DType, Graph, ValueId};
use routed::Grouped;
use std::cell::RefCell;
use storage::Storage;
use stream::{Lowered, Stream};

mod alike;
mod attention;
mod attention_rows;
mod attention_tiles;
mod contract;
mod cost;
mod cross_entropy;
mod gpu;
mod gpu_attention;
mod gpu_head;
mod gpu_routed;
mod gpu_sample;
mod gpu_segments;
mod index;
mod layout;
mod merge_axes;
mod recurrence;
mod relayout;
mod routed;
mod scan;
mod scan_gpu;
mod scatter;
mod slopes;
pub(crate) mod storage;
mod stream;

/// The distinct kernels of an artifact: equal ones, whatever their names, are kept once.
#[derive(Default)]
pub struct KernelPool {
    pub kernels: Vec<Kernel>,
    known: QuickMap<Kernel, u32>,
}

impl KernelPool {
    pub fn add(&mut self, k: Kernel) -> u32 {
        let mut key = k.clone();
        key.name.clear();
        key.axes.iter_mut().for_each(|a| a.name.clear());
        key.operands.iter_mut().for_each(|o| o.name.clear());
        *self.known.entry(key).or_insert_with(|| {
            self.kernels.push(k);
            self.kernels.len() as u32 - 1
        })
    }
}

/// What lowering knows of a program: where its values lie.
pub struct Cx<'a> {
    pub g: &'a Graph,
    pub clusters: &'a Clusters,
    buffers: Vec<Buffer>,
    /// For each value, the storage of each of its results.
    storage: Vec<Vec<Option<Storage>>>,
    faults: RefCell<Vec<String>>,
}

impl Cx<'_> {
    pub fn buffer(&self, b: BufferId) -> &Buffer {
        &self.buffers[b.0 as usize]
    }
    pub fn storage_of(&self, v: ValueId) -> Option<Storage> {
        self.stored(v).cloned()
    }
    fn stored(&self, v: ValueId) -> Option<&Storage> {
        let (v, i) = match self.g.node(v).op {
            Op::Part(i) => (self.g.node(v).args[0], i),
            _ => (v, 0),
        };
        self.storage[v.0 as usize].get(i)?.as_ref()
    }
    /// A value as a strided view of memory: renames, fixed indices and slices only change strides and base, and a bf16 as an
    /// f32 is the same memory.
    pub fn view(&self, v: ValueId) -> Option<Storage> {
        if let Some(s) = self.storage_of(v) {
            return Some(s);
        }
        let n = self.g.node(v);
        let mut s = self.view(*n.args.first()?)?;
        match n.op {
            Op::Rename { from, to } => s.strides.iter_mut().filter(|x| x.0 == from).for_each(|x| x.0 = to),
            Op::At { axis, index } => {
                s.base += s.stride(axis) * index as i64;
                s.strides.retain(|x| x.0 != axis);
            }
            Op::Slice { axis, start, to } => {
                s.base += s.stride(axis) * start as i64;
                s.strides.iter_mut().filter(|x| x.0 == axis).for_each(|x| x.0 = to);
            }
            Op::StopGradient => {}
            Op::Cast(_) if widens(self.g, v) => {}
            _ => return None,
        }
        Some(s)
    }
    /// Bytes of an element.
    pub fn width(&self, s: &Storage) -> usize {
        self.buffer(s.buffer).dtype.bytes()
    }
    /// The buffer is no output any more: the result lies in it in an order of its own.
    fn lie_in_arena(&mut self, b: BufferId, v: ValueId, result: usize) {
        let buffer = &mut self.buffers[b.0 as usize];
        (buffer.name, buffer.place) = (format!("v{}.{result}", v.0), Place::Arena(0));
    }
    pub fn complain(&self, fault: String) {
        self.faults.borrow_mut().push(fault);
    }
}

/// A kernel that is ready to become a stage of a launch.
struct Built {
    kernel: Kernel,
    operands: Vec<Access>,
    span: Span,
}

/// A program on its way from groups to steps.
pub struct Lowering<'a> {
    pub cx: Cx<'a>,
    target: Target,
    pub pool: &'a mut KernelPool,
    pub steps: Vec<Step>,
    leaves: QuickMap<LeafId, Storage>,
    /// For each value, which of its results are taken.
    parts: Vec<u64>,
    alike: alike::Alike,
    /// Rows grouped by an index, for as many experts.
    groups: QuickMap<(ValueId, usize), Grouped>,
    /// The same for a GPU.
    sorted: QuickMap<(ValueId, usize), Sorted>,
}

/// Lowers a program. Buffers of the arena have no offsets yet.
pub fn lower(
    g: &Graph,
    clusters: &Clusters,
    schedule: &Schedule,
    target: Target,
    pool: &mut KernelPool,
) -> Result<Plan, String> {
    let stored = |v: &ValueId| match g.node(*v).op {
        Op::Leaf(l) => matches!(g.leaf(l).kind, LeafKind::Param(_)),
        _ => false,
    };
    let narrow = |v: &ValueId| g.node(*v).types.iter().any(|t| t.dtype == DType::Bf16) && !stored(v);
    if let Some(v) = g.ids().find(|v| target == Target::Cpu && narrow(v)) {
        let what = g.node(v).op.mnemonic();
        return Err(format!(
            "limit: {what} %{} is bf16, and programs compute in f32: only parameters are stored so",
            v.0
        ));
    }
    let cx = Cx {
        g,
        clusters,
        buffers: vec![],
        storage: g.ids().map(|v| nowhere(g, clusters, v)).collect(),
        faults: RefCell::default(),
    };
    let mut lw = Lowering {
        cx,
        target,
        pool,
        steps: vec![],
        leaves: QuickMap::default(),
        parts: alike::parts(g),
        alike: alike::Alike::default(),
        groups: QuickMap::default(),
        sorted: QuickMap::default(),
    };
    lw.place_leaves();
    lw.place_roots(schedule);
    for id in &schedule.order {
        lw.group_or_copy(*id)?;
    }
    lw.copies(schedule);
    if let Some(f) = lw.cx.faults.borrow().first() {
        return Err(f.clone());
    }
    let (inputs, outputs, steps) = (lw.inputs(), lw.outputs(), lw.steps);
    Ok(Plan { program: g.name.clone(), inputs, outputs, buffers: lw.cx.buffers, steps, arena: 0, scratch: 0 })
}

/// Room for where the results of a leaf or a root lie; no other value lies in memory.
fn nowhere(g: &Graph, c: &Clusters, v: ValueId) -> Vec<Option<Storage>> {
    let n = g.node(v);
    let lies = c.owner[v.0 as usize].is_some() || matches!(n.op, Op::Leaf(_));
    vec![None; if lies { n.types.len() } else { 0 }]
}

impl<'a> Lowering<'a> {
    pub fn add_buffer(&mut self, name: impl Into<String>, dtype: DType, len: usize, place: Place) -> BufferId {
        self.cx.buffers.push(Buffer { name: name.into(), dtype, len: len as u64, place });
        BufferId(self.cx.buffers.len() as u32 - 1)
    }
    /// A buffer of the arena, or of each thread's scratch.
    pub fn temporary(&mut self, name: impl Into<String>, len: usize) -> BufferId {
        self.add_buffer(name, DType::F32, len, Place::Arena(0))
    }
    pub fn scratch(&mut self, name: impl Into<String>, len: usize) -> BufferId {
        self.add_buffer(name, DType::F32, len, Place::Scratch(0))
    }

    fn place_leaves(&mut self) {
        let g = self.cx.g;
        for v in g.ids() {
            let Op::Leaf(l) = g.node(v).op else { continue };
            let s = self.leaf_storage(l);
            self.cx.storage[v.0 as usize][0] = Some(s);
        }
    }

    fn leaf_storage(&mut self, l: LeafId) -> Storage {
        if let Some(s) = self.leaves.get(&l) {
            return s.clone();
        }
        let g = self.cx.g;
        let leaf = g.leaf(l);
        let name = leaf.name.clone();
        let place = match leaf.kind {
            LeafKind::Param(_) => Place::Param(name),
            LeafKind::Input => Place::Input(name),
            LeafKind::State { .. } => Place::State(name),
            LeafKind::Table(_) => Place::Table(name),
        };
        let b = self.add_buffer(leaf.name.clone(), leaf.dtype, g.elements(leaf.axes()), place);
        let s = Storage::row_major(g, b, leaf.order().collect::<Vec<_>>().into_iter());
        self.leaves.insert(l, s.clone());
        s
    }

    /// Roots that are outputs, or become a leaf in place, lie there; the others get a buffer of the arena.
    fn place_roots(&mut self, schedule: &Schedule) {
        let g = self.cx.g;
        let layouts = Layouts::of(g);
        let mut outputs: QuickMap<ValueId, &Output> = QuickMap::default();
        for o in &g.outputs {
            outputs.entry(o.value).or_insert(o);
        }
        let mut parts: QuickMap<(ValueId, usize), LeafId> = QuickMap::default();
        for (w, l) in &schedule.in_place {
            if let Op::Part(i) = g.node(*w).op {
                parts.insert((g.node(*w).args[0], i), *l);
            }
        }
        for v in g.ids() {
            if self.cx.clusters.owner[v.0 as usize].is_none() {
                continue;
            }
            if let Some(l) = schedule.in_place.get(&v) {
                let s = self.leaf_storage(*l);
                self.cx.storage[v.0 as usize][0] = Some(s);
                continue;
            }
            let base_leaf = self.updated_leaf(v);
            for (i, t) in g.node(v).types.iter().enumerate() {
                if let Some(l) = parts.get(&(v, i)) {
                    let s = self.leaf_storage(*l);
                    self.cx.storage[v.0 as usize][i] = Some(s);
                    continue;
                }
                let out = outputs.get(&v).filter(|_| i == 0 && base_leaf.is_none());
                let (name, place, order) = match out {
                    Some(o) => (o.name.clone(), Place::Output(o.name.clone()), storage::flat(&o.dims)),
                    None => (format!("v{}.{i}", v.0), Place::Arena(0), layouts.kept(v, i)),
                };
                let b = self.add_buffer(name, t.dtype, g.elements(t.axes), place);
                self.cx.storage[v.0 as usize][i] = Some(Storage::row_major(g, b, order.into_iter()));
            }
        }
    }

    fn updated_leaf(&self, v: ValueId) -> Option<LeafId> {
        match self.cx.g.node(v).op {
            Op::Update { .. } => match self.cx.g.node(self.cx.g.node(v).args[0]).op {
                Op::Leaf(l) => Some(l),
                _ => None,
            },
            _ => None,
        }
    }

    fn group(&mut self, id: GroupId) -> Result<(), String> {
        let group: &'a Group = &self.cx.clusters.groups[id.0 as usize];
        match group.kind {
            GroupKind::Stream if self.target == Target::Cpu && !group.products.is_empty() => self.with_products(id),
            GroupKind::Stream => self.stream(id),
            GroupKind::Scan(v) => match self.cx.g.node(v).op {
                Op::GatedRecurrence { .. } => self.gated_recurrence(id, v),
                Op::GatedRecurrenceGrad { .. } => self.gated_recurrence_grad(id, v),
                _ => self.stream(id),
            },
            GroupKind::Contract(_) if self.target == Target::Gpu => self.stream(id),
            GroupKind::Contract(v) => self.contract(v),
            GroupKind::Scatter(v) => self.scatter_add(v),
            GroupKind::Update(v) => self.update(v),
            GroupKind::Fused(v) if self.target == Target::Gpu => self.fused_kernel(v),
            GroupKind::Fused(v) => self.fused(v),
        }
    }

    /// A launch of one kernel for a group.
    fn stream(&mut self, id: GroupId) -> Result<(), String> {
        let group: &'a Group = &self.cx.clusters.groups[id.0 as usize];
        let mut s = Stream::new(&self.cx, Some(id));
        s.roots();
        let lowered = s.finish();
        let (name, kind) = (self.name(group), self.kind(group));
        self.launch(name, kind, lowered);
        Ok(())
    }

    fn fused(&mut self, v: ValueId) -> Result<(), String> {
        match self.cx.g.node(v).op {
            Op::Attention(_) => self.attention(v),
            Op::AttentionGrad(_) => self.attention_grad(v),
            Op::CrossEntropy { .. } => self.cross_entropy(v),
            Op::CrossEntropyGrad { .. } => self.cross_entropy_grad(v),
            Op::RoutedDot { .. } => self.routed_dot(v),
            Op::RoutedDotGrad { .. } => self.routed_dot_grad(v),
            Op::SelectiveScan { .. } => self.selective_scan(v),
            Op::SelectiveScanGrad { .. } => self.selective_scan_grad(v),
            ref op => Err(format!("bug: {} has no lowering", op.mnemonic())),
        }
    }

    /// A launch of one kernel over all its units.
    pub fn launch(&mut self, name: String, kind: Kind, l: Lowered) {
        let (flops, bytes) = cost::of(&l.kernel);
        let stage = self.stage(&name, l, Span::Same);
        self.steps.push(Step::Launch(Launch { name, kind, grid: vec![], stages: vec![stage], flops, bytes }));
    }

    /// A kernel as a stage; its axes are merged where that changes nothing.
    fn stage(&mut self, name: &str, l: Lowered, span: Span) -> Stage {
        let mut kernel = merge_axes::merge_axes(l.kernel);
        kernel.name = name.into();
        let operands = l.buffers.iter().map(|b| Access::whole(*b)).collect();
        self.add_stage(Built { kernel, operands, span })
    }

    fn add_stage(&mut self, b: Built) -> Stage {
        Stage::Kernel(KernelStage { kernel: self.pool.add(b.kernel), operands: b.operands, span: b.span })
    }

    /// Outputs and written leaves whose value lies elsewhere are copied at the end.
    fn copies(&mut self, schedule: &Schedule) {
        let g = self.cx.g;
        for o in &g.outputs {
            let placed = self.cx.storage_of(o.value).map(|s| self.cx.buffer(s.buffer).place.clone());
            if placed != Some(Place::Output(o.name.clone())) {
                let t = g.ty(o.value);
                let b = self.add_buffer(o.name.clone(), t.dtype, g.elements(t.axes), Place::Output(o.name.clone()));
                let to = Storage::row_major(g, b, storage::flat(&o.dims).into_iter());
                self.copy(&format!("copy.{}", o.name), o.value, &to);
            }
        }
        for w in &g.writes {
            if schedule.in_place.get(&w.value) != Some(&w.leaf) {
                let to = self.leaf_storage(w.leaf);
                self.copy(&format!("write.{}", g.leaf(w.leaf).name), w.value, &to);
            }
        }
    }

    pub fn copy(&mut self, name: &str, v: ValueId, to: &Storage) {
        let mut s = Stream::new(&self.cx, None);
        let m = s.identity(self.cx.g.axes_of(v));
        let x = s.value(v, &m, None);
        s.store(to, &m, x);
        let lowered = s.finish();
        self.launch(name.into(), Kind::Map, lowered);
    }

    /// The group's name: what its last root is, with lengths.
    fn name(&self, group: &Group) -> String {
        let g = self.cx.g;
        let last = group.roots.last().copied().unwrap_or(ValueId(0));
        let lens = |s: lolm_ir::AxisSet| s.iter().map(|a: AxisId| g.len(a).to_string()).collect::<Vec<_>>().join("x");
        let inner = if group.inner.is_empty() { String::new() } else { format!("_over_{}", lens(group.inner)) };
        format!("{}_{}{inner}", g.node(last).op.mnemonic(), lens(group.rows))
    }

    /// True for a group of the optimizer.
    fn updates(&self, group: &Group) -> bool {
        let g = self.cx.g;
        group.roots.iter().any(|r| g.scope(g.node(*r).scope).starts_with("optimizer"))
    }

    fn kind(&self, group: &Group) -> Kind {
        let g = self.cx.g;
        let all = group.rows.union(group.inner);
        match group.kind {
            GroupKind::Scan(_) => Kind::Scan,
            GroupKind::Contract(_) => Kind::Contract,
            _ if !group.products.is_empty() => Kind::Contract,
            _ if self.updates(group) => Kind::Optimizer,
            _ if group.inner.is_empty() => Kind::Map,
            _ if group.roots.iter().any(|r| g.axes_of(*r) == all) => Kind::Row,
            _ => Kind::Reduce,
        }
    }

    fn inputs(&self) -> Vec<Port> {
        let g = self.cx.g;
        let inputs = g.leaves.iter().filter(|l| l.kind == LeafKind::Input);
        inputs.map(|l| Port { name: l.name.clone(), dtype: l.dtype, shape: l.shape(g) }).collect()
    }

    fn outputs(&self) -> Vec<Port> {
        let g = self.cx.g;
        let shape =
            |o: &Output| -> Vec<usize> { o.dims.iter().map(|d| d.iter().map(|a| g.len(*a)).product()).collect() };
        g.outputs.iter().map(|o| Port { name: o.name.clone(), dtype: g.ty(o.value).dtype, shape: shape(o) }).collect()
    }
}

/// True for fused operations that a launch of their own computes; all others are expanded before clustering.
pub fn has_launch(op: &Op, target: Target) -> bool {
    if target == Target::Gpu {
        return gpu::has_kernel(op);
    }
    let attention = matches!(op, Op::Attention(_) | Op::AttentionGrad(_));
    let scan = matches!(op, Op::SelectiveScan { .. } | Op::SelectiveScanGrad { .. });
    let routed = matches!(op, Op::RoutedDot { .. } | Op::RoutedDotGrad { .. });
    let gated = matches!(op, Op::GatedRecurrence { .. } | Op::GatedRecurrenceGrad { .. });
    attention || scan || routed || gated || matches!(op, Op::CrossEntropy { .. } | Op::CrossEntropyGrad { .. })
}

/// How many floating-point results an operation of a kernel counts for.
pub(crate) fn is_arithmetic(op: &KOp) -> bool {
    match op {
        KOp::Unary(_) | KOp::Binary(_) | KOp::Fma | KOp::Reduce(..) | KOp::Dot(_) | KOp::Scan { .. } => true,
        KOp::Random { .. } | KOp::Select | KOp::ArgMax(_) | KOp::Sample(_) | KOp::Accumulate(..) => true,
        KOp::Const(_) | KOp::Index(_) | KOp::Load(..) | KOp::Cast(_) => false,
        KOp::Prev(_) | KOp::Last(_) | KOp::Store(..) => false,
    }
}
