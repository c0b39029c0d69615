//! What of a kernel is a selective scan, and what is the gradient of one: states forwards, kept at the start of each chunk,
//! and their gradients backwards.
use crate::ptx::attention::parts::{args, binary, cone, is_elementwise, only, op, unrounded};
use lolm_ir::Scalar;
use lolm_ir::kernel::{KAxes, KAxis, KOp, KValue, Kernel, OperandId, View};
use lolm_ir::op::{Binary, Unary};

/// A sum of products that is stored.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Stored {
    pub value: KValue,
    pub store: KValue,
}

/// h = exp(dt·a)·h + dt·u·b, or backwards h = exp(dt·a)·(h + u·b).
pub struct Scan {
    pub reverse: bool,
    /// Axes of the blocks, outer ones first; the channels; what is scanned along; and the states.
    pub units: Vec<KAxis>,
    pub tile: KAxis,
    pub time: KAxis,
    pub state: KAxis,
    pub dt: KValue,
    pub a: KValue,
    pub b: KValue,
    pub u: KValue,
    pub decay: KValue,
    /// The state before the first step, and all that follow.
    pub first: KValue,
    pub h: KValue,
}

/// A scan with what c makes of its states, the last of them, or both.
pub struct Walk {
    pub scan: Scan,
    pub y: Option<Made>,
    pub last: Option<Stored>,
}

/// Sums over states of their products with c, and the stores of what is made of these.
pub struct Made {
    pub c: KValue,
    pub y: KValue,
    pub stores: Vec<KValue>,
}

pub struct Grad {
    pub scan: Scan,
    pub c: KValue,
    /// decay · G of each step, the gradient of what c makes of the states, and decay · G after the last step.
    pub back: KValue,
    pub dy: KValue,
    pub later: KValue,
    /// Where states are kept, every so many steps; elements from one chunk to the next, and the store's line.
    pub starts: (OperandId, View),
    pub chunk: i64,
    pub chunk_stride: i64,
    pub kept: KValue,
    pub d_dt: Stored,
    pub d_a: Stored,
    pub d_b: Stored,
    pub d_c: Stored,
    pub d_u: Stored,
}

/// The one store for which this holds.
fn stored(k: &Kernel, is: impl Fn(KValue) -> bool) -> Option<Stored> {
    let mut all = k.ids().filter(|v| matches!(op(k, *v), KOp::Store(..)));
    let store = all.find(|s| is(unrounded(k, args(k, *s)[0])))?;
    all.all(|s| !is(unrounded(k, args(k, s)[0]))).then(|| Stored { value: unrounded(k, args(k, store)[0]), store })
}

fn int(k: &Kernel, v: KValue) -> Option<i64> {
    match op(k, v) {
        KOp::Const(Scalar::I32(x)) => Some(*x as i64),
        _ => None,
    }
}

/// Steps of a chunk, if the view is of chunks by their number, and is written at the first step of each; and elements from
/// one chunk to the next.
fn chunks(k: &Kernel, time: KAxis, view: &View) -> Option<(i64, i64)> {
    let index = |v: KValue| *op(k, v) == KOp::Index(time);
    let (within, zero) = binary(k, view.guard?, Binary::Eq)?;
    let (step, len) = binary(k, within, Binary::Rem)?;
    let [(number, stride)] = view.dynamic[..] else { return None };
    let (divided, by) = binary(k, number, Binary::Div)?;
    let len = int(k, len)?;
    let sound = int(k, zero) == Some(0) && index(step) && index(divided) && int(k, by) == Some(len);
    (sound && view.stride(time) == 0).then_some((len, stride))
}

/// No axis has a range of its own, and every unit is one element.
fn is_plain(k: &Kernel) -> bool {
    k.axes.iter().all(|a| a.lo.is_none() && a.hi.is_none()) && k.units.iter().all(|u| u.1 == 1)
}

/// This scan, if it is a selective one, over the channels and states that are picked of the axes of its rates and of b.
fn scan_of(k: &Kernel, h: KValue, pick: impl Fn(KAxes, KAxes) -> Option<[KAxis; 2]>) -> Option<Scan> {
    let KOp::Scan { axis: time, reverse } = *op(k, h) else { return None };
    let [decay, input, first] = *args(k, h) else { return None };
    let exponent = (*op(k, decay) == KOp::Unary(Unary::Exp)).then(|| args(k, decay)[0])?;
    let (dt, a) = binary(k, exponent, Binary::Mul)?;
    let (u, b) = if reverse {
        let (_, product) = binary(k, input, Binary::Mul).filter(|x| x.0 == decay)?;
        binary(k, product, Binary::Mul)?
    } else {
        let (driven, b) = binary(k, input, Binary::Mul)?;
        (binary(k, driven, Binary::Mul).filter(|x| x.0 == dt)?.1, b)
    };
    let [tile, state] = pick(k.value(a).axes, k.value(b).axes)?;
    let own = [tile, time, state];
    let units = (0..k.axes.len() as u8).map(KAxis).filter(|a| !own.contains(a)).collect();
    Some(Scan { reverse, units, tile, time, state, dt, a, b, u, decay, first, h })
}

/// The one axis of a set.
fn single(axes: KAxes) -> Option<KAxis> {
    axes.iter().next().filter(|a| axes.without(*a) == KAxes::EMPTY)
}

impl Scan {
    fn apart(&self) -> bool {
        self.tile != self.time && self.tile != self.state && self.time != self.state
    }
    /// A value varies over no more than these axes and those of the blocks, and can be evaluated anywhere.
    fn within(&self, k: &Kernel, v: KValue, axes: &[KAxis]) -> bool {
        let axes = axes.iter().chain(&self.units).copied().collect::<KAxes>();
        axes.contains(k.value(v).axes) && cone(k, &[v], &[]).iter().all(|v| is_elementwise(k, *v))
    }
    /// What it is computed from is such a value.
    fn is_sound(&self, k: &Kernel) -> bool {
        let of_channel = [self.dt, self.u].iter().all(|v| self.within(k, *v, &[self.time, self.tile]));
        let of_state = self.within(k, self.b, &[self.time, self.state]);
        self.apart() && of_channel && of_state && self.within(k, self.a, &[self.tile, self.state])
    }
}

/// The kernel as a selective scan, if it is one. The answer does not depend on lengths, but for that of the states.
pub fn walk(k: &Kernel) -> Option<Walk> {
    if !k.units.is_empty() || !is_plain(k) || k.ids().any(|v| matches!(op(k, v), KOp::Prev(_) | KOp::Accumulate(..))) {
        return None;
    }
    let h = only(k, |o| matches!(o, KOp::Scan { .. }))?;
    let is_fold = |o: &KOp| matches!(o, KOp::Dot(_) | KOp::Reduce(..) | KOp::ArgMax(_));
    let folds: Vec<KValue> = k.ids().filter(|v| is_fold(op(k, *v))).collect();
    let (y, scan) = match folds[..] {
        [] => (None, scan_of(k, h, |a, b| Some([single(KAxes(a.0 & !b.0))?, single(KAxes(a.0 & b.0))?]))?),
        [y] => {
            let KOp::Dot(state) = *op(k, y) else { return None };
            (Some(y), scan_of(k, h, |a, _| Some([single(a.without(state))?, state]))?)
        }
        _ => return None,
    };
    let lasts = k.ids().filter(|v| matches!(op(k, *v), KOp::Last(_))).count();
    let last = match lasts {
        0 => None,
        _ => Some(stored(k, |v| matches!(op(k, v), KOp::Last(_)))?),
    };
    let is_made = |v: &KValue| matches!(op(k, *v), KOp::Store(..)) && last.is_none_or(|l| l.store != *v);
    let stores: Vec<KValue> = k.ids().filter(is_made).collect();
    let y = match y {
        None if stores.is_empty() => None,
        None => return None,
        Some(y) => Some(made(k, &scan, y, stores)?),
    };
    let first = first_is_read_where_last_is_written(k, &scan, last.as_ref());
    let unguarded = last.is_none_or(|l| k.value(l.store).access().is_some_and(|(_, view)| view.guard.is_none()));
    let sound = scan.is_sound(k) && first && unguarded && lasts <= 1 && (y.is_some() || last.is_some());
    sound.then_some(Walk { scan, y, last })
}

/// What is stored is y, and what can be evaluated where y is known.
fn made(k: &Kernel, s: &Scan, y: KValue, stores: Vec<KValue>) -> Option<Made> {
    let [h, c] = *args(k, y) else { return None };
    let wide = [s.time, s.tile].into_iter().chain(s.units.iter().copied()).collect::<KAxes>();
    let of_y = |s: &KValue| {
        let cone = cone(k, &k.uses(*s), &[y]);
        let plain = cone.iter().all(|v| *v == y || is_elementwise(k, *v));
        plain && cone.contains(&y) && k.value(*s).axes == wide && cone.iter().all(|v| wide.contains(k.value(*v).axes))
    };
    let sound = h == s.h && s.within(k, c, &[s.time, s.state]) && !stores.is_empty() && stores.iter().all(of_y);
    sound.then_some(Made { c, y, stores })
}

/// The state before the first step is read from memory that nobody writes, or where the last one is written.
fn first_is_read_where_last_is_written(k: &Kernel, s: &Scan, last: Option<&Stored>) -> bool {
    let to = last.and_then(|l| k.value(l.store).access());
    let axes = [s.tile, s.state].into_iter().chain(s.units.iter().copied()).collect::<KAxes>();
    let same = |v: KValue| matches!((op(k, v), to), (KOp::Load(o, _), Some((p, _))) if *o == p);
    let cone = cone(k, &[s.first], &[]);
    axes.contains(k.value(s.first).axes) && cone.iter().all(|v| is_elementwise(k, *v) || same(*v))
}

/// The kernel as a gradient of a selective scan, if it is one. The answer does not depend on lengths, but for that of the
/// states.
pub fn grad(k: &Kernel) -> Option<Grad> {
    let down = only(k, |o| matches!(o, KOp::Scan { reverse: true, .. })).filter(|_| is_plain(k))?;
    let [decay, decayed, later] = *args(k, down) else { return None };
    let up = only(k, |o| matches!(o, KOp::Scan { reverse: false, .. }))?;
    let (_, from_y) = binary(k, decayed, Binary::Mul).filter(|x| x.0 == decay)?;
    let (dy, c) = binary(k, from_y, Binary::Mul)?;
    let d_c = stored(k, |v| matches!(op(k, v), KOp::Dot(_)) && args(k, v) == [up, dy])?;
    let KOp::Dot(tile) = *op(k, d_c.value) else { return None };
    let time = k.value(up).op.folds().filter(|t| k.value(down).op.folds() == Some(*t))?;
    // The states are what the gradient of u sums over.
    let before = |v: KValue, scan: KValue| *op(k, v) == KOp::Prev(time) && args(k, v)[0] == scan;
    let slope = |v: KValue| binary(k, v, Binary::Add).is_some_and(|(l, r)| before(l, down) && r == from_y);
    let carried = |v: KValue| binary(k, v, Binary::Mul).is_some_and(|(l, r)| before(l, up) && r == decay);
    let d_exp = |v: KValue| binary(k, v, Binary::Mul).is_some_and(|(l, r)| slope(l) && carried(r));
    let sum = |v: KValue, x: &dyn Fn(KValue) -> bool, y: KValue| match (op(k, v), args(k, v)) {
        (KOp::Dot(n), [l, r]) if x(*l) && *r == y => Some(*n),
        _ => None,
    };
    let [_, input, _] = *args(k, up) else { return None };
    let (driven, b) = binary(k, input, Binary::Mul)?;
    let (dt, u) = binary(k, driven, Binary::Mul)?;
    let d_u = stored(k, |v| binary(k, v, Binary::Mul).is_some_and(|(l, r)| sum(l, &slope, b).is_some() && r == dt))?;
    let state = sum(args(k, d_u.value)[0], &slope, b)?;
    let scan = scan_of(k, up, |_, _| Some([tile, state])).filter(|s| s.decay == decay)?;
    let d_b = stored(k, |v| sum(v, &slope, driven) == Some(tile))?;
    let d_a = stored(k, |v| sum(v, &d_exp, dt) == Some(time))?;
    let d_dt = stored(k, |v| match (op(k, v), args(k, v)) {
        (KOp::Fma, [l, m, r]) => sum(*l, &slope, b) == Some(state) && *m == u && sum(*r, &d_exp, scan.a) == Some(state),
        _ => false,
    })?;
    let kept = stored(k, |v| before(v, up))?;
    let (operand, view) = k.value(kept.store).access()?;
    let (chunk, chunk_stride) = chunks(k, time, view)?;
    let (starts, kept) = ((operand, view.clone()), kept.store);
    let grad = Grad { scan, c, back: down, dy, later, starts, chunk, chunk_stride, kept, d_dt, d_a, d_b, d_c, d_u };
    is_sound(k, &grad).then_some(grad)
}

/// Nothing else is stored, and everything can be evaluated where it is needed.
fn is_sound(k: &Kernel, g: &Grad) -> bool {
    let s = &g.scan;
    let units: Vec<KAxis> = k.units.iter().map(|u| u.0).collect();
    let sinks = k.ids().filter(|v| k.value(*v).is_sink()).count() == 6;
    let ends = [s.first, g.later].iter().all(|v| s.within(k, *v, &[s.tile, s.state]));
    let of_steps = s.within(k, g.dy, &[s.time, s.tile]) && s.within(k, g.c, &[s.time, s.state]);
    let plain = [g.d_dt, g.d_a, g.d_b, g.d_c, g.d_u].iter().all(|s| {
        let access = k.value(s.store).access();
        access.is_some_and(|(_, view)| view.guard.is_none() && view.dynamic.is_empty())
    });
    s.is_sound(k) && s.units == sorted(units) && sinks && ends && of_steps && plain && g.chunk > 0 && g.chunk % 8 == 0
}

fn sorted(mut axes: Vec<KAxis>) -> Vec<KAxis> {
    axes.sort();
    axes
}
