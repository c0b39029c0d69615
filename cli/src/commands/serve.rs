//! `lolm serve`: a model behind OpenAI's routes.
use crate::chat::ChatTemplate;
use crate::device::{Opened, Where};
use crate::output::{note, say};
use crate::run_folder::load_serving;
use crate::serve::{App, Ended, Keys, Limits, Loaded, Log, is_local, now, run, stop_at_signals};
use crate::tokenizer::Tokenizer;
use crate::training;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use lolm_runtime::serve::{Engine, Options};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The environment's API key, which no list of processes shows.
const KEY: &str = "LOLM_API_KEY";

/// Serve a model over HTTP, with OpenAI's routes
#[derive(Args, Clone, Debug)]
pub struct Serve {
    /// The folder of a run or of a model, or an artifact
    model: PathBuf,
    /// Where to listen; anything but this machine itself needs an API key
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    host: String,
    /// 0 for any that is free
    #[arg(long, default_value_t = 8000, value_name = "N")]
    port: u16,
    /// A key that clients show as `Authorization: Bearer KEY`; may be given again. LOLM_API_KEY in the environment is one too
    #[arg(long, value_name = "KEY")]
    api_key: Vec<String>,
    /// A file with a key a line
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// What clients call the model; may be given again [default: the name of the model]
    #[arg(long, value_name = "NAME", num_args = 1..)]
    served_model_name: Vec<String>,
    /// Tokens of prompt and answer together [default: as many as the model was made for]
    #[arg(long, value_name = "N")]
    max_model_len: Option<usize>,
    #[command(flatten)]
    queue: Queue,
    #[command(flatten)]
    patience: Patience,
    /// Bytes of a request
    #[arg(long, default_value = "4M", value_name = "BYTES", value_parser = bytes)]
    max_body_bytes: usize,
    /// Clients that are connected at the same time; others are told to come back
    #[arg(long, default_value_t = 1024, value_name = "N")]
    max_connections: usize,
    /// The temperature of the regime [default: that of training at the checkpoint]
    #[arg(long, value_name = "VALUE")]
    tau: Option<f32>,
    /// The weights, if not those of the newest checkpoint: a safetensors file, or a folder with model.safetensors
    #[arg(long, value_name = "PATH")]
    weights: Option<PathBuf>,
    #[command(flatten)]
    on: Where,
    /// Log how the server fares, but not every request
    #[arg(long)]
    disable_log_requests: bool,
}

/// Who waits, and for what.
#[derive(Args, Clone, Debug)]
pub struct Queue {
    /// Requests that are answered at the same time [default: as many as the artifact was compiled for, or 16]
    #[arg(long, value_name = "N")]
    max_num_seqs: Option<usize>,
    /// Requests that wait for a slot; others are told to come back
    #[arg(long, default_value_t = 256, value_name = "N")]
    max_queued_requests: usize,
    /// Memory for the states after prompts, from which others with the same beginning go on; 0 keeps none
    #[arg(long, default_value = "256M", value_name = "BYTES", value_parser = bytes)]
    state_cache_bytes: usize,
}

/// How long things may take, in seconds.
#[derive(Args, Clone, Debug)]
struct Patience {
    /// The longest that an answer may take; 0 for as long as it takes
    #[arg(long, default_value_t = 600.0, value_name = "SECONDS")]
    request_timeout: f64,
    /// For a request to come in, and for a client to take what it is sent
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS")]
    client_timeout: f64,
    /// For answers to come to their end after SIGTERM; a second SIGTERM ends them at once
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS")]
    shutdown_timeout: f64,
}

impl Serve {
    pub fn run(self) -> Result<()> {
        let keys = Keys::new(self.keys()?)?;
        let listener = self.listener(keys.is_empty())?;
        let on = self.on.open()?;
        let (patience, request) = (self.seconds(self.patience.client_timeout)?, self.patience.request_timeout);
        let shutdown = self.seconds(self.patience.shutdown_timeout)?;
        let request_timeout = if request == 0.0 { None } else { Some(self.seconds(request)?) };
        let limits = Limits {
            body: self.max_body_bytes,
            connections: self.max_connections,
            read: patience,
            write: patience,
            ..Limits::default()
        };
        let log = if self.disable_log_requests { Log::Server } else { Log::All };
        let app = Arc::new(App::new(keys, limits, log));
        say(format_args!("listening on http://{}", listener.local_addr()?));
        match run(listener, app, move || self.load(&on, request_timeout), stop_at_signals, shutdown)? {
            Ended::Drained => Ok(()),
            Ended::Cut(n) => bail!("{n} connections were cut off before their answers were whole"),
        }
    }

    fn seconds(&self, seconds: f64) -> Result<Duration> {
        Duration::try_from_secs_f64(seconds).with_context(|| format!("{seconds} is not a number of seconds"))
    }

    fn keys(&self) -> Result<Vec<String>> {
        let mut keys = self.api_key.clone();
        if let Some(path) = &self.api_key_file {
            keys.extend(Keys::read(path)?);
        }
        if let Some(key) = std::env::var_os(KEY).filter(|k| !k.is_empty()) {
            keys.push(key.into_string().ok().with_context(|| format!("{KEY} is not a text"))?);
        }
        Ok(keys)
    }

    /// Listens, unless everyone would be let in from everywhere.
    fn listener(&self, open: bool) -> Result<TcpListener> {
        let (host, port) = (self.host.as_str(), self.port);
        let found = (host, port).to_socket_addrs().with_context(|| format!("{host} is not an address"))?;
        let all: Vec<SocketAddr> = found.collect();
        ensure!(
            !open || all.iter().all(is_local),
            "{host} can be reached from other machines, so an API key is needed: --api-key, --api-key-file, or {KEY}"
        );
        TcpListener::bind(&all[..]).with_context(|| format!("cannot listen on {host}, port {port}"))
    }

    fn load(self, on: &Opened, request_timeout: Option<Duration>) -> Result<Loaded> {
        let mut loaded = loaded(&self.model, self.weights.as_deref(), on, &self.queue, self.max_model_len, self.tau)?;
        if !self.served_model_name.is_empty() {
            loaded.names = self.served_model_name;
        }
        Ok(Loaded { request_timeout, ..loaded })
    }
}

/// A model, and the engine that runs it.
pub fn loaded(
    model: &Path,
    weights: Option<&Path>,
    on: &Opened,
    queue: &Queue,
    max_model_len: Option<usize>,
    tau: Option<f32>,
) -> Result<Loaded> {
    ensure!(queue.max_num_seqs != Some(0), "--max-num-seqs is 0: nothing would be answered");
    let t = load_serving(model, weights, on, queue.max_num_seqs)?;
    let tokenizer = Tokenizer::of(&t.spec, Some(&t.folder))?;
    let chat = ChatTemplate::of(&t.folder, &tokenizer.special);
    if let Err(e) = &chat {
        note(format_args!("note: there will be no chats: {e:#}"));
    }
    let most = t.spec.max_seq_len;
    let max_model_len = max_model_len.unwrap_or(most);
    ensure!(
        (1..=most).contains(&max_model_len),
        "--max-model-len is {max_model_len}, but the model was made for 1 to {most} tokens"
    );
    let options = Options {
        tau: tau.unwrap_or_else(|| training::tau(&t.spec, t.steps)),
        max_queued: queue.max_queued_requests,
        state_cache_bytes: queue.state_cache_bytes,
        ..Options::new(max_model_len)
    };
    let engine = Engine::start(t.model, options)?;
    let (chat, names, created) = (chat.ok(), vec![t.name], now());
    Ok(Loaded { engine, tokenizer, chat, names, max_model_len, request_timeout: None, created })
}

/// A number of bytes: 1048576, 1024K, 1M.
fn bytes(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" | "k" | "KiB" => 10,
        "M" | "m" | "MiB" => 20,
        "G" | "g" | "GiB" => 30,
        _ => return Err("expected a number of bytes, such as 1048576, 64M or 2G".into()),
    };
    let n: usize = digits.parse().map_err(|_| "expected a number of bytes, such as 1048576, 64M or 2G".to_string())?;
    n.checked_mul(1 << shift).ok_or_else(|| "more bytes than there can be".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read() {
        assert_eq!([bytes("0"), bytes("64M"), bytes("2GiB")], [Ok(0), Ok(64 << 20), Ok(2 << 30)]);
        assert!(["", "M", "-1", "1.5M", "1T", "99999999999G"].iter().all(|t| bytes(t).is_err()));
    }
}
