//! Accesses: where a load or a store goes, from a view and the coordinates that are fixed.
//!
//! The parts of an address that outer loops fix are added up there, and inner loops start from the longest sum they find.
use crate::emit::{Access, Emit, Lane};
use crate::eval::{Fail, Gen, Gives, Inst, Key, SLOTS};
use crate::sink::Written;
use lolm_ir::DType;
use lolm_ir::kernel::{KAxis, KValue, OperandId, View};

/// What an address is relative to: an operand, or the array of a value, with its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Base {
    Operand(OperandId),
    Array(KValue, u32),
}

/// A summand of an address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Term {
    Axis(KAxis),
    Value(Key),
}
/// Which summand, with the depth of the scope it comes from; its coordinate; its stride.
type Summand<C> = ((usize, Term), C, i64);
/// A sum of the first terms of an address, outer ones first, with the depths of the scopes that they come from.
pub type Prefix = (Base, Vec<(usize, Term, i64)>);

impl<E: Emit> Gen<'_, E> {
    pub fn load(&mut self, v: KValue, o: OperandId, view: &View, inst: &Inst) -> Gives<E::V> {
        if self.written.contains(&Written::Operand(o)) {
            return Err(Fail::Limit(format!("`{}` would read what is already written", self.k.line(v))));
        }
        let mut access = self.access(v, Base::Operand(o), view, inst)?;
        self.guard_range(view, inst, &mut access)?;
        self.e.note(v.0);
        Ok(self.e.load(&access))
    }

    /// Outside the range of an axis an offset read from memory may point anywhere.
    fn guard_range(&mut self, view: &View, inst: &Inst, access: &mut Access<E>) -> Gives<()> {
        for a in self.fixed().iter() {
            if self.at(a)?.masked && view.dynamic.iter().any(|(d, _)| self.k.value(*d).axes.has(a)) {
                let mask = self.mask(a, inst)?;
                access.guard = self.and(access.guard, mask);
            }
        }
        Ok(())
    }

    /// The access of a value to memory at an instance.
    pub fn access(&mut self, v: KValue, base: Base, view: &View, inst: &Inst) -> Gives<Access<E>> {
        let guard = view.guard.map(|g| self.eval(g, inst)).transpose()?;
        let tail = self.tail_of(v, view, inst)?;
        let guard = self.and(guard, tail);
        let guard = self.and(guard, self.only);
        let dtype = self.dtype_at(base);
        let (mut offset, mut varying) = (view.base, vec![]);
        for (a, stride) in &view.terms {
            let at = self.at(*a)?;
            offset += stride * at.offsets[self.s.slot(*a).map_or(0, |s| inst[s] as usize)];
        }
        for (d, stride) in &view.dynamic {
            let x = self.eval(*d, inst)?;
            if self.varies(self.k.value(*d).axes) {
                varying.push((x, *stride));
            }
        }
        let terms = self.terms(view, inst)?;
        let constant: i64 = terms.iter().filter_map(|(_, c, s)| self.e.known(*c).map(|c| c * s)).sum();
        let address = self.address(base, terms)?;
        let lane = match self.vector_axis() {
            Some(_) if !varying.is_empty() => {
                let stride = self.vector_axis().map_or(0, |a| view.stride(a));
                Lane::Each { stride, offsets: varying }
            }
            Some(a) if view.stride(a) == 1 => Lane::Contiguous,
            Some(a) if view.stride(a) != 0 => Lane::Strided(view.stride(a)),
            Some(a) if self.k.value(v).is_sink() && self.k.value(v).axes.has(a) => Lane::Strided(0),
            _ => Lane::Uniform,
        };
        Ok(Access { dtype, address, offset: (offset + constant) * dtype.bytes() as i64, lane, guard })
    }

    /// The lanes that have an element to access, where the loop along the lane axis ends before the last lane.
    pub fn tail_of(&self, v: KValue, view: &View, inst: &Inst) -> Gives<Option<E::V>> {
        let Some(a) = self.vector_axis() else { return Ok(None) };
        let dynamic = view.dynamic.iter().any(|(d, _)| self.k.value(*d).axes.has(a));
        let value = self.k.value(v);
        match view.stride(a) != 0 || dynamic || value.is_sink() && value.axes.has(a) {
            true => self.tail(a, inst),
            false => Ok(None),
        }
    }

    /// The uniform summands of an address that are known here, outer ones first: key, coordinate, stride.
    fn terms(&mut self, view: &View, inst: &Inst) -> Gives<Vec<Summand<E::C>>> {
        let mut terms = vec![];
        for (a, stride) in &view.terms {
            if let Some(at) = &self.at[a.0 as usize] {
                terms.push(((at.depth, Term::Axis(*a)), at.coord, *stride));
            }
        }
        for (d, stride) in &view.dynamic {
            let axes = self.k.value(*d).axes;
            if let Some((depth, x)) =
                self.lookup(*d, inst).filter(|_| self.fixed().contains(axes) && !self.varies(axes))
            {
                let (_, i) = self.key(*d, inst);
                terms.push(((depth, Term::Value((*d, i))), self.e.widen(x), *stride));
            }
        }
        terms.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(terms)
    }

    /// Adds up an address, starting from the longest prefix that an outer scope has.
    fn address(&mut self, base: Base, mut terms: Vec<Summand<E::C>>) -> Gives<E::C> {
        terms.retain(|(_, c, _)| self.e.known(*c).is_none());
        let bytes = self.dtype_at(base).bytes() as i64;
        let prefix = |n: usize| -> Prefix { (base, terms[..n].iter().map(|t| (t.0.0, t.0.1.clone(), t.2)).collect()) };
        let find = |n: usize| {
            let p = prefix(n);
            self.scopes.iter().rev().find_map(|s| s.addresses.get(&p).copied())
        };
        let known = (0..=terms.len()).rev().find_map(|n| find(n).map(|c| (n, c)));
        let (from, mut sum) = known.map_or_else(|| self.start(base).map(|c| (0, c)), Ok)?;
        for (n, (_, coord, stride)) in terms.iter().enumerate().skip(from) {
            let part = self.e.coord_mul(*coord, stride * bytes);
            sum = self.e.coord_add(sum, part);
            if let Some(s) = self.scopes.last_mut() {
                s.addresses.insert(prefix(n + 1), sum);
            }
        }
        Ok(sum)
    }

    fn dtype_at(&self, base: Base) -> DType {
        match base {
            Base::Operand(o) => self.k.operand(o).dtype,
            Base::Array(v, _) => self.k.value(v).dtype,
        }
    }
    fn start(&mut self, base: Base) -> Gives<E::C> {
        match base {
            Base::Operand(o) => Ok(self.e.operand(o)),
            Base::Array(v, _) => self.array(v).map(|a| a.base).ok_or_else(|| self.nowhere(v)),
        }
    }

    /// Computes what is known of the address of an access that a loop to be opened will use.
    pub fn touch(&mut self, v: KValue) -> Gives<()> {
        let Some((o, view)) = self.k.value(v).access() else { return Ok(()) };
        let terms = self.terms(view, &[0; SLOTS])?;
        self.address(Base::Operand(o), terms).map(|_| ())
    }
}
