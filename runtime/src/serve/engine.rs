//! The handle of an engine: takes requests, gives figures, drains and stops.
use super::backend::{Backend, Facts};
use super::request::{Refused, Request, Sink};
use super::rows::ModelRows;
use super::scheduler::Scheduler;
use super::shared::{Job, Shared};
use super::stats::Stats;
use crate::generate::GenerateError;
use crate::model::Model;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How an engine works.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Options {
    /// The temperature of the regime.
    pub tau: f32,
    /// Tokens of prompt and answer together, at most; no more than the model was compiled for.
    pub max_model_len: usize,
    /// Requests that may wait, beside those for which there is a slot.
    pub max_queued: usize,
    /// Bytes that states of common prefixes may take; 0 keeps none.
    pub state_cache_bytes: usize,
    /// Tokens of prompts that are read between two steps of those that answer; 0 for the longest chunk.
    pub read_budget: usize,
}

/// A CPU multiplies so many rows about as fast as more of them, and those who answer wait less.
const READ_BUDGET: usize = 64;

impl Options {
    /// The usual ones for a model that was compiled for so many tokens.
    pub fn new(max_model_len: usize) -> Options {
        Options { tau: 1.0, max_model_len, max_queued: 256, state_cache_bytes: 0, read_budget: READ_BUDGET }
    }
}

/// Why an engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Model(#[from] GenerateError),
    #[error("the engine's thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// A handle of an engine. When the last one is dropped, the engine stops.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    facts: Facts,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A request that was taken. Dropping it takes the request back, if it is not done.
#[must_use = "dropping the ticket cancels the request"]
#[derive(Debug)]
pub struct Ticket {
    cancelled: Arc<AtomicBool>,
}

impl Ticket {
    /// Takes the request back, at the next step.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl Engine {
    /// Starts a thread that runs this model.
    pub fn start(model: Model, options: Options) -> Result<Engine, StartError> {
        Engine::over(ModelRows::new(model, options.tau)?, options)
    }

    /// Starts a thread that runs this.
    pub fn over<B: Backend + 'static>(backend: B, options: Options) -> Result<Engine, StartError> {
        let mut facts = backend.facts().clone();
        facts.max_len = facts.max_len.min(options.max_model_len);
        let states = (facts.slots + 1) * facts.row_bytes;
        let stats = Stats::new(facts.slots, facts.max_len, states, options.state_cache_bytes);
        let shared = Arc::new(Shared::new(stats, options.max_queued));
        let scheduler = Scheduler::new(backend, shared.clone(), &options);
        let thread = thread::Builder::new().name("engine".into()).spawn(move || scheduler.run())?;
        Ok(Engine { inner: Arc::new(Inner { shared, facts, thread: Mutex::new(Some(thread)) }) })
    }

    /// What the model is, with as many tokens as the options allow.
    pub fn facts(&self) -> &Facts {
        &self.inner.facts
    }

    /// Puts a request into the queue. The sink sees its events, on the engine's thread, so it must not block; false from
    /// it takes the request back, as dropping the ticket does.
    pub fn submit(&self, request: Request, sink: Sink) -> Result<Ticket, Refused> {
        request.check(&self.inner.facts)?;
        let cancelled = Arc::new(AtomicBool::new(false));
        let ticket = Ticket { cancelled: cancelled.clone() };
        self.inner.shared.submit(Job { request, sink, cancelled, arrived: Instant::now() })?;
        Ok(ticket)
    }

    pub fn stats(&self) -> Stats {
        self.inner.shared.figures()
    }
    /// From now on nothing is taken; what was taken goes on.
    pub fn drain(&self) {
        self.inner.shared.drain();
    }
    /// Waits until all that was taken is done; false if it is not in time.
    pub fn wait_idle(&self, timeout: Duration) -> bool {
        self.inner.shared.wait_idle(timeout)
    }
    /// Ends the engine. What is not done fails.
    pub fn stop(&self) {
        self.inner.stop();
    }
}

impl Inner {
    fn stop(&self) {
        self.shared.stop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A sink may hold the last handle; a thread cannot wait for itself.
        if let Some(t) = thread.filter(|t| t.thread().id() != thread::current().id()) {
            // The thread catches its own panics, and has said so to all sinks.
            let _ = t.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}
