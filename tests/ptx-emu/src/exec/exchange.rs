//! Exchanges between the lanes of a warp. All lanes that the mask names and that still live have to come to one place.
use super::Cx;
use crate::fault::{Done, FaultKind, Slip};
use crate::inst::{IntFn, ShflMode, Slot, VoteMode};
use crate::lanes::{Row, lanes};
use crate::op::Op;
use crate::warp::{Wait, Warp};

/// Runs an exchange. False: lanes are still missing, and those that are here wait for them.
pub(super) fn run(cx: &mut Cx<'_, '_>, w: &mut Warp, op: &Op, mask: u32) -> Done<bool> {
    let slot = match *op {
        Op::WarpSync { mask }
        | Op::Shfl { mask, .. }
        | Op::Vote { mask, .. }
        | Op::MatchAny { mask, .. }
        | Op::MatchAll { mask, .. }
        | Op::Redux { mask, .. }
        | Op::Elect { mask, .. } => mask,
        _ => return Ok(true),
    };
    let named = *w.row(slot, mask)?;
    let members = named[mask.trailing_zeros() as usize & 31];
    for l in lanes(mask) {
        if named[l] != members || members >> l & 1 == 0 {
            let what = match named[l] == members {
                true => format!("the mask {members:#010x} does not name the lane that executes it"),
                false => format!("the lanes give different masks, {:#010x} and {members:#010x}", named[l]),
            };
            return Err(Slip::new(
                FaultKind::AbsentLane,
                Some(l as u32),
                what,
                "name exactly the lanes that come here",
            ));
        }
    }
    let missing = members & w.live & !mask;
    if missing != 0 {
        // Lanes that the guard keeps out will never come; those of other groups may.
        let kept_out = missing & w.active;
        if kept_out != 0 {
            let lane = kept_out.trailing_zeros();
            let what = format!("the mask {members:#010x} names lane {lane}, which the guard keeps out");
            return Err(Slip::new(FaultKind::AbsentLane, Some(lane), what, "name exactly the lanes that come here"));
        }
        w.park(Wait::Lanes(members));
        return Ok(false);
    }
    match *op {
        Op::Shfl { mode, d, p, a, b, c, .. } => shfl(w, mode, d, p, [a, b, c], mask)?,
        Op::Vote { mode, d, p, .. } => {
            let p = w.pred(p, mask)? & mask;
            match mode {
                VoteMode::Ballot => w.put(d, &[p; 32], mask),
                VoteMode::All => w.put_pred(d, if p == mask { !0 } else { 0 }, mask),
                VoteMode::Any => w.put_pred(d, if p != 0 { !0 } else { 0 }, mask),
                VoteMode::Uni => w.put_pred(d, if p == mask || p == 0 { !0 } else { 0 }, mask),
            }
        }
        Op::MatchAny { wide, d, a, .. } => {
            let v = values(w, wide, a, mask)?;
            let mut out: Row = [0; 32];
            for l in lanes(mask) {
                out[l] = lanes(mask).filter(|&o| v[o] == v[l]).fold(0, |m, o| m | 1 << o);
            }
            w.put(d, &out, mask);
        }
        Op::MatchAll { wide, d, p, a, .. } => {
            let v = values(w, wide, a, mask)?;
            let first = v[mask.trailing_zeros() as usize & 31];
            let all = lanes(mask).all(|l| v[l] == first);
            w.put(d, &[if all { mask } else { 0 }; 32], mask);
            if let Some(p) = p {
                w.put_pred(p, if all { !0 } else { 0 }, mask);
            }
        }
        Op::Redux { f, signed, d, a, .. } => {
            let v = *w.row(a, mask)?;
            let sum = lanes(mask).map(|l| v[l]).reduce(|x, y| reduce(f, signed, x, y)).unwrap_or(0);
            w.put(d, &[sum; 32], mask);
        }
        Op::Elect { d, p, .. } => {
            let leader = mask.trailing_zeros();
            w.put(d, &[leader; 32], mask);
            w.put_pred(p, 1 << leader, mask);
        }
        Op::WarpSync { .. } => w.order.sync(cx.order, w.index),
        _ => {}
    }
    Ok(true)
}

fn values(w: &Warp, wide: bool, a: Slot, mask: u32) -> Done<[u64; 32]> {
    Ok(if wide { *w.wide(a, mask)? } else { w.row(a, mask)?.map(|x| x as u64) })
}

fn reduce(f: IntFn, signed: bool, x: u32, y: u32) -> u32 {
    match f {
        IntFn::Add => x.wrapping_add(y),
        IntFn::Min if signed => (x as i32).min(y as i32) as u32,
        IntFn::Max if signed => (x as i32).max(y as i32) as u32,
        IntFn::Min => x.min(y),
        IntFn::Max => x.max(y),
        IntFn::And => x & y,
        IntFn::Or => x | y,
        _ => x ^ y,
    }
}

fn shfl(w: &mut Warp, mode: ShflMode, d: Slot, p: Option<Slot>, [a, b, c]: [Slot; 3], mask: u32) -> Done {
    let (b, c, a_row) = (*w.row(b, mask)?, *w.row(c, mask)?, *w.row(a, mask)?);
    let (mut out, mut valid): (Row, u32) = ([0; 32], 0);
    for l in lanes(mask) {
        let lane = l as u32;
        let (by, clamp, segment) = (b[l] & 31, c[l] & 31, c[l] >> 8 & 31);
        let last = (lane & segment) | (clamp & !segment);
        let least = lane & segment;
        let (from, ok) = match mode {
            ShflMode::Up => (lane.wrapping_sub(by), lane as i32 - by as i32 >= last as i32),
            ShflMode::Down => (lane + by, lane + by <= last),
            ShflMode::Bfly => (lane ^ by, lane ^ by <= last),
            ShflMode::Idx => (least | by & !segment, least | by & !segment <= last),
        };
        let from = if ok { from } else { lane };
        valid |= (ok as u32) << l;
        if mask >> from & 1 == 0 {
            let what = format!("a value is asked of lane {from}, which is not here");
            return Err(Slip::new(FaultKind::AbsentLane, Some(lane), what, "let all lanes of the warp take part"));
        }
        out[l] = a_row[from as usize];
    }
    w.put(d, &out, mask);
    if let Some(p) = p {
        w.put_pred(p, valid, mask);
    }
    Ok(())
}
