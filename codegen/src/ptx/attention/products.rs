//! The two kinds of products of an attention on fragments: lines with those that pass by, as queries with keys, and weights
//! with what passes by, as with values.
//!
//! A warp has 16 lines; a lane has lines `lane / 4` and 8 below, and two neighbouring columns `2 (lane % 4)` of every eight.
//! That is the layout of the matrix instructions for bf16. In f32 the same elements are computed as chains of fma.
use super::plan::{ROWS, Region};
use super::{Cx, Fragments};
use crate::emit::Emit;
use crate::ptx::coord::{self, C};
use crate::ptx::inst::*;

/// Fragments of lines that stay in registers: of each fragment, four registers for every 16 elements.
pub type Held = Vec<Vec<[Reg; 4]>>;

/// Lines in shared memory: their region is counted from `from`.
#[derive(Clone, Copy)]
pub struct Lines {
    pub from: Reg,
    pub region: Region,
}

impl Cx<'_> {
    /// `from + at + line · pitch + byte`.
    pub fn place(&mut self, l: Lines, line: C, byte: C) -> Reg {
        let b = &mut self.g.e.b;
        let line = coord::mul(b, line, l.region.pitch);
        let sum = coord::add(b, line, byte);
        let sum = coord::add(b, sum, C::Const(l.region.at));
        match coord::add(b, C::Shared(l.from), sum) {
            C::Shared(r) => r,
            _ => l.from,
        }
    }

    /// Where this lane's line of four matrices begins: lines in pairs of eight along the first bit above the eight lanes of a
    /// matrix and columns along the next, or the other way round.
    fn matrix(&mut self, l: Lines, first: C, lines_first: bool) -> Reg {
        let lane = self.lane;
        let b = &mut self.g.e.b;
        let (which, line) = coord::divmod(b, lane, 8);
        let (upper, lower) = coord::divmod(b, which, 2);
        let (lines, columns) = if lines_first { (lower, upper) } else { (upper, lower) };
        let lines = coord::mul(b, lines, 8);
        let line = coord::add(b, line, lines);
        let line = coord::add(b, first, line);
        let byte = coord::mul(b, columns, 16);
        self.place(l, line, byte)
    }

    fn four(&mut self, class: Class) -> [Reg; 4] {
        std::array::from_fn(|_| self.g.e.b.reg(class))
    }
    fn ldmatrix(&mut self, base: Reg, offset: i64, transposed: bool) -> [Reg; 4] {
        let d = self.four(Class::B32);
        let at = Address { base, offset: offset as i32 };
        self.g.e.b.op(Op::Ldmatrix { transposed, d, at });
        d
    }

    /// The first line of this warp in the tile of lines.
    fn first_line(&mut self) -> C {
        coord::mul(&mut self.g.e.b, self.warp, ROWS * self.p.fragments)
    }

    /// The fragment of this warp's lines for matrix instructions, `step` by 16 elements.
    fn line(&mut self, l: Lines, fragment: i64, step: i64) -> [Reg; 4] {
        let first = self.first_line();
        let base = self.matrix(l, first, true);
        self.ldmatrix(base, fragment * ROWS * l.region.pitch + step * 32, false)
    }

    /// This warp's lines in registers.
    pub fn held(&mut self, l: Lines) -> Held {
        let all = |cx: &mut Self, f| (0..l.region.padded / 16).map(|s| cx.line(l, f, s)).collect();
        (0..self.p.fragments).map(|f| all(self, f)).collect()
    }

    /// The products of this warp's lines with each line that passes by.
    pub fn scores(&mut self, lines: Lines, held: Option<&Held>, walked: Lines, s: &Fragments) {
        for r in s.iter().flatten().flatten() {
            self.g.e.b.op(Op::Mov { ty: Type::F32, d: *r, a: Src::F32(0) });
        }
        if self.p.narrow { self.scores_mma(lines, held, walked, s) } else { self.scores_fma(lines, walked, s) }
    }

    fn scores_mma(&mut self, lines: Lines, held: Option<&Held>, walked: Lines, s: &Fragments) {
        let p = self.p;
        let from = self.matrix(walked, C::Const(0), false);
        for step in 0..walked.region.padded / 16 {
            let a: Vec<[Reg; 4]> = match held {
                Some(q) => q.iter().map(|q| q[step as usize]).collect(),
                None => (0..p.fragments).map(|f| self.line(lines, f, step)).collect(),
            };
            for pair in 0..p.tile / 16 {
                let k = self.ldmatrix(from, pair * 16 * walked.region.pitch + step * 32, false);
                self.multiply(&a, k, s, 2 * pair as usize);
            }
        }
    }

    /// Adds the products with 16 columns.
    fn multiply(&mut self, a: &[[Reg; 4]], b: [Reg; 4], sums: &Fragments, first: usize) {
        for (a, sums) in a.iter().zip(sums) {
            for half in 0..2 {
                let b = [b[2 * half], b[2 * half + 1]];
                self.g.e.b.op(Op::Mma { d: sums[first + half], a: *a, b });
            }
        }
    }

    fn scores_fma(&mut self, lines: Lines, walked: Lines, s: &Fragments) {
        let p = self.p;
        let padded = walked.region.padded;
        let step = if padded % 16 == 0 { 16 } else { 8 };
        let row = self.first_line();
        let row = coord::add(&mut self.g.e.b, row, self.group);
        let queries = self.place(lines, row, C::Const(0));
        let column = coord::mul(&mut self.g.e.b, self.quad, 2);
        let keys = self.place(walked, column, C::Const(0));
        let (c, _) = self.g.e.begin(C::Const(0), C::Const(padded * 4), step * 4, false, true, &[]);
        let moved = |cx: &mut Self, base: Reg| match coord::add(&mut cx.g.e.b, C::Shared(base), c) {
            C::Shared(r) => r,
            _ => base,
        };
        let (queries, keys) = (moved(self, queries), moved(self, keys));
        for at in (0..step * 4).step_by(16) {
            let rows: Vec<[Reg; 4]> =
                (0..2 * p.fragments).map(|h| self.load4(queries, h * 8 * lines.region.pitch + at)).collect();
            for column in 0..p.tile / 4 {
                let line = column / 2 * 8 + column % 2;
                let key = self.load4(keys, line * walked.region.pitch + at);
                for (h, q) in rows.iter().enumerate() {
                    let d = s[h / 2][column as usize / 2][h % 2 * 2 + column as usize % 2];
                    (0..4).for_each(|i| self.fma_into(d, q[i], key[i]));
                }
            }
        }
        self.g.e.end(&[]);
    }

    fn load4(&mut self, base: Reg, offset: i64) -> [Reg; 4] {
        let d = self.four(Class::F32);
        let at = Address { base, offset: offset as i32 };
        self.g.e.b.op(Op::Ld4 { space: Space::Shared, ty: Type::F32, d, at });
        d
    }
    fn fma_into(&mut self, d: Reg, a: Reg, b: Reg) {
        self.g.e.b.op(Op::Fma { d, a: a.into(), b: b.into(), c: d.into() });
    }

    /// Adds the lines that pass by, times their weights.
    pub fn values(&mut self, weights: &Fragments, walked: Lines, o: &Fragments) {
        if self.p.narrow { self.values_mma(weights, walked, o) } else { self.values_fma(weights, walked, o) }
    }

    fn values_mma(&mut self, weights: &Fragments, walked: Lines, o: &Fragments) {
        let p = self.p;
        let Region { pitch, padded, .. } = walked.region;
        let values = self.matrix(walked, C::Const(0), true);
        for step in 0..p.tile / 16 {
            let pair = |cx: &mut Self, w: &[Reg; 4], first: usize| {
                let d = cx.g.e.b.reg(Class::B32);
                cx.g.e.b.op(Op::CvtPair { d, high: w[first + 1].into(), low: w[first].into() });
                d
            };
            let mut a = vec![];
            for w in weights {
                let (left, right) = (&w[2 * step as usize], &w[2 * step as usize + 1]);
                a.push([pair(self, left, 0), pair(self, left, 2), pair(self, right, 0), pair(self, right, 2)]);
            }
            for columns in 0..padded / 16 {
                let v = self.ldmatrix(values, step * 16 * pitch + columns * 32, true);
                self.multiply(&a, v, o, 2 * columns as usize);
            }
        }
    }

    /// The weights of a row are on four lanes, which show them to each other one by one.
    fn values_fma(&mut self, weights: &Fragments, walked: Lines, o: &Fragments) {
        let p = self.p;
        let Region { pitch, padded, .. } = walked.region;
        let byte = coord::mul(&mut self.g.e.b, self.quad, 8);
        let values = self.place(walked, C::Const(0), byte);
        for key in 0..p.tile {
            let (n, column) = (key as usize / 8, key % 8);
            let b = &mut self.g.e.b;
            let owner = coord::mul(b, self.group, 4);
            let owner = coord::add(b, owner, C::Const(column / 2));
            let owner = coord::int(b, owner);
            let mut w = vec![];
            for h in 0..2 * p.fragments as usize {
                let mine = weights[h / 2][n][h % 2 * 2 + column as usize % 2];
                w.push(self.g.e.b.shfl(Shuffle::Idx, mine, owner));
            }
            for (columns, n) in (0..padded / 8).enumerate() {
                let d = [self.g.e.b.reg(Class::F32), self.g.e.b.reg(Class::F32)];
                let at = Address { base: values, offset: (key * pitch + n * 32) as i32 };
                self.g.e.b.op(Op::Ld2 { space: Space::Shared, ty: Type::F32, d, at });
                for (h, w) in w.iter().enumerate() {
                    (0..2).for_each(|i| self.fma_into(o[h / 2][columns][h % 2 * 2 + i], *w, d[i]));
                }
            }
        }
    }
}
