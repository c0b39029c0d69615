//! Axes: the named index variables that values are functions of, and sets of them.
use std::fmt;

/// An axis of a graph. Two names of equal length (`s~t`) are two axes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AxisId(pub u8);

/// Name and static length of an axis.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Axis {
    pub name: String,
    pub len: usize,
}

/// A set of axes of one graph: the shape of a value, without an order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct AxisSet(u128);

impl AxisSet {
    pub const EMPTY: AxisSet = AxisSet(0);
    /// How many axes one graph may have.
    pub const CAPACITY: usize = 128;

    pub fn of(axes: &[AxisId]) -> Self {
        axes.iter().copied().collect()
    }
    pub fn has(self, a: AxisId) -> bool {
        self.0 >> a.0 & 1 == 1
    }
    pub fn with(self, a: AxisId) -> Self {
        AxisSet(self.0 | 1 << a.0)
    }
    pub fn without(self, a: AxisId) -> Self {
        AxisSet(self.0 & !(1 << a.0))
    }
    pub fn union(self, o: Self) -> Self {
        AxisSet(self.0 | o.0)
    }
    pub fn intersection(self, o: Self) -> Self {
        AxisSet(self.0 & o.0)
    }
    pub fn minus(self, o: Self) -> Self {
        AxisSet(self.0 & !o.0)
    }
    pub fn contains(self, o: Self) -> bool {
        o.0 & !self.0 == 0
    }
    pub fn disjoint(self, o: Self) -> bool {
        self.0 & o.0 == 0
    }
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// A bit for each axis.
    pub fn bits(self) -> u128 {
        self.0
    }
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }
    /// The axes in ascending order of id, which is the order of declaration.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = AxisId> {
        Members(self.0)
    }
    /// The only member, if there is exactly one.
    pub fn single(self) -> Option<AxisId> {
        (self.len() == 1).then(|| AxisId(self.0.trailing_zeros() as u8))
    }
    /// The same set with `from` renamed to `to`.
    pub fn renamed(self, from: AxisId, to: AxisId) -> Self {
        if self.has(from) { self.without(from).with(to) } else { self }
    }
}

/// The members of a set that were not given yet, from both ends.
struct Members(u128);

impl Iterator for Members {
    type Item = AxisId;

    fn next(&mut self) -> Option<AxisId> {
        let first = self.0.trailing_zeros();
        (self.0 != 0).then(|| {
            self.0 &= self.0 - 1;
            AxisId(first as u8)
        })
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0.count_ones() as usize, Some(self.0.count_ones() as usize))
    }
}

impl DoubleEndedIterator for Members {
    fn next_back(&mut self) -> Option<AxisId> {
        let last = self.0.checked_ilog2()?;
        self.0 &= !(1 << last);
        Some(AxisId(last as u8))
    }
}

impl FromIterator<AxisId> for AxisSet {
    fn from_iter<I: IntoIterator<Item = AxisId>>(it: I) -> Self {
        it.into_iter().fold(AxisSet::EMPTY, AxisSet::with)
    }
}

impl From<AxisId> for AxisSet {
    fn from(a: AxisId) -> Self {
        AxisSet::EMPTY.with(a)
    }
}

impl fmt::Debug for AxisSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|a| a.0)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_in_order_from_both_ends() {
        let s: AxisSet = [0, 3, 64, 127].map(AxisId).into_iter().collect();
        assert_eq!(s.iter().map(|a| a.0).collect::<Vec<_>>(), [0, 3, 64, 127]);
        assert_eq!(s.iter().rev().map(|a| a.0).collect::<Vec<_>>(), [127, 64, 3, 0]);
        let mut ends = s.iter();
        assert_eq!(
            (ends.next_back(), ends.next(), ends.size_hint()),
            (Some(AxisId(127)), Some(AxisId(0)), (2, Some(2)))
        );
        assert_eq!(AxisSet::EMPTY.iter().next_back(), None);
    }
}
