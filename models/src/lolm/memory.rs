//! Persistent memory: banks of slots that every chunk of the sequence reads and then writes.
//!
//! A chunk reads what the chunks before it wrote, so the first reads the learned start and what the last writes is
//! never read. Over a whole sequence the chunks are unrolled; when tokens come a few at a time, the slots and the sum of
//! h over the chunk so far are states, and the slots change when a chunk is full.
use super::Cx;
use crate::blocks::{joined, linear, sigmoid, slice_or_rename, softmax, sum_of};
use crate::cx::Axes;
use crate::spec::MemorySpec;
use lolm_ir::graph::{Init, LeafKind, RowKind};
use lolm_ir::op::Binary;
use lolm_ir::{AxisId, DType, Op, ValueId};

/// Axes of the memory: slots, their features (under two names: read by content, read as content), all banks' features.
#[derive(Clone, Copy)]
struct Own {
    m: AxisId,
    u: AxisId,
    r: AxisId,
    all: AxisId,
}

/// The parameters of a bank.
struct Bank {
    init: ValueId,                   // [m, u]
    query: ValueId,                  // [u, d]
    write: ValueId,                  // [u, d]
    forget_gate: (ValueId, ValueId), // [m, d], [m]
    write_gate: (ValueId, ValueId),  // [m, d], [m]
}

/// What the memory gives to the rest of the model.
#[derive(Clone, Copy)]
pub struct Memory {
    /// `[b, t, d]`
    pub read: ValueId,
    /// Attention over slots, the mean over banks. `[b, t, m]`
    pub attn: ValueId,
    pub m: AxisId,
}

pub fn memory(cx: &mut Cx, spec: &MemorySpec, h: ValueId) -> Memory {
    cx.scope("memory");
    let own = Own {
        m: cx.axis("m", spec.n_slots),
        u: cx.axis("u", spec.slot_dim),
        r: cx.axis("r", spec.slot_dim),
        all: cx.axis("banks", spec.n_banks * spec.slot_dim),
    };
    let banks: Vec<Bank> = (0..spec.n_banks).map(|j| bank(cx, own, j)).collect();
    let combine = cx.map("memory.combine.weight", vec![cx.ax.d], vec![own.all]);
    let (reads, attns) = match cx.pos {
        None => whole(cx, spec, own, &banks, h),
        Some(pos) => going_on(cx, spec, own, &banks, h, pos),
    };
    cx.scope("memory.combine");
    let parts: Vec<_> = reads.into_iter().map(|x| (x, own.r)).collect();
    let read = joined(cx, own.all, &parts); // [b, t, banks]
    let read = linear(cx, &[own.all], read, combine, None); // [b, t, d]
    let sum = sum_of(cx, &attns); // [b, t, m]
    let n = cx.num(spec.n_banks as f32);
    let attn = cx.div(sum, n); // [b, t, m]
    Memory { read, attn, m: own.m }
}

fn bank(cx: &mut Cx, own: Own, j: usize) -> Bank {
    let (d, Own { m, u, .. }) = (cx.ax.d, own);
    let name = format!("memory.banks.{j}");
    Bank {
        init: cx.param(&format!("{name}.init_memory"), Init::Normal(0.02), &[vec![m], vec![u]]),
        query: cx.map(&format!("{name}.query_proj.weight"), vec![u], vec![d]),
        write: cx.map(&format!("{name}.write_proj.weight"), vec![u], vec![d]),
        forget_gate: gate(cx, &format!("{name}.forget_gate"), m),
        write_gate: gate(cx, &format!("{name}.write_gate"), m),
    }
}

fn gate(cx: &mut Cx, name: &str, m: AxisId) -> (ValueId, ValueId) {
    let d = cx.ax.d;
    (cx.map(&format!("{name}.weight"), vec![m], vec![d]), cx.bias(&format!("{name}.bias"), m))
}

/// `softmax(q·Mᵀ / sqrt(slot_dim))·M` over the tokens that q has; gives the read and the weights.
fn read(cx: &mut Cx, own: Own, q: ValueId, slots: ValueId) -> (ValueId, ValueId) {
    let Own { m, u, r, .. } = own;
    let scale = (1.0 / (cx.graph().len(u) as f64).sqrt()) as f32;
    let scores = cx.dot(&[u], q, slots);
    let scores = cx.scale(scores, scale);
    let weights = softmax(cx, m, scores); // [b, t, m]
    let content = cx.rename(slots, u, r); // [m, r] or [b, m, r]
    (cx.dot(&[m], weights, content), weights) // [b, t, r]
}

/// `σ(forget_gate·h̄) ⊙ M + σ(write_gate·h̄) ⊙ (write_proj·h̄)`; h̄ is `[b, d]`. `[b, m, u]`
fn written(cx: &mut Cx, bank: &Bank, slots: ValueId, mean: ValueId) -> ValueId {
    let d = cx.ax.d;
    let level = |cx: &mut Cx, (w, bias): (ValueId, ValueId)| {
        let x = linear(cx, &[d], mean, w, Some(bias));
        sigmoid(cx, x) // [b, m]
    };
    let forget = level(cx, bank.forget_gate);
    let write = level(cx, bank.write_gate);
    let content = linear(cx, &[d], mean, bank.write, None); // [b, u]
    let kept = cx.mul(forget, slots); // [b, m, u]
    let new = cx.mul(write, content); // [b, m, u]
    cx.add(kept, new)
}

type Reads = (Vec<ValueId>, Vec<ValueId>);

/// All chunks of a sequence; the last takes the tokens that are left over.
fn whole(cx: &mut Cx, spec: &MemorySpec, own: Own, banks: &[Bank], h: ValueId) -> Reads {
    let Axes { t, d, .. } = cx.ax;
    let (tokens, n) = (cx.tokens(), spec.n_chunks);
    let len = tokens / n;
    let last = tokens - (n - 1) * len;
    let l = if n == 1 { t } else { cx.axis("l", len) };
    let l_last = if last == len || n == 1 { l } else { cx.axis("l.last", last) };
    let chunks: Vec<AxisId> = (0..n).map(|i| if i + 1 == n { l_last } else { l }).collect();

    let means: Vec<ValueId> = (0..n - 1)
        .map(|i| {
            cx.scope(&format!("memory.chunks.{i}"));
            let part = slice_or_rename(cx, h, t, i * len, l); // [b, l, d]
            cx.mean(&[l], part) // [b, d]
        })
        .collect();
    let mut out = (vec![], vec![]);
    for (j, bank) in banks.iter().enumerate() {
        cx.scope(&format!("memory.banks.{j}"));
        let q = linear(cx, &[d], h, bank.query, None); // [b, t, u]
        let mut slots = bank.init; // [m, u], and [b, m, u] after a write
        let (mut reads, mut attns) = (vec![], vec![]);
        for (i, &chunk) in chunks.iter().enumerate() {
            let part = slice_or_rename(cx, q, t, i * len, chunk); // [b, l, u]
            let (x, w) = read(cx, own, part, slots);
            reads.push((x, chunk)); // [b, l, r]
            attns.push((w, chunk)); // [b, l, m]
            if let Some(&mean) = means.get(i) {
                slots = written(cx, bank, slots, mean);
            }
        }
        out.0.push(joined(cx, t, &reads)); // [b, t, r]
        out.1.push(joined(cx, t, &attns)); // [b, t, m]
    }
    out
}

/// A few tokens of one chunk. If they fill it, and it is not the last, the slots take its mean and the sum starts anew.
fn going_on(cx: &mut Cx, spec: &MemorySpec, own: Own, banks: &[Bank], h: ValueId, pos: ValueId) -> Reads {
    let (Axes { b, d, .. }, Own { m, u, .. }) = (cx.ax, own);
    let border = (spec.n_chunks > 1).then(|| border(cx, spec, h, pos));
    let mut out = (vec![], vec![]);
    for (j, bank) in banks.iter().enumerate() {
        cx.scope(&format!("memory.banks.{j}"));
        let q = linear(cx, &[d], h, bank.query, None); // [b, t, u]
        let slots = match border {
            None => bank.init, // [m, u]
            Some(_) => {
                let kind =
                    LeafKind::State { init: Some(format!("memory.banks.{j}.init_memory")), rows: RowKind::Whole };
                let dims = [vec![b], vec![m], vec![u]];
                cx.leaf(&format!("memory.{j}.m"), kind, DType::F32, &dims) // [b, m, u]
            }
        };
        let (x, w) = read(cx, own, q, slots);
        if let Some((full, mean)) = border {
            let new = written(cx, bank, slots, mean); // [b, m, u]
            let after = cx.select(full, new, slots);
            cx.write(slots, after);
        }
        out.0.push(x); // [b, t, r]
        out.1.push(w); // [b, t, m]
    }
    out
}

/// Adds the tokens to the sum of their chunk; gives whether a chunk ends here that another follows (`bool[b]`), and the
/// mean of h over it (`[b, d]`). The sum runs token by token, so that it does not depend on how many come at once.
fn border(cx: &mut Cx, spec: &MemorySpec, h: ValueId, pos: ValueId) -> (ValueId, ValueId) {
    cx.scope("memory.sum");
    let (Axes { b, t, d, .. }, tokens, len) = (cx.ax, cx.tokens(), chunk_len(cx));
    let before = cx.row_state("memory.sum", RowKind::Whole, &[vec![b], vec![d]]);
    let sum = if tokens == 1 {
        let x = cx.last(h);
        cx.add(before, x)
    } else {
        let keep = cx.num(1.0);
        let running = cx.op(Op::Recurrence { axis: t, reverse: false }, &[keep, h, before]); // [b, t, d]
        cx.last(running)
    }; // [b, d]
    let (count, chunk, last) = (cx.int(tokens as i32), cx.int(len as i32), cx.int((len * (spec.n_chunks - 1)) as i32));
    let next = cx.add(pos, count); // i32[b]
    let over = cx.binary(Binary::Rem, next, chunk);
    let zero = cx.int(0);
    let full = cx.eq(over, zero);
    let followed = cx.le(next, last);
    let full = cx.binary(Binary::And, full, followed); // bool[b]
    let nothing = cx.num(0.0);
    let after = cx.select(full, nothing, sum); // [b, d]
    cx.write(before, after);
    let count = cx.num(len as f32);
    (full, cx.div(sum, count))
}

/// Tokens of a chunk when tokens come one at a time.
fn chunk_len(cx: &Cx) -> usize {
    cx.context / cx.spec.memory.as_ref().map_or(1, |m| m.n_chunks)
}
