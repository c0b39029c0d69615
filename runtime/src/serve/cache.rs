//! The prefix cache: states after tokens that were read before, so that what begins with them need not read them again.
//!
//! States of a hybrid cannot be cut: those after n tokens are of use to a text that begins with all n. So copies are taken
//! where texts are likely to part: at the end of prompts and answers, after 1, 2, 4, 8, … of the longest chunk, and where
//! a prompt turns out to differ from one that is known. They are found by the tokens themselves, in the order of a
//! dictionary, where what has most in common with a text stands beside it. The least recently used go first.
use super::stats::Cache;
use crate::trace::Trace;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

type Tokens = Arc<[u32]>;

/// States by the tokens that led to them, and by the bits of what the gate was forced to.
pub struct PrefixCache<S> {
    entries: BTreeMap<u32, BTreeMap<Tokens, Entry<S>>>,
    /// By when they were used last.
    by_age: BTreeMap<u64, (u32, Tokens)>,
    now: u64,
    pub figures: Cache,
}

/// States after some tokens.
pub struct Entry<S> {
    pub snapshot: S,
    /// What the model gave for the next token, if it was kept.
    pub next: Option<Next>,
    bytes: usize,
    used: u64,
}

/// What follows from states that were read to the end of a prompt.
#[derive(Clone)]
pub struct Next {
    /// f32[v]
    pub logits: Vec<f32>,
    pub trace: Trace,
}

/// What an entry takes beside states, tokens and logits, about.
const OVERHEAD: usize = 256;

impl<S> PrefixCache<S> {
    pub fn new(budget_bytes: usize) -> PrefixCache<S> {
        let figures = Cache { budget_bytes, ..Cache::default() };
        PrefixCache { entries: BTreeMap::new(), by_age: BTreeMap::new(), now: 0, figures }
    }

    /// Nothing is kept at all.
    pub fn is_off(&self) -> bool {
        self.figures.budget_bytes == 0
    }

    /// Whether there are states after exactly these tokens; with what comes next, if it is asked for.
    pub fn has(&self, gate: f32, tokens: &[u32], next: bool) -> bool {
        self.entries.get(&gate.to_bits()).and_then(|m| m.get(tokens)).is_some_and(|e| e.next.is_some() || !next)
    }

    /// The longest states that these tokens begin with, and their number of tokens. States after all of the tokens are of
    /// use only if it is known what comes next.
    pub fn find(&mut self, gate: f32, tokens: &[u32]) -> Option<(usize, &Entry<S>)> {
        self.figures.queries += 1;
        self.figures.queried_tokens += tokens.len() as u64;
        let part = if self.has(gate, tokens, true) { tokens } else { &tokens[..tokens.len().saturating_sub(1)] };
        let gate = gate.to_bits();
        let key = prefix(self.entries.get(&gate)?, part)?;
        self.figures.hits += 1;
        self.figures.hit_tokens += key.len() as u64;
        let age = self.tick();
        let entry = self.entries.get_mut(&gate)?.get_mut(&key)?;
        self.by_age.remove(&std::mem::replace(&mut entry.used, age));
        let len = key.len();
        self.by_age.insert(age, (gate, key));
        Some((len, entry))
    }

    /// How many tokens these have in common with what is known.
    pub fn in_common(&self, gate: f32, tokens: &[u32]) -> usize {
        let Some(map) = self.entries.get(&gate.to_bits()) else { return 0 };
        let before = map.range::<[u32], _>((Unbounded, Included(tokens))).next_back();
        let after = map.range::<[u32], _>((Excluded(tokens), Unbounded)).next();
        before.into_iter().chain(after).map(|(k, _)| common(k, tokens)).max().unwrap_or(0)
    }

    /// Makes room for states after these tokens, of so many bytes, with so many logits, for which others that were not
    /// used for long have to go. False if there would be no room without all of them; then they stay.
    pub fn make_room(&mut self, tokens: &[u32], bytes: usize, logits: usize) -> bool {
        let bytes = whole(tokens, bytes, logits);
        let fits = bytes <= self.figures.budget_bytes;
        while fits && self.figures.bytes + bytes > self.figures.budget_bytes {
            self.evict();
        }
        fits
    }

    /// Keeps states, for which room was made.
    pub fn insert(&mut self, gate: f32, tokens: &[u32], snapshot: S, bytes: usize, next: Option<Next>) {
        let bytes = whole(tokens, bytes, next.as_ref().map_or(0, |n| n.logits.len()));
        let (gate, key) = (gate.to_bits(), Tokens::from(tokens));
        if let Some(old) = self.entries.get_mut(&gate).and_then(|m| m.remove(&key)) {
            self.by_age.remove(&old.used);
            self.figures.bytes -= old.bytes;
            self.figures.entries -= 1;
            self.figures.inserted -= 1;
        }
        let used = self.tick();
        self.by_age.insert(used, (gate, key.clone()));
        self.entries.entry(gate).or_default().insert(key, Entry { snapshot, next, bytes, used });
        self.figures.bytes += bytes;
        self.figures.entries += 1;
        self.figures.inserted += 1;
    }

    fn evict(&mut self) {
        let Some((_, (gate, key))) = self.by_age.pop_first() else { return };
        let Some(of_gate) = self.entries.get_mut(&gate) else { return };
        if let Some(old) = of_gate.remove(&key) {
            self.figures.bytes -= old.bytes;
            self.figures.entries -= 1;
            self.figures.evicted += 1;
        }
        if of_gate.is_empty() {
            self.entries.remove(&gate);
        }
    }

    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }
}

/// What an entry takes in all.
fn whole(tokens: &[u32], bytes: usize, logits: usize) -> usize {
    bytes + size_of::<u32>() * (tokens.len() + logits) + OVERHEAD
}

/// The longest key that the tokens begin with. In the order of a dictionary it is not behind them; what stands between it
/// and them begins with it, too, so cutting the tokens down to what they share with their neighbour does not pass it.
fn prefix<S>(map: &BTreeMap<Tokens, Entry<S>>, tokens: &[u32]) -> Option<Tokens> {
    let mut part = tokens;
    loop {
        let (key, _) = map.range::<[u32], _>((Unbounded, Included(part))).next_back()?;
        let shared = common(key, part);
        if shared == key.len() {
            return Some(key.clone());
        }
        part = &part[..shared];
    }
}

/// Tokens that both begin with.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn length(c: &mut PrefixCache<usize>, gate: f32, tokens: &[u32]) -> Option<usize> {
        c.find(gate, tokens).map(|(n, e)| {
            assert_eq!(e.snapshot, n);
            n
        })
    }

    fn keep(c: &mut PrefixCache<usize>, gate: f32, tokens: &[u32], next: Option<Next>) -> bool {
        let fits = c.make_room(tokens, 100, 0);
        if fits {
            c.insert(gate, tokens, tokens.len(), 100, next);
        }
        fits
    }

    fn next() -> Option<Next> {
        Some(Next { logits: vec![], trace: Trace::default() })
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut c = PrefixCache::new(3 * (OVERHEAD + 100) + 3 * 8);
        for first in 0..3 {
            assert!(keep(&mut c, -1.0, &[first, 0], None));
        }
        assert_eq!(length(&mut c, -1.0, &[0, 0, 5]), Some(2));
        keep(&mut c, -1.0, &[3, 0], None);
        let left: Vec<bool> = (0..4).map(|first| c.has(-1.0, &[first, 0], false)).collect();
        assert_eq!(left, [true, false, true, true]);
        assert_eq!((c.figures.entries, c.figures.evicted, c.figures.bytes), (3, 1, c.figures.budget_bytes));
        // Larger than all: is not taken, and nothing has to go for it.
        assert!(!c.make_room(&[1; 9], 9999, 0));
        assert_eq!(c.figures.entries, 3);
    }

    #[test]
    fn a_gate_has_its_own_states_and_all_tokens_need_what_comes_next() {
        let mut c = PrefixCache::new(1 << 20);
        keep(&mut c, 0.5, &[1, 2], None);
        assert_eq!(length(&mut c, -1.0, &[1, 2, 3]), None);
        assert_eq!(length(&mut c, 0.5, &[1, 2, 3]), Some(2));
        assert_eq!(length(&mut c, 0.5, &[1, 2]), None);
        keep(&mut c, 0.5, &[1, 2], next());
        assert_eq!(length(&mut c, 0.5, &[1, 2]), Some(2));
        assert_eq!((c.figures.entries, c.figures.hits, c.figures.hit_tokens, c.figures.queried_tokens), (1, 2, 4, 10));
    }

    proptest! {
        #[test]
        fn it_finds_what_a_look_at_all_finds(
            keys in prop::collection::vec(prop::collection::vec(0u32..3, 1..9), 0..30),
            text in prop::collection::vec(0u32..3, 0..12),
            ends in any::<bool>(),
        ) {
            let mut c = PrefixCache::new(1 << 20);
            keys.iter().for_each(|k| assert!(keep(&mut c, -1.0, k, if ends { next() } else { None })));
            let fits = |k: &&Vec<u32>| text.starts_with(k) && (ends || k.len() < text.len());
            prop_assert_eq!(length(&mut c, -1.0, &text), keys.iter().filter(fits).map(Vec::len).max());
            let most = keys.iter().map(|k| common(k, &text)).max().unwrap_or(0);
            prop_assert_eq!(c.in_common(-1.0, &text), most);
        }
    }
}
