//! Reads little-endian numbers and strings from a slice, one after the other, and never past its end.
use super::GgufError;

/// A place in the file.
#[derive(Clone, Copy)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8], at: usize) -> Cursor<'a> {
        Cursor { bytes, at }
    }

    pub fn at(&self) -> usize {
        self.at
    }
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The next `n` bytes, which `what` is made of.
    pub fn take(&mut self, n: u64, what: &str) -> Result<&'a [u8], GgufError> {
        let (at, len) = (self.at, self.bytes.len());
        match usize::try_from(n).ok().filter(|n| *n <= self.left()) {
            Some(n) => {
                self.at += n;
                Ok(&self.bytes[at..at + n])
            }
            None => Err(GgufError::Cut { what: what.into(), at, need: n, len }),
        }
    }

    pub fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, what)?);
        Ok(out)
    }
    pub fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }
    pub fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A length and that many bytes of UTF-8.
    pub fn text(&mut self, what: &str) -> Result<&'a str, GgufError> {
        let len = self.u64(what)?;
        let at = self.at;
        std::str::from_utf8(self.take(len, what)?).map_err(|e| GgufError::Wrong {
            what: what.into(),
            at: at + e.valid_up_to(),
            found: "bytes that are not UTF-8".into(),
            expected: "UTF-8 text".into(),
        })
    }

    /// A count of things that take at least `least` bytes each, so that no more can follow than the file can hold.
    pub fn count(&mut self, least: u64, what: &str) -> Result<usize, GgufError> {
        let at = self.at;
        let found = self.u64(what)?;
        let most = self.left() as u64 / least;
        if found > most {
            let expected = format!("at most {most}: no more fit in the {} bytes that follow", self.left());
            return Err(GgufError::Wrong { what: what.into(), at, found: found.to_string(), expected });
        }
        Ok(found as usize)
    }
}
