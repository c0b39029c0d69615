//! The rules of a kernel. A kernel that passes can be scheduled and compiled, and stays inside its operands.
//!
//! - Names of axes and operands are unique, not empty, not numbers, and free of the characters that the text form uses.
//!   Axes and operands are not empty, an axis shorter than 2^31.
//! - A value uses earlier values only; nothing uses a store. Its axis set is what [`Kernel::infer`] says. There is a store.
//! - Arithmetic is f32 (or i32 for neg, abs, the binary operations, sums and maxima): bf16 is cast first. Comparisons, `not`
//!   and `and` give bool. `select` takes a bool and two values of one dtype. A bf16 value comes from a load or a cast.
//! - Bounds of an axis are i32, do not vary over it, and stand before the values that fold along it.
//! - `reduce`, `argmax`, `sample` and `dot` have an operand that varies over the axis; the settings of a `sample` do not. The initial state of a scan and the
//!   accumulator of a dot do not vary over it. `prev` and `last` take a scan along the same axis.
//! - A view names an axis at most once, its offsets are i32, its guard bool. Without guard and offsets it stays inside the
//!   operand; with offsets or a guard that is the duty of who wrote it.
//! - Loads are of `in` and `inout`, stores of `out` and `inout`, of equal dtype; accumulation is of f32 or i32 `inout`.
//! - A store without guard and offsets writes every element at most once: sorted by stride, each axis steps over all that
//!   the smaller ones reach. All loads of a stored `inout` operand have the view of its stores. An operand that is
//!   accumulated is touched by nothing else.
//! - Units are distinct axes with tiles of at least 1. Every store varies over all of them; an accumulation's view has all
//!   of them; no scan runs along one.
use super::{KAxes, KAxis, KOp, KValue, Kernel, Mode, OperandId, Value, View};
use crate::dtype::DType;
use crate::op::{Binary, Unary};
use std::collections::BTreeSet;

/// The rule that a kernel breaks, and where: the value's line, or the axis, operand or unit.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("kernel @{kernel}: {at}: {fault}")]
pub struct VerifyError {
    pub kernel: String,
    pub at: String,
    pub fault: String,
}

type Fault = Result<(), String>;

impl Kernel {
    pub fn verify(&self) -> Result<(), VerifyError> {
        let e = |at: String, r: Fault| r.map_err(|fault| VerifyError { kernel: self.name.clone(), at, fault });
        e("names".into(), self.check_names())?;
        for a in 0..self.axes.len() as u8 {
            e(format!("axis {}", self.axis(KAxis(a)).name), self.check_axis(KAxis(a)))?;
        }
        for v in self.ids() {
            // The line of a value can only be printed once its operands are known to exist.
            e(format!("%{}", v.0), self.check_ids(v))?;
            e(self.line(v), self.check_value(v))?;
        }
        for o in 0..self.operands.len() as u16 {
            e(format!("operand ${}", self.operand(OperandId(o)).name), self.check_operand(OperandId(o)))?;
        }
        e("units".into(), self.check_units())?;
        let sink = self.values.iter().any(Value::is_sink);
        e("values".into(), ensure(sink, || "nothing is stored".into()))
    }

    fn check_names(&self) -> Fault {
        ensure(self.axes.len() <= KAxes::CAPACITY, || format!("{} axes, limit {}", self.axes.len(), KAxes::CAPACITY))?;
        let axes = self.axes.iter().map(|a| ("axis", &a.name, a.len as u64));
        let operands = self.operands.iter().map(|o| ("operand", &o.name, o.len));
        let mut seen = BTreeSet::new();
        for (kind, name, len) in axes.chain(operands) {
            let plain = !name.contains(|c: char| c.is_whitespace() || "[]+*%;$,{}=".contains(c));
            ensure(plain && !name.is_empty(), || format!("{kind} `{name}` has a name that the text form cannot hold"))?;
            ensure(name.parse::<i64>().is_err(), || format!("{kind} `{name}` is named like a number"))?;
            ensure(seen.insert((kind, name)), || format!("two of {kind} `{name}`"))?;
            ensure(len > 0, || format!("{kind} `{name}` is empty"))?;
            ensure(kind == "operand" || len < 1 << 31, || format!("axis `{name}` is too long: {len}"))?;
        }
        Ok(())
    }

    fn check_axis(&self, a: KAxis) -> Fault {
        for b in self.bounds(a) {
            ensure((b.0 as usize) < self.values.len(), || format!("bound %{} does not exist", b.0))?;
            let v = self.value(b);
            ensure(v.dtype == DType::I32, || format!("bound %{} is {}, expected i32", b.0, v.dtype))?;
            ensure(!v.axes.has(a), || format!("bound %{} varies over the axis", b.0))?;
        }
        Ok(())
    }

    fn check_ids(&self, v: KValue) -> Fault {
        let value = self.value(v);
        let axis = |a: KAxis| ensure((a.0 as usize) < self.axes.len(), || format!("axis {} does not exist", a.0));
        if let KOp::Index(a) | KOp::Prev(a) = value.op {
            axis(a)?;
        }
        value.op.folds().map_or(Ok(()), axis)?;
        if let Some((o, view)) = value.access() {
            ensure((o.0 as usize) < self.operands.len(), || format!("operand {} does not exist", o.0))?;
            view.terms.iter().try_for_each(|t| axis(t.0))?;
        }
        for u in self.uses(v) {
            ensure(u < v, || format!("uses %{}, which does not stand before it", u.0))?;
            ensure(!self.value(u).is_sink(), || format!("uses %{}, which is a store", u.0))?;
        }
        Ok(())
    }

    fn check_value(&self, v: KValue) -> Fault {
        let value = self.value(v);
        let axes = self.infer(&value.op, &value.args);
        ensure(axes == value.axes, || format!("varies over {:?}", axes.iter().collect::<Vec<_>>()))?;
        self.check_types(value)?;
        self.check_along(value)?;
        value.access().map_or(Ok(()), |(o, view)| self.check_view(value, o, view))
    }

    /// Arity and dtypes.
    fn check_types(&self, value: &Value) -> Fault {
        use DType::*;
        let found: Vec<DType> = value.args.iter().map(|a| self.value(*a).dtype).collect();
        let first = found.first().copied().unwrap_or(value.dtype);
        let of = |args: &[DType], result: DType| {
            ensure(found == args, || format!("operands are {found:?}, expected {args:?}"))?;
            ensure(value.dtype == result, || format!("is {}, expected {result}", value.dtype))
        };
        let number = if first == I32 { I32 } else { F32 };
        match &value.op {
            KOp::Const(c) => of(&[], c.dtype()),
            KOp::Index(_) => of(&[], I32),
            KOp::Load(o, _) => of(&[], self.operand(*o).dtype),
            KOp::Store(o, _) | KOp::Accumulate(o, _) => of(&[self.operand(*o).dtype], self.operand(*o).dtype),
            KOp::Random { .. } => of(&[I32; 3], F32),
            KOp::Unary(Unary::Not) => of(&[Bool], Bool),
            KOp::Unary(Unary::Neg | Unary::Abs) => of(&[number], number),
            KOp::Unary(_) => of(&[F32], F32),
            KOp::Binary(Binary::And) => of(&[Bool; 2], Bool),
            KOp::Binary(Binary::Eq) if first == Bool => of(&[Bool; 2], Bool),
            KOp::Binary(Binary::Lt | Binary::Le | Binary::Eq) => of(&[number; 2], Bool),
            KOp::Binary(Binary::Rem) => of(&[I32; 2], I32),
            KOp::Binary(_) => of(&[number; 2], number),
            KOp::Fma => of(&[F32; 3], F32),
            KOp::Select => {
                let of_type = found.get(1).copied().unwrap_or(value.dtype);
                of(&[Bool, of_type, of_type], of_type)
            }
            KOp::Cast(d) => of(&[first], *d),
            KOp::Reduce(..) => of(&[number], number),
            KOp::ArgMax(_) => of(&[F32], I32),
            KOp::Sample(_) => of(&[F32, F32, I32, F32, F32, F32], I32),
            KOp::Dot(_) if found.len() == 3 => of(&[F32; 3], F32),
            KOp::Dot(_) => of(&[F32; 2], F32),
            KOp::Scan { .. } => of(&[F32; 3], F32),
            KOp::Prev(_) | KOp::Last(_) => of(&[F32], F32),
        }
    }

    /// What folds and scans ask of their axis.
    fn check_along(&self, value: &Value) -> Fault {
        let varies = |i: usize, a: KAxis| self.value(value.args[i]).axes.has(a);
        match value.op {
            KOp::Reduce(_, a) | KOp::ArgMax(a) => {
                ensure(varies(0, a), || "its operand does not vary over the axis".into())
            }
            KOp::Sample(a) => {
                ensure(varies(0, a), || "its operand does not vary over the axis".into())?;
                let settings = (1..value.args.len()).all(|i| !varies(i, a));
                ensure(settings, || "one of its settings varies over the axis".into())
            }
            KOp::Dot(a) => {
                ensure(varies(0, a) || varies(1, a), || "no operand varies over the axis".into())?;
                ensure(value.args.len() < 3 || !varies(2, a), || "its accumulator varies over the axis".into())
            }
            KOp::Scan { axis, .. } => ensure(!varies(2, axis), || "its initial state varies over the axis".into()),
            KOp::Prev(a) | KOp::Last(a) => {
                let scan = matches!(self.value(value.args[0]).op, KOp::Scan { axis, .. } if axis == a);
                ensure(scan, || "its operand is not a scan along the axis".into())
            }
            KOp::Const(_) | KOp::Index(_) | KOp::Load(..) | KOp::Random { .. } | KOp::Unary(_) => Ok(()),
            KOp::Binary(_) | KOp::Fma | KOp::Select | KOp::Cast(_) => Ok(()),
            KOp::Store(..) | KOp::Accumulate(..) => Ok(()),
        }
    }

    fn check_view(&self, value: &Value, o: OperandId, view: &View) -> Fault {
        let operand = self.operand(o);
        let allowed = match value.op {
            KOp::Load(..) => operand.mode != Mode::Out,
            KOp::Accumulate(..) => operand.mode == Mode::InOut && matches!(operand.dtype, DType::F32 | DType::I32),
            _ => operand.mode != Mode::In,
        };
        ensure(allowed, || format!("operand ${} is `{}` {}", operand.name, operand.mode.name(), operand.dtype))?;
        let named: KAxes = view.terms.iter().map(|t| t.0).collect();
        ensure(named.iter().count() == view.terms.len(), || "the view names an axis twice".into())?;
        for (d, _) in &view.dynamic {
            ensure(self.value(*d).dtype == DType::I32, || format!("offset %{} is not i32", d.0))?;
        }
        if let Some(g) = view.guard {
            return ensure(self.value(g).dtype == DType::Bool, || format!("guard %{} is not bool", g.0));
        }
        if !view.dynamic.is_empty() {
            return Ok(());
        }
        let (lo, hi) = self.reach(view);
        let inside = lo >= 0 && (hi as u64) < operand.len;
        ensure(inside, || format!("reaches {lo}..={hi} of the {} elements of ${}", operand.len, operand.name))?;
        if matches!(value.op, KOp::Store(..)) { self.check_once(value, view) } else { Ok(()) }
    }

    /// The least and greatest element of a view without offsets.
    fn reach(&self, view: &View) -> (i64, i64) {
        let ends = view.terms.iter().map(|(a, s)| s.saturating_mul(self.axis(*a).len as i64 - 1));
        ends.fold((view.base, view.base), |(lo, hi), e| (lo.saturating_add(e.min(0)), hi.saturating_add(e.max(0))))
    }

    fn check_once(&self, value: &Value, view: &View) -> Fault {
        let long = |a: &KAxis| self.axis(*a).len > 1;
        let mut steps: Vec<(i64, KAxis)> = value.axes.iter().filter(long).map(|a| (view.stride(a).abs(), a)).collect();
        steps.sort();
        let mut reached = 0;
        for (step, a) in steps {
            ensure(step > reached, || format!("writes an element more than once along `{}`", self.axis(a).name))?;
            reached += step * (self.axis(a).len as i64 - 1);
        }
        Ok(())
    }

    /// Whether reads of an operand come before its writes, and whether accumulations are alone.
    fn check_operand(&self, o: OperandId) -> Fault {
        let accesses = || self.values.iter().filter_map(|v| v.access().filter(|a| a.0 == o).map(|a| (v, a.1)));
        let stores: Vec<&View> =
            accesses().filter(|(v, _)| matches!(v.op, KOp::Store(..))).map(|(_, view)| view).collect();
        let place = |v: &View| (v.terms.clone(), v.dynamic.clone(), v.base);
        if let Some(first) = stores.first() {
            for (v, view) in accesses().filter(|(v, _)| matches!(v.op, KOp::Load(..))) {
                let same = place(view) == place(first) && stores.len() == 1;
                ensure(same, || format!("is read elsewhere than it is written, over {:?}", v.axes))?;
            }
        }
        let sums = accesses().filter(|(v, _)| matches!(v.op, KOp::Accumulate(..))).count();
        ensure(sums == 0 || accesses().count() == 1, || "is accumulated and also touched otherwise".into())
    }

    fn check_units(&self) -> Fault {
        let mut units = KAxes::EMPTY;
        for (a, tile) in &self.units {
            ensure((a.0 as usize) < self.axes.len(), || format!("axis {} does not exist", a.0))?;
            ensure(*tile > 0, || format!("the tile along `{}` is empty", self.axis(*a).name))?;
            ensure(!units.has(*a), || format!("axis `{}` stands twice", self.axis(*a).name))?;
            units = units.with(*a);
        }
        for v in self.ids() {
            let value = self.value(v);
            match &value.op {
                KOp::Store(..) => ensure(value.axes.contains(units), || format!("%{} lacks one of them", v.0))?,
                KOp::Accumulate(_, view) => {
                    let within = units.iter().all(|a| view.stride(a) != 0);
                    ensure(within, || format!("the view of %{} lacks one of them", v.0))?;
                }
                KOp::Scan { axis, .. } => ensure(!units.has(*axis), || format!("the scan %{} runs along one", v.0))?,
                _ => {}
            }
        }
        Ok(())
    }
}

fn ensure(holds: bool, fault: impl FnOnce() -> String) -> Fault {
    if holds { Ok(()) } else { Err(fault()) }
}
