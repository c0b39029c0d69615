//! Loads and stores: alignment, bounds and definedness are checked for 32 lanes at once, and by lane only to say who it was.
use super::Cx;
use super::race::Touch;
use crate::counts;
use crate::fault::{Done, FaultKind, Slip};
use crate::inst::{Access, Addr, Space};
use crate::kernel::{CONST_WINDOW, LOCAL_WINDOW, SHARED_BASE, SHARED_WINDOW, WINDOW};
use crate::lanes::{Row, Wide, lanes, map1};
use crate::memory::mark;
use crate::shadow::Shadow;
use crate::warp::Warp;

/// The shared memory of a block. Offsets start at zero; addresses at `SHARED_BASE`.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub bytes: Vec<u8>,
    /// One bit a byte: written, and not about to be overwritten by a copy under way.
    pub defined: Vec<u64>,
    /// One bit a byte: a copy under way will write it.
    pub in_flight: Vec<u64>,
    pub shadow: Shadow,
}

impl Shared {
    /// Makes it as new, for another block.
    pub fn restart(&mut self, bytes: usize) {
        self.bytes.resize(bytes, 0);
        self.defined.clear();
        self.defined.resize(bytes.div_ceil(64), 0);
        self.in_flight.clear();
        self.in_flight.resize(bytes.div_ceil(64), 0);
    }
}

/// Where a space lies among generic addresses, and its size.
pub(super) fn window(space: Space) -> (u64, u64) {
    match space {
        Space::Shared => (SHARED_WINDOW, WINDOW),
        Space::Local => (LOCAL_WINDOW, WINDOW),
        Space::Const => (CONST_WINDOW, WINDOW),
        Space::Global | Space::Generic | Space::Param => (0, u64::MAX),
    }
}

/// The addresses of the lanes; lanes that do not take part get that of the first that does.
#[inline(always)]
pub(super) fn addresses(w: &Warp, a: Addr, mask: u32) -> Done<Wide> {
    let mut out: Wide = match a.wide {
        true => map1(w.wide(a.slot, mask)?, |x| x.wrapping_add(a.offset as u64)),
        false => map1(w.row(a.slot, mask)?, |x| x.wrapping_add(a.offset as u32) as u64),
    };
    if mask != !0 {
        let first = out[mask.trailing_zeros() as usize & 31];
        for (i, x) in out.iter_mut().enumerate() {
            *x = if mask >> i & 1 != 0 { *x } else { first };
        }
    }
    Ok(out)
}

/// The least and the greatest address, after a check that all are aligned.
#[inline(always)]
pub(super) fn extent(addr: &Wide, mask: u32, size: u64) -> Done<(u64, u64)> {
    let (mut low, mut high, mut all) = (u64::MAX, 0, 0);
    for &a in addr {
        low = low.min(a);
        high = high.max(a);
        all |= a;
    }
    if all & (size - 1) != 0 {
        let lane = lanes(mask).find(|&l| addr[l] & (size - 1) != 0).unwrap_or(0);
        let what = format!("the address {:#x} is not a multiple of {size}", addr[lane]);
        return Err(Slip::new(FaultKind::Misaligned, Some(lane as u32), what, "a vector is aligned as a whole"));
    }
    Ok((low, high))
}

/// Which lanes find all their bytes set in a bitmap; accesses are aligned, so none straddles a word.
#[inline(always)]
pub(super) fn all_set(bits: &[u64], at: &[usize; 32], size: usize) -> u32 {
    let want = (1u64 << size) - 1;
    let mut ok = 0;
    for (i, &o) in at.iter().enumerate() {
        ok |= ((bits[o >> 6] >> (o & 63) & want == want) as u32) << i;
    }
    ok
}

pub(super) fn outside(space: Space, addr: u64, lane: u32, size: u64, hint: String) -> Box<Slip> {
    let what = format!("{size} bytes at {space:?} address {addr:#x} are out of bounds: {hint}");
    Slip::new(FaultKind::OutOfBounds, Some(lane), what, "check the index, and the guard of the tail")
}

/// Offsets into a space of known size that starts at `base`.
pub(super) fn offsets(space: Space, addr: &Wide, mask: u32, size: u64, base: u64, len: usize) -> Done<[usize; 32]> {
    let (low, high) = extent(addr, mask, size)?;
    if low < base || high - base + size > len as u64 {
        let bad = |l: &usize| addr[*l] < base || addr[*l] - base + size > len as u64;
        let lane = lanes(mask).find(bad).unwrap_or(0);
        let hint = format!("it has {len} bytes from {base:#x}");
        return Err(outside(space, addr[lane], lane as u32, size, hint));
    }
    Ok(map1(addr, |a| (a - base) as usize))
}

/// The allocation that holds all the accesses, and the offsets in it.
pub(super) fn global(cx: &Cx<'_, '_>, addr: &Wide, mask: u32, size: u64) -> Done<Option<(usize, [usize; 32])>> {
    let (low, high) = extent(addr, mask, size)?;
    let memory = &*cx.machine.memory;
    let find = |a: u64| memory.find(a, size);
    match (find(low), find(high)) {
        (Some((i, at)), Some((j, _))) if i == j => Ok(Some((i, map1(addr, |a| (a - low) as usize + at)))),
        (Some(_), Some(_)) if lanes(mask).all(|l| find(addr[l]).is_some()) => Ok(None),
        _ => {
            let lane = lanes(mask).find(|&l| find(addr[l]).is_none()).unwrap_or(0);
            Err(outside(Space::Global, addr[lane], lane as u32, size, memory.describe(addr[lane])))
        }
    }
}

/// Runs an access of generic addresses, or one that touches several allocations, part by part.
fn split(
    cx: &mut Cx<'_, '_>,
    w: &mut Warp,
    a: &Access,
    addr: &Wide,
    mask: u32,
    part: fn(&mut Cx<'_, '_>, &mut Warp, &Access, &Wide, u32) -> Done,
) -> Done {
    let place = |x: u64, memory: &crate::memory::Memory| match x {
        _ if x.wrapping_sub(SHARED_WINDOW) < WINDOW => (Space::Shared, SHARED_WINDOW, 0),
        _ if x.wrapping_sub(LOCAL_WINDOW) < WINDOW => (Space::Local, LOCAL_WINDOW, 0),
        _ if x.wrapping_sub(CONST_WINDOW) < WINDOW => (Space::Const, CONST_WINDOW, 0),
        _ => (Space::Global, 0, memory.index_of(x).unwrap_or(usize::MAX)),
    };
    let mut left = mask;
    while left != 0 {
        let first = left.trailing_zeros() as usize;
        let own = place(addr[first], cx.machine.memory);
        let group = lanes(left).filter(|&l| place(addr[l], cx.machine.memory) == own).fold(0, |m, l| m | 1 << l);
        let (space, window, _) = own;
        let mut here = [addr[first] - window; 32];
        lanes(group).for_each(|l| here[l] = addr[l] - window);
        part(cx, w, &Access { space, ..*a }, &here, group)?;
        left &= !group;
    }
    Ok(())
}

#[inline(always)]
pub(super) fn load(cx: &mut Cx<'_, '_>, w: &mut Warp, a: &Access, mask: u32) -> Done {
    let addr = addresses(w, a.addr, mask)?;
    match a.space {
        Space::Generic => split(cx, w, a, &addr, mask, load_at),
        _ => load_at(cx, w, a, &addr, mask),
    }
}

/// A load from one space.
fn load_at(cx: &mut Cx<'_, '_>, w: &mut Warp, a: &Access, addr: &Wide, mask: u32) -> Done {
    let size = a.bytes as u64 * a.vector as u64;
    match a.space {
        Space::Global | Space::Generic => {
            let Some((i, at)) = global(cx, addr, mask, size)? else {
                return split(cx, w, a, addr, mask, load_at);
            };
            count_global(cx, w.pc, addr, mask, size);
            let track = cx.machine.memory.tracks();
            cx.race_global(w, i, &Touch::new(a, w.pc, &at, mask))?;
            cx.flags(w, false, addr, mask, a.order, [true, false]);
            let Some(x) = cx.machine.memory.allocation(i) else { return Ok(()) };
            if track && all_set(&x.defined, &at, size as usize) & mask != mask {
                return Err(undefined(Space::Global, &x.defined, addr, &at, size as usize, mask));
            }
            fetch(w, a, &x.bytes, &at, mask);
        }
        Space::Shared => {
            let at = offsets(a.space, addr, mask, size, SHARED_BASE as u64, cx.shared.bytes.len())?;
            count_shared(cx, w.pc, addr, mask, size);
            if all_set(&cx.shared.defined, &at, size as usize) & mask != mask {
                return Err(shared_undefined(cx.shared, addr, &at, size as usize, mask));
            }
            cx.race_shared(w, &Touch::new(a, w.pc, &at, mask))?;
            cx.flags(w, true, addr, mask, a.order, [true, false]);
            fetch(w, a, &cx.shared.bytes, &at, mask);
        }
        Space::Local => {
            let at = local(w, addr, mask, size)?;
            if all_set(&w.local_defined, &at, size as usize) & mask != mask {
                return Err(undefined(Space::Local, &w.local_defined, addr, &at, size as usize, mask));
            }
            let bytes = std::mem::take(&mut w.local);
            fetch(w, a, &bytes, &at, mask);
            w.local = bytes;
        }
        Space::Param => {
            let at = offsets(a.space, addr, mask, size, 0, cx.machine.params.len())?;
            fetch(w, a, cx.machine.params, &at, mask);
        }
        Space::Const => {
            let consts = &cx.machine.kernel.common.consts;
            let at = offsets(a.space, addr, mask, size, 0, consts.len())?;
            fetch(w, a, consts, &at, mask);
        }
    }
    Ok(())
}

/// The places of local accesses: each thread has its own stretch.
fn local(w: &Warp, addr: &Wide, mask: u32, size: u64) -> Done<[usize; 32]> {
    let stretch = w.local.len() / 32;
    let mut at = offsets(Space::Local, addr, mask, size, 0, stretch)?;
    let first = mask.trailing_zeros() as usize & 31;
    for (i, x) in at.iter_mut().enumerate() {
        *x += if mask >> i & 1 != 0 { i } else { first } * stretch;
    }
    Ok(at)
}

fn undefined(space: Space, bits: &[u64], addr: &Wide, at: &[usize; 32], size: usize, mask: u32) -> Box<Slip> {
    let lane = (mask & !all_set(bits, at, size)).trailing_zeros();
    let what = format!("{size} bytes at {space:?} address {:#x} are read and were never written", addr[lane as usize]);
    Slip::new(FaultKind::UninitialisedMemory, Some(lane), what, "look for the write that should come before")
}

pub(super) fn shared_undefined(s: &Shared, addr: &Wide, at: &[usize; 32], size: usize, mask: u32) -> Box<Slip> {
    let slip = undefined(Space::Shared, &s.defined, addr, at, size, mask);
    let o = at[slip.lane.unwrap_or(0) as usize];
    let flying = (o..o + size).any(|b| s.in_flight[b >> 6] >> (b & 63) & 1 != 0);
    match flying {
        false => slip,
        true => {
            let what = format!(
                "{size} bytes at Shared address {:#x} are read while a copy to them is under way",
                addr[slip.lane.unwrap_or(0) as usize]
            );
            Slip::new(FaultKind::InFlight, slip.lane, what, "wait for its group first: cp.async.wait_group")
        }
    }
}

pub(super) fn count_global(cx: &mut Cx<'_, '_>, pc: u32, addr: &Wide, mask: u32, size: u64) {
    let (sectors, ideal) = counts::sectors(addr, mask, size);
    let c = &mut cx.machine.counts[pc as usize];
    c.requests += 1;
    c.bytes += size * mask.count_ones() as u64;
    c.sectors += sectors;
    c.ideal_sectors += ideal;
}

pub(super) fn count_shared(cx: &mut Cx<'_, '_>, pc: u32, addr: &Wide, mask: u32, size: u64) {
    let conflicts = counts::bank_conflicts(addr, mask, size);
    let c = &mut cx.machine.counts[pc as usize];
    c.requests += 1;
    c.bytes += size * mask.count_ones() as u64;
    c.bank_conflicts += conflicts;
}

#[inline(always)]
fn word<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    match bytes.get(at..at + N).and_then(|b| b.try_into().ok()) {
        Some(b) => b,
        None => [0; N],
    }
}

/// From bytes to registers, extended to their width.
#[inline(always)]
fn fetch(w: &mut Warp, a: &Access, bytes: &[u8], at: &[usize; 32], mask: u32) {
    for k in 0..a.vector as usize {
        let shift = k * a.bytes as usize;
        let d = a.regs[k];
        match (a.bytes, a.register) {
            (4, 1..=4) => {
                let v: Row = map1(at, |o| u32::from_le_bytes(word(bytes, o + shift)));
                w.put(d, &v, mask);
            }
            (8, _) => {
                let v: Wide = map1(at, |o| u64::from_le_bytes(word(bytes, o + shift)));
                w.put_wide(d, &v, mask);
            }
            _ => {
                let v: Wide = map1(at, |o| {
                    let x = match a.bytes {
                        1 => bytes[o + shift] as u64,
                        2 => u16::from_le_bytes(word(bytes, o + shift)) as u64,
                        _ => u32::from_le_bytes(word(bytes, o + shift)) as u64,
                    };
                    let up = 64 - 8 * a.bytes as u32;
                    if a.signed { ((x << up) as i64 >> up) as u64 } else { x }
                });
                match a.register {
                    8 => w.put_wide(d, &v, mask),
                    4 => w.put(d, &map1(&v, |x| x as u32), mask),
                    _ => w.put(d, &map1(&v, |x| x as u32 & 0xffff), mask),
                }
            }
        }
    }
}

#[inline(always)]
pub(super) fn store(cx: &mut Cx<'_, '_>, w: &mut Warp, a: &Access, mask: u32) -> Done {
    let addr = addresses(w, a.addr, mask)?;
    match a.space {
        Space::Generic => split(cx, w, a, &addr, mask, store_at),
        _ => store_at(cx, w, a, &addr, mask),
    }
}

fn store_at(cx: &mut Cx<'_, '_>, w: &mut Warp, a: &Access, addr: &Wide, mask: u32) -> Done {
    let size = a.bytes as u64 * a.vector as u64;
    match a.space {
        Space::Global | Space::Generic => {
            let Some((i, at)) = global(cx, addr, mask, size)? else {
                return split(cx, w, a, addr, mask, store_at);
            };
            count_global(cx, w.pc, addr, mask, size);
            cx.race_global(w, i, &Touch { write: true, ..Touch::new(a, w.pc, &at, mask) })?;
            cx.flags(w, false, addr, mask, a.order, [false, true]);
            let Some(x) = cx.machine.memory.allocation(i) else { return Ok(()) };
            write(w, a, &mut x.bytes, &mut x.defined, &at, mask)
        }
        Space::Shared => {
            let at = offsets(a.space, addr, mask, size, SHARED_BASE as u64, cx.shared.bytes.len())?;
            count_shared(cx, w.pc, addr, mask, size);
            landing_elsewhere(cx.shared, &at, size as usize, mask)?;
            cx.race_shared(w, &Touch { write: true, ..Touch::new(a, w.pc, &at, mask) })?;
            cx.flags(w, true, addr, mask, a.order, [false, true]);
            let s = &mut *cx.shared;
            write(w, a, &mut s.bytes, &mut s.defined, &at, mask)
        }
        Space::Local => {
            let at = local(w, addr, mask, size)?;
            let (mut bytes, mut defined) = (std::mem::take(&mut w.local), std::mem::take(&mut w.local_defined));
            let done = write(w, a, &mut bytes, &mut defined, &at, mask);
            (w.local, w.local_defined) = (bytes, defined);
            done
        }
        Space::Param | Space::Const => Ok(()),
    }
}

/// A write where a copy under way will write as well.
fn landing_elsewhere(s: &Shared, at: &[usize; 32], size: usize, mask: u32) -> Done {
    let want = (1u64 << size) - 1;
    let mut hit = 0;
    for (i, &o) in at.iter().enumerate() {
        hit |= ((s.in_flight[o >> 6] >> (o & 63) & want != 0) as u32) << i;
    }
    match hit & mask {
        0 => Ok(()),
        hit => {
            let lane = hit.trailing_zeros();
            let what = format!("{size} bytes of shared memory are written while a copy to them is under way");
            Err(Slip::new(FaultKind::InFlight, Some(lane), what, "wait for the copy, or write elsewhere"))
        }
    }
}

/// From registers to bytes. Where two lanes write one place, the higher wins, and different values are a fault.
#[inline(always)]
fn write(w: &Warp, a: &Access, bytes: &mut [u8], defined: &mut [u64], at: &[usize; 32], mask: u32) -> Done {
    let n = a.bytes as usize;
    for k in 0..a.vector as usize {
        let shift = k * n;
        if a.register == 8 {
            let v = w.wide(a.regs[k], mask)?;
            for lane in lanes(mask) {
                let o = at[lane] + shift;
                bytes[o..o + n].copy_from_slice(&v[lane].to_le_bytes()[..n]);
            }
        } else {
            let v = w.row(a.regs[k], mask)?;
            match n {
                4 => {
                    for lane in lanes(mask) {
                        let o = at[lane] + shift;
                        bytes[o..o + 4].copy_from_slice(&v[lane].to_le_bytes());
                    }
                }
                _ => {
                    for lane in lanes(mask) {
                        let o = at[lane] + shift;
                        bytes[o..o + n].copy_from_slice(&v[lane].to_le_bytes()[..n]);
                    }
                }
            }
        }
    }
    let size = n * a.vector as usize;
    let ones = (1u64 << size) - 1;
    for lane in lanes(mask) {
        defined[at[lane] >> 6] |= ones << (at[lane] & 63);
    }
    Ok(())
}

/// Marks bytes of shared memory as about to be written by a copy, or as written.
pub(super) fn flight(s: &mut Shared, at: usize, n: usize, flying: bool) {
    mark(&mut s.in_flight, at, n, flying);
    mark(&mut s.defined, at, n, !flying);
}
