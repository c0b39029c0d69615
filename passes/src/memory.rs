//! Plan memory: offsets for the buffers of the arena, in place of one another where their lives do not meet.
//!
//! Before: steps in order, buffers without addresses. After: every arena and scratch buffer has an offset, aligned to 64
//! bytes; buffers that are alive at the same step never overlap. In a small program for a GPU none do: what shares memory
//! has to wait for what was there, and launches are to run side by side where they can.
use crate::pipeline::Target;
use lolm_ir::plan::{Access, Buffer, BufferId, Extent, Gemm, Launch, Place, Plan, Stage, Step};
use std::collections::BTreeMap;

const ALIGN: u64 = 64;

/// Bytes of all values of a program for a GPU up to which each has memory of its own: such a program has few tokens, and no
/// launch has work for all of the GPU.
const APART: u64 = 32 << 20;

/// Gives every buffer its offset, and the plan its sizes.
pub fn plan_memory(plan: &mut Plan, target: Target) {
    let mut lives = lives(plan, |p| matches!(p, Place::Arena(_)));
    let all: u64 = lives.keys().map(|b| size(&plan.buffers[b.0 as usize])).sum();
    if target == Target::Gpu && all <= APART {
        let steps = plan.steps.len();
        lives.values_mut().for_each(|life| *life = (0, steps));
    }
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

/// A buffer that has its place: bytes `start..end` during steps `from..=to`.
#[derive(Clone, Copy)]
struct Spot {
    start: u64,
    end: u64,
    from: usize,
    to: usize,
}

/// Steps of one segment. Most lives are short, and meet only what lives in the same segment.
const SEGMENT: usize = 32;

/// Buffers that have their places, by where they start: all of them, and those that live in each segment.
struct Placed {
    all: Vec<Spot>,
    segments: Vec<Vec<Spot>>,
}

impl Placed {
    /// Every spot whose life may meet this one, by where it starts.
    fn near(&self, from: usize, to: usize) -> &[Spot] {
        match from / SEGMENT == to / SEGMENT {
            true => &self.segments[from / SEGMENT],
            false => &self.all,
        }
    }

    /// The lowest offset with so many bytes that are free during these steps.
    fn free(&self, need: u64, from: usize, to: usize) -> u64 {
        let mut at = 0;
        for s in self.near(from, to) {
            if s.start >= at + need {
                break;
            }
            if s.from <= to && from <= s.to && at < s.end {
                at = s.end;
            }
        }
        at
    }

    fn insert(&mut self, s: Spot) {
        let put = |spots: &mut Vec<Spot>| spots.insert(spots.partition_point(|p| p.start <= s.start), s);
        self.segments[s.from / SEGMENT..=s.to / SEGMENT].iter_mut().for_each(put);
        put(&mut self.all);
    }
}

/// Largest buffers first, each at the lowest offset that is free during its whole life.
fn pack(buffers: &[Buffer], lives: &BTreeMap<BufferId, (usize, usize)>) -> (Vec<(BufferId, u64)>, u64) {
    let mut order: Vec<(BufferId, u64, (usize, usize))> =
        lives.iter().map(|(b, life)| (*b, size(&buffers[b.0 as usize]), *life)).collect();
    order.sort_by_key(|(b, size, _)| (std::cmp::Reverse(*size), *b));
    let last = lives.values().map(|l| l.1).max().unwrap_or(0);
    let mut placed = Placed { all: vec![], segments: vec![vec![]; last / SEGMENT + 1] };
    let mut total = 0;
    let mut place = |(b, need, (from, to)): (BufferId, u64, (usize, usize))| {
        let start = placed.free(need, from, to);
        placed.insert(Spot { start, end: start + need, from, to });
        total = total.max(start + need);
        (b, start)
    };
    let out = order.into_iter().map(&mut place).collect();
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
