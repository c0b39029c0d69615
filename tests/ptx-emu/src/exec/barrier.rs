//! Barriers of a block: who has come, and what they reduce.
use super::Cx;
use crate::fault::{Done, FaultKind, Slip};
use crate::inst::{Bar, BarKind, PredRef, Slot};
use crate::order::{BlockOrder, Locations, Seen};
use crate::warp::{Wait, Warp};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reduce {
    Popc,
    And,
    Or,
}

/// A destination that a barrier fills when all have come: warp, lanes, register.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub warp: u32,
    pub mask: u32,
    pub slot: Slot,
    pub reduce: Reduce,
}

/// One of the sixteen barriers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Barrier {
    /// How many threads have come; a warp counts as 32 where a number was given.
    pub arrived: u32,
    /// How many it takes, if a number was given.
    pub count: Option<u32>,
    /// The warps that have come, waiting or not.
    pub warps: u32,
    pub ones: u32,
    pub threads: u32,
    pub answers: Vec<Answer>,
    /// What all who have come had seen.
    pub gathered: Seen,
    /// Some went on without waiting.
    pub passed: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Barriers(pub [Barrier; 16]);

impl Barriers {
    pub fn restart(&mut self) {
        self.0.fill(Barrier::default());
    }
}

/// Lanes come to a barrier. Always true: the block looks whether it is complete.
#[inline(never)]
pub(super) fn arrive(cx: &mut Cx<'_, '_>, w: &mut Warp, bar: &Bar, mask: u32) -> Done<bool> {
    if bar.aligned && mask != w.live {
        let lane = (w.live & !mask).trailing_zeros();
        let what =
            format!("lanes {mask:#010x} come to a barrier without the others of their warp, {:#010x}", w.live & !mask);
        return Err(Slip::new(FaultKind::DivergentBarrier, Some(lane), what, "move it where all lanes pass"));
    }
    if mask != w.active {
        let what = "a guard keeps lanes out of a barrier".to_string();
        return Err(Slip::new(FaultKind::DivergentBarrier, None, what, "branch around it instead"));
    }
    let id = uniform(w, bar.id, mask, "the number of the barrier")?;
    let count = match bar.count {
        Some(c) => Some(uniform(w, c, mask, "the number of threads")?),
        None => None,
    };
    if id > 15 || count.is_some_and(|c| c % 32 != 0 || c == 0) {
        let what = format!("barrier {id} for {count:?} threads");
        return Err(Slip::new(FaultKind::Launch, None, what, "there are 16, and they take a multiple of 32 threads"));
    }
    let answer = match bar.kind {
        BarKind::Sync | BarKind::Arrive => None,
        BarKind::RedPopc { d, p } => Some((d, p, Reduce::Popc)),
        BarKind::RedAnd { d, p } => Some((d, p, Reduce::And)),
        BarKind::RedOr { d, p } => Some((d, p, Reduce::Or)),
    };
    let ones = match answer {
        Some((_, p, _)) => w.pred(PredRef { ..p }, mask)? & mask,
        None => 0,
    };
    let b = &mut cx.barriers.0[id as usize];
    if b.arrived > 0 && b.count != count {
        let what = format!("barrier {id} is asked for {count:?} threads, and others asked for {:?}", b.count);
        return Err(Slip::new(FaultKind::Deadlock, None, what, "all that meet at a barrier name one number"));
    }
    b.count = count;
    b.arrived += if count.is_some() && bar.aligned { 32 } else { mask.count_ones() };
    b.warps |= 1 << w.index;
    b.ones += ones.count_ones();
    b.threads += mask.count_ones();
    if let Some((slot, _, reduce)) = answer {
        b.answers.push(Answer { warp: w.index, mask, slot, reduce });
    }
    w.order.arrive(cx.order, w.index, &mut b.gathered);
    match bar.kind {
        BarKind::Arrive => {
            b.passed = true;
            w.pc += 1;
        }
        _ => w.park(Wait::Barrier(id)),
    }
    Ok(true)
}

fn uniform(w: &Warp, slot: Slot, mask: u32, what: &str) -> Done<u32> {
    let row = w.row(slot, mask)?;
    let first = row[mask.trailing_zeros() as usize & 31];
    match (0..32).find(|&l| mask >> l & 1 != 0 && row[l as usize] != first) {
        None => Ok(first),
        Some(lane) => {
            let what = format!("{what} differs between the lanes");
            Err(Slip::new(FaultKind::DivergentBarrier, Some(lane), what, "give all lanes the same"))
        }
    }
}

/// Opens the barriers for which all have come, and lets those who wait go on. True if one was.
pub(crate) fn open(barriers: &mut Barriers, warps: &mut [Warp], order: &mut BlockOrder, locations: &Locations) -> bool {
    let mut any = false;
    for id in 0..16 {
        let b = &barriers.0[id];
        if b.arrived == 0 {
            continue;
        }
        let live: u32 = warps.iter().map(|w| w.live.count_ones()).sum();
        if b.arrived < b.count.unwrap_or(live) {
            continue;
        }
        let mut b = std::mem::take(&mut barriers.0[id]);
        // Where all of the block have come, those that are gone count as well, and nothing before is in question again.
        if warps.iter().all(|w| w.done() || b.warps >> w.index & 1 != 0) {
            warps.iter().filter(|w| w.done()).for_each(|w| b.gathered[w.index as usize] = order.clock);
            if !b.passed {
                order.floor = locations.next();
            }
        }
        for a in &b.answers {
            let w = &mut warps[a.warp as usize];
            match a.reduce {
                Reduce::Popc => w.put(a.slot, &[b.ones; 32], a.mask),
                Reduce::And => w.put_pred(a.slot, if b.ones == b.threads { !0 } else { 0 }, a.mask),
                Reduce::Or => w.put_pred(a.slot, if b.ones > 0 { !0 } else { 0 }, a.mask),
            }
        }
        for w in warps.iter_mut() {
            if w.release(id as u32) {
                w.order.pass(&b.gathered);
            }
        }
        any = true;
    }
    any
}
