//! What comes of one sequence: the engine's events, with the text of each token.
use super::app::Loaded;
use super::metrics::Metrics;
use crate::tokenizer::Text;
use lolm_runtime::serve::{Event, Finish, Token};
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

/// A step of an answer.
#[derive(Clone, PartialEq, Debug)]
pub enum Part {
    Started {
        cached: usize,
    },
    Prompt(Vec<Token>),
    /// A token, and what is certain of the text since the last one.
    Token {
        text: String,
        token: Token,
    },
    /// The rest of the text, and why it ends.
    End {
        text: String,
        finish: Finish,
    },
}

/// What the engine calls for a sequence, on its own thread: it decides where the text ends, so that not one token more is
/// computed, and gives everything on. No more than the model's context comes of a sequence, so nothing grows without end.
pub struct Sink {
    key: usize,
    to: UnboundedSender<(usize, Part)>,
    loaded: Arc<Loaded>,
    text: Text,
    metrics: Metrics,
    ended: bool,
}

impl Sink {
    pub fn new(
        key: usize,
        to: UnboundedSender<(usize, Part)>,
        loaded: Arc<Loaded>,
        text: Text,
        metrics: Metrics,
    ) -> Sink {
        Sink { key, to, loaded, text, metrics, ended: false }
    }

    /// Takes an event; false if no more are wanted.
    pub fn take(&mut self, event: Event) -> bool {
        match event {
            _ if self.ended => false,
            Event::Started { cached_tokens } => self.send(Part::Started { cached: cached_tokens }),
            Event::Prompt(tokens) => self.send(Part::Prompt(tokens)),
            Event::Token(token) => self.token(token),
            Event::Done(finish) => self.end(finish),
        }
    }

    fn token(&mut self, token: Token) -> bool {
        match self.text.push(&self.loaded.tokenizer, token.id) {
            Ok(text) => {
                let heard = self.send(Part::Token { text, token });
                if self.text.found() {
                    self.metrics.ended_by_text();
                    return self.end(Finish::Stop);
                }
                heard
            }
            Err(e) => self.end(Finish::Failed(format!("bug: {e:#}"))),
        }
    }

    fn end(&mut self, finish: Finish) -> bool {
        self.ended = true;
        let text = self.text.finish();
        self.send(Part::End { text, finish });
        false
    }

    /// False if nobody listens.
    fn send(&self, part: Part) -> bool {
        self.to.send((self.key, part)).is_ok()
    }
}

impl Drop for Sink {
    /// An engine that goes without a word leaves nobody waiting.
    fn drop(&mut self) {
        if !self.ended {
            self.end(Finish::Failed("the engine gave it up".into()));
        }
    }
}
