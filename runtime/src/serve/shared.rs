//! What handles and the engine's thread share: the queue, what is open, and figures.
use super::request::{Finish, Refused, Request, Sink};
use super::stats::Stats;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A request that was taken, until it is done.
pub struct Job {
    pub request: Request,
    pub sink: Sink,
    pub cancelled: Arc<AtomicBool>,
    pub arrived: Instant,
}

impl Job {
    /// Why nobody wants the answer any more, if so.
    pub fn over(&self, now: Instant) -> Option<Finish> {
        match self.request.deadline {
            _ if self.cancelled.load(Ordering::Relaxed) => Some(Finish::Cancelled),
            Some(deadline) if deadline <= now => Some(Finish::Deadline),
            _ => None,
        }
    }
}

/// Shared by handles and the engine's thread.
pub struct Shared {
    state: Mutex<State>,
    stats: Mutex<Stats>,
    /// The engine waits for work, others until there is none.
    work: Condvar,
    idle: Condvar,
}

struct State {
    queue: VecDeque<Job>,
    max_queued: usize,
    /// Slots that will be taken from the queue at the next step.
    free: usize,
    /// Requests that were taken and are not done.
    open: usize,
    draining: bool,
    stop: bool,
    /// Why the engine ended.
    ended: Option<String>,
}

/// What the engine's thread is to do.
#[derive(PartialEq, Eq, Debug)]
pub enum Call {
    Work,
    Stop,
}

impl Shared {
    pub fn new(stats: Stats, max_queued: usize) -> Shared {
        let state = State {
            queue: VecDeque::new(),
            max_queued,
            free: stats.slots,
            open: 0,
            draining: false,
            stop: false,
            ended: None,
        };
        Shared { state: Mutex::new(state), stats: Mutex::new(stats), work: Condvar::new(), idle: Condvar::new() }
    }

    // A panic while a lock is held is a bug, and leaves nothing half done: the fields are written one by one.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub fn stats(&self) -> MutexGuard<'_, Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- for handles

    pub fn submit(&self, job: Job) -> Result<(), Refused> {
        let mut s = self.state();
        if let Some(why) = &s.ended {
            return Err(Refused::Stopped(why.clone()));
        }
        if s.draining || s.stop {
            return Err(Refused::Draining);
        }
        if s.queue.len() >= s.max_queued.saturating_add(s.free) {
            let waiting = s.queue.len();
            drop(s);
            let mut stats = self.stats();
            stats.full += 1;
            return Err(Refused::Full { waiting, seconds: stats.wait(waiting) });
        }
        s.queue.push_back(job);
        s.open += 1;
        drop(s);
        self.stats().accepted += 1;
        self.work.notify_one();
        Ok(())
    }

    pub fn drain(&self) {
        self.state().draining = true;
    }
    pub fn stop(&self) {
        self.state().stop = true;
        self.work.notify_one();
    }

    /// False if there was work until the end.
    pub fn wait_idle(&self, timeout: Duration) -> bool {
        let s = self.state();
        let waited = self.idle.wait_timeout_while(s, timeout, |s| s.open > 0);
        let (s, _) = waited.unwrap_or_else(PoisonError::into_inner);
        s.open == 0
    }

    pub fn figures(&self) -> Stats {
        let (waiting, draining, stopped) = {
            let s = self.state();
            (s.queue.len(), s.draining, s.ended.clone())
        };
        Stats { waiting, draining, stopped, ..self.stats().clone() }
    }

    // ---- for the engine's thread

    /// Waits until there is something to do; with sequences on their way there always is.
    pub fn call(&self, on_the_way: bool) -> Call {
        let s = self.state();
        let waited = self.work.wait_while(s, |s| !on_the_way && !s.stop && s.queue.is_empty());
        let s = waited.unwrap_or_else(PoisonError::into_inner);
        if s.stop { Call::Stop } else { Call::Work }
    }

    /// Takes those requests out of the queue that nobody waits for any more.
    pub fn take_over(&self, now: Instant) -> Vec<(Job, Finish)> {
        let mut s = self.state();
        if s.queue.iter().all(|j| j.over(now).is_none()) {
            return vec![];
        }
        let mut gone = vec![];
        let State { queue, .. } = &mut *s;
        for job in std::mem::take(queue) {
            match job.over(now) {
                Some(why) => gone.push((job, why)),
                None => queue.push_back(job),
            }
        }
        gone
    }

    /// Takes the first request out of the queue, if `fits` says so.
    pub fn take_first(&self, fits: impl FnOnce(&Request) -> bool) -> Option<Job> {
        let mut s = self.state();
        s.queue.front().is_some_and(|j| fits(&j.request)).then(|| s.queue.pop_front())?
    }

    pub fn set_free(&self, free: usize) {
        self.state().free = free;
    }

    /// One request is done, and its sink knows.
    pub fn closed(&self) {
        let mut s = self.state();
        s.open -= 1;
        if s.open == 0 {
            self.idle.notify_all();
        }
    }

    /// The engine ends: nothing is taken any more. Gives what is still in the queue.
    pub fn end(&self, why: &str) -> Vec<Job> {
        let mut s = self.state();
        s.ended = Some(why.to_string());
        std::mem::take(&mut s.queue).into()
    }

    /// Nothing is open any more, whatever a panic has lost.
    pub fn settle(&self) {
        self.state().open = 0;
        self.idle.notify_all();
    }
}
