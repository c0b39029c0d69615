//! `lolm demo`: the whole road in about a minute, with nothing prepared.
use crate::commands::compile::write_whole;
use crate::commands::eval::{self, Found, ablation, table};
use crate::commands::generate::{How, generate};
use crate::compiler::{Dump, To, compiled};
use crate::data;
use crate::device::Opened;
use crate::output::{bytes, grouped, note, seconds, show};
use crate::programs::{ProgramArgs, USUAL};
use crate::run_folder::{RunFolder, Trained, open};
use crate::spec::{self, Overrides};
use crate::tokenizer::Tokenizer;
use crate::training::{Job, Summary};
use anyhow::{Context, Result, bail};
use clap::Args;
use lolm_models::spec::Override;
use lolm_runtime::generate::Sampling;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The text that is always there: Cicero's De finibus, book one.
const TEXT: &str = lipsum::LIBER_PRIMUS;
/// The last part of the text is evaluated and never trained on.
const HELD_OUT: f64 = 0.1;
/// Tokens of the sample, if the context has room for them.
const SAMPLE: usize = 200;
/// About a minute on two cores.
const STEPS: usize = 500;

/// Compile, train and evaluate a small model in about a minute (what `lolm` does without a subcommand)
#[derive(Args, Debug)]
pub struct Demo {
    /// A text to train on [default: book one of Cicero's De finibus, which is built in]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Where everything goes; an earlier demo there is replaced
    #[arg(long, default_value = "out/demo", value_name = "DIR")]
    out: PathBuf,
    /// Training steps
    #[arg(long, default_value_t = STEPS, value_name = "N")]
    steps: usize,
    #[command(flatten)]
    overrides: Overrides,
    /// Threads, on which the results do not depend
    #[arg(long, default_value_t = crate::threads(), value_name = "N")]
    threads: usize,
    /// Print JSON, and nothing on the way
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    folder: PathBuf,
    compile_seconds: f64,
    training: Summary,
    held_out: Vec<Found>,
    prompt: String,
    sample: String,
}

impl Demo {
    pub fn run(self) -> Result<()> {
        let mut overrides = self.overrides.clone();
        overrides.set.insert(0, Override::new("training.steps", self.steps.to_string()));
        let named = spec::find("lolm-demo", &overrides)?;
        let (name, text) = match &self.data {
            Some(path) => {
                let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
                (path.display().to_string(), text)
            }
            None => ("De finibus".into(), TEXT.as_bytes().to_vec()),
        };
        let (train, held_out) = data::split(&text, HELD_OUT);
        let tokenizer = Tokenizer::of(&named.spec, None)?;
        let training_text = data::join(&[(&name, train)], &tokenizer)?;
        let held_out_text = data::join(&[(&name, held_out)], &tokenizer)?;
        let window = named.spec.training.seq;
        training_text
            .tokens
            .check(named.spec.vocab_size, window)
            .with_context(|| format!("{name} without its last tenth"))?;
        held_out_text
            .tokens
            .check(named.spec.vocab_size, window)
            .with_context(|| format!("the last tenth of {name}"))?;
        let folder = self.clear()?;

        self.tell(format_args!("1. compile: lolm-demo to {}", folder.artifact().display()));
        let sources = ProgramArgs::default().sources(&named.spec, &USUAL)?;
        let (artifact, module, times) = compiled(&named, &sources, To::default(), &Dump::default())?;
        write_whole(&folder.artifact(), &artifact.bytes)?;
        write_whole(&folder.0.join("held-out.txt"), held_out)?;
        let compile_seconds: f64 = times.iter().map(|t| t.seconds).sum();
        self.tell(format_args!(
            "   {} programs, {} kernels, {}, in {}",
            module.plans.len(),
            module.kernels.len(),
            bytes(artifact.bytes.len() as u64),
            seconds(compile_seconds)
        ));
        let t = &named.spec.training;
        let parameters: usize = module.params.iter().map(|p| p.shape.iter().product::<usize>()).sum();
        self.tell(format_args!(
            "2. train: {} parameters on {} of {name}, {} steps of {}x{} tokens",
            grouped(parameters as u64),
            bytes(train.len() as u64),
            t.steps,
            t.batch,
            t.seq
        ));
        let job = Job {
            folder: folder.clone(),
            spec: &named.spec,
            data: training_text.tokens,
            on: &Opened::cpu(self.threads),
            interval: 100,
            keep: 1,
            weights: None,
            quiet: self.json,
        };
        let done = job.run(open(&folder.artifact())?)?;
        let steps = Some(done.summary.steps);
        let mut trained = Trained {
            folder: folder.0.clone(),
            model: done.model,
            spec: named.spec,
            name: named.name,
            steps,
            weights: folder.0.join("checkpoints"),
        };
        self.tell(format_args!("3. evaluate: {} that it has not seen", bytes(held_out.len() as u64)));
        let how = eval::How { tau: None, windows: 0, quiet: self.json };
        let found = ablation(&mut trained, &held_out_text, how)?;
        let prompt = prompt(held_out);
        let tokens = tokenizer.encode(prompt.as_bytes(), true, "the prompt")?;
        let sampling = Sampling { temperature: 0.7, ..Sampling::default() };
        let room = trained.spec.max_seq_len.saturating_sub(tokens.len());
        let how = How { count: SAMPLE.min(room), sampling, ..How::default() };
        let sample = generate(&mut trained, &tokenizer, &tokens, &how, &mut |_| ())?.text;
        let report =
            Report { folder: folder.0, compile_seconds, training: done.summary, held_out: found, prompt, sample };
        show(self.json, &report, Report::show)
    }

    fn tell(&self, text: std::fmt::Arguments) {
        if !self.json {
            note(text);
        }
    }

    /// The folder, without what an earlier demo left there. Anything else that is there is not touched.
    fn clear(&self) -> Result<RunFolder> {
        let folder = RunFolder(self.out.clone());
        let is_ours = |p: &Path| p.join("model.lolm").is_file() && p.join("held-out.txt").is_file();
        let holds_something = std::fs::read_dir(&folder.0).is_ok_and(|mut d| d.next().is_some());
        if holds_something && !is_ours(&folder.0) {
            bail!("{} holds something that is not a demo; choose another folder with --out", folder.0.display());
        }
        let checkpoints = folder.checkpoints(0, 0).folder;
        let gone = |r: std::io::Result<()>| match r {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
        gone(std::fs::remove_dir_all(&checkpoints))
            .with_context(|| format!("cannot remove {}", checkpoints.display()))?;
        let metrics = folder.metrics();
        gone(std::fs::remove_file(&metrics)).with_context(|| format!("cannot remove {}", metrics.display()))?;
        Ok(folder)
    }
}

/// Some of the first words of a text.
fn prompt(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(200)]).into_owned();
    text.split_whitespace().skip(1).take(3).collect::<Vec<_>>().join(" ")
}

impl Report {
    fn show(&self) -> String {
        let (folder, rate) = (
            self.folder.display(),
            self.training.steps as f64 * self.training.tokens_per_step as f64 / self.training.seconds,
        );
        format!(
            "trained {} steps in {}, {rate:.0} tokens/s; on held-out text:\n\n{}\n\
             a sample, after \"{}\":\n\n{}\n\n\
             In {folder}: model.lolm (the artifact), checkpoints, metrics.jsonl, curves.svg, held-out.txt. Try:\n\n  \
             lolm generate {folder} -p \"{}\" -n 200 --gate 1\n  \
             lolm eval {folder} --data {folder}/held-out.txt --per-dimension\n  \
             lolm inspect {folder}/model.lolm --stage plan\n  \
             lolm demo --data FILE        on a text of yours\n  \
             lolm init my-model           a spec of your own\n",
            self.training.steps,
            seconds(self.training.seconds),
            table(&self.held_out),
            self.prompt,
            indented(&format!("{}{}", self.prompt, self.sample)),
            self.prompt,
        )
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|l| format!("    {l}")).collect::<Vec<_>>().join("\n")
}
