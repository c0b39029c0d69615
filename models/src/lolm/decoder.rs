//! The surface path: a pre-norm Transformer decoder with interleaved RoPE and exact GELU.
use super::Cx;
use crate::blocks::{gelu, layer_norm, linear, rope_interleaved, slice_or_rename, softmax};
use crate::cx::Axes;
use lolm_ir::graph::{Init, RowKind, Table};
use lolm_ir::{AxisId, Op, ValueId};

/// Axes of the decoder: heads, pairs of a head (i, p), values of a head, hidden features.
#[derive(Clone, Copy)]
struct Own {
    h: AxisId,
    i: AxisId,
    p: AxisId,
    j: AxisId,
    f: AxisId,
}

/// What all layers share: rotation, the mask, and where keys and values go if they are kept.
struct Shared {
    /// `[t, i]`, or `[b, t, i]` when tokens go on from states.
    cos: ValueId,
    sin: ValueId,
    /// `bool[t, s]` or `bool[b, t, s]`: true where the query may see the key.
    mask: ValueId,
}

/// The embedding, which is also the head. `[v, d]`
pub fn tok_emb(cx: &mut Cx) -> ValueId {
    let Axes { d, v, .. } = cx.ax;
    cx.param("decoder.tok_emb.weight", Init::Normal(0.02), &[vec![v], vec![d]])
}

/// `i32[b,t]` tokens to h. `[b, t, d]`
pub fn decoder(cx: &mut Cx, tokens: ValueId) -> ValueId {
    cx.scope("decoder.tok_emb");
    let own = own_axes(cx);
    let emb = tok_emb(cx); // [v, d]
    let v = cx.ax.v;
    let x = cx.gather(emb, v, tokens); // [b, t, d]
    let mut x = cx.dropped(x);
    let shared = shared(cx, own);
    for layer in 0..cx.spec.n_layers {
        cx.scope(&format!("decoder.layers.{layer}"));
        x = block(cx, own, &shared, layer, x);
    }
    cx.scope("decoder.ln_f");
    let norm = cx.norm("decoder.ln_f");
    let d = cx.ax.d;
    layer_norm(cx, d, x, norm)
}

fn own_axes(cx: &mut Cx) -> Own {
    let (heads, head_dim, d_ff) = (cx.spec.n_heads, cx.spec.head_dim(), cx.spec.d_ff);
    Own {
        h: cx.axis("h", heads),
        i: cx.axis("i", head_dim / 2),
        p: cx.axis("p", 2),
        j: cx.axis("j", head_dim),
        f: cx.axis("f", d_ff),
    }
}

fn shared(cx: &mut Cx, own: Own) -> Shared {
    let (t, s) = (cx.ax.t, cx.ax.s);
    let (theta, context) = (cx.spec.rope_theta, cx.context);
    let place = cx.axis("place", context);
    let dims = [vec![place], vec![own.i]];
    let cos = cx.table("rope.cos", Table::RopeCos { theta, scaling: None }, &dims); // [place, i]
    let sin = cx.table("rope.sin", Table::RopeSin { theta, scaling: None }, &dims); // [place, i]
    let positions = cx.positions(); // [t] or [b, t]
    let turn = |cx: &mut Cx, table| match cx.pos {
        None => slice_or_rename(cx, table, place, 0, t), // [t, i]
        Some(_) => cx.gather(table, place, positions),   // [b, t, i]
    };
    let (cos, sin) = (turn(cx, cos), turn(cx, sin));
    let key = cx.iota(s); // [s]
    let mask = cx.le(key, positions);
    Shared { cos, sin, mask }
}

/// `x += attention(LN1 x); x += w2 · GELU(w1 · LN2 x)`
fn block(cx: &mut Cx, own: Own, shared: &Shared, layer: usize, x: ValueId) -> ValueId {
    let (d, f, branches) = (cx.ax.d, own.f, 2 * cx.spec.n_layers);
    let name = format!("decoder.layers.{layer}");
    let ln1 = cx.norm(&format!("{name}.ln1"));
    let y = layer_norm(cx, d, x, ln1); // [b, t, d]
    let y = attention(cx, own, shared, layer, y); // [b, t, d]
    let x = cx.add(x, y); // [b, t, d]

    let ln2 = cx.norm(&format!("{name}.ln2"));
    let y = layer_norm(cx, d, x, ln2); // [b, t, d]
    let w1 = cx.map(&format!("{name}.ff.w1.weight"), vec![f], vec![d]);
    let w2 = cx.closing_map(&format!("{name}.ff.w2.weight"), branches, vec![d], vec![f]);
    let y = linear(cx, &[d], y, w1, None); // [b, t, f]
    let y = gelu(cx, y); // [b, t, f]
    let y = linear(cx, &[f], y, w2, None); // [b, t, d]
    let y = cx.dropped(y);
    cx.add(x, y)
}

fn attention(cx: &mut Cx, own: Own, shared: &Shared, layer: usize, x: ValueId) -> ValueId {
    let Axes { d, s, .. } = cx.ax;
    let Own { h, i, p, j, .. } = own;
    let name = format!("decoder.layers.{layer}.attn");
    let wq = cx.map(&format!("{name}.wq.weight"), vec![h, i, p], vec![d]);
    let wk = cx.map(&format!("{name}.wk.weight"), vec![h, i, p], vec![d]);
    let wv = cx.map(&format!("{name}.wv.weight"), vec![h, j], vec![d]);
    let wo = cx.closing_map(&format!("{name}.wo.weight"), 2 * cx.spec.n_layers, vec![d], vec![h, j]);

    let q = linear(cx, &[d], x, wq, None); // [b, t, h, i, p]
    let k = linear(cx, &[d], x, wk, None); // [b, t, h, i, p]
    let v = linear(cx, &[d], x, wv, None); // [b, t, h, j]
    let q = rope_interleaved(cx, p, q, shared.cos, shared.sin); // [b, t, h, i, p]
    let k = rope_interleaved(cx, p, k, shared.cos, shared.sin); // [b, t, h, i, p]
    let k = keys(cx, &format!("kv.{layer}.k"), vec![h, i, p], k); // [b, s, h, i, p]
    let v = keys(cx, &format!("kv.{layer}.v"), vec![h, j], v); // [b, s, h, j]

    let scores = cx.dot(&[i, p], q, k); // [b, t, s, h]
    let scale = (1.0 / (cx.spec.head_dim() as f64).sqrt()) as f32;
    let scores = cx.scale(scores, scale);
    let hidden = cx.num(f32::NEG_INFINITY);
    let scores = cx.select(shared.mask, scores, hidden); // [b, t, s, h]
    let weights = softmax(cx, s, scores); // [b, t, s, h]
    let weights = cx.dropped(weights);
    let read = cx.dot(&[s], weights, v); // [b, t, h, j]
    linear(cx, &[h, j], read, wo, None) // [b, t, d]
}

/// Keys or values of all positions that a query may see: those of the sequence, or the kept ones with the new at their
/// places. `[b, s, features]`
fn keys(cx: &mut Cx, state: &str, features: Vec<AxisId>, x: ValueId) -> ValueId {
    let Axes { b, t, s, .. } = cx.ax;
    if cx.pos.is_none() {
        return cx.rename(x, t, s);
    }
    let kept = cx.row_state(state, RowKind::Kept, &[vec![b], vec![s], features]);
    let positions = cx.positions(); // [b, t]
    let all = cx.op(Op::Update { axis: s }, &[kept, positions, x]);
    cx.write(kept, all);
    all
}
