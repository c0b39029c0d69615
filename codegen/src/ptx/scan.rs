//! Selective scans and their gradients: states in registers, chunk by chunk.
//!
//! A block has some channels, and each warp of it a tile of channels by states: a lane has four states of up to four
//! channels. So a sum over channels, and one over states, is mostly of what a lane has itself, and few values go from lane
//! to lane; these go by halves, a lane giving away what it will not have. What steps have of channels (dt and dt·u, for gradients
//! u and the gradient of y) and of states (b and c) comes to shared memory a chunk at a time while the one before is walked,
//! each value by one lane, and is read there by all lanes of the warp that need it.
//!
//! **A scan** stores what c makes of the states, with what is made of that, skip and gate, if they are there; or its last
//! states, or both. Backwards it is the scan of the gradient of states.
//!
//! **A gradient** goes forwards for the states alone, which are stored where each chunk starts, as the kernel says. Then
//! backwards, from the last chunk to the first: the states of a chunk are computed again from its start. Their decays stay in
//! registers, the states before each step in shared memory, where each lane finds its own; then the steps are walked back.
//! With R = decay · G, the gradient G of a state is R of the step after it plus dy·c, that of dt·a is R times the state before,
//! and nothing else of a state is needed.
//!
//! **Order of summation.** Over states and channels: those of a lane in ascending order, as a chain of fma, then lanes in
//! pairs, and then warps in ascending order. Over time from the last step to the first. None of it depends on the
//! batch, or on how many steps there are.
//!
//! **Rounding.** Everything is f32. exp(dt·a) is 2 to the power dt·(a·log₂e), by the machine's approximation, which errs by two
//! units in the last place; numbers below the normal range are 0.
//!
//! **Cost**, for 2048 channels of 16 states and 65536 tokens of f32, at 1.7 GHz on 132 processors of 128 lanes and 4.3 TB/s:
//!
//! | | exponentials, 16 a clock | memory | instructions a state and step | all of them |
//! |---|---|---|---|---|
//! | scan | 1: 0.6 ms | 12 bytes a channel: 0.4 ms | 6.7 | 0.5 ms |
//! | gradient | 2: 1.2 ms | 44 bytes: 1.4 ms | 4.8 and 18.1 | 1.7 ms |
mod back;
mod bring;
mod lanes;
mod plan;
mod results;
mod shape;
mod starts;
mod sums;
mod walk;

use super::compile::{Body, Code, Wishes, shared_start, tile_entry_with};
use super::coord::{self, C};
use super::inst::*;
use super::simt::Simt;
use crate::eval::{Fail, Gen, Gives};
use lolm_ir::kernel::Kernel;
use plan::{Plan, plan};
use shape::Scan;

/// The code of a kernel that is a gradient of a selective scan.
pub fn scan_grad(k: &Kernel, name: &str) -> Result<Option<(String, Code)>, Fail> {
    let Some(grad) = shape::grad(k) else { return Ok(None) };
    let Some(p) = plan(k, &grad.scan, grad.chunk, true) else { return Ok(None) };
    entry(k, name, "scan_grad", &grad.scan, p, |cx| {
        let starts = cx.starts(&grad)?;
        let (first, a) = (cx.of_slots(grad.scan.first)?, cx.exponents()?);
        let last = cx.forwards(&a, &starts, first)?;
        cx.backwards(&grad, &a, &starts, last)
    })
}

/// The code of a kernel that is a selective scan.
pub fn scan(k: &Kernel, name: &str) -> Result<Option<(String, Code)>, Fail> {
    let Some(walk) = shape::walk(k) else { return Ok(None) };
    let Some(p) = plan(k, &walk.scan, CHUNK, false) else { return Ok(None) };
    entry(k, name, "scan", &walk.scan, p, |cx| cx.results(&walk))
}

/// Steps of a chunk of a scan; no result depends on it.
const CHUNK: i64 = 8;

fn entry(
    k: &Kernel,
    name: &str,
    what: &str,
    s: &Scan,
    p: Plan,
    body: impl FnOnce(&mut Cx) -> Gives<()>,
) -> Result<Option<(String, Code)>, Fail> {
    let wishes = Wishes { in_flight: &[s.time], blocks: if p.history > 0 { 2 } else { 4 } };
    let made = tile_entry_with(k, name, wishes, |g| {
        let mut cx = Cx::new(g, s, p);
        cx.fix_units();
        body(&mut cx)?;
        Ok(Body {
            threads: p.threads(),
            shared: p.bytes(),
            unit_dims: p.unit_dims(),
            schedule: format!("{what} {{ {p} }}"),
        })
    })?;
    Ok(Some(made))
}

struct Cx<'a> {
    g: Gen<'a, Simt>,
    s: &'a Scan,
    p: Plan,
    /// The number of this thread, of its lane, and of its place along the states and along the channels of the warp.
    tid: C,
    lane: C,
    place: C,
    row: C,
    /// The unit of the kernel that the block is of, and its first channel.
    unit: C,
    block_channel: C,
    /// The channel which this lane brings and whose sums over states it gets; whether this lane is
    /// the one to do so, and whether the channel exists; nothing if it always is.
    channel: C,
    is_first: Option<Reg>,
    exists: Option<Reg>,
    /// Shared memory: this lane's states, what steps have of its channels and of its own one, of its states and of that which
    /// it brings; sums over the channels of this warp, and where those of all warps begin.
    history: Reg,
    of_channels: Reg,
    of_own: Reg,
    of_states: Reg,
    of_lane: Reg,
    warp_sums: C,
    sums: C,
}

impl<'a> Cx<'a> {
    fn new(g: Gen<'a, Simt>, s: &'a Scan, p: Plan) -> Self {
        let lane = g.e.lane();
        let b = &mut g.e.b;
        let tid = b.at_head(|b| b.mov(Type::U32, Src::Special(Special::Tid)));
        let shared = b.at_head(|b| b.mov(Type::U32, shared_start(p.bytes())));
        let tid = C::Int { reg: tid, lo: 0, hi: p.threads() - 1 };
        let lane = C::Int { reg: lane, lo: 0, hi: plan::LANES - 1 };
        let (warp, _) = coord::divmod(b, tid, plan::LANES);
        let (row, place) = coord::divmod(b, lane, p.across);
        // Along the states only as many lanes as there are channels in each have one of their own.
        let (_, among) = coord::divmod(b, place, p.channels);
        let first = coord::mul(b, row, p.channels);
        let own = coord::add(b, first, among);
        let block = b.mov(Type::U32, Src::Special(Special::Block));
        let block = C::Int { reg: block, lo: 0, hi: p.units * p.tiles - 1 };
        let (unit, number) = coord::divmod(b, block, p.tiles);
        let block_channel = coord::mul(b, number, p.warps * p.of_warp);
        let of_warp = coord::mul(b, warp, p.of_warp);
        let channel = coord::add(b, of_warp, own);
        let channel = coord::add(b, block_channel, channel);
        let is_first = below(b, place, p.channels);
        let exists = below(b, channel, p.tile);
        let base = coord::mul(b, warp, p.own());
        let base = coord::add(b, C::Shared(shared), base);
        let mut at = |c: C, stride: i64, offset: i64| {
            let part = coord::mul(b, c, stride);
            let sum = coord::add(b, base, part);
            match coord::add(b, sum, C::Const(offset)) {
                C::Shared(r) => r,
                _ => shared,
            }
        };
        let history = at(lane, p.channels * plan::WORD, 0);
        let of_channels = at(first, plan::WORD, p.history);
        let of_own = at(own, plan::WORD, p.history);
        let of_states = at(place, plan::STATES * plan::WORD, p.history + p.of_channel);
        let of_lane = at(lane, plan::WORD, p.history + p.of_channel);
        let sums = coord::add(b, C::Shared(shared), C::Const(p.warps * p.own()));
        let mine = coord::mul(b, warp, p.sums);
        let warp_sums = coord::add(b, sums, mine);
        let channel = coord::either(b, channel, C::Const(p.tile - 1), BinOp::Min);
        Cx {
            g,
            s,
            p,
            tid,
            lane,
            place,
            row,
            unit,
            block_channel,
            channel,
            is_first,
            exists,
            history,
            of_channels,
            of_own,
            of_states,
            of_lane,
            warp_sums,
            sums,
        }
    }

    /// The axes of the blocks get the coordinates of this one.
    fn fix_units(&mut self) {
        let units = &self.s.units;
        let mut rest = self.unit;
        for a in units.iter().rev() {
            let len = self.g.k.axis(*a).len as i64;
            let (outer, number) = coord::divmod(&mut self.g.e.b, rest, len);
            self.fix(*a, number, vec![0]);
            rest = outer;
        }
    }
}

/// True where the number is below the end; nothing if it always is.
fn below(b: &mut super::build::Builder, x: C, end: i64) -> Option<Reg> {
    if x.range().is_some_and(|r| r.1 < end) {
        return None;
    }
    let x = coord::int(b, x);
    Some(b.setp(Cmp::Lt, Type::S32, x, Src::Int(end)))
}
