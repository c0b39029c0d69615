//! Tiles: how many lines of rows or keys are in flight, and where they lie in shared memory. A block keeps what becomes of
//! a tile of *lines* in registers while tiles of others *pass by*: keys pass by rows, or rows by keys.
use super::parts::Scores;
use super::shape::Shape;
use lolm_ir::kernel::{KAxis, Kernel};
use std::fmt;

/// Lines of a fragment.
pub const ROWS: i64 = 16;
/// The widest head, and the most shared memory of a block.
pub const WIDEST: i64 = 256;
pub const MOST_SHARED: i64 = 99 << 10;

/// Lines in shared memory: where they begin, bytes from one to the next, and elements of each, zeros that follow included.
#[derive(Clone, Copy, Default, Debug)]
pub struct Region {
    pub at: i64,
    pub pitch: i64,
    pub width: i64,
    pub padded: i64,
}

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub narrow: bool,
    /// Lines of one batch whose results stay in registers, and those that pass by.
    pub lines: i64,
    pub walked: i64,
    /// Lines that pass by at once; warps of a block, and fragments of lines that each of them has.
    pub tile: i64,
    pub warps: i64,
    pub fragments: i64,
    /// Tiles of lines, and batches.
    pub tiles: i64,
    pub batches: i64,
    /// Bytes of an element.
    pub size: i64,
    /// Shared memory: of the lines and of those that pass by, along what scores contract, and along the values.
    pub line_over: Region,
    pub line_wide: Region,
    pub walked_over: Region,
    pub walked_wide: Region,
    /// Where the warps tell each other what their rows see.
    pub exchange: i64,
    pub bytes: i64,
}

pub fn count(k: &Kernel, axes: &[KAxis]) -> i64 {
    axes.iter().map(|a| k.axis(*a).len as i64).product()
}

/// Bytes from one line to the next: an odd multiple of 16, so that eight lines at one place lie in all banks.
fn pitch(bytes: i64) -> i64 {
    if bytes / 16 % 2 == 0 { bytes + 16 } else { bytes }
}

/// Bytes of an element of these products.
pub fn size(narrow: bool) -> i64 {
    if narrow { 2 } else { 4 }
}

/// Lines along these axes; they begin at 0.
pub fn region(k: &Kernel, axes: &[KAxis], narrow: bool) -> Region {
    let unit = if narrow { 16 } else { 8 };
    let width = count(k, axes);
    let padded = (width + unit - 1) / unit * unit;
    Region { at: 0, pitch: pitch(padded * size(narrow)), width, padded }
}

impl Region {
    pub fn at(self, at: i64) -> Region {
        Region { at, ..self }
    }
}

/// Keys of a tile. The order of summation follows from it, so it depends on the head and the dtype alone.
fn key_tile(narrow: bool, widest: i64) -> i64 {
    let tile = if narrow { 64 } else { 32 };
    if widest <= 128 { tile } else { tile / 2 }
}

/// The plan of an attention; nothing if its heads are too wide.
pub fn plan(k: &Kernel, s: &Shape) -> Option<Plan> {
    let narrow = s.narrow();
    let Scores { rows, keys, over, wide, batch, .. } = &s.scores;
    let (lines, walked) = (count(k, rows), count(k, &[*keys]));
    let (over, wide) = (region(k, over, narrow), region(k, wide, narrow));
    let widest = over.padded.max(wide.padded);
    let tile = key_tile(narrow, widest);
    // Two fragments of rows share what is read of the keys, where there are rows and registers enough: a last tile that is
    // not full takes some to say so. No sum depends on it.
    let fragments = if narrow && widest <= 64 && lines >= 256 && walked % tile == 0 { 2 } else { 1 };
    let warps = 4;
    let block = ROWS * warps * fragments;
    let walked_over = over.at(block * over.pitch);
    let walked_wide = wide.at(walked_over.at + tile * over.pitch);
    let bytes = walked_wide.at + tile * wide.pitch;
    let plan = Plan {
        narrow,
        lines,
        walked,
        tile,
        warps,
        fragments,
        tiles: (lines + block - 1) / block,
        batches: count(k, batch),
        size: size(narrow),
        line_over: over,
        line_wide: Region::default(),
        walked_over,
        walked_wide,
        exchange: walked_wide.at,
        bytes,
    };
    (widest <= WIDEST && plan.fits()).then_some(plan)
}

impl Plan {
    /// Lines of a block.
    pub fn block(&self) -> i64 {
        ROWS * self.warps * self.fragments
    }
    pub fn threads(&self) -> i64 {
        self.warps * 32
    }
    pub fn unit_dims(&self) -> Vec<u32> {
        vec![self.batches as u32, self.tiles as u32]
    }
    /// It has shared memory enough, and the numbers of lines and blocks fit 32 bits.
    pub fn fits(&self) -> bool {
        let short = [self.lines, self.walked].iter().all(|n| *n < 1 << 30);
        let blocks = self.tiles.checked_mul(self.batches).is_some_and(|n| n <= i32::MAX as i64);
        short && blocks && self.bytes <= MOST_SHARED
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.narrow { "bf16" } else { "f32" };
        write!(f, "{what}; lines {} by {}; {} warps", self.block(), self.tile, self.warps)
    }
}
