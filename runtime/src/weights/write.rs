//! Writes safetensors to anything that takes bytes, so that the caller decides about files, hashes and failures.
use super::names::published;
use crate::tensors::Tensors;
use lolm_ir::DType;
use safetensors::Dtype;
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
pub fn entries(store: Tensors<'_>, chosen: impl Fn(&str) -> bool) -> Vec<Entry<'_>> {
    let slots = store.slots().iter().enumerate().filter(|(_, s)| chosen(&s.name));
    let entry = |(i, s): (usize, &'_ crate::store::Slot)| (i, s.name.clone());
    let mut order: Vec<(usize, String)> = slots.map(entry).collect();
    order.sort_by(|a, b| a.1.cmp(&b.1));
    let slot = |i: usize| &store.slots()[i];
    let make = |(i, name)| Entry { name, dtype: slot(i).dtype, shape: &slot(i).shape, data: store.raw(i) };
    order.into_iter().map(make).collect()
}

/// The tensors that parameters are published as, sorted by name.
pub fn weights(store: Tensors<'_>) -> Vec<Entry<'_>> {
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
pub fn write_weights(to: &mut impl Write, params: Tensors) -> io::Result<()> {
    write_safetensors(to, &weights(params))
}

/// Writes a header and then all tensors in order.
pub fn write_safetensors(to: &mut impl Write, tensors: &[Entry]) -> io::Result<()> {
    to.write_all(&header(tensors.iter().map(|t| (t.name.as_str(), dtype(t.dtype), t.shape, t.data.len()))))?;
    tensors.iter().try_for_each(|t| to.write_all(t.data))?;
    to.flush()
}

/// What stands in a file before the data of these tensors: name, dtype, shape and bytes of each, in the order of the data.
pub fn header<'a>(tensors: impl Iterator<Item = (&'a str, Dtype, &'a [usize], usize)>) -> Vec<u8> {
    let (mut header, mut end) = (Map::new(), 0);
    for (name, dtype, shape, bytes) in tensors {
        let begin = end;
        end += bytes;
        header.insert(name.into(), json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}));
    }
    // Other readers want to know which of their libraries laid the numbers out.
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    [&(header.len() as u64).to_le_bytes()[..], &header].concat()
}

fn dtype(d: DType) -> Dtype {
    match d {
        DType::F32 => Dtype::F32,
        DType::Bf16 => Dtype::BF16,
        DType::I32 => Dtype::I32,
        DType::Bool => Dtype::BOOL,
    }
}
