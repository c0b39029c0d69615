//! What the race detector is told of the accesses of a warp.
use super::Cx;
use super::spots::Spots;
use crate::fault::Done;
use crate::inst::{Access, Order, Slot};
use crate::lanes::lanes;
use crate::shadow::Who;
use crate::warp::Warp;

/// An access of some lanes.
pub(crate) struct Touch<'a> {
    pub spots: &'a Spots,
    pub pc: u32,
    pub strong: bool,
    pub write: bool,
    pub read_only: bool,
    /// The registers whose values are written: lanes of one store that write one value do not conflict.
    pub values: &'a [Slot],
    pub wide: bool,
}

impl<'a> Touch<'a> {
    pub fn write(a: &'a Access, pc: u32, spots: &'a Spots) -> Self {
        Touch { write: true, ..Self::read(a, pc, spots) }
    }

    #[inline(always)]
    pub fn read(a: &'a Access, pc: u32, spots: &'a Spots) -> Self {
        Touch {
            spots,
            pc,
            strong: a.order.strong,
            write: false,
            read_only: a.read_only,
            values: &a.regs[..a.vector as usize],
            wide: a.register == 8,
        }
    }

    /// An access that no registers take part in.
    pub fn bare(pc: u32, spots: &'a Spots, write: bool) -> Self {
        Touch { spots, pc, strong: false, write, read_only: false, values: &[], wide: false }
    }
}

impl Cx<'_, '_> {
    /// Checks an access of shared memory against all others.
    #[inline(always)]
    pub(super) fn race_shared(&mut self, w: &mut Warp, a: &Touch<'_>) -> Done {
        if !self.machine.options.races {
            return Ok(());
        }
        let shadow = &mut self.shared.shadow;
        shadow.prepare(self.shared.bytes.len(), self.machine.kernel.granules[0]);
        let view = w.order.view(self.order, w.index, &mut self.machine.locations, true);
        let who = Who { view, pc: a.pc, strong: a.strong, locations: &self.machine.locations };
        let (narrow, wide) = (&w.narrow, &w.wide);
        let same = |l: usize, o: usize| match a.wide {
            true => a.values.iter().all(|&r| wide[r as usize][l] == wide[r as usize][o]),
            false => a.values.iter().all(|&r| narrow[r as usize][l] == narrow[r as usize][o]),
        };
        match a.write {
            true => shadow.write(&who, a.spots, same),
            false => shadow.read(&who, a.spots, false),
        }
    }

    /// The same for an allocation of global memory.
    #[inline(always)]
    pub(super) fn race_global(&mut self, w: &mut Warp, i: usize, a: &Touch<'_>) -> Done {
        if !self.machine.options.races {
            return Ok(());
        }
        let granule = self.machine.kernel.granules[1];
        let Some(x) = self.machine.memory.allocation(i) else { return Ok(()) };
        x.shadow.prepare(x.bytes.len(), granule);
        let view = w.order.view(self.order, w.index, &mut self.machine.locations, false);
        let who = Who { view, pc: a.pc, strong: a.strong, locations: &self.machine.locations };
        let (narrow, wide) = (&w.narrow, &w.wide);
        let same = |l: usize, o: usize| match a.wide {
            true => a.values.iter().all(|&r| wide[r as usize][l] == wide[r as usize][o]),
            false => a.values.iter().all(|&r| narrow[r as usize][l] == narrow[r as usize][o]),
        };
        match a.write {
            true => x.shadow.write(&who, a.spots, same),
            false => x.shadow.read(&who, a.spots, a.read_only),
        }
    }

    /// Strong accesses of flags carry what was seen from one side to the other.
    pub(super) fn flags(
        &mut self,
        w: &mut Warp,
        shared: bool,
        base: u64,
        spots: &Spots,
        order: Order,
        [reads, writes]: [bool; 2],
    ) {
        if !order.strong || !self.machine.options.races {
            return;
        }
        // The flags of global memory, and those of the shared memory of this block.
        let space = if shared { self.order.number + 1 } else { 0 };
        let locations = &mut self.machine.locations;
        for l in lanes(spots.mask) {
            let flag = (space, base + spots.at[l] as u64);
            if reads {
                w.order.read_flag(flag, order.acquire, self.order, w.index, locations);
            }
            if writes {
                w.order.write_flag(flag, order.release, self.order, w.index, locations);
            }
        }
    }
}
