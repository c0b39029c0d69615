//! Tiles of an attention: how many rows and keys are in flight, and where they lie in shared memory.
use super::shape::Shape;
use lolm_ir::kernel::{KAxis, Kernel};
use std::fmt;

/// Warps of a block.
pub const WARPS: i64 = 4;
pub const THREADS: i64 = WARPS * 32;
/// Rows of a fragment.
pub const ROWS: i64 = 16;
/// The widest head, and the most shared memory of a block.
const WIDEST: i64 = 256;
const MOST_SHARED: i64 = 99 << 10;

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub narrow: bool,
    /// Lengths: rows of one batch, keys, what scores contract, and the values' width; and the last two as they are in
    /// shared memory, where zeros follow.
    pub rows: i64,
    pub keys: i64,
    pub over: i64,
    pub wide: i64,
    pub over_padded: i64,
    pub wide_padded: i64,
    /// Keys of a tile, and fragments of rows that each warp has.
    pub tile: i64,
    pub fragments: i64,
    /// Tiles of rows, and batches.
    pub tiles: i64,
    pub batches: i64,
    /// Bytes of an element, and from one line to the next.
    pub size: i64,
    pub over_pitch: i64,
    pub wide_pitch: i64,
    /// Where queries, keys and values lie.
    pub q_at: i64,
    pub k_at: i64,
    pub v_at: i64,
    pub bytes: i64,
}

pub fn count(k: &Kernel, axes: &[KAxis]) -> i64 {
    axes.iter().map(|a| k.axis(*a).len as i64).product()
}

/// Bytes from one line to the next: an odd multiple of 16, so that eight lines at one place lie in all banks.
fn pitch(bytes: i64) -> i64 {
    if bytes / 16 % 2 == 0 { bytes + 16 } else { bytes }
}

/// Keys of a tile. The order of summation follows from it, so it depends on the head and the dtype alone.
fn key_tile(narrow: bool, widest: i64) -> i64 {
    match narrow {
        true => 64,
        false if widest <= 128 => 32,
        false => 16,
    }
}

/// The plan of an attention; nothing if its heads are too wide.
pub fn plan(k: &Kernel, s: &Shape) -> Option<Plan> {
    let narrow = s.narrow();
    let (rows, keys) = (count(k, &s.rows), count(k, &[s.keys]));
    let (over, wide) = (count(k, &s.over), count(k, &s.wide));
    let (size, unit) = if narrow { (2, 16) } else { (4, 8) };
    let padded = |n: i64| (n + unit - 1) / unit * unit;
    let (over_padded, wide_padded) = (padded(over), padded(wide));
    let widest = over_padded.max(wide_padded);
    let tile = key_tile(narrow, widest);
    let (over_pitch, wide_pitch) = (pitch(over_padded * size), pitch(wide_padded * size));
    // Two fragments of rows share what is read of the keys, where there are rows and registers enough.
    let fragments = if narrow && widest <= 64 && rows >= 256 { 2 } else { 1 };
    let block = ROWS * WARPS * fragments;
    let (q_at, k_at) = (0, block * over_pitch);
    let v_at = k_at + tile * over_pitch;
    let bytes = v_at + tile * wide_pitch;
    let (tiles, batches) = ((rows + block - 1) / block, count(k, &s.batch));
    let fits = widest <= WIDEST && bytes <= MOST_SHARED && tiles.checked_mul(batches)? <= i32::MAX as i64;
    let short = [rows, keys].iter().all(|n| *n < 1 << 30);
    (fits && short).then_some(Plan {
        narrow,
        rows,
        keys,
        over,
        wide,
        over_padded,
        wide_padded,
        tile,
        fragments,
        tiles,
        batches,
        size,
        over_pitch,
        wide_pitch,
        q_at,
        k_at,
        v_at,
        bytes,
    })
}

impl Plan {
    /// Rows of a block.
    pub fn block(&self) -> i64 {
        ROWS * WARPS * self.fragments
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.narrow { "bf16" } else { "f32" };
        write!(f, "attention {{ {what}; rows {} keys {}; {} warps }}", self.block(), self.tile, WARPS)
    }
}
