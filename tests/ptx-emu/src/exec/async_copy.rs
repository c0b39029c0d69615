//! cp.async: what is read now lands in shared memory only at the wait that covers it; until then its place is poison.
use super::Cx;
use super::load_store::count_global;
use super::race::Touch;
use super::spots::{Spots, addresses, check_global, global, misaligned, outside, shared};
use crate::fault::{Done, FaultKind, Slip};
use crate::inst::{CpAsync, Space};
use crate::lanes::{Wide, lanes};
use crate::warp::{Copy, Warp};

#[inline(never)]
pub(super) fn start(cx: &mut Cx<'_, '_>, w: &mut Warp, c: &CpAsync, mask: u32) -> Done {
    let size = c.bytes as u32;
    let to = shared(w, c.dst, mask, size, cx.shared.bytes.len())?;
    let src = addresses(w, c.src, mask)?;
    let ignored = match c.ignore {
        Some(p) => w.pred(p, mask)?,
        None => 0,
    };
    let mut wanted = match c.src_bytes {
        Some(s) => *w.row(s, mask)?,
        None => [size; 32],
    };
    if let Some(l) = lanes(mask).find(|&l| wanted[l] > size) {
        let what = format!("{} bytes are to be read for a copy of {size}", wanted[l]);
        return Err(Slip::new(FaultKind::Launch, Some(l as u32), what, "the source has at most the bytes of the copy"));
    }
    lanes(mask & ignored).for_each(|l| wanted[l] = 0);
    // The place may be written from now on, so whoever still reads it is in a race.
    check_flight(cx, &to)?;
    cx.race_shared(w, &Touch::bare(w.pc, &to, true))?;
    let mut data = [[0; 16]; 32];
    let whole = lanes(mask).filter(|&l| wanted[l] == size).fold(0u32, |m, l| m | 1 << l);
    if whole != 0 {
        read_whole(cx, w, &src, whole, size, &mut data)?;
    }
    for l in lanes(mask & !whole).filter(|&l| wanted[l] > 0) {
        // The alignment is that of the whole copy; the bounds are those of what is read.
        if !src[l].is_multiple_of(size as u64) {
            return Err(misaligned(src[l], l, size));
        }
        let Some((i, at)) = cx.machine.memory.find(src[l], wanted[l] as u64) else {
            return Err(outside(Space::Global, src[l], l, wanted[l], cx.machine.memory.describe(src[l])));
        };
        let spots = Spots::one(at, wanted[l] as usize, l);
        read(cx, w, i, &spots, &mut data)?;
    }
    for l in lanes(mask) {
        cx.shared.depart(to.place(l), size as usize);
        let group = w.committed[l];
        w.copies.push(Copy { lane: l as u8, bytes: size as u8, group, to: to.at[l], data: data[l], pc: w.pc });
    }
    Ok(())
}

/// Two copies to one place, of this instruction or of one before, must not be under way at once.
fn check_flight(cx: &Cx<'_, '_>, to: &Spots) -> Done {
    cx.shared.check_write(to)?;
    let mut at = to.at;
    let n = lanes(to.mask).enumerate().map(|(n, l)| at[n] = to.at[l]).count();
    at[..n].sort_unstable();
    match at[..n].windows(2).any(|w| w[0] == w[1]) {
        false => Ok(()),
        true => {
            let what = "two lanes copy to one place".to_string();
            Err(Slip::new(FaultKind::InFlight, None, what, "give each lane a place of its own"))
        }
    }
}

/// The lanes that read as much as they write.
fn read_whole(cx: &mut Cx<'_, '_>, w: &mut Warp, src: &Wide, mask: u32, size: u32, data: &mut [[u8; 16]; 32]) -> Done {
    let mut from = [src[mask.trailing_zeros() as usize & 31]; 32];
    lanes(mask).for_each(|l| from[l] = src[l]);
    match global(cx.machine.memory, &from, mask, size)? {
        Some((i, spots)) => read(cx, w, i, &spots, data),
        None => lanes(mask).try_for_each(|l| read_whole(cx, w, src, 1 << l, size, data)),
    }
}

fn read(cx: &mut Cx<'_, '_>, w: &mut Warp, i: usize, spots: &Spots, data: &mut [[u8; 16]; 32]) -> Done {
    count_global(cx, w.pc, spots);
    cx.race_global(w, i, &Touch::bare(w.pc, spots, false))?;
    check_global(cx, i, spots)?;
    let Some(x) = cx.machine.memory.allocation(i) else { return Ok(()) };
    let n = spots.size as usize;
    for l in lanes(spots.mask) {
        data[l][..n].copy_from_slice(&x.bytes[spots.place(l)..spots.place(l) + n]);
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
    let mut landing = copies.iter().filter(|c| lands(c)).peekable();
    while let Some(first) = landing.next() {
        // Copies of one instruction land together, as they were started.
        let mut spots = Spots::one(first.to as usize, first.bytes as usize, first.lane as usize);
        cx.shared.land(first.to as usize, &first.data[..first.bytes as usize]);
        while let Some(c) = landing.next_if(|c| c.pc == first.pc && spots.mask >> c.lane == 0) {
            spots.add(c.to, c.lane as usize);
            cx.shared.land(c.to as usize, &c.data[..c.bytes as usize]);
        }
        cx.race_shared(w, &Touch::bare(first.pc, &spots, true))?;
    }
    copies.retain(|c| !lands(c));
    w.copies = copies;
    Ok(())
}
