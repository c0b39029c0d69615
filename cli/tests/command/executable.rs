//! `lolm compile --exe --weights`: one file that serves, and says so when it is damaged.
#![cfg(feature = "serve")]
use crate::process::{Process, completion, run};
use crate::support::SMALL;
use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

/// What it says when it is started and cannot serve.
fn refused(exe: &Path) -> String {
    let out = Command::new(exe).args(["--port", "0"]).output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.starts_with("error: ") && !said.contains("bug"), "{said}");
    said
}

/// Turns over a bit of a file.
fn turn(path: &Path, at: u64) {
    let mut file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 16]).unwrap();
}

#[test]
fn one_file_serves_and_is_refused_when_it_is_damaged() {
    let f = run("executable");
    let exe = f.path("book");
    f.lolm(&format!("compile lolm-demo {SMALL} --max_seq_len 2048 --slots 2 --exe book --weights run")).ok();
    // The same tokens as without a server, and as the folder serves.
    let alone = f.lolm("generate run -p Lorem -n 12 --temp 0.7 --seed 5 --ignore-eos --json").json();
    let body = "{\"prompt\": \"Lorem\", \"max_tokens\": 12, \"temperature\": 0.7, \"seed\": 5, \"ignore_eos\": true, \
                \"logprobs\": 3}";
    let answer = |p: &Process| {
        let answer = p.ask(&completion(body));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
        let choice = serde_json::from_str::<serde_json::Value>(body).unwrap()["choices"][0].clone();
        (choice["text"].clone(), choice["logprobs"].clone())
    };
    let folder = Process::serve(&f, &[]);
    let elsewhere = std::env::temp_dir();
    let one = Process::start(&exe, &["--port", "0"], &elsewhere);
    assert_eq!(answer(&one), answer(&folder));
    assert_eq!(answer(&one).0, alone["text"]);
    one.terminate();
    assert!(one.ended().0.success());

    let whole = std::fs::metadata(&exe).unwrap().len();
    // Of the weights, which come last before the list; of the list; and without its end.
    turn(&exe, whole - 4000);
    assert!(refused(&exe).contains("book is damaged: `model.safetensors` in it does not have its hash any more"));
    turn(&exe, whole - 4000);
    turn(&exe, whole - 100);
    assert!(refused(&exe).contains("its list of files is damaged"));
    turn(&exe, whole - 100);
    OpenOptions::new().write(true).open(&exe).unwrap().set_len(whole - 1).unwrap();
    assert!(refused(&exe).contains("it is damaged, or was cut short"));
}
