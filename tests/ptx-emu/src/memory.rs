//! Global memory of the device: allocations far apart, each with a bit a byte that says whether it was ever written.
use crate::fault::{Fault, FaultKind};
use crate::shadow::{SEGMENTS, Shadow};
use std::collections::BTreeMap;

pub type Address = u64;

/// Where global memory starts: high, so that an address cut to 32 bits is found out.
const BASE: u64 = 0x7f40_0000_0000;
/// Each allocation starts on a page of its own and leaves one free behind it.
const PAGE: u64 = 1 << 20;
/// Allocations are aligned to this and to no more, as the driver promises no more.
const ALIGN: u64 = 256;

/// Offsets inside of an allocation have 31 bits.
const MOST: usize = 1 << 31;

/// One allocation.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub base: Address,
    pub bytes: Vec<u8>,
    /// One bit a byte.
    pub defined: Vec<u64>,
    /// How many bytes are not.
    pub undefined: usize,
    pub shadow: Shadow,
}

/// What the device's memory holds. Contents survive launches; addresses are never given twice, so a use after free is found.
#[derive(Debug)]
pub struct Memory {
    allocations: Vec<Option<Allocation>>,
    /// The allocation of each page, plus one.
    pages: Vec<u32>,
    /// False if reads of bytes that were never written are allowed.
    track: bool,
    /// The variables of modules: by the module's identity and the variable's index.
    variables: BTreeMap<(u64, u32), Address>,
    /// Counts segments of warps over all launches, so that what a launch leaves in the shadow means nothing to the next.
    pub(crate) segments: u32,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    pub fn new() -> Self {
        Memory { allocations: vec![], pages: vec![], track: true, variables: BTreeMap::new(), segments: 1 }
    }

    /// Whether a read of global bytes that were never written is a fault; it is from the start.
    pub fn track_undefined(&mut self, on: bool) {
        self.track = on;
    }

    pub(crate) fn tracks(&self) -> bool {
        self.track
    }

    /// New memory, whose bytes are undefined until they are written.
    pub fn alloc(&mut self, bytes: usize) -> Address {
        self.reserve(bytes, 0)
    }

    /// New memory, all zero and defined.
    pub fn alloc_zeroed(&mut self, bytes: usize) -> Address {
        self.reserve(bytes, !0)
    }

    fn reserve(&mut self, bytes: usize, defined: u64) -> Address {
        assert!(bytes < MOST, "an allocation of {bytes} bytes: the emulator takes less than 2 GiB in one");
        let base = BASE + self.pages.len() as u64 * PAGE + ALIGN;
        let id = self.allocations.len() as u32 + 1;
        let end = (ALIGN + bytes as u64).div_ceil(PAGE);
        self.pages.extend((0..=end).map(|p| if p < end { id } else { 0 }));
        self.allocations.push(Some(Allocation {
            base,
            bytes: vec![0; bytes],
            defined: vec![defined; bytes.div_ceil(64)],
            undefined: if defined == 0 { bytes } else { 0 },
            shadow: Shadow::default(),
        }));
        base
    }

    /// Gives an allocation back; its addresses are never used again.
    pub fn free(&mut self, a: Address) -> Result<(), Fault> {
        match self.index_of(a) {
            Some(i) if self.allocations[i].as_ref().is_some_and(|x| x.base == a) => {
                self.allocations[i] = None;
                Ok(())
            }
            _ => {
                let what = format!("{a:#x} is not the start of an allocation");
                Err(Fault::new(FaultKind::Allocation, what, "free what alloc returned, once"))
            }
        }
    }

    /// Starts to count segments anew before their numbers run out.
    pub(crate) fn renew_segments(&mut self) {
        if self.segments > SEGMENTS / 2 {
            self.segments = 1;
            self.allocations.iter_mut().flatten().for_each(|x| x.shadow.forget());
        }
    }

    #[inline(always)]
    pub(crate) fn index_of(&self, a: Address) -> Option<usize> {
        let page = a.wrapping_sub(BASE) / PAGE;
        let id = *self.pages.get(usize::try_from(page).ok()?)?;
        (id as usize).checked_sub(1)
    }

    /// The allocation around an address: its number, where it starts, and how long it is.
    #[inline(always)]
    pub(crate) fn stretch(&self, a: Address) -> Option<(usize, Address, usize)> {
        let i = self.index_of(a)?;
        let x = self.allocations[i].as_ref()?;
        Some((i, x.base, x.bytes.len()))
    }

    /// The allocation that holds these bytes, and where in it they start.
    #[inline(always)]
    pub(crate) fn find(&self, a: Address, bytes: u64) -> Option<(usize, usize)> {
        let i = self.index_of(a)?;
        let allocation = self.allocations[i].as_ref()?;
        let offset = a.wrapping_sub(allocation.base);
        let end = offset.checked_add(bytes)?;
        (end <= allocation.bytes.len() as u64).then_some((i, offset as usize))
    }

    #[inline(always)]
    pub(crate) fn allocation(&mut self, i: usize) -> Option<&mut Allocation> {
        self.allocations.get_mut(i)?.as_mut()
    }

    /// What stands near an address, for messages.
    pub(crate) fn describe(&self, a: Address) -> String {
        let near = self.allocations.iter().enumerate().filter_map(|(i, x)| x.as_ref().map(|x| (i, x)));
        let before = near.filter(|(_, x)| x.base <= a).max_by_key(|(_, x)| x.base);
        match before {
            Some((i, x)) => {
                let past = (a - x.base) as i64 - x.bytes.len() as i64;
                let side = if past < 0 { format!("{} before", -past) } else { format!("{past} past") };
                format!("{side} the end of allocation {i} ({:#x}, {} bytes)", x.base, x.bytes.len())
            }
            None => "below all allocations".to_string(),
        }
    }

    fn host(&mut self, a: Address, bytes: usize) -> Result<(&mut Allocation, usize), Fault> {
        let Some((i, offset)) = self.find(a, bytes as u64) else {
            return Err(self.outside(a, bytes));
        };
        let gone = Fault::new(FaultKind::Allocation, format!("{a:#x} was freed"), "keep what is still used");
        self.allocations[i].as_mut().map(|x| (x, offset)).ok_or(gone)
    }

    fn outside(&self, a: Address, bytes: usize) -> Fault {
        let what = format!("{bytes} bytes at {a:#x} are not inside one allocation: {}", self.describe(a));
        Fault::new(FaultKind::OutOfBounds, what, "check the address and the size that the host gave")
    }

    pub fn write(&mut self, a: Address, bytes: &[u8]) -> Result<(), Fault> {
        let (x, at) = self.host(a, bytes.len())?;
        x.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        x.undefined -= mark(&mut x.defined, at, bytes.len(), true);
        Ok(())
    }

    /// Reads what was written. Bytes that nobody wrote are a fault, as long as they are tracked.
    pub fn read(&self, a: Address, out: &mut [u8]) -> Result<(), Fault> {
        let found = self.find(a, out.len() as u64);
        let found = found.and_then(|(i, at)| Some((self.allocations[i].as_ref()?, at)));
        let (x, at) = found.ok_or_else(|| self.outside(a, out.len()))?;
        if self.track
            && let Some(hole) = first_undefined(&x.defined, at, out.len())
        {
            let what =
                format!("the host reads {} bytes at {a:#x}, and byte {} was never written", out.len(), hole - at);
            return Err(Fault::new(FaultKind::UninitialisedMemory, what, "look for the kernel that should have"));
        }
        out.copy_from_slice(&x.bytes[at..at + out.len()]);
        Ok(())
    }

    pub fn fill(&mut self, a: Address, bytes: usize, value: u8) -> Result<(), Fault> {
        let (x, at) = self.host(a, bytes)?;
        x.bytes[at..at + bytes].fill(value);
        x.undefined -= mark(&mut x.defined, at, bytes, true);
        Ok(())
    }

    /// Copies within the device; undefined bytes stay undefined.
    pub fn copy(&mut self, from: Address, to: Address, bytes: usize) -> Result<(), Fault> {
        let (x, at) = self.host(from, bytes)?;
        let data = x.bytes[at..at + bytes].to_vec();
        let holes: Vec<bool> = (at..at + bytes).map(|i| x.defined[i / 64] >> (i % 64) & 1 == 0).collect();
        self.write(to, &data)?;
        let (x, at) = self.host(to, bytes)?;
        for i in holes.iter().enumerate().filter(|h| *h.1).map(|h| h.0 + at) {
            x.undefined += mark(&mut x.defined, i, 1, false);
        }
        Ok(())
    }

    /// Makes bytes undefined again, as when an arena gives the place to another value.
    pub fn poison(&mut self, range: std::ops::Range<Address>) -> Result<(), Fault> {
        let bytes = range.end.saturating_sub(range.start) as usize;
        let (x, at) = self.host(range.start, bytes)?;
        x.undefined += mark(&mut x.defined, at, bytes, false);
        Ok(())
    }

    /// Where a variable of a module lives; it gets its place and its first value when it is first asked for.
    pub(crate) fn variable(&mut self, identity: u64, index: u32, v: &crate::kernel::GlobalVariable) -> Address {
        if let Some(&a) = self.variables.get(&(identity, index)) {
            return a;
        }
        let a = self.reserve(v.bytes, !0);
        if let Some(Some(x)) = self.allocations.last_mut() {
            x.bytes.copy_from_slice(&v.init);
        }
        self.variables.insert((identity, index), a);
        a
    }
}

/// Sets or clears the bits of a range of bytes; how many have changed.
pub(crate) fn mark(bits: &mut [u64], at: usize, n: usize, on: bool) -> usize {
    let (mut i, end, mut changed) = (at, at + n, 0);
    while i < end {
        let take = (64 - i % 64).min(end - i);
        let mask = (!0u64 >> (64 - take)) << (i % 64);
        let before = bits[i / 64];
        let after = if on { before | mask } else { before & !mask };
        bits[i / 64] = after;
        changed += (before ^ after).count_ones() as usize;
        i += take;
    }
    changed
}

/// The first byte of a range whose bit is not set.
pub(crate) fn first_undefined(bits: &[u64], at: usize, n: usize) -> Option<usize> {
    let (mut i, end) = (at, at + n);
    while i < end {
        let take = (64 - i % 64).min(end - i);
        let mask = (!0u64 >> (64 - take)) << (i % 64);
        let missing = !bits[i / 64] & mask;
        if missing != 0 {
            return Some(i / 64 * 64 + missing.trailing_zeros() as usize);
        }
        i += take;
    }
    None
}
