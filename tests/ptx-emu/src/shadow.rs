//! Who touched what last: two words for each granule of memory, and the rule that says what is ordered.
//!
//! Time is cut into *segments*: what a warp does between two of its synchronisations. A word of the shadow names a segment, a
//! lane and an instruction. Two accesses are ordered if one thread made both, or if a chain of barriers leads from the segment
//! of the first to that of the second; each warp keeps for every other how far it has seen it (a vector clock). Inside of a
//! warp `bar.warp.sync` and the barriers of the block order; shuffles, votes and `mma` do not, as the memory model says.
//! Between blocks, see `order.rs`. The last reader stands for all; a flag says that there were several.
use crate::exec::{Spots, Spread};
use crate::fault::{Done, FaultKind, Slip};
use crate::lanes::lanes;
use crate::order::{Locations, Segment, View};

/// An access in one word: 27 bits of segment, 5 of lane, 24 of program counter, the flags, 5 bits of a second warp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry(u64);

const STRONG: u64 = 1 << 7;
/// Several lanes of the warp have read.
const LANES: u64 = 1 << 6;
/// Another warp has read as well; the lowest bits say which.
const WARPS: u64 = 1 << 5;

/// The number of segments that fit.
pub(crate) const SEGMENTS: u32 = 1 << 27;

impl Entry {
    #[inline(always)]
    fn new(segment: u32, lane: usize, pc: u32, strong: bool) -> Entry {
        let flags = if strong { STRONG } else { 0 };
        Entry((segment as u64) << 37 | (lane as u64) << 32 | ((pc & 0xff_ffff) as u64) << 8 | flags)
    }

    #[inline(always)]
    fn segment(self) -> u32 {
        (self.0 >> 37) as u32
    }

    #[inline(always)]
    fn lane(self) -> usize {
        (self.0 >> 32) as usize & 31
    }

    fn pc(self) -> u32 {
        (self.0 >> 8) as u32 & 0xff_ffff
    }

    #[inline(always)]
    fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }
}

/// The last write and the last read of each granule.
#[derive(Debug, Default)]
pub(crate) struct Shadow {
    entries: Vec<[Entry; 2]>,
    shift: u32,
}

/// Who makes an access, and what it has seen.
pub(crate) struct Who<'a> {
    pub view: View<'a>,
    pub pc: u32,
    pub strong: bool,
    pub locations: &'a Locations,
}

impl Shadow {
    /// Makes room for `bytes` bytes in granules of `granule`. A finer shadow than asked for stays as it is.
    pub fn prepare(&mut self, bytes: usize, granule: u32) {
        let shift = granule.trailing_zeros();
        let n = bytes.div_ceil(1 << self.shift);
        if self.entries.is_empty() || self.entries.len() < n || shift < self.shift {
            self.shift = if self.entries.is_empty() { shift } else { shift.min(self.shift) };
            self.entries = vec![[Entry(0); 2]; bytes.div_ceil(1 << self.shift)];
        }
    }

    pub fn forget(&mut self) {
        self.entries = vec![];
    }

    /// Some lanes read. Through the read-only path nothing may have been written in this launch.
    #[inline(always)]
    pub fn read(&mut self, who: &Who<'_>, spots: &Spots, read_only: bool) -> Done {
        let n = (spots.size as usize >> self.shift).max(1);
        let mine = Entry::new(who.view.segment, 0, who.pc, who.strong);
        let floor = Entry::new(who.view.floor, 0, 0, false);
        let mask = match spots.spread {
            // Where all read one place, two of them leave what all would.
            Spread::Same => lowest(spots.mask) | lowest(spots.mask & !lowest(spots.mask)),
            Spread::Run | Spread::Any => spots.mask,
        };
        for lane in lanes(mask) {
            let first = spots.place(lane) >> self.shift;
            let Some(entries) = self.entries.get_mut(first..first + n) else { continue };
            let new = Entry(mine.0 | (lane as u64) << 32);
            for [w, r] in entries {
                if w.0 >= floor.0 {
                    who.read_written(*w, lane, read_only)?;
                }
                if r.0 < floor.0 {
                    *r = new;
                } else {
                    *r = who.read_again(*r, new, lane);
                }
            }
        }
        Ok(())
    }

    /// Some lanes write. `same` says that two lanes write one value, which is no conflict inside one instruction.
    #[inline(always)]
    pub fn write(&mut self, who: &Who<'_>, spots: &Spots, same: impl Fn(usize, usize) -> bool) -> Done {
        let n = (spots.size as usize >> self.shift).max(1);
        let mine = Entry::new(who.view.segment, 0, who.pc, who.strong);
        let floor = Entry::new(who.view.floor, 0, 0, false);
        for lane in lanes(spots.mask) {
            let first = spots.place(lane) >> self.shift;
            let Some(entries) = self.entries.get_mut(first..first + n) else { continue };
            for [w, r] in entries {
                if w.0 >= floor.0 || r.0 >= floor.0 {
                    who.write_again(*w, *r, lane, |l| spots.at[l] == spots.at[lane] && same(l, lane))?;
                }
                *w = Entry(mine.0 | (lane as u64) << 32);
                *r = Entry(0);
            }
        }
        Ok(())
    }
}

fn lowest(mask: u32) -> u32 {
    mask & mask.wrapping_neg()
}

impl Who<'_> {
    /// True if an access came before what `lane` does now.
    #[inline(always)]
    fn ordered(&self, e: Entry, lane: usize, read: bool) -> bool {
        let alone = e.lane() == lane && !(read && e.has(LANES | WARPS));
        if e.segment() < self.view.floor {
            return true;
        }
        if e.segment() == self.view.segment {
            return alone;
        }
        self.ordered_far(e, alone, read)
    }

    /// A read of what was written since the floor.
    #[inline(always)]
    fn read_written(&self, w: Entry, lane: usize, read_only: bool) -> Done {
        if read_only && w.segment() >= self.view.launch {
            return Err(race(self, w, lane, "read through the read-only path", "written in this launch"));
        }
        match self.ordered(w, lane, false) || self.strong && w.has(STRONG) {
            true => Ok(()),
            false => Err(race(self, w, lane, "read", "written")),
        }
    }

    /// The reader that stands for all, after one more.
    #[inline(always)]
    fn read_again(&self, r: Entry, new: Entry, lane: usize) -> Entry {
        let weak = STRONG * !r.has(STRONG) as u64;
        if r.segment() == self.view.segment {
            // Lanes of one warp, or the same lane again.
            let several = if r.lane() != lane { LANES } else { r.0 & LANES };
            return Entry((new.0 | several | r.0 & (WARPS | 31)) & !weak);
        }
        if self.ordered(r, lane, true) {
            return new;
        }
        let second = self.locations.warp_of(r.segment());
        Entry((new.0 | WARPS | second as u64) & !weak)
    }

    /// A write where others have been since the floor.
    #[inline(always)]
    fn write_again(&self, w: Entry, r: Entry, lane: usize, same: impl Fn(usize) -> bool) -> Done {
        let together = || w.segment() == self.view.segment && w.pc() == self.pc && same(w.lane());
        let written = self.ordered(w, lane, false) || self.strong && w.has(STRONG) || together();
        if !written {
            return Err(race(self, w, lane, "written", "written"));
        }
        match self.ordered(r, lane, true) || self.strong && r.has(STRONG) {
            true => Ok(()),
            false => Err(race(self, r, lane, "written", "read")),
        }
    }

    #[inline(never)]
    fn ordered_far(&self, e: Entry, alone: bool, read: bool) -> bool {
        let Some(s) = self.locations.segment(e.segment()) else {
            // What an earlier launch left.
            return true;
        };
        let seen = |warp: u8, time: u32| time < self.view.seen[warp as usize];
        if s.block != self.view.block {
            return self.locations.reaches(&self.view, s);
        }
        let others = !read || !e.has(WARPS) || seen((e.0 & 31) as u8, s.time);
        let own = s.warp == self.view.warp && alone || seen(s.warp, s.time);
        own && others || self.locations.reaches(&self.view, s)
    }
}

#[cold]
fn race(who: &Who<'_>, e: Entry, lane: usize, now: &str, before: &str) -> Box<Slip> {
    let by = match who.locations.segment(e.segment()) {
        Some(&Segment { block, warp, .. }) if block == who.view.block => format!("warp {warp}, lane {}", e.lane()),
        _ => format!("lane {} of another block", e.lane()),
    };
    let what = format!("bytes are {now} that {by} has {before}, and nothing orders the two");
    let advice = "put a barrier between them, or between blocks a fence and an atomic on either side";
    let mut slip = Slip::new(FaultKind::Race, Some(lane as u32), what, advice);
    slip.other = Some(e.pc());
    slip
}
