//! What a launch did, in numbers: instructions by class, sectors of global memory, conflicts of banks.
use crate::inst::{CLASSES, Class};
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
pub(crate) fn sectors(addr: &[u64; 32], mask: u32, bytes: u64) -> (u64, u64) {
    let first = addr[mask.trailing_zeros() as usize & 31];
    if mask == !0 {
        let (mut apart, mut equal) = (0, 0);
        for (i, &a) in addr.iter().enumerate() {
            apart |= a ^ first.wrapping_add(i as u64 * bytes);
            equal |= a ^ first;
        }
        if apart == 0 {
            return (((first + 32 * bytes - 1) >> 5) - (first >> 5) + 1, bytes);
        }
        if equal == 0 {
            return (1, 1);
        }
    }
    let mut seen = [0u64; 32];
    let mut n = 0;
    for lane in (0..32).filter(|l| mask >> l & 1 != 0) {
        seen[n] = addr[lane];
        n += 1;
    }
    let seen = &mut seen[..n];
    seen.sort_unstable();
    let (mut touched, mut different, mut last) = (0, 0, None);
    for (i, &a) in seen.iter().enumerate() {
        different += (i == 0 || seen[i - 1] != a) as u64;
        touched += (last != Some(a >> 5)) as u64;
        last = Some(a >> 5);
    }
    (touched, (different * bytes).div_ceil(32))
}

/// Passes over the 32 banks beyond the first, summed over the phases in which the hardware serves wide accesses.
pub(crate) fn bank_conflicts(addr: &[u64; 32], mask: u32, bytes: u64) -> u64 {
    let lanes_a_phase = match bytes {
        16 => 8,
        8 => 16,
        _ => 32,
    };
    let first = addr[mask.trailing_zeros() as usize & 31];
    let mut apart = 0;
    for (i, &a) in addr.iter().enumerate() {
        apart |= a ^ first.wrapping_add(i as u64 * bytes);
    }
    if mask == !0 && apart == 0 {
        return 0;
    }
    let words = (bytes as usize).div_ceil(4);
    let mut extra = 0;
    for phase in (0..32).step_by(lanes_a_phase) {
        // The different words of a bank, as a list through `next`.
        let (mut head, mut depth) = ([u8::MAX; 32], [0u8; 32]);
        let (mut word, mut next, mut n) = ([0u64; 32], [u8::MAX; 32], 0);
        for lane in (phase..phase + lanes_a_phase).filter(|l| mask >> l & 1 != 0) {
            for k in 0..words {
                let w = (addr[lane] >> 2) + k as u64;
                let bank = (w % 32) as usize;
                let mut at = head[bank];
                while at != u8::MAX && word[at as usize] != w {
                    at = next[at as usize];
                }
                if at == u8::MAX && n < 32 {
                    (word[n], next[n], head[bank]) = (w, head[bank], n as u8);
                    depth[bank] += 1;
                    n += 1;
                }
            }
        }
        extra += depth.iter().max().map_or(0, |&d| d.saturating_sub(1)) as u64;
    }
    extra
}
