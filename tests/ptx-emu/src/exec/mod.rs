//! Runs decoded instructions, one warp at a time.
mod approx;
mod async_copy;
mod atomic;
mod barrier;
mod convert;
mod exact;
mod exchange;
mod float;
mod half;
mod int;
mod load_store;
mod matrix;
mod predicate;
mod race;
mod shared;
mod spots;

pub(crate) use barrier::{Barriers, open as open_barriers};
pub(crate) use shared::Shared;
pub(crate) use spots::{Spots, Spread};

use crate::counts::LineCounts;
use crate::fault::{Done, FaultKind, Slip};
use crate::kernel::Kernel;
use crate::launch::Options;
use crate::memory::Memory;
use crate::op::{Inst, Op};
use crate::order::{BlockOrder, Locations};
use crate::random::Random;

use crate::warp::Warp;

/// What all blocks of a launch share.
pub(crate) struct Machine<'a> {
    pub kernel: &'a Kernel,
    pub memory: &'a mut Memory,
    pub params: &'a [u8],
    pub options: &'a Options,
    pub counts: Vec<LineCounts>,
    pub random: Random,
    /// Warp instructions so far.
    pub steps: u64,
    pub locations: Locations,
}

/// What a warp sees while it runs.
pub(crate) struct Cx<'a, 'm> {
    pub machine: &'a mut Machine<'m>,
    pub shared: &'a mut Shared,
    pub barriers: &'a mut Barriers,
    pub order: &'a mut BlockOrder,
}

/// Why a warp stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Its turn is over.
    Budget,
    /// Something happened at a barrier, or lanes are gone.
    Barrier,
}

/// Runs a warp for at most so many instructions.
pub(crate) fn run(cx: &mut Cx<'_, '_>, w: &mut Warp, budget: u32) -> Done<Stop> {
    let code: &[Inst] = &cx.machine.kernel.code;
    for n in 0..budget {
        let Some(inst) = code.get(w.pc as usize) else {
            return Err(Slip::new(
                FaultKind::Trap,
                None,
                "the end of the code was passed".into(),
                "this is a bug of ours",
            ));
        };
        let mask = match inst.guard {
            None => w.active,
            Some(p) => w.pred(p, w.active)? & w.active,
        };
        let counts = &mut cx.machine.counts[w.pc as usize];
        counts.warps += 1;
        counts.lanes += mask.count_ones() as u64;
        let stop = match mask {
            0 => {
                w.pc += 1;
                false
            }
            _ => step(cx, w, &inst.op, mask)?,
        };
        if !w.groups.is_empty() {
            w.settle();
        }
        if stop || w.active == 0 {
            cx.machine.steps += n as u64 + 1;
            return Ok(Stop::Barrier);
        }
    }
    cx.machine.steps += budget as u64;
    Ok(Stop::Budget)
}

/// One instruction; true if the block has to look at its barriers.
#[inline(always)]
fn step(cx: &mut Cx<'_, '_>, w: &mut Warp, op: &Op, mask: u32) -> Done<bool> {
    match *op {
        Op::Branch { target } => {
            w.branch(target, mask);
            return Ok(false);
        }
        Op::Exit => {
            w.exit(mask);
            return Ok(w.done());
        }
        Op::Bar(ref bar) => return barrier::arrive(cx, w, bar, mask),
        Op::Load(ref a) => load_store::load(cx, w, a, mask)?,
        Op::Store(ref a) => load_store::store(cx, w, a, mask)?,
        Op::Atom(ref a) => atomic::atom(cx, w, a, mask)?,
        Op::CpAsync(ref c) => async_copy::start(cx, w, c, mask)?,
        Op::CpCommit => async_copy::commit(w, mask),
        Op::CpWait { pending, all } => async_copy::wait(cx, w, pending, all, mask)?,
        Op::Fence => w.order.fence(cx.order, w.index),
        Op::Trap => {
            let lane = Some(mask.trailing_zeros());
            return Err(Slip::new(FaultKind::Trap, lane, "the kernel trapped".into(), "its own check failed"));
        }
        Op::Clock { wide, d } => {
            let now = cx.machine.steps;
            if wide { w.put_wide(d, &[now; 32], mask) } else { w.put(d, &[now as u32; 32], mask) }
        }
        Op::WarpSync { .. }
        | Op::Shfl { .. }
        | Op::Vote { .. }
        | Op::MatchAny { .. }
        | Op::MatchAll { .. }
        | Op::Redux { .. }
        | Op::Elect { .. } => {
            if !exchange::run(cx, w, op, mask)? {
                return Ok(false);
            }
        }
        Op::Ldmatrix { num, trans, addr, d } => matrix::load(cx, w, num, trans, addr, &d, mask)?,
        Op::Mma(ref m) => matrix::mma(w, m, mask)?,
        Op::Float { f, ty, m, d, a, b } => float::binary(cx, w, (f, ty, m), d, a, b, mask)?,
        Op::Fma { ty, m, d, a, b, c } => float::fma(w, ty, m, d, [a, b, c], mask)?,
        Op::Cvt(ref c) => convert::cvt(w, c, mask)?,
        Op::CvtPair { to, round, relu, d, a, b } => convert::pair(w, to, round, relu, d, [a, b], mask)?,
        Op::Testp { .. }
        | Op::Setp { .. }
        | Op::Set { .. }
        | Op::Selp { .. }
        | Op::PredLogic { .. }
        | Op::PredMov { .. }
        | Op::PredConst { .. }
        | Op::Isspacep { .. } => predicate::run(w, op, mask)?,
        Op::Nop => {}
        Op::Activemask { d } => w.put(d, &[w.active; 32], mask),
        _ => int::run(w, op, mask)?,
    }
    w.pc += 1;
    Ok(false)
}
