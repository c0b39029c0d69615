//! The server: OpenAI's routes over one model, with limits for whoever asks.
//!
//! The listener is there before the model is, so that whoever watches can tell a server that loads from one that is gone.
//! A request becomes a `Call` (its fields, checked), the call a `Batch` of sequences in the engine's queue, and what comes
//! of them, part by part, the `Choice`s of an answer. If its client goes, an answer is dropped, and with it its sequences.
mod answer;
mod app;
mod auth;
mod batch;
mod body;
mod call;
mod choice;
mod errors;
mod fields;
mod listen;
mod log;
mod logprobs;
mod messages;
mod metrics;
mod part;
mod routes;
mod socket;
mod tokens;

pub use app::{App, Limits, Loaded, now};
pub use auth::Keys;
pub use listen::{Ended, Stop};
pub use log::Log;
pub use metrics::resident;

use anyhow::{Context, Result};
use serde_json::json;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Threads that read prompts: JSON, templates, tokens. More would only take the cores from the model.
const READERS: usize = 4;
/// Threads that talk to clients.
const TALKERS: usize = 2;

/// Serves on this listener until `stop`, which is called within the server's threads, says so: `load` makes the model,
/// meanwhile.
pub fn run(
    listener: TcpListener,
    app: Arc<App>,
    load: impl FnOnce() -> Result<Loaded> + Send + 'static,
    stop: impl FnOnce() -> Result<Stop>,
    shutdown_timeout: Duration,
) -> Result<Ended> {
    let runtime = runtime()?;
    let ended = runtime.block_on(async move {
        let stop = stop()?;
        listener.set_nonblocking(true).context("cannot listen")?;
        let listener = tokio::net::TcpListener::from_std(listener).context("cannot listen")?;
        let listening = listen::listen(listener, app.clone(), stop, shutdown_timeout);
        tokio::pin!(listening);
        let began = Instant::now();
        let mut loading = tokio::task::spawn_blocking(load);
        let loaded = tokio::select! {
            ended = &mut listening => return ended,
            loaded = &mut loading => loaded.context("bug: loading ended without a word")??,
        };
        let stats = loaded.engine.stats();
        let facts = json!({"model": loaded.names[0], "slots": stats.slots, "max_model_len": loaded.max_model_len,
            "state_bytes": stats.state_bytes, "state_cache_bytes": stats.cache.budget_bytes,
            "seconds": began.elapsed().as_secs_f64()});
        app.log.server("ready", facts);
        app.ready(loaded);
        listening.await
    });
    // A model that is still being loaded is not waited for.
    runtime.shutdown_background();
    ended
}

fn runtime() -> Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(TALKERS).max_blocking_threads(READERS).thread_name("serve").enable_all();
    builder.build().context("cannot start the threads of the server")
}

/// Asks for a stop at each signal to end: SIGINT and SIGTERM. Works within the server's threads.
pub fn stop_at_signals() -> Result<Stop> {
    let (asked, stop) = watch::channel(0);
    let heard = |kind| signal(kind).context("cannot listen for signals");
    let (mut terminate, mut interrupt) = (heard(SignalKind::terminate())?, heard(SignalKind::interrupt())?);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            asked.send_modify(|n| *n += 1);
        }
    });
    Ok(stop)
}

/// True of an address that only this machine reaches.
pub fn is_local(address: &SocketAddr) -> bool {
    address.ip().is_loopback()
}
