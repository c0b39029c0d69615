//! Named tensors as a machine shows them: those of a device are fetched when they are looked at, and only what is looked at.
use crate::cpu::memory::Element;
use crate::store::{Slot, Store};
use crate::tensor::Tensor;
use std::ops::Range;

/// Brings bytes of a slot to the host's copy of a store, if they are not there already.
pub trait Fetch: Sync {
    fn fetch(&self, slot: usize, bytes: Range<usize>);
}

/// The parameters, states or outputs of a machine, for reading.
#[derive(Clone, Copy)]
pub struct Tensors<'a> {
    store: &'a Store,
    fetch: Option<&'a dyn Fetch>,
}

impl<'a> Tensors<'a> {
    /// Tensors whose memory is the store's own.
    pub fn here(store: &'a Store) -> Self {
        Tensors { store, fetch: None }
    }
    /// Tensors of which a store holds copies.
    pub fn elsewhere(store: &'a Store, fetch: &'a dyn Fetch) -> Self {
        Tensors { store, fetch: Some(fetch) }
    }

    pub fn slots(self) -> &'a [Slot] {
        self.store.slots()
    }
    pub fn find(self, name: &str) -> Option<usize> {
        self.store.find(name)
    }
    /// Bytes in memory.
    pub fn bytes(self) -> usize {
        self.store.bytes()
    }

    /// The elements of a slot as T, which must have the size of its dtype.
    pub fn view<T: Element>(self, slot: usize) -> &'a [T] {
        self.part(slot, 0..self.slots()[slot].len)
    }
    /// Some elements of a slot; the others stay where they are.
    pub fn part<T: Element>(self, slot: usize, elements: Range<usize>) -> &'a [T] {
        let size = self.slots()[slot].dtype.bytes();
        self.bring(slot, elements.start * size..elements.end * size);
        self.store.part(slot, elements)
    }
    /// The bytes of a slot.
    pub fn raw(self, slot: usize) -> &'a [u8] {
        let s = &self.slots()[slot];
        self.bring(slot, 0..s.len * s.dtype.bytes());
        self.store.raw(slot)
    }
    /// A copy of a slot.
    pub fn get(self, slot: usize) -> Tensor {
        let s = &self.slots()[slot];
        self.bring(slot, 0..s.len * s.dtype.bytes());
        self.store.get(slot)
    }

    fn bring(self, slot: usize, bytes: Range<usize>) {
        if let Some(f) = self.fetch {
            f.fetch(slot, bytes);
        }
    }
}
