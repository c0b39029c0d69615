//! A warp: its registers, and the groups into which its lanes have split.
use crate::fault::{Done, FaultKind, Slip};
use crate::inst::{PredRef, Slot};
use crate::kernel::Kernel;
use crate::lanes::{LANES, Row, Wide, blend};
use crate::order::WarpOrder;

/// Why a group of lanes does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// At an exchange, for lanes that its mask names.
    Lanes(u32),
    /// At a barrier of the block.
    Barrier(u32),
}

/// Lanes that stand at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    pub pc: u32,
    pub mask: u32,
    pub wait: Option<Wait>,
}

/// An asynchronous copy under way.
#[derive(Clone, Copy, Debug)]
pub struct Copy {
    pub lane: u8,
    pub bytes: u8,
    /// The number of the group that its thread committed, or will commit.
    pub group: u32,
    pub to: u32,
    pub data: [u8; 16],
    pub pc: u32,
}

#[derive(Debug)]
pub struct Warp {
    pub index: u32,
    pub narrow: Vec<Row>,
    pub wide: Vec<Wide>,
    pub preds: Vec<u32>,
    /// Which lanes of a register were set: 32 bits, 64 bits, predicates.
    pub set: [Vec<u32>; 3],
    /// Where the lanes stand that run now; none if all wait or are gone.
    pub pc: u32,
    pub active: u32,
    /// The lanes that have not exited.
    pub live: u32,
    /// The lanes that are elsewhere.
    pub groups: Vec<Group>,
    /// Local memory, thread by thread, and which of its bytes were written.
    pub local: Vec<u8>,
    pub local_defined: Vec<u64>,
    pub copies: Vec<Copy>,
    /// How many groups of copies each lane has committed.
    pub committed: [u32; LANES],
    pub order: WarpOrder,
}

impl Warp {
    pub fn new(kernel: &Kernel) -> Warp {
        Warp {
            index: 0,
            narrow: vec![[0; LANES]; kernel.slots[0]],
            wide: vec![[0; LANES]; kernel.slots[1]],
            preds: vec![0; kernel.slots[2]],
            set: [0, 1, 2].map(|f| vec![0; kernel.slots[f]]),
            pc: 0,
            active: 0,
            live: 0,
            groups: vec![],
            local: vec![0; kernel.local_bytes * LANES],
            local_defined: vec![0; (kernel.local_bytes * LANES).div_ceil(64)],
            copies: vec![],
            committed: [0; LANES],
            order: WarpOrder::default(),
        }
    }

    /// Makes the warp as new, for another block.
    pub fn restart(&mut self, index: u32, live: u32) {
        self.index = index;
        self.set.iter_mut().for_each(|s| s.fill(0));
        (self.pc, self.active, self.live) = (0, live, live);
        self.groups.clear();
        self.local_defined.fill(0);
        self.copies.clear();
        self.committed = [0; LANES];
        self.order = WarpOrder::default();
    }

    /// Sets a register in all lanes: for constants and special registers.
    pub fn preset(&mut self, slot: Slot, row: Row) {
        self.narrow[slot as usize] = row;
        self.set[0][slot as usize] = !0;
    }

    #[inline(always)]
    pub fn row(&self, slot: Slot, mask: u32) -> Done<&Row> {
        if mask & !self.set[0][slot as usize] != 0 {
            return Err(self.unset(0, slot, mask));
        }
        Ok(&self.narrow[slot as usize])
    }

    #[inline(always)]
    pub fn wide(&self, slot: Slot, mask: u32) -> Done<&Wide> {
        if mask & !self.set[1][slot as usize] != 0 {
            return Err(self.unset(1, slot, mask));
        }
        Ok(&self.wide[slot as usize])
    }

    #[inline(always)]
    pub fn pred(&self, p: PredRef, mask: u32) -> Done<u32> {
        if mask & !self.set[2][p.slot as usize] != 0 {
            return Err(self.unset(2, p.slot, mask));
        }
        let value = self.preds[p.slot as usize];
        Ok(if p.negated { !value } else { value })
    }

    #[inline(always)]
    pub fn put(&mut self, slot: Slot, v: &Row, mask: u32) {
        blend(&mut self.narrow[slot as usize], v, mask);
        self.set[0][slot as usize] |= mask;
    }

    #[inline(always)]
    pub fn put_wide(&mut self, slot: Slot, v: &Wide, mask: u32) {
        blend(&mut self.wide[slot as usize], v, mask);
        self.set[1][slot as usize] |= mask;
    }

    #[inline(always)]
    pub fn put_pred(&mut self, slot: Slot, v: u32, mask: u32) {
        let p = &mut self.preds[slot as usize];
        *p = *p & !mask | v & mask;
        self.set[2][slot as usize] |= mask;
    }

    #[cold]
    fn unset(&self, file: usize, slot: Slot, mask: u32) -> Box<Slip> {
        let lane = (mask & !self.set[file][slot as usize]).trailing_zeros();
        let kind = ["32-bit register", "64-bit register", "predicate"][file];
        // The message names the slot; the launch puts the register's name in its place.
        let what = format!("the {kind} #{file}:{slot}# was not set on the way here");
        Slip::new(FaultKind::UninitialisedRegister, Some(lane), what, "set it on every path that leads here")
    }

    pub fn done(&self) -> bool {
        self.live == 0
    }

    /// True if some lanes can take a step.
    pub fn runnable(&self) -> bool {
        self.active != 0
    }

    /// Lets the lanes that run now stand where they are, for this reason, and takes up the next.
    pub fn park(&mut self, wait: Wait) {
        self.groups.push(Group { pc: self.pc, mask: self.active, wait: Some(wait) });
        self.active = 0;
        self.settle();
    }

    /// Chooses the lanes that run next: those at the lowest place that wait for nothing, and with them all that stand there.
    pub fn settle(&mut self) {
        let free = self.groups.iter().filter(|g| g.wait.is_none()).map(|g| g.pc).min();
        match free {
            Some(pc) if self.active == 0 || pc < self.pc => {
                if self.active != 0 {
                    self.groups.push(Group { pc: self.pc, mask: self.active, wait: None });
                }
                (self.pc, self.active) = (pc, 0);
            }
            _ if self.active == 0 => return,
            _ => {}
        }
        let (pc, mut joined) = (self.pc, 0);
        self.groups.retain(|g| {
            let joins = g.pc == pc && !matches!(g.wait, Some(Wait::Barrier(_)));
            joined |= if joins { g.mask } else { 0 };
            !joins
        });
        self.active |= joined;
    }

    /// A branch that the lanes of a mask take.
    #[inline(always)]
    pub fn branch(&mut self, target: u32, taken: u32) {
        let stays = self.active & !taken;
        if stays == 0 {
            self.pc = target;
        } else {
            self.groups.push(Group { pc: target, mask: taken, wait: None });
            self.active = stays;
            self.pc += 1;
        }
    }

    /// The lanes of a mask are gone.
    pub fn exit(&mut self, mask: u32) {
        self.live &= !mask;
        self.active &= !mask;
        self.pc += 1;
        // Those who wait for lanes look again: they may have waited for these.
        for g in self.groups.iter_mut().filter(|g| matches!(g.wait, Some(Wait::Lanes(_)))) {
            g.wait = None;
        }
        if self.active == 0 {
            self.settle();
        }
    }

    /// Lanes that waited at a barrier go on behind it. True if there were some.
    pub fn release(&mut self, barrier: u32) -> bool {
        let mut any = false;
        for g in self.groups.iter_mut().filter(|g| g.wait == Some(Wait::Barrier(barrier))) {
            (g.wait, g.pc) = (None, g.pc + 1);
            any = true;
        }
        if self.active == 0 {
            self.settle();
        }
        any
    }
}
