//! Crowds that come, go, break off and ask for too much: no slot, no byte and no end of a request is lost.
use super::answers::{by_hand, request};
use super::toy::*;
use crate::serve::{Engine, Event, Finish, Options, Refused, Request, Stats};
use proptest::prelude::*;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

/// Nothing is on its way, and all that was taken has ended.
fn settled(engine: &Engine) -> Stats {
    assert!(engine.wait_idle(LONG));
    let s = engine.stats();
    assert_eq!((s.waiting, s.finished.all()), (0, s.accepted));
    s
}

/// Numbers that look like chance.
fn mix(i: u64) -> u64 {
    let x = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ (x >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16
}

#[test]
fn thousands_that_break_off_leak_no_slot_and_no_byte() {
    let options = Options { max_queued: 50, state_cache_bytes: 20_000, ..Options::new(1000) };
    let (engine, control) = engine(5, options);
    let mut open = vec![];
    for i in 0..6000u64 {
        let r = request(1 + mix(i) as usize % 60, mix(i) as u32 % 40, mix(i + 1) as usize % 50);
        // Half of them go by their sink, at some event; the others by their ticket, at some time, or stay.
        let mut left = if mix(i + 2).is_multiple_of(2) { mix(i + 3) % 20 } else { 1000 };
        let sink = move |_: Event| {
            left = left.saturating_sub(1u64);
            left > 0
        };
        match engine.submit(r, Box::new(sink)) {
            Ok(ticket) => open.push(ticket),
            Err(Refused::Full { .. }) => std::thread::sleep(Duration::from_micros(200)),
            Err(e) => panic!("{e}"),
        }
        if open.len() > 40 {
            drop(open.swap_remove(mix(i + 4) as usize % 40));
        }
    }
    let r = request(40, 1, 20);
    let (_ticket, events) = loop {
        let (to, from) = std::sync::mpsc::channel();
        match engine.submit(r.clone(), Box::new(move |e| to.send(e).is_ok())) {
            Ok(ticket) => break (ticket, from),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    assert_eq!(answer(&events).ids(), by_hand(&r));
    let s = settled(&engine);
    assert!(s.finished.cancelled > 1000 && s.accepted > 3000, "{:?} of {}", s.finished, s.accepted);
    assert!(s.cache.bytes <= 20_000 && s.cache.hits > 100);
    assert_eq!((s.panics, s.running, s.held_tokens), (0, 0, 0));
    assert_eq!(control.snapshots.load(Ordering::SeqCst), s.cache.entries);
    drop(engine);
    assert_eq!(control.snapshots.load(Ordering::SeqCst), 0);
}

#[test]
fn too_many_are_refused_and_the_others_are_served_in_turn() {
    let control = Control { step_time: Duration::from_micros(100), ..Control::default() };
    let (engine, _) = engine_with(4, Options { max_queued: 8, ..Options::new(1000) }, control);
    let (mut served, mut full, mut last) = (vec![], 0, Instant::now());
    while served.len() < 100 {
        let i = served.len() as u32;
        let r = request(12, i, 6);
        let (to, from) = std::sync::mpsc::channel();
        match engine.submit(r, Box::new(move |e| to.send(e).is_ok())) {
            Ok(ticket) => {
                served.push((ticket, from));
                last = Instant::now();
            }
            Err(Refused::Full { waiting, .. }) => {
                assert!((8..=12).contains(&waiting) && last.elapsed() < LONG);
                full += 1;
                std::thread::sleep(Duration::from_micros(50));
            }
            Err(e) => panic!("{e}"),
        }
    }
    for (i, (_ticket, events)) in served.iter().enumerate() {
        assert_eq!(answer(events).ids(), by_hand(&request(12, i as u32, 6)));
    }
    assert!(full > 0 && settled(&engine).full == full);
}

#[test]
fn a_long_prompt_delays_no_answer_by_more_than_a_chunk() {
    let (engine, control) = engine(3, Options { read_budget: 16, ..Options::new(100_000) });
    let (going, events) = ask(&engine, request(1, 1, 100_000));
    while !matches!(events.recv_timeout(LONG), Ok(Event::Token(_))) {}
    assert_eq!(whole(&engine, request(3000, 2, 5)).ids(), by_hand(&request(3000, 2, 5)));
    drop(going);
    assert_eq!(events.iter().last(), Some(Event::Done(Finish::Cancelled)));
    let log = control.log.lock().unwrap();
    assert!(log.iter().filter(|x| **x == -16).count() == 187 && !log.windows(2).any(|w| w == [-16, -16]));
}

#[test]
fn chunks_are_no_longer_than_the_budget_while_others_answer() {
    let (engine, control) = engine(3, Options { read_budget: 5, ..Options::new(100_000) });
    assert_eq!(whole(&engine, request(32, 3, 1)).ids(), by_hand(&request(32, 3, 1)));
    let (going, events) = ask(&engine, request(1, 1, 100_000));
    while !matches!(events.recv_timeout(LONG), Ok(Event::Token(_))) {}
    assert_eq!(whole(&engine, request(100, 2, 5)).ids(), by_hand(&request(100, 2, 5)));
    drop(going);
    assert!(engine.wait_idle(LONG));
    let log = control.log.lock().unwrap();
    let read: Vec<i64> = log.iter().copied().filter(|x| *x < 0).collect();
    assert_eq!(read, [[-16; 2].as_slice(), &[-4; 25]].concat());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Any crowd: each that stays gets what it gets alone, each that goes gets its beginning.
    #[test]
    fn any_crowd_gets_what_each_gets_alone(
        slots in 1usize..6,
        budget in 0usize..40,
        cache in prop::sample::select(vec![0usize, 3000, 100_000]),
        crowd in prop::collection::vec((1usize..90, 0u32..6, 0usize..30, 0usize..40, any::<bool>()), 1..40),
    ) {
        let options = Options { max_queued: 100, state_cache_bytes: cache, read_budget: budget, ..Options::new(1000) };
        let (engine, control) = engine(slots, options);
        let ask_one = |(n, seed, max, goes, scored): &(usize, u32, usize, usize, bool)| {
            let prompt_logprobs = (*scored && seed % 2 == 0).then_some(0);
            let r = Request { gate: scored.then_some(0.25), prompt_logprobs, ..request(*n, *seed, *max) };
            let (to, from) = std::sync::mpsc::channel();
            let mut left = *goes;
            let sink = move |e| {
                left = left.saturating_sub(1);
                to.send(e).is_ok() && left > 0
            };
            (r.clone(), engine.submit(r, Box::new(sink)).unwrap(), from)
        };
        let asked: Vec<_> = crowd.iter().map(ask_one).collect();
        let stats = settled(&engine);
        for ((r, _ticket, events), (.., goes, _)) in asked.iter().zip(&crowd) {
            let events: Vec<Event> = events.try_iter().collect();
            let tokens: Vec<u32> = events.iter().filter_map(|e| match e {
                Event::Token(t) => Some(t.id),
                Event::Started { .. } | Event::Prompt(_) | Event::Done(_) => None,
            }).collect();
            let want = by_hand(r);
            prop_assert!(want.starts_with(&tokens));
            if matches!(events.last(), Some(Event::Done(_))) {
                prop_assert_eq!(events.last(), Some(&Event::Done(Finish::Length)));
                prop_assert_eq!(tokens, want);
            } else {
                prop_assert_eq!(events.len(), (*goes).max(1));
            }
        }
        prop_assert!(stats.cache.bytes <= cache);
        drop(engine);
        prop_assert_eq!(control.snapshots.load(Ordering::SeqCst), 0);
    }
}
