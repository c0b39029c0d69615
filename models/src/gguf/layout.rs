//! How the file is laid out: the header, the keys, the records of the tensors and where their data lies.
use super::cursor::Cursor;
use super::{GgufError, TensorInfo, TensorType, Value};

const MAGIC: &[u8; 4] = b"GGUF";
/// The longest key and the longest name of a tensor that the format allows.
const LONGEST_KEY: usize = 65535;
const LONGEST_NAME: usize = 64;
/// The fewest bytes of a key with its value: a length, a byte, a type, a byte.
pub const LEAST_KEY: u64 = 8 + 1 + 4 + 1;
/// The fewest bytes of a record of a tensor: a length, a byte, a count, a dimension, a type, an offset; and some data.
pub const LEAST_TENSOR: u64 = 8 + 1 + 4 + 8 + 4 + 8 + 2;

/// Magic and version.
pub fn header(c: &mut Cursor) -> Result<u32, GgufError> {
    let magic = c.take(4.min(c.left() as u64), "the magic")?;
    if magic != MAGIC {
        return Err(GgufError::Magic { found: String::from_utf8_lossy(magic).into_owned() });
    }
    match c.u32("the version")? {
        version @ (2 | 3) => Ok(version),
        found if matches!(found.swap_bytes(), 1..=3) => Err(GgufError::BigEndian { found }),
        found => Err(GgufError::Version { found }),
    }
}

/// Reads all keys with their values and gives where each begins, sorted by key.
pub fn read_keys(c: &mut Cursor, n: usize) -> Result<Vec<usize>, GgufError> {
    let bytes = c.bytes();
    let mut keys = Vec::with_capacity(n);
    for _ in 0..n {
        let at = c.at();
        let key = c.text("a key")?;
        bounded("the length of a key", at, key.len(), LONGEST_KEY)?;
        Value::read(c, &format!("the value of `{key}`"))?;
        keys.push(at);
    }
    let name = |at: usize| Cursor::new(bytes, at).text("a key").unwrap_or("");
    keys.sort_unstable_by_key(|at| name(*at));
    match keys.windows(2).find(|w| name(w[0]) == name(w[1])) {
        Some(w) => Err(GgufError::Twice { what: "key", name: name(w[0]).into() }),
        None => Ok(keys),
    }
}

/// Reads the records of all tensors, and cuts the data that follows them.
pub fn read_tensors<'a>(c: &mut Cursor<'a>, n: usize, alignment: u64) -> Result<Vec<TensorInfo<'a>>, GgufError> {
    let records = *c;
    (0..n).try_for_each(|_| record(c).map(drop))?;
    let padding = (c.at() as u64).next_multiple_of(alignment) - c.at() as u64;
    if n > 0 {
        c.take(padding, "the padding before the data")?;
    }
    let places = Places { records, begin: c.at(), end: 0, alignment };
    // All places are checked before room for any of them is made.
    let mut checked = places;
    (0..n).try_for_each(|_| checked.next().map(drop))?;
    let (left, end) = (c.left() as u64, checked.end);
    let padding = end.next_multiple_of(alignment) - end;
    if n > 0 && left - end > padding {
        return Err(GgufError::Trailing { extra: left - end, padding });
    }
    let (mut places, mut tensors) = (places, Vec::with_capacity(n));
    for _ in 0..n {
        tensors.push(places.next()?);
    }
    Ok(tensors)
}

/// Walks over the records and gives each its data, which must follow that of the one before.
#[derive(Clone, Copy)]
struct Places<'a> {
    records: Cursor<'a>,
    /// Where the data begins in the file, and how far it is taken.
    begin: usize,
    end: u64,
    alignment: u64,
}

impl<'a> Places<'a> {
    fn next(&mut self) -> Result<TensorInfo<'a>, GgufError> {
        let (mut tensor, found, size) = record(&mut self.records)?;
        let expected = self.end.next_multiple_of(self.alignment);
        if found != expected {
            return Err(GgufError::Offset { name: tensor.name.into(), found, expected });
        }
        let file = self.records.bytes();
        let at = (self.begin + found as usize).min(file.len());
        tensor.data = Cursor::new(file, at).take(size, &format!("the data of tensor `{}`", tensor.name))?;
        self.end = found + size;
        Ok(tensor)
    }
}

/// One record, without its data: the tensor, where it begins in the data, and its bytes.
fn record<'a>(c: &mut Cursor<'a>) -> Result<(TensorInfo<'a>, u64, u64), GgufError> {
    let at = c.at();
    let name = c.text("the name of a tensor")?;
    bounded("the length of a tensor's name", at, name.len(), LONGEST_NAME)?;
    let at = c.at();
    let n_dims = c.u32("the rank of a tensor")? as usize;
    bounded(&format!("the rank of tensor `{name}`"), at, n_dims, 4)?;
    let (at, mut dims) = (c.at(), [1; 4]);
    for d in &mut dims[..n_dims] {
        *d = c.u64("the dimensions of a tensor")?;
    }
    let type_at = c.at();
    let kind = TensorType::of(c.u32("the type of a tensor")?, name, type_at)?;
    let (block, size) = kind.block();
    let wrong = |expected: String| GgufError::Wrong {
        what: format!("the dimensions of tensor `{name}`"),
        at,
        found: format!("{:?}", &dims[..n_dims]),
        expected,
    };
    if dims.contains(&0) || dims[0] % block as u64 != 0 {
        return Err(wrong(format!("positive ones, and rows of a multiple of {block} elements for {}", kind.name())));
    }
    let blocks = dims[1..].iter().try_fold(dims[0] / block as u64, |n, d| n.checked_mul(*d));
    let bytes = blocks.and_then(|n| n.checked_mul(size as u64)).filter(|n| *n <= c.bytes().len() as u64);
    let bytes = bytes.ok_or_else(|| wrong(format!("a tensor of at most the file's {} bytes", c.bytes().len())))?;
    let offset = c.u64("the offset of a tensor")?;
    Ok((TensorInfo { name, kind, dims, n_dims: n_dims as u8, data: &[] }, offset, bytes))
}

fn bounded(what: &str, at: usize, found: usize, most: usize) -> Result<(), GgufError> {
    if (1..=most).contains(&found) {
        return Ok(());
    }
    Err(GgufError::Wrong { what: what.into(), at, found: found.to_string(), expected: format!("1 to {most}") })
}

pub fn sorted_names(tensors: &[TensorInfo]) -> Result<Vec<u32>, GgufError> {
    let name = |i: u32| tensors[i as usize].name;
    let mut order: Vec<u32> = (0..tensors.len() as u32).collect();
    order.sort_unstable_by_key(|i| name(*i));
    match order.windows(2).find(|w| name(w[0]) == name(w[1])) {
        Some(w) => Err(GgufError::Twice { what: "tensor", name: name(w[0]).into() }),
        None => Ok(order),
    }
}
