//! The bytes of each token of a vocabulary, one behind the other.

#[derive(Default)]
pub struct Pieces {
    bytes: Vec<u8>,
    /// Where each token's bytes end.
    ends: Vec<usize>,
    special: Vec<bool>,
}

impl Pieces {
    /// Adds the next token.
    pub fn push(&mut self, bytes: &[u8], special: bool) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
        self.special.push(special);
    }

    /// Tokens, which have the ids from 0 on.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of a token, if there is one of this id.
    pub fn get(&self, id: u32) -> Option<&[u8]> {
        let i = id as usize;
        let end = *self.ends.get(i)?;
        let begin = if i == 0 { 0 } else { self.ends[i - 1] };
        Some(&self.bytes[begin..end])
    }

    /// True of a token that steers a model and is no text.
    pub fn special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }
}
