//! Tiles: how a product is cut for blocks, threads and stages of shared memory. By a formula, not by a search.
//!
//! What decides bits is [`Order`], and it sees the depth and the factors, and whether both sides are long.
use super::mma;
use super::product::{Factor, Product, count};
use super::stage::{self, Fill};
use lolm_ir::kernel::Kernel;
use std::fmt;

/// The order of summation: the depth is cut in parts of equal length, each is a chain in ascending order, and their sums
/// are added in ascending order, from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Order {
    /// Elements that are staged at once; a part is a multiple of it.
    pub step: i64,
    pub parts: i64,
    /// Steps of a part, and of all together.
    pub part_steps: i64,
    pub steps: i64,
}

/// Rows and columns from which a depth of bf16 is one part: tiles are many then, and the registers for the sums of parts
/// are worth more as a larger tile.
const LONG: i64 = 1024;

/// The order of a depth, of a product whose shorter side is this long.
pub fn order(factor: Factor, depth: i64, short: i64) -> Order {
    let step = match factor {
        Factor::F32 => 16,
        Factor::Bf16 => 2 * mma::DEEP,
    };
    let steps = ceil(depth, step);
    let whole = depth < 512 || factor == Factor::Bf16 && short >= LONG;
    let parts = if whole { 1 } else { 4 };
    Order { step, parts, part_steps: ceil(steps, parts), steps }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tiling {
    pub order: Order,
    /// Rows and columns of a tile.
    pub rows: i64,
    pub cols: i64,
    /// Threads (of f32) or warps (of bf16) along rows and columns, for each part that is done at once.
    pub along: (i64, i64),
    /// Parts of the depth that are done at once, by threads of their own: one or all.
    pub at_once: i64,
    /// Tiles along rows and columns.
    pub tiles: (i64, i64),
}

/// Elements of a small tile.
const SMALL: i64 = 64 * 64;
/// Processors that should have a tile each.
const PROCESSORS: i64 = 132;
/// Rows and columns of a tile whose parts are done at once.
const SHARED_BY_PARTS: i64 = 96;
/// Tiles that read from enough processors to use all of the memory's speed.
const ENOUGH: i64 = 96;

/// Rows and columns of a tile, threads or warps along them.
type Shape = (i64, i64, (i64, i64));
const F32: &[Shape] = &[(128, 64, (16, 16)), (64, 64, (8, 16)), (32, 64, (8, 16)), (32, 32, (8, 8))];
/// Of bf16 that is copied, where the depth is one part: a warp has 64 by 64, so that it multiplies for longer than it loads.
const WIDEST: Shape = (128, 256, (2, 4));
const BF16: &[Shape] = &[(128, 128, (2, 4)), (128, 64, (2, 2)), (64, 128, (1, 4)), (64, 64, (2, 2)), (32, 64, (1, 4))];

pub fn tiling(k: &Kernel, p: &Product) -> Tiling {
    let (m, n, batch) = (count(k, &p.rows), count(k, &p.cols), count(k, &p.batch));
    let order = order(p.factor, count(k, &p.depth), m.min(n));
    let (shape, at_once) = match narrow(p.factor, m, n, batch, order.parts) {
        Some(shape) => (shape, order.parts),
        None => wide(&shapes(k, p, order), m, n, batch, order.parts),
    };
    let (rows, cols, along) = shape;
    Tiling { order, rows, cols, along, at_once, tiles: (ceil(m, rows), ceil(n, cols)) }
}

/// The shapes that a product may have.
fn shapes(k: &Kernel, p: &Product, order: Order) -> Vec<Shape> {
    let fills = [(p.a, &p.rows), (p.b, &p.cols)].map(|(value, lines)| stage::fill(k, p.factor, value, lines, &p.depth));
    let copied = fills.iter().all(|f| matches!(f, Fill::Copy(..)));
    let evaluated = fills.iter().any(|f| matches!(f, Fill::Evaluate(_)));
    // What takes registers beside the sums: those of all parts, and elements and their addresses on the way to shared
    // memory. The widest tile has room for neither, and none but small ones for both.
    match (p.factor, order.parts) {
        (Factor::F32, _) => F32.to_vec(),
        (Factor::Bf16, 1) if copied => [&[WIDEST], BF16].concat(),
        (Factor::Bf16, 1) => BF16.to_vec(),
        (Factor::Bf16, _) if evaluated => BF16.iter().copied().filter(|s| s.0 * s.1 <= SMALL).collect(),
        (Factor::Bf16, _) => BF16.to_vec(),
    }
}

/// The tile that takes the least time: rounds of all processors, each as long as a tile's arithmetic and traffic. Where
/// most processors would have none, the parts of the depth are done at once, in tiles whose stages fit.
fn wide(shapes: &[Shape], m: i64, n: i64, batch: i64, parts: i64) -> (Shape, i64) {
    let tiles = |(rows, cols, _): &Shape| ceil(m, *rows).saturating_mul(ceil(n, *cols)).saturating_mul(batch);
    let time = |s: &Shape| ceil(tiles(s), PROCESSORS).saturating_mul(s.0 * s.1 + 64 * (s.0 + s.1));
    let best = |most: i64| shapes.iter().copied().filter(|s| s.0 + s.1 <= most).min_by_key(time).unwrap_or(shapes[0]);
    let all = best(i64::MAX);
    match parts > 1 && 2 * tiles(&all) <= PROCESSORS {
        true => (best(SHARED_BY_PARTS), parts),
        false => (all, 1),
    }
}

/// Where one side is short, what counts is that all processors read the other one at once: small tiles, and all parts of
/// the depth side by side.
fn narrow(factor: Factor, m: i64, n: i64, batch: i64, parts: i64) -> Option<Shape> {
    let (short, long) = (m.min(n), m.max(n));
    let short = match factor {
        Factor::F32 if short <= 8 => 8,
        Factor::F32 | Factor::Bf16 if short <= 16 => 16,
        Factor::Bf16 if short <= 32 => 32,
        Factor::F32 | Factor::Bf16 => return None,
    };
    let least = if factor == Factor::F32 { 32 } else { 16 };
    let busy = |cols: &i64| ceil(long, *cols).saturating_mul(batch) >= ENOUGH;
    let mut long = [64, 32].into_iter().find(busy).unwrap_or(least);
    if factor == Factor::F32 && parts == 1 && short == 8 {
        // A warp at least.
        long = 64;
    }
    // Each thread has four by four elements of f32, each warp sixteen columns of bf16.
    let along = |rows: i64, cols: i64| match factor {
        Factor::F32 => (rows / 4, cols / 4),
        Factor::Bf16 if rows <= cols => (1, cols / 16),
        Factor::Bf16 => (rows / 16, 1),
    };
    let (rows, cols) = if m <= n { (short, long.max(short)) } else { (long.max(short), short) };
    Some((rows, cols, along(rows, cols)))
}

pub fn ceil(n: i64, by: i64) -> i64 {
    (n + by - 1) / by
}

impl fmt::Display for Tiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Order { step, parts, part_steps, .. } = self.order;
        write!(f, "tile {}x{} step {step} parts {parts}x{part_steps} at once {}", self.rows, self.cols, self.at_once)
    }
}
