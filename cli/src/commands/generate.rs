//! `lolm generate`: text from a prompt, token by token, or an answer in a chat.
use crate::chat::{ChatTemplate, Message};
use crate::commands::compile::write_whole;
use crate::device::Where;
use crate::output::{note, say, seconds, write};
use crate::run_folder::{Trained, load};
use crate::tokenizer::{Seen, Text, Tokenizer};
use crate::trace;
use crate::training::{parse_gate, settings};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use lolm_runtime::generate::{Generated, Generator, Sampling};
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

/// Generate text from a prompt
#[derive(Args, Debug)]
pub struct Generate {
    /// The folder of a run, or an artifact
    model: PathBuf,
    /// The text to go on from, or what the user says with --chat
    #[arg(short, long, value_name = "TEXT", required_unless_present_any = ["file", "chat"], conflicts_with = "file")]
    prompt: Option<String>,
    /// A file with the text to go on from
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Answer by the model's chat template; without a prompt, as long as you go on
    #[arg(long)]
    chat: bool,
    /// What the system says first in a chat
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// Tokens to generate
    #[arg(
        short = 'n',
        long = "n-predict",
        value_name = "N",
        default_value_t = 64,
        default_value_if("chat", "true", "512")
    )]
    count: usize,
    /// End before this text; may be given again
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Go on behind the tokens that end a text or a turn
    #[arg(long)]
    ignore_eos: bool,
    /// Divides the logits; 0 always takes the most probable token
    #[arg(long, default_value_t = 0.8, value_name = "T", allow_negative_numbers = true)]
    temp: f32,
    /// Only the K most probable tokens; 0 for all
    #[arg(long, default_value_t = 0, value_name = "K")]
    top_k: usize,
    /// Only the most probable tokens that together reach this probability
    #[arg(long, default_value_t = 1.0, value_name = "P", allow_negative_numbers = true)]
    top_p: f32,
    /// Only tokens of at least this part of the greatest probability
    #[arg(long, default_value_t = 0.0, value_name = "P", allow_negative_numbers = true)]
    min_p: f32,
    /// The same seed gives the same text
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Force the gate to this value, from 0 (latent only) to 1 (surface only)
    #[arg(long, value_parser = parse_gate, value_name = "VALUE")]
    gate: Option<f32>,
    /// The weights, if not those of the newest checkpoint: a safetensors file, or a folder with model.safetensors
    #[arg(long, value_name = "PATH")]
    weights: Option<PathBuf>,
    #[command(flatten)]
    on: Where,
    /// Print JSON: text, tokens, why it ended, and gate and code of each token
    #[arg(long)]
    json: bool,
    /// Write JSON of each token to this file: its text, number, log-probability, gate, regime and memory focus, as
    /// `"lolm": {"trace": true}` has them in a completion
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

/// How much is generated and how.
#[derive(Clone, Debug, Default)]
pub struct How {
    pub count: usize,
    pub sampling: Sampling,
    pub gate: Option<f32>,
    /// Tokens and texts that end it.
    pub stops: Vec<u32>,
    pub stop_texts: Vec<String>,
    /// Each token is told by itself, too.
    pub tell: bool,
}

/// What was generated.
pub struct Answer {
    /// Without special tokens, and without the text that ended it.
    pub text: String,
    pub generated: Generated,
    /// What each token added to the text, and the logarithm of its probability; only if asked for.
    pub told: Vec<(String, f32)>,
    pub end: End,
}

/// Why it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// As many tokens as were asked for.
    Length,
    /// The model ended its text or its turn.
    Token,
    /// A stop text came.
    Text,
}

impl End {
    fn name(self) -> &'static str {
        match self {
            End::Length => "length",
            End::Token => "eos",
            End::Text => "stop",
        }
    }
}

impl Generate {
    pub fn run(self) -> Result<()> {
        let prompt = match (&self.prompt, &self.file) {
            (Some(text), _) => Some(text.clone().into_bytes()),
            (None, Some(path)) => Some(std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?),
            (None, None) if self.chat && std::io::stdin().is_terminal() => None,
            (None, None) => bail!("there is no prompt: give a text with -p, or a file with -f"),
        };
        let mut t = load(&self.model, self.weights.as_deref(), &self.on.open()?)?;
        let tokenizer = Tokenizer::of(&t.spec, Some(&t.folder))?;
        let how = self.how(&tokenizer);
        if !self.chat {
            let prompt = prompt.unwrap_or_default();
            let tokens = tokenizer.encode(&prompt, true, "the prompt")?;
            return self.answer(&mut t, &tokenizer, &how, &tokens, &String::from_utf8_lossy(&prompt));
        }
        let chat = Chat { template: ChatTemplate::of(&t.folder, &tokenizer.special)?, tokenizer: &tokenizer };
        let mut messages: Vec<Message> = self.system.iter().map(|text| Message::new("system", text)).collect();
        let Some(prompt) = prompt else {
            ensure!(
                self.trace.is_none(),
                "--trace tells one answer: give what the user says with -p, or a file with -f"
            );
            return chat.converse(&mut t, &how, messages);
        };
        let prompt = String::from_utf8(prompt).context("what the user says is not UTF-8")?;
        messages.push(Message::new("user", &prompt));
        let tokens = chat.tokens(&messages)?;
        self.answer(&mut t, &tokenizer, &how, &tokens, "")
    }

    fn how(&self, tokenizer: &Tokenizer) -> How {
        How {
            count: self.count,
            sampling: Sampling {
                temperature: self.temp,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                seed: self.seed,
            },
            gate: self.gate,
            stops: if self.ignore_eos { vec![] } else { tokenizer.special.stops.clone() },
            stop_texts: self.stop.clone(),
            tell: self.trace.is_some(),
        }
    }

    /// Generates once and prints it behind `before`.
    fn answer(&self, t: &mut Trained, tokenizer: &Tokenizer, how: &How, tokens: &[u32], before: &str) -> Result<()> {
        let start = Instant::now();
        // The prompt is printed with the first token, so that nothing is if it cannot be gone on from.
        let mut first = if self.json { String::new() } else { before.to_string() };
        let answer = generate(t, tokenizer, tokens, how, &mut |s| {
            if !self.json {
                write(&std::mem::take(&mut first));
                write(s);
            }
        })?;
        let (out, taken) = (&answer.generated, start.elapsed().as_secs_f64());
        let prompt = self.prompt.as_deref().unwrap_or(before);
        if let Some(path) = &self.trace {
            let name = &t.name;
            let all = json!({"model": name, "prompt": prompt, "prompt_tokens": tokens, "text": answer.text,
                "end": answer.end.name(), "tokens": answer.trace()});
            write_whole(path, serde_json::to_string_pretty(&all)?.as_bytes())?;
        }
        if self.json {
            let (gate, code): (Vec<_>, Vec<_>) = out.traces.iter().map(|t| (t.gate.map(|g| g.mean), t.regime)).unzip();
            let all = json!({"prompt": prompt, "prompt_tokens": tokens, "text": answer.text, "tokens": out.tokens,
                "end": answer.end.name(), "gate": gate, "regime": code, "seconds": taken});
            say(serde_json::to_string_pretty(&all)?);
        } else {
            say(first);
            let gates: Vec<f32> = out.traces.iter().filter_map(|t| t.gate.map(|g| g.mean)).collect();
            let mean = gates.iter().sum::<f32>() / gates.len() as f32;
            let gate = if gates.is_empty() { String::new() } else { format!(", mean gate {mean:.3}") };
            note(format_args!("\n{} tokens in {}, prompt included{gate}", out.tokens.len(), seconds(taken)));
        }
        Ok(())
    }
}

impl Answer {
    /// Each token with what the model was like when it was chosen.
    fn trace(&self) -> Vec<Value> {
        let all = self.generated.tokens.iter().zip(&self.generated.traces).zip(&self.told);
        all.map(|((id, inside), (text, logprob))| trace::token(*id, text, Some(*logprob), Some(inside))).collect()
    }
}

/// Generates from the tokens of a prompt; `each` gets whole characters as they come.
pub fn generate(
    t: &mut Trained,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    how: &How,
    each: &mut dyn FnMut(&str),
) -> Result<Answer> {
    let settings = settings(&t.spec, t.steps, how.gate);
    let mut generator = Generator::new(&mut t.model, settings)?;
    go_on(&mut generator, tokenizer, prompt, how, each)
}

/// Takes more tokens in and generates.
fn go_on(
    generator: &mut Generator,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    how: &How,
    each: &mut dyn FnMut(&str),
) -> Result<Answer> {
    let seen = Seen { stops: &how.stop_texts, ends: &how.stops, ..Seen::default() };
    let (mut out, mut text, mut told) = (Text::new(&seen), String::new(), vec![]);
    let mut failed = None;
    let mut add = |s: &str| {
        if !s.is_empty() {
            each(s);
            text += s;
        }
    };
    let generated = generator.generate(prompt, how.count, how.sampling, &how.stops, &mut |chosen| {
        match out.push(tokenizer, chosen.token) {
            Ok(s) => {
                add(&s);
                if how.tell {
                    told.push((s, chosen.logprob()));
                }
            }
            Err(e) => failed = Some(e),
        }
        failed.is_none() && !out.found()
    })?;
    if let Some(e) = failed {
        return Err(e);
    }
    add(&out.finish());
    let end = match generated.tokens.last() {
        _ if out.found() => End::Text,
        Some(token) if how.stops.contains(token) => End::Token,
        _ => End::Length,
    };
    Ok(Answer { text, generated, told, end })
}

/// Messages to tokens.
struct Chat<'a> {
    template: ChatTemplate,
    tokenizer: &'a Tokenizer,
}

impl Chat<'_> {
    /// The template says all that stands around the texts, so nothing is added.
    fn tokens(&self, messages: &[Message]) -> Result<Vec<u32>> {
        let text = self.template.prompt(messages, SystemTime::now())?;
        self.tokenizer.encode(text.as_bytes(), false, "the chat")
    }

    /// Answers line after line, until there are no more. What the model has read is not read again.
    fn converse(&self, t: &mut Trained, how: &How, mut messages: Vec<Message>) -> Result<()> {
        let settings = settings(&t.spec, t.steps, how.gate);
        let mut generator = Generator::new(&mut t.model, settings)?;
        let mut inside: Vec<u32> = vec![];
        note("An empty line ends the chat.");
        loop {
            write("> ");
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line).context("cannot read what you say")?;
            if line.trim().is_empty() {
                return Ok(());
            }
            messages.push(Message::new("user", line.trim_end()));
            let tokens = self.tokens(&messages)?;
            if !tokens.starts_with(&inside) {
                generator.restart();
                inside.clear();
            }
            let room = settings.max_seq_len.saturating_sub(tokens.len());
            let how = How { count: how.count.min(room + 1), ..how.clone() };
            let answer = go_on(&mut generator, self.tokenizer, &tokens[inside.len()..], &how, &mut write)?;
            say("");
            // The last token that came out did not go in.
            inside = tokens;
            inside.extend(answer.generated.tokens.split_last().map_or(&[][..], |(_, rest)| rest));
            messages.push(Message::new("assistant", answer.text.trim()));
        }
    }
}
