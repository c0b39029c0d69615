//! The prefix cache: states after tokens that were read before, so that what begins with them need not read them again.
//!
//! States of a hybrid cannot be cut: those after n tokens are of use to a text that begins with all n. So copies are taken
//! where texts are likely to part: at the end of prompts and answers, after 1, 2, 4, 8, … of the longest chunk, and where
//! a prompt turns out to differ from one that is known. They are found by the tokens themselves, in the order of a
//! dictionary, where what has most in common with a text stands beside it. The least recently used go first. What is kept
//! by position is shared between states after a text and after its beginning, and goes with the last that have it.
use super::stats::Cache;
use crate::rows::Meter;
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
    /// Bytes of all entries, without what they share, which the meter counts.
    own: usize,
    meter: Meter,
    pub figures: Cache,
}

/// States after some tokens.
pub struct Entry<S> {
    pub snapshot: Arc<S>,
    /// What the model gave for the next token, if it was kept.
    pub next: Option<Next>,
    /// Its own.
    bytes: usize,
    used: u64,
}

/// What states would take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// What an entry takes in all, without what it can share.
    pub own: usize,
    /// What it can share: beside what is there already, and all of it.
    pub kept: usize,
    pub all_kept: usize,
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
        let meter = Meter::default();
        PrefixCache { entries: BTreeMap::new(), by_age: BTreeMap::new(), now: 0, own: 0, meter, figures }
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

    /// The longest states that these tokens begin with, for others to share with; it is no use of them.
    pub fn base(&self, gate: f32, tokens: &[u32]) -> Option<(usize, Arc<S>)> {
        let of_gate = self.entries.get(&gate.to_bits())?;
        let key = prefix(of_gate, tokens)?;
        Some((key.len(), of_gate.get(&key)?.snapshot.clone()))
    }

    /// Counts what states share.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// How many tokens these have in common with what is known.
    pub fn in_common(&self, gate: f32, tokens: &[u32]) -> usize {
        let Some(map) = self.entries.get(&gate.to_bits()) else { return 0 };
        let before = map.range::<[u32], _>((Unbounded, Included(tokens))).next_back();
        let after = map.range::<[u32], _>((Excluded(tokens), Unbounded)).next();
        before.into_iter().chain(after).map(|(k, _)| common(k, tokens)).max().unwrap_or(0)
    }

    /// Makes room for states of this size, for which others that were not used for long have to go. False if there would be
    /// no room without all of them; then they stay.
    pub fn make_room(&mut self, new: &Size) -> bool {
        let budget = self.figures.budget_bytes;
        if new.own + new.all_kept > budget {
            return false;
        }
        while self.figures.bytes + new.own + new.kept > budget {
            if !self.evict() {
                return false;
            }
        }
        true
    }

    /// Keeps states, for which room was made, and which take so many bytes of their own.
    pub fn insert(&mut self, gate: f32, tokens: &[u32], snapshot: S, bytes: usize, next: Option<Next>) {
        let (gate, key) = (gate.to_bits(), Tokens::from(tokens));
        if let Some(old) = self.entries.get_mut(&gate).and_then(|m| m.remove(&key)) {
            self.by_age.remove(&old.used);
            self.own -= old.bytes;
            self.figures.entries -= 1;
            self.figures.inserted -= 1;
        }
        let used = self.tick();
        self.by_age.insert(used, (gate, key.clone()));
        self.entries.entry(gate).or_default().insert(key, Entry { snapshot: Arc::new(snapshot), next, bytes, used });
        self.own += bytes;
        self.figures.entries += 1;
        self.figures.inserted += 1;
        self.figures.bytes = self.own + self.meter.bytes();
    }

    /// Lets the least recently used go; false if there is none.
    fn evict(&mut self) -> bool {
        let Some((_, (gate, key))) = self.by_age.pop_first() else { return false };
        let Some(of_gate) = self.entries.get_mut(&gate) else { return false };
        if let Some(old) = of_gate.remove(&key) {
            self.own -= old.bytes;
            self.figures.entries -= 1;
            self.figures.evicted += 1;
        }
        if of_gate.is_empty() {
            self.entries.remove(&gate);
        }
        self.figures.bytes = self.own + self.meter.bytes();
        true
    }

    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }
}

/// What an entry takes in all whose states take so many bytes, without what they can share.
pub fn own_bytes(tokens: &[u32], bytes: usize, logits: usize) -> usize {
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
    use crate::rows::Metered;
    use proptest::prelude::*;

    fn length(c: &mut PrefixCache<usize>, gate: f32, tokens: &[u32]) -> Option<usize> {
        c.find(gate, tokens).map(|(n, e)| {
            assert_eq!(*e.snapshot, n);
            n
        })
    }

    fn keep(c: &mut PrefixCache<usize>, gate: f32, tokens: &[u32], next: Option<Next>) -> bool {
        let size = size(tokens, 0, 0);
        let fits = c.make_room(&size);
        if fits {
            c.insert(gate, tokens, tokens.len(), size.own, next);
        }
        fits
    }

    fn size(tokens: &[u32], kept: usize, all_kept: usize) -> Size {
        Size { own: own_bytes(tokens, 100, 0), kept, all_kept }
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
        assert!(!c.make_room(&size(&[1; 9], 0, 9999)));
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

    #[test]
    fn what_is_shared_counts_once_and_goes_with_the_last_that_have_it() {
        let mut c: PrefixCache<Vec<Arc<Metered>>> = PrefixCache::new(4000);
        // A byte a token, of which each text has its own and those of its beginning.
        let mut keep = |tokens: &[u32]| {
            let base = c.base(-1.0, tokens);
            let shared = base.as_ref().map_or(0, |b| b.0);
            let size = size(tokens, tokens.len() - shared, tokens.len());
            let fits = c.make_room(&size);
            if fits {
                let mut all = base.map_or(vec![], |b| b.1.to_vec());
                all.push(Arc::new(c.meter().count(tokens.len() - shared)));
                c.insert(-1.0, tokens, all, size.own, None);
            }
            assert!(c.figures.bytes <= 4000, "{:?}", c.figures);
            (fits, c.figures.entries, c.meter().bytes())
        };
        assert_eq!(keep(&[0; 100]), (true, 1, 100));
        assert_eq!(keep(&[0; 300]), (true, 2, 300));
        // An entry has 356 bytes and four for each token of its own.
        assert_eq!(keep(&[1; 200]), (true, 3, 500));
        // That the first one goes is not enough, since the second one has all that it kept; then that goes, and all of it.
        assert_eq!(keep(&[2; 200]), (true, 2, 400));
        assert!(!keep(&[3; 900]).0);
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
