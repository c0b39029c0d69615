//! The losses. A part whose input is degenerate (a sequence no longer than the window, no variance) counts as 0.
use super::Cx;
use super::gate::Paths;
use super::memory::Memory;
use super::regime::Regime;
use crate::blocks::{
    clamp, entropy, gelu, linear, log_sum_exp, mean_over_targets, one_hot, sigmoid, slice_or_rename, unit,
};
use crate::cx::Axes;
use lolm_ir::op::{Op, Unary};
use lolm_ir::{AxisId, ValueId};

/// Parts by name with their weights, in the order of the sum; `total` is tok + Σ λ · part.
pub struct Losses {
    pub parts: Vec<(&'static str, ValueId)>,
    pub total: ValueId,
}

/// All losses that the parts of the model have. `token` is the loss of each token, `[b, t]`.
pub fn losses(cx: &mut Cx, paths: &Paths, gate: Option<ValueId>, token: ValueId, targets: ValueId) -> Losses {
    let weights = cx.spec.loss.clone();
    let Axes { b, t, .. } = cx.ax;
    cx.scope("loss.tok");
    let tok = mean_over_targets(cx, b, t, token, targets);
    let mut weighted: Vec<(&'static str, f64, ValueId)> = vec![];
    if let Some(z) = paths.z {
        let x = future(cx, paths.h, z);
        weighted.push(("future", weights.lambda_future, bounded(cx, x)));
    }
    if let Some(r) = &paths.regime {
        let pairs = Pairs::new(cx);
        let x = changepoint(cx, &pairs, paths.h, r);
        weighted.push(("changepoint", weights.lambda_changepoint, bounded(cx, x)));
        let x = regime(cx, &pairs, r);
        weighted.push(("regime", weights.lambda_regime, bounded(cx, x)));
    }
    if let (Some(g), Some(z)) = (gate, paths.z) {
        let x = competitive(cx, g, paths.h, z);
        weighted.push(("competitive", weights.lambda_competitive, bounded(cx, x)));
        weighted.push(("manifest", weights.lambda_manifest, mean_gate(cx, g)));
    }
    if let Some(m) = &paths.memory {
        let x = memory_entropy(cx, m);
        weighted.push(("mem", weights.lambda_mem, bounded(cx, x)));
    }
    cx.scope("loss.total");
    let mut total = tok;
    for (_, lambda, x) in &weighted {
        let x = cx.scale(*x, *lambda as f32);
        total = cx.add(total, x);
    }
    let parts = weighted.into_iter().map(|(name, _, x)| (name, x));
    Losses { parts: std::iter::once(("tok", tok)).chain(parts).collect(), total }
}

/// A part counts for at most 50 either way.
fn bounded(cx: &mut Cx, x: ValueId) -> ValueId {
    clamp(cx, x, -50.0, 50.0)
}

/// The first `T - k` positions and the last, as one axis; nothing if no position has a future.
fn futures(cx: &mut Cx) -> Option<(usize, AxisId)> {
    let (k, tokens) = (cx.spec.loss.future_window, cx.tokens());
    (tokens > k).then(|| (k, cx.axis("fut", tokens - k)))
}

/// InfoNCE: z at t against h at t + k, within a sequence.
fn future(cx: &mut Cx, h: ValueId, z: ValueId) -> ValueId {
    cx.scope("loss.future");
    let Axes { b, t, .. } = cx.ax;
    let (k, tokens, spec) = (cx.spec.loss.future_window, cx.tokens(), cx.spec.loss.clone());
    let proj = cx.axis("proj", spec.cpc_proj_dim);
    let z_head = Head::new(cx, "loss.cpc_z_proj");
    let h_head = Head::new(cx, "loss.cpc_h_proj");
    if tokens <= k {
        return cx.num(0.0);
    }
    // Only the first positions enter the comparison, so only they go through the heads.
    let n = (tokens - k).min(spec.cpc_max_positions);
    let (rows, columns) = (cx.axis("cpc", n), cx.axis("cpc.to", n));
    let a = slice_or_rename(cx, z, t, 0, rows); // [b, cpc, d]
    let h = cx.stop_gradient(h);
    let y = slice_or_rename(cx, h, t, k, columns); // [b, cpc.to, d]
    let a = z_head.apply(cx, a); // [b, cpc, proj]
    let y = h_head.apply(cx, y); // [b, cpc.to, proj]
    let (a, y) = (unit(cx, proj, a), unit(cx, proj, y));
    let logits = similarity(cx, proj, a, y); // [b, cpc, cpc.to]
    let lse = log_sum_exp(cx, columns, logits); // [b, cpc]
    let own = cx.rename(y, columns, rows); // [b, cpc, proj]
    let picked = similarity(cx, proj, a, own); // [b, cpc], the diagonal of logits
    let loss = cx.sub(lse, picked);
    cx.mean(&[b, rows], loss)
}

/// `a·y / temperature`, clamped to ±30.
fn similarity(cx: &mut Cx, proj: AxisId, a: ValueId, y: ValueId) -> ValueId {
    let temperature = cx.spec.loss.cpc_temperature as f32;
    let dot = cx.dot(&[proj], a, y);
    let temperature = cx.num(temperature);
    let scaled = cx.div(dot, temperature);
    clamp(cx, scaled, -30.0, 30.0)
}

/// A two-layer map with GELU: d → max(4p, d/2) → p.
struct Head {
    first: (ValueId, ValueId),  // [hid, d], [hid]
    second: (ValueId, ValueId), // [proj, hid], [proj]
    hidden: AxisId,
}

impl Head {
    fn new(cx: &mut Cx, name: &str) -> Head {
        let p = cx.spec.loss.cpc_proj_dim;
        let width = (4 * p).max(cx.spec.d_model / 2);
        let (hidden, proj) = (cx.axis("hid", width), cx.axis("proj", p));
        let first = Head::layer(cx, &format!("{name}.0"), hidden, cx.ax.d);
        let second = Head::layer(cx, &format!("{name}.2"), proj, hidden);
        Head { first, second, hidden }
    }

    fn layer(cx: &mut Cx, name: &str, out: AxisId, inp: AxisId) -> (ValueId, ValueId) {
        let weight = cx.map(&format!("{name}.weight"), vec![out], vec![inp]);
        (weight, cx.bias(&format!("{name}.bias"), out))
    }

    fn apply(&self, cx: &mut Cx, x: ValueId) -> ValueId {
        let d = cx.ax.d;
        let x = linear(cx, &[d], x, self.first.0, Some(self.first.1)); // [.., hid]
        let x = gelu(cx, x);
        linear(cx, &[self.hidden], x, self.second.0, Some(self.second.1)) // [.., proj]
    }
}

/// Neighbouring positions: `t-1` and `t` as one axis, if there are two tokens.
struct Pairs {
    axis: Option<AxisId>,
}

impl Pairs {
    fn new(cx: &mut Cx) -> Pairs {
        let n = cx.tokens();
        Pairs { axis: (n > 1).then(|| cx.axis("pairs", n - 1)) }
    }

    /// cos(x_t, x_{t-1}) over `features`. `[b, pairs]`
    fn cosine(&self, cx: &mut Cx, pairs: AxisId, features: AxisId, x: ValueId) -> ValueId {
        let t = cx.ax.t;
        let x = unit(cx, features, x);
        let (now, before) = (cx.slice(x, t, 1, pairs), cx.slice(x, t, 0, pairs));
        let product = cx.mul(now, before);
        cx.sum(&[features], product)
    }

    /// 1 - cos(x_t, x_{t-1}) over `features`, as half the squared distance of the unit vectors: a difference of nearly
    /// equal numbers would keep no digits of a small turn. `[b, pairs]`
    fn turn(&self, cx: &mut Cx, pairs: AxisId, features: AxisId, x: ValueId) -> ValueId {
        let t = cx.ax.t;
        let x = unit(cx, features, x);
        let (now, before) = (cx.slice(x, t, 1, pairs), cx.slice(x, t, 0, pairs));
        let way = cx.sub(now, before); // [b, pairs, features]
        let square = cx.mul(way, way);
        let sum = cx.sum(&[features], square);
        cx.scale(sum, 0.5)
    }
}

/// Minus the correlation over t of the turns of h (stopped) and of p, mean over the sequences in which both vary.
fn changepoint(cx: &mut Cx, pairs: &Pairs, h: ValueId, r: &Regime) -> ValueId {
    cx.scope("loss.changepoint");
    let Axes { b, d, .. } = cx.ax;
    let Some(axis) = pairs.axis else { return cx.num(0.0) };
    let h = cx.stop_gradient(h);
    let turn = |cx: &mut Cx, features: AxisId, x: ValueId| {
        let turn = pairs.turn(cx, axis, features, x); // [b, pairs]
        let mean = cx.mean(&[axis], turn);
        cx.sub(turn, mean)
    };
    let ch = turn(cx, d, h); // [b, pairs]
    let cp = turn(cx, r.codes, r.probs); // [b, pairs]
    let product = |cx: &mut Cx, x: ValueId, y: ValueId| {
        let xy = cx.mul(x, y);
        cx.sum(&[axis], xy) // [b]
    };
    let (hh, pp, hp) = (product(cx, ch, ch), product(cx, cp, cp), product(cx, ch, cp));
    // The floor is far below the limit of what counts; it keeps the gradient of the root finite where nothing varies.
    let square = cx.mul(hh, pp);
    let floor = cx.num(1e-24);
    let square = cx.max(square, floor);
    let den = cx.unary(Unary::Sqrt, square); // [b]
    let limit = cx.num(1e-6);
    let varies = cx.lt(limit, den); // bool[b]
    let eps = cx.num(1e-8);
    let safe = cx.add(den, eps);
    let corr = cx.div(hp, safe);
    let (one, zero) = (cx.num(1.0), cx.num(0.0));
    let corr = cx.select(varies, corr, zero); // [b]
    let count = cx.select(varies, one, zero); // [b]
    let (sum, n) = (cx.sum(&[b], corr), cx.sum(&[b], count));
    let n = cx.max(n, one);
    let mean = cx.div(sum, n);
    cx.neg(mean)
}

/// `λ_balance · n · Σ_c mean(p)_c · mean(onehot argmax p)_c - mean entropy(p) - λ_sticky · mean cos(p_t, p_{t-1})`
fn regime(cx: &mut Cx, pairs: &Pairs, r: &Regime) -> ValueId {
    cx.scope("loss.regime");
    let (Axes { b, t, .. }, Regime { probs, codes, .. }) = (cx.ax, *r);
    let n = cx.graph().len(codes) as f64;
    let (balance, sticky) = (cx.spec.loss.lambda_balance, cx.spec.loss.lambda_sticky);
    let share = cx.mean(&[b, t], probs); // [o]
    let code = argmax(cx, r); // i32[b, t]
    let hot = one_hot(cx, codes, code); // [b, t, o]
    let route = cx.mean(&[b, t], hot); // [o]
    let even = cx.mul(share, route);
    let even = cx.sum(&[codes], even);
    let even = cx.scale(even, (balance * n) as f32);
    let ent = entropy(cx, codes, probs); // [b, t]
    let ent = cx.mean(&[b, t], ent);
    let loss = cx.sub(even, ent);
    let Some(axis) = pairs.axis else { return loss };
    let cos = pairs.cosine(cx, axis, codes, probs); // [b, pairs]
    let cos = cx.mean(&[b, axis], cos);
    let cos = cx.scale(cos, sticky as f32);
    cx.sub(loss, cos)
}

/// The code of the largest probability. `i32[b, t]`
pub fn argmax(cx: &mut Cx, r: &Regime) -> ValueId {
    cx.op(Op::ArgMax(r.codes), &[r.probs])
}

/// `mean (mean_d g_t - σ(5 · clamp(cos(h_t, h_{t+k}) - cos(z_t, h_{t+k}), ±5)))²` with h and z stopped.
fn competitive(cx: &mut Cx, g: ValueId, h: ValueId, z: ValueId) -> ValueId {
    cx.scope("loss.competitive");
    let Axes { b, t, d, .. } = cx.ax;
    let Some((k, fut)) = futures(cx) else { return cx.num(0.0) };
    let (h, z) = (cx.stop_gradient(h), cx.stop_gradient(z));
    let (h, z) = (unit(cx, d, h), unit(cx, d, z)); // [b, t, d]
    let later = cx.slice(h, t, k, fut); // [b, fut, d]
    let likeness = |cx: &mut Cx, x: ValueId| {
        let x = cx.slice(x, t, 0, fut);
        let xy = cx.mul(x, later);
        cx.sum(&[d], xy) // [b, fut]
    };
    let (uh, uz) = (likeness(cx, h), likeness(cx, z));
    let lead = cx.sub(uh, uz);
    let lead = clamp(cx, lead, -5.0, 5.0);
    let lead = cx.scale(lead, 5.0);
    let wanted = sigmoid(cx, lead); // [b, fut]
    let g = cx.mean(&[d], g); // [b, t]
    let g = cx.slice(g, t, 0, fut); // [b, fut]
    let miss = cx.sub(g, wanted);
    let square = cx.mul(miss, miss);
    cx.mean(&[b, fut], square)
}

/// `mean g`
pub fn mean_gate(cx: &mut Cx, g: ValueId) -> ValueId {
    cx.scope("loss.manifest");
    let Axes { b, t, d, .. } = cx.ax;
    cx.mean(&[b, t, d], g)
}

/// Mean entropy of the bank-averaged read attention over log n_slots; a single slot has none.
pub fn memory_entropy(cx: &mut Cx, m: &Memory) -> ValueId {
    cx.scope("loss.mem");
    let Axes { b, t, .. } = cx.ax;
    let slots = cx.graph().len(m.m);
    if slots == 1 {
        return cx.num(0.0);
    }
    let ent = entropy(cx, m.m, m.attn); // [b, t]
    let mean = cx.mean(&[b, t], ent);
    cx.scale(mean, (1.0 / (slots as f64).ln()) as f32)
}
