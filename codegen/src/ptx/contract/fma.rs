//! The step of a product of f32: each thread has a few rows and columns, and a chain of fma for each of their elements.
use super::tile::{Cx, Multiply, Side, Sums};
use super::tiling::Tiling;
use crate::ptx::coord::{self, C};
use crate::ptx::inst::*;

/// A thread's elements of one side.
struct Mine {
    /// Bytes from the start of a stage to the first of them.
    base: Reg,
    /// How far each line is from the first.
    lines: Vec<i64>,
    /// The first line.
    first: C,
}

/// Where a thread reads, and its sums.
pub struct Fma {
    sides: [Mine; 2],
    pub sums: Sums,
}

/// Elements that one load of shared memory has.
const WIDE: i64 = 4;

pub fn prepare(cx: &mut Cx, sides: &[Side; 2]) -> Fma {
    let Tiling { along: (down, across), .. } = cx.t;
    let b = &mut cx.g.e.b;
    let (part, thread) = coord::divmod(b, cx.tid, down * across);
    let (ty, tx) = coord::divmod(b, thread, across);
    let rows = mine(cx, &sides[0], ty, down, part);
    let cols = mine(cx, &sides[1], tx, across, part);
    let places: Vec<(i64, i64)> = rows.lines.iter().flat_map(|r| cols.lines.iter().map(move |c| (*r, *c))).collect();
    let registers = places.iter().map(|_| cx.g.e.b.variable(Type::F32, Src::F32(0))).collect();
    let sums = Sums { registers, places, row: rows.first, col: cols.first, part };
    Fma { sides: [rows, cols], sums }
}

/// Lines of a thread: one in so many, or four neighbours in so many, so that neighbouring threads read other banks.
fn mine(cx: &mut Cx, side: &Side, thread: C, threads: i64, part: C) -> Mine {
    let b = &mut cx.g.e.b;
    let each = side.extent / threads;
    let (first, lines, stride): (C, Vec<i64>, i64) = match side.by_depth {
        true => (thread, (0..each).map(|i| i * threads).collect(), side.pitch),
        false => {
            let four = |i: i64| i / WIDE * WIDE * threads + i % WIDE;
            (coord::mul(b, thread, WIDE), (0..each).map(four).collect(), side.size)
        }
    };
    let at = coord::mul(b, first, stride);
    let start = coord::mul(b, part, side.part_bytes);
    let at = coord::add(b, at, start);
    let at = coord::add(b, at, C::Const(side.offset));
    let at = coord::int(b, at);
    Mine { base: b.mov(Type::B32, at), lines, first }
}

/// All of a step is multiplied as it is loaded; other warps hide how long that takes.
impl Multiply for Fma {
    fn lead(&self, _: &mut Cx, _: &[Side; 2], _: Reg, _: Option<Reg>) {}
    fn follow(&self, _: &mut Cx, _: &[Side; 2], _: Reg) {}

    fn most(&self, cx: &mut Cx, sides: &[Side; 2], stage: Reg) {
        let b = &mut cx.g.e.b;
        let at = [0, 1].map(|s: usize| b.binary(BinOp::Add, Type::S32, stage, self.sides[s].base));
        for depth in (0..cx.t.order.step).step_by(WIDE as usize) {
            let [x, y] = [0, 1].map(|s: usize| elements(cx, &sides[s], &self.sides[s], at[s], depth));
            let cols = y.len();
            for d in 0..WIDE as usize {
                for (n, sum) in self.sums.registers.iter().enumerate() {
                    let (a, c) = (x[n / cols][d].into(), y[n % cols][d].into());
                    cx.g.e.b.op(Op::Fma { d: *sum, a, b: c, c: (*sum).into() });
                }
            }
        }
    }

    fn rest(&self, _: &mut Cx, _: &[Side; 2], _: Reg, _: Reg) {}
}

/// The elements of each line, four deep.
fn elements(cx: &mut Cx, side: &Side, mine: &Mine, base: Reg, depth: i64) -> Vec<[Reg; 4]> {
    let b = &mut cx.g.e.b;
    let mut load = |line: i64, depth: i64| {
        let (outer, inner) = if side.by_depth { (line, depth) } else { (depth, line) };
        let offset = (outer * side.pitch + inner * side.size) as i32;
        let d = [(); 4].map(|_| b.reg(Class::F32));
        b.op(Op::Ld4 { space: Space::Shared, ty: Type::F32, d, at: Address { base, offset } });
        d
    };
    if side.by_depth {
        return mine.lines.iter().map(|line| load(*line, depth)).collect();
    }
    let fours = mine.lines.iter().step_by(WIDE as usize);
    let transpose = |line: &i64| {
        let d = [0, 1, 2, 3].map(|i| load(*line, depth + i));
        [0, 1, 2, 3].map(|l: usize| [0, 1, 2, 3].map(|i: usize| d[i][l]))
    };
    fours.flat_map(transpose).collect()
}
