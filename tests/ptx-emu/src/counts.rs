//! What a launch did, in numbers: instructions by class, sectors of global memory, conflicts of banks.
use crate::exec::{Spots, Spread};
use crate::inst::{CLASSES, Class};
use crate::lanes::lanes;
use crate::op::Inst;
use std::collections::BTreeMap;

/// What one instruction of the text did in all warps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineCounts {
    /// How often a warp executed it with some lane.
    pub warps: u64,
    /// How many lanes did.
    pub lanes: u64,
    /// Accesses of global or shared memory, one a warp.
    pub requests: u64,
    /// Bytes that the lanes asked for.
    pub bytes: u64,
    /// Sectors of 32 bytes that global accesses touched.
    pub sectors: u64,
    /// The fewest sectors for as many different bytes.
    pub ideal_sectors: u64,
    /// Passes over the banks beyond the fewest possible.
    pub bank_conflicts: u64,
}

impl LineCounts {
    pub(crate) fn add(&mut self, o: &LineCounts) {
        self.warps += o.warps;
        self.lanes += o.lanes;
        self.requests += o.requests;
        self.bytes += o.bytes;
        self.sectors += o.sectors;
        self.ideal_sectors += o.ideal_sectors;
        self.bank_conflicts += o.bank_conflicts;
    }
}

/// The sums over a launch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Everything together; `total.bytes` mixes the spaces, so ask `global` and `shared` for theirs.
    pub total: LineCounts,
    pub global: LineCounts,
    pub shared: LineCounts,
    pub local: LineCounts,
    by_class: [LineCounts; CLASSES],
    /// By line of the text.
    pub lines: BTreeMap<u32, LineCounts>,
}

impl Counts {
    pub(crate) fn of(code: &[Inst], counts: &[LineCounts]) -> Counts {
        let mut all = Counts::default();
        for (inst, c) in code.iter().zip(counts).filter(|(_, c)| c.warps > 0) {
            all.total.add(c);
            all.by_class[inst.class as usize].add(c);
            all.lines.entry(inst.line).or_default().add(c);
        }
        all.local = all.class(Class::Local);
        all.shared = all.class(Class::Shared);
        all.global = all.class(Class::Global);
        all.global.add(&all.class(Class::Async));
        all
    }

    /// What the instructions of one class did.
    pub fn class(&self, class: Class) -> LineCounts {
        self.by_class[class as usize]
    }

    /// Adds another launch.
    pub fn add(&mut self, other: &Counts) {
        self.total.add(&other.total);
        self.global.add(&other.global);
        self.shared.add(&other.shared);
        self.local.add(&other.local);
        for (a, b) in self.by_class.iter_mut().zip(&other.by_class) {
            a.add(b);
        }
        for (line, c) in &other.lines {
            self.lines.entry(*line).or_default().add(c);
        }
    }
}

/// How many sectors of 32 bytes the lanes touch, and the fewest that would hold as many different bytes.
#[inline(always)]
pub(crate) fn sectors(spots: &Spots) -> (u64, u64) {
    let (first, bytes) = (spots.at[0] as u64, spots.size as u64);
    match spots.spread {
        // Allocations start at a sector, so offsets say as much as addresses.
        Spread::Run => (((first + 32 * bytes - 1) >> 5) - (first >> 5) + 1, bytes),
        Spread::Same => (1, 1),
        Spread::Any => scattered(spots),
    }
}

#[inline(never)]
fn scattered(spots: &Spots) -> (u64, u64) {
    let mut seen = [0u32; 32];
    let mut n = 0;
    for lane in lanes(spots.mask) {
        seen[n] = spots.at[lane];
        n += 1;
    }
    let seen = &mut seen[..n];
    if seen.windows(2).any(|w| w[0] > w[1]) {
        seen.sort_unstable();
    }
    let (mut touched, mut different, mut last) = (0, 0, u32::MAX);
    for (i, &a) in seen.iter().enumerate() {
        different += (i == 0 || seen[i - 1] != a) as u64;
        touched += (last != a >> 5) as u64;
        last = a >> 5;
    }
    (touched, (different * spots.size as u64).div_ceil(32))
}

/// Passes over the 32 banks beyond the fewest, summed over the phases in which the hardware serves wide accesses.
///
/// Accesses are aligned, so the banks of wide ones form groups as wide as they are: two lanes meet if they touch different
/// words of one group.
#[inline(always)]
pub(crate) fn bank_conflicts(spots: &Spots) -> u64 {
    match spots.spread {
        Spread::Run | Spread::Same => 0,
        Spread::Any => meetings(spots),
    }
}

#[inline(never)]
fn meetings(spots: &Spots) -> u64 {
    let shift = spots.size.max(4).trailing_zeros();
    let groups = 128 >> shift;
    let mut extra = 0;
    for phase in (0..32).step_by(groups) {
        let mask = spots.mask & ((((1u64 << groups) - 1) as u32) << phase);
        let (mut first, mut taken) = ([0u32; 32], 0u32);
        let mut meet = false;
        for lane in lanes(mask) {
            let word = spots.at[lane] >> shift;
            let group = word as usize & (groups - 1);
            let free = taken >> group & 1 == 0;
            meet |= !free && first[group] != word;
            first[group] = if free { word } else { first[group] };
            taken |= 1 << group;
        }
        if meet {
            extra += depth(spots, mask, shift, groups) - 1;
        }
    }
    extra
}

/// The most different words that lanes touch in one group of banks.
fn depth(spots: &Spots, mask: u32, shift: u32, groups: usize) -> u64 {
    let (mut words, mut n, mut depth) = ([0u32; 32], 0, [0u8; 32]);
    for lane in lanes(mask) {
        let word = spots.at[lane] >> shift;
        if !words[..n].contains(&word) {
            words[n] = word;
            n += 1;
            depth[word as usize & (groups - 1)] += 1;
        }
    }
    depth.into_iter().max().unwrap_or(1) as u64
}
