//! Stream kernels: a group of elementwise operations, index operations and reductions as one kernel.
//!
//! A value is lowered *at* an index map. Operations that compute become values of the kernel; index operations change
//! the map; values that lie in memory become loads whose view is the map through the storage's strides.
use super::Cx;
use super::index::{Index, Map};
use super::storage::Storage;
use crate::cluster::{Group, GroupId};
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::dtype::{DType, Scalar};
use lolm_ir::hash::QuickMap;
use lolm_ir::kernel::{Fold, KAxis, KOp, KValue, Kernel, Mode, OperandId, View};
use lolm_ir::op::{Binary, Op, Reduction, Unary};
use lolm_ir::plan::BufferId;
use lolm_ir::{Graph, ValueId};

/// A kernel and the buffers its operands stand for.
pub struct Lowered {
    pub kernel: Kernel,
    pub buffers: Vec<BufferId>,
}

/// Builds the kernel of one group.
pub struct Stream<'a> {
    cx: &'a Cx<'a>,
    group: Option<GroupId>,
    pub k: Kernel,
    pub buffers: Vec<BufferId>,
    axes: QuickMap<AxisId, KAxis>,
    known: QuickMap<(KOp, Vec<KValue>), KValue>,
    lowered: QuickMap<(ValueId, Map, Option<KValue>), KValue>,
    /// Values that the caller has put into the kernel itself, whatever the map.
    pub given: QuickMap<ValueId, KValue>,
}

impl<'a> Stream<'a> {
    pub fn new(cx: &'a Cx<'a>, group: Option<GroupId>) -> Self {
        Stream {
            cx,
            group,
            k: Kernel::default(),
            buffers: vec![],
            axes: QuickMap::default(),
            known: QuickMap::default(),
            lowered: QuickMap::default(),
            given: QuickMap::default(),
        }
    }

    fn g(&self) -> &'a Graph {
        self.cx.g
    }
    pub fn graph(&self) -> &'a Graph {
        self.cx.g
    }
    fn group(&self) -> Option<&'a Group> {
        self.group.map(|id| &self.cx.clusters.groups[id.0 as usize])
    }

    /// The kernel axis that walks this axis of the graph.
    pub fn axis(&mut self, a: AxisId) -> KAxis {
        match self.axes.get(&a) {
            Some(k) => *k,
            None => {
                let k = self.fresh(a);
                self.axes.insert(a, k);
                k
            }
        }
    }
    fn fresh(&mut self, a: AxisId) -> KAxis {
        let (name, len) = (self.g().axis(a).name.clone(), self.g().len(a));
        let taken = self.k.axes.iter().filter(|x| x.name == name || x.name.starts_with(&format!("{name}'"))).count();
        self.k.add_axis(format!("{name}{}", "'".repeat(taken)), len)
    }
    /// Every axis at its own kernel axis.
    pub fn identity(&mut self, axes: AxisSet) -> Map {
        let mut m = Map::default();
        for a in axes.iter() {
            let k = self.axis(a);
            m.set(a, Index::axis(k));
        }
        m
    }

    pub fn operand(&mut self, buffer: BufferId, write: bool) -> OperandId {
        let mode = if write { Mode::Out } else { Mode::In };
        if let Some(i) = self.buffers.iter().position(|b| *b == buffer) {
            let o = &mut self.k.operands[i];
            if o.mode != mode {
                o.mode = Mode::InOut;
            }
            return OperandId(i as u16);
        }
        let b = self.cx.buffer(buffer);
        // A parameter that stands for one tensor an expert has braces in its name, which are marks in a kernel's text.
        let (name, dtype, len) = (b.name.replace("{}", "N"), b.dtype, b.len as usize);
        self.buffers.push(buffer);
        self.k.add_operand(name, dtype, len, mode)
    }

    // ---- kernel values, equal ones merged

    pub fn push(&mut self, op: KOp, args: &[KValue], dtype: DType) -> KValue {
        let key = (op, args.to_vec());
        if let Some(v) = self.known.get(&key) {
            return *v;
        }
        let v = self.k.push(key.0.clone(), args, dtype);
        self.known.insert(key, v);
        v
    }
    pub fn float(&mut self, x: f32) -> KValue {
        self.push(KOp::Const(Scalar::f32(x)), &[], DType::F32)
    }
    pub fn int(&mut self, x: i64) -> KValue {
        self.push(KOp::Const(Scalar::I32(x as i32)), &[], DType::I32)
    }
    pub fn unary(&mut self, u: Unary, x: KValue) -> KValue {
        let d = self.k.value(x).dtype;
        self.push(KOp::Unary(u), &[x], d)
    }
    pub fn binary(&mut self, b: Binary, x: KValue, y: KValue) -> KValue {
        let d = if b.is_predicate() { DType::Bool } else { self.k.value(x).dtype };
        self.push(KOp::Binary(b), &[x, y], d)
    }
    pub fn select(&mut self, c: KValue, x: KValue, y: KValue) -> KValue {
        let d = self.k.value(x).dtype;
        self.push(KOp::Select, &[c, x, y], d)
    }
    fn zero(&mut self, d: DType) -> KValue {
        match d {
            DType::F32 | DType::Bf16 => self.float(0.0),
            DType::I32 => self.int(0),
            DType::Bool => self.push(KOp::Const(Scalar::Bool(false)), &[], DType::Bool),
        }
    }
    fn and(&mut self, a: Option<KValue>, b: KValue) -> KValue {
        match a {
            Some(a) => self.binary(Binary::And, a, b),
            None => b,
        }
    }

    /// An index as an i32 value.
    pub fn index_value(&mut self, i: &Index) -> KValue {
        let mut sum: Option<KValue> = None;
        let terms: Vec<(KValue, i64)> = i
            .terms
            .iter()
            .map(|(a, s)| (self.push(KOp::Index(*a), &[], DType::I32), *s))
            .chain(i.dynamic.iter().copied())
            .collect();
        for (v, s) in terms {
            let t = if s == 1 {
                v
            } else {
                let c = self.int(s);
                self.binary(Binary::Mul, v, c)
            };
            sum = Some(match sum {
                None => t,
                Some(x) => self.binary(Binary::Add, x, t),
            });
        }
        match sum {
            None => self.int(i.base),
            Some(x) if i.base == 0 => x,
            Some(x) => {
                let c = self.int(i.base);
                self.binary(Binary::Add, x, c)
            }
        }
    }
    /// `0 <= i < len`, or nothing if that is always so.
    fn inside(&mut self, i: &Index, len: usize) -> Option<KValue> {
        let span = |s: &Self, upper: bool| {
            i.terms
                .iter()
                .fold(i.base, |x, (a, st)| x + if upper == (*st > 0) { st * (s.k.axis(*a).len as i64 - 1) } else { 0 })
        };
        let (lo, hi) = (span(self, false), span(self, true));
        let known = i.dynamic.is_empty();
        let v = self.index_value(i);
        let mut out = None;
        if !(known && lo >= 0) {
            let z = self.int(0);
            out = Some(self.binary(Binary::Le, z, v));
        }
        if !(known && hi < len as i64) {
            let n = self.int(len as i64);
            let c = self.binary(Binary::Lt, v, n);
            out = Some(self.and(out, c));
        }
        out
    }

    // ---- memory

    fn view(&self, s: &Storage, map: &Map, guard: Option<KValue>) -> View {
        let mut at = Index::constant(s.base);
        for (a, stride) in &s.strides {
            if let Some(i) = map.get(*a) {
                at.add_scaled(i, *stride);
            }
        }
        at.terms.retain(|t| t.1 != 0);
        at.terms.sort();
        View { terms: at.terms, dynamic: at.dynamic, base: at.base, guard }
    }
    pub fn load(&mut self, s: &Storage, map: &Map, guard: Option<KValue>) -> KValue {
        let o = self.operand(s.buffer, false);
        let view = self.view(s, map, guard);
        let d = self.k.operand(o).dtype;
        let v = self.push(KOp::Load(o, view), &[], d);
        if d == DType::Bf16 { self.push(KOp::Cast(DType::F32), &[v], DType::F32) } else { v }
    }
    pub fn store(&mut self, s: &Storage, map: &Map, x: KValue) {
        self.store_if(s, map, x, None)
    }
    pub fn store_if(&mut self, s: &Storage, map: &Map, x: KValue, guard: Option<KValue>) {
        let o = self.operand(s.buffer, true);
        let view = self.view(s, map, guard);
        let d = self.k.operand(o).dtype;
        // A bf16 of memory was widened when it was loaded.
        let widened = d == DType::Bf16 && self.k.value(x).dtype == DType::F32;
        let x = if widened { self.push(KOp::Cast(d), &[x], d) } else { x };
        self.k.push(KOp::Store(o, view), &[x], d);
    }
    pub fn accumulate(&mut self, s: &Storage, map: &Map, x: KValue, guard: Option<KValue>) {
        let o = self.operand(s.buffer, true);
        self.k.operands[o.0 as usize].mode = Mode::InOut;
        let view = self.view(s, map, guard);
        let d = self.k.operand(o).dtype;
        self.k.push(KOp::Accumulate(o, view), &[x], d);
    }

    // ---- values of the graph

    /// The value v of the graph at the coordinates that the map gives. Loads inside happen only where `guard` holds.
    pub fn value(&mut self, v: ValueId, map: &Map, guard: Option<KValue>) -> KValue {
        if let Some(x) = self.given.get(&v) {
            return *x;
        }
        let map = map.restricted(self.g().axes_of(v));
        let key = (v, map, guard);
        if let Some(x) = self.lowered.get(&key) {
            return *x;
        }
        let product = self.group().is_some_and(|g| g.products.iter().any(|p| p.0 == v));
        let foreign = product || self.group.is_none() || self.cx.clusters.owner[v.0 as usize] != self.group;
        let x = match self.cx.storage_of(v) {
            Some(s) if foreign => self.load(&s, &key.1, guard),
            _ => self.compute(v, &key.1, guard),
        };
        self.lowered.insert(key, x);
        x
    }

    fn compute(&mut self, v: ValueId, map: &Map, guard: Option<KValue>) -> KValue {
        let g = self.g();
        let n = g.node(v);
        let arg = |s: &mut Self, i: usize| s.value(n.args[i], map, guard);
        match &n.op {
            Op::Const(c) => self.push(KOp::Const(*c), &[], c.dtype()),
            Op::Iota(a) => {
                let i = map.get(*a).cloned().unwrap_or_default();
                self.index_value(&i)
            }
            Op::Random { axes, site } => {
                let (seed, step) = (arg(self, 0), arg(self, 1));
                let mut at = Index::default();
                let mut stride = 1;
                for a in axes.iter().rev() {
                    at.add_scaled(map.get(*a).unwrap_or(&Index::default()), stride);
                    stride *= g.len(*a) as i64;
                }
                let i = self.index_value(&at);
                self.push(KOp::Random { site: *site }, &[seed, step, i], DType::F32)
            }
            Op::Unary(u) => {
                let x = arg(self, 0);
                self.unary(*u, x)
            }
            Op::Binary(b) => {
                let (x, y) = (arg(self, 0), arg(self, 1));
                self.binary(*b, x, y)
            }
            Op::Select => {
                let (c, x, y) = (arg(self, 0), arg(self, 1), arg(self, 2));
                self.select(c, x, y)
            }
            Op::Mix => {
                let (w, a, b) = (arg(self, 0), arg(self, 1), arg(self, 2));
                let d = self.binary(Binary::Sub, a, b);
                self.push(KOp::Fma, &[w, d, b], DType::F32)
            }
            Op::Cast(d) => {
                let x = arg(self, 0);
                // A bf16 of memory was widened when it was loaded.
                if self.k.value(x).dtype == *d { x } else { self.push(KOp::Cast(*d), &[x], *d) }
            }
            Op::StopGradient => arg(self, 0),
            Op::Reduce { kind, axes } => self.reduce(*kind, *axes, n.args[0], map, guard),
            Op::ArgMax(a) => {
                let (m, axes) = self.open((*a).into(), map);
                let x = self.value(n.args[0], &m, guard);
                self.push(KOp::ArgMax(axes[0].1), &[x], DType::I32)
            }
            Op::Dot { axes } => {
                let (m, mut over) = self.open(*axes, map);
                let (x, y) = (self.value(n.args[0], &m, guard), self.value(n.args[1], &m, guard));
                let last = over.pop().map(|o| o.1).unwrap_or(KAxis(0));
                let d = self.push(KOp::Dot(last), &[x, y], DType::F32);
                over.into_iter().rev().fold(d, |d, (_, a)| self.push(KOp::Reduce(Fold::Sum, a), &[d], DType::F32))
            }
            Op::Recurrence { axis, reverse } => {
                let k = map.get(*axis).and_then(Index::as_axis).unwrap_or(KAxis(0));
                let (a, b) = (arg(self, 0), arg(self, 1));
                let init = if n.args.len() == 3 { arg(self, 2) } else { self.float(0.0) };
                self.push(KOp::Scan { axis: k, reverse: *reverse }, &[a, b, init], DType::F32)
            }
            Op::Rename { from, to } => self.value(n.args[0], &map.moved(*to, *from, Index::clone), guard),
            Op::At { axis, index } => self.value(n.args[0], &map.with(*axis, Index::constant(*index as i64)), guard),
            Op::Slice { axis, start, to } => {
                self.value(n.args[0], &map.moved(*to, *axis, |i| i.plus(*start as i64)), guard)
            }
            Op::Pad { axis, start, to } => {
                let m = map.moved(*to, *axis, |i| i.plus(-(*start as i64)));
                self.masked(n.args[0], &m, *axis, guard)
            }
            Op::Shift { axis, by } => {
                let m = map.moved(*axis, *axis, |i| i.plus(-by));
                self.masked(n.args[0], &m, *axis, guard)
            }
            Op::Stack { axis } => self.stack(&n.args, *axis, map, guard),
            Op::Concat { axis, parts } => self.concat(&n.args, *axis, parts, map, guard),
            Op::Gather { axis } => {
                let i = arg(self, 1);
                self.masked(n.args[0], &map.with(*axis, Index::value(i)), *axis, guard)
            }
            // The remaining operations have groups of their own: their values lie in memory.
            other => {
                let what = other.mnemonic();
                self.cx.complain(format!("bug: {what} %{} has no storage", v.0));
                self.float(0.0)
            }
        }
    }

    /// The operand where `axis` stands inside its length, and 0 elsewhere.
    pub(super) fn masked(&mut self, x: ValueId, map: &Map, axis: AxisId, guard: Option<KValue>) -> KValue {
        let at = map.get(axis).cloned().unwrap_or_default();
        match self.inside(&at, self.g().len(axis)) {
            None => self.value(x, map, guard),
            Some(c) => {
                let both = self.and(guard, c);
                let y = self.value(x, map, Some(both));
                let z = self.zero(self.g().ty(x).dtype);
                self.select(c, y, z)
            }
        }
    }

    fn stack(&mut self, args: &[ValueId], axis: AxisId, map: &Map, guard: Option<KValue>) -> KValue {
        let at = map.get(axis).cloned().unwrap_or_default();
        if let Some(i) = at.as_constant() {
            return self.value(args[i as usize], map, guard);
        }
        let i = self.index_value(&at);
        let mut out = None;
        for (j, a) in args.iter().enumerate().rev() {
            let x = self.value(*a, map, guard);
            out = Some(match out {
                None => x,
                Some(rest) => {
                    let j = self.int(j as i64);
                    let c = self.binary(Binary::Eq, i, j);
                    self.select(c, x, rest)
                }
            });
        }
        out.unwrap_or(i)
    }

    fn concat(&mut self, args: &[ValueId], axis: AxisId, parts: &[AxisId], map: &Map, guard: Option<KValue>) -> KValue {
        let at = map.get(axis).cloned().unwrap_or_default();
        let mut start = self.g().len(axis) as i64;
        let mut out = None;
        for (x, p) in args.iter().zip(parts).rev() {
            start -= self.g().len(*p) as i64;
            let here = at.plus(-start);
            let m = map.with(*p, here.clone());
            out = Some(match (self.inside(&here, self.g().len(*p)), out) {
                (None, _) => self.value(*x, &m, guard),
                (Some(c), rest) => {
                    let both = self.and(guard, c);
                    let y = self.value(*x, &m, Some(both));
                    let rest = match rest {
                        Some(r) => r,
                        None => self.zero(self.g().ty(*x).dtype),
                    };
                    self.select(c, y, rest)
                }
            });
        }
        out.unwrap_or_else(|| self.float(0.0))
    }

    /// Kernel axes for axes that a reduction binds: their own where the map leaves them free, fresh ones elsewhere.
    fn open(&mut self, axes: AxisSet, map: &Map) -> (Map, Vec<(AxisId, KAxis)>) {
        let mut m = map.clone();
        let mut over = vec![];
        for a in axes.iter() {
            let own = self.axis(a);
            let k = if map.mentions(own) { self.fresh(a) } else { own };
            m.set(a, Index::axis(k));
            over.push((a, k));
        }
        (m, over)
    }

    fn reduce(&mut self, kind: Reduction, axes: AxisSet, x: ValueId, map: &Map, guard: Option<KValue>) -> KValue {
        let (m, over) = self.open(axes, map);
        let d = self.g().ty(x).dtype;
        let mut y = self.value(x, &m, guard);
        let fold = match kind {
            Reduction::Sum | Reduction::Mean => Fold::Sum,
            Reduction::Max => Fold::Max,
        };
        for (_, a) in over.iter().rev() {
            y = self.reduce_one(fold, *a, y, d);
        }
        match kind {
            Reduction::Mean => {
                let c = self.float(1.0 / self.g().elements(axes) as f32);
                self.binary(Binary::Mul, y, c)
            }
            Reduction::Sum | Reduction::Max => y,
        }
    }

    /// A reduction of a value that lacks the axis is a product with its length, or the value itself.
    pub fn reduce_one(&mut self, fold: Fold, a: KAxis, x: KValue, d: DType) -> KValue {
        if self.k.value(x).axes.has(a) {
            return self.push(KOp::Reduce(fold, a), &[x], d);
        }
        match fold {
            Fold::Max => x,
            Fold::Sum => {
                let len = self.k.axis(a).len;
                let n = if d.is_float() { self.float(len as f32) } else { self.int(len as i64) };
                self.binary(Binary::Mul, x, n)
            }
        }
    }

    /// Lowers the group's roots, each stored where it belongs.
    pub fn roots(&mut self) {
        let Some(group) = self.group() else { return };
        let all = group.rows.union(group.inner);
        for a in all.iter() {
            self.axis(a);
        }
        for r in &group.roots {
            let m = self.identity(self.g().axes_of(*r));
            let x = self.value(*r, &m, None);
            if let Some(s) = self.cx.storage_of(*r) {
                self.store(&s, &m, x);
            }
        }
    }

    pub fn finish(self) -> Lowered {
        Lowered { kernel: self.k, buffers: self.buffers }
    }
}
