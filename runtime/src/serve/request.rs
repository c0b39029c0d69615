//! What a client asks of the engine, and what it gets: events, one after the other, until [`Event::Done`].
use super::backend::Facts;
use crate::generate::{Sampling, SamplingError};
use crate::trace::Trace;
use std::time::Instant;

/// One sequence to go on from.
#[derive(Clone, PartialEq, Debug)]
pub struct Request {
    /// At least one token.
    pub prompt: Vec<u32>,
    /// How many tokens may come; 0 only reads the prompt.
    pub max_tokens: usize,
    pub sampling: Sampling,
    pub penalties: Penalties,
    /// Added to the logits of these tokens, before anything else.
    pub logit_bias: Vec<(u32, f32)>,
    /// Tokens that end the sequence. The last event of a token is of this one.
    pub stop_tokens: Vec<u32>,
    /// So many tokens come before one of those may.
    pub min_tokens: usize,
    /// With each token its log-probability, and those of so many of the most probable ones.
    pub logprobs: Option<usize>,
    /// The same for the tokens of the prompt, of which the first has none. Reads the prompt in full.
    pub prompt_logprobs: Option<usize>,
    /// What the model was like inside at each token.
    pub trace: bool,
    /// Force the gate to this value, from 0 (latent only) to 1 (surface only); otherwise as learned.
    pub gate: Option<f32>,
    /// May start from, and leave behind, states of a common prefix.
    pub cached: bool,
    /// When the answer is of no more use.
    pub deadline: Option<Instant>,
}

impl Default for Request {
    /// Nothing to go on from, and one token of the model's own distribution.
    fn default() -> Self {
        Request {
            prompt: vec![],
            max_tokens: 1,
            sampling: Sampling::default(),
            penalties: Penalties::default(),
            logit_bias: vec![],
            stop_tokens: vec![],
            min_tokens: 0,
            logprobs: None,
            prompt_logprobs: None,
            trace: false,
            gate: None,
            cached: true,
            deadline: None,
        }
    }
}

/// Where the events of a request go; false from it takes the request back.
pub type Sink = Box<dyn FnMut(Event) -> bool + Send>;

impl Request {
    /// Refuses what this model cannot do.
    pub fn check(&self, facts: &Facts) -> Result<(), Refused> {
        let vocab = facts.vocab;
        if self.prompt.is_empty() {
            return Err(Refused::EmptyPrompt);
        }
        if let Some(index) = self.prompt.iter().position(|t| *t as usize >= vocab) {
            return Err(Refused::Token { index, token: self.prompt[index], vocab });
        }
        // The last token that comes out need not go in.
        let (prompt, more, limit) = (self.prompt.len(), self.max_tokens, facts.max_len);
        if prompt.saturating_add(more.saturating_sub(1)) > limit {
            return Err(Refused::TooLong { prompt, more, limit });
        }
        self.sampling.check()?;
        self.penalties.check()?;
        if let Some((token, _)) = self.logit_bias.iter().find(|(t, _)| *t as usize >= vocab) {
            return Err(Refused::Bias { token: *token, vocab });
        }
        if let Some((_, found)) = self.logit_bias.iter().find(|(_, x)| !x.is_finite()) {
            return Err(SamplingError { name: "logit_bias", found: *found, expected: "a finite number" }.into());
        }
        match self.gate {
            Some(_) if !facts.gate => Err(Refused::NoGate),
            Some(g) if !(0.0..=1.0).contains(&g) => {
                Err(SamplingError { name: "gate", found: g, expected: "0 to 1" }.into())
            }
            _ => Ok(()),
        }
    }
}

/// What is taken from the logits of tokens that were there before, as OpenAI and Hugging Face define them.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Penalties {
    /// Taken once from each token that was generated.
    pub presence: f32,
    /// Taken for each time that a token was generated.
    pub frequency: f32,
    /// Divides positive logits, and multiplies negative ones, of tokens of prompt and answer; 1 changes nothing.
    pub repetition: f32,
}

impl Default for Penalties {
    fn default() -> Self {
        Penalties { presence: 0.0, frequency: 0.0, repetition: 1.0 }
    }
}

impl Penalties {
    pub fn check(&self) -> Result<(), SamplingError> {
        let ok = |fits, name, found, expected| if fits { Ok(()) } else { Err(SamplingError { name, found, expected }) };
        let (p, f, r) = (self.presence, self.frequency, self.repetition);
        ok(p.is_finite(), "presence_penalty", p, "a finite number")?;
        ok(f.is_finite(), "frequency_penalty", f, "a finite number")?;
        ok(r.is_finite() && r > 0.0, "repetition_penalty", r, "more than 0")
    }
}

/// What comes of a request, in this order: one start, the prompt if its log-probabilities were asked for, tokens, one end.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// A slot was free. So many tokens of the prompt need not be read, since the states after them were kept.
    Started {
        cached_tokens: usize,
    },
    /// One entry for each token of the prompt.
    Prompt(Vec<Token>),
    Token(Token),
    Done(Finish),
}

/// A token and what was asked for with it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Token {
    pub id: u32,
    /// Its log-probability as the model gives it, before temperature, bias and penalties.
    pub logprob: Option<f32>,
    /// One more than there are tokens of a greater probability, where log-probabilities were asked for.
    pub rank: Option<u32>,
    /// The most probable tokens, in descending order, equal ones by token. A token that is the first of them has exactly
    /// the first log-probability.
    pub top: Vec<(u32, f32)>,
    /// What the model was like at the token before this one, from whose logits this one was chosen.
    pub trace: Option<Trace>,
}

/// Why a sequence ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finish {
    /// As many tokens as were asked for, or the context is full.
    Length,
    /// One of the stop tokens came.
    Stop,
    /// The client went, or took back what it asked for.
    Cancelled,
    /// The deadline passed, in the queue or later.
    Deadline,
    /// The engine ended, or its device failed; the sentence says which.
    Failed(String),
}

/// Why a request is not taken.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Refused {
    #[error("the prompt is empty: at least one token is needed")]
    EmptyPrompt,
    #[error("token {index} of the prompt is {token}, but the vocabulary has {vocab} entries")]
    Token { index: usize, token: u32, vocab: usize },
    #[error("the prompt has {prompt} tokens and {more} more may come, but the context holds {limit}")]
    TooLong { prompt: usize, more: usize, limit: usize },
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    #[error("logit_bias names token {token}, but the vocabulary has {vocab} entries")]
    Bias { token: u32, vocab: usize },
    #[error("the model has no gate that could be forced")]
    NoGate,
    #[error("{waiting} requests are waiting already: try again in {seconds} s")]
    Full {
        waiting: usize,
        /// About how long they will wait, as those before them went.
        seconds: u64,
    },
    #[error("the server is shutting down and takes no more requests")]
    Draining,
    #[error("the engine has stopped: {0}")]
    Stopped(String),
}
