//! A server as a process of its own, and a client that speaks HTTP a request a connection.
use crate::support::{Folder, SMALL, prose};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A tiny model that was trained for two steps.
pub fn run(name: &str) -> Folder {
    let f = Folder::new(name);
    f.write("text.txt", prose(1000));
    f.lolm(&format!("train lolm-demo {SMALL} --max_seq_len 2048 --data text.txt --steps 2 --interval 2 --out run"))
        .ok();
    f
}

/// A server, which does not outlive the test.
pub struct Process {
    child: Child,
    /// Reads its log as it comes, so that it never waits for room to write.
    log: Option<JoinHandle<String>>,
    pub address: String,
}

impl Process {
    /// `lolm serve run` in a folder.
    pub fn serve(f: &Folder, more: &[&str]) -> Process {
        let args = [&["serve", "run", "--port", "0", "--max-num-seqs", "2"], more].concat();
        Process::start(Path::new(env!("CARGO_BIN_EXE_lolm")), &args, &f.0)
    }

    /// Starts a program that serves, and waits until it answers.
    pub fn start(program: &Path, args: &[&str], folder: &Path) -> Process {
        let mut command = Command::new(program);
        command.args(args).current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = Some(std::thread::spawn(move || {
            let mut log = String::new();
            stderr.read_to_string(&mut log).unwrap();
            log
        }));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap_or_default().to_string();
        let mut p = Process { child, log, address };
        let began = Instant::now();
        while !p.ask("GET /ready HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").starts_with("HTTP/1.1 200") {
            if p.child.try_wait().unwrap().is_some() || began.elapsed() > Duration::from_secs(60) {
                let _ = p.child.kill();
                panic!("it does not serve: {line}{}", p.ended().1);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        p
    }

    /// All that it sends for a request after which it closes the connection.
    pub fn ask(&self, request: &str) -> String {
        ask(&self.address, request).unwrap_or_default()
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        assert!(Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap().success());
    }

    /// How it ended, and its log.
    pub fn ended(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, self.log.take().unwrap().join().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It is gone already if its test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All that comes for a request on a connection of its own; none if there is no connection, or nothing comes.
pub fn ask(address: &str, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    // A server that ends may close the connection before it was asked.
    stream.write_all(request.as_bytes()).ok()?;
    let mut all = vec![];
    let end = stream.read_to_end(&mut all);
    (!all.is_empty() || end.is_ok()).then(|| String::from_utf8(all).unwrap()).filter(|all| !all.is_empty())
}

/// A request for a completion, with a key.
pub fn completion(body: &str) -> String {
    format!(
        "POST /v1/completions HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\nconnection: close\r\n\
         authorization: Bearer sk-1\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}
