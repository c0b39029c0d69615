//! GGUF, the format of llama.cpp, versions 2 and 3: metadata by key, and tensors that may be quantised.
//!
//! The file is a header, the metadata, a record for each tensor, and the data, where tensors follow each other without
//! holes but for alignment. Nothing is copied: a [`Gguf`] borrows the file and holds 8 bytes a key and a record a tensor.
//! Every count, length, type and range is checked once, by [`Gguf::parse`], before anything is made of it.
mod cursor;
mod error;
mod layout;
mod llama;
mod rope;
mod tensor;
pub mod testing;
mod value;

pub use error::GgufError;
pub use llama::{Llama, Placed};
pub use tensor::{TensorInfo, TensorType};
pub use value::{Array, Value, ValueType};

use cursor::Cursor;

const ALIGNMENT: &str = "general.alignment";
const DEFAULT_ALIGNMENT: u64 = 32;
/// A file that was parsed.
#[derive(Clone, PartialEq)]
pub struct Gguf<'a> {
    bytes: &'a [u8],
    version: u32,
    /// Where each key begins, sorted by key.
    keys: Vec<usize>,
    /// As the file has them.
    tensors: Vec<TensorInfo<'a>>,
    /// Positions in `tensors`, sorted by name.
    by_name: Vec<u32>,
}

impl std::fmt::Debug for Gguf<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GGUF {} with {} keys and {} tensors", self.version, self.keys.len(), self.tensors.len())
    }
}

impl<'a> Gguf<'a> {
    /// Parses a whole file and checks all of it but the numbers in the tensors.
    pub fn parse(bytes: &'a [u8]) -> Result<Gguf<'a>, GgufError> {
        let mut c = Cursor::new(bytes, 0);
        let version = layout::header(&mut c)?;
        let tensors = c.count(layout::LEAST_TENSOR, "the number of tensors")?;
        let keys = c.count(layout::LEAST_KEY, "the number of keys")?;
        let keys = layout::read_keys(&mut c, keys)?;
        let mut gguf = Gguf { bytes, version, keys, tensors: vec![], by_name: vec![] };
        let alignment = gguf.alignment()?;
        gguf.tensors = layout::read_tensors(&mut c, tensors, alignment)?;
        gguf.by_name = layout::sorted_names(&gguf.tensors)?;
        Ok(gguf)
    }

    pub fn version(&self) -> u32 {
        self.version
    }

    // ---- metadata

    /// All keys with their values, sorted by key.
    pub fn metadata(&self) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        self.keys.iter().filter_map(|at| self.entry(*at).ok())
    }
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        let name = |at: &usize| Cursor::new(self.bytes, *at).text("a key").unwrap_or("");
        let i = self.keys.binary_search_by(|at| name(at).cmp(key)).ok()?;
        self.entry(self.keys[i]).ok().map(|(_, value)| value)
    }

    fn entry(&self, at: usize) -> Result<(&'a str, Value<'a>), GgufError> {
        let mut c = Cursor::new(self.bytes, at);
        Ok((c.text("a key")?, Value::read(&mut c, "a value")?))
    }

    /// An integer, if the key is there.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.typed(key, "an integer that is not negative", |v| v.unsigned())
    }
    pub fn float(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.typed(key, "a number with a fraction", |v| v.float())
    }
    pub fn flag(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "a boolean", |v| v.flag())
    }
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, GgufError> {
        self.typed(key, "a text", |v| v.text())
    }
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>, GgufError> {
        self.typed(key, "an array of texts", |v| all(v.array()?, |v| v.text()))
    }
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>, GgufError> {
        let float = |v: Value| if let Value::F32(x) = v { Some(x) } else { None };
        self.typed(key, "an array of f32", |v| all(v.array()?, float))
    }
    /// Integers from 0 to 2³² - 1.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<u32>>, GgufError> {
        let small = |v: Value| v.unsigned()?.try_into().ok();
        self.typed(key, "an array of integers of 32 bits that are not negative", |v| all(v.array()?, small))
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &'static str,
        read: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong = || GgufError::Key { key: key.into(), found: value.to_string(), expected: expected.into() };
        read(value).ok_or_else(wrong).map(Some)
    }

    fn alignment(&self) -> Result<u64, GgufError> {
        let found = self.unsigned(ALIGNMENT)?.unwrap_or(DEFAULT_ALIGNMENT);
        // More than a huge page no writer asks for.
        if !found.is_power_of_two() || !(8..=1 << 21).contains(&found) {
            let expected = "a power of two from 8 to 2097152".into();
            return Err(GgufError::Key { key: ALIGNMENT.into(), found: found.to_string(), expected });
        }
        Ok(found)
    }

    // ---- tensors

    /// All tensors, in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo<'a>] {
        &self.tensors
    }
    /// The position of a tensor among [`Gguf::tensors`].
    pub fn position(&self, name: &str) -> Option<usize> {
        let i = self.by_name.binary_search_by(|i| self.tensors[*i as usize].name.cmp(name)).ok()?;
        Some(self.by_name[i] as usize)
    }
    pub fn find(&self, name: &str) -> Option<&TensorInfo<'a>> {
        self.position(name).map(|i| &self.tensors[i])
    }
    pub fn tensor(&self, name: &str) -> Result<&TensorInfo<'a>, GgufError> {
        self.find(name).ok_or_else(|| GgufError::NoTensor { name: name.into() })
    }
    /// The elements of a tensor as f32.
    pub fn dequantise(&self, name: &str) -> Result<Vec<f32>, GgufError> {
        Ok(self.tensor(name)?.dequantise())
    }
}

/// What every element of an array is, with room for exactly them.
fn all<'a, T>(array: Array<'a>, read: impl Fn(Value<'a>) -> Option<T>) -> Option<Vec<T>> {
    let mut out = Vec::with_capacity(array.len());
    for value in array.iter() {
        out.push(read(value)?);
    }
    Some(out)
}

#[cfg(test)]
mod tests;
