//! The header of a safetensors file: which tensors it holds and where, with nothing left unclaimed or claimed twice.
//!
//! A file is the length of the header as u64, the header in JSON, and the data. What is kept of a tensor is smaller than
//! what the header says of it, so that no header makes us allocate more than the file has bytes.
use safetensors::Dtype;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

/// The longest header that is read, as other readers have it.
const LONGEST: usize = 100_000_000;
const MAX_RANK: usize = 6;
/// The key of the header that is not a tensor.
const METADATA: &str = "__metadata__";

/// A tensor in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Its name, as a range of bytes of the file.
    name: [u32; 2],
    dims: [usize; MAX_RANK],
    rank: u8,
    pub dtype: Dtype,
    /// An index of shards has named it.
    pub listed: bool,
    /// Its bytes in the file.
    begin: usize,
    end: usize,
}

impl Record {
    pub fn name<'a>(&self, file: &'a [u8]) -> &'a str {
        let [begin, end] = self.name.map(|x| x as usize);
        // The header was checked to be UTF-8, and names are whole strings of it.
        std::str::from_utf8(&file[begin..end]).unwrap_or("")
    }
    pub fn shape(&self) -> &[usize] {
        &self.dims[..self.rank as usize]
    }
    pub fn bytes(&self) -> Range<usize> {
        self.begin..self.end
    }
}

/// Reads the header of a whole file: its tensors, sorted by name.
pub fn read(file: &[u8]) -> Result<Vec<Record>, String> {
    let head = file.first_chunk::<8>().ok_or_else(|| format!("it has {} bytes, expected at least 8", file.len()))?;
    let (len, left) = (u64::from_le_bytes(*head), file.len() - 8);
    if len > left.min(LONGEST) as u64 {
        return Err(format!("its header says that it has {len} bytes; {left} bytes follow, and {LONGEST} is the most"));
    }
    let begin = 8 + len as usize;
    let text = std::str::from_utf8(&file[8..begin]).map_err(|e| format!("its header is not UTF-8: {e}"))?;
    if !text.starts_with('{') {
        return Err("its header does not begin with `{`".into());
    }
    let mut count = 0usize;
    each(text, |_, _| {
        count += 1;
        Ok(())
    })?;
    let mut records = Vec::with_capacity(count);
    each(text, |name, fields| {
        let at = 8 + (name.as_ptr().addr() - text.as_ptr().addr());
        records.push(record(name, at, fields, begin, file.len())?);
        Ok(())
    })?;
    records.sort_unstable_by_key(|r: &Record| (r.begin, r.end));
    claims(&records, file, begin)?;
    records.sort_unstable_by(|a, b| a.name(file).cmp(b.name(file)));
    match records.windows(2).find(|w| w[0].name(file) == w[1].name(file)) {
        Some(w) => Err(format!("tensor `{}` stands twice in its header", w[0].name(file))),
        None => Ok(records),
    }
}

/// Checks one tensor.
fn record(name: &str, at: usize, f: Fields, data: usize, len: usize) -> Result<Record, String> {
    let [begin, end] = f.data_offsets;
    let most = (len - data) as u64;
    if begin > end || end > most {
        return Err(format!("the data of tensor `{name}` is at {begin}..{end}, expected a range within 0..{most}"));
    }
    let shape = &f.shape.dims[..f.shape.rank];
    let bits = shape.iter().try_fold(f.dtype.bitsize(), |n, d| n.checked_mul(*d));
    if bits.map(|n| n as u128) != Some((end - begin) as u128 * 8) {
        let (dtype, size) = (f.dtype, end - begin);
        return Err(format!("tensor `{name}` is {dtype:?}{shape:?}, but its data at {begin}..{end} has {size} bytes"));
    }
    // The header is shorter than 2³² bytes, and the data lies within the file.
    Ok(Record {
        name: [at as u32, (at + name.len()) as u32],
        dims: f.shape.dims,
        rank: f.shape.rank as u8,
        dtype: f.dtype,
        listed: false,
        begin: data + begin as usize,
        end: data + end as usize,
    })
}

/// Checks that tensors, in the order of their data, follow each other from the first byte to the last.
fn claims(records: &[Record], file: &[u8], data: usize) -> Result<(), String> {
    let mut end = data;
    for r in records {
        if r.begin != end {
            let what = if r.begin < end { "overlaps the tensor before it" } else { "leaves a hole before it" };
            let (name, found, expected) = (r.name(file), r.begin - data, end - data);
            return Err(format!("the data of tensor `{name}` begins at {found}, expected {expected}: it {what}"));
        }
        end = r.end;
    }
    match file.len() - end {
        0 => Ok(()),
        extra => Err(format!("{extra} bytes follow the last tensor")),
    }
}

/// What the header says of a tensor.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    dtype: Dtype,
    shape: Shape,
    data_offsets: [u64; 2],
}

struct Shape {
    dims: [usize; MAX_RANK],
    rank: usize,
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Shape, D::Error> {
        d.deserialize_seq(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "a shape of at most {MAX_RANK} dimensions")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
        let mut shape = Shape { dims: [1; MAX_RANK], rank: 0 };
        while let Some(d) = seq.next_element()? {
            let to = shape.dims.get_mut(shape.rank);
            *to.ok_or_else(|| A::Error::custom(format_args!("a shape has more than {MAX_RANK} dimensions")))? = d;
            shape.rank += 1;
        }
        Ok(shape)
    }
}

/// Calls `f` with the name and the fields of each tensor.
fn each<'a>(text: &'a str, f: impl FnMut(&'a str, Fields) -> Result<(), String>) -> Result<(), String> {
    let mut json = serde_json::Deserializer::from_str(text);
    let read = Pairs(f, PhantomData).deserialize(&mut json).and_then(|()| json.end());
    read.map_err(|e| format!("its header: {e}"))
}

/// A JSON object as calls of a function with each key and its value, but for the metadata.
pub struct Pairs<V, F>(pub F, pub PhantomData<V>);

impl<'de, V: Deserialize<'de>, F: FnMut(&'de str, V) -> Result<(), String>> DeserializeSeed<'de> for Pairs<V, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de, V: Deserialize<'de>, F: FnMut(&'de str, V) -> Result<(), String>> Visitor<'de> for Pairs<V, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(name)) = map.next_key()? {
            if name == METADATA {
                map.next_value::<IgnoredAny>()?;
            } else {
                (self.0)(name, map.next_value()?).map_err(A::Error::custom)?;
            }
        }
        Ok(())
    }
}

/// A string that stands in the JSON as it is.
pub struct Text<'a>(pub &'a str);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Text<'de>, D::Error> {
        d.deserialize_str(TextVisitor).map(Text)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = &'de str;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<&'de str, E> {
        Ok(text)
    }
    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<&'de str, E> {
        Err(E::custom("a name with an escape sequence"))
    }
}
