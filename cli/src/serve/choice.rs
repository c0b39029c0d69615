//! One choice of an answer as it grows, and how it is written in either form: whole, or what came since the last chunk.
use super::app::Loaded;
use super::call::{Call, Form};
use super::errors::Fault;
use super::logprobs::{self, Entry, chat, completion};
use super::part::Part;
use crate::tokenizer::Characters;
use crate::trace;
use lolm_runtime::serve::{Finish, Token};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// A choice and what of it was not written yet.
pub struct Choice {
    index: usize,
    call: Arc<Call>,
    loaded: Arc<Loaded>,
    text: String,
    entries: Vec<Entry>,
    traces: Vec<Value>,
    /// What was asked for of the prompt.
    prompt: Value,
    /// The sum of the tokens' log-probabilities, where they are known.
    logprob: f64,
    /// A chunk was written, so that the next one does not say again who speaks.
    begun: bool,
    /// Characters of all tokens so far, which say where in the text a token begins.
    characters: Characters,
    offset: usize,
    pub finish: Option<Finish>,
    /// Tokens that were generated.
    pub tokens: usize,
    /// Tokens of the prompt that needed no reading.
    pub cached: usize,
}

impl Choice {
    pub fn new(index: usize, call: &Arc<Call>, loaded: &Arc<Loaded>) -> Choice {
        Choice {
            index,
            call: call.clone(),
            loaded: loaded.clone(),
            text: String::new(),
            entries: vec![],
            traces: vec![],
            prompt: Value::Null,
            logprob: 0.0,
            begun: false,
            characters: Characters::default(),
            offset: 0,
            finish: None,
            tokens: 0,
            cached: 0,
        }
    }

    /// Takes the next part in.
    pub fn take(&mut self, part: Part) -> Result<(), Fault> {
        match part {
            Part::Started { cached } => {
                self.cached = cached;
                if self.call.echo {
                    self.text += &self.call.prompts[self.index / self.call.best_of].text;
                }
            }
            Part::Prompt(tokens) => {
                if let Some(top) = self.call.prompt_logprobs {
                    self.prompt = logprobs::prompt(&self.loaded.tokenizer, &tokens, top).map_err(unspelt)?;
                }
                if self.call.echo {
                    tokens.iter().try_for_each(|t| self.entry(t))?;
                }
            }
            Part::Token { text, token } => {
                self.tokens += 1;
                self.logprob += f64::from(token.logprob.unwrap_or(0.0));
                if self.call.request.trace {
                    self.traces.push(trace::token(token.id, &text, token.logprob, token.trace.as_ref()));
                }
                self.entry(&token)?;
                self.text += &text;
            }
            Part::End { text, finish } => {
                self.text += &text;
                self.finish = Some(finish);
            }
        }
        Ok(())
    }

    /// Notes the log-probabilities of a token, if they are asked for.
    fn entry(&mut self, token: &Token) -> Result<(), Fault> {
        let Some(top) = self.call.request.logprobs else { return Ok(()) };
        let tokenizer = &self.loaded.tokenizer;
        self.entries.push(Entry::of(tokenizer, token, top, self.offset).map_err(unspelt)?);
        let bytes = tokenizer.bytes(token.id).map_err(unspelt)?;
        self.offset += self.characters.push(bytes).chars().count();
        Ok(())
    }

    /// What the prompt's log-probabilities are in a chat, which tells them once.
    pub fn prompt(&mut self) -> Value {
        std::mem::take(&mut self.prompt)
    }

    /// The mean of the tokens' log-probabilities, by which the best of several are found.
    fn mean(&self) -> f64 {
        self.logprob / self.tokens.max(1) as f64
    }

    fn reason(&self) -> Value {
        match &self.finish {
            None => Value::Null,
            Some(Finish::Length) => "length".into(),
            Some(Finish::Stop) => "stop".into(),
            Some(Finish::Cancelled | Finish::Deadline) => "abort".into(),
            Some(Finish::Failed(_)) => "error".into(),
        }
    }

    fn logprobs(&mut self) -> Value {
        let entries = std::mem::take(&mut self.entries);
        match (self.call.request.logprobs, self.call.form) {
            (None, _) => Value::Null,
            (Some(_), Form::Completion) => completion(entries),
            (Some(_), Form::Chat) => chat(entries),
        }
    }

    /// What both forms and both manners share.
    fn base(&mut self) -> Map<String, Value> {
        let mut out = Map::new();
        out.insert("index".into(), self.index.into());
        out.insert("logprobs".into(), self.logprobs());
        out.insert("finish_reason".into(), self.reason());
        if self.call.request.trace {
            out.insert("lolm".into(), json!({"tokens": std::mem::take(&mut self.traces)}));
        }
        if self.call.prompt_logprobs.is_some() && self.call.form == Form::Completion {
            out.insert("prompt_logprobs".into(), self.prompt());
        }
        out
    }

    /// All of it.
    pub fn whole(mut self) -> Value {
        let mut out = self.base();
        let text = std::mem::take(&mut self.text);
        match self.call.form {
            Form::Completion => out.insert("text".into(), text.into()),
            Form::Chat => out.insert("message".into(), json!({"role": "assistant", "content": text, "refusal": null})),
        };
        Value::Object(out)
    }

    /// What came since the last chunk, if anything did that is to be seen.
    pub fn chunk(&mut self) -> Option<Value> {
        let first = !std::mem::replace(&mut self.begun, true);
        let role = first && self.call.form == Form::Chat;
        let seen = !self.text.is_empty() || !self.entries.is_empty() || !self.traces.is_empty();
        if !(seen || role || self.finish.is_some()) {
            return None;
        }
        let mut out = self.base();
        let text = std::mem::take(&mut self.text);
        match self.call.form {
            Form::Completion => out.insert("text".into(), text.into()),
            Form::Chat => {
                let mut delta = Map::new();
                if role {
                    delta.insert("role".into(), "assistant".into());
                }
                if role || !text.is_empty() {
                    delta.insert("content".into(), text.into());
                }
                out.insert("delta".into(), delta.into())
            }
        };
        Some(Value::Object(out))
    }
}

/// Of the choices of each prompt those with the most probable tokens, the best one first, numbered anew.
pub fn best(choices: Vec<Choice>, call: &Call) -> Vec<Choice> {
    if call.best_of == call.n {
        return choices;
    }
    let mut out: Vec<Choice> = Vec::with_capacity(call.prompts.len() * call.n);
    let mut left = choices.into_iter();
    for _ in &call.prompts {
        let mut group: Vec<Choice> = left.by_ref().take(call.best_of).collect();
        group.sort_by(|a, b| b.mean().total_cmp(&a.mean()));
        out.extend(group.into_iter().take(call.n));
    }
    out.iter_mut().enumerate().for_each(|(i, c)| c.index = i);
    out
}

/// A token that the tokenizer does not have.
fn unspelt(e: anyhow::Error) -> Fault {
    Fault::internal(format!("bug: {e:#}"))
}
