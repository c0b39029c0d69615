//! Training data: one long row of tokens, cut in windows, in an order that is a function of the seed and the step alone.
//!
//! An epoch visits every window once, in a random order; each epoch cuts the row at another offset. There is nothing to
//! remember, so a run resumes at any step with exactly the batches that it would have seen.
use lolm_ir::philox::philox4x32_10;
use std::io;
use std::path::{Path, PathBuf};

/// The tokens of a data set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tokens {
    U16(Vec<u16>),
    U32(Vec<u32>),
}

/// Why data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} has {bytes} bytes, not a multiple of the {width} of a token")]
    Width { path: PathBuf, bytes: usize, width: usize },
    #[error("token {index} is {token}, but the vocabulary has {vocab} entries")]
    Token { index: usize, token: u32, vocab: usize },
    #[error("{found} tokens are too few: one window needs {needed}")]
    TooShort { found: usize, needed: usize },
}

impl Tokens {
    /// Reads a file of little-endian tokens of 2 or 4 bytes each.
    pub fn open(path: &Path, width: usize) -> Result<Tokens, DataError> {
        let bytes = std::fs::read(path).map_err(|source| DataError::Read { path: path.into(), source })?;
        match width {
            2 if bytes.len() % 2 == 0 => {
                Ok(Tokens::U16(bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect()))
            }
            4 if bytes.len() % 4 == 0 => {
                let word = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                Ok(Tokens::U32(bytes.chunks_exact(4).map(word).collect()))
            }
            _ => Err(DataError::Width { path: path.into(), bytes: bytes.len(), width }),
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Tokens::U16(t) => t.len(),
            Tokens::U32(t) => t.len(),
        }
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    pub fn get(&self, i: usize) -> u32 {
        match self {
            Tokens::U16(t) => t[i] as u32,
            Tokens::U32(t) => t[i],
        }
    }

    /// Copies tokens from `start` on, as a model takes them.
    pub fn copy(&self, start: usize, to: &mut [i32]) {
        let end = start + to.len();
        match self {
            Tokens::U16(t) => to.iter_mut().zip(&t[start..end]).for_each(|(to, x)| *to = *x as i32),
            Tokens::U32(t) => to.iter_mut().zip(&t[start..end]).for_each(|(to, x)| *to = *x as i32),
        }
    }

    /// Refuses tokens outside the vocabulary and data of less than one window with its targets.
    pub fn check(&self, vocab: usize, window: usize) -> Result<(), DataError> {
        if self.len() < window + 1 {
            return Err(DataError::TooShort { found: self.len(), needed: window + 1 });
        }
        match (0..self.len()).find(|i| self.get(*i) as usize >= vocab) {
            Some(index) => Err(DataError::Token { index, token: self.get(index), vocab }),
            None => Ok(()),
        }
    }

    /// A hash of the tokens.
    pub fn hash(&self) -> String {
        let mut h = blake3::Hasher::new();
        let mut bytes = [0u8; 4096];
        for start in (0..self.len()).step_by(1024) {
            let n = (self.len() - start).min(1024);
            for (i, b) in bytes.chunks_exact_mut(4).take(n).enumerate() {
                b.copy_from_slice(&self.get(start + i).to_le_bytes());
            }
            h.update(&bytes[..4 * n]);
        }
        h.finalize().to_hex().to_string()
    }
}

/// Where the windows of each step start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sampler {
    seed: u64,
    windows: u64,
    /// Tokens of a window, targets excluded.
    window: u64,
    /// Offsets at which an epoch may start.
    offsets: u64,
}

impl Sampler {
    /// Over `tokens` tokens, which must be at least `window + 1`.
    pub fn new(seed: u64, tokens: usize, window: usize) -> Sampler {
        let (usable, window) = (tokens as u64 - 1, window as u64);
        // One window fewer than would fit leaves room for other offsets in every epoch.
        let windows = ((usable + 1 - window) / window).max(1);
        Sampler { seed, windows, window, offsets: usable - windows * window + 1 }
    }

    /// Windows of an epoch.
    pub fn windows(&self) -> u64 {
        self.windows
    }

    /// The first token of sample `index`, counted over the whole run.
    pub fn start(&self, index: u64) -> usize {
        let (epoch, i) = (index / self.windows, index % self.windows);
        let offset = self.draw(epoch, u64::MAX, 0) % self.offsets;
        (offset + self.permuted(epoch, i) * self.window) as usize
    }

    /// A permutation of the windows: a Feistel network over the next power of four, walked until it falls inside.
    fn permuted(&self, epoch: u64, i: u64) -> u64 {
        let half = (64 - (self.windows - 1).leading_zeros()).div_ceil(2);
        let mask = (1u64 << half) - 1;
        let mut x = i;
        loop {
            let (mut left, mut right) = (x >> half, x & mask);
            for round in 0..4 {
                (left, right) = (right, left ^ (self.draw(epoch, right, round) & mask));
            }
            x = left << half | right;
            if x < self.windows {
                return x;
            }
        }
    }

    fn draw(&self, epoch: u64, x: u64, round: u32) -> u64 {
        let counter = [x as u32, (x >> 32) as u32 ^ round << 24, epoch as u32, (epoch >> 32) as u32 ^ 0xda7a_0000];
        let w = philox4x32_10(counter, [self.seed as u32, (self.seed >> 32) as u32]);
        (w[0] as u64) << 32 | w[1] as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn an_epoch_visits_every_window_once_and_never_leaves_the_data() {
        for (tokens, window) in [(5, 4), (9, 4), (100, 4), (1001, 10), (4097, 64), (70, 1)] {
            let s = Sampler::new(3, tokens, window);
            for epoch in 0..3 {
                let starts: Vec<usize> = (0..s.windows()).map(|i| s.start(epoch * s.windows() + i)).collect();
                let phases: BTreeSet<usize> = starts.iter().map(|x| x % window).collect();
                assert_eq!(starts.iter().collect::<BTreeSet<_>>().len() as u64, s.windows());
                assert!(phases.len() == 1 && starts.iter().all(|x| x + window < tokens), "{tokens} {window}");
            }
        }
    }

    #[test]
    fn the_order_depends_on_seed_and_epoch_only() {
        let order = |seed, epoch: u64| {
            let s = Sampler::new(seed, 10_000, 10);
            (0..50).map(|i| s.start(epoch * s.windows() + i)).collect::<Vec<_>>()
        };
        assert_eq!(order(1, 0), order(1, 0));
        assert!(order(1, 0) != order(2, 0) && order(1, 0) != order(1, 1));
        let sorted = order(1, 0).windows(2).filter(|w| w[0] < w[1]).count();
        assert!((10..40).contains(&sorted), "{sorted} of 49 ascend: not a random order");
    }

    #[test]
    fn bad_data_is_refused_with_numbers() {
        let t = Tokens::U16(vec![1, 2, 9, 3]);
        assert!(t.check(10, 3).is_ok());
        assert_eq!(t.check(10, 4).unwrap_err().to_string(), "4 tokens are too few: one window needs 5");
        assert_eq!(t.check(9, 3).unwrap_err().to_string(), "token 2 is 9, but the vocabulary has 9 entries");
        assert_eq!(t.hash(), Tokens::U32(vec![1, 2, 9, 3]).hash());
        assert_ne!(t.hash(), Tokens::U32(vec![1, 2, 9, 4]).hash());
    }

    #[test]
    fn token_files_have_a_width() {
        let path = std::env::temp_dir().join(format!("lolm-tokens-{}", std::process::id()));
        std::fs::write(&path, [1, 0, 2, 0, 3, 0]).unwrap();
        assert_eq!(Tokens::open(&path, 2).unwrap(), Tokens::U16(vec![1, 2, 3]));
        assert!(
            Tokens::open(&path, 4)
                .unwrap_err()
                .to_string()
                .ends_with("has 6 bytes, not a multiple of the 4 of a token")
        );
        std::fs::remove_file(&path).unwrap();
        assert!(Tokens::open(&path, 2).unwrap_err().to_string().starts_with("cannot read"));
    }
}
