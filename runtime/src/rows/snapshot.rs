//! Copies of rows. What is kept by position is the same for all sequences with the same beginning, so a copy holds it only
//! from the position on at which the copy of a beginning ends, and shares the rest.
use super::{Layout, RowError};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The states of one sequence, in this memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowSnapshot {
    positions: usize,
    /// What is used of each part that is not kept by position, one after the other.
    own: Vec<u8>,
    /// The rest, from its end back to the start.
    kept: Option<Arc<Kept>>,
}

/// What is kept at some positions: of each part that is kept by position, one after the other.
#[derive(Debug)]
pub struct Kept {
    pub positions: Range<usize>,
    pub data: Vec<u8>,
    /// What is kept before them.
    before: Option<Arc<Kept>>,
    _metered: Metered,
}

impl PartialEq for Kept {
    fn eq(&self, other: &Kept) -> bool {
        (&self.positions, &self.data, &self.before) == (&other.positions, &other.data, &other.before)
    }
}
impl Eq for Kept {}

impl Drop for Kept {
    /// One after the other: a long text has more of them than calls fit within each other.
    fn drop(&mut self) {
        let mut next = self.before.take();
        while let Some(mut kept) = next.and_then(Arc::into_inner) {
            next = kept.before.take();
        }
    }
}

/// Counts bytes that copies share, each as long as any copy has it.
#[derive(Clone, Default, Debug)]
pub struct Meter(Arc<AtomicUsize>);

impl Meter {
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
    /// Counts so many bytes until what it gives is dropped.
    pub fn count(&self, bytes: usize) -> Metered {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Metered { meter: self.clone(), bytes }
    }
}

/// Bytes that count.
#[derive(Debug)]
pub struct Metered {
    meter: Meter,
    bytes: usize,
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.meter.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl RowSnapshot {
    /// Of its own bytes, and of what is kept from the end of `base` on, which is a copy of its beginning.
    pub(crate) fn new(
        positions: usize,
        own: Vec<u8>,
        data: Vec<u8>,
        base: Option<&RowSnapshot>,
        meter: &Meter,
    ) -> RowSnapshot {
        let (start, before) = base.map_or((0, None), |b| (b.positions, b.kept.clone()));
        let kept = match data.is_empty() {
            true => before,
            false => {
                let _metered = meter.count(data.len());
                Some(Arc::new(Kept { positions: start..positions, data, before, _metered }))
            }
        };
        RowSnapshot { positions, own, kept }
    }

    /// The positions of the sequence that are in it.
    pub fn positions(&self) -> usize {
        self.positions
    }
    /// Bytes that it takes, with those that it shares.
    pub fn bytes(&self) -> usize {
        self.own.len() + self.kept().map(|k| k.data.len()).sum::<usize>()
    }
    pub(crate) fn own(&self) -> &[u8] {
        &self.own
    }
    /// What is kept by position, the last first.
    pub(crate) fn kept(&self) -> impl Iterator<Item = &Kept> {
        std::iter::successors(self.kept.as_deref(), |k| k.before.as_deref())
    }
}

impl Layout {
    /// Refuses a snapshot of another model.
    pub fn check_snapshot(&self, s: &RowSnapshot) -> Result<(), RowError> {
        let (positions, found, expected) = (s.positions, s.bytes(), self.used(s.positions));
        let mut end = positions;
        let mut follows = |k: &Kept| {
            let whole = k.data.len() == self.kept(&k.positions);
            let follows = std::mem::replace(&mut end, k.positions.start) == k.positions.end;
            whole && follows
        };
        match found == expected && s.own.len() == self.own(positions) && s.kept().all(&mut follows) {
            true => Ok(()),
            false => Err(RowError::Snapshot { positions, found, expected }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_counts_once_and_as_long_as_anybody_has_it() {
        let meter = Meter::default();
        let a = RowSnapshot::new(2, vec![1; 5], vec![2; 20], None, &meter);
        let b = RowSnapshot::new(5, vec![1; 5], vec![3; 30], Some(&a), &meter);
        let c = RowSnapshot::new(5, vec![4; 5], vec![], Some(&b), &meter);
        assert_eq!((a.bytes(), b.bytes(), c.bytes(), meter.bytes()), (25, 55, 55, 50));
        let spans: Vec<Range<usize>> = c.kept().map(|k| k.positions.clone()).collect();
        assert_eq!(spans, [2..5, 0..2]);
        drop((a, b));
        assert_eq!(meter.bytes(), 50);
        drop(c);
        assert_eq!(meter.bytes(), 0);
    }

    #[test]
    fn a_long_chain_is_dropped_within_a_small_stack() {
        let meter = Meter::default();
        let work = {
            let meter = meter.clone();
            move || {
                let mut s = RowSnapshot::new(1, vec![], vec![0], None, &meter);
                for n in 2..100_000 {
                    s = RowSnapshot::new(n, vec![], vec![0], Some(&s), &meter);
                }
                assert_eq!(meter.bytes(), 99_999);
            }
        };
        std::thread::Builder::new().stack_size(64 << 10).spawn(work).unwrap().join().unwrap();
        assert_eq!(meter.bytes(), 0);
    }
}
