//! The step of a product of bf16: each warp has a few fragments of 16 rows by 8 columns, which matrix instructions add to.
//!
//! Rows and columns come sixteen at a time by one `ldmatrix`: four matrices of 8 by 8, transposed on the way where
//! neighbours in shared memory are not neighbours along the depth.
use super::tile::{Cx, Multiply, Side, Sums};
use super::tiling::Tiling;
use crate::ptx::coord::{self, C};
use crate::ptx::inst::*;

/// Lines of one `ldmatrix`, and elements along the depth of one matrix instruction.
const LINES: i64 = 16;
pub const DEEP: i64 = 16;

/// A warp's lines of one side.
struct Mine {
    /// Bytes from the start of a stage to the row of shared memory that this lane points at.
    base: Reg,
    /// Groups of sixteen lines.
    groups: i64,
}

/// Four registers for each group of sixteen lines.
type Fragments = Vec<[Reg; 4]>;

/// Where a warp reads, and its sums: four registers for each fragment, those of a row of fragments together.
///
/// Of both sides there are the fragments of each half of a step.
pub struct Mma {
    sides: [Mine; 2],
    fragments: [[Fragments; 2]; 2],
    pub sums: Sums,
}

pub fn prepare(cx: &mut Cx, sides: &[Side; 2]) -> Mma {
    let Tiling { along: (down, across), rows, cols, .. } = cx.t;
    let b = &mut cx.g.e.b;
    let (warp, lane) = coord::divmod(b, cx.tid, 32);
    let (part, warp) = coord::divmod(b, warp, down * across);
    let (wy, wx) = coord::divmod(b, warp, across);
    let row = coord::mul(b, wy, rows / down);
    let col = coord::mul(b, wx, cols / across);
    let mines = [
        mine(cx, &sides[0], row, rows / down, part, lane, true),
        mine(cx, &sides[1], col, cols / across, part, lane, false),
    ];
    // A lane has two neighbouring columns of the rows that its four and the eighth after it are.
    let b = &mut cx.g.e.b;
    let (line, pair) = coord::divmod(b, lane, 4);
    let row = coord::add(b, row, line);
    let pair = coord::mul(b, pair, 2);
    let col = coord::add(b, col, pair);
    let mut places = vec![];
    for y in 0..mines[0].groups {
        for x in 0..mines[1].groups * 2 {
            places.extend([(0, 0), (0, 1), (8, 0), (8, 1)].map(|(r, c)| (y * LINES + r, x * 8 + c)));
        }
    }
    let registers = places.iter().map(|_| cx.g.e.b.variable(Type::F32, Src::F32(0))).collect();
    let fragments = [(); 2].map(|()| mines.each_ref().map(|m| registers_of(cx, m)));
    Mma { sides: mines, fragments, sums: Sums { registers, places, row, col, part } }
}

fn registers_of(cx: &mut Cx, mine: &Mine) -> Fragments {
    (0..mine.groups).map(|_| [(); 4].map(|()| cx.g.e.b.reg(Class::B32))).collect()
}

/// The rows of the four matrices that the lanes point at. Of the first factor the second matrix is of the next lines, of
/// the second factor it is deeper: so the registers come in the order in which the matrix instruction takes them.
fn mine(cx: &mut Cx, side: &Side, first: C, lines: i64, part: C, lane: C, is_a: bool) -> Mine {
    let b = &mut cx.g.e.b;
    let (matrix, row) = coord::divmod(b, lane, 8);
    let (high, low) = coord::divmod(b, matrix, 2);
    let (line_half, depth_half) = if is_a { (low, high) } else { (high, low) };
    let line = coord::mul(b, line_half, 8);
    let depth = coord::mul(b, depth_half, 8);
    let (line, depth) = match side.by_depth {
        true => (coord::add(b, line, row), depth),
        false => (line, coord::add(b, depth, row)),
    };
    let line = coord::add(b, line, first);
    let (outer, inner) = if side.by_depth { (line, depth) } else { (depth, line) };
    let (outer, inner) = (coord::mul(b, outer, side.pitch), coord::mul(b, inner, side.size));
    let at = coord::add(b, outer, inner);
    let start = coord::mul(b, part, side.part_bytes);
    let at = coord::add(b, at, start);
    let at = coord::add(b, at, C::Const(side.offset));
    let at = coord::int(b, at);
    Mine { base: b.mov(Type::B32, at), groups: lines / LINES }
}

/// A step is two deep: while the fragments of one half are multiplied, those of the next are loaded.
impl Multiply for Mma {
    fn lead(&self, cx: &mut Cx, sides: &[Side; 2], stage: Reg, guard: Option<Reg>) {
        self.load(cx, sides, stage, 0, guard);
    }

    fn follow(&self, cx: &mut Cx, sides: &[Side; 2], stage: Reg) {
        self.load(cx, sides, stage, 1, None);
    }

    fn most(&self, cx: &mut Cx, _: &[Side; 2], _: Reg) {
        self.multiply(cx, 0);
    }

    fn rest(&self, cx: &mut Cx, sides: &[Side; 2], next: Reg, guard: Reg) {
        self.load(cx, sides, next, 0, Some(guard));
        self.multiply(cx, 1);
    }
}

impl Mma {
    /// Loads the fragments of all groups of lines, of one half of a step.
    fn load(&self, cx: &mut Cx, sides: &[Side; 2], stage: Reg, half: usize, guard: Option<Reg>) {
        let b = &mut cx.g.e.b;
        let start = half as i64 * DEEP;
        // The stage is another one in each step.
        b.open();
        for ((side, mine), fragments) in sides.iter().zip(&self.sides).zip(&self.fragments[half]) {
            let base = b.binary(BinOp::Add, Type::S32, stage, mine.base);
            for (group, d) in fragments.iter().enumerate() {
                let line = group as i64 * LINES;
                let (outer, inner) = if side.by_depth { (line, start) } else { (start, line) };
                let at = Address { base, offset: (outer * side.pitch + inner * side.size) as i32 };
                let load = Op::Ldmatrix { transposed: !side.by_depth, d: *d, at };
                b.guarded(guard.map(|p| (p, true)), load);
            }
        }
        b.close();
    }

    /// Adds the products of one half.
    fn multiply(&self, cx: &mut Cx, half: usize) {
        let [x, y] = &self.fragments[half];
        let columns = || y.iter().flat_map(|group| [[group[0], group[1]], [group[2], group[3]]]);
        let pairs = x.iter().flat_map(|a| columns().map(move |b| (*a, b)));
        for (d, (a, b)) in self.sums.registers.chunks_exact(4).zip(pairs) {
            cx.g.e.b.op(Op::Mma { d: [d[0], d[1], d[2], d[3]], a, b });
        }
    }
}
