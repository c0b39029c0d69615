//! What a request to generate asks for, whichever of its two forms it has.
use super::app::Loaded;
use super::errors::Fault;
use super::fields::{Fields, tokens, wrong};
use crate::tokenizer::Seen;
use axum::http::StatusCode;
use lolm_runtime::generate::Sampling;
use lolm_runtime::serve::{Penalties, Request};
use serde_json::{Value, json};
use std::hash::{BuildHasher, Hasher, RandomState};

/// Choices of one prompt.
const MOST_CHOICES: usize = 128;
/// Sequences of one request.
const MOST_SEQUENCES: usize = 1024;
/// Most probable tokens that are told with each one.
pub const MOST_LOGPROBS: usize = 20;
const MOST_STOPS: usize = 64;
/// Characters of a stop text: what may be its beginning is held back and looked at with every token.
const LONGEST_STOP: usize = 1024;

/// The form of a request and of its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    Completion,
    Chat,
}

/// A text to go on from.
#[derive(Clone, PartialEq, Debug)]
pub struct Prompt {
    pub tokens: Vec<u32>,
    /// As it was sent or, of tokens, as it reads.
    pub text: String,
}

/// A request to generate, understood.
#[derive(Clone, PartialEq, Debug)]
pub struct Call {
    pub form: Form,
    pub model: String,
    pub prompts: Vec<Prompt>,
    /// Choices of each prompt, and how many are made, of which these are the best.
    pub n: usize,
    pub best_of: usize,
    /// The prompt belongs to the answer.
    pub echo: bool,
    pub stream: bool,
    /// A last chunk tells the usage.
    pub usage: bool,
    /// What each sequence asks of the engine; its prompt comes from `prompts`, and its seed counts the choices.
    pub request: Request,
    /// The most probable tokens that are told of the prompt, with log-probabilities by number.
    pub prompt_logprobs: Option<usize>,
    /// Texts that end an answer.
    pub stops: Vec<String>,
    /// What ended an answer, and tokens that steer the model, belong to its text.
    pub with_end: bool,
    pub with_special: bool,
}

impl Call {
    /// The sequence of a choice: prompt by prompt, `best_of` of each.
    pub fn sequence(&self, choice: usize) -> Request {
        let mut request = self.request.clone();
        request.prompt = self.prompts[choice / self.best_of].tokens.clone();
        request.sampling.seed = request.sampling.seed.wrapping_add((choice % self.best_of) as u64);
        if self.best_of > self.n {
            request.logprobs.get_or_insert(0);
        }
        let echoed = request.logprobs.filter(|_| self.echo);
        request.prompt_logprobs = echoed.max(self.prompt_logprobs);
        request
    }

    pub fn sequences(&self) -> usize {
        self.prompts.len() * self.best_of
    }

    /// What is seen of the text of such a sequence.
    pub fn seen<'a>(&'a self, request: &'a Request) -> Seen<'a> {
        Seen {
            stops: &self.stops,
            ends: &request.stop_tokens,
            with_end: self.with_end,
            with_special: self.with_special,
            least: request.min_tokens,
        }
    }

    /// A request of this form.
    pub fn read(form: Form, body: &[u8], loaded: &Loaded) -> Result<Call, Fault> {
        let mut f = Fields::parse(body)?;
        let model = model(&mut f, loaded)?;
        let prompts = match form {
            Form::Completion => prompts(&mut f, loaded)?,
            Form::Chat => vec![super::messages::prompt(&mut f, loaded)?],
        };
        let n = f.count("n", 1..=MOST_CHOICES)?.unwrap_or(1);
        let best_of = f.count("best_of", n..=MOST_CHOICES)?.unwrap_or(n);
        if prompts.len() * best_of > MOST_SEQUENCES {
            let all = format!("{} prompts of {best_of} choices each are more than {MOST_SEQUENCES}", prompts.len());
            return Err(Fault::field("prompt", all));
        }
        let stream = f.flag("stream")?.unwrap_or(false);
        if stream && best_of > n {
            return Err(Fault::field("best_of", "`best_of` is known at the end only: it needs `stream` to be false"));
        }
        let usage = usage(&mut f, stream)?;
        let echo = form == Form::Completion && f.flag("echo")?.unwrap_or(false);
        let mut request = request(&mut f, loaded)?;
        request.logprobs = logprobs(&mut f, form)?;
        let prompt_logprobs = f.count("prompt_logprobs", 0..=MOST_LOGPROBS)?;
        if stream && prompt_logprobs.is_some() {
            return Err(Fault::field("prompt_logprobs", "`prompt_logprobs` needs `stream` to be false"));
        }
        request.max_tokens = max_tokens(&mut f, form, &prompts, loaded)?;
        request.min_tokens = f.count("min_tokens", 0..=request.max_tokens)?.unwrap_or(0);
        let stops = stops(&mut f)?;
        let with_end = f.flag("include_stop_str_in_output")?.unwrap_or(false);
        let with_special = !f.flag("skip_special_tokens")?.unwrap_or(true);
        harmless(&mut f, form)?;
        f.end()?;
        Ok(Call {
            form,
            model,
            prompts,
            n,
            best_of,
            echo,
            stream,
            usage,
            request,
            prompt_logprobs,
            stops,
            with_end,
            with_special,
        })
    }
}

/// The model's name, if it is one of ours.
pub fn model(f: &mut Fields, loaded: &Loaded) -> Result<String, Fault> {
    let name = f.text("model")?.unwrap_or_else(|| loaded.names[0].clone());
    if !loaded.names.contains(&name) {
        let message = format!("there is no model `{name}` here; there is {}", loaded.names.join(", "));
        let fault = Fault::new(StatusCode::NOT_FOUND, "model_not_found", message);
        return Err(Fault { param: Some("model".into()), ..fault });
    }
    Ok(name)
}

/// A text, tokens, or a list of either.
fn prompts(f: &mut Fields, loaded: &Loaded) -> Result<Vec<Prompt>, Fault> {
    let special = f.flag("add_special_tokens")?.unwrap_or(true);
    const EXPECTED: &str = "a text, a list of token numbers, or a list of either";
    let value =
        f.take("prompt").ok_or_else(|| Fault::field("prompt", format!("`prompt` is missing, expected {EXPECTED}")))?;
    let bad = |v: &Value| wrong("prompt", v, EXPECTED);
    let one = |v: &Value, name: &str| match v {
        Value::String(text) => loaded.prompt_of_text(text, special, name),
        Value::Array(list) => loaded.prompt_of_tokens(tokens(list).ok_or_else(|| bad(v))?, name),
        other => Err(bad(other)),
    };
    match &value {
        Value::Array(list) if list.is_empty() => Err(bad(&value)),
        Value::Array(list) if !list[0].is_number() => {
            if list.len() > MOST_SEQUENCES {
                return Err(Fault::field(
                    "prompt",
                    format!("`prompt` has {} texts, expected at most {MOST_SEQUENCES}", list.len()),
                ));
            }
            list.iter().enumerate().map(|(i, v)| one(v, &format!("prompt[{i}]"))).collect()
        }
        one_alone => Ok(vec![one(one_alone, "prompt")?]),
    }
}

/// `stream_options`, which only a stream has.
fn usage(f: &mut Fields, stream: bool) -> Result<bool, Fault> {
    let Some(mut options) = f.object("stream_options")? else { return Ok(false) };
    if !stream {
        return Err(Fault::field("stream_options", "`stream_options` needs `stream` to be true"));
    }
    let usage = options.flag("include_usage")?.unwrap_or(false);
    options.only("include_obfuscation", &[json!(false)])?;
    options.only("continuous_usage_stats", &[json!(false)])?;
    options.end()?;
    Ok(usage)
}

/// What both forms say about how tokens are chosen.
fn request(f: &mut Fields, loaded: &Loaded) -> Result<Request, Fault> {
    let d = Sampling::default();
    let sampling = Sampling {
        temperature: f.number("temperature", 0.0..=100.0)?.map_or(d.temperature, |x| x as f32),
        // vLLM says -1 for all.
        top_k: f.integer("top_k", -1..=i64::from(u32::MAX))?.map_or(d.top_k, |k| k.max(0) as usize),
        top_p: f.number("top_p", 0.0..=1.0)?.map_or(d.top_p, |x| x as f32),
        min_p: f.number("min_p", 0.0..=1.0)?.map_or(d.min_p, |x| x as f32),
        seed: f.integer("seed", i64::MIN..=i64::MAX)?.map_or_else(fresh_seed, |s| s as u64),
    };
    let penalties = Penalties {
        presence: f.number("presence_penalty", -2.0..=2.0)?.unwrap_or(0.0) as f32,
        frequency: f.number("frequency_penalty", -2.0..=2.0)?.unwrap_or(0.0) as f32,
        repetition: f.number("repetition_penalty", 0.01..=100.0)?.unwrap_or(1.0) as f32,
    };
    let mut stop_tokens = f.tokens("stop_token_ids")?.unwrap_or_default();
    if !f.flag("ignore_eos")?.unwrap_or(false) {
        stop_tokens.extend(&loaded.tokenizer.special.stops);
    }
    let mut ours = f.object("lolm")?.unwrap_or(Fields::within("lolm", json!({}))?);
    let (trace, cached) = (ours.flag("trace")?.unwrap_or(false), ours.flag("cache")?.unwrap_or(true));
    let gate = ours.number("gate", 0.0..=1.0)?.map(|x| x as f32);
    ours.end()?;
    Ok(Request {
        prompt: vec![],
        max_tokens: 0,
        sampling,
        penalties,
        logit_bias: logit_bias(f)?,
        stop_tokens,
        min_tokens: 0,
        logprobs: None,
        prompt_logprobs: None,
        trace,
        gate,
        cached,
        deadline: loaded.deadline(),
    })
}

/// Another one for each request that names none.
pub fn fresh_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Token numbers, as texts, to what is added to their logits.
fn logit_bias(f: &mut Fields) -> Result<Vec<(u32, f32)>, Fault> {
    const EXPECTED: &str = "an object of token numbers and what is added to their logits, from -100 to 100";
    let Some(value) = f.take("logit_bias") else { return Ok(vec![]) };
    let read = |map: &serde_json::Map<String, Value>| -> Option<Vec<(u32, f32)>> {
        let one = |(token, bias): (&String, &Value)| {
            let bias = bias.as_f64().filter(|x| (-100.0..=100.0).contains(x))?;
            Some((token.parse().ok()?, bias as f32))
        };
        map.iter().map(one).collect()
    };
    value.as_object().and_then(read).ok_or_else(|| wrong("logit_bias", &value, EXPECTED))
}

/// How many of the most probable tokens are told.
fn logprobs(f: &mut Fields, form: Form) -> Result<Option<usize>, Fault> {
    match form {
        Form::Completion => f.count("logprobs", 0..=MOST_LOGPROBS),
        Form::Chat => {
            let wanted = f.flag("logprobs")?.unwrap_or(false);
            let top = f.count("top_logprobs", 0..=MOST_LOGPROBS)?;
            match (wanted, top) {
                (false, Some(1..)) => Err(Fault::field("top_logprobs", "`top_logprobs` needs `logprobs` to be true")),
                (false, _) => Ok(None),
                (true, top) => Ok(Some(top.unwrap_or(0))),
            }
        }
    }
}

/// As asked for; else 16 in a completion, as OpenAI has it, and in a chat all that the context still holds.
fn max_tokens(f: &mut Fields, form: Form, prompts: &[Prompt], loaded: &Loaded) -> Result<usize, Fault> {
    let least = usize::from(form == Form::Chat);
    let old = f.count("max_tokens", least..=u32::MAX as usize)?;
    let new = f.count("max_completion_tokens", least..=u32::MAX as usize)?;
    let longest = prompts.iter().map(|p| p.tokens.len()).max().unwrap_or(0);
    let room = loaded.max_model_len.saturating_sub(longest).max(1);
    Ok(new.or(old).unwrap_or(if form == Form::Chat { room } else { room.min(16) }))
}

fn stops(f: &mut Fields) -> Result<Vec<String>, Fault> {
    let stops = f.texts("stop")?;
    if stops.len() > MOST_STOPS || stops.iter().any(|s| s.len() > LONGEST_STOP) {
        let limit = format!("`stop` may hold {MOST_STOPS} texts of up to {LONGEST_STOP} bytes");
        return Err(Fault::field("stop", limit));
    }
    Ok(stops)
}

/// Fields of clients that this server has nothing for: what says "nothing of it" passes.
fn harmless(f: &mut Fields, form: Form) -> Result<(), Fault> {
    f.ignore("user");
    f.ignore("safety_identifier");
    f.ignore("prompt_cache_key");
    f.ignore("metadata");
    f.only("store", &[json!(false)])?;
    f.only("service_tier", &[json!("auto"), json!("default")])?;
    f.only("response_format", &[json!({"type": "text"})])?;
    f.only("use_beam_search", &[json!(false)])?;
    f.only("length_penalty", &[json!(1), json!(1.0)])?;
    f.only("spaces_between_special_tokens", &[json!(true)])?;
    f.only("truncate_prompt_tokens", &[])?;
    match form {
        Form::Completion => f.only("suffix", &[json!("")]),
        Form::Chat => {
            f.only("echo", &[json!(false)])?;
            f.only("add_special_tokens", &[json!(false)])?;
            f.only("tools", &[json!([])])?;
            f.only("tool_choice", &[json!("none"), json!("auto")])?;
            f.only("functions", &[json!([])])?;
            f.only("function_call", &[json!("none"), json!("auto")])?;
            f.only("parallel_tool_calls", &[json!(true), json!(false)])?;
            f.only("modalities", &[json!(["text"])])?;
            f.only("chat_template", &[])?;
            f.only("chat_template_kwargs", &[json!({})])?;
            f.only("add_generation_prompt", &[json!(true)])
        }
    }
}
