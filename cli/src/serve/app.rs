//! What all connections of a server share: the model once it is there, and the rules.
use super::auth::Keys;
use super::call::Prompt;
use super::errors::Fault;
use super::log::Log;
use super::metrics::Metrics;
use crate::chat::{ChatTemplate, Message};
use crate::tokenizer::Tokenizer;
use lolm_runtime::serve::Engine;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A server.
pub struct App {
    loaded: OnceLock<Arc<Loaded>>,
    draining: AtomicBool,
    pub keys: Keys,
    pub limits: Limits,
    pub metrics: Metrics,
    pub log: Log,
}

/// What a client may take.
#[derive(Clone, PartialEq, Debug)]
pub struct Limits {
    /// Bytes of a body.
    pub body: usize,
    /// Bytes of the head of a request.
    pub head: usize,
    pub connections: usize,
    /// For a head, and for a body, to come.
    pub read: Duration,
    /// For a client to take what was sent to it.
    pub write: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body: 4 << 20,
            head: 16 << 10,
            connections: 1024,
            read: Duration::from_secs(30),
            write: Duration::from_secs(30),
        }
    }
}

/// A model that answers.
pub struct Loaded {
    pub engine: Engine,
    pub tokenizer: Tokenizer,
    pub chat: Option<ChatTemplate>,
    /// What clients may call it; the first is its name.
    pub names: Vec<String>,
    pub max_model_len: usize,
    /// The longest that an answer may take.
    pub request_timeout: Option<Duration>,
    /// Seconds since 1970.
    pub created: u64,
}

impl App {
    pub fn new(keys: Keys, limits: Limits, log: Log) -> App {
        App {
            loaded: OnceLock::new(),
            draining: AtomicBool::new(false),
            keys,
            limits,
            metrics: Metrics::default(),
            log,
        }
    }

    /// The model is there from now on.
    pub fn ready(&self, loaded: Loaded) {
        // There is one model, so a second one would be a bug; the first stays.
        let _ = self.loaded.set(Arc::new(loaded));
    }

    pub fn loaded(&self) -> Result<&Arc<Loaded>, Fault> {
        self.loaded.get().ok_or_else(Fault::loading)
    }

    /// No more answers are begun; those that are go on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        if let Some(loaded) = self.loaded.get() {
            loaded.engine.drain();
        }
    }

    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }
}

impl Loaded {
    pub fn deadline(&self) -> Option<Instant> {
        self.request_timeout.map(|t| Instant::now() + t)
    }

    /// The tokens of a text, which errors call `name`.
    pub fn prompt_of_text(&self, text: &str, special: bool, name: &str) -> Result<Prompt, Fault> {
        let encoded = self.tokenizer.encode(text.as_bytes(), special, &format!("`{name}`"));
        let tokens = encoded.map_err(|e| Fault::field(name, format!("{e:#}")))?;
        self.checked(Prompt { tokens, text: text.into() }, name)
    }

    /// A prompt that comes as tokens already.
    pub fn prompt_of_tokens(&self, tokens: Vec<u32>, name: &str) -> Result<Prompt, Fault> {
        let bytes = self.tokenizer.decode(&tokens).map_err(|e| Fault::field(name, format!("`{name}`: {e:#}")))?;
        self.checked(Prompt { tokens, text: String::from_utf8_lossy(&bytes).into_owned() }, name)
    }

    /// The template says all that stands around the texts, so nothing is added.
    pub fn prompt_of_chat(&self, messages: &[Message]) -> Result<Prompt, Fault> {
        let none = || Fault::field("messages", "the model has no chat template: ask for a completion of a prompt");
        let template = self.chat.as_ref().ok_or_else(none)?;
        let text = template.prompt(messages, SystemTime::now());
        let text = text.map_err(|e| Fault::field("messages", format!("{e:#}")))?;
        self.prompt_of_text(&text, false, "messages")
    }

    fn checked(&self, prompt: Prompt, name: &str) -> Result<Prompt, Fault> {
        let (n, limit) = (prompt.tokens.len(), self.max_model_len);
        match n {
            0 => Err(Fault::field(name, format!("`{name}` is empty: at least one token is needed"))),
            _ if n > limit => {
                let message = format!("`{name}` has {n} tokens, but the context holds {limit}");
                Err(Fault { code: Some("context_length_exceeded"), ..Fault::field(name, message) })
            }
            _ => Ok(prompt),
        }
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
