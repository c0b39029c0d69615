//! Arrays: states of scans and partial results of folds that do not fit in registers.
//!
//! Where the state of a scan varies over axes that are folded again inside the scan's own loop (a state per channel, summed
//! over channels at each step), those axes cannot be fixed around the loop. Then the state lies in private memory and
//! every step runs over it; folds along the same loop that keep such an axis lie beside it.
use crate::emit::Emit;
use crate::eval::{Fail, Gen, Gives, Inst};
use crate::place::Base;
use crate::sink::Written;
use lolm_ir::kernel::{KAxes, KAxis, KOp, KValue, View};

/// Private memory of the states or partial results of one value.
#[derive(Clone)]
pub struct Array<C> {
    pub base: C,
    pub number: u32,
    pub view: View,
    /// The axes that were fixed when it was made; it belongs to their coordinates.
    within: KAxes,
    /// The loop is over: it holds results.
    pub done: bool,
}

impl<E: Emit> Gen<'_, E> {
    /// The array of a value, if there is one for the coordinates that are fixed here.
    pub fn array(&self, v: KValue) -> Option<&Array<E::C>> {
        let mut hidden = KAxes::EMPTY;
        for s in self.scopes.iter().rev() {
            if let Some(a) = s.arrays.get(&v) {
                return Some(a).filter(|a| a.within.0 & hidden.0 == 0);
            }
            hidden = hidden.union(s.hides);
        }
        None
    }

    /// Sets memory aside for a scan or a fold along `x`, whose other axes are not all fixed.
    pub fn make_array(&mut self, v: KValue, x: KAxis) -> Gives<()> {
        let value = self.k.value(v);
        if matches!(value.op, KOp::ArgMax(_)) {
            return Err(Fail::Limit(format!("`{}` would need an array of pairs", self.k.line(v))));
        }
        let within = KAxes(self.fixed().0 & value.axes.0);
        let inner = self.s.order.iter().filter(|a| !self.s.unroll.contains(a) && !within.has(**a));
        let axes: Vec<KAxis> = self.s.unroll.iter().chain(inner).copied().collect();
        let (mut view, mut size) = (View::default(), 1);
        let mut before = self.e.coord(0);
        if let Some(a) = self.vector_axis().filter(|a| value.axes.has(*a)) {
            // Only the lanes in flight have a place, so their coordinate is taken off the start of the array.
            let at = self.at(a)?;
            let (coord, vectors) = (at.coord, at.offsets.len());
            size = (vectors * self.e.lanes()) as i64;
            view.terms.push((a, 1));
            before = self.e.coord_mul(coord, -(value.dtype.bytes() as i64));
        }
        for a in axes.into_iter().rev().filter(|a| value.axes.has(*a) && *a != x) {
            view.terms.push((a, size));
            size *= self.k.axis(a).len as i64;
        }
        let bytes = u32::try_from(size * value.dtype.bytes() as i64).ok().filter(|b| *b <= LARGEST);
        let Some(bytes) = bytes else {
            return Err(Fail::Limit(format!("`{}` would need an array of {size} elements", self.k.line(v))));
        };
        let slot = self.e.slot(bytes);
        let base = self.e.coord_add(slot, before);
        let array = Array { base, number: self.arrays, view, within, done: false };
        self.arrays += 1;
        self.written.remove(&Written::State(v));
        if let Some(s) = self.scopes.last_mut() {
            s.arrays.insert(v, array);
        }
        Ok(())
    }

    /// Says that the array of a fold, or of a scan whose last states `last` is, holds results from here on.
    pub fn finish_array(&mut self, v: KValue, last: Option<KValue>) {
        let Some(s) = self.scopes.last_mut() else { return };
        if let Some(a) = s.arrays.get(&v).cloned() {
            s.arrays.insert(last.unwrap_or(v), Array { done: true, ..a });
        }
    }
    /// Forgets the states of a scan.
    pub fn drop_array(&mut self, scan: KValue) {
        if let Some(s) = self.scopes.last_mut() {
            s.arrays.remove(&scan);
        }
    }

    pub fn load_array(&mut self, v: KValue, inst: &Inst) -> Gives<E::V> {
        let a = self.array(v).cloned().ok_or_else(|| self.nowhere(v))?;
        let access = self.access(v, Base::Array(v, a.number), &a.view, inst)?;
        Ok(self.e.load(&access))
    }
    pub fn store_array(&mut self, v: KValue, inst: &Inst, x: E::V) -> Gives<()> {
        let a = self.array(v).cloned().ok_or_else(|| self.nowhere(v))?;
        let access = self.access(v, Base::Array(v, a.number), &a.view, inst)?;
        self.e.store(&access, x);
        Ok(())
    }

    /// The state of a scan before this step, where it lies in an array and has not been overwritten.
    pub fn array_state(&mut self, scan: KValue, inst: &Inst) -> Gives<E::V> {
        if self.written.contains(&Written::State(scan)) {
            return Err(Fail::Limit(format!("`{}` is used in two loops of one step", self.k.line(scan))));
        }
        if self.array(scan).is_none() {
            return Err(Fail::Limit(format!("`{}` is wanted by a loop that does not carry it", self.k.line(scan))));
        }
        self.load_array(scan, inst)
    }

    /// A fold, or the last state of a scan, from an array whose loop is over.
    pub fn array_result(&mut self, v: KValue, inst: &Inst) -> Gives<E::V> {
        if self.is_in_array(v) { self.load_array(v, inst) } else { Err(self.nowhere(v)) }
    }
    pub fn is_in_array(&self, v: KValue) -> bool {
        self.array(v).is_some_and(|a| a.done)
    }
}

/// Bytes of one array at most, so that a few fit on a thread's stack.
const LARGEST: u32 = 1 << 17;
