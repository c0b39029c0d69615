//! The sequences of one request on their way through the engine.
use super::app::{App, Loaded};
use super::call::Call;
use super::errors::Fault;
use super::part::{Part, Sink};
use crate::tokenizer::Text;
use lolm_runtime::serve::{Refused, Ticket};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// How long the rest of a batch waits for room in the queue, if none of its own is there to make some.
const PAUSE: Duration = Duration::from_millis(20);

/// Dropping it cancels what has not ended.
pub struct Batch {
    app: Arc<App>,
    loaded: Arc<Loaded>,
    call: Arc<Call>,
    /// Choices that the queue had no room for yet.
    waiting: Range<usize>,
    /// Choice and ticket by key; a key is of one attempt, so that a refused one is not heard.
    running: BTreeMap<usize, (usize, Ticket)>,
    keys: usize,
    to: UnboundedSender<(usize, Part)>,
    from: UnboundedReceiver<(usize, Part)>,
}

impl Batch {
    /// Hands in as many sequences as the queue takes, of which the first has to be taken.
    pub fn start(app: &Arc<App>, loaded: &Arc<Loaded>, call: &Arc<Call>) -> Result<Batch, Fault> {
        let (to, from) = unbounded_channel();
        let waiting = 0..call.sequences();
        let (app, loaded, call) = (app.clone(), loaded.clone(), call.clone());
        let mut batch = Batch { app, loaded, call, waiting, running: BTreeMap::new(), keys: 0, to, from };
        batch.submit()?;
        match batch.running.is_empty() {
            false => Ok(batch),
            true => {
                let stats = batch.loaded.engine.stats();
                Err(Refused::Full { waiting: stats.waiting, seconds: stats.wait(stats.waiting) }.into())
            }
        }
    }

    /// Hands in more, until the queue is full.
    fn submit(&mut self) -> Result<(), Fault> {
        while let Some(choice) = self.waiting.clone().next() {
            let request = self.call.sequence(choice);
            let text = Text::new(&self.call.seen(&request));
            let key = self.keys;
            self.keys += 1;
            let (to, loaded, metrics) = (self.to.clone(), self.loaded.clone(), self.app.metrics.clone());
            let mut sink = Sink::new(key, to, loaded, text, metrics);
            match self.loaded.engine.submit(request, Box::new(move |event| sink.take(event))) {
                Ok(ticket) => drop(self.running.insert(key, (choice, ticket))),
                Err(Refused::Full { .. }) => return Ok(()),
                Err(other) => return Err(other.into()),
            }
            self.waiting.next();
        }
        Ok(())
    }

    /// What comes next, and of which choice; nothing when all have ended.
    pub async fn next(&mut self) -> Result<Option<(usize, Part)>, Fault> {
        loop {
            while self.running.is_empty() && !self.waiting.is_empty() {
                self.submit()?;
                if self.running.is_empty() {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            if self.running.is_empty() {
                return Ok(None);
            }
            let Some((key, part)) = self.from.recv().await else { return Ok(None) };
            let Some(choice) = self.running.get(&key).map(|r| r.0) else { continue };
            if matches!(part, Part::End { .. }) {
                self.running.remove(&key);
                self.submit()?;
            }
            return Ok(Some((choice, part)));
        }
    }
}
