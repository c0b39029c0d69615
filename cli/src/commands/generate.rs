//! `lolm generate`: text from a prompt, token by token.
use crate::output::{note, say, write};
use crate::run_folder::{Trained, load};
use crate::tokenizer::{Characters, Tokenizer};
use crate::training::{parse_gate, settings};
use anyhow::{Context, Result};
use clap::Args;
use lolm_runtime::generate::{Generated, Generator, Sampling};
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Generate text from a prompt
#[derive(Args, Debug)]
pub struct Generate {
    /// The folder of a run, or an artifact
    model: PathBuf,
    /// The text to go on from
    #[arg(short, long, value_name = "TEXT", required_unless_present = "file", conflicts_with = "file")]
    prompt: Option<String>,
    /// A file with the text to go on from
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Tokens to generate
    #[arg(short = 'n', long = "n-predict", default_value_t = 64, value_name = "N")]
    count: usize,
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
    /// Threads, on which the results do not depend
    #[arg(long, default_value_t = crate::threads(), value_name = "N")]
    threads: usize,
    /// Print JSON: text, tokens, and gate and code of each
    #[arg(long)]
    json: bool,
}

impl Generate {
    pub fn run(self) -> Result<()> {
        let prompt = match (&self.prompt, &self.file) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, Some(path)) => std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
            (None, None) => vec![],
        };
        let mut t = load(&self.model, self.weights.as_deref(), self.threads)?;
        let sampling = Sampling {
            temperature: self.temp,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            seed: self.seed,
        };
        let start = Instant::now();
        // The prompt is printed with the first token, so that nothing is if it cannot be gone on from.
        let mut before = if self.json { String::new() } else { String::from_utf8_lossy(&prompt).into_owned() };
        let (text, out) = generate(&mut t, &prompt, self.count, sampling, self.gate, &mut |s| {
            if !self.json {
                write(&std::mem::take(&mut before));
                write(s);
            }
        })?;
        let seconds = start.elapsed().as_secs_f64();
        if self.json {
            let (gate, code): (Vec<_>, Vec<_>) = out.traces.iter().map(|t| (t.gate, t.regime)).unzip();
            let all = json!({"prompt": String::from_utf8_lossy(&prompt), "text": text, "tokens": out.tokens,
                "gate": gate, "regime": code, "seconds": seconds});
            say(serde_json::to_string_pretty(&all)?);
        } else {
            say(before);
            let gates: Vec<f32> = out.traces.iter().filter_map(|t| t.gate).collect();
            let mean = gates.iter().sum::<f32>() / gates.len() as f32;
            let gate = if gates.is_empty() { String::new() } else { format!(", mean gate {mean:.3}") };
            let n = out.tokens.len();
            note(format_args!("\n{n} tokens in {}, prompt included{gate}", crate::output::seconds(seconds)));
        }
        Ok(())
    }
}

/// Generates from a prompt; `each` gets whole characters as they come. Gives all of the text and the tokens.
pub fn generate(
    t: &mut Trained,
    prompt: &[u8],
    count: usize,
    sampling: Sampling,
    gate: Option<f32>,
    each: &mut dyn FnMut(&str),
) -> Result<(String, Generated)> {
    let tokenizer = Tokenizer::of(&t.spec, Some(&t.folder))?;
    let tokens = tokenizer.encode(prompt, true, "the prompt")?;
    let mut g = Generator::new(&mut t.model, settings(&t.spec, t.steps, gate))?;
    let (mut characters, mut text) = (Characters::default(), String::new());
    let mut add = |s: String| {
        if !s.is_empty() {
            each(&s);
            text += &s;
        }
    };
    let out = g.generate(&tokens, count, sampling, &[], &mut |token, _| {
        // A token of the model's vocabulary always has bytes, if only none.
        add(characters.push(tokenizer.shown(token).unwrap_or_default()));
        true
    })?;
    add(characters.finish());
    Ok((text, out))
}
