//! When states are kept, and where sequences start from those that were: the engine's use of the prefix cache.
use super::backend::{Backend, Facts};
use super::cache::{Next, PrefixCache, Size, own_bytes};
use super::sequence::Sequence;
use super::stats::Cache;

/// The cache, and where copies are taken.
pub struct Prefixes<S> {
    cache: PrefixCache<S>,
    /// Copies are taken after 1, 2, 4, 8, … times so many tokens.
    longest: usize,
    /// Prompts are cut at multiples of this only, so that what follows is still read by chunks.
    shortest: usize,
}

/// What prompts must have in common with others so that a copy is worth its time.
const WORTH: usize = 16;

impl<S> Prefixes<S> {
    pub fn new(budget_bytes: usize, facts: &Facts) -> Prefixes<S> {
        let chunks = || facts.chunks.iter().copied().filter(|n| *n > 1);
        let (longest, shortest) = (chunks().max().unwrap_or(WORTH), chunks().min().unwrap_or(1));
        Prefixes { cache: PrefixCache::new(budget_bytes), longest, shortest }
    }

    pub fn figures(&self) -> Cache {
        self.cache.figures
    }

    /// Puts a row where this sequence starts: behind what is known of its prompt, or at the start. If nothing of the
    /// prompt is left to read, gives what comes next.
    pub fn start<B: Backend<Snapshot = S>>(
        &mut self,
        backend: &mut B,
        row: usize,
        s: &mut Sequence,
    ) -> Result<Option<Next>, String> {
        if !self.uses(s) {
            backend.reset(row)?;
            return Ok(None);
        }
        let in_common = self.cache.in_common(s.gate(), &s.tokens);
        let mut next = None;
        match self.cache.find(s.gate(), &s.tokens) {
            None => backend.reset(row)?,
            Some((held, entry)) => {
                backend.restore(row, &entry.snapshot)?;
                (s.held, s.cached) = (held, held);
                next = entry.next.as_ref().filter(|_| held == s.tokens.len()).cloned();
            }
        }
        s.marks = self.marks(s.held, in_common, s.prompt());
        Ok(next)
    }

    /// Where copies are to be taken of a prompt that is read from `held` on and shares so many tokens with others.
    fn marks(&self, held: usize, in_common: usize, prompt: usize) -> Vec<usize> {
        let parting = in_common / self.shortest * self.shortest;
        let powers = std::iter::successors(Some(self.longest), |n| n.checked_mul(2)).take_while(|n| *n < prompt);
        let parting = Some(parting).filter(|n| *n >= held + WORTH && *n < prompt);
        let mut marks: Vec<usize> = powers.filter(|n| *n > held).chain(parting).collect();
        marks.sort_unstable();
        marks.dedup();
        marks
    }

    /// Keeps the states of a row if its sequence has come to a mark, or to the end of its prompt. `at` is where the backend
    /// has logits and trace of its last token.
    pub fn keep<B: Backend<Snapshot = S>>(
        &mut self,
        backend: &mut B,
        row: usize,
        s: &mut Sequence,
        at: (usize, usize),
    ) -> Result<(), String> {
        let marked = s.marks.first() == Some(&s.held);
        if marked {
            s.marks.remove(0);
        }
        let whole = s.held == s.prompt();
        if !(marked || whole) || s.held == s.cached || !self.uses(s) {
            return Ok(());
        }
        self.save(backend, row, s, whole.then_some(at))
    }

    /// Keeps the states of an answer that has ended, by itself or by its client: a chat goes on from them.
    pub fn keep_answer<B: Backend<Snapshot = S>>(
        &mut self,
        backend: &mut B,
        row: usize,
        s: &Sequence,
    ) -> Result<(), String> {
        if self.uses(s) { self.save(backend, row, s, None) } else { Ok(()) }
    }

    fn uses(&self, s: &Sequence) -> bool {
        s.request().cached && !s.scored() && !self.cache.is_off()
    }

    fn save<B: Backend<Snapshot = S>>(
        &mut self,
        backend: &mut B,
        row: usize,
        s: &Sequence,
        next: Option<(usize, usize)>,
    ) -> Result<(), String> {
        let tokens = &s.tokens[..s.held];
        if self.cache.has(s.gate(), tokens, next.is_some()) {
            return Ok(());
        }
        let base = self.cache.base(s.gate(), tokens);
        let logits = next.map_or(0, |_| backend.facts().vocab);
        let size = Size {
            own: own_bytes(tokens, backend.own_bytes(s.held), logits),
            kept: backend.shared_bytes(base.as_ref().map_or(0, |b| b.0)..s.held),
            all_kept: backend.shared_bytes(0..s.held),
        };
        if !self.cache.make_room(&size) {
            return Ok(());
        }
        let snapshot = backend.save(row, s.held, base.as_ref().map(|b| &*b.1), self.cache.meter())?;
        let next =
            next.map(|(logits, trace)| Next { logits: backend.logits(logits).to_vec(), trace: backend.trace(trace) });
        self.cache.insert(s.gate(), tokens, snapshot, size.own, next);
        Ok(())
    }
}
