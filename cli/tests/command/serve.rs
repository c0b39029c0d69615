//! Serving as whoever runs a server meets it: flags, signals, and what measures it.
#![cfg(feature = "serve")]
use crate::support::{Folder, SMALL, prose};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

/// A tiny model that was trained for two steps.
fn run(name: &str) -> Folder {
    let f = Folder::new(name);
    f.write("text.txt", prose(1000));
    f.lolm(&format!("train lolm-demo {SMALL} --max_seq_len 2048 --data text.txt --steps 2 --interval 2 --out run"))
        .ok();
    f
}

/// A server, and where it listens.
fn serve(f: &Folder, more: &[&str]) -> (Child, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lolm"));
    command.args(["serve", "run", "--port", "0", "--max-num-seqs", "2"]).args(more).current_dir(&f.0);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on http://").unwrap_or_else(|| panic!("{line}")).to_string();
    while !ask(&address, "GET /ready HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").starts_with("HTTP/1.1 200") {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    (child, address)
}

/// All that a server sends for a request after which it closes the connection.
fn ask(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut all = vec![];
    stream.read_to_end(&mut all).unwrap();
    String::from_utf8(all).unwrap()
}

fn completion(body: &str) -> String {
    format!(
        "POST /v1/completions HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\nconnection: close\r\n\
         authorization: Bearer sk-1\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn terminate(child: &Child) {
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_signal_drains_a_server() {
    let f = run("serve-drain");
    f.write("keys", "# keys\nsk-1\n");
    let (mut child, address) = serve(&f, &["--api-key-file", "keys"]);
    let secret =
        "{\"prompt\": \"nobody shall read this\", \"max_tokens\": 1500, \"stream\": true, \"ignore_eos\": true}";
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.write_all(completion(secret).as_bytes()).unwrap();
    let mut answer = vec![0; 400];
    stream.read_exact(&mut answer).unwrap();
    terminate(&child);
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.contains("\"finish_reason\":\"length\"") && answer.contains("data: [DONE]"), "{answer}");
    assert!(child.wait().unwrap().success());
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
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
    let (mut child, address) = serve(&f, &[]);
    let prompts = vec!["\"long\""; 400].join(",");
    let body = format!("{{\"prompt\": [{prompts}], \"max_tokens\": 2000, \"stream\": true, \"ignore_eos\": true}}");
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.write_all(completion(&body).as_bytes()).unwrap();
    stream.read_exact(&mut [0; 400]).unwrap();
    terminate(&child);
    std::thread::sleep(std::time::Duration::from_millis(50));
    terminate(&child);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("\"error\""), "the client was not told");
    assert_eq!(child.wait().unwrap().code(), Some(1));
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
