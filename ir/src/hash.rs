//! A quick hash for tables inside the compiler. It is the same in every run, and nothing may depend on the order of a
//! table all the same.
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hash, Hasher};

pub type QuickMap<K, V> = HashMap<K, V, BuildHasherDefault<Quick>>;
pub type QuickSet<K> = HashSet<K, BuildHasherDefault<Quick>>;

/// Multiply and rotate, a word at a time. Keys are made by the compiler itself, so nobody chooses them to collide.
#[derive(Clone, Copy, Default)]
pub struct Quick(u64);

const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Quick {
    fn word(&mut self, x: u64) {
        self.0 = (self.0.rotate_left(5) ^ x).wrapping_mul(ODD);
    }
}

impl Hasher for Quick {
    /// High bits of a product depend on all bits of its factors and low ones on few, so the ends change places.
    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }
    fn write_u8(&mut self, x: u8) {
        self.word(x as u64)
    }
    fn write_u16(&mut self, x: u16) {
        self.word(x as u64)
    }
    fn write_u32(&mut self, x: u32) {
        self.word(x as u64)
    }
    fn write_u64(&mut self, x: u64) {
        self.word(x)
    }
    fn write_u128(&mut self, x: u128) {
        self.word(x as u64);
        self.word((x >> 64) as u64)
    }
    fn write_usize(&mut self, x: usize) {
        self.word(x as u64)
    }
    fn write_i64(&mut self, x: i64) {
        self.word(x as u64)
    }
    fn write_isize(&mut self, x: isize) {
        self.word(x as u64)
    }
}

/// The hash of one thing.
pub fn quick(x: impl Hash) -> u64 {
    let mut h = Quick::default();
    x.hash(&mut h);
    h.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_and_their_pairs_do_not_collide() {
        let mut seen = QuickSet::default();
        let mut low = QuickSet::default();
        for a in 0..200u32 {
            for b in 0..200u32 {
                let h = quick((a, b));
                seen.insert(h);
                low.insert(h & 0xf_ffff);
            }
        }
        assert_eq!(seen.len(), 40_000);
        // Chance leaves 39,250 of 40,000 draws from 2^20.
        assert!(low.len() > 38_000, "{}", low.len());
    }
}
