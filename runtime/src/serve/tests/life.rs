//! Requests that end early or are not taken, and engines that end.
use super::answers::{by_hand, request};
use super::toy::*;
use crate::serve::{Event, Finish, Options, Refused, Request};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

fn slow() -> Control {
    Control { step_time: Duration::from_millis(1), ..Control::default() }
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_request_ends_when_its_ticket_goes_or_its_sink_wants_no_more() {
    let (engine, _) = engine_with(2, Options::new(100_000), slow());
    let (ticket, events) = ask(&engine, request(3, 1, 50_000));
    assert_eq!(events.recv_timeout(LONG), Ok(Event::Started { cached_tokens: 0 }));
    drop(ticket);
    assert_eq!(events.iter().last(), Some(Event::Done(Finish::Cancelled)));
    let (to, from) = channel();
    let deaf = Box::new(move |e| to.send(e).is_err());
    let _ticket = engine.submit(request(3, 1, 50_000), deaf).unwrap();
    assert!(engine.wait_idle(LONG));
    assert_eq!(from.iter().count(), 1);
    let s = engine.stats();
    assert_eq!((s.finished.cancelled, s.finished.all(), s.accepted, s.running), (2, 2, 2, 0));
}

#[test]
fn a_deadline_ends_what_waits_and_what_answers() {
    let (engine, _) = engine_with(1, Options::new(100_000), slow());
    let soon = Some(Instant::now() + Duration::from_millis(30));
    let (_a, first) = ask(&engine, Request { deadline: soon, ..request(3, 1, 50_000) });
    let (_b, second) = ask(&engine, Request { deadline: soon, ..request(3, 1, 50_000) });
    let (a, b) = (answer(&first), answer(&second));
    assert!(!a.tokens.is_empty() && a.end == Some(Finish::Deadline), "{a:?}");
    assert_eq!((b.cached, b.end), (None, Some(Finish::Deadline)));
}

#[test]
fn the_queue_is_bounded_and_first_come_is_first_served() {
    let (engine, _) = engine_with(1, Options { max_queued: 3, ..Options::new(100_000) }, slow());
    let order = std::sync::Arc::new(std::sync::Mutex::new(vec![]));
    let ask_as = |name: usize, n: usize| {
        let order = order.clone();
        let sink = move |e| {
            if e == (Event::Started { cached_tokens: 0 }) {
                order.lock().unwrap().push(name);
            }
            true
        };
        engine.submit(request(2, 1, n), Box::new(sink))
    };
    let first = ask_as(0, 50_000).unwrap();
    while engine.stats().running == 0 {
        std::thread::yield_now();
    }
    let _tickets: Vec<_> = (1..4).map(|i| ask_as(i, 2).unwrap()).collect();
    assert_eq!(ask_as(9, 2).unwrap_err(), Refused::Full { waiting: 3, seconds: 1 });
    drop(first);
    assert!(engine.wait_idle(LONG));
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3]);
    assert_eq!((engine.stats().full, engine.stats().finished.length), (1, 3));
}

#[test]
fn what_a_model_cannot_do_is_refused() {
    let (engine, _) = engine(1, Options::new(20));
    let refused = |r: Request| engine.submit(r, Box::new(|_| true)).unwrap_err().to_string();
    let r = request(3, 1, 4);
    assert_eq!(refused(Request { prompt: vec![], ..r.clone() }), "the prompt is empty: at least one token is needed");
    let wrong = refused(Request { prompt: vec![1, 50], ..r.clone() });
    assert_eq!(wrong, "token 1 of the prompt is 50, but the vocabulary has 50 entries");
    assert_eq!(refused(request(10, 1, 12)), "the prompt has 10 tokens and 12 more may come, but the context holds 20");
    assert_eq!(whole(&engine, request(10, 1, 11)).tokens.len(), 11);
    let wrong = refused(Request { gate: Some(1.5), ..r.clone() });
    assert_eq!(wrong, "gate is 1.5, expected 0 to 1");
    let wrong = refused(Request { logit_bias: vec![(50, 1.0)], ..r.clone() });
    assert_eq!(wrong, "logit_bias names token 50, but the vocabulary has 50 entries");
    let penalties = crate::serve::Penalties { repetition: 0.0, ..Default::default() };
    assert_eq!(refused(Request { penalties, ..r }), "repetition_penalty is 0, expected more than 0");
}

#[test]
fn draining_finishes_what_was_taken() {
    let (engine, _) = engine_with(2, Options::new(1000), slow());
    let asked: Vec<_> = (0..6).map(|i| ask(&engine, request(5, i, 20))).collect();
    engine.drain();
    assert_eq!(engine.submit(request(1, 1, 1), Box::new(|_| true)).unwrap_err(), Refused::Draining);
    assert!(!engine.wait_idle(Duration::ZERO));
    assert!(engine.wait_idle(LONG));
    for (i, (_ticket, events)) in asked.iter().enumerate() {
        assert_eq!(answer(events).ids(), by_hand(&request(5, i as u32, 20)));
    }
}

#[test]
fn stopping_and_failing_leave_no_request_without_an_end() {
    let stopped = |broken: usize| {
        let (engine, _) =
            engine_with(2, Options::new(100_000), Control { fail_at: AtomicUsize::new(broken), ..slow() });
        let asked: Vec<_> = (0..6).map(|i| ask(&engine, request(5, i, 50_000))).collect();
        asked[0].1.recv_timeout(LONG).unwrap();
        if broken == 0 {
            engine.stop();
        }
        let ends: Vec<_> = asked.iter().map(|(_, events)| answer(events).end.unwrap()).collect();
        assert!(engine.wait_idle(LONG));
        let refused = engine.submit(request(1, 1, 1), Box::new(|_| true)).unwrap_err().to_string();
        (ends, refused, engine.stats())
    };
    for (broken, why) in [(0, "it was told to stop"), (1, "the toy broke"), (9, "the toy broke")] {
        let (ends, refused, stats) = stopped(broken);
        assert_eq!(ends, vec![Finish::Failed(why.into()); 6]);
        assert_eq!(refused, format!("the engine has stopped: {why}"));
        assert_eq!((stats.stopped.as_deref(), stats.finished.failed, stats.waiting), (Some(why), 6, 0));
    }
}

#[test]
fn a_sink_that_panics_ends_its_own_request_alone() {
    let (engine, _) = engine(2, Options::new(1000));
    let count = AtomicUsize::new(0);
    let panics = move |_| match count.fetch_add(1, Ordering::SeqCst) {
        3 => panic!("a sink of a test panics"),
        n => n < 3,
    };
    let _ticket = engine.submit(request(5, 1, 100), Box::new(panics)).unwrap();
    assert_eq!(whole(&engine, request(5, 2, 30)).ids(), by_hand(&request(5, 2, 30)));
    assert!(engine.wait_idle(LONG));
    let s = engine.stats();
    assert_eq!((s.panics, s.finished.cancelled, s.finished.length, s.stopped), (1, 1, 1, None));
}
