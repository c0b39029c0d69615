//! The engine's thread. A turn drops what nobody wants any more, reads a piece of a prompt, and takes one step of all
//! sequences that answer.
use super::backend::{Backend, Facts, Lane, Steps};
use super::engine::Options;
use super::prefixes::Prefixes;
use super::request::{Event, Finish};
use super::sequence::{Chooser, Given, Sequence};
use super::shared::{Call, Shared};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

/// Runs a backend until it is told to stop.
pub struct Scheduler<B: Backend> {
    backend: B,
    facts: Facts,
    shared: Arc<Shared>,
    /// By row.
    running: Vec<Sequence>,
    /// In the last row.
    reading: Option<Sequence>,
    chooser: Chooser,
    /// Tokens of prompts in a turn.
    budget: usize,
    lanes: Vec<Lane>,
    prefixes: Prefixes<B::Snapshot>,
}

impl<B: Backend> Scheduler<B> {
    pub fn new(backend: B, shared: Arc<Shared>, options: &Options) -> Scheduler<B> {
        let facts = backend.facts().clone();
        let longest = facts.chunks.first().copied().unwrap_or(1);
        Scheduler {
            backend,
            shared,
            running: Vec::with_capacity(facts.slots),
            reading: None,
            chooser: Chooser::new(facts.vocab),
            budget: if options.read_budget == 0 { longest } else { options.read_budget },
            lanes: Vec::with_capacity(facts.slots),
            prefixes: Prefixes::new(options.state_cache_bytes, &facts),
            facts,
        }
    }

    /// Works until it is told to stop or the model fails, and leaves no request without an end.
    pub fn run(mut self) {
        let why = match catch_unwind(AssertUnwindSafe(|| self.work())) {
            Ok(why) => why,
            Err(panic) => format!("bug: the engine panicked: {}", said(&*panic)),
        };
        for job in self.shared.end(&why) {
            self.close(Sequence::new(job, Instant::now()), Finish::Failed(why.clone()));
        }
        let open: Vec<Sequence> = self.reading.take().into_iter().chain(self.running.drain(..)).collect();
        open.into_iter().for_each(|s| self.close(s, Finish::Failed(why.clone())));
        self.publish();
        self.shared.settle();
    }

    fn work(&mut self) -> String {
        while self.shared.call(self.reading.is_some() || !self.running.is_empty()) == Call::Work {
            if let Err(why) = self.turn() {
                return why;
            }
        }
        "it was told to stop".into()
    }

    fn turn(&mut self) -> Result<(), String> {
        self.drop_unwanted()?;
        self.read()?;
        self.decode()?;
        self.publish();
        Ok(())
    }

    // ---- ends

    /// Ends the sequences that were cancelled or whose deadline has passed.
    fn drop_unwanted(&mut self) -> Result<(), String> {
        let now = Instant::now();
        for (job, why) in self.shared.take_over(now) {
            self.close(Sequence::new(job, now), why);
        }
        if let Some(why) = self.reading.as_ref().and_then(|s| s.over(now)) {
            self.reading.take().into_iter().for_each(|s| self.close(s, why.clone()));
        }
        for row in (0..self.running.len()).rev() {
            if let Some(why) = self.running[row].over(now) {
                self.leave(row, why)?;
            }
        }
        Ok(())
    }

    /// Ends the sequence of a row; the last row takes its place.
    fn leave(&mut self, row: usize, why: Finish) -> Result<(), String> {
        let last = self.running.len() - 1;
        if row < last {
            self.backend.copy(last, row, self.running[last].held)?;
        }
        let gone = self.running.swap_remove(row);
        self.close(gone, why);
        Ok(())
    }

    /// The figures of the whole, and the last event: whoever gets it can see them.
    fn close(&self, mut s: Sequence, why: Finish) {
        self.count(&s, &why);
        self.publish();
        let panicked = s.panicked;
        s.emit(Event::Done(why));
        if s.panicked && !panicked {
            self.shared.stats().panics += 1;
        }
        // What a sink owns may panic when it is dropped; that is no end of the engine either.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(s)));
        self.shared.closed();
    }

    fn count(&self, s: &Sequence, why: &Finish) {
        let now = Instant::now();
        let seconds = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64();
        let mut stats = self.shared.stats();
        let f = &mut stats.finished;
        *match why {
            Finish::Length => &mut f.length,
            Finish::Stop => &mut f.stop,
            Finish::Cancelled => &mut f.cancelled,
            Finish::Deadline => &mut f.deadline,
            Finish::Failed(_) => &mut f.failed,
        } += 1;
        stats.panics += s.panicked as u64;
        stats.whole.add(seconds(s.job.arrived, now));
        stats.prompt_lengths.add(s.prompt() as f64);
        stats.answer_lengths.add(s.generated() as f64);
        if let Some(first) = s.first_at {
            stats.prefill.add(seconds(s.started, first));
            stats.decode.add(seconds(first, now));
            stats.served(seconds(s.started, now));
        }
    }

    // ---- prompts

    /// Reads prompts, as many tokens as fit between two steps of the others.
    fn read(&mut self) -> Result<(), String> {
        let mut left = self.budget;
        loop {
            if self.reading.is_none() && !self.admit()? {
                return Ok(());
            }
            let Some(s) = self.reading.as_ref() else { continue };
            let n = self.chunk(s);
            if n == 1 && self.can_move(s) {
                self.start_answering()?;
                continue;
            }
            if n > left && left < self.budget {
                return Ok(());
            }
            self.read_chunk(n)?;
            left = left.saturating_sub(n);
            if left == 0 {
                return Ok(());
            }
        }
    }

    /// Takes the first of the queue, if there is a row for it. What gives one token at most needs none.
    fn admit(&mut self) -> Result<bool, String> {
        let free = self.running.len() < self.facts.slots;
        let spare = self.facts.spare_row;
        let Some(job) = self.shared.take_first(|r| free || spare && r.max_tokens <= 1) else { return Ok(false) };
        let now = Instant::now();
        self.shared.stats().queue.add(now.saturating_duration_since(job.arrived).as_secs_f64());
        let s = self.reading.insert(Sequence::new(job, now));
        let next = self.prefixes.start(&mut self.backend, self.facts.slots, s)?;
        s.emit(Event::Started { cached_tokens: s.cached });
        if let Some(next) = next {
            let end = s.next(Given::Logits(&next.logits), || next.trace, &mut self.chooser);
            count_token(&self.shared, s);
            self.go_on(end)?;
        }
        Ok(true)
    }

    /// The most tokens that can be read next at once.
    fn chunk(&self, s: &Sequence) -> usize {
        let sizes = if s.scored() { &self.facts.scores } else { &self.facts.chunks };
        let rest = s.next_stop() - s.held;
        // Who answers does not wait for more than the budget at once.
        let most = if self.running.is_empty() { usize::MAX } else { self.budget };
        // If nothing follows but a token, a step may have room for more than is left, but not for more than twice of it.
        let last = s.scored() && s.request().max_tokens <= 1;
        let padded = |n: usize| last && rest * 2 >= n && s.held + n <= self.facts.max_len;
        let fits = |n: &usize| *n <= most && s.held.is_multiple_of(*n) && (*n <= rest || padded(*n));
        sizes.iter().copied().find(fits).unwrap_or(1).min(rest)
    }

    /// Whether what is left of a prompt goes in by single tokens, which is cheaper beside the others' steps.
    fn can_move(&self, s: &Sequence) -> bool {
        let by_one = (s.held..s.prompt()).all(|at| {
            let fits = |n: &usize| *n > 1 && at.is_multiple_of(*n) && at + *n <= s.prompt();
            !self.facts.chunks.iter().any(fits)
        });
        !s.scored() && s.request().max_tokens > 1 && self.running.len() < self.facts.slots && by_one
    }

    fn read_chunk(&mut self, n: usize) -> Result<(), String> {
        let Some(s) = &mut self.reading else { return Ok(()) };
        let steps = if s.scored() { Steps::Score } else { Steps::Read };
        let from = s.held;
        self.backend.read(s.lane_of(n), &s.tokens[from..from + n], steps)?;
        s.held += n;
        {
            let mut stats = self.shared.stats();
            stats.prompt_tokens += n as u64;
            stats.read_steps += 1;
            stats.step_tokens.add(n as f64);
        }
        let backend = &self.backend;
        if s.scored() {
            for i in 0..n {
                s.score(from + i, backend.logits(i), || backend.trace(i), &mut self.chooser);
            }
        }
        let at = if s.scored() { n - 1 } else { 0 };
        self.prefixes.keep(&mut self.backend, self.facts.slots, s, (at, n - 1))?;
        if s.held < s.prompt() {
            return Ok(());
        }
        s.emit_scores();
        let backend = &self.backend;
        let end = s.next(Given::backend(backend, at), || backend.trace(n - 1), &mut self.chooser);
        count_token(&self.shared, s);
        self.go_on(end)
    }

    /// What was read answers from now on, or ends.
    fn go_on(&mut self, end: Option<Finish>) -> Result<(), String> {
        let Some(why) = end else { return self.start_answering() };
        self.reading.take().into_iter().for_each(|s| self.close(s, why.clone()));
        Ok(())
    }

    /// Moves what was read to the first free row.
    fn start_answering(&mut self) -> Result<(), String> {
        let held = self.reading.as_ref().map_or(0, |s| s.held);
        self.backend.copy(self.facts.slots, self.running.len(), held)?;
        self.running.extend(self.reading.take());
        Ok(())
    }

    // ---- answers

    /// One token more for all that answer.
    fn decode(&mut self) -> Result<(), String> {
        if self.running.is_empty() {
            return Ok(());
        }
        self.lanes.clear();
        self.lanes.extend(self.running.iter().map(Sequence::lane));
        self.backend.decode(&self.lanes)?;
        {
            let mut stats = self.shared.stats();
            stats.decode_steps += 1;
            stats.step_tokens.add(self.lanes.len() as f64);
            let of_prompts = self.running.iter().filter(|s| s.held < s.prompt()).count();
            stats.prompt_tokens += of_prompts as u64;
        }
        // Given the last one on: who leaves is replaced by one that has its token already.
        for row in (0..self.running.len()).rev() {
            let s = &mut self.running[row];
            s.held += 1;
            self.prefixes.keep(&mut self.backend, row, s, (row, row))?;
            if s.held < s.tokens.len() {
                continue;
            }
            let backend = &self.backend;
            let end = s.next(Given::backend(backend, row), || backend.trace(row), &mut self.chooser);
            count_token(&self.shared, s);
            if let Some(why) = end {
                self.prefixes.keep_answer(&mut self.backend, row, &self.running[row])?;
                self.leave(row, why)?;
            }
        }
        Ok(())
    }

    fn publish(&self) {
        let here = || self.reading.iter().chain(&self.running);
        self.shared.set_free(self.facts.slots.saturating_sub(here().count()));
        let mut stats = self.shared.stats();
        stats.running = here().count();
        stats.cache = self.prefixes.figures();
        stats.held_tokens = here().map(|s| s.held).sum();
    }
}

/// The figures of a token that was just handed over.
fn count_token(shared: &Shared, s: &mut Sequence) {
    if s.generated() == 0 {
        return;
    }
    let now = Instant::now();
    let mut stats = shared.stats();
    stats.generated_tokens += 1;
    match s.first_at {
        None => {
            s.first_at = Some(now);
            stats.first_token.add(now.saturating_duration_since(s.job.arrived).as_secs_f64());
        }
        Some(_) => stats.between_tokens.add(now.saturating_duration_since(s.last_at).as_secs_f64()),
    }
    s.last_at = now;
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "nothing".into())
}
