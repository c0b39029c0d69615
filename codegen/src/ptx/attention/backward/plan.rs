//! Tiles of gradients. Two tiles of what passes by are in shared memory at once: one is used while the next one comes.
use super::shape::Shape;
use crate::ptx::attention::parts::Scores;
use crate::ptx::attention::plan::{Plan, ROWS, Region, WIDEST, count, region, size};
use lolm_ir::kernel::Kernel;

/// The plan of a gradient.
#[derive(Clone, Copy)]
pub struct Staged {
    pub plan: Plan,
    /// Bytes from one stage to the next.
    pub stage: i64,
    /// What is known of the rows that pass by: a line of words for each value.
    pub columns: Region,
}

/// Warps, fragments of each, and lines that pass by at once, the best first. None of them changes an order of summation.
type Shapes = &'static [(i64, i64, i64)];
const BF16: Shapes = &[(4, 2, 32), (4, 1, 32), (4, 1, 16), (2, 1, 16)];
const F32: Shapes = &[(4, 1, 16), (4, 1, 8), (2, 1, 8)];
/// Registers for results, weights and slopes that a lane may have.
const REGISTERS: i64 = 192;

/// The plan of a gradient in which so many values are known of each row; nothing if its heads are too wide.
pub fn plan(k: &Kernel, s: &Shape, values: i64) -> Option<Staged> {
    let shapes = if s.narrow() { BF16 } else { F32 };
    let fits = |shape: &(i64, i64, i64)| staged(k, s, values, *shape);
    shapes.iter().find_map(fits)
}

fn staged(k: &Kernel, s: &Shape, values: i64, (warps, fragments, tile): (i64, i64, i64)) -> Option<Staged> {
    let narrow = s.narrow();
    let Scores { rows, keys, batch, .. } = &s.scores;
    let over = region(k, &s.scores.over, narrow);
    let wide = region(k, &s.scores.wide, narrow);
    let (rows, keys) = (count(k, rows), count(k, &[*keys]));
    let (lines, walked) = if s.by_keys { (keys, rows) } else { (rows, keys) };
    let block = ROWS * warps * fragments;
    // Without slopes there is no need of values.
    let line_wide = if s.v.is_some() { wide.at(block * over.pitch) } else { Region::default() };
    let start = block * (over.pitch + line_wide.pitch);
    let walked_over = over.at(start);
    let walked_wide = wide.at(walked_over.at + tile * over.pitch);
    let end = walked_wide.at + tile * wide.pitch;
    let columns = Region { at: end, pitch: tile * 4, width: tile, padded: tile };
    // The next stage begins on a multiple of 16, as pieces do.
    let stage = (end + values * columns.pitch - start + 15) / 16 * 16;
    let exchange = start + 2 * stage;
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
        line_wide,
        walked_over,
        walked_wide,
        exchange,
        bytes: exchange + 2 * MOST_BOUNDS * warps * 4,
    };
    let results = s.of_over.iter().map(|_| over.padded).chain(s.of_wide.iter().map(|_| wide.padded)).sum::<i64>() / 2;
    let registers = fragments * (results + tile);
    // A block of few lines would leave most of its warps without any.
    let some = fragments == 1 || lines > ROWS * warps;
    let fits = over.padded.max(wide.padded) <= WIDEST && registers <= REGISTERS && some;
    (fits && plan.fits()).then_some(Staged { plan, stage, columns })
}

/// Bounds that positions put on keys.
const MOST_BOUNDS: i64 = 4;
