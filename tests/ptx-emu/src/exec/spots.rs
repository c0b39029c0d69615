//! The places that the lanes of an access touch: aligned, in bounds, as offsets into one stretch of memory.
use super::Cx;
use crate::fault::{Done, FaultKind, Slip};
use crate::inst::{Addr, Space};
use crate::kernel::SHARED_BASE;
use crate::lanes::{Row, Wide, lanes, map1};
use crate::memory::{Memory, first_undefined};
use crate::warp::Warp;

/// How the places lie; the checks are quicker where this is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spread {
    /// All 32 lanes, one behind the other.
    Run,
    /// One place for all.
    Same,
    Any,
}

/// Offsets of the lanes. Lanes that do not take part have the offset of the first that does.
#[derive(Clone, Debug)]
pub(crate) struct Spots {
    pub at: Row,
    /// Bytes of each lane.
    pub size: u32,
    pub mask: u32,
    pub spread: Spread,
}

impl Spots {
    #[inline(always)]
    fn new(at: Row, size: u32, mask: u32) -> Spots {
        let (mut run, mut same) = (0, 0);
        for (i, &a) in at.iter().enumerate() {
            run |= a ^ at[0].wrapping_add(i as u32 * size);
            same |= a ^ at[0];
        }
        let spread = match (run, same) {
            (_, 0) => Spread::Same,
            (0, _) => Spread::Run,
            _ => Spread::Any,
        };
        Spots { at, size, mask, spread }
    }

    /// One lane's place, for what is done lane by lane.
    pub fn one(at: usize, size: usize, lane: usize) -> Spots {
        Spots { at: [at as u32; 32], size: size as u32, mask: 1 << lane, spread: Spread::Same }
    }

    /// Adds the place of a higher lane.
    pub fn add(&mut self, at: u32, lane: usize) {
        self.at[lane] = at;
        self.mask |= 1 << lane;
        self.spread = Spread::Any;
    }

    /// True if all bytes that take part have their bit set. Accesses are aligned, so none straddles a word.
    #[inline(always)]
    pub fn all_set(&self, bits: &[u64]) -> bool {
        let first = self.at[0] as usize;
        match self.spread {
            Spread::Run => first_undefined(bits, first, 32 * self.size as usize).is_none(),
            Spread::Same => first_undefined(bits, first, self.size as usize).is_none(),
            Spread::Any => self.unset(bits) == 0,
        }
    }

    /// The lanes that take part and find a bit of theirs not set.
    pub fn unset(&self, bits: &[u64]) -> u32 {
        let want = (1u64 << self.size) - 1;
        let mut ok = 0;
        for (i, &o) in self.at.iter().enumerate() {
            ok |= ((bits[o as usize >> 6] >> (o & 63) & want == want) as u32) << i;
        }
        self.mask & !ok
    }

    /// The lanes that take part and find a bit of theirs set.
    pub fn some_set(&self, bits: &[u64]) -> u32 {
        let want = (1u64 << self.size) - 1;
        let hit = |l: &usize| bits[self.at[*l] as usize >> 6] >> (self.at[*l] & 63) & want != 0;
        lanes(self.mask).filter(hit).fold(0, |m, l| m | 1 << l)
    }

    #[inline(always)]
    pub fn place(&self, lane: usize) -> usize {
        self.at[lane] as usize
    }
}

/// Lanes that do not take part get the value of the first that does.
#[inline(always)]
fn fill<T: Copy>(row: &mut [T; 32], mask: u32) {
    if mask != !0 {
        let first = row[mask.trailing_zeros() as usize & 31];
        for (i, x) in row.iter_mut().enumerate() {
            *x = if mask >> i & 1 != 0 { *x } else { first };
        }
    }
}

/// The addresses of the lanes.
#[inline(always)]
pub(super) fn addresses(w: &Warp, a: Addr, mask: u32) -> Done<Wide> {
    let mut out: Wide = match a.wide {
        true => map1(w.wide(a.slot, mask)?, |x| x.wrapping_add(a.offset as u64)),
        false => map1(w.row(a.slot, mask)?, |x| x.wrapping_add(a.offset as u32) as u64),
    };
    fill(&mut out, mask);
    Ok(out)
}

/// Shared memory straight from the register of an access.
#[inline(always)]
pub(super) fn shared(w: &Warp, a: Addr, mask: u32, size: u32, len: usize) -> Done<Spots> {
    if a.wide {
        return within(Space::Shared, &addresses(w, a, mask)?, mask, size, SHARED_BASE as u64, len);
    }
    let move_by = (a.offset as u32).wrapping_sub(SHARED_BASE);
    let mut at: Row = map1(w.row(a.slot, mask)?, |x| x.wrapping_add(move_by));
    fill(&mut at, mask);
    bounded(Space::Shared, at, mask, size, SHARED_BASE as u64, len)
}

/// Offsets into a space of known size that starts at `base`.
pub(super) fn within(space: Space, addr: &Wide, mask: u32, size: u32, base: u64, len: usize) -> Done<Spots> {
    // What does not fit into 31 bits is out of bounds of every space that comes here.
    let at = map1(addr, |a| a.wrapping_sub(base).min(u32::MAX as u64) as u32);
    bounded(space, at, mask, size, base, len)
}

#[inline(always)]
fn bounded(space: Space, at: Row, mask: u32, size: u32, base: u64, len: usize) -> Done<Spots> {
    // The sign of both an offset and what is left behind it is clear exactly if the access lies inside.
    let last = len as i64 - size as i64;
    let (mut signs, mut low) = (if last < 0 { 1 << 31 } else { 0 }, 0);
    for &a in &at {
        signs |= a | (last as u32).wrapping_sub(a);
        low |= a;
    }
    if signs >> 31 != 0 || low & (size - 1) != 0 {
        return Err(misplaced(space, &at, mask, size, base, len));
    }
    Ok(Spots::new(at, size, mask))
}

#[cold]
fn misplaced(space: Space, at: &Row, mask: u32, size: u32, base: u64, len: usize) -> Box<Slip> {
    if let Some(l) = lanes(mask).find(|&l| at[l] & (size - 1) != 0) {
        return misaligned(base.wrapping_add(at[l] as u64), l, size);
    }
    let lane = lanes(mask).find(|&l| at[l] as u64 + size as u64 > len as u64).unwrap_or(0);
    let addr = base.wrapping_add(at[lane] as i32 as u64);
    outside(space, addr, lane, size, format!("the space has {len} bytes from {base:#x}"))
}

#[cold]
pub(super) fn misaligned(addr: u64, lane: usize, size: u32) -> Box<Slip> {
    let what = format!("the address {addr:#x} is not a multiple of {size}");
    Slip::new(FaultKind::Misaligned, Some(lane as u32), what, "a vector is aligned as a whole")
}

#[cold]
pub(super) fn outside(space: Space, addr: u64, lane: usize, size: u32, hint: String) -> Box<Slip> {
    let what = format!("{size} bytes at {space:?} address {addr:#x} are out of bounds: {hint}");
    Slip::new(FaultKind::OutOfBounds, Some(lane as u32), what, "check the index, and the guard of the tail")
}

/// The allocation that holds all the accesses, and the offsets in it. None: they lie in several.
#[inline(always)]
pub(super) fn global(memory: &Memory, addr: &Wide, mask: u32, size: u32) -> Done<Option<(usize, Spots)>> {
    let first = addr[mask.trailing_zeros() as usize & 31];
    let Some((i, base, len)) = memory.stretch(first) else {
        return Err(misplaced_globally(memory, addr, mask, size));
    };
    let last = len as i64 - size as i64;
    let (mut signs, mut low) = (last, 0);
    for &a in addr {
        let offset = a.wrapping_sub(base) as i64;
        signs |= offset | last.wrapping_sub(offset);
        low |= a;
    }
    if signs < 0 || low & (size as u64 - 1) != 0 {
        let find = |a: u64| a.is_multiple_of(size as u64) && memory.find(a, size as u64).is_some();
        return match lanes(mask).all(|l| find(addr[l])) {
            true => Ok(None),
            false => Err(misplaced_globally(memory, addr, mask, size)),
        };
    }
    Ok(Some((i, Spots::new(map1(addr, |a| a.wrapping_sub(base) as u32), size, mask))))
}

#[cold]
fn misplaced_globally(memory: &Memory, addr: &Wide, mask: u32, size: u32) -> Box<Slip> {
    if let Some(l) = lanes(mask).find(|&l| !addr[l].is_multiple_of(size as u64)) {
        return misaligned(addr[l], l, size);
    }
    let lane = lanes(mask).find(|&l| memory.find(addr[l], size as u64).is_none()).unwrap_or(0);
    outside(Space::Global, addr[lane], lane, size, memory.describe(addr[lane]))
}

/// Fails if bytes of global memory are read that nobody has written.
#[inline(always)]
pub(super) fn check_global(cx: &mut Cx<'_, '_>, i: usize, spots: &Spots) -> Done {
    let tracks = cx.machine.memory.tracks();
    let Some(x) = cx.machine.memory.allocation(i) else { return Ok(()) };
    if !tracks || x.undefined == 0 || spots.all_set(&x.defined) {
        return Ok(());
    }
    let (base, bits) = (x.base, &x.defined);
    match spots.unset(bits) {
        0 => Ok(()),
        missing => Err(undefined(Space::Global, base, spots, missing)),
    }
}

#[cold]
pub(super) fn undefined(space: Space, base: u64, spots: &Spots, missing: u32) -> Box<Slip> {
    let lane = missing.trailing_zeros();
    let (size, addr) = (spots.size, base + spots.at[lane as usize & 31] as u64);
    let what = format!("{size} bytes at {space:?} address {addr:#x} are read and were never written");
    Slip::new(FaultKind::UninitialisedMemory, Some(lane), what, "look for the write that should come before")
}
