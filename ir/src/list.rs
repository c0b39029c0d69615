//! Short lists: operands and types of an operation, kept in place where there are few, as there nearly always are.
//!
//! A graph has tens of thousands of operations and every pass makes it anew, so two allocations an operation would be
//! most of what compiling a deep model costs.
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};

/// Up to `N` items in place, more on the heap. It is read and written as a slice.
#[derive(Clone)]
pub struct List<T, const N: usize>(Repr<T, N>);

#[derive(Clone)]
enum Repr<T, const N: usize> {
    /// The first `len` items count; the others repeat the first.
    Few {
        len: u8,
        items: [T; N],
    },
    Many(Vec<T>),
}

impl<T: Copy, const N: usize> List<T, N> {
    pub fn one(item: T) -> Self {
        std::iter::once(item).collect()
    }
    pub fn push(&mut self, item: T) {
        match &mut self.0 {
            Repr::Few { len, items } if (*len as usize) < N => {
                items[*len as usize] = item;
                *len += 1;
            }
            Repr::Few { items, .. } => {
                let mut many = items.to_vec();
                many.push(item);
                self.0 = Repr::Many(many);
            }
            // A vector without an item has no memory yet.
            Repr::Many(many) if many.is_empty() && N > 0 => self.0 = Repr::Few { len: 1, items: [item; N] },
            Repr::Many(many) => many.push(item),
        }
    }

    /// Puts an item before the one at `at`.
    pub fn insert(&mut self, at: usize, item: T) {
        self.push(item);
        self[at..].rotate_right(1);
    }

    pub fn truncate(&mut self, to: usize) {
        match &mut self.0 {
            Repr::Few { len, .. } => *len = (*len as usize).min(to) as u8,
            Repr::Many(many) => many.truncate(to),
        }
    }
}

impl<T, const N: usize> Default for List<T, N> {
    fn default() -> Self {
        List(Repr::Many(vec![]))
    }
}

impl<T, const N: usize> Deref for List<T, N> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        match &self.0 {
            Repr::Few { len, items } => &items[..*len as usize],
            Repr::Many(many) => many,
        }
    }
}

impl<T, const N: usize> DerefMut for List<T, N> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.0 {
            Repr::Few { len, items } => &mut items[..*len as usize],
            Repr::Many(many) => many,
        }
    }
}

impl<T: Copy, const N: usize> From<&[T]> for List<T, N> {
    fn from(items: &[T]) -> Self {
        items.iter().copied().collect()
    }
}

impl<T: Copy, const N: usize> From<Vec<T>> for List<T, N> {
    fn from(items: Vec<T>) -> Self {
        if items.len() > N { List(Repr::Many(items)) } else { items.as_slice().into() }
    }
}

impl<T: Copy, const N: usize> FromIterator<T> for List<T, N> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut list = List::default();
        items.into_iter().for_each(|x| list.push(x));
        list
    }
}

impl<T: Copy, const N: usize> Extend<T> for List<T, N> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        items.into_iter().for_each(|x| self.push(x));
    }
}

impl<T: Copy, const N: usize> IntoIterator for List<T, N> {
    type Item = T;
    type IntoIter = Items<T, N>;
    fn into_iter(self) -> Items<T, N> {
        Items { list: self, at: 0 }
    }
}

/// The items of a list, one by one.
pub struct Items<T, const N: usize> {
    list: List<T, N>,
    at: usize,
}

impl<T: Copy, const N: usize> Iterator for Items<T, N> {
    type Item = T;
    fn next(&mut self) -> Option<T> {
        self.at += 1;
        self.list.get(self.at - 1).copied()
    }
}

impl<'a, T, const N: usize> IntoIterator for &'a List<T, N> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, T, const N: usize> IntoIterator for &'a mut List<T, N> {
    type Item = &'a mut T;
    type IntoIter = std::slice::IterMut<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl<T: PartialEq, const N: usize> PartialEq for List<T, N> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}
impl<T: Eq, const N: usize> Eq for List<T, N> {}

impl<T: PartialEq, const N: usize> PartialEq<[T]> for List<T, N> {
    fn eq(&self, other: &[T]) -> bool {
        **self == *other
    }
}

impl<T: PartialEq, const N: usize, const M: usize> PartialEq<[T; M]> for List<T, N> {
    fn eq(&self, other: &[T; M]) -> bool {
        **self == *other
    }
}

impl<T: Hash, const N: usize> Hash for List<T, N> {
    fn hash<H: Hasher>(&self, h: &mut H) {
        (**self).hash(h)
    }
}

impl<T: fmt::Debug, const N: usize> fmt::Debug for List<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_a_slice_however_long() {
        for n in 0..9 {
            let want: Vec<u32> = (0..n).collect();
            let mut list: List<u32, 4> = want.iter().copied().collect();
            assert_eq!(*list, *want);
            assert_eq!(list, List::from(want.clone()));
            assert_eq!(list, List::from(&want[..]));
            assert_eq!(format!("{list:?}"), format!("{want:?}"));
            list.iter_mut().for_each(|x| *x += 1);
            assert_eq!(list.iter().sum::<u32>(), want.iter().sum::<u32>() + n);
            assert_eq!(list.clone().into_iter().count(), want.len());
            list.insert(n as usize / 2, 99);
            assert_eq!((list.len(), list[n as usize / 2]), (want.len() + 1, 99));
            list.truncate(2);
            assert_eq!(list.len(), (want.len() + 1).min(2));
        }
    }

    #[test]
    fn equal_items_are_equal_lists_in_place_or_not() {
        let mut grown: List<u8, 2> = [1, 2, 3].into_iter().collect();
        grown.truncate(1);
        let small: List<u8, 2> = [1].into_iter().collect();
        assert_eq!(grown, small);
        grown.truncate(0);
        assert_eq!(grown, List::default());
        grown.push(7);
        assert_eq!(grown, [7]);
    }
}
