//! What orders accesses: segments of warps, barriers, and fences with strong accesses between blocks.
//!
//! Two plain accesses of the same bytes by two blocks in one launch, one of them a write, are a race. A kernel passes data
//! from block to block legally like this ("the last block does the rest"):
//!
//! 1. all threads write their part; `bar.sync` (if more than one thread wrote);
//! 2. one thread: `membar.gl` or `fence.acq_rel.gpu`, then an atomic, or a volatile, relaxed or releasing store, on a flag:
//!    the flag now carries all that the thread had seen at the fence;
//! 3. the reader: an atomic, or a volatile, relaxed or acquiring load of the flag, then a fence (`.acquire` needs none): it has
//!    seen what the flag carried when it was read;
//! 4. `bar.sync`, so that the other threads of the block have seen it too; then plain reads.
//!
//! Strong accesses (atomic, volatile, relaxed and stronger) never race with one another.
use std::collections::BTreeMap;
use std::rc::Rc;

/// What a warp did between two synchronisations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    /// The number of the block in the order in which blocks were started.
    pub block: u32,
    pub warp: u8,
    /// The block's clock when the segment began.
    pub time: u32,
}

/// A flag: its block (none for global memory) and its address.
pub(crate) type Flag = (u32, u64);

/// How far a warp has seen the warps of its block.
pub(crate) type Seen = [u32; 32];

/// What one block has put into a flag, in order: when, as a number of the flag, and what it had seen.
type Releases = Vec<(usize, Rc<Seen>)>;

#[derive(Debug, Default)]
struct Carried {
    releases: usize,
    by_block: BTreeMap<u32, Releases>,
}

/// A flag that a warp has read: how many releases it carried then, and when that was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acquired {
    flag: Flag,
    upto: usize,
    warp: u8,
    time: u32,
}

/// What an access knows of its own place.
pub(crate) struct View<'a> {
    pub block: u32,
    pub warp: u8,
    pub segment: u32,
    pub seen: &'a Seen,
    /// Segments before this one are ordered before all that happens now.
    pub floor: u32,
    /// The first segment of the launch.
    pub launch: u32,
    pub acquired: &'a [Acquired],
}

/// The segments and the flags of a launch.
#[derive(Debug, Default)]
pub(crate) struct Locations {
    first: u32,
    segments: Vec<Segment>,
    flags: BTreeMap<Flag, Carried>,
}

impl Locations {
    pub fn new(first: u32) -> Self {
        Locations { first, ..Self::default() }
    }

    /// The first segment of the launch.
    pub fn first(&self) -> u32 {
        self.first
    }

    /// The segment that will be opened next.
    pub fn next(&self) -> u32 {
        self.first + self.segments.len() as u32
    }

    fn open(&mut self, s: Segment) -> u32 {
        self.segments.push(s);
        self.next() - 1
    }

    #[inline(always)]
    pub fn segment(&self, id: u32) -> Option<&Segment> {
        self.segments.get(id.checked_sub(self.first)? as usize)
    }

    pub fn warp_of(&self, id: u32) -> u8 {
        self.segment(id).map_or(0, |s| s.warp)
    }

    /// True if a flag that this warp has read carries the segment.
    #[inline(never)]
    pub fn reaches(&self, view: &View<'_>, s: &Segment) -> bool {
        view.acquired.iter().any(|a| {
            let here = a.warp == view.warp || a.time < view.seen[a.warp as usize];
            let releases = self.flags.get(&a.flag).and_then(|c| c.by_block.get(&s.block));
            here && releases.is_some_and(|r| r.iter().any(|(n, seen)| *n < a.upto && s.time < seen[s.warp as usize]))
        })
    }
}

/// The order inside of a block.
#[derive(Debug, Default)]
pub(crate) struct BlockOrder {
    pub number: u32,
    pub clock: u32,
    /// Segments of this block before this one are ordered before everything that happens now.
    pub floor: u32,
    acquired: Vec<Acquired>,
}

impl BlockOrder {
    pub fn restart(&mut self, number: u32, locations: &Locations) {
        *self = BlockOrder { number, floor: locations.next(), clock: 1, acquired: vec![] };
    }

    fn tick(&mut self) -> u32 {
        self.clock += 1;
        self.clock
    }
}

/// What a warp knows of the others.
#[derive(Clone, Debug, Default)]
pub(crate) struct WarpOrder {
    pub seen: Seen,
    /// The open segment, or none.
    segment: u32,
    /// What the warp had seen at its last fence.
    fenced: Option<Rc<Seen>>,
    /// Flags that were read since the last fence, with how much they carried.
    read: Vec<(Flag, usize)>,
}

impl WarpOrder {
    #[inline(always)]
    pub fn view<'a>(
        &'a mut self,
        block: &'a BlockOrder,
        warp: u32,
        locations: &mut Locations,
        shared: bool,
    ) -> View<'a> {
        if self.segment == 0 {
            self.segment = locations.open(Segment { block: block.number, warp: warp as u8, time: block.clock });
        }
        View {
            block: block.number,
            warp: warp as u8,
            segment: self.segment,
            seen: &self.seen,
            floor: if shared { block.floor } else { locations.first() },
            launch: locations.first(),
            acquired: &block.acquired,
        }
    }

    /// The lanes of the warp have synchronised.
    pub fn sync(&mut self, block: &mut BlockOrder, warp: u32) {
        self.seen[warp as usize] = block.tick();
        self.segment = 0;
    }

    /// The warp comes to a barrier, which gathers what all who come have seen.
    pub fn arrive(&mut self, block: &mut BlockOrder, warp: u32, gathered: &mut Seen) {
        let now = block.tick();
        gathered.iter_mut().zip(&self.seen).for_each(|(g, s)| *g = (*g).max(*s));
        gathered[warp as usize] = now;
        self.segment = 0;
    }

    /// The barrier opens for a warp that waited at it.
    pub fn pass(&mut self, gathered: &Seen) {
        self.seen.iter_mut().zip(gathered).for_each(|(s, g)| *s = (*s).max(*g));
        self.segment = 0;
    }

    fn snapshot(&mut self, block: &mut BlockOrder, warp: u32) -> Rc<Seen> {
        let mut seen = self.seen;
        seen[warp as usize] = block.tick();
        self.segment = 0;
        Rc::new(seen)
    }

    /// A fence: what was seen before it goes into the flags that are written after it, and the other way round.
    pub fn fence(&mut self, block: &mut BlockOrder, warp: u32) {
        self.fenced = Some(self.snapshot(block, warp));
        self.acquire(block, warp);
    }

    fn acquire(&mut self, block: &mut BlockOrder, warp: u32) {
        let time = block.clock;
        for (flag, upto) in self.read.drain(..) {
            // A loop that waits reads one flag again and again, mostly to find nothing new.
            let known = |a: &Acquired| a.flag == flag && a.warp == warp as u8 && a.upto >= upto;
            if !block.acquired.iter().any(known) {
                block.acquired.push(Acquired { flag, upto, warp: warp as u8, time });
            }
        }
        self.segment = 0;
    }

    /// A strong read of a flag.
    pub fn read_flag(&mut self, flag: Flag, acquire: bool, block: &mut BlockOrder, warp: u32, locations: &Locations) {
        let upto = locations.flags.get(&flag).map_or(0, |c| c.releases);
        if upto == 0 {
            return;
        }
        self.read.retain(|r| r.0 != flag);
        self.read.push((flag, upto));
        if acquire {
            self.acquire(block, warp);
        }
    }

    /// A strong write of a flag.
    pub fn write_flag(
        &mut self,
        flag: Flag,
        release: bool,
        block: &mut BlockOrder,
        warp: u32,
        locations: &mut Locations,
    ) {
        if release {
            self.fenced = Some(self.snapshot(block, warp));
        }
        let Some(seen) = &self.fenced else { return };
        let carried = locations.flags.entry(flag).or_default();
        let releases = carried.by_block.entry(block.number).or_default();
        releases.push((carried.releases, seen.clone()));
        carried.releases += 1;
    }
}
