//! Connections: taken up to a number, answered with limits, and brought to their end when the server ends.
use super::app::App;
use super::routes::router;
use super::socket::Patient;
use anyhow::{Context, Result};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Fields in the head of a request.
const MOST_HEADERS: usize = 64;
/// The least that hyper reads a head into.
const LEAST_BUFFER: usize = 8192;
/// Connections beyond the greatest number that are told so at the same time; others are just closed.
const TOLD: usize = 64;
/// After a system that is out of files or memory refused a connection.
const PAUSE: Duration = Duration::from_millis(50);
/// For connections to write their last words after everything was stopped.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How often the server was asked to stop: once lets answers come to their end, twice does not.
pub type Stop = watch::Receiver<u32>;

/// How a server ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// All answers that were begun came to their end.
    Drained,
    /// So many connections were cut off.
    Cut(usize),
}

/// Takes connections until asked to stop, and then goes on with those that are there for up to `shutdown_timeout`.
pub async fn listen(listener: TcpListener, app: Arc<App>, mut stop: Stop, shutdown_timeout: Duration) -> Result<Ended> {
    let server = Connections {
        router: router(app.clone()),
        room: Arc::new(Semaphore::new(app.limits.connections)),
        told: Arc::new(Semaphore::new(TOLD)),
        app: app.clone(),
    };
    let (drain, draining) = watch::channel(false);
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            asked = stop.wait_for(|n| *n > 0) => break drop(asked.context("bug: nobody can stop the server")?),
            Some(_) = open.join_next() => {}
            taken = listener.accept() => server.take(taken.map(|t| t.0), &mut open, &draining).await,
        }
    }
    let facts = json!({"connections": app.metrics.connections(), "timeout_s": shutdown_timeout.as_secs_f64()});
    app.log.server("draining", facts);
    app.drain();
    // The receivers are the connections, and there may be none.
    let _ = drain.send(true);
    // New connections are told that the server ends, so that clients turn elsewhere; nobody waits for them.
    let mut late = JoinSet::new();
    let end = sleep(shutdown_timeout);
    tokio::pin!(end);
    loop {
        tokio::select! {
            biased;
            done = open.join_next() => if done.is_none() { return Ok(Ended::Drained) },
            _ = stop.wait_for(|n| *n > 1) => break,
            () = &mut end => break,
            Some(_) = late.join_next() => {}
            taken = listener.accept() => server.take(taken.map(|t| t.0), &mut late, &draining).await,
        }
    }
    let cut = open.len();
    if let Ok(loaded) = app.loaded().cloned() {
        // It waits for the step that runs.
        tokio::task::spawn_blocking(move || loaded.engine.stop()).await.context("bug: the engine cannot be stopped")?;
    }
    // Whoever still waits is told in a last event, if it listens.
    let _ = timeout(LAST_WORDS, async { while open.join_next().await.is_some() {} }).await;
    Ok(Ended::Cut(cut))
}

/// What connections are made of.
struct Connections {
    app: Arc<App>,
    router: Router,
    room: Arc<Semaphore>,
    told: Arc<Semaphore>,
}

impl Connections {
    /// Takes a connection in, if there is room.
    async fn take(&self, taken: std::io::Result<TcpStream>, open: &mut JoinSet<()>, draining: &watch::Receiver<bool>) {
        let stream = match taken {
            Ok(stream) => stream,
            Err(e) => {
                self.app.log.server("accept", json!({"error": e.to_string()}));
                return sleep(PAUSE).await;
            }
        };
        match self.room.clone().try_acquire_owned() {
            Ok(room) => {
                let serving = serve(self.app.clone(), self.router.clone(), stream, draining.clone());
                open.spawn(async move {
                    serving.await;
                    drop(room);
                });
            }
            Err(_) => {
                self.app.metrics.refused_connection();
                if let Ok(place) = self.told.clone().try_acquire_owned() {
                    tokio::spawn(async move {
                        // Whether it was heard or not, the connection is closed.
                        let _ = timeout(LAST_WORDS, refuse(stream)).await;
                        drop(place);
                    });
                }
            }
        }
    }
}

/// Answers the requests of a connection, one after the other.
async fn serve(app: Arc<App>, router: Router, stream: TcpStream, mut draining: watch::Receiver<bool>) {
    let connected = app.metrics.connected();
    // Tokens go out one by one, and at once. A connection that is gone already will be noticed soon.
    let _ = stream.set_nodelay(true);
    let late = *draining.borrow();
    let io = TokioIo::new(Patient::new(stream, app.limits.write));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(app.limits.read)
        .max_headers(MOST_HEADERS)
        .max_buf_size(app.limits.head.max(LEAST_BUFFER))
        .keep_alive(!late)
        .serve_connection(io, TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = async { draining.wait_for(|on| *on).await.is_ok() }, if !late => {
            connection.as_mut().graceful_shutdown();
            connection.as_mut().await
        }
    };
    if let Err(e) = ended {
        // Clients that go, that are too slow, or that do not speak HTTP.
        app.log.request("connection", json!({"error": e.to_string()}));
    }
    drop(connected);
}

/// Tells a client that there are too many.
async fn refuse(mut stream: TcpStream) -> std::io::Result<()> {
    let body = super::errors::too_many_connections().to_string();
    let head =
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close";
    let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // What the client has sent is read, or its system would throw the answer away.
    let mut sink = [0; 1024];
    while stream.read(&mut sink).await? > 0 {}
    Ok(())
}
