//! The shared memory of a block: its bytes, which of them are defined, and which a copy under way will write.
use super::spots::{Spots, undefined};
use crate::fault::{Done, FaultKind, Slip};
use crate::inst::Space;
use crate::kernel::SHARED_BASE;
use crate::shadow::Shadow;

/// Offsets start at zero; addresses at `SHARED_BASE`.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub bytes: Vec<u8>,
    /// One bit a byte: written, and not about to be overwritten by a copy under way.
    pub defined: Vec<u64>,
    /// How many bytes are not.
    pub undefined: usize,
    /// One bit a byte: a copy under way will write it.
    in_flight: Vec<u64>,
    /// How many bytes are in flight.
    flying: usize,
    pub shadow: Shadow,
}

impl Shared {
    /// Makes it as new, for another block.
    pub fn restart(&mut self, bytes: usize) {
        self.bytes.resize(bytes, 0);
        for bits in [&mut self.defined, &mut self.in_flight] {
            bits.clear();
            bits.resize(bytes.div_ceil(64), 0);
        }
        (self.undefined, self.flying) = (bytes, 0);
    }

    /// Fails if bytes are read that nobody has written, or that a copy under way will write.
    #[inline(always)]
    pub fn check_read(&self, spots: &Spots) -> Done {
        if self.undefined == 0 || spots.all_set(&self.defined) {
            return Ok(());
        }
        match spots.unset(&self.defined) {
            0 => Ok(()),
            missing => Err(self.not_there(spots, missing)),
        }
    }

    #[cold]
    fn not_there(&self, spots: &Spots, missing: u32) -> Box<Slip> {
        let flying = spots.some_set(&self.in_flight) & missing;
        if flying == 0 {
            return undefined(Space::Shared, SHARED_BASE as u64, spots, missing);
        }
        let lane = flying.trailing_zeros();
        let (size, at) = (spots.size, spots.at[lane as usize] + SHARED_BASE);
        let what = format!("{size} bytes at Shared address {at:#x} are read while a copy to them is under way");
        Slip::new(FaultKind::InFlight, Some(lane), what, "wait for its group first: cp.async.wait_group")
    }

    /// Fails if bytes are written that a copy under way will write as well.
    #[inline(always)]
    pub fn check_write(&self, spots: &Spots) -> Done {
        if self.flying == 0 {
            return Ok(());
        }
        match spots.some_set(&self.in_flight) {
            0 => Ok(()),
            hit => {
                let lane = hit.trailing_zeros();
                let at = spots.at[lane as usize & 31] + SHARED_BASE;
                let what = format!("bytes at Shared address {at:#x} are written while a copy to them is under way");
                Err(Slip::new(FaultKind::InFlight, Some(lane), what, "wait for the copy, or write elsewhere"))
            }
        }
    }

    /// A copy to these bytes is under way: they are poison until it lands.
    #[inline(always)]
    pub fn depart(&mut self, at: usize, size: usize) {
        let ones = ((1u64 << size) - 1) << (at & 63);
        let was = self.defined[at >> 6] & ones;
        self.undefined += was.count_ones() as usize;
        self.defined[at >> 6] &= !ones;
        self.in_flight[at >> 6] |= ones;
        self.flying += size;
    }

    /// The copy lands.
    #[inline(always)]
    pub fn land(&mut self, at: usize, data: &[u8]) {
        self.bytes[at..at + data.len()].copy_from_slice(data);
        let ones = ((1u64 << data.len()) - 1) << (at & 63);
        self.defined[at >> 6] |= ones;
        self.in_flight[at >> 6] &= !ones;
        self.undefined -= data.len();
        self.flying -= data.len();
    }
}
