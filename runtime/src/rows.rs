//! RowKind: where the states of each of many sequences lie, and copies of them.
//!
//! A model has `rows` rows in pools, on whose first L the programs run that decode in L lanes, and one row more, outside of
//! the pools, on which all other programs run: there a prompt is read before its row is copied to that of a lane.
use lolm_ir::artifact::{Manifest, StateRecord};
use lolm_ir::graph::RowKind;
use std::ops::Range;

mod snapshot;
pub use snapshot::{Meter, Metered, RowSnapshot};

/// A row is not there, or does not fit.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RowError {
    #[error("there is no row {row}: the model was loaded with {rows}, and row {rows} is where prompts are read")]
    NoRow { row: usize, rows: usize },
    #[error("the snapshot is not of this model: it holds {found} bytes for {positions} positions, expected {expected}")]
    Snapshot { positions: usize, found: usize, expected: usize },
}

/// The part of a row that lies in one state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// The slot of the state.
    pub state: usize,
    pub rows: RowKind,
    /// The slot of the parameter that it starts as.
    pub init: Option<usize>,
    /// Bytes of a row.
    pub bytes: usize,
    /// Bytes of one place along the second dimension, and how many there are.
    place: usize,
    places: usize,
}

impl Part {
    /// Bytes at the start of a row that hold something after so many positions.
    pub fn used(&self, positions: usize) -> usize {
        self.rows.used(self.places, positions) * self.place
    }
    /// Where in a row lies what is kept by position, of these positions; nowhere in parts that are not kept so.
    pub fn kept(&self, positions: &Range<usize>) -> Range<usize> {
        match self.rows {
            RowKind::Kept => self.used(positions.start)..self.used(positions.end),
            RowKind::None | RowKind::Whole | RowKind::Ring => 0..0,
        }
    }
    /// Bytes at the start of a row that hold something, of a part that is not kept by position.
    pub fn own(&self, positions: usize) -> usize {
        self.used(positions) - self.kept(&(0..positions)).len()
    }
    /// Bytes that must be zero where nothing was written: a ring is read as a whole.
    pub fn rest(&self, positions: usize) -> usize {
        match self.rows {
            RowKind::Ring => self.bytes - self.used(positions),
            RowKind::None | RowKind::Whole | RowKind::Kept => 0,
        }
    }
}

/// The parts of a row, in the order of the states; the pool of part i is pool i.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Layout {
    pub parts: Vec<Part>,
    /// RowKind of the pools.
    pub rows: usize,
}

impl Layout {
    pub fn new(m: &Manifest, rows: usize) -> Layout {
        let part = |(state, s): (usize, &StateRecord)| {
            if s.rows == RowKind::None {
                return None;
            }
            let bytes = s.shape.get(1..)?.iter().product::<usize>() * s.dtype.bytes();
            let init = s.init.as_ref().and_then(|n| m.params.iter().position(|p| p.name == *n));
            let places = match s.rows {
                RowKind::Kept | RowKind::Ring => *s.shape.get(1)?,
                RowKind::None | RowKind::Whole => 1,
            };
            Some(Part { state, rows: s.rows, init, bytes, place: bytes.checked_div(places).unwrap_or(0), places })
        };
        Layout { parts: m.states.iter().enumerate().filter_map(part).collect(), rows }
    }

    /// The pool of a state, by its slot.
    pub fn pool(&self, state: usize) -> Option<usize> {
        self.parts.iter().position(|p| p.state == state)
    }
    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.parts.iter().map(|p| p.bytes).sum()
    }
    /// Bytes of a row that hold something after so many positions.
    pub fn used(&self, positions: usize) -> usize {
        self.parts.iter().map(|p| p.used(positions)).sum()
    }

    /// Those of them that are not kept by position, and those that are kept of these positions.
    pub fn own(&self, positions: usize) -> usize {
        self.parts.iter().map(|p| p.own(positions)).sum()
    }
    pub fn kept(&self, positions: &Range<usize>) -> usize {
        self.parts.iter().map(|p| p.kept(positions).len()).sum()
    }

    /// Refuses a row that is neither in the pools nor the one outside.
    pub fn check(&self, row: usize) -> Result<(), RowError> {
        match row <= self.rows {
            true => Ok(()),
            false => Err(RowError::NoRow { row, rows: self.rows }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{manifest, state};

    #[test]
    fn a_row_is_what_the_states_with_rows_hold_of_a_sequence() {
        let mut m = manifest(vec![]);
        let with = |rows, s: StateRecord| StateRecord { rows, ..s };
        m.states = vec![
            with(RowKind::Kept, state("kv", &[1, 16, 4], None)),
            state("adam", &[7], None),
            with(RowKind::Ring, state("near", &[1, 4, 2], None)),
            with(RowKind::Whole, state("ssm", &[1, 3, 5], None)),
        ];
        let l = Layout::new(&m, 2);
        assert_eq!(l.parts.iter().map(|p| (p.state, p.bytes)).collect::<Vec<_>>(), [(0, 256), (2, 32), (3, 60)]);
        assert_eq!((l.pool(1), l.pool(3), l.row_bytes()), (None, Some(2), 348));
        let used = |n: usize| l.parts.iter().map(|p| (p.used(n), p.rest(n))).collect::<Vec<_>>();
        assert_eq!(used(3), [(48, 0), (24, 8), (60, 0)]);
        assert_eq!(used(99), [(256, 0), (32, 0), (60, 0)]);
        assert_eq!((l.check(2), l.check(3)), (Ok(()), Err(RowError::NoRow { row: 3, rows: 2 })));
        assert_eq!((l.own(3), l.kept(&(0..3)), l.kept(&(2..3))), (84, 48, 16));
        let meter = Meter::default();
        let save =
            |n, own, kept, base: Option<&RowSnapshot>| RowSnapshot::new(n, vec![0; own], vec![0; kept], base, &meter);
        let s = save(3, 84, 48, None);
        assert_eq!((l.check_snapshot(&s), s.bytes()), (Ok(()), 132));
        assert_eq!(l.check_snapshot(&save(5, 92, 32, Some(&s))), Ok(()));
        for wrong in
            [save(4, 84, 48, None), save(3, 80, 52, None), save(5, 92, 30, Some(&s)), save(5, 92, 80, Some(&s))]
        {
            assert!(l.check_snapshot(&wrong).is_err(), "{wrong:?}");
        }
    }
}
