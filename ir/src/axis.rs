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
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }
    /// The axes in ascending order of id, which is the order of declaration.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = AxisId> {
        (0..Self::CAPACITY as u8).map(AxisId).filter(move |a| self.has(*a))
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
