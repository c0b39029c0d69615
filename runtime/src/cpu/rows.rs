//! Pools of rows in this memory, beside the states of the row outside of them.
use crate::rows::{Layout, Part, RowSnapshot};
use crate::store::Store;
use lolm_ir::artifact::Manifest;
use std::io;
use std::ops::Range;

/// The pools of a model: of each state with rows, as many as it was loaded with.
pub struct Pools {
    pub layout: Layout,
    store: Store,
}

impl Pools {
    /// Zeros.
    pub fn new(m: &Manifest, rows: usize) -> io::Result<Pools> {
        let layout = Layout::new(m, rows);
        let shapes: Vec<_> = layout.parts.iter().map(|p| pool_shape(rows, &m.states[p.state].shape)).collect();
        let states = layout.parts.iter().map(|p| &m.states[p.state]);
        let store = Store::new(states.zip(&shapes).map(|(s, shape)| (s.name.as_str(), s.dtype, shape.as_slice())))?;
        Ok(Pools { layout, store })
    }

    /// The address of row 0 of a state.
    pub fn address(&self, state: &str) -> Option<*mut u8> {
        self.store.address(state)
    }

    fn row<'a>(&'a self, states: &'a Store, i: usize, row: usize) -> &'a [u8] {
        let p = &self.layout.parts[i];
        match row < self.layout.rows {
            true => &self.store.raw(i)[row * p.bytes..][..p.bytes],
            false => &states.raw(p.state)[..p.bytes],
        }
    }

    fn row_mut<'a>(&'a mut self, states: &'a mut Store, i: usize, row: usize) -> (&'a Part, &'a mut [u8]) {
        let p = &self.layout.parts[i];
        let bytes = match row < self.layout.rows {
            true => &mut self.store.raw_mut(i)[row * p.bytes..][..p.bytes],
            false => &mut states.raw_mut(p.state)[..p.bytes],
        };
        (p, bytes)
    }

    /// Copies what a row holds after so many positions.
    pub fn copy(&mut self, states: &mut Store, from: usize, to: usize, positions: usize) {
        if from == to {
            return;
        }
        for i in 0..self.layout.parts.len() {
            let (p, rows) = (&self.layout.parts[i], self.layout.rows);
            let used = p.used(positions);
            match (from < rows, to < rows) {
                (true, true) => {
                    let from = from * p.bytes;
                    self.store.raw_mut(i).copy_within(from..from + used, to * p.bytes);
                }
                (false, _) => {
                    let from = &states.raw(p.state)[..used];
                    self.store.raw_mut(i)[to * p.bytes..][..used].copy_from_slice(from);
                }
                (true, false) => {
                    let from = &self.store.raw(i)[from * p.bytes..][..used];
                    states.raw_mut(p.state)[..used].copy_from_slice(from);
                }
            }
            let (p, to) = self.row_mut(states, i, to);
            clear_rest(to, p, positions);
        }
    }

    /// What a row holds after so many positions that is not kept by position, and what it keeps of them.
    pub fn save(&self, states: &Store, row: usize, positions: &Range<usize>) -> (Vec<u8>, Vec<u8>) {
        let mut own = Vec::with_capacity(self.layout.own(positions.end));
        let mut kept = Vec::with_capacity(self.layout.kept(positions));
        for (i, p) in self.layout.parts.iter().enumerate() {
            let row = self.row(states, i, row);
            own.extend_from_slice(&row[..p.own(positions.end)]);
            kept.extend_from_slice(&row[p.kept(positions)]);
        }
        (own, kept)
    }

    /// Puts a snapshot that was checked into a row.
    pub fn restore(&mut self, states: &mut Store, row: usize, s: &RowSnapshot) {
        let mut rest = s.own();
        for i in 0..self.layout.parts.len() {
            let (p, to) = self.row_mut(states, i, row);
            let (now, later) = rest.split_at(p.own(s.positions()));
            to[..now.len()].copy_from_slice(now);
            clear_rest(to, p, s.positions());
            rest = later;
        }
        for kept in s.kept() {
            let mut rest = kept.data.as_slice();
            for i in 0..self.layout.parts.len() {
                let (p, to) = self.row_mut(states, i, row);
                let place = p.kept(&kept.positions);
                let (now, later) = rest.split_at(place.len());
                to[place].copy_from_slice(now);
                rest = later;
            }
        }
    }

    /// Puts a row where a sequence starts. What is kept by position and never read before it is written stays.
    pub fn reset(&mut self, states: &mut Store, params: &Store, row: usize) {
        for i in 0..self.layout.parts.len() {
            let (p, to) = self.row_mut(states, i, row);
            match p.init.map(|slot| params.raw(slot)) {
                None => {
                    let used = p.used(0);
                    to[..used].fill(0);
                    clear_rest(to, p, 0);
                }
                Some([]) => {}
                Some(start) => to.chunks_exact_mut(start.len()).for_each(|c| c.copy_from_slice(start)),
            }
        }
    }
}

/// The shape of a pool of rows of a state.
fn pool_shape(rows: usize, state: &[usize]) -> Vec<usize> {
    [rows].into_iter().chain(state.iter().skip(1).copied()).collect()
}

fn clear_rest(row: &mut [u8], p: &Part, positions: usize) {
    let rest = p.rest(positions);
    let at = row.len() - rest;
    row[at..].fill(0);
}
