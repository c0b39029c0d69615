//! One request on its way: its tokens, what is chosen from logits, and the events that its sink gets.
use super::backend::{Backend, Lane};
use super::request::{Event, Finish, Penalties, Request, Token};
use super::shared::Job;
use crate::generate::{Draw, Sampler, log_total, most_probable};
use crate::trace::Trace;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// A request that has a row.
pub struct Sequence {
    pub job: Job,
    /// Prompt and answer.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt.
    prompt: usize,
    /// Tokens that are in the row.
    pub held: usize,
    /// The row goes on from states that were kept after so many tokens.
    pub cached: usize,
    /// States are to be kept after so many tokens of the prompt, in ascending order; those that were passed are gone.
    pub marks: Vec<usize>,
    pub started: Instant,
    pub first_at: Option<Instant>,
    pub last_at: Instant,
    pub panicked: bool,
    /// The sink wants no more.
    deaf: bool,
    /// Log-probabilities of the prompt, as far as it was read.
    scores: Vec<Token>,
    /// Tokens that penalties look at, in order, and how often they were generated.
    seen: Vec<(u32, u32)>,
}

/// What the next token comes from: it is one that a model has chosen, or is chosen from the logits of the last one.
pub enum Given<'a> {
    Token(u32),
    Logits(&'a [f32]),
}

impl<'a> Given<'a> {
    /// What the backend has of the last step. Logits that nobody needs are not looked at.
    pub fn backend<B: Backend>(b: &'a B, at: usize) -> Given<'a> {
        b.token(at).map_or_else(|| Given::Logits(b.logits(at)), Given::Token)
    }
}

/// Chooses tokens for all sequences; holds only memory.
pub struct Chooser {
    sampler: Sampler,
    /// f32[v], logits with bias and penalties.
    changed: Vec<f32>,
    top: Vec<(u32, f32)>,
}

impl Chooser {
    pub fn new(vocab: usize) -> Chooser {
        Chooser { sampler: Sampler::new(vocab), changed: Vec::with_capacity(vocab), top: vec![] }
    }

    /// A token with what was asked for with it, from the logits that the model gave for its place.
    fn token(&mut self, id: u32, logits: &[f32], logprobs: Option<usize>, trace: Option<Trace>) -> Token {
        let Some(n) = logprobs else { return Token { id, trace, ..Token::default() } };
        let total = log_total(logits);
        let logprob = |x: f32| (x as f64 - total) as f32;
        most_probable(logits, n, &mut self.top);
        let top = self.top.iter().map(|(t, x)| (*t, logprob(*x))).collect();
        let own = logits[id as usize];
        let rank = Some(1 + logits.iter().filter(|x| **x > own).count() as u32);
        Token { id, logprob: Some(logprob(own)), rank, top, trace }
    }
}

impl Sequence {
    pub fn new(mut job: Job, now: Instant) -> Sequence {
        let prompt = std::mem::take(&mut job.request.prompt);
        let mut s = Sequence {
            job,
            prompt: prompt.len(),
            tokens: prompt,
            held: 0,
            cached: 0,
            marks: vec![],
            started: now,
            first_at: None,
            last_at: now,
            panicked: false,
            deaf: false,
            scores: vec![],
            seen: vec![],
        };
        if s.job.request.penalties.repetition != 1.0 {
            s.seen = s.tokens.iter().map(|t| (*t, 0)).collect();
            s.seen.sort_unstable();
            s.seen.dedup();
        }
        s
    }

    /// What was asked for; the prompt is among the tokens.
    pub fn request(&self) -> &Request {
        &self.job.request
    }
    pub fn prompt(&self) -> usize {
        self.prompt
    }
    pub fn generated(&self) -> usize {
        self.tokens.len() - self.prompt()
    }
    /// Where the next step that reads the prompt must end at the latest.
    pub fn next_stop(&self) -> usize {
        self.marks.first().copied().unwrap_or(self.prompt())
    }
    /// What the prompt reads for itself: scores of all its tokens.
    pub fn scored(&self) -> bool {
        self.request().prompt_logprobs.is_some()
    }
    pub fn gate(&self) -> f32 {
        self.request().gate.unwrap_or(-1.0)
    }
    pub fn lane(&self) -> Lane {
        self.lane_of(1)
    }
    /// The same where so many tokens go in.
    pub fn lane_of(&self, tokens: usize) -> Lane {
        let draw = self.draw().filter(|_| self.held + tokens == self.tokens.len());
        Lane { token: self.tokens[self.held], position: self.held, gate: self.gate(), draw }
    }
    /// How the next token is chosen, if nothing but the logits as they are is looked at for it.
    fn draw(&self) -> Option<Draw> {
        let r = self.request();
        let plain = r.logit_bias.is_empty() && r.penalties == Penalties::default() && r.logprobs.is_none();
        let early = self.generated() < r.min_tokens && !r.stop_tokens.is_empty();
        (plain && !early && r.max_tokens > 0).then(|| r.sampling.draw(self.generated() as u64))
    }

    /// Why it is to end now, if nobody waits for it any more.
    pub fn over(&self, now: Instant) -> Option<Finish> {
        if self.deaf { Some(Finish::Cancelled) } else { self.job.over(now) }
    }

    /// Hands an event to the sink, if it still wants any. A sink that panics is not called again.
    pub fn emit(&mut self, event: Event) {
        if self.deaf {
            return;
        }
        let sink = &mut self.job.sink;
        match catch_unwind(AssertUnwindSafe(|| sink(event))) {
            Ok(goes_on) => self.deaf = !goes_on,
            Err(_) => (self.deaf, self.panicked) = (true, true),
        }
    }

    /// Notes the log-probability of the prompt's token behind the one whose logits these are.
    pub fn score(&mut self, at: usize, logits: &[f32], trace: impl FnOnce() -> Trace, chooser: &mut Chooser) {
        if self.scores.is_empty() {
            self.scores.push(Token { id: self.tokens[0], ..Token::default() });
        }
        if at + 1 < self.prompt() {
            let trace = self.request().trace.then(trace);
            let n = self.request().prompt_logprobs;
            self.scores.push(chooser.token(self.tokens[at + 1], logits, n, trace));
        }
    }

    /// Hands over what was noted of the prompt.
    pub fn emit_scores(&mut self) {
        if self.scored() {
            let scores = std::mem::take(&mut self.scores);
            self.emit(Event::Prompt(scores));
        }
    }

    /// Takes the next token, or chooses it, and hands it over; gives why this was the last, if it was.
    pub fn next(&mut self, given: Given, trace: impl FnOnce() -> Trace, chooser: &mut Chooser) -> Option<Finish> {
        if self.request().max_tokens == 0 {
            return Some(Finish::Length);
        }
        let trace = self.request().trace.then(trace);
        let token = match given {
            Given::Token(id) => Token { id, trace, ..Token::default() },
            Given::Logits(logits) => {
                let id = self.choose(logits, chooser);
                chooser.token(id, logits, self.request().logprobs, trace)
            }
        };
        let id = token.id;
        self.tokens.push(id);
        self.note(id);
        self.emit(Event::Token(token));
        if self.deaf {
            Some(Finish::Cancelled)
        } else if self.request().stop_tokens.contains(&id) {
            Some(Finish::Stop)
        } else if self.generated() == self.request().max_tokens {
            Some(Finish::Length)
        } else {
            None
        }
    }

    fn choose(&self, logits: &[f32], chooser: &mut Chooser) -> u32 {
        let (r, index) = (self.request(), self.generated() as u64);
        // Tokens that must not come yet.
        let early = if self.generated() < r.min_tokens { &r.stop_tokens[..] } else { &[] };
        if r.logit_bias.is_empty() && self.seen.is_empty() && early.is_empty() {
            return chooser.sampler.choose(&r.sampling, logits, index);
        }
        let changed = &mut chooser.changed;
        changed.clear();
        changed.extend_from_slice(logits);
        r.logit_bias.iter().for_each(|(t, x)| changed[*t as usize] += x);
        for (t, times) in &self.seen {
            let x = &mut changed[*t as usize];
            *x = if *x > 0.0 { *x / r.penalties.repetition } else { *x * r.penalties.repetition };
            if *times > 0 {
                *x -= r.penalties.frequency * *times as f32 + r.penalties.presence;
            }
        }
        // A token that the vocabulary does not have comes neither early nor late.
        for t in early {
            changed.get_mut(*t as usize).into_iter().for_each(|x| *x = f32::NEG_INFINITY);
        }
        chooser.sampler.choose(&r.sampling, changed, index)
    }

    /// Counts a token, if penalties look at it.
    fn note(&mut self, id: u32) {
        if self.request().penalties == Default::default() {
            return;
        }
        match self.seen.binary_search_by_key(&id, |s| s.0) {
            Ok(i) => self.seen[i].1 += 1,
            Err(i) => self.seen.insert(i, (id, 1)),
        }
    }
}
