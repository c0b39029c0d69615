//! The answers to requests to generate: whole, or as server-sent events.
use super::app::{App, Loaded, now};
use super::batch::Batch;
use super::call::{Call, Form};
use super::choice::{Choice, best};
use super::errors::{Fault, json_response};
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use lolm_runtime::serve::Finish;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

/// A stream that has nothing to say says so, so that nobody between takes it for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Chunks that wait for a client; the engine does not wait for them.
const CHUNKS: usize = 16;

/// An answer as it grows.
struct Answer {
    app: Arc<App>,
    call: Arc<Call>,
    id: String,
    created: u64,
    began: Instant,
    choices: Vec<Choice>,
}

/// Answers a request; `id` is the request's.
pub async fn answer(app: Arc<App>, loaded: Arc<Loaded>, call: Call, id: &str) -> Result<Response, Fault> {
    let call = Arc::new(call);
    let batch = Batch::start(&app, &loaded, &call)?;
    let choices = (0..call.sequences()).map(|i| Choice::new(i, &call, &loaded)).collect();
    let kind = if call.form == Form::Chat { "chatcmpl" } else { "cmpl" };
    let answer = Answer { app, call, id: format!("{kind}-{id}"), created: now(), began: Instant::now(), choices };
    match answer.call.stream {
        false => answer.whole(batch).await,
        true => Ok(answer.stream(batch)),
    }
}

impl Answer {
    /// Waits for all of it. If the client goes meanwhile this is dropped, and with it what is still running.
    async fn whole(mut self, mut batch: Batch) -> Result<Response, Fault> {
        while let Some((i, part)) = batch.next().await? {
            self.choices[i].take(part)?;
        }
        self.report();
        if let Some(fault) = self.choices.iter().find_map(|c| c.finish.as_ref().and_then(Fault::of_end)) {
            return Err(fault);
        }
        let usage = self.usage();
        let mut out = self.head("text_completion", "chat.completion");
        if self.call.prompt_logprobs.is_some() && self.call.form == Form::Chat {
            out["prompt_logprobs"] = self.choices.first_mut().map_or(Value::Null, Choice::prompt);
        }
        out["choices"] = best(self.choices, &self.call).into_iter().map(Choice::whole).collect();
        out["usage"] = usage;
        Ok(json_response(StatusCode::OK, &out))
    }

    /// Answers at once, and goes on in a task of its own until the end, or until the client has gone.
    fn stream(self, batch: Batch) -> Response {
        let (to, from) = channel(CHUNKS);
        tokio::spawn(self.feed(batch, to));
        let mut response = Response::new(Body::from_stream(ReceiverStream::new(from).map(Ok::<Bytes, Infallible>)));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        // Proxies such as nginx would hold events back.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }

    async fn feed(mut self, mut batch: Batch, to: Sender<Bytes>) {
        loop {
            let part = tokio::select! {
                () = to.closed() => return self.report(),
                part = tokio::time::timeout(KEEP_ALIVE, batch.next()) => part,
            };
            let event = match part {
                Err(_) => Some(Bytes::from_static(b": waiting\n\n")),
                Ok(Ok(Some((i, part)))) => match self.choices[i].take(part) {
                    Ok(()) => self.event(i),
                    Err(fault) => {
                        let _ = to.send(data(&fault.json())).await;
                        break;
                    }
                },
                Ok(Ok(None)) => break,
                Ok(Err(fault)) => {
                    let _ = to.send(data(&fault.json())).await;
                    break;
                }
            };
            if let Some(event) = event
                && to.send(event).await.is_err()
            {
                return self.report();
            }
        }
        // From here on there is nobody to be told that nobody is there.
        if self.call.usage {
            let mut out = self.head("text_completion", "chat.completion.chunk");
            out["choices"] = json!([]);
            out["usage"] = self.usage();
            let _ = to.send(data(&out)).await;
        }
        self.report();
        let _ = to.send(Bytes::from_static(b"data: [DONE]\n\n")).await;
    }

    /// The event of what a choice has to say, or of why it can say no more.
    fn event(&mut self, i: usize) -> Option<Bytes> {
        if let Some(fault) = self.choices[i].finish.as_ref().and_then(Fault::of_end) {
            return Some(data(&fault.json()));
        }
        let chunk = self.choices[i].chunk()?;
        let mut out = self.head("text_completion", "chat.completion.chunk");
        out["choices"] = json!([chunk]);
        if self.call.usage {
            out["usage"] = Value::Null;
        }
        Some(data(&out))
    }

    fn head(&self, completion: &str, chat: &str) -> Value {
        let object = if self.call.form == Form::Chat { chat } else { completion };
        json!({"id": self.id, "object": object, "created": self.created, "model": self.call.model})
    }

    /// Tokens of the prompts, each counted once, and of all choices.
    fn usage(&self) -> Value {
        let prompt: usize = self.call.prompts.iter().map(|p| p.tokens.len()).sum();
        let completion: usize = self.choices.iter().map(|c| c.tokens).sum();
        let cached: usize = self.choices.iter().step_by(self.call.best_of).map(|c| c.cached).sum();
        json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached}})
    }

    /// A line of the log: how much, but nothing of what.
    fn report(&self) {
        let ends: Vec<String> =
            self.choices.iter().map(|c| c.finish.as_ref().map_or("gone".into(), |f| word(f).into())).collect();
        let usage = self.usage();
        self.app.log.request(
            "answer",
            json!({"id": self.id, "stream": self.call.stream, "ends": ends, "prompt_tokens": usage["prompt_tokens"],
                "cached_tokens": usage["prompt_tokens_details"]["cached_tokens"],
                "completion_tokens": usage["completion_tokens"], "ms": self.began.elapsed().as_millis() as u64}),
        );
    }
}

fn word(finish: &Finish) -> &'static str {
    match finish {
        Finish::Length => "length",
        Finish::Stop => "stop",
        Finish::Cancelled => "cancelled",
        Finish::Deadline => "deadline",
        Finish::Failed(_) => "failed",
    }
}

/// A server-sent event. JSON has no line breaks, so that one line holds it.
fn data(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}
