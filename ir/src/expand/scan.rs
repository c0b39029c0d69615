//! Expansions of the selective scan, its gradient, and the causal convolution.
use super::Expander;
use crate::axis::AxisId;
use crate::graph::ValueId;
use crate::op::Op;

impl Expander {
    /// exp(dt a) and S, both over the axes of the states and time.
    fn states(&mut self, x: &[ValueId], time: AxisId, init: &[ValueId]) -> (ValueId, ValueId) {
        let [dt, a, b, _, u] = [x[0], x[1], x[2], x[3], x[4]];
        let rate = self.b.mul(dt, a);
        let decay = self.b.exp(rate);
        let dt_b = self.b.mul(dt, b);
        let inflow = self.b.mul(dt_b, u);
        let mut args = vec![decay, inflow];
        args.extend(init);
        let s = self.b.op(Op::Recurrence { axis: time, reverse: false }, &args);
        (decay, s)
    }

    pub(super) fn selective_scan(&mut self, x: &[ValueId], time: AxisId, state: AxisId) -> Vec<ValueId> {
        let (_, s) = self.states(x, time, &x[5..]);
        let y = self.b.dot(&[state], s, x[3]);
        let last = self.b.at(s, time, self.len(time) - 1);
        vec![y, last]
    }

    /// With G_t the gradient of S_t: G_t = c_t dy_t + exp(dt_{t+1} a) G_{t+1}, a recurrence from the end.
    pub(super) fn selective_scan_grad(&mut self, x: &[ValueId], time: AxisId, state: AxisId) -> Vec<ValueId> {
        let [dt, a, b, c, u] = [x[0], x[1], x[2], x[3], x[4]];
        let (decay, s) = self.states(x, time, &[]);
        let all = self.axes(s);
        let dy = self.spread_to(x[5], all.union(self.axes(c)).without(state));
        let inflow = self.contract_to(c, dy, all);
        let next_decay = self.b.shift(decay, time, -1);
        let g = self.b.op(Op::Recurrence { axis: time, reverse: true }, &[next_decay, inflow]);

        let before = self.b.shift(s, time, 1);
        let decayed = self.b.mul(decay, before); // exp(dt_t a) S_{t-1}
        let g_decayed = self.b.mul(g, decayed);
        let g_dt = self.b.mul(g, dt);

        let da = self.b.mul(g_decayed, dt);
        let db = self.b.mul(g_dt, u);
        let du = self.b.mul(g_dt, b);
        let through_decay = self.b.mul(g_decayed, a);
        let bu = self.b.mul(b, u);
        let through_inflow = self.b.mul(g, bu);
        let d_dt = self.b.add(through_decay, through_inflow);
        let dc = self.contract_to(s, dy, self.axes(c));
        let [d_dt, da, db, du] = [(d_dt, dt), (da, a), (db, b), (du, u)].map(|(d, of)| {
            let axes = self.axes(of);
            self.reduce_to(d, axes)
        });
        vec![d_dt, da, db, dc, du]
    }

    /// A sum over taps of the shifted input: as many terms as the filter is wide.
    pub(super) fn causal_conv(&mut self, args: &[ValueId], time: AxisId, tap: AxisId) -> ValueId {
        let taps = self.len(tap);
        let terms = (0..taps).map(|j| {
            let weight = self.b.at(args[1], tap, j);
            let x = self.b.shift(args[0], time, (taps - 1 - j) as i64);
            self.b.mul(weight, x)
        });
        let terms: Vec<ValueId> = terms.collect();
        let terms = terms.into_iter().chain(args.get(2).copied());
        terms.reduce(|sum, x| self.b.add(sum, x)).unwrap_or(args[0])
    }
}
