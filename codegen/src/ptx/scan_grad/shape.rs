//! What of a kernel is the gradient of a selective scan: states forwards, kept at the start of each chunk, and their
//! gradients backwards.
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

pub struct Shape {
    /// Axes of the blocks, outer ones first; the channels of a block; what is scanned along; and the states.
    pub units: Vec<KAxis>,
    pub tile: KAxis,
    pub time: KAxis,
    pub state: KAxis,
    /// h = exp(dt·a)·h + dt·u·b, and the gradient of what c makes of the states.
    pub dt: KValue,
    pub a: KValue,
    pub b: KValue,
    pub c: KValue,
    pub u: KValue,
    pub dy: KValue,
    /// The state before the first step, and decay · G after the last one.
    pub first: KValue,
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

/// The kernel as a gradient of a selective scan, if it is one. The answer does not depend on lengths, but for that of the
/// states.
pub fn shape(k: &Kernel) -> Option<Shape> {
    if k.axes.iter().any(|a| a.lo.is_some() || a.hi.is_some()) || k.units.iter().any(|u| u.1 != 1) {
        return None;
    }
    let up = only(k, |o| matches!(o, KOp::Scan { reverse: false, .. }))?;
    let down = only(k, |o| matches!(o, KOp::Scan { reverse: true, .. }))?;
    let time = k.value(up).op.folds().filter(|t| k.value(down).op.folds() == Some(*t))?;
    let ([decay, input, first], [same, decayed, later]) = (args(k, up), args(k, down)) else { return None };
    let exponent = (*op(k, *decay) == KOp::Unary(Unary::Exp) && decay == same).then(|| args(k, *decay)[0])?;
    let (dt, a) = binary(k, exponent, Binary::Mul)?;
    let (driven, b) = binary(k, *input, Binary::Mul)?;
    let (_, u) = binary(k, driven, Binary::Mul).filter(|x| x.0 == dt)?;
    let (_, from_y) = binary(k, *decayed, Binary::Mul).filter(|x| x.0 == *decay)?;
    let (dy, c) = binary(k, from_y, Binary::Mul)?;

    let before = |v: KValue, scan: KValue| *op(k, v) == KOp::Prev(time) && args(k, v)[0] == scan;
    let dot = |v: KValue, axis: KAxis, x: &dyn Fn(KValue) -> bool, y: KValue| {
        *op(k, v) == KOp::Dot(axis) && matches!(args(k, v), [l, r] if x(*l) && *r == y)
    };
    let slope = |v: KValue| binary(k, v, Binary::Add).is_some_and(|(l, r)| before(l, down) && r == from_y);
    let carried = |v: KValue| binary(k, v, Binary::Mul).is_some_and(|(l, r)| before(l, up) && r == *decay);
    let d_exp = |v: KValue| binary(k, v, Binary::Mul).is_some_and(|(l, r)| slope(l) && carried(r));
    let d_c = stored(k, |v| matches!(op(k, v), KOp::Dot(_)) && args(k, v) == [up, dy])?;
    let KOp::Dot(tile) = *op(k, d_c.value) else { return None };
    let d_b = stored(k, |v| dot(v, tile, &slope, driven))?;
    let d_a = stored(k, |v| dot(v, time, &d_exp, dt))?;
    let over_states = |v: KValue, x: &dyn Fn(KValue) -> bool, y| match op(k, v) {
        KOp::Dot(n) if dot(v, *n, x, y) => Some(*n),
        _ => None,
    };
    let through_b = |v: KValue| over_states(v, &slope, b);
    let d_u = stored(k, |v| binary(k, v, Binary::Mul).is_some_and(|(l, r)| through_b(l).is_some() && r == dt))?;
    let d_dt = stored(k, |v| match (op(k, v), args(k, v)) {
        (KOp::Fma, [l, m, r]) => through_b(*l).is_some() && *m == u && over_states(*r, &d_exp, a).is_some(),
        _ => false,
    })?;
    let state = through_b(args(k, d_u.value)[0])?;
    let kept = stored(k, |v| before(v, up))?;
    let (operand, view) = k.value(kept.store).access()?;
    let (chunk, chunk_stride) = chunks(k, time, view)?;
    let starts = (operand, view.clone());
    let units = k.units.iter().map(|u| u.0).collect();
    let (first, later) = (*first, *later);
    let shape = Shape {
        units,
        tile,
        time,
        state,
        dt,
        a,
        b,
        c,
        u,
        dy,
        first,
        later,
        starts,
        chunk,
        chunk_stride,
        kept: kept.store,
        d_dt,
        d_a,
        d_b,
        d_c,
        d_u,
    };
    is_sound(k, &shape).then_some(shape)
}

/// Nothing else is stored, and everything can be evaluated where it is needed.
fn is_sound(k: &Kernel, s: &Shape) -> bool {
    let units: KAxes = s.units.iter().copied().collect();
    let own = [s.tile, s.time, s.state];
    let all = own.into_iter().fold(units, KAxes::with);
    let distinct = all.iter().count() == s.units.len() + own.len() && all.iter().count() == k.axes.len();
    let sinks = k.ids().filter(|v| k.value(*v).is_sink()).count() == 6;
    let within = |v: KValue, axes: &[KAxis]| {
        let axes = axes.iter().copied().fold(units, KAxes::with);
        axes.contains(k.value(v).axes) && cone(k, &[v], &[]).iter().all(|v| is_elementwise(k, *v))
    };
    let of_channel = [s.dt, s.u, s.dy].into_iter().all(|v| within(v, &[s.time, s.tile]));
    let of_state = [s.b, s.c].into_iter().all(|v| within(v, &[s.time, s.state]));
    let of_both = [s.a, s.first, s.later].into_iter().all(|v| within(v, &[s.tile, s.state]));
    let plain = [s.d_dt, s.d_a, s.d_b, s.d_c, s.d_u].iter().all(|s| {
        let access = k.value(s.store).access();
        access.is_some_and(|(_, view)| view.guard.is_none() && view.dynamic.is_empty())
    });
    distinct && sinks && of_channel && of_state && of_both && plain && s.chunk > 0 && s.chunk % 8 == 0
}
