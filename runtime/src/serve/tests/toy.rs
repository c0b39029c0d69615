//! A toy backend whose answers are known without it: a row's state is a hash of gate and tokens, its logits are of that.
//! It is strict: every step must be one that a model could take.
use crate::rows::{Meter, Metered};
use crate::serve::{Backend, Engine, Event, Facts, Finish, Gate, Lane, Options, Request, Steps, Ticket, Token, Trace};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;

pub const VOCAB: usize = 50;

/// What a test sees of the toy, and can make it do.
#[derive(Default)]
pub struct Control {
    /// Snapshots that exist.
    pub snapshots: AtomicUsize,
    pub decodes: AtomicUsize,
    pub reads: AtomicUsize,
    /// Steps as they came: lanes of a decode, or tokens of a prompt as negative numbers.
    pub log: Mutex<Vec<i64>>,
    /// Fails in the step of this number, counted from 1.
    pub fail_at: AtomicUsize,
    pub step_time: Duration,
}

/// A row: a hash of what went in, and how many tokens that were.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Row {
    hash: u64,
    held: usize,
}

pub struct Toy {
    facts: Facts,
    rows: Vec<Row>,
    /// Of the last step.
    logits: Vec<Vec<f32>>,
    hashes: Vec<u64>,
    control: Arc<Control>,
}

pub struct Snapshot {
    row: Row,
    control: Arc<Control>,
    /// What it shares with those of its beginning.
    kept: Vec<Arc<Metered>>,
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.control.snapshots.fetch_sub(1, Ordering::SeqCst);
    }
}

const START: Row = Row { hash: 7, held: 0 };
/// What nothing can go on from.
const LOST: Row = Row { hash: 666, held: usize::MAX };

fn step(hash: u64, token: u32, gate: f32) -> u64 {
    let x = (hash ^ (token as u64) << 32 ^ gate.to_bits() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

fn logits_of(hash: u64) -> Vec<f32> {
    (0..VOCAB as u64).map(|v| (step(hash, v as u32, 0.0) % 1000) as f32 / 100.0).collect()
}

/// The logits after these tokens.
pub fn logits(tokens: &[u32], gate: f32) -> Vec<f32> {
    logits_of(tokens.iter().fold(START.hash, |h, t| step(h, *t, gate)))
}

fn trace_of(hash: u64) -> Trace {
    let gate = Gate { mean: (hash % 97) as f32 / 97.0, std: 0.0, histogram: [0; 10] };
    Trace { gate: Some(gate), regime: Some((hash % 16) as u32), memory: None }
}

/// The trace at the last of these tokens.
pub fn trace(tokens: &[u32], gate: f32) -> Trace {
    trace_of(tokens.iter().fold(START.hash, |h, t| step(h, *t, gate)))
}

impl Toy {
    pub fn new(slots: usize, control: Arc<Control>) -> Toy {
        let facts = Facts {
            vocab: VOCAB,
            max_len: 100_000,
            slots,
            spare_row: true,
            chunks: vec![16, 4, 1],
            scores: vec![8, 1],
            gate: true,
            row_bytes: 1000,
        };
        Toy { facts, rows: vec![START; slots + 1], logits: vec![], hashes: vec![], control }
    }

    fn count(&self, entry: i64) -> Result<(), String> {
        sleep(self.control.step_time);
        let mut log = self.control.log.lock().unwrap();
        log.push(entry);
        let fail = self.control.fail_at.load(Ordering::SeqCst);
        if log.len() == fail { Err("the toy broke".into()) } else { Ok(()) }
    }

    fn take(&mut self, row: usize, token: u32, position: usize, gate: f32) -> u64 {
        let r = &mut self.rows[row];
        assert_eq!(r.held, position, "row {row} holds another number of tokens");
        assert!((token as usize) < VOCAB);
        *r = Row { hash: step(r.hash, token, gate), held: position + 1 };
        r.hash
    }
}

impl Backend for Toy {
    type Snapshot = Snapshot;

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn decode(&mut self, lanes: &[Lane]) -> Result<(), String> {
        assert!(!lanes.is_empty() && lanes.len() <= self.facts.slots);
        self.control.decodes.fetch_add(1, Ordering::SeqCst);
        self.count(lanes.len() as i64)?;
        self.hashes = lanes.iter().enumerate().map(|(i, l)| self.take(i, l.token, l.position, l.gate)).collect();
        // Lanes that hold nothing run too.
        self.rows[lanes.len()..self.facts.slots].fill(LOST);
        self.logits = self.hashes.iter().map(|h| logits_of(*h)).collect();
        Ok(())
    }

    fn read(&mut self, first: Lane, tokens: &[u32], steps: Steps) -> Result<(), String> {
        let sizes = if steps == Steps::Score { &self.facts.scores } else { &self.facts.chunks };
        let padded = |n: &usize| steps == Steps::Score && *n > tokens.len() && first.position.is_multiple_of(*n);
        let exact = sizes.contains(&tokens.len()) && first.position.is_multiple_of(tokens.len());
        assert!(exact || sizes.iter().any(padded), "{} tokens at {}", tokens.len(), first.position);
        assert_eq!(first.token, tokens[0]);
        self.control.reads.fetch_add(1, Ordering::SeqCst);
        self.count(-(tokens.len() as i64))?;
        let last = self.facts.slots;
        let each = tokens.iter().enumerate();
        self.hashes = each.map(|(i, t)| self.take(last, *t, first.position + i, first.gate)).collect();
        if !exact {
            self.rows[last] = LOST;
        }
        self.logits = match steps {
            Steps::Score => self.hashes.iter().map(|h| logits_of(*h)).collect(),
            Steps::Read => self.hashes.last().iter().map(|h| logits_of(**h)).collect(),
        };
        Ok(())
    }

    fn logits(&self, at: usize) -> &[f32] {
        &self.logits[at]
    }
    fn trace(&self, at: usize) -> Trace {
        trace_of(self.hashes[at])
    }
    fn copy(&mut self, from: usize, to: usize, tokens: usize) -> Result<(), String> {
        assert_eq!(self.rows[from].held, tokens);
        self.rows[to] = self.rows[from];
        Ok(())
    }
    fn reset(&mut self, row: usize) -> Result<(), String> {
        self.rows[row] = START;
        Ok(())
    }
    fn save(&mut self, row: usize, tokens: usize, base: Option<&Snapshot>, meter: &Meter) -> Result<Snapshot, String> {
        assert_eq!(self.rows[row].held, tokens);
        self.control.snapshots.fetch_add(1, Ordering::SeqCst);
        let from = base.map_or(0, |b| b.row.held);
        let mut kept = base.map_or(vec![], |b| b.kept.clone());
        kept.push(Arc::new(meter.count(self.shared_bytes(from..tokens))));
        Ok(Snapshot { row: self.rows[row], control: self.control.clone(), kept })
    }
    fn restore(&mut self, row: usize, snapshot: &Snapshot) -> Result<(), String> {
        self.rows[row] = snapshot.row;
        Ok(())
    }
    fn own_bytes(&self, _: usize) -> usize {
        100
    }
    fn shared_bytes(&self, tokens: Range<usize>) -> usize {
        10 * tokens.len()
    }
}

/// An engine over a toy.
pub fn engine(slots: usize, options: Options) -> (Engine, Arc<Control>) {
    engine_with(slots, options, Control::default())
}

pub fn engine_with(slots: usize, options: Options, control: Control) -> (Engine, Arc<Control>) {
    let control = Arc::new(control);
    (Engine::over(Toy::new(slots, control.clone()), options).unwrap(), control)
}

/// Hands a request in, and gives where its events come.
pub fn ask(engine: &Engine, request: Request) -> (Ticket, Receiver<Event>) {
    let (to, from) = channel();
    (engine.submit(request, Box::new(move |e| to.send(e).is_ok())).unwrap(), from)
}

/// All that comes of a request.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Answer {
    pub cached: Option<usize>,
    pub prompt: Vec<Token>,
    pub tokens: Vec<Token>,
    pub end: Option<Finish>,
}

impl Answer {
    pub fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|t| t.id).collect()
    }
}

/// Waits for the end.
pub fn answer(events: &Receiver<Event>) -> Answer {
    let mut a = Answer::default();
    while a.end.is_none() {
        match events.recv_timeout(Duration::from_secs(60)).expect("an end of every request") {
            Event::Started { cached_tokens } => {
                assert!(a.cached.is_none() && a.tokens.is_empty());
                a.cached = Some(cached_tokens);
            }
            Event::Prompt(p) => a.prompt = p,
            Event::Token(t) => a.tokens.push(t),
            Event::Done(why) => a.end = Some(why),
        }
    }
    a
}

pub fn whole(engine: &Engine, request: Request) -> Answer {
    let (_ticket, events) = ask(engine, request);
    answer(&events)
}
