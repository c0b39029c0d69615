//! Clients without a key, that are too big, too slow, too many, or gone.
use crate::client::{Client, post};
use crate::server::{How, Server};
use lolm::serve::Limits;
use serde_json::json;
use std::time::{Duration, Instant};

/// How often something is tried: `LOLM_TEST_TIMES` times as often as usual.
pub fn times(usual: usize) -> usize {
    usual * std::env::var("LOLM_TEST_TIMES").ok().map_or(1, |n| n.parse::<usize>().unwrap())
}

/// Numbers that look random and are always the same (an LCG; Knuth 1981).
pub fn random() -> impl FnMut(usize) -> usize {
    let mut x = 11u64;
    move |below| {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (x >> 33) as usize % below
    }
}

#[test]
fn a_key_opens_what_has_answers() {
    let s = Server::start(How { keys: vec!["sk-a".into(), "sk-b".into()], ..How::default() });
    let ask = |path: &str, line: &str| {
        let mut c = Client::new(s.address);
        c.send(post(path, r#"{"prompt": "a", "max_tokens": 1}"#, line).as_bytes());
        c.answer().unwrap()
    };
    for path in ["/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize", "/nowhere"] {
        let denied = ask(path, "");
        assert_eq!(denied.status, 401, "{path}");
        assert_eq!(denied.json()["error"]["type"], "authentication_error");
        assert_eq!(denied.header("www-authenticate"), Some("Bearer"));
    }
    assert_eq!(ask("/v1/completions", "authorization: Bearer sk-c\r\n").json()["error"]["code"], "invalid_api_key");
    for key in ["sk-a", "sk-b"] {
        assert_eq!(ask("/v1/completions", &format!("authorization: Bearer {key}\r\n")).status, 200);
    }
    for path in ["/v1/models", "/v1/models/tiny", "/tokenizer_info"] {
        assert_eq!(s.get(path).status, 401, "{path}");
    }
    for path in ["/", "/health", "/ready", "/metrics", "/version"] {
        assert_eq!(s.get(path).status, 200, "{path}");
    }
}

#[test]
fn a_request_keeps_its_name() {
    let s = Server::new();
    let mut c = Client::new(s.address);
    c.send(post("/tokenize", r#"{"prompt": "a"}"#, "x-request-id: mine-1\r\n").as_bytes());
    assert_eq!(c.answer().unwrap().header("x-request-id"), Some("mine-1"));
    let long = format!("x-request-id: {}\r\n", "y".repeat(200));
    c.send(post("/tokenize", r#"{"prompt": "a"}"#, &long).as_bytes());
    assert_eq!(c.answer().unwrap().header("x-request-id").unwrap().len(), 16);
}

fn limited(limits: Limits) -> Server {
    Server::start(How { limits, ..How::default() })
}

#[test]
fn long_requests_are_refused() {
    let s = limited(Limits { body: 1000, ..Limits::default() });
    let long = "x".repeat(2000);
    assert_eq!(s.complete(json!({"prompt": long})).status, 413);
    let mut c = Client::new(s.address);
    let head = "POST /v1/completions HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    c.send(format!("{head}3e8\r\n{}\r\n3e8\r\n", &long[..1000]).as_bytes());
    c.send(&long.as_bytes()[..1000]);
    assert_eq!(c.answer().unwrap().status, 413);
    let mut c = Client::new(s.address);
    c.send(format!("GET /health HTTP/1.1\r\nhost: t\r\nx: {}\r\n\r\n", "y".repeat(40_000)).as_bytes());
    assert_eq!(c.answer().unwrap().status, 431);
    let mut c = Client::new(s.address);
    c.send(format!("GET /health HTTP/1.1\r\nhost: t\r\n{}\r\n", "a: b\r\n".repeat(200)).as_bytes());
    assert_eq!(c.answer().unwrap().status, 431);
    assert_eq!(s.get("/health").status, 200);
}

#[test]
fn slow_clients_are_left() {
    let limit = Duration::from_secs(1);
    // A model this small answers all in a second or two, so who takes nothing is left sooner than that.
    let s = limited(Limits { read: limit, write: limit / 20, ..Limits::default() });
    // Half a head, and then nothing: the connection ends.
    let mut c = Client::new(s.address);
    c.send(b"POST /v1/completions HTTP/1.1\r\nhost:");
    let began = Instant::now();
    let _ = c.answer();
    assert!(began.elapsed() < Duration::from_secs(20));
    // Half a body.
    let mut c = Client::new(s.address);
    c.send(post("/v1/completions", "{\"prompt\": \"a\"}", "").strip_suffix("}").unwrap().as_bytes());
    assert_eq!(c.answer().unwrap().status, 408);
    // Whoever asks for much and takes nothing: what was not taken is thrown away.
    let many: Vec<String> = (0..600).map(|i| format!("prompt {i}")).collect();
    let body = json!({"prompt": many, "max_tokens": 200, "stream": true, "temperature": 1.0, "logprobs": 20, "ignore_eos": true});
    let mut c = Client::new(s.address);
    c.send(post("/v1/completions", &body.to_string(), "").as_bytes());
    s.until("begun", || s.stats().running > 0);
    s.until("given up", || s.stats().running == 0 && s.stats().waiting == 0);
    assert!(s.stats().finished.cancelled > 0);
    assert_eq!(s.get("/health").status, 200);
}

#[test]
fn more_connections_than_allowed_are_told() {
    let s = limited(Limits { connections: 3, ..Limits::default() });
    let (began, mut open) = (Instant::now(), vec![]);
    // A connection that ended may still count for a moment.
    while open.len() < 3 {
        let mut c = Client::new(s.address);
        c.send(b"GET /health HTTP/1.1\r\nhost: t\r\n\r\n");
        open.extend((c.answer().unwrap().status == 200).then_some(c));
        assert!(began.elapsed() < Duration::from_secs(20), "{} of 3 connections were let in", open.len());
    }
    let refused = s.get("/health");
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    assert_eq!(refused.json()["error"]["code"], "too_many_connections");
    open.pop();
    s.until("room", || s.get("/health").status == 200);
}

#[test]
fn clients_that_go_leave_nothing_behind() {
    let s = Server::start(How { queued: 64, ..How::default() });
    let mut random = random();
    for i in 0..times(200) {
        let stream = random(2) == 0;
        let body =
            json!({"prompt": "gone ".repeat(1 + random(40)), "max_tokens": 200, "stream": stream, "n": 1 + random(3)});
        let bytes = post("/v1/completions", &body.to_string(), "");
        let mut c = Client::new(s.address);
        // Somewhere within the request, or somewhere within the answer.
        let cut = if random(4) == 0 { random(bytes.len()) } else { bytes.len() };
        c.send(&bytes.as_bytes()[..cut]);
        if cut == bytes.len() && stream && random(2) == 0 {
            let mut some = vec![0; 1 + random(2000)];
            let _ = std::io::Read::read(&mut c.stream, &mut some);
        } else if random(3) == 0 {
            std::thread::sleep(Duration::from_micros(random(3000) as u64));
        }
        drop(c);
        if i % 64 == 63 {
            s.until("emptied", || s.stats().waiting < 32);
        }
    }
    s.until("idle", || s.stats().running == 0 && s.stats().waiting == 0);
    s.until("alone", || s.get("/metrics").body.contains("lolm:http_connections 1\n"));
    let stats = s.stats();
    assert_eq!((stats.accepted, stats.panics), (stats.finished.all(), 0));
    assert!(stats.finished.cancelled > 0 && stats.finished.failed == 0, "{:?}", stats.finished);
    assert_eq!(stats.held_tokens, 0);
    s.complete(json!({"prompt": "still there", "max_tokens": 3})).ok();
}
