//! Many clients at the same time.
use crate::client::Client;
use crate::hostile::{random, times};
use crate::server::{How, Server};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

fn body(i: usize, stream: bool) -> Value {
    let (prompt, n) = (format!("client {i} says {}", "so ".repeat(i % 7)), 8 + i % 23);
    json!({"prompt": prompt, "max_tokens": n, "temperature": 0.9, "seed": i, "stream": stream})
}

#[test]
fn each_of_many_answers_is_what_it_would_be_alone() {
    let s = Server::new();
    let clients = 32 * times(1).min(8);
    let answer = |i: usize| s.complete(body(i, true)).streamed(0);
    let together: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|i| scope.spawn(move || answer(i))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    for (i, text) in together.into_iter().enumerate() {
        let mut alone = body(i, false);
        alone["lolm"] = json!({"cache": false});
        assert_eq!(text, s.complete(alone).ok()["choices"][0]["text"].as_str().unwrap(), "client {i}");
    }
}

#[test]
fn a_full_queue_says_when_to_come_back() {
    let s = Server::start(How { slots: 1, queued: 2, ..How::default() });
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let ask = || {
            let answer = s.complete(json!({"prompt": "a", "max_tokens": 300, "seed": 1, "ignore_eos": true}));
            if answer.status == 429 {
                assert_eq!(answer.header("retry-after"), Some("1"));
                assert_eq!(answer.json()["error"]["type"], "rate_limit_error");
            }
            answer.status
        };
        let threads: Vec<_> = (0..24).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(statuses.iter().all(|s| [200, 429].contains(s)), "{statuses:?}");
    assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
    assert_eq!(s.stats().full as usize, statuses.iter().filter(|s| **s == 429).count());
}

/// Ten times as many clients as there is room for, for a second, or for `LOLM_TEST_SECONDS`.
#[test]
fn overload_is_refused_and_memory_stays() {
    let seconds: f64 = std::env::var("LOLM_TEST_SECONDS").ok().map_or(1.0, |n| n.parse().unwrap());
    let s = Server::start(How { slots: 4, queued: 4, cache_bytes: 1 << 16, ..How::default() });
    let (ok, busy, began) = (AtomicUsize::new(0), AtomicUsize::new(0), Instant::now());
    let memory = || lolm::serve::resident().unwrap();
    let mut seen = vec![];
    std::thread::scope(|scope| {
        for i in 0..80 {
            let (s, ok, busy) = (&s, &ok, &busy);
            scope.spawn(move || {
                let (mut random, mut c) = (random(), Client::new(s.address));
                (0..i).for_each(|_| _ = random(2));
                while began.elapsed().as_secs_f64() < seconds {
                    let stream = random(2) == 0;
                    let answer = c.post("/v1/completions", &body(random(1000), stream).to_string()).unwrap();
                    match (answer.status, stream) {
                        (200, true) => drop(answer.events()),
                        (200, false) => drop(answer.ok()),
                        (429, _) => drop(busy.fetch_add(1, SeqCst)),
                        other => panic!("{other:?}: {}", answer.body),
                    }
                    if answer.status == 200 {
                        ok.fetch_add(1, SeqCst);
                    } else {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            });
        }
        while began.elapsed().as_secs_f64() < seconds {
            std::thread::sleep(Duration::from_secs_f64(seconds / 20.0));
            seen.push(memory());
        }
    });
    let (ok, busy) = (ok.into_inner(), busy.into_inner());
    assert!(ok > 0 && busy > 0, "{ok} answers, {busy} refusals");
    // The first quarter is for threads and buffers to come into being.
    let later = &seen[seen.len() / 4..];
    let (least, most) = (later.iter().min().unwrap(), later.iter().max().unwrap());
    println!("{ok} answers, {busy} refusals, memory {least} to {most} bytes");
    assert!(most - least < least / 20 + (4 << 20), "memory grew from {least} to {most}: {seen:?}");
    s.until("idle", || s.stats().running == 0 && s.stats().waiting == 0);
}
