//! Figures of an engine: what it is doing, and what it has done since it started.

/// Figures at one moment. Counts only grow.
#[derive(Clone, PartialEq, Debug)]
pub struct Stats {
    /// Sequences that answer, or whose prompt is read.
    pub running: usize,
    pub waiting: usize,
    /// Sequences that can answer at the same time.
    pub slots: usize,
    /// Bytes of the states of all slots, and of the row where prompts are read: taken at the start.
    pub state_bytes: usize,
    /// Tokens that a slot can hold, and those that all running sequences hold together.
    pub max_len: usize,
    pub held_tokens: usize,
    pub draining: bool,
    /// Why the engine ended, if it did.
    pub stopped: Option<String>,
    /// Requests that were taken, those that were refused since the queue was full, and those that ended, by reason.
    pub accepted: u64,
    pub full: u64,
    pub finished: Finished,
    /// Sinks that panicked; their requests count as cancelled.
    pub panics: u64,
    /// Tokens of prompts that were read, and tokens that were generated.
    pub prompt_tokens: u64,
    pub generated_tokens: u64,
    /// Steps over all answering sequences, and steps over one prompt.
    pub decode_steps: u64,
    pub read_steps: u64,
    pub cache: Cache,
    /// Seconds from a request to its first token.
    pub first_token: Histogram,
    /// Seconds between the tokens of an answer.
    pub between_tokens: Histogram,
    /// Seconds that requests waited, read their prompt, answered, and took in all.
    pub queue: Histogram,
    pub prefill: Histogram,
    pub decode: Histogram,
    pub whole: Histogram,
    /// Tokens of the prompts and answers of requests that ended.
    pub prompt_lengths: Histogram,
    pub answer_lengths: Histogram,
    /// Tokens that went in with each step.
    pub step_tokens: Histogram,
    /// Seconds that a request has a slot, of those that ended lately the most.
    pub service: f64,
}

/// Requests that ended, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Finished {
    pub length: u64,
    pub stop: u64,
    pub cancelled: u64,
    pub deadline: u64,
    pub failed: u64,
}

/// Figures of the prefix cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cache {
    pub budget_bytes: usize,
    pub bytes: usize,
    pub entries: usize,
    /// Tokens of prompts that were looked up, and those of them that need not be read.
    pub queried_tokens: u64,
    pub hit_tokens: u64,
    /// The same in requests.
    pub queries: u64,
    pub hits: u64,
    pub inserted: u64,
    pub evicted: u64,
}

/// How often a figure was at most each bound, cumulated only when it is shown.
#[derive(Clone, PartialEq, Debug)]
pub struct Histogram {
    pub bounds: &'static [f64],
    /// One for each bound, and one for what is above all.
    pub counts: Vec<u64>,
    pub sum: f64,
}

const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
];
const LENGTHS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5];
const STEP_TOKENS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// What the last request counts of how long they take.
const LATELY: f64 = 1.0 / 16.0;
/// Seconds after which it is worth to ask again, whatever the queue is like.
const LONGEST_WAIT: u64 = 60;

impl Histogram {
    fn new(bounds: &'static [f64]) -> Histogram {
        Histogram { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }
    pub fn add(&mut self, x: f64) {
        self.counts[self.bounds.partition_point(|b| *b < x)] += 1;
        self.sum += x;
    }
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

impl Stats {
    pub(super) fn new(slots: usize, max_len: usize, state_bytes: usize, cache_bytes: usize) -> Stats {
        let (seconds, lengths) = (|| Histogram::new(SECONDS), || Histogram::new(LENGTHS));
        Stats {
            running: 0,
            waiting: 0,
            slots,
            state_bytes,
            max_len,
            held_tokens: 0,
            draining: false,
            stopped: None,
            accepted: 0,
            full: 0,
            finished: Finished::default(),
            panics: 0,
            prompt_tokens: 0,
            generated_tokens: 0,
            decode_steps: 0,
            read_steps: 0,
            cache: Cache { budget_bytes: cache_bytes, ..Cache::default() },
            first_token: seconds(),
            between_tokens: seconds(),
            queue: seconds(),
            prefill: seconds(),
            decode: seconds(),
            whole: seconds(),
            prompt_lengths: lengths(),
            answer_lengths: lengths(),
            step_tokens: Histogram::new(STEP_TOKENS),
            service: 0.0,
        }
    }

    /// Notes how long a request had a slot.
    pub(super) fn served(&mut self, seconds: f64) {
        let part = if self.service == 0.0 { 1.0 } else { LATELY };
        self.service += part * (seconds - self.service);
    }

    /// Whole seconds, at least one, after which so many that wait have a slot if all goes on as lately.
    pub fn wait(&self, waiting: usize) -> u64 {
        let seconds = waiting as f64 * self.service / self.slots.max(1) as f64;
        (seconds.ceil() as u64).clamp(1, LONGEST_WAIT)
    }

    /// The part of the slots' tokens that are in use, from 0 to 1.
    pub fn usage(&self) -> f64 {
        self.held_tokens as f64 / (self.slots as f64 * self.max_len as f64).max(1.0)
    }
}

impl Finished {
    pub fn all(&self) -> u64 {
        self.length + self.stop + self.cancelled + self.deadline + self.failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_belongs_to_the_first_bound_that_is_not_below_it() {
        let mut h = Histogram::new(&[1.0, 2.0]);
        [0.5, 1.0, 1.5, 2.0, 9.0].into_iter().for_each(|x| h.add(x));
        assert_eq!((h.counts.as_slice(), h.count(), h.sum), ([2, 2, 1].as_slice(), 5, 14.0));
    }

    #[test]
    fn a_wait_follows_from_the_queue_and_how_long_requests_take() {
        let mut s = Stats::new(4, 64, 0, 0);
        assert_eq!(s.wait(100), 1);
        s.served(2.0);
        assert_eq!([0, 1, 8, 9, 1000].map(|n| s.wait(n)), [1, 1, 4, 5, 60]);
        s.served(10.0);
        assert_eq!(s.service, 2.5);
    }
}
