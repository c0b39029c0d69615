//! A client of a server: asks, and notes when what comes.
use anyhow::{Context, Result, bail, ensure};
use axum::body::{Body, Bytes};
use hyper::client::conn::http1::handshake;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_stream::StreamExt;

/// For a server to load its model.
const LOADING: Duration = Duration::from_secs(300);

/// A server.
pub struct Target {
    /// Host and port.
    host: String,
    key: Option<String>,
}

/// What came of a request, in seconds.
#[derive(Default)]
pub struct Asked {
    pub refused: bool,
    pub tokens: u64,
    pub cached: u64,
    pub first: Option<f64>,
    pub between: Vec<f64>,
    pub whole: f64,
}

impl Target {
    pub fn new(url: &str, key: Option<String>) -> Result<Target> {
        let rest = url.strip_prefix("http://").with_context(|| format!("{url} does not begin with http://"))?;
        let host = rest.trim_end_matches('/');
        ensure!(!host.is_empty() && !host.contains('/'), "{url} is more than http://HOST:PORT");
        let host = if host.contains(':') { host.into() } else { format!("{host}:80") };
        Ok(Target { host, key })
    }

    /// A request on a connection of its own.
    async fn send(&self, method: Method, path: &str, body: String) -> Result<Response<Body>> {
        let stream = TcpStream::connect(&self.host).await.with_context(|| format!("cannot reach {}", self.host))?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        // It ends with the answer, which says what went wrong.
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.host);
        request = request.header(CONTENT_TYPE, "application/json");
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        }
        Ok(sender.send_request(request.body(Body::from(body))?).await?.map(Body::new))
    }

    async fn whole(&self, path: &str) -> Result<(StatusCode, Value)> {
        let response = self.send(Method::GET, path, String::new()).await?;
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 24).await?;
        Ok((status, serde_json::from_slice(&body).with_context(|| format!("{path} of {} is not JSON", self.host))?))
    }

    /// Entries of the vocabulary, once the model is loaded.
    pub async fn vocabulary(&self) -> Result<usize> {
        let began = Instant::now();
        while self.whole("/ready").await?.0 != StatusCode::OK {
            ensure!(began.elapsed() < LOADING, "{} is not ready within {} s", self.host, LOADING.as_secs());
            sleep(Duration::from_millis(50)).await;
        }
        let (status, info) = self.whole("/tokenizer_info").await?;
        let size = info["vocab_size"].as_u64();
        size.map(|n| n as usize).with_context(|| format!("{} says {status} to /tokenizer_info: {info}", self.host))
    }

    /// Asks for a stream and waits for its end.
    pub async fn ask(&self, body: String) -> Result<Asked> {
        let began = Instant::now();
        let response = self.send(Method::POST, "/v1/completions", body).await?;
        let status = response.status();
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Ok(Asked { refused: true, ..Asked::default() });
        }
        let (mut chunks, mut events, mut out) =
            (response.into_body().into_data_stream(), Events::default(), Asked::default());
        let mut last = began;
        while let Some(chunk) = chunks.next().await {
            let now = Instant::now();
            for event in events.push(&chunk?) {
                ensure!(status == StatusCode::OK && event.get("error").is_none(), "the server says {status}: {event}");
                if let Some(usage) = event.get("usage").filter(|u| !u.is_null()) {
                    out.tokens = usage["completion_tokens"].as_u64().unwrap_or(0);
                    out.cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0);
                } else if event["choices"][0]["finish_reason"].is_null() {
                    let since = (now - last).as_secs_f64();
                    if out.first.is_some() {
                        out.between.push(since)
                    } else {
                        out.first = Some(since)
                    }
                    last = now;
                }
            }
        }
        ensure!(status == StatusCode::OK, "the server says {status}: {}", events.rest());
        if !events.done {
            bail!("an answer ended early");
        }
        out.whole = began.elapsed().as_secs_f64();
        Ok(out)
    }
}

/// Server-sent events out of the chunks in which they come.
#[derive(Default)]
struct Events {
    rest: Vec<u8>,
    done: bool,
}

impl Events {
    fn push(&mut self, chunk: &Bytes) -> Vec<Value> {
        self.rest.extend_from_slice(chunk);
        let mut out = vec![];
        while let Some(end) = self.rest.windows(2).position(|w| w == b"\n\n") {
            let event: Vec<u8> = self.rest.drain(..end + 2).collect();
            match event.strip_prefix(b"data: ").map(|d| d.trim_ascii()) {
                Some(b"[DONE]") => self.done = true,
                Some(data) => out.extend(serde_json::from_slice::<Value>(data).ok()),
                None => {}
            }
        }
        out
    }

    fn rest(&self) -> String {
        String::from_utf8_lossy(&self.rest).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_any_pieces() {
        let all = b": waiting\n\ndata: {\"a\":1}\n\ndata: {\"a\":2}\n\ndata: [DONE]\n\n";
        for cut in 0..all.len() {
            let mut e = Events::default();
            let mut out = e.push(&Bytes::copy_from_slice(&all[..cut]));
            out.extend(e.push(&Bytes::copy_from_slice(&all[cut..])));
            assert_eq!((out.len(), e.done, e.rest.len()), (2, true, 0), "cut at {cut}");
        }
    }

    #[test]
    fn a_server_is_named_by_host_and_port() {
        assert_eq!(Target::new("http://127.0.0.1:8000/", None).unwrap().host, "127.0.0.1:8000");
        assert_eq!(Target::new("http://gate", None).unwrap().host, "gate:80");
        assert!(["https://a", "a:80", "http://", "http://a/v1"].iter().all(|u| Target::new(u, None).is_err()));
    }
}
