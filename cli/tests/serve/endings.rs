//! How servers and answers end: drained, stopped, too late, not there yet.
use crate::client::{Client, post};
use crate::hostile::times;
use crate::server::{How, Server};
use lolm::serve::Ended;
use serde_json::{Value, json};
use std::time::Duration;

fn long(stream: bool, seed: usize) -> Value {
    json!({"prompt": "long", "max_tokens": 400, "temperature": 1.0, "seed": seed, "stream": stream, "ignore_eos": true})
}

#[test]
fn a_server_that_loads_says_so() {
    let s = Server::start(How { loading: Duration::from_millis(500), ..How::default() });
    assert_eq!(s.get("/health").status, 200);
    for path in ["/ready", "/v1/models", "/tokenizer_info"] {
        let answer = s.get(path);
        assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (503, Some("loading")), "{path}");
    }
    assert_eq!(s.complete(json!({"prompt": "a"})).status, 503);
    assert!(s.get("/metrics").body.contains("lolm:ready 0"));
    s.wait_ready();
    s.complete(json!({"prompt": "a"})).ok();
}

/// A server that is asked to end under load: every answer that began comes to its end, and equals what it would be.
#[test]
fn draining_cuts_no_answer() {
    for round in 0..times(2) {
        let mut s = Server::start(How { slots: 2, ..How::default() });
        let alone: Vec<String> =
            (0..2).map(|i| s.complete(long(false, i)).ok()["choices"][0]["text"].as_str().unwrap().into()).collect();
        std::thread::scope(|scope| {
            let (s, alone) = (&s, &alone);
            let clients: Vec<_> = (0..6)
                .map(|i| {
                    scope.spawn(move || {
                        let mut c = Client::new(s.address);
                        let mut whole = 0;
                        loop {
                            let stream = (i + whole) % 2 == 0;
                            // After the end of the server the connection is gone, or answers nothing.
                            c.send(post("/v1/completions", &long(stream, i % 2).to_string(), "").as_bytes());
                            let Some(answer) = c.answer() else { return whole };
                            match answer.status {
                                200 if stream => assert_eq!(answer.streamed(0), alone[i % 2]),
                                200 => assert_eq!(answer.ok()["choices"][0]["text"], alone[i % 2].as_str()),
                                503 => return whole,
                                other => panic!("{other}: {}", answer.body),
                            }
                            whole += 1;
                        }
                    })
                })
                .collect();
            std::thread::sleep(Duration::from_millis(30 + 17 * round as u64 % 100));
            s.ask_to_stop();
            let whole: usize = clients.into_iter().map(|c| c.join().unwrap()).sum();
            assert!(whole > 0);
        });
        assert_eq!(s.ended(), Ended::Drained);
    }
}

#[test]
fn while_draining_nothing_new_begins() {
    let mut s = Server::start(How { slots: 1, ..How::default() });
    let mut c = Client::new(s.address);
    let body = json!({"prompt": vec!["long"; 30], "max_tokens": 400, "stream": true, "ignore_eos": true});
    c.send(post("/v1/completions", &body.to_string(), "").as_bytes());
    s.until("begun", || s.stats().running > 0);
    s.ask_to_stop();
    s.until("draining", || s.get("/ready").status == 503);
    let refused = s.complete(json!({"prompt": "a"}));
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (503, Some("shutting_down")));
    assert_eq!(refused.header("connection"), Some("close"));
    let answer = c.answer().unwrap();
    let ends = answer.events().iter().filter(|e| e["choices"][0]["finish_reason"] == "length").count();
    assert_eq!(ends, 30);
    assert_eq!(s.ended(), Ended::Drained);
}

/// What is left after the time to shut down, or when asked a second time, ends with an error that says so.
#[test]
fn a_second_request_to_stop_ends_at_once() {
    for twice in [true, false] {
        let shutdown_timeout = if twice { Duration::from_secs(60) } else { Duration::from_millis(50) };
        let mut s = Server::start(How { slots: 1, shutdown_timeout, ..How::default() });
        let body = json!({"prompt": vec!["long"; 200], "max_tokens": 500, "stream": true, "ignore_eos": true});
        let mut c = Client::new(s.address);
        c.send(post("/v1/completions", &body.to_string(), "").as_bytes());
        s.until("begun", || s.stats().running > 0);
        s.ask_to_stop();
        if twice {
            s.ask_to_stop();
        }
        let answer = c.answer().unwrap();
        assert!(answer.whole && answer.body.contains("\"error\""), "{}", answer.body);
        assert_eq!(s.ended(), Ended::Cut(1));
    }
}

#[test]
fn answers_that_take_too_long_are_errors() {
    let s = Server::start(How { slots: 1, request_timeout: Some(Duration::from_millis(100)), ..How::default() });
    let body =
        |stream: bool| json!({"prompt": vec!["long"; 60], "max_tokens": 500, "stream": stream, "ignore_eos": true});
    let whole = s.complete(body(false));
    assert_eq!((whole.status, whole.json()["error"]["code"].as_str()), (504, Some("timeout")), "{}", whole.body);
    let stream = s.complete(body(true));
    assert!(stream.events().iter().any(|e| e["error"]["code"] == "timeout"));
    s.until("idle", || s.stats().running == 0 && s.stats().waiting == 0);
    assert!(s.stats().finished.deadline > 0);
    // On a busy machine even a short one may take too long.
    s.until("answered", || s.complete(json!({"prompt": "short", "max_tokens": 1})).status == 200);
}
