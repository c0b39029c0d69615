//! `lolm bench`: measurements of training, taking prompts in, decoding, serving and compiling on this machine, and of its
//! GPU.
mod compile;
mod decode;
mod engine;
mod gpu;
mod lanes;
mod prefill;
mod profile;
#[cfg(feature = "serve")]
mod serve;
mod train;

use crate::compiler::To;
use crate::device::{Opened, Where};
use crate::programs::WeightsDtype;
use crate::spec::{self, Named, Overrides};
use anyhow::Result;
use clap::{Args, Subcommand};
use lolm_runtime::train::Tokens;

/// Measure training, taking prompts in, decoding, serving, compiling or a GPU
#[derive(Args, Debug)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    Train(train::Train),
    Decode(decode::Decode),
    Prefill(prefill::Prefill),
    #[cfg(feature = "serve")]
    Serve(serve::Serve),
    Compile(compile::Compile),
    Gpu(gpu::Gpu),
    Engine(engine::EngineBench),
}

impl Bench {
    pub fn run(self) -> Result<()> {
        match self.what {
            What::Train(b) => b.run(),
            What::Decode(b) => b.run(),
            What::Prefill(b) => b.run(),
            #[cfg(feature = "serve")]
            What::Serve(b) => b.run(),
            What::Compile(b) => b.run(),
            What::Gpu(b) => b.run(),
            What::Engine(b) => b.run(),
        }
    }
}

/// Which model is measured, on what, and how it is told.
#[derive(Args, Debug)]
struct Subject {
    /// A spec file, or the name of a built-in spec
    #[arg(long, default_value = "lolm-demo")]
    spec: String,
    #[command(flatten)]
    overrides: Overrides,
    #[command(flatten)]
    on: Where,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Subject {
    fn open(&self) -> Result<(Opened, Named)> {
        Ok((self.on.open()?, spec::find(&self.spec, &self.overrides)?))
    }
}

/// How the model that is measured holds its weights.
#[derive(Args, Debug)]
struct Weights {
    /// What the weights are stored as
    #[arg(long, value_name = "DTYPE", default_value = "f32")]
    weights_dtype: WeightsDtype,
}

impl Weights {
    fn to(&self, on: &Opened) -> To {
        To { weights: self.weights_dtype.into(), target: on.target(), ..To::default() }
    }
}

/// Reads of memory and tokens take turns: on a shared machine the memory's pace changes within seconds.
const ROUNDS: usize = 5;

/// Tokens that cost what real ones do: all over the vocabulary, in an order that never repeats (an LCG; Knuth 1981).
fn tokens(count: usize, vocab: usize) -> Tokens {
    let mut x = 1u64;
    let mut next = || {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((x >> 33) % vocab as u64) as u32
    };
    Tokens::U32((0..count).map(|_| next()).collect())
}

/// The middle of the sorted times; 0 if there are none.
fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

fn least(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::INFINITY, f64::min)
}
