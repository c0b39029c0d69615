//! Grouped-query attention with half-split RoPE, over a whole sequence or over keys that are kept from step to step.
use super::{concat, linear, slice_or_rename, softmax, stack};
use crate::cx::{Axes, Cx};
use crate::spec::{AttentionSpec, RopeSpec};
use lolm_ir::graph::{Dim, Init, RowKind, Table};
use lolm_ir::op::Binary;
use lolm_ir::{AxisId, Op, ValueId};

/// The axes of the heads.
#[derive(Clone)]
struct Heads {
    /// Heads of keys and values.
    h: AxisId,
    /// Query heads of a key head: axis r, if there are several.
    group: Vec<AxisId>,
    /// Features of query and key: i if nothing turns, `(p, i)` if all of it turns, q if a part does.
    over: Vec<AxisId>,
    /// Features of a value.
    j: AxisId,
    turns: Option<Turns>,
}

/// How the features of a head are seen by RoPE: pairs along p, one for each i; the rest g stays.
#[derive(Clone, Copy)]
struct Turns {
    p: AxisId,
    i: AxisId,
    rest: Option<Rest>,
}

/// A head of which a part is turned: all of its features, the turned ones, and the others.
#[derive(Clone, Copy)]
struct Rest {
    all: AxisId,
    turned: AxisId,
    kept: AxisId,
}

/// Angles of the tokens. `[t, i]`, or `[b, t, i]` when they go on from states.
#[derive(Clone, Copy)]
struct Rotation {
    cos: ValueId,
    sin: ValueId,
}

/// What the layers share: the axes, the rotation, which keys a query sees, and where new keys are kept.
#[derive(Clone)]
pub struct Shared {
    heads: Heads,
    rotation: Option<Rotation>,
    /// `bool[t, s]` or `bool[b, t, s]`
    seen: ValueId,
    /// `i32[b, t]`: the slot of each token among the kept keys, when tokens go on from states.
    slots: Option<ValueId>,
}

/// Names of the four maps of a layer, and which have a bias.
pub struct Names {
    /// What stands before `q_proj` and so on, `model.layers.0.self_attn`.
    pub prefix: String,
    pub qkv_bias: bool,
    pub out_bias: bool,
    /// The layer, for the names of the states.
    pub layer: usize,
}

/// The heads, the rotation and the mask of all layers of a program.
pub fn shared<S>(cx: &mut Cx<S>, spec: &AttentionSpec, rope: Option<&RopeSpec>) -> Shared {
    cx.scope("positions");
    let group = spec.heads / spec.kv_heads;
    let turns = rope.map(|r| turns(cx, spec.head_dim, r.dim));
    let heads = Heads {
        h: cx.axis("h", spec.kv_heads),
        group: if group > 1 { vec![cx.axis("r", group)] } else { vec![] },
        over: match turns {
            Some(Turns { rest: Some(rest), .. }) => vec![rest.all],
            Some(Turns { p, i, rest: None }) => vec![p, i],
            None => vec![cx.axis("i", spec.head_dim)],
        },
        j: cx.axis("j", spec.head_dim),
        turns,
    };
    let rotation = rope.and_then(|r| heads.turns.map(|x| rotation(cx, r, x.i)));
    let positions = cx.positions(); // [t] or [b, t]
    let ring = cx.pos.is_some() && cx.graph().len(cx.ax.s) < cx.context;
    let seen = match (spec.window, ring) {
        (Some(window), true) => in_ring(cx, positions, window),
        (window, _) => visible(cx, positions, window),
    };
    let slots = cx.pos.map(|_| match ring {
        true => {
            let kept = cx.graph().len(cx.ax.s);
            let len = cx.int(kept as i32);
            cx.binary(Binary::Rem, positions, len) // [b, t]
        }
        false => positions,
    });
    Shared { heads, rotation, seen, slots }
}

fn turns<S>(cx: &mut Cx<S>, head_dim: usize, turned: usize) -> Turns {
    let (p, i) = (cx.axis("p", 2), cx.axis("i", turned / 2));
    let rest = (turned < head_dim).then(|| Rest {
        all: cx.axis("q", head_dim),
        turned: cx.axis("q.turned", turned / 2),
        kept: cx.axis("q.kept", head_dim - turned),
    });
    Turns { p, i, rest }
}

fn rotation<S>(cx: &mut Cx<S>, rope: &RopeSpec, i: AxisId) -> Rotation {
    let (t, context) = (cx.ax.t, cx.context);
    let (theta, scaling) = (rope.theta, rope.scaling);
    let place = cx.axis("place", context);
    let dims = [vec![place], vec![i]];
    let cos = cx.table("rope.cos", Table::RopeCos { theta, scaling }, &dims); // [place, i]
    let sin = cx.table("rope.sin", Table::RopeSin { theta, scaling }, &dims); // [place, i]
    let positions = cx.positions();
    let turn = |cx: &mut Cx<S>, table| match cx.pos {
        None => slice_or_rename(cx, table, place, 0, t), // [t, i]
        Some(_) => cx.gather(table, place, positions),   // [b, t, i]
    };
    Rotation { cos: turn(cx, cos), sin: turn(cx, sin) }
}

/// Key s stands at position s: it is seen at and after it, within the window.
fn visible<S>(cx: &mut Cx<S>, positions: ValueId, window: Option<usize>) -> ValueId {
    let s = cx.ax.s;
    let key = cx.iota(s); // [s]
    let before = cx.le(key, positions);
    let Some(window) = window else { return before };
    let width = cx.int(window as i32);
    let from = cx.sub(positions, width);
    let near = cx.lt(from, key);
    cx.binary(Binary::And, before, near)
}

/// Slot s holds the latest position that is s modulo the number of slots: seen from a query, the one of the smallest
/// age, which is within the window, and not before the start.
fn in_ring<S>(cx: &mut Cx<S>, positions: ValueId, window: usize) -> ValueId {
    let s = cx.ax.s;
    let slots = cx.graph().len(s) as i32;
    let slot = cx.iota(s); // [s]
    let len = cx.int(slots);
    let apart = cx.sub(positions, slot); // [b, t, s]
    let age = cx.binary(Binary::Rem, apart, len);
    let width = cx.int(window as i32);
    let near = cx.lt(age, width);
    let written = cx.le(age, positions);
    cx.binary(Binary::And, near, written)
}

impl Heads {
    /// The dimension of all query heads: those of one key head stand together.
    fn query(&self) -> Dim {
        [&[self.h], self.group.as_slice()].concat()
    }
}

/// The half-split rotary form: the pair along p, `(x_i, x_{i + n})`, turns by the angle of i.
fn rope<S>(cx: &mut Cx<S>, x: ValueId, turns: Turns, r: Rotation) -> ValueId {
    let turn = |cx: &mut Cx<S>, x0: ValueId, x1: ValueId| {
        let (c0, s1) = (cx.mul(x0, r.cos), cx.mul(x1, r.sin));
        let (s0, c1) = (cx.mul(x0, r.sin), cx.mul(x1, r.cos));
        [cx.sub(c0, s1), cx.add(s0, c1)]
    };
    let Some(rest) = turns.rest else {
        let (x0, x1) = (cx.at(x, turns.p, 0), cx.at(x, turns.p, 1));
        let halves = turn(cx, x0, x1);
        return stack(cx, turns.p, &halves);
    };
    let n = cx.graph().len(turns.i);
    let (x0, x1) = (cx.slice(x, rest.all, 0, turns.i), cx.slice(x, rest.all, n, turns.i));
    let [y0, y1] = turn(cx, x0, x1);
    let y1 = cx.rename(y1, turns.i, rest.turned);
    let kept = cx.slice(x, rest.all, 2 * n, rest.kept);
    concat(cx, rest.all, &[(y0, turns.i), (y1, rest.turned), (kept, rest.kept)])
}

/// `o_proj · attention(q_proj x, k_proj x, v_proj x)`. `[b, t, d]`
pub fn attention<S>(cx: &mut Cx<S>, shared: &Shared, names: &Names, x: ValueId) -> ValueId {
    let (d, s, heads) = (cx.ax.d, cx.ax.s, shared.heads.clone());
    let over = heads.over.clone();
    let map = |cx: &mut Cx<S>, part: &str, rows: Dim| {
        let w = cx.map(&format!("{}.{part}.weight", names.prefix), rows.clone(), vec![d]);
        let name = format!("{}.{part}.bias", names.prefix);
        let bias = names.qkv_bias.then(|| cx.param(&name, Init::Zeros, &[rows]));
        linear(cx, &[d], x, w, bias)
    };
    let q = map(cx, "q_proj", [heads.query(), over.clone()].concat()); // [b, t, h, r, over]
    let k = map(cx, "k_proj", [vec![heads.h], over.clone()].concat()); // [b, t, h, over]
    let v = map(cx, "v_proj", vec![heads.h, heads.j]); // [b, t, h, j]
    let (q, k) = match (heads.turns, shared.rotation) {
        (Some(turns), Some(r)) => (rope(cx, q, turns, r), rope(cx, k, turns, r)),
        _ => (q, k),
    };
    let k = keys(cx, shared, &format!("kv.{}.k", names.layer), [vec![heads.h], over.clone()].concat(), k);
    let v = keys(cx, shared, &format!("kv.{}.v", names.layer), vec![heads.h, heads.j], v); // [b, s, h, j]

    let scores = cx.dot(&over, q, k); // [b, t, s, h, r]
    let scale = (1.0 / (cx.graph().len(heads.j) as f64).sqrt()) as f32;
    let scores = cx.scale(scores, scale);
    let hidden = cx.num(f32::NEG_INFINITY);
    let scores = cx.select(shared.seen, scores, hidden); // [b, t, s, h, r]
    let weights = softmax(cx, s, scores); // [b, t, s, h, r]
    let read = cx.dot(&[s], weights, v); // [b, t, h, r, j]

    let from = [heads.query(), vec![heads.j]].concat();
    let out = cx.map(&format!("{}.o_proj.weight", names.prefix), vec![d], from.clone());
    let name = format!("{}.o_proj.bias", names.prefix);
    let bias = names.out_bias.then(|| cx.bias(&name, d));
    linear(cx, &from, read, out, bias) // [b, t, d]
}

/// Keys or values that a query may see: those of the sequence, or the kept ones with the new at their places.
fn keys<S>(cx: &mut Cx<S>, shared: &Shared, state: &str, features: Dim, x: ValueId) -> ValueId {
    let Axes { b, t, s, .. } = cx.ax;
    let Some(slots) = shared.slots else { return cx.rename(x, t, s) };
    let rows = if cx.graph().len(s) < cx.context { RowKind::Ring } else { RowKind::Kept };
    let kept = cx.row_state(state, rows, &[vec![b], vec![s], features]);
    let all = cx.op(Op::Update { axis: s }, &[kept, slots, x]);
    cx.write(kept, all);
    all
}
