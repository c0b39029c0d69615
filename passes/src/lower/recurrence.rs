//! Gated recurrences (RG-LRU) and their gradients: one scan along time each, with the gates' values computed inside it
//! where nothing else needs them.
use super::Lowering;
use super::index::Map;
use super::storage::Storage;
use super::stream::{Lowered, Stream};
use crate::cluster::GroupId;
use lolm_ir::axis::AxisId;
use lolm_ir::kernel::{KAxis, KOp, KValue};
use lolm_ir::op::{Binary, Op, Unary};
use lolm_ir::plan::Kind;
use lolm_ir::{DType, ValueId};

/// The bound of the root's derivative, as the least value of four times what is under the root.
const LEAST: f32 = 1e-6;

/// The parts of a step, as kernel values.
struct Gates {
    /// exp(log_a) and 1 - a², as they are without a reset.
    a: KValue,
    rest: KValue,
    x: KValue,
    reset: KValue,
    /// What the state and x are multiplied by: 0 and 1 at a reset.
    decay: KValue,
    scale: KValue,
}

impl Gates {
    fn new(s: &mut Stream, args: &[ValueId], map: &Map) -> Self {
        let [log_a, x, reset] = [0, 1, 2].map(|i| s.value(args[i], map, None));
        let a = s.unary(Unary::Exp, log_a);
        let minus = s.unary(Unary::Neg, a);
        let (zero, one) = (s.float(0.0), s.float(1.0));
        let rest = s.push(KOp::Fma, &[minus, a, one], DType::F32);
        let root = s.unary(Unary::Sqrt, rest);
        let (decay, scale) = (s.select(reset, zero, a), s.select(reset, one, root));
        Gates { a, rest, x, reset, decay, scale }
    }

    /// The derivative of a step's state by log_a, where `before` is the state before it.
    fn rise(&self, s: &mut Stream, before: KValue) -> KValue {
        let (zero, four, least) = (s.float(0.0), s.float(4.0), s.float(LEAST));
        let safe = s.binary(Binary::Mul, four, self.rest);
        let safe = s.binary(Binary::Max, safe, least);
        let slope = s.unary(Unary::Rsqrt, safe);
        let bend = s.binary(Binary::Mul, self.a, slope);
        let bend = s.binary(Binary::Add, bend, bend); // 2 a slope
        let lost = s.binary(Binary::Mul, self.x, bend);
        let rise = s.binary(Binary::Sub, before, lost);
        let rise = s.binary(Binary::Mul, self.a, rise);
        s.select(self.reset, zero, rise)
    }
}

impl Lowering<'_> {
    fn stored(&self, v: ValueId) -> Result<[Storage; 2], String> {
        let stored: Vec<Storage> = self.cx.storage[v.0 as usize].iter().flatten().cloned().collect();
        stored.try_into().map_err(|_| "bug: a recurrence without storage".to_string())
    }

    pub(super) fn gated_recurrence(&mut self, id: GroupId, v: ValueId) -> Result<(), String> {
        let n = self.cx.g.node(v);
        let Op::GatedRecurrence { time } = n.op else { return Err("bug: not a gated recurrence".into()) };
        let [h_at, last_at] = self.stored(v)?;
        let mut s = Stream::new(&self.cx, Some(id));
        let (map, t) = (s.identity(n.types[0].axes), s.axis(time));
        let gates = Gates::new(&mut s, &n.args, &map);
        let drive = s.binary(Binary::Mul, gates.scale, gates.x);
        let init = match n.args.get(3) {
            Some(i) => s.value(*i, &map, None),
            None => s.float(0.0),
        };
        let h = s.push(KOp::Scan { axis: t, reverse: false }, &[gates.decay, drive, init], DType::F32);
        s.store(&h_at, &map, h);
        if self.uses_part(v, 1) {
            let last = s.push(KOp::Last(t), &[h], DType::F32);
            s.store(&last_at, &map, last);
        }
        let lowered = s.finish();
        self.scan_launch("gated_recurrence", v, time, lowered);
        Ok(())
    }

    /// With G_t the gradient of h_t: G_t = dh_t + B_{t+1} and B_t = a_t G_t, a scan from the end.
    pub(super) fn gated_recurrence_grad(&mut self, id: GroupId, v: ValueId) -> Result<(), String> {
        let n = self.cx.g.node(v);
        let Op::GatedRecurrenceGrad { time } = n.op else { return Err("bug: not a recurrence's gradient".into()) };
        let [log_a_at, x_at] = self.stored(v)?;
        let mut s = Stream::new(&self.cx, Some(id));
        let (map, t) = (s.identity(n.types[0].axes), s.axis(time));
        let gates = Gates::new(&mut s, &n.args, &map);
        let dh = s.value(n.args[4], &map, None);
        let later = carried(&mut s, t, gates.decay, dh);
        let g = s.binary(Binary::Add, later, dh);
        let dx = s.binary(Binary::Mul, g, gates.scale);
        s.store(&x_at, &map, dx);

        let back = map.moved(time, time, |i| i.plus(-1));
        let before = s.masked(n.args[3], &back, time, None);
        let rise = gates.rise(&mut s, before);
        let d_log_a = s.binary(Binary::Mul, g, rise);
        s.store(&log_a_at, &map, d_log_a);
        let lowered = s.finish();
        self.scan_launch("gated_recurrence_grad", v, time, lowered);
        Ok(())
    }

    fn scan_launch(&mut self, what: &str, v: ValueId, time: AxisId, l: Lowered) {
        let (g, axes) = (self.cx.g, self.cx.g.node(v).types[0].axes);
        let name = format!("{what}_{}x{}", g.len(time), g.elements(axes.without(time)));
        self.launch(name, Kind::Scan, l);
    }
}

/// a_{t+1} G_{t+1} at each step t, of the scan from the end.
fn carried(s: &mut Stream, t: KAxis, decay: KValue, dh: KValue) -> KValue {
    let zero = s.float(0.0);
    let here = s.binary(Binary::Mul, decay, dh);
    let back = s.push(KOp::Scan { axis: t, reverse: true }, &[decay, here, zero], DType::F32);
    s.push(KOp::Prev(t), &[back], DType::F32)
}
