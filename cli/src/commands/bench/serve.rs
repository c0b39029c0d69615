//! `lolm bench serve`: how soon a server's first tokens come, how steadily the others, and how many a second.
mod ask;

use super::tokens;
use crate::commands::serve::{Queue, loaded};
use crate::device::Where;
use crate::output::{seconds, show};
use crate::serve::{App, Keys, Limits, Log, run};
use crate::table::Table;
use anyhow::{Context, Result, bail, ensure};
use ask::{Asked, Target};
use clap::Args;
use lolm_runtime::train::Tokens;
use serde::Serialize;
use serde_json::json;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};

/// Measure a server: time to the first token, between tokens, and tokens a second
#[derive(Args, Debug)]
pub struct Serve {
    /// The folder of a run or of a model, or an artifact, which is served and measured; without one, a server that runs
    model: Option<PathBuf>,
    /// The server that runs already
    #[arg(long, default_value = "http://127.0.0.1:8000", value_name = "URL", conflicts_with = "model")]
    url: String,
    /// Its API key
    #[arg(long, value_name = "KEY", conflicts_with = "model")]
    api_key: Option<String>,
    /// The weights, if not those of the newest checkpoint
    #[arg(long, value_name = "PATH")]
    weights: Option<PathBuf>,
    #[command(flatten)]
    queue: Queue,
    #[command(flatten)]
    on: Where,
    /// Requests that are asked at the same time, at most
    #[arg(long, default_value_t = 16, value_name = "N")]
    concurrency: usize,
    /// Requests that begin a second, on average and at random; 0 for as soon as another one ends
    #[arg(long, default_value_t = 0.0, value_name = "R")]
    rate: f64,
    /// Requests in all [default: four for each of those at the same time]
    #[arg(short, long, value_name = "N")]
    requests: Option<usize>,
    /// Tokens of a prompt
    #[arg(short, long, default_value_t = 64, value_name = "N")]
    prompt: usize,
    /// Tokens of an answer
    #[arg(short = 'n', long = "tokens", default_value_t = 64, value_name = "N")]
    answer: usize,
    /// Different prompts, which are asked in turn [default: all are]
    #[arg(long, value_name = "N")]
    distinct: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    concurrency: usize,
    rate: f64,
    prompt: usize,
    answer: usize,
    answered: usize,
    /// Requests that were told to come back.
    refused: usize,
    /// Tokens of prompts that needed no reading.
    cached_tokens: u64,
    seconds: f64,
    requests_per_second: f64,
    tokens_per_second: f64,
    first_token: Spread,
    between_tokens: Spread,
    whole: Spread,
}

/// Seconds that half, nine in ten, and ninety-nine in a hundred stay below.
#[derive(Serialize)]
struct Spread {
    p50: f64,
    p90: f64,
    p99: f64,
}

impl Spread {
    fn of(mut times: Vec<f64>) -> Spread {
        times.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let i = (part * times.len() as f64).ceil() as usize;
            times.get(i.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        Spread { p50: at(0.5), p90: at(0.9), p99: at(0.99) }
    }
}

impl Serve {
    pub fn run(self) -> Result<()> {
        ensure!(self.concurrency > 0, "--concurrency is 0: nothing would be asked");
        ensure!(self.rate.is_finite() && self.rate >= 0.0, "--rate is {}, expected 0 or more", self.rate);
        let Some(model) = self.model.clone() else {
            let report = self.measured(Target::new(&self.url, self.api_key.clone())?)?;
            return show(self.json, &report, Report::show);
        };
        let (on, queue, weights) = (self.on.open()?, self.queue.clone(), self.weights.clone());
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on 127.0.0.1")?;
        let url = format!("http://{}", listener.local_addr()?);
        let (asked, stop) = watch::channel(0);
        let limits = Limits { connections: self.concurrency + 64, ..Limits::default() };
        let app = Arc::new(App::new(Keys::default(), limits, Log::Nothing));
        let load = move || loaded(&model, weights.as_deref(), &on, &queue, None, None);
        let serving = std::thread::spawn(move || run(listener, app, load, || Ok(stop), Duration::from_secs(5)));
        let report = self.measured(Target::new(&url, None)?);
        asked.send_modify(|n| *n += 2);
        match serving.join() {
            Ok(ended) => drop(ended?),
            Err(_) => bail!("bug: the server ended with a panic"),
        }
        show(self.json, &report?, Report::show)
    }

    fn measured(&self, target: Target) -> Result<Report> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().context("cannot start the clients")?;
        runtime.block_on(self.measure(Arc::new(target)))
    }

    async fn measure(&self, target: Arc<Target>) -> Result<Report> {
        let vocab = target.vocabulary().await?;
        let requests = self.requests.unwrap_or(4 * self.concurrency);
        let distinct = self.distinct.unwrap_or(requests).max(1);
        let all = numbers(distinct * self.prompt, vocab)?;
        let room = Arc::new(Semaphore::new(self.concurrency));
        let (mut clients, mut next) = (vec![], Instant::now());
        let chances = numbers(requests, 1 << 20)?;
        let began = Instant::now();
        for i in 0..requests {
            if self.rate > 0.0 {
                // The time between events that know nothing of each other.
                let chance = f64::from(chances[i]) / f64::from(1 << 20);
                next += Duration::from_secs_f64(-(1.0 - chance).ln() / self.rate);
                tokio::time::sleep_until(next.into()).await;
            }
            let place = room.clone().acquire_owned().await.context("bug: the clients have no room")?;
            let prompt = &all[i % distinct * self.prompt..][..self.prompt];
            let body = json!({"prompt": prompt, "max_tokens": self.answer, "stream": true, "ignore_eos": true, "seed": i,
                "stream_options": {"include_usage": true}});
            let target = target.clone();
            clients.push(tokio::spawn(async move {
                let asked = target.ask(body.to_string()).await;
                drop(place);
                asked
            }));
        }
        let mut asked = vec![];
        for client in clients {
            asked.push(client.await.context("bug: a client ended with a panic")??);
        }
        Ok(self.report(asked, began.elapsed().as_secs_f64()))
    }

    fn report(&self, asked: Vec<Asked>, seconds: f64) -> Report {
        let refused = asked.iter().filter(|a| a.refused).count();
        let answered: Vec<&Asked> = asked.iter().filter(|a| !a.refused).collect();
        let tokens: u64 = answered.iter().map(|a| a.tokens).sum();
        Report {
            concurrency: self.concurrency,
            rate: self.rate,
            prompt: self.prompt,
            answer: self.answer,
            answered: answered.len(),
            refused,
            cached_tokens: answered.iter().map(|a| a.cached).sum(),
            seconds,
            requests_per_second: answered.len() as f64 / seconds,
            tokens_per_second: tokens as f64 / seconds,
            first_token: Spread::of(answered.iter().filter_map(|a| a.first).collect()),
            between_tokens: Spread::of(answered.iter().flat_map(|a| a.between.clone()).collect()),
            whole: Spread::of(answered.iter().map(|a| a.whole).collect()),
        }
    }
}

fn numbers(count: usize, below: usize) -> Result<Vec<u32>> {
    match tokens(count, below) {
        Tokens::U32(all) => Ok(all),
        _ => bail!("bug: tokens of another kind"),
    }
}

impl Report {
    fn show(&self) -> String {
        let mut t = Table::new(&["", ">p50", ">p90", ">p99"]);
        let rows = [
            ("first token", &self.first_token),
            ("between tokens", &self.between_tokens),
            ("whole answer", &self.whole),
        ];
        for (name, s) in rows {
            t.row(&[name.into(), seconds(s.p50), seconds(s.p90), seconds(s.p99)]);
        }
        format!(
            "{} answers of {} tokens to prompts of {} in {}, {} at the same time{}: {:.1} tokens/s, {:.2} answers/s\n\n{t}",
            self.answered,
            self.answer,
            self.prompt,
            seconds(self.seconds),
            self.concurrency,
            if self.refused > 0 { format!(", {} refused", self.refused) } else { String::new() },
            self.tokens_per_second,
            self.requests_per_second,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_of_what_was_seen() {
        let s = Spread::of((1..=100).rev().map(f64::from).collect());
        assert_eq!((s.p50, s.p90, s.p99), (50.0, 90.0, 99.0));
        let one = Spread::of(vec![2.0]);
        assert_eq!((one.p50, one.p99, Spread::of(vec![]).p50), (2.0, 2.0, 0.0));
    }
}
