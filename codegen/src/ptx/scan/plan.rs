//! Which lane has which states of which channels, and what lies where in shared memory.
use super::shape::Scan;
use lolm_ir::kernel::Kernel;
use std::fmt;

/// Lanes of a warp, and states of a lane.
pub const LANES: i64 = 32;
pub const STATES: i64 = 4;
/// Channels of a lane at most, and warps of a block.
const CHANNELS: i64 = 4;
const WARPS: i64 = 4;
/// Bytes of an f32.
pub const WORD: i64 = 4;
const MOST_SHARED: i64 = 99 << 10;

/// What a step has of each channel: dt, dt·u, and for gradients that of y, and u.
pub const DT: i64 = 0;
pub const DRIVEN: i64 = 1;
pub const DY: i64 = 2;
pub const U: i64 = 3;
/// What a step has of each state: b and c.
pub const OF_STATE: i64 = 2;
pub const B: i64 = 0;
pub const C: i64 = 1;

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// States of a channel; lanes that have them, a power of two; and states with those that only fill up.
    pub states: i64,
    pub across: i64,
    pub padded: i64,
    /// Channels of a lane and of a warp; of a kernel's unit; warps of a block, and blocks of a unit.
    pub channels: i64,
    pub of_warp: i64,
    pub tile: i64,
    pub warps: i64,
    pub tiles: i64,
    /// Steps, steps of a chunk, and chunks.
    pub steps: i64,
    pub chunk: i64,
    pub chunks: i64,
    /// Bytes of a warp's part of shared memory: states of a chunk with the decays of its first step, what its channels and
    /// its states have of each step.
    pub history: i64,
    pub of_channel: i64,
    pub of_state: i64,
    /// Bytes of a warp's sums over its channels, and of those for one of its arrays.
    pub sums: i64,
    pub sums_of: i64,
    pub units: i64,
}

/// The plan of a scan in chunks of so many steps, or of its gradient; nothing if it has too many states.
pub fn plan(k: &Kernel, s: &Scan, chunk: i64, gradient: bool) -> Option<Plan> {
    let len = |a| k.axis(a).len as i64;
    let (states, tile, steps) = (len(s.state), len(s.tile), len(s.time));
    let across = ((states + STATES - 1) / STATES).max(1) as u64;
    let across = across.next_power_of_two() as i64;
    let channels = across.min(CHANNELS);
    if across > LANES {
        return None;
    }
    let of_warp = LANES / across * channels;
    let warps = ((tile + of_warp - 1) / of_warp).min(WARPS);
    let of_channel = if gradient { 4 } else { 2 };
    let padded = across * STATES;
    // Both arrays are written at once: half of the banks lie between them.
    let sums_of = (chunk * padded + LANES / 2) * WORD;
    let plan = Plan {
        states,
        across,
        padded,
        channels,
        of_warp,
        tile,
        warps,
        tiles: (tile + warps * of_warp - 1) / (warps * of_warp),
        steps,
        chunk,
        chunks: (steps + chunk - 1) / chunk,
        history: if gradient { (chunk + 1) * STATES * channels * LANES * WORD } else { 0 },
        of_channel: chunk * of_channel * of_warp * WORD,
        of_state: chunk * OF_STATE * padded * WORD,
        sums: if gradient { OF_STATE * sums_of } else { 0 },
        sums_of,
        units: s.units.iter().map(|a| len(*a)).product(),
    };
    let one = !gradient || plan.tiles == 1;
    let fits = one && plan.bytes() <= MOST_SHARED && plan.units * plan.tiles <= i32::MAX as i64;
    fits.then_some(plan)
}

impl Plan {
    pub fn threads(&self) -> i64 {
        self.warps * LANES
    }
    /// Bytes of what each warp has for itself, and of the whole block.
    pub fn own(&self) -> i64 {
        self.history + self.of_channel + self.of_state
    }
    pub fn bytes(&self) -> i64 {
        self.warps * (self.own() + self.sums)
    }
    /// Lanes along the channels.
    pub fn along(&self) -> i64 {
        LANES / self.across
    }
    /// What the units of the kernel are, and the blocks of each.
    pub fn unit_dims(&self) -> Vec<u32> {
        vec![self.units as u32, self.tiles as u32]
    }
    /// Steps of the last chunk.
    pub fn rest(&self) -> i64 {
        self.steps - (self.chunks - 1) * self.chunk
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { channels, of_warp, warps, chunk, .. } = self;
        write!(f, "chunks of {chunk}; {warps} warps of {of_warp} channels; {STATES} states of {channels} in a lane")
    }
}
