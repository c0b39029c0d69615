//! The container of an artifact: a header, a table of hashed sections, and their contents on pages of their own.
//!
//! All numbers are little-endian.
//!
//! | bytes | |
//! |---|---|
//! | 8 | [`MAGIC`] |
//! | 4 | [`FORMAT`] |
//! | 4 | number of sections n |
//! | 32 | hash of the 16 bytes above followed by the table |
//! | n · 80 | the table: name (24 bytes, padded with zeros), offset (8), length (8), padding (8, zero), hash of the contents (32) |
//!
//! Contents follow in the order of the table, each on the next page boundary with zeros in between, and the file ends with
//! the last one. So every byte of the file is covered by a hash or must be zero, and equal sections give equal bytes.
use super::{FORMAT, MAGIC, PAGE};
use std::fmt;

/// A hash function; this crate has none of its own.
pub type Hash = fn(&[u8]) -> [u8; 32];

const HEADER: usize = 48;
const ROW: usize = 80;
const NAME: usize = 24;
/// More sections than any artifact has; a greater count is damage.
const MOST_SECTIONS: usize = 256;

/// A named piece of an artifact. `offset` is where its contents start in the file, a multiple of [`PAGE`]; `hash` is what
/// the table says of them, for whoever copies them and wants to be sure of the copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Section<'a> {
    pub name: &'a str,
    pub offset: usize,
    pub data: &'a [u8],
    pub hash: [u8; 32],
}

/// What is wrong with a container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ContainerError {
    Truncated { expected: usize, found: usize },
    NotAnArtifact { found: [u8; 8] },
    Version { expected: u32, found: u32 },
    TooManySections { limit: usize, found: usize },
    TableHash,
    BadName { row: usize },
    DuplicateName { name: String },
    Misplaced { name: String, expected: u64, found: u64 },
    Padding { at: usize },
    SectionHash { name: String },
    Trailing { expected: usize, found: usize },
}

impl fmt::Display for ContainerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use ContainerError::*;
        match self {
            Truncated { expected, found } => write!(f, "the file has {found} bytes, expected at least {expected}"),
            NotAnArtifact { found } => write!(f, "the file starts with {found:02x?}, which is not an artifact's mark"),
            Version { expected, found } => write!(f, "the artifact has format {found}, expected {expected}"),
            TooManySections { limit, found } => write!(f, "{found} sections, expected at most {limit}"),
            TableHash => write!(f, "the table of sections does not have the hash that the header says"),
            BadName { row } => write!(f, "row {row} of the table has no valid name of 1 to {NAME} bytes"),
            DuplicateName { name } => write!(f, "two sections have the name `{name}`"),
            Misplaced { name, expected, found } => {
                write!(f, "section `{name}` is placed at {found}, expected {expected}")
            }
            Padding { at } => write!(f, "byte {at} lies between sections and is not zero"),
            SectionHash { name } => write!(f, "section `{name}` does not have the hash that the table says"),
            Trailing { expected, found } => write!(f, "the file has {found} bytes, expected {expected}"),
        }
    }
}
impl std::error::Error for ContainerError {}

/// The bytes of a container with these sections, in this order.
pub fn encode(sections: &[(&str, &[u8])], hash: Hash) -> Result<Vec<u8>, ContainerError> {
    if sections.len() > MOST_SECTIONS {
        return Err(ContainerError::TooManySections { limit: MOST_SECTIONS, found: sections.len() });
    }
    let mut end = HEADER + ROW * sections.len();
    let mut table = vec![];
    for (row, (name, data)) in sections.iter().enumerate() {
        check_name(row, name, sections[..row].iter().map(|s| s.0))?;
        let offset = end.next_multiple_of(PAGE);
        end = offset + data.len();
        table.extend(name.bytes().chain(std::iter::repeat(0)).take(NAME));
        table.extend((offset as u64).to_le_bytes());
        table.extend((data.len() as u64).to_le_bytes());
        table.extend([0; 8]);
        table.extend(hash(data));
    }
    let mut file = MAGIC.to_vec();
    file.extend(FORMAT.to_le_bytes());
    file.extend((sections.len() as u32).to_le_bytes());
    let sum = hash(&[&file[..], &table].concat());
    file.extend(sum);
    file.extend(table);
    for (_, data) in sections {
        file.resize(file.len().next_multiple_of(PAGE), 0);
        file.extend(*data);
    }
    Ok(file)
}

/// Reads a container and checks all of it: mark, version, bounds, order, hashes, padding, and that nothing follows.
pub fn decode(file: &[u8], hash: Hash) -> Result<Vec<Section<'_>>, ContainerError> {
    let head = piece(file, 0, HEADER)?;
    if head[..8] != MAGIC {
        return Err(ContainerError::NotAnArtifact { found: head[..8].try_into().unwrap_or_default() });
    }
    let found = u32_at(head, 8);
    if found != FORMAT {
        return Err(ContainerError::Version { expected: FORMAT, found });
    }
    let count = u32_at(head, 12) as usize;
    if count > MOST_SECTIONS {
        return Err(ContainerError::TooManySections { limit: MOST_SECTIONS, found: count });
    }
    let table = piece(file, HEADER, ROW * count)?;
    if hash(&[&head[..16], table].concat()) != head[16..] {
        return Err(ContainerError::TableHash);
    }
    let mut end = HEADER + table.len();
    let mut sections: Vec<Section> = vec![];
    for (i, row) in table.chunks_exact(ROW).enumerate() {
        let name = row_name(i, row)?;
        check_name(i, name, sections.iter().map(|s| s.name))?;
        let section = read_section(file, name, row, end, hash)?;
        end = section.offset + section.data.len();
        sections.push(section);
    }
    match file.len() == end {
        true => Ok(sections),
        false => Err(ContainerError::Trailing { expected: end, found: file.len() }),
    }
}

fn read_section<'a>(
    file: &'a [u8],
    name: &'a str,
    row: &[u8],
    end: usize,
    hash: Hash,
) -> Result<Section<'a>, ContainerError> {
    let (offset, len) = (u64_at(row, NAME), u64_at(row, NAME + 8));
    let expected = end.next_multiple_of(PAGE);
    if offset != expected as u64 || u64_at(row, NAME + 16) != 0 {
        return Err(ContainerError::Misplaced { name: name.into(), expected: expected as u64, found: offset });
    }
    let len = usize::try_from(len)
        .ok()
        .filter(|len| len.checked_add(expected).is_some())
        .ok_or(ContainerError::Truncated { expected: usize::MAX, found: file.len() })?;
    let data = piece(file, expected, len)?;
    if let Some(at) = (end..expected).find(|at| file[*at] != 0) {
        return Err(ContainerError::Padding { at });
    }
    let found = hash(data);
    match found == row[NAME + 24..] {
        true => Ok(Section { name, offset: expected, data, hash: found }),
        false => Err(ContainerError::SectionHash { name: name.into() }),
    }
}

fn piece(file: &[u8], at: usize, len: usize) -> Result<&[u8], ContainerError> {
    file.get(at..at + len).ok_or(ContainerError::Truncated { expected: at + len, found: file.len() })
}

fn row_name(i: usize, row: &[u8]) -> Result<&str, ContainerError> {
    let bytes = &row[..NAME];
    let len = bytes.iter().position(|b| *b == 0).unwrap_or(NAME);
    match std::str::from_utf8(&bytes[..len]) {
        Ok(name) if bytes[len..].iter().all(|b| *b == 0) => Ok(name),
        _ => Err(ContainerError::BadName { row: i }),
    }
}

fn check_name<'a>(row: usize, name: &str, mut before: impl Iterator<Item = &'a str>) -> Result<(), ContainerError> {
    if name.is_empty() || name.len() > NAME || name.contains('\0') {
        return Err(ContainerError::BadName { row });
    }
    match before.any(|n| n == name) {
        true => Err(ContainerError::DuplicateName { name: name.into() }),
        false => Ok(()),
    }
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    (0..4).fold(0, |x, i| x | (b[at + i] as u32) << (8 * i))
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    (0..8).fold(0, |x, i| x | (b[at + i] as u64) << (8 * i))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Enough of a hash for these tests: every byte and its place count.
    fn hash(data: &[u8]) -> [u8; 32] {
        let mut h = 0xcbf29ce484222325u64 ^ data.len() as u64;
        for b in data {
            h = (h ^ *b as u64).wrapping_mul(0x100000001b3);
        }
        let mut out = [0; 32];
        for (i, o) in out.iter_mut().enumerate() {
            *o = (h.rotate_left(7 * i as u32) >> 8) as u8;
        }
        out
    }

    fn file() -> Vec<u8> {
        encode(&[("manifest", b"{}"), ("empty", b""), ("code.x86-64-v3", &[0xc3; 5000])], hash).unwrap()
    }

    #[test]
    fn what_is_encoded_is_decoded_and_lies_on_pages() {
        let f = file();
        let s = decode(&f, hash).unwrap();
        assert_eq!(s.iter().map(|s| s.name).collect::<Vec<_>>(), ["manifest", "empty", "code.x86-64-v3"]);
        assert_eq!((s[0].data, s[1].data.len(), s[2].data), (&b"{}"[..], 0, &[0xc3; 5000][..]));
        assert!(s.iter().all(|s| s.offset % PAGE == 0));
        assert_eq!(f, file());
        assert_eq!(decode(&encode(&[], hash).unwrap(), hash), Ok(vec![]));
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let f = file();
        for at in 0..f.len() {
            let mut g = f.clone();
            g[at] ^= 0x10;
            assert!(decode(&g, hash).is_err(), "byte {at}");
        }
    }

    #[test]
    fn every_cut_and_anything_added_is_noticed() {
        let f = file();
        for len in 0..f.len() {
            assert!(decode(&f[..len], hash).is_err(), "cut at {len}");
        }
        let longer = [&f[..], &[0]].concat();
        assert_eq!(decode(&longer, hash), Err(ContainerError::Trailing { expected: f.len(), found: f.len() + 1 }));
    }

    #[test]
    fn another_version_and_bad_names_are_refused() {
        let mut f = file();
        f[8] = 99;
        assert_eq!(decode(&f, hash), Err(ContainerError::Version { expected: FORMAT, found: 99 }));
        for name in ["", "a name that is longer than it may be"] {
            assert_eq!(encode(&[(name, b"")], hash), Err(ContainerError::BadName { row: 0 }));
        }
        assert_eq!(encode(&[("a", b""), ("a", b"")], hash), Err(ContainerError::DuplicateName { name: "a".into() }));
    }
}
