//! Writes small GGUF files for tests.
use super::{TensorType, Value, ValueType};

/// A file to be.
#[derive(Clone, Debug)]
pub struct Writer {
    version: u32,
    alignment: usize,
    keys: Vec<(String, Vec<u8>)>,
    tensors: Vec<(String, Vec<usize>, u32, Vec<u8>)>,
}

impl Default for Writer {
    fn default() -> Writer {
        Writer { version: 3, alignment: 32, keys: vec![], tensors: vec![] }
    }
}

impl Writer {
    pub fn version(self, version: u32) -> Writer {
        Writer { version, ..self }
    }
    /// Puts tensors at multiples of this, and says so in the file.
    pub fn alignment(self, alignment: u32) -> Writer {
        let w = Writer { alignment: alignment as usize, ..self };
        w.key("general.alignment", Value::U32(alignment))
    }

    /// Adds a key with a number, a boolean or a text.
    pub fn key(mut self, key: &str, value: Value) -> Writer {
        let bytes = [number(value.kind()).to_le_bytes().to_vec(), payload(value)].concat();
        self.keys.push((key.into(), bytes));
        self
    }
    /// Adds a key with an array of such values, which must all be of this type.
    pub fn array(mut self, key: &str, kind: ValueType, values: &[Value]) -> Writer {
        let mut bytes = [number(ValueType::Array).to_le_bytes(), number(kind).to_le_bytes()].concat();
        bytes.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|v| bytes.extend(payload(*v)));
        self.keys.push((key.into(), bytes));
        self
    }
    pub fn texts(self, key: &str, values: &[&str]) -> Writer {
        let values: Vec<Value> = values.iter().map(|t| Value::Text(t)).collect();
        self.array(key, ValueType::Text, &values)
    }
    /// Adds a key with a type and a value as they are to stand in the file.
    pub fn raw_key(mut self, key: &str, bytes: Vec<u8>) -> Writer {
        self.keys.push((key.into(), bytes));
        self
    }

    /// Drops every key that stands in the file already.
    pub fn without_repeats(mut self) -> Writer {
        let mut seen = std::collections::BTreeSet::new();
        self.keys.retain(|(key, _)| seen.insert(key.clone()));
        self
    }

    /// Adds a tensor; its shape has the row length last.
    pub fn tensor(self, name: &str, kind: TensorType, shape: &[usize], data: Vec<u8>) -> Writer {
        self.raw_tensor(name, kind.number(), shape, data)
    }
    pub fn raw_tensor(mut self, name: &str, kind: u32, shape: &[usize], data: Vec<u8>) -> Writer {
        self.tensors.push((name.into(), shape.to_vec(), kind, data));
        self
    }
    /// Adds a tensor of f32.
    pub fn floats(self, name: &str, shape: &[usize], data: &[f32]) -> Writer {
        self.tensor(name, TensorType::F32, shape, data.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = [b"GGUF".to_vec(), self.version.to_le_bytes().to_vec()].concat();
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            out.extend([payload(Value::Text(key)), value.clone()].concat());
        }
        let mut data = vec![];
        for (name, shape, kind, bytes) in &self.tensors {
            data.resize(data.len().next_multiple_of(self.alignment), 0);
            out.extend([payload(Value::Text(name)), (shape.len() as u32).to_le_bytes().to_vec()].concat());
            shape.iter().rev().for_each(|d| out.extend((*d as u64).to_le_bytes()));
            out.extend([&kind.to_le_bytes()[..], &(data.len() as u64).to_le_bytes()].concat());
            data.extend(bytes);
        }
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        [out, data].concat()
    }
}

/// The types stand in the order of their numbers.
fn number(kind: ValueType) -> u32 {
    kind as u32
}

fn payload(value: Value) -> Vec<u8> {
    match value {
        Value::U8(x) => x.to_le_bytes().to_vec(),
        Value::I8(x) => x.to_le_bytes().to_vec(),
        Value::U16(x) => x.to_le_bytes().to_vec(),
        Value::I16(x) => x.to_le_bytes().to_vec(),
        Value::U32(x) => x.to_le_bytes().to_vec(),
        Value::I32(x) => x.to_le_bytes().to_vec(),
        Value::U64(x) => x.to_le_bytes().to_vec(),
        Value::I64(x) => x.to_le_bytes().to_vec(),
        Value::F32(x) => x.to_le_bytes().to_vec(),
        Value::F64(x) => x.to_le_bytes().to_vec(),
        Value::Bool(x) => vec![x as u8],
        Value::Text(x) => [(x.len() as u64).to_le_bytes().to_vec(), x.as_bytes().to_vec()].concat(),
        Value::Array(x) => {
            let head = [&number(x.kind()).to_le_bytes()[..], &(x.len() as u64).to_le_bytes()].concat();
            x.iter().fold(head, |out, v| [out, payload(v)].concat())
        }
    }
}
