//! Loads and stores of every space.
use super::Cx;
use super::race::Touch;
use super::spots::{Spots, Spread, addresses, check_global, global, shared, undefined, within};
use crate::counts;
use crate::fault::Done;
use crate::inst::{Access, Space};
use crate::kernel::{CONST_WINDOW, LOCAL_WINDOW, SHARED_BASE, SHARED_WINDOW, WINDOW};
use crate::lanes::{FULL, Row, Wide, lanes, map1};
use crate::memory::Memory;
use crate::warp::Warp;

/// Where a space lies among generic addresses, and its size.
pub(super) fn window(space: Space) -> (u64, u64) {
    match space {
        Space::Shared => (SHARED_WINDOW, WINDOW),
        Space::Local => (LOCAL_WINDOW, WINDOW),
        Space::Const => (CONST_WINDOW, WINDOW),
        Space::Global | Space::Generic | Space::Param => (0, u64::MAX),
    }
}

type Part = fn(&mut Cx<'_, '_>, &mut Warp, &Access, &Wide, u32) -> Done;

/// Runs an access of generic addresses, or one that touches several allocations, part by part.
#[inline(never)]
fn split(cx: &mut Cx<'_, '_>, w: &mut Warp, a: &Access, addr: &Wide, mask: u32, part: Part) -> Done {
    let place = |x: u64, memory: &Memory| match x {
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
    match a.space {
        Space::Shared => {
            let spots = shared(w, a.addr, mask, size_of(a), cx.shared.bytes.len())?;
            load_shared(cx, w, a, &spots)
        }
        Space::Generic => split(cx, w, a, &addresses(w, a.addr, mask)?, mask, load_at),
        _ => load_at(cx, w, a, &addresses(w, a.addr, mask)?, mask),
    }
}

#[inline(always)]
fn size_of(a: &Access) -> u32 {
    a.bytes as u32 * a.vector as u32
}

fn load_shared(cx: &mut Cx<'_, '_>, w: &mut Warp, a: &Access, spots: &Spots) -> Done {
    count_shared(cx, w.pc, spots);
    cx.shared.check_read(spots)?;
    cx.race_shared(w, &Touch::read(a, w.pc, spots))?;
    cx.flags(w, true, 0, spots, a.order, [true, false]);
    fetch(w, a, &cx.shared.bytes, spots);
    Ok(())
}

/// A load from one space.
fn load_at(cx: &mut Cx<'_, '_>, w: &mut Warp, a: &Access, addr: &Wide, mask: u32) -> Done {
    let size = size_of(a);
    match a.space {
        Space::Global | Space::Generic => {
            let Some((i, spots)) = global(cx.machine.memory, addr, mask, size)? else {
                return split(cx, w, a, addr, mask, load_at);
            };
            count_global(cx, w.pc, &spots);
            cx.race_global(w, i, &Touch::read(a, w.pc, &spots))?;
            check_global(cx, i, &spots)?;
            let Some(x) = cx.machine.memory.allocation(i) else { return Ok(()) };
            fetch(w, a, &x.bytes, &spots);
            let base = x.base;
            cx.flags(w, false, base, &spots, a.order, [true, false]);
        }
        Space::Shared => {
            let spots = within(a.space, addr, mask, size, SHARED_BASE as u64, cx.shared.bytes.len())?;
            load_shared(cx, w, a, &spots)?;
        }
        Space::Local => {
            let spots = local(w, addr, mask, size)?;
            match spots.unset(&w.local_defined) {
                0 => {}
                missing => return Err(undefined(Space::Local, 0, &spots, missing)),
            }
            let bytes = std::mem::take(&mut w.local);
            fetch(w, a, &bytes, &spots);
            w.local = bytes;
        }
        Space::Param => {
            let spots = within(a.space, addr, mask, size, 0, cx.machine.params.len())?;
            fetch(w, a, cx.machine.params, &spots);
        }
        Space::Const => {
            let consts = &cx.machine.kernel.common.consts;
            let spots = within(a.space, addr, mask, size, 0, consts.len())?;
            fetch(w, a, consts, &spots);
        }
    }
    Ok(())
}

/// The places of local accesses: each thread has its own stretch.
fn local(w: &Warp, addr: &Wide, mask: u32, size: u32) -> Done<Spots> {
    let stretch = w.local.len() / 32;
    let mut spots = within(Space::Local, addr, mask, size, 0, stretch)?;
    let first = mask.trailing_zeros() as usize & 31;
    for (i, x) in spots.at.iter_mut().enumerate() {
        *x += if mask >> i & 1 != 0 { i * stretch } else { first * stretch } as u32;
    }
    spots.spread = Spread::Any;
    Ok(spots)
}

#[inline(always)]
pub(super) fn count_global(cx: &mut Cx<'_, '_>, pc: u32, spots: &Spots) {
    let (sectors, ideal) = counts::sectors(spots);
    let c = &mut cx.machine.counts[pc as usize];
    c.requests += 1;
    c.bytes += spots.size as u64 * spots.mask.count_ones() as u64;
    c.sectors += sectors;
    c.ideal_sectors += ideal;
}

#[inline(always)]
pub(super) fn count_shared(cx: &mut Cx<'_, '_>, pc: u32, spots: &Spots) {
    let conflicts = counts::bank_conflicts(spots);
    let c = &mut cx.machine.counts[pc as usize];
    c.requests += 1;
    c.bytes += spots.size as u64 * spots.mask.count_ones() as u64;
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
fn fetch(w: &mut Warp, a: &Access, bytes: &[u8], spots: &Spots) {
    let mask = spots.mask;
    for k in 0..a.vector as usize {
        let shift = k * a.bytes as usize;
        let d = a.regs[k];
        match (a.bytes, a.register) {
            (4, 1..=4) => w.put(d, &words(bytes, spots, shift), mask),
            (8, _) => {
                let v: Wide = map1(&spots.at, |o| u64::from_le_bytes(word(bytes, o as usize + shift)));
                w.put_wide(d, &v, mask);
            }
            _ => narrow(w, a, bytes, spots, shift, d),
        }
    }
}

/// The common case: words of four bytes.
#[inline(always)]
fn words(bytes: &[u8], spots: &Spots, shift: usize) -> Row {
    if spots.spread == Spread::Run && spots.size == 4 {
        let all = &bytes[spots.place(0)..spots.place(0) + 128];
        return std::array::from_fn(|i| {
            u32::from_le_bytes([all[4 * i], all[4 * i + 1], all[4 * i + 2], all[4 * i + 3]])
        });
    }
    map1(&spots.at, |o| u32::from_le_bytes(word(bytes, o as usize + shift)))
}

/// Elements that are narrower than their register.
fn narrow(w: &mut Warp, a: &Access, bytes: &[u8], spots: &Spots, shift: usize, d: u16) {
    let v: Wide = map1(&spots.at, |o| {
        let o = o as usize + shift;
        let x = match a.bytes {
            1 => bytes[o] as u64,
            2 => u16::from_le_bytes(word(bytes, o)) as u64,
            _ => u32::from_le_bytes(word(bytes, o)) as u64,
        };
        let up = 64 - 8 * a.bytes as u32;
        if a.signed { ((x << up) as i64 >> up) as u64 } else { x }
    });
    match a.register {
        8 => w.put_wide(d, &v, spots.mask),
        4 => w.put(d, &map1(&v, |x| x as u32), spots.mask),
        _ => w.put(d, &map1(&v, |x| x as u32 & 0xffff), spots.mask),
    }
}

#[inline(always)]
pub(super) fn store(cx: &mut Cx<'_, '_>, w: &mut Warp, a: &Access, mask: u32) -> Done {
    match a.space {
        Space::Shared => {
            let spots = shared(w, a.addr, mask, size_of(a), cx.shared.bytes.len())?;
            store_shared(cx, w, a, &spots)
        }
        Space::Generic => split(cx, w, a, &addresses(w, a.addr, mask)?, mask, store_at),
        _ => store_at(cx, w, a, &addresses(w, a.addr, mask)?, mask),
    }
}

fn store_shared(cx: &mut Cx<'_, '_>, w: &mut Warp, a: &Access, spots: &Spots) -> Done {
    count_shared(cx, w.pc, spots);
    cx.shared.check_write(spots)?;
    cx.race_shared(w, &Touch::write(a, w.pc, spots))?;
    cx.flags(w, true, 0, spots, a.order, [false, true]);
    let s = &mut *cx.shared;
    write(w, a, &mut s.bytes, spots)?;
    define(&mut s.defined, &mut s.undefined, spots);
    Ok(())
}

fn store_at(cx: &mut Cx<'_, '_>, w: &mut Warp, a: &Access, addr: &Wide, mask: u32) -> Done {
    let size = size_of(a);
    match a.space {
        Space::Global | Space::Generic => {
            let Some((i, spots)) = global(cx.machine.memory, addr, mask, size)? else {
                return split(cx, w, a, addr, mask, store_at);
            };
            count_global(cx, w.pc, &spots);
            cx.race_global(w, i, &Touch::write(a, w.pc, &spots))?;
            let Some(x) = cx.machine.memory.allocation(i) else { return Ok(()) };
            write(w, a, &mut x.bytes, &spots)?;
            define(&mut x.defined, &mut x.undefined, &spots);
            let base = x.base;
            cx.flags(w, false, base, &spots, a.order, [false, true]);
        }
        Space::Shared => {
            let spots = within(a.space, addr, mask, size, SHARED_BASE as u64, cx.shared.bytes.len())?;
            store_shared(cx, w, a, &spots)?;
        }
        Space::Local => {
            let spots = local(w, addr, mask, size)?;
            let mut bytes = std::mem::take(&mut w.local);
            let done = write(w, a, &mut bytes, &spots);
            w.local = bytes;
            done?;
            let mut all = usize::MAX;
            define(&mut w.local_defined, &mut all, &spots);
        }
        Space::Param | Space::Const => {}
    }
    Ok(())
}

/// From registers to bytes. Where two lanes write one place, the higher wins; the race detector compares their values.
#[inline(always)]
fn write(w: &Warp, a: &Access, bytes: &mut [u8], spots: &Spots) -> Done {
    let (n, mask) = (a.bytes as usize, spots.mask);
    for k in 0..a.vector as usize {
        let shift = k * n;
        if a.register == 8 {
            let v = w.wide(a.regs[k], mask)?;
            for lane in lanes(mask) {
                let o = spots.place(lane) + shift;
                bytes[o..o + n].copy_from_slice(&v[lane].to_le_bytes()[..n]);
            }
            continue;
        }
        let v = w.row(a.regs[k], mask)?;
        match n {
            4 if mask == FULL => {
                for (&o, v) in spots.at.iter().zip(v) {
                    let o = o as usize + shift;
                    bytes[o..o + 4].copy_from_slice(&v.to_le_bytes());
                }
            }
            _ => {
                for lane in lanes(mask) {
                    let o = spots.place(lane) + shift;
                    bytes[o..o + n].copy_from_slice(&v[lane].to_le_bytes()[..n]);
                }
            }
        }
    }
    Ok(())
}

/// The bytes of an access are written from now on.
#[inline(always)]
pub(super) fn define(defined: &mut [u64], undefined: &mut usize, spots: &Spots) {
    if *undefined == 0 {
        return;
    }
    let ones = (1u64 << spots.size) - 1;
    for lane in lanes(spots.mask) {
        let o = spots.place(lane);
        let (word, bits) = (&mut defined[o >> 6], ones << (o & 63));
        let new = bits & !*word;
        if new != 0 {
            *word |= bits;
            *undefined = undefined.saturating_sub(new.count_ones() as usize);
        }
    }
}
