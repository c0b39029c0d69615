//! cp.async: what is read now lands in shared memory only at the wait that covers it; until then its place is poison.
use super::Cx;
use super::load_store::{addresses, all_set, count_global, flight, global, offsets, outside};
use super::race::Touch;
use crate::fault::{Done, FaultKind, Slip};
use crate::inst::{CpAsync, Space};
use crate::kernel::SHARED_BASE;
use crate::lanes::lanes;
use crate::warp::{Copy, Warp};

#[inline(never)]
pub(super) fn start(cx: &mut Cx<'_, '_>, w: &mut Warp, c: &CpAsync, mask: u32) -> Done {
    let size = c.bytes as u64;
    let (dst, src) = (addresses(w, c.dst, mask)?, addresses(w, c.src, mask)?);
    let at = offsets(Space::Shared, &dst, mask, size, SHARED_BASE as u64, cx.shared.bytes.len())?;
    let wanted = match c.src_bytes {
        Some(s) => *w.row(s, mask)?,
        None => [size as u32; 32],
    };
    let ignored = match c.ignore {
        Some(p) => w.pred(p, mask)?,
        None => 0,
    };
    if let Some(l) = lanes(mask).find(|&l| wanted[l] > size as u32) {
        let what = format!("{} bytes are to be read for a copy of {size}", wanted[l]);
        return Err(Slip::new(FaultKind::Launch, Some(l as u32), what, "the source has at most the bytes of the copy"));
    }
    // Only the lanes that read something have a source that must be there.
    let reading = lanes(mask & !ignored).filter(|&l| wanted[l] > 0).fold(0u32, |m, l| m | 1 << l);
    if reading != 0 {
        let mut from = [src[reading.trailing_zeros() as usize]; 32];
        lanes(reading).for_each(|l| from[l] = src[l]);
        // The alignment is that of the whole copy; the bounds are those of what is read.
        super::load_store::extent(&from, reading, size)?;
        if lanes(reading).all(|l| wanted[l] == size as u32) {
            global(cx, &from, reading, size)?;
        }
        count_global(cx, w.pc, &from, reading, size);
    }
    // The place may be written from now on, so whoever still reads it is in a race.
    cx.race_shared(w, &Touch::bare(w.pc, &at, size as usize, mask, true))?;
    for l in lanes(mask) {
        let n = if ignored >> l & 1 != 0 { 0 } else { wanted[l] as usize };
        let mut data = [0; 16];
        if n > 0 {
            let Some((i, from)) = cx.machine.memory.find(src[l], n as u64) else {
                let hint = cx.machine.memory.describe(src[l]);
                return Err(outside(Space::Global, src[l], l as u32, n as u64, hint));
            };
            cx.race_global(w, i, &Touch::bare(w.pc, &[from; 32], n, 1 << l, false))?;
            let tracks = cx.machine.memory.tracks();
            let Some(x) = cx.machine.memory.allocation(i) else { continue };
            if tracks && all_set(&x.defined, &[from; 32], n) == 0 {
                let what = format!("{n} bytes at Global address {:#x} are copied and were never written", src[l]);
                let advice = "look for the write that should come before";
                return Err(Slip::new(FaultKind::UninitialisedMemory, Some(l as u32), what, advice));
            }
            data[..n].copy_from_slice(&x.bytes[from..from + n]);
        }
        let flying = cx.shared.in_flight[at[l] >> 6] >> (at[l] & 63) & ((1 << size) - 1) != 0;
        if flying {
            let what = format!("two copies to Shared address {:#x} are under way at once", dst[l]);
            return Err(Slip::new(
                FaultKind::InFlight,
                Some(l as u32),
                what,
                "wait for the first, or take another stage",
            ));
        }
        flight(cx.shared, at[l], size as usize, true);
        let group = w.committed[l];
        w.copies.push(Copy { lane: l as u8, bytes: size as u8, group, to: at[l] as u32, data, pc: w.pc });
    }
    Ok(())
}

pub(super) fn commit(w: &mut Warp, mask: u32) {
    lanes(mask).for_each(|l| w.committed[l] += 1);
}

/// Lands what the lanes have waited for: all, or all but their last `pending` groups.
#[inline(never)]
pub(super) fn wait(cx: &mut Cx<'_, '_>, w: &mut Warp, pending: u32, all: bool, mask: u32) -> Done {
    let mut copies = std::mem::take(&mut w.copies);
    let committed = w.committed;
    let lands = |c: &Copy| {
        let mine = mask >> c.lane & 1 != 0;
        mine && (all || c.group.saturating_add(pending) < committed[c.lane as usize])
    };
    for c in copies.iter().filter(|c| lands(c)) {
        let (to, n) = (c.to as usize, c.bytes as usize);
        cx.race_shared(w, &Touch::bare(c.pc, &[to; 32], n, 1 << c.lane, true))?;
        cx.shared.bytes[to..to + n].copy_from_slice(&c.data[..n]);
        flight(cx.shared, to, n, false);
    }
    copies.retain(|c| !lands(c));
    w.copies = copies;
    Ok(())
}
