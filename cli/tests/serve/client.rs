//! A client that speaks HTTP by itself, so that it can also speak it badly.
use crate::server::Server;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// An answer.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    pub status: u16,
    /// Lines of the head, names in small letters.
    pub head: Vec<(String, String)>,
    pub body: String,
    /// The body came to its end.
    pub whole: bool,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        assert!(self.whole, "{}", self.body);
        self.json()
    }
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
    /// The data of the events of a stream, which ends as it should.
    pub fn events(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", self.body);
        assert!(self.whole, "{}", self.body);
        let rest = self.body.strip_suffix("data: [DONE]\n\n").unwrap_or_else(|| panic!("no end: {}", self.body));
        let events = rest.split_terminator("\n\n").filter(|e| !e.starts_with(':'));
        events.map(|e| serde_json::from_str(e.strip_prefix("data: ").unwrap()).unwrap()).collect()
    }
    /// The text of one choice of a stream.
    pub fn streamed(&self, choice: u64) -> String {
        let choices = self.events().into_iter().flat_map(|e| e["choices"].as_array().unwrap().clone());
        let mine = choices.filter(|c| c["index"] == choice);
        mine.map(|c| c["text"].as_str().or(c["delta"]["content"].as_str()).unwrap_or("").to_string()).collect()
    }
}

/// A connection.
pub struct Client {
    pub stream: BufReader<TcpStream>,
}

impl Client {
    pub fn new(to: SocketAddr) -> Client {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream: BufReader::new(stream) }
    }

    /// Sends bytes as they are; false if the other side is gone.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.get_mut().write_all(bytes).is_ok()
    }

    pub fn post(&mut self, path: &str, body: &str) -> Option<Answer> {
        self.send(post(path, body, "").as_bytes());
        self.answer()
    }

    /// Reads an answer; none if the connection ends before its head does.
    pub fn answer(&mut self) -> Option<Answer> {
        let status = self.line()?.split(' ').nth(1)?.parse().ok()?;
        let mut head = vec![];
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':')?;
            head.push((name.to_ascii_lowercase(), value.trim().to_string()));
        }
        let mut answer = Answer { status, head, body: String::new(), whole: false };
        let (body, whole) = match answer.header("transfer-encoding") {
            Some(_) => self.chunks(),
            None => self.exactly(answer.header("content-length").map_or(0, |n| n.parse().unwrap())),
        };
        answer.body = String::from_utf8(body).unwrap();
        answer.whole = whole;
        Some(answer)
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let n = self.stream.read_line(&mut line).ok()?;
        (n > 0).then(|| line.trim_end().to_string())
    }

    fn exactly(&mut self, n: usize) -> (Vec<u8>, bool) {
        let mut body = vec![0; n];
        let whole = self.stream.read_exact(&mut body).is_ok();
        (body, whole)
    }

    fn chunks(&mut self) -> (Vec<u8>, bool) {
        let mut body = vec![];
        loop {
            let Some(size) = self.line().and_then(|l| usize::from_str_radix(&l, 16).ok()) else { return (body, false) };
            let (chunk, whole) = self.exactly(size);
            body.extend(chunk);
            if !whole || self.line().is_none() {
                return (body, false);
            }
            if size == 0 {
                return (body, true);
            }
        }
    }
}

/// The bytes of a request; `more` are further lines of its head.
pub fn post(path: &str, body: &str, more: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n{more}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

impl Server {
    pub fn get(&self, path: &str) -> Answer {
        let mut client = Client::new(self.address);
        client.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes());
        client.answer().unwrap()
    }

    /// A request on a connection of its own.
    pub fn post(&self, path: &str, body: Value) -> Answer {
        Client::new(self.address).post(path, &body.to_string()).unwrap()
    }

    pub fn complete(&self, body: Value) -> Answer {
        self.post("/v1/completions", body)
    }
    pub fn chat(&self, body: Value) -> Answer {
        self.post("/v1/chat/completions", body)
    }
}
