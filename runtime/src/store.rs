//! Named tensors in one region of memory: the parameters, states, tables and ports of a model.
use crate::artifact::elements;
use crate::cpu::memory::{ALIGN, Element, Region};
use crate::tensor::{Data, Tensor};
use half::bf16;
use lolm_ir::DType;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

/// A named tensor and where it lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slot {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
    /// Byte offset in the region.
    at: usize,
    /// Elements.
    pub len: usize,
}

/// Named tensors that do not move.
#[derive(Debug)]
pub struct Store {
    slots: Vec<Slot>,
    by_name: BTreeMap<String, usize>,
    region: Region,
}

impl Store {
    /// Zeros of these names, dtypes and shapes.
    pub fn new<'a>(tensors: impl Iterator<Item = (&'a str, DType, &'a [usize])>) -> io::Result<Store> {
        let (mut slots, mut end) = (vec![], 0usize);
        for (name, dtype, shape) in tensors {
            let too_large = || io::Error::new(io::ErrorKind::OutOfMemory, format!("tensor `{name}`, {shape:?}"));
            let len = elements(shape).and_then(|n| usize::try_from(n).ok()).ok_or_else(too_large)?;
            slots.push(Slot { name: name.into(), dtype, shape: shape.to_vec(), at: end, len });
            let bytes = len.checked_mul(dtype.bytes()).ok_or_else(too_large)?;
            end = bytes.checked_next_multiple_of(ALIGN).and_then(|n| n.checked_add(end)).ok_or_else(too_large)?;
        }
        let by_name = slots.iter().enumerate().map(|(i, s)| (s.name.clone(), i)).collect();
        Ok(Store { slots, by_name, region: Region::new(end)? })
    }

    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }
    pub fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }
    pub fn address(&self, name: &str) -> Option<*mut u8> {
        Some(self.slot_address(self.find(name)?))
    }
    pub fn slot_address(&self, slot: usize) -> *mut u8 {
        self.region.address().wrapping_add(self.slots[slot].at)
    }
    /// Bytes of a slot.
    pub fn slot_bytes(&self, slot: usize) -> usize {
        self.slots[slot].len * self.slots[slot].dtype.bytes()
    }
    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.region.len()
    }

    /// The elements of a slot as T, which must have the size of its dtype.
    pub fn view<T: Element>(&self, slot: usize) -> &[T] {
        let s = &self.slots[slot];
        assert_eq!(size_of::<T>(), s.dtype.bytes(), "bug: a view of `{}` as another type", s.name);
        self.region.slice(s.at, s.len)
    }
    /// Some elements of a slot as T, which must have the size of its dtype.
    pub fn part<T: Element>(&self, slot: usize, elements: Range<usize>) -> &[T] {
        let s = &self.slots[slot];
        assert_eq!(size_of::<T>(), s.dtype.bytes(), "bug: a view of `{}` as another type", s.name);
        assert!(elements.end <= s.len, "bug: elements {elements:?} of `{}`, which has {}", s.name, s.len);
        self.region.slice(s.at + elements.start * size_of::<T>(), elements.len())
    }
    pub fn view_mut<T: Element>(&mut self, slot: usize) -> &mut [T] {
        let s = &self.slots[slot];
        assert_eq!(size_of::<T>(), s.dtype.bytes(), "bug: a view of `{}` as another type", s.name);
        self.region.slice_mut(s.at, s.len)
    }
    /// Writes floats to a slot from element `at` on, rounded to the nearest of its dtype, ties to even.
    ///
    /// # Panics
    /// If the slot holds no floats, or fewer than `at`, which is a bug in the caller.
    pub fn write(&mut self, slot: usize, at: usize, values: impl Iterator<Item = f32>) {
        match self.slots[slot].dtype {
            DType::F32 => self.view_mut(slot)[at..].iter_mut().zip(values).for_each(|(to, x)| *to = x),
            DType::Bf16 => {
                let to: &mut [u16] = &mut self.view_mut(slot)[at..];
                to.iter_mut().zip(values).for_each(|(to, x)| *to = bf16::from_f32(x).to_bits());
            }
            dtype @ (DType::I32 | DType::Bool) => {
                panic!("bug: floats for `{}`, which is {dtype}", self.slots[slot].name)
            }
        }
    }

    /// The bytes of a slot.
    pub fn raw(&self, slot: usize) -> &[u8] {
        let s = &self.slots[slot];
        self.region.slice(s.at, s.len * s.dtype.bytes())
    }
    pub fn raw_mut(&mut self, slot: usize) -> &mut [u8] {
        let s = &self.slots[slot];
        self.region.slice_mut(s.at, s.len * s.dtype.bytes())
    }

    /// A copy of a slot.
    pub fn get(&self, slot: usize) -> Tensor {
        let data = match self.slots[slot].dtype {
            DType::F32 => Data::F32(self.view(slot).to_vec()),
            DType::I32 => Data::I32(self.view(slot).to_vec()),
            DType::Bf16 => Data::Bf16(self.view(slot).to_vec()),
            DType::Bool => Data::Bool(self.view(slot).to_vec()),
        };
        Tensor { shape: self.slots[slot].shape.clone(), data }
    }

    /// Copies a tensor of the same dtype and number of elements into a slot; false if it is another.
    pub fn set(&mut self, slot: usize, x: &Tensor) -> bool {
        let s = &self.slots[slot];
        if x.dtype() != s.dtype || x.len() != s.len {
            return false;
        }
        match &x.data {
            Data::F32(x) => self.view_mut(slot).copy_from_slice(x),
            Data::I32(x) => self.view_mut(slot).copy_from_slice(x),
            Data::Bf16(x) => self.view_mut(slot).copy_from_slice(x),
            Data::Bool(x) => self.view_mut(slot).copy_from_slice(x),
        }
        true
    }
}
