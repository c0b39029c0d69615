//! Plan memory: offsets for the buffers of the arena, in place of one another where their lives do not meet.
//!
//! Before: steps in order, buffers without addresses. After: every arena and scratch buffer has an offset, aligned to 64
//! bytes; buffers that are alive at the same step never overlap.
use lolm_ir::plan::{Access, Buffer, BufferId, Extent, Gemm, Launch, Place, Plan, Stage, Step};
use std::collections::BTreeMap;

const ALIGN: u64 = 64;

/// Gives every buffer its offset, and the plan its sizes.
pub fn plan_memory(plan: &mut Plan) {
    let lives = lives(plan, |p| matches!(p, Place::Arena(_)));
    let (offsets, size) = pack(&plan.buffers, &lives);
    for (b, at) in offsets {
        plan.buffers[b.0 as usize].place = Place::Arena(at);
    }
    plan.arena = size;
    plan.scratch = scratch(plan);
}

/// Buffers that a launch touches.
pub fn touched(l: &Launch) -> Vec<BufferId> {
    let mut out = vec![];
    for s in &l.stages {
        match s {
            Stage::Kernel(k) => out.extend(k.operands.iter().map(|o: &Access| o.buffer)),
            Stage::Gemm(m) => out.extend(gemm_buffers(m)),
            Stage::Group(g) => out.extend(g.touched().0.into_iter().chain(g.touched().1)),
            Stage::Routed(r) => out.extend(r.touched().0.into_iter().chain(r.touched().1)),
        }
    }
    out
}

fn gemm_buffers(m: &Gemm) -> impl Iterator<Item = BufferId> {
    let data = [&m.m, &m.n, &m.k].into_iter().filter_map(|e| match e {
        Extent::Seen { position, .. } => Some(position.buffer),
        Extent::Fixed(_) | Extent::Tile { .. } => None,
    });
    [m.a.buffer, m.b.buffer, m.c.buffer].into_iter().chain(data.collect::<Vec<_>>())
}

fn launches(s: &Step) -> &[Launch] {
    match s {
        Step::Launch(l) => std::slice::from_ref(l),
        Step::Repeat { body, .. } => body,
    }
}

/// First and last step of each buffer of the chosen kind.
fn lives(plan: &Plan, chosen: impl Fn(&Place) -> bool) -> BTreeMap<BufferId, (usize, usize)> {
    let mut out = BTreeMap::new();
    for (i, s) in plan.steps.iter().enumerate() {
        for b in launches(s).iter().flat_map(touched) {
            if chosen(&plan.buffers[b.0 as usize].place) {
                out.entry(b).or_insert((i, i)).1 = i;
            }
        }
    }
    out
}

fn size(b: &Buffer) -> u64 {
    (b.len * b.dtype.bytes() as u64).next_multiple_of(ALIGN)
}

/// Largest buffers first, each at the lowest offset that is free during its whole life.
fn pack(buffers: &[Buffer], lives: &BTreeMap<BufferId, (usize, usize)>) -> (BTreeMap<BufferId, u64>, u64) {
    let mut order: Vec<BufferId> = lives.keys().copied().collect();
    order.sort_by_key(|b| (std::cmp::Reverse(size(&buffers[b.0 as usize])), *b));
    let mut placed: Vec<(u64, u64, usize, usize)> = vec![];
    let mut out = BTreeMap::new();
    let mut total = 0;
    for b in order {
        let (need, (from, to)) = (size(&buffers[b.0 as usize]), lives[&b]);
        let mut at = 0;
        for (start, end, f, t) in &placed {
            if *start >= at + need {
                break;
            }
            if *f <= to && from <= *t && at < *end {
                at = *end;
            }
        }
        let spot = placed.partition_point(|p| p.0 <= at);
        placed.insert(spot, (at, at + need, from, to));
        total = total.max(at + need);
        out.insert(b, at);
    }
    (out, total)
}

/// Scratch buffers of one launch lie one after the other; launches reuse the same memory.
fn scratch(plan: &mut Plan) -> u64 {
    let mut total = 0;
    for s in 0..plan.steps.len() {
        for l in 0..launches(&plan.steps[s]).len() {
            let mut at = 0;
            let mut seen = vec![];
            for b in touched(&launches(&plan.steps[s])[l]) {
                let buffer = &mut plan.buffers[b.0 as usize];
                if matches!(buffer.place, Place::Scratch(_)) && !seen.contains(&b) {
                    buffer.place = Place::Scratch(at);
                    at += size(buffer);
                    seen.push(b);
                }
            }
            total = total.max(at);
        }
    }
    total
}
