//! Serving as whoever runs a server meets it: flags, signals, and what measures it.
#![cfg(feature = "serve")]
use crate::process::{Process, ask, completion, run};
use crate::support::SMALL;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[test]
fn a_signal_drains_a_server() {
    let f = run("serve-drain");
    f.write("keys", "# keys\nsk-1\n");
    let p = Process::serve(&f, &["--api-key-file", "keys"]);
    let secret =
        "{\"prompt\": \"nobody shall read this\", \"max_tokens\": 1500, \"stream\": true, \"ignore_eos\": true}";
    let mut stream = TcpStream::connect(&p.address).unwrap();
    stream.write_all(completion(secret).as_bytes()).unwrap();
    let mut answer = vec![0; 400];
    stream.read_exact(&mut answer).unwrap();
    p.terminate();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.contains("\"finish_reason\":\"length\"") && answer.contains("data: [DONE]"), "{answer}");
    let (status, log) = p.ended();
    assert!(status.success());
    let lines = log.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
    let events: Vec<String> = lines.map(|l| l["event"].as_str().unwrap().to_string()).collect();
    for event in ["ready", "request", "draining", "answer"] {
        assert!(events.iter().any(|e| e == event), "{event}: {log}");
    }
    assert!(!log.contains("nobody shall read this") && !log.contains("sk-1"), "{log}");
}

#[test]
fn a_second_signal_ends_a_server() {
    let f = run("serve-stop");
    let p = Process::serve(&f, &[]);
    let prompts = vec!["\"long\""; 400].join(",");
    let body = format!("{{\"prompt\": [{prompts}], \"max_tokens\": 2000, \"stream\": true, \"ignore_eos\": true}}");
    let mut stream = TcpStream::connect(&p.address).unwrap();
    stream.write_all(completion(&body).as_bytes()).unwrap();
    stream.read_exact(&mut [0; 400]).unwrap();
    p.terminate();
    std::thread::sleep(Duration::from_millis(50));
    p.terminate();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("\"error\""), "the client was not told");
    assert_eq!(p.ended().0.code(), Some(1));
}

/// Twenty servers that are asked to end while clients stream: every answer that began is whole, what did not begin was
/// refused, and each process says that all went well.
#[test]
fn signals_under_load_cut_no_answer() {
    const TOKENS: usize = 40;
    let f = run("serve-signals");
    // Compiled once, so that a server takes little time to start.
    f.lolm(&format!("compile lolm-demo {SMALL} --max_seq_len 2048 --slots 2 -o run/model.lolm")).ok();
    let whole = AtomicUsize::new(0);
    for round in 0..20 {
        // Two have a slot, two wait, and one finds no room.
        let p = Process::serve(&f, &["--max-queued-requests", "2", "--disable-log-requests"]);
        let clients: Vec<_> = (0..5)
            .map(|i| {
                let (address, stream) = (p.address.clone(), i % 2 == 0);
                let body = format!(
                    "{{\"prompt\": \"long\", \"max_tokens\": {TOKENS}, \"stream\": {stream}, \"ignore_eos\": true}}"
                );
                std::thread::spawn(move || {
                    let mut answers = vec![];
                    // At last nobody is there any more.
                    while let Some(answer) = ask(&address, &completion(&body)) {
                        answers.push((stream, answer));
                    }
                    answers
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(20 + 7 * round % 50));
        p.terminate();
        for (stream, answer) in clients.into_iter().flat_map(|c| c.join().unwrap()) {
            match &answer[..answer.len().min(12)] {
                "HTTP/1.1 200" => {
                    let pieces = answer.matches("\"text\":").count();
                    let ended = answer.contains("\"finish_reason\":\"length\"") && !answer.contains("\"error\"");
                    let last = if stream { answer.contains("data: [DONE]") } else { pieces == 1 };
                    let counted = stream || answer.contains(&format!("\"completion_tokens\":{TOKENS}"));
                    assert!(ended && last && counted, "round {round}: {answer}");
                    whole.fetch_add(1, Ordering::Relaxed);
                }
                "HTTP/1.1 503" | "HTTP/1.1 429" => assert!(answer.contains("retry-after"), "round {round}: {answer}"),
                _ => panic!("round {round}: {answer}"),
            }
        }
        let (status, log) = p.ended();
        assert!(status.success(), "round {round}: {log}");
    }
    assert!(whole.into_inner() >= 20);
}

#[test]
fn servers_are_started_with_care_and_measured() {
    let f = run("serve-flags");
    f.lolm("serve run --host 0.0.0.0 --port 0").fails(&["0.0.0.0 can be reached from other machines", "--api-key"]);
    f.lolm("serve run --port 0 --api-key-file none").fails(&["cannot read none"]);
    f.lolm("serve nowhere --port 0").fails(&["nowhere is not an artifact"]);
    f.lolm("serve run --port 0 --max-model-len 9999").fails(&["the model was made for 1 to 2048 tokens"]);
    let report = f.lolm("bench serve run --concurrency 3 --requests 6 -p 8 -n 5 --distinct 1 --json").json();
    assert_eq!((report["answered"].as_u64(), report["refused"].as_u64()), (Some(6), Some(0)));
    assert!(report["tokens_per_second"].as_f64().unwrap() > 0.0, "{report}");
    assert!(report["first_token"]["p50"].as_f64().unwrap() > 0.0, "{report}");
    let table = f.lolm("bench serve run --concurrency 2 --rate 200 --requests 4 -p 8 -n 5").ok();
    assert!(table.contains("4 answers of 5 tokens") && table.contains("first token"), "{table}");
    f.lolm("bench serve --url https://x").fails(&["does not begin with http://"]);
}
