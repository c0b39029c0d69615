//! The states at the start of each chunk, which each lane stores on its way forwards and finds again on its way back.
use super::Cx;
use super::lanes::Place;
use super::plan::WORD;
use super::shape::Grad;
use crate::emit::Emit;
use crate::eval::Gives;
use crate::ptx::coord::{self, C};
use crate::ptx::inst::*;
use lolm_ir::kernel::KValue;

/// Where the states at the start of a chunk lie: the address of this lane's first one in the first chunk, and bytes from one
/// state to the next, from one channel to the next, and from chunk to chunk.
pub struct Starts {
    base: C,
    state: i64,
    channel: i64,
    chunk: i64,
    /// The channels of a lane lie together, as one piece.
    together: bool,
    /// The kernel's line that stores them.
    kept: KValue,
    states: Vec<Option<Reg>>,
    channels: Vec<Option<Reg>>,
}

impl Cx<'_> {
    /// Where the states of chunks lie.
    pub fn starts(&mut self, g: &Grad) -> Gives<Starts> {
        self.g.e.b.open();
        let s = self.slots();
        let (operand, view) = &g.starts;
        let (state, channel) = (view.stride(self.s.state), view.stride(self.s.tile));
        let mut base = self.g.e.operand(*operand);
        base = coord::add(&mut self.g.e.b, base, C::Const(view.base * WORD));
        let mut all: Vec<i64> = vec![view.base, state, g.chunk_stride];
        for a in &self.s.units {
            let at = self.g.at(*a)?.coord;
            let part = coord::mul(&mut self.g.e.b, at, view.stride(*a) * WORD);
            base = coord::add(&mut self.g.e.b, base, part);
            all.push(view.stride(*a));
        }
        let b = &mut self.g.e.b;
        for (first, stride) in [(s.states[0].0, state), (s.channels[0].0, channel)] {
            let part = coord::mul(b, first, stride * WORD);
            base = coord::add(b, base, part);
        }
        let n = self.p.channels;
        let together = channel == 1 && self.p.tile % n == 0 && all.iter().all(|s| s % n == 0);
        let exists = |places: &[Place]| places.iter().map(|p| p.1).collect();
        self.g.e.b.close();
        Ok(Starts {
            base,
            state: state * WORD,
            channel: channel * WORD,
            chunk: g.chunk_stride * WORD,
            together,
            kept: g.kept,
            states: exists(&s.states),
            channels: exists(&s.channels),
        })
    }

    fn start_of(&mut self, s: &Starts, chunk: C) -> Reg {
        let b = &mut self.g.e.b;
        let part = coord::mul(b, chunk, s.chunk);
        match coord::add(b, s.base, part) {
            C::Global(r, _) => r,
            C::Const(_) | C::Int { .. } | C::Long(_) | C::Shared(_) => {
                self.g.e.wrong("a chunk without an operand");
                self.history
            }
        }
    }

    /// The pieces of a lane's states: the number of the first, its bytes, and whether it exists.
    fn pieces(&mut self, s: &Starts) -> Vec<(usize, i64, Option<Reg>)> {
        let n = s.channels.len();
        let step = if s.together { n } else { 1 };
        let mut out = vec![];
        for i in 0..s.states.len() {
            for j in (0..n).step_by(step) {
                let exists = self.both(s.states[i], s.channels[j]);
                out.push((i * n + j, i as i64 * s.state + j as i64 * s.channel, exists));
            }
        }
        out
    }

    /// Stores the states at the start of a chunk.
    pub fn store_starts(&mut self, s: &Starts, chunk: C, h: &[Reg]) {
        self.g.e.note(s.kept.0);
        let base = self.start_of(s, chunk);
        let count = if s.together { s.channels.len() } else { 1 };
        for (n, offset, exists) in self.pieces(s) {
            self.put(Space::Global, base, offset, &h[n..n + count], exists);
        }
    }

    /// The states at the start of a chunk, as this lane has stored them.
    pub fn load_starts(&mut self, s: &Starts, chunk: C) -> Vec<Reg> {
        self.g.e.note(s.kept.0);
        let base = self.start_of(s, chunk);
        let count = if s.together { s.channels.len() } else { 1 };
        let mut out = vec![];
        for (_, offset, exists) in self.pieces(s) {
            out.extend(self.get(Space::Global, base, offset, count, exists));
        }
        out
    }
}
