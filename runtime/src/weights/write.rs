//! Writes safetensors to anything that takes bytes, so that the caller decides about files, hashes and failures.
use super::names::published;
use crate::store::Store;
use lolm_ir::DType;
use serde_json::{Map, Value, json};
use std::io::{self, Write};

/// A tensor to write. Integers and booleans keep their type; the bytes are those in memory (little-endian).
pub struct Entry<'a> {
    pub name: String,
    pub dtype: DType,
    pub shape: &'a [usize],
    pub data: &'a [u8],
}

/// The chosen tensors of a store, sorted by name.
pub fn entries(store: &Store, chosen: impl Fn(&str) -> bool) -> Vec<Entry<'_>> {
    let slots = store.slots().iter().enumerate().filter(|(_, s)| chosen(&s.name));
    let entry = |(i, s): (usize, &'_ crate::store::Slot)| (i, s.name.clone());
    let mut order: Vec<(usize, String)> = slots.map(entry).collect();
    order.sort_by(|a, b| a.1.cmp(&b.1));
    let slot = |i: usize| &store.slots()[i];
    let make = |(i, name)| Entry { name, dtype: slot(i).dtype, shape: &slot(i).shape, data: store.raw(i) };
    order.into_iter().map(make).collect()
}

/// The tensors that the parameters of a store are published as, sorted by name.
fn weights(store: &Store) -> Vec<Entry<'_>> {
    let mut all = vec![];
    for (slot, s) in store.slots().iter().enumerate() {
        for part in published(&s.name, &s.shape) {
            let bytes = part.elements.start * s.dtype.bytes()..part.elements.end * s.dtype.bytes();
            all.push(Entry { name: part.name, dtype: s.dtype, shape: part.shape, data: &store.raw(slot)[bytes] });
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// Writes parameters under their published names.
pub fn write_weights(to: &mut impl Write, params: &Store) -> io::Result<()> {
    write_safetensors(to, &weights(params))
}

/// Writes a header and then all tensors in order.
pub fn write_safetensors(to: &mut impl Write, tensors: &[Entry]) -> io::Result<()> {
    let (mut header, mut end) = (Map::new(), 0);
    for t in tensors {
        let begin = end;
        end += t.data.len();
        let row = json!({"dtype": name(t.dtype), "shape": t.shape, "data_offsets": [begin, end]});
        header.insert(t.name.clone(), row);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    to.write_all(&(header.len() as u64).to_le_bytes())?;
    to.write_all(&header)?;
    tensors.iter().try_for_each(|t| to.write_all(t.data))?;
    to.flush()
}

fn name(d: DType) -> &'static str {
    match d {
        DType::F32 => "F32",
        DType::Bf16 => "BF16",
        DType::I32 => "I32",
        DType::Bool => "BOOL",
    }
}
