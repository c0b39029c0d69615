//! One choice of an answer as it grows, and how it is written in either form: whole, or what came since the last chunk.
use super::app::Loaded;
use super::call::{Call, Form};
use super::logprobs::{Entry, chat, completion};
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
            begun: false,
            characters: Characters::default(),
            offset: 0,
            finish: None,
            tokens: 0,
            cached: 0,
        }
    }

    /// Takes the next part in.
    pub fn take(&mut self, part: Part) {
        match part {
            Part::Started { cached } => {
                self.cached = cached;
                if self.call.echo {
                    self.text += &self.call.prompts[self.index / self.call.n].text;
                }
            }
            Part::Prompt(tokens) => tokens.into_iter().for_each(|t| self.entry(t)),
            Part::Token { text, token } => {
                self.tokens += 1;
                if self.call.request.trace {
                    self.traces.push(trace::token(token.id, &text, token.logprob, token.trace.as_ref()));
                }
                if self.call.request.logprobs.is_some() {
                    self.entry(token);
                }
                self.text += &text;
            }
            Part::End { text, finish } => {
                self.text += &text;
                self.finish = Some(finish);
            }
        }
    }

    /// Notes the log-probabilities of a token.
    fn entry(&mut self, token: Token) {
        let bytes = self.loaded.tokenizer.bytes(token.id).unwrap_or_default();
        let entry = Entry::of(&self.loaded.tokenizer, &token, self.offset);
        self.offset += self.characters.push(bytes).chars().count();
        self.entries.push(entry);
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
