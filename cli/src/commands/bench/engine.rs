//! `lolm bench engine`: what the engine of `lolm serve` gives without its HTTP: tokens a second of one stream and of many,
//! the first token of a prompt that is new and of one that is known, and what choosing a token costs.
use super::{Subject, Weights, least, median};
use crate::compiler::in_memory;
use crate::output::{seconds, show};
use crate::programs::{Kind, ProgramArgs};
use crate::table::Table;
use crate::training;
use anyhow::{Result, bail};
use clap::Args;
use lolm_runtime::generate::{Sampler, Sampling};
use lolm_runtime::serve::{Engine, Event, Finish, Options, Request};
use lolm_runtime::weights;
use serde::Serialize;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

const ROUNDS: usize = 5;

/// Measure the engine that serves: streams side by side, the prefix cache, choosing tokens
#[derive(Args, Debug)]
pub struct EngineBench {
    #[command(flatten)]
    subject: Subject,
    /// Streams at a time, measured against one
    #[arg(long, default_value_t = 16, value_name = "N")]
    concurrency: usize,
    /// Tokens of each stream
    #[arg(short = 'n', long, default_value_t = 64, value_name = "N")]
    tokens: usize,
    /// Tokens of the prompt whose first answer is waited for; as many as the model takes if it takes fewer
    #[arg(short, long, default_value_t = 1000, value_name = "N")]
    prompt: usize,
    #[command(flatten)]
    weights: Weights,
}

#[derive(Serialize)]
struct Report {
    spec: String,
    threads: usize,
    streams: Vec<Streams>,
    prompt: usize,
    first_token_cold_seconds: f64,
    first_token_repeated_seconds: f64,
    /// How many times sooner a known prompt is answered.
    cache_gain: f64,
    vocab: usize,
    choices: Vec<Choice>,
}

#[derive(Serialize)]
struct Streams {
    count: usize,
    tokens_per_second: f64,
    /// Against one stream; the median over rounds in which they took turns.
    gain: f64,
}

#[derive(Serialize)]
struct Choice {
    what: &'static str,
    seconds: f64,
}

impl EngineBench {
    pub fn run(self) -> Result<()> {
        let (on, named) = self.subject.open()?;
        let args = ProgramArgs { slots: Some(self.concurrency), ..ProgramArgs::default() };
        let sources = args.sources(&named.spec, &[Kind::Prefill, Kind::Decode])?;
        let mut model = on.load_rows(in_memory(&named, &sources, self.weights.to(&on))?, self.concurrency)?;
        weights::init(&mut model, named.spec.training.seed as u64);
        let (vocab, room) = (named.spec.vocab_size, named.spec.max_seq_len);
        let options = Options {
            tau: training::tau(&named.spec, None),
            state_cache_bytes: 4 * model.row_bytes() + (64 << 20),
            ..Options::new(room)
        };
        let engine = Engine::start(model, options)?;
        let prompt = self.prompt.min(room);
        let mut of_count = [1, self.concurrency].map(|count| (count, vec![]));
        for round in 0..ROUNDS {
            for (count, times) in &mut of_count {
                times.push(streams(&engine, *count, self.tokens.min(room - 8), vocab, round)?);
            }
        }
        let [one, many] = of_count;
        let gains: Vec<f64> = many.1.iter().zip(&one.1).map(|(m, o)| m / o).collect();
        let (cold, repeated) = first_tokens(&engine, prompt, vocab)?;
        let of = |(count, rates): (usize, Vec<f64>), gain| Streams { count, tokens_per_second: median(&rates), gain };
        let report = Report {
            spec: named.name,
            threads: on.threads,
            streams: vec![of(one, 1.0), of(many, median(&gains))],
            prompt,
            first_token_cold_seconds: cold,
            first_token_repeated_seconds: repeated,
            cache_gain: cold / repeated,
            vocab,
            choices: choices(vocab),
        };
        show(self.subject.json, &report, Report::show)
    }
}

/// A prompt that is no other's.
fn prompt(len: usize, vocab: usize, which: usize) -> Vec<u32> {
    (0..len).map(|i| ((i * 7919 + which * 104_729 + i * which) % vocab) as u32).collect()
}

fn ask(engine: &Engine, request: Request, to: &Sender<Event>) -> Result<lolm_runtime::serve::Ticket> {
    let to = to.clone();
    Ok(engine.submit(request, Box::new(move |e| to.send(e).is_ok()))?)
}

/// Tokens a second of so many streams, short prompts included.
fn streams(engine: &Engine, count: usize, tokens: usize, vocab: usize, round: usize) -> Result<f64> {
    let (to, from) = channel();
    let start = Instant::now();
    let request = |i: usize| Request {
        prompt: prompt(8, vocab, 1000 * round + i),
        max_tokens: tokens,
        cached: false,
        ..Request::default()
    };
    let tickets = (0..count).map(|i| ask(engine, request(i), &to)).collect::<Result<Vec<_>>>()?;
    drop(to);
    let mut all = 0;
    for event in &from {
        match event {
            Event::Token(_) => all += 1,
            Event::Done(Finish::Failed(why)) => bail!(why),
            Event::Started { .. } | Event::Prompt(_) | Event::Done(_) => (),
        }
    }
    drop(tickets);
    Ok(all as f64 / start.elapsed().as_secs_f64())
}

/// Seconds to the first token of a prompt that is new, and of the same again.
fn first_tokens(engine: &Engine, len: usize, vocab: usize) -> Result<(f64, f64)> {
    let first = |which: usize| -> Result<f64> {
        let (to, from) = channel();
        let start = Instant::now();
        let _ticket = ask(engine, Request { prompt: prompt(len, vocab, which), ..Request::default() }, &to)?;
        let token = from.iter().find(|e| matches!(e, Event::Token(_) | Event::Done(_)));
        let taken = start.elapsed().as_secs_f64();
        match token {
            Some(Event::Token(_)) => Ok(taken),
            other => bail!("a prompt of {len} tokens gave no token but {other:?}"),
        }
    };
    let (mut cold, mut repeated) = (vec![], vec![]);
    for round in 0..ROUNDS {
        cold.push(first(50_000 + round)?);
        repeated.push(first(50_000 + round)?);
    }
    Ok((median(&cold), median(&repeated)))
}

/// What choosing a token costs, of logits that are spread as those of a model that knows little: the hard case for top-p.
fn choices(vocab: usize) -> Vec<Choice> {
    let unit = |i: usize| (lolm_ir::philox::philox4x32_10([i as u32, 0, 0, 0], [7, 7])[0] as f64 + 0.5) / 4294967296.0;
    let logits: Vec<f32> = (0..vocab).map(|i| (3.0 * (unit(i) / (1.0 - unit(i))).ln() / 1.8) as f32).collect();
    let d = Sampling::default();
    let ways = [
        ("greedy", Sampling { temperature: 0.0, ..d }),
        ("temperature", Sampling { temperature: 0.8, ..d }),
        ("min-p", Sampling { min_p: 0.05, ..d }),
        ("top-k 40", Sampling { top_k: 40, ..d }),
        ("top-p 0.9", Sampling { top_p: 0.9, ..d }),
        ("top-p 0.9 at temperature 0.3", Sampling { temperature: 0.3, top_p: 0.9, ..d }),
    ];
    let mut sampler = Sampler::new(vocab);
    let mut time = |how: &Sampling| {
        let one = |i: u64| {
            let start = Instant::now();
            std::hint::black_box(sampler.choose(how, &logits, i));
            start.elapsed().as_secs_f64()
        };
        least(&(0..50).map(one).collect::<Vec<_>>())
    };
    ways.iter().map(|(what, how)| Choice { what, seconds: time(how) }).collect()
}

impl Report {
    fn show(&self) -> String {
        let mut streams = Table::new(&[">streams", ">tokens/s", ">times"]);
        for s in &self.streams {
            streams.row(&[s.count.to_string(), format!("{:.1}", s.tokens_per_second), format!("{:.2}", s.gain)]);
        }
        let mut choices = Table::new(&["a token by", ">takes"]);
        for c in &self.choices {
            choices.row(&[c.what.into(), seconds(c.seconds)]);
        }
        format!(
            "{}, {} threads\n\n{streams}\nfirst token after {} tokens: {}; again: {}, {:.1} times sooner\n\n\
             choosing one of {} tokens\n{choices}",
            self.spec,
            self.threads,
            self.prompt,
            seconds(self.first_token_cold_seconds),
            seconds(self.first_token_repeated_seconds),
            self.cache_gain,
            self.vocab,
        )
    }
}
