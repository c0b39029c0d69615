//! Rows added to, or written over, a table at indices that are data.
//!
//! Rows of a table are summed in the order in which they come. On the CPU that is the order of the loop, and units are the
//! axes within a row. A GPU has too few of these: there the table's rows go to groups in turn, so that frequent ones meet
//! in none, and each group looks at all indices and adds what belongs to it, in the same order.
use super::index::Index;
use super::stream::Stream;
use super::{Lowering, Storage};
use crate::pipeline::Target;
use lolm_ir::axis::AxisSet;
use lolm_ir::kernel::{KOp, KValue};
use lolm_ir::op::{Binary, Op};
use lolm_ir::plan::Kind;
use lolm_ir::{DType, ValueId};

/// Groups of rows of a table on a GPU, and the fewest rows to be added for which it has them.
const GROUPS: usize = 64;
const MANY: usize = 128;

impl Lowering<'_> {
    /// Σ of rows into a table: the table starts as the base or zero, then rows are added in order. The axes that remain
    /// of a row, and the groups, are the units, so threads never meet.
    pub(super) fn scatter_add(&mut self, v: ValueId) -> Result<(), String> {
        let n = self.cx.g.node(v);
        let Op::ScatterAdd { axis, .. } = n.op else { return Err("bug: not a scatter".into()) };
        let out = self.cx.storage_of(v).ok_or("bug: scatter without storage")?;
        match n.args.get(2) {
            Some(base) if self.cx.storage_of(*base).is_some_and(|s| s == out) => {}
            Some(base) => self.copy("scatter_base", *base, &out),
            None => self.fill_zero(v, &out),
        }
        let mut s = Stream::new(&self.cx, None);
        let (index, x) = (n.args[0], n.args[1]);
        let all = self.cx.g.axes_of(index).union(self.cx.g.axes_of(x));
        let (i, inside) = row_index(&mut s, index, all, self.cx.g.len(axis));
        let m = s.identity(all);
        let added = self.cx.g.elements(self.cx.g.axes_of(index));
        let groups = if self.target == Target::Gpu && added >= MANY { GROUPS.min(self.cx.g.len(axis)) } else { 1 };
        let (at, guard) = if groups > 1 { row_of_group(&mut s, i, inside, groups) } else { (Index::value(i), inside) };
        let row = s.value(x, &m, (groups > 1).then_some(guard));
        s.accumulate(&out, &m.with(axis, at), row, Some(guard));
        let lowered = s.finish();
        self.launch(format!("scatter_add_{}", self.cx.g.elements(all)), Kind::Scatter, lowered);
        Ok(())
    }

    fn fill_zero(&mut self, v: ValueId, out: &Storage) {
        let mut s = Stream::new(&self.cx, None);
        let m = s.identity(self.cx.g.axes_of(v));
        let z = if self.cx.g.ty(v).dtype == DType::I32 { s.int(0) } else { s.float(0.0) };
        s.store(out, &m, z);
        let lowered = s.finish();
        self.launch("fill_zero".into(), Kind::Map, lowered);
    }

    /// Rows of a state written over; in place where the state itself becomes the result.
    pub(super) fn update(&mut self, v: ValueId) -> Result<(), String> {
        let n = self.cx.g.node(v);
        let Op::Update { axis } = n.op else { return Err("bug: not an update".into()) };
        let out = self.cx.storage_of(v).ok_or("bug: update without storage")?;
        if self.cx.storage_of(n.args[0]).as_ref() != Some(&out) {
            self.copy("update_base", n.args[0], &out);
        }
        let mut s = Stream::new(&self.cx, None);
        let rows = self.cx.g.axes_of(v).without(axis).union(self.cx.g.axes_of(n.args[1]));
        let (i, inside) = row_index(&mut s, n.args[1], rows, self.cx.g.len(axis));
        let m = s.identity(rows);
        let x = s.value(n.args[2], &m, None);
        s.store_if(&out, &m.with(axis, Index::value(i)), x, Some(inside));
        let lowered = s.finish();
        self.launch(format!("update_{}", self.cx.g.elements(rows)), Kind::Scatter, lowered);
        Ok(())
    }
}

/// The row with this index as one of a group's rows, and whether it is one.
fn row_of_group(s: &mut Stream, i: KValue, inside: KValue, groups: usize) -> (Index, KValue) {
    let group = s.k.add_axis("group", groups);
    let mine = s.push(KOp::Index(group), &[], DType::I32);
    let n = s.int(groups as i64);
    let (number, rest) = (s.binary(Binary::Div, i, n), s.binary(Binary::Rem, i, n));
    let own = s.binary(Binary::Eq, rest, mine);
    let at = Index { terms: vec![(group, 1)], dynamic: vec![(number, groups as i64)], base: 0 };
    (at, s.binary(Binary::And, inside, own))
}

/// The index as a value, and whether it lies inside its axis.
fn row_index(s: &mut Stream, index: ValueId, all: AxisSet, len: usize) -> (KValue, KValue) {
    let m = s.identity(all);
    let i = s.value(index, &m, None);
    let (zero, end) = (s.int(0), s.int(len as i64));
    let lower = s.binary(Binary::Le, zero, i);
    let upper = s.binary(Binary::Lt, i, end);
    (i, s.binary(Binary::And, lower, upper))
}
