//! The attention generator: scores, softmax and results of a tile of rows in registers, while keys and values pass by.
//!
//! Dao et al. 2022 and 2023. A block has a tile of rows that share keys and values; each warp has 16 rows of it, or 32.
//! Tiles of keys and values come to shared memory in turn: the values while scores are computed, the next keys while the
//! values are used. A row keeps its greatest score so far and its sum relative to that; when a greater one comes, the sum
//! and the results are scaled down. Tiles that no row sees are left out, and only tiles that some row sees in part look at
//! what is visible.
//!
//! **Order of summation.** Keys in tiles of 64 (bf16) or 32 (f32), and half of that where heads are wider than 128, from the
//! first on, whichever rows are computed with them. Scores in f32 are chains of fma along the head. A lane adds up the exponentials of its
//! columns of each tile in ascending order; the sums of four lanes are added in pairs at the end. Results in f32 are chains
//! of fma along the keys. So a row's bits do not depend on the rows beside it, and those of decoding are those of a prompt.
//!
//! **Rounding.** With bf16 operands the weights are rounded to bf16 before they meet the values, relative to the greatest
//! score so far and before they are divided by the sum; scores, exponentials, sums and results are f32. In f32 nothing is
//! rounded on the way, and no approximate function is used.
mod backward;
mod copy;
mod forward;
pub(super) mod parts;
mod plan;
mod products;
mod range;
mod rows;
mod shape;
mod softmax;
mod store;

use super::compile::shared_start;
use super::coord::{self, C};
use super::inst::*;
use super::simt::{Simt, V};
use crate::eval::{Gen, Gives};
pub use backward::attention_grad;
pub use forward::attention;
use parts::Scores;
use plan::{Plan, Region};
use products::Lines;

/// What a lane has of several fragments of rows: for every eight columns, two of its upper and two of its lower row.
type Fragments = Vec<Vec<[Reg; 4]>>;

struct Cx<'a> {
    g: Gen<'a, Simt>,
    s: &'a Scores,
    p: Plan,
    tid: C,
    warp: C,
    lane: C,
    /// `lane / 4` and `lane % 4`.
    group: C,
    quad: C,
    /// Where shared memory starts.
    shared: Reg,
}

impl<'a> Cx<'a> {
    fn new(g: Gen<'a, Simt>, s: &'a Scores, p: Plan) -> Self {
        let lane = g.e.lane();
        let b = &mut g.e.b;
        let tid = b.at_head(|b| b.mov(Type::U32, Src::Special(Special::Tid)));
        let shared = b.at_head(|b| b.mov(Type::U32, shared_start(p.bytes)));
        let tid = C::Int { reg: tid, lo: 0, hi: p.threads() - 1 };
        let lane = C::Int { reg: lane, lo: 0, hi: 31 };
        let (warp, _) = coord::divmod(b, tid, 32);
        let (group, quad) = coord::divmod(b, lane, 4);
        Cx { g, s, p, tid, warp, lane, group, quad, shared }
    }

    /// Fixes the batch of this block, computes what is known of the masks then, and gives the number of its tile.
    fn fix_batch(&mut self) -> Gives<C> {
        let Plan { tiles, batches, .. } = self.p;
        let b = &mut self.g.e.b;
        let block = b.mov(Type::U32, Src::Special(Special::Block));
        let block = C::Int { reg: block, lo: 0, hi: tiles * batches - 1 };
        let (batch, tile) = coord::divmod(b, block, tiles);
        for (a, c) in self.digits(&self.s.batch, batch) {
            self.fix(a, c);
        }
        self.hoist(&self.s.masks(self.g.k), self.s.batch.iter().copied().collect())?;
        Ok(tile)
    }

    /// A region of shared memory that stands still.
    fn lines(&self, region: Region) -> Lines {
        Lines { from: self.shared, region }
    }

    /// Fragments of zeros, for so many columns.
    fn fragments(&mut self, columns: i64) -> Fragments {
        let b = &mut self.g.e.b;
        let mut four = || std::array::from_fn(|_| b.variable(Type::F32, Src::F32(0)));
        (0..self.p.fragments).map(|_| (0..columns / 8).map(|_| four()).collect()).collect()
    }
    /// The elements of this lane's line number i, in pairs of neighbours.
    fn of_line(&self, all: &Fragments, i: usize) -> Vec<Reg> {
        let half = i % 2 * 2;
        all[i / 2].iter().flat_map(|r| [r[half], r[half + 1]]).collect()
    }

    /// What was copied is there, and all threads are done with what it replaces next.
    fn landed(&mut self) {
        self.g.e.b.op(Op::CpWait(0));
        self.g.e.b.op(Op::SyncBlock);
    }
}

/// Stores an f32 in so many bytes of shared memory.
fn arith_store(s: &mut Simt, size: i64, guard: Option<Reg>, at: Address, x: V) {
    let (ty, a) = match size {
        2 => (Type::B16, super::arith::round_bf16(s, x)),
        _ => (Type::F32, s.reg(x)),
    };
    s.b.guarded(guard.map(|p| (p, true)), Op::St { space: Space::Shared, ty, a, at });
}
