//! `lolm import`: a published model becomes a folder that this command compiles, trains and generates from.
use crate::convert::{copy_weights, copy_whole, dtypes, fresh, write_gguf, write_text};
use crate::model_folder::{self, CONFIG, SPEC};
use crate::output::{bytes, note, show};
use crate::tokenizer::{self, Tokenizer};
use anyhow::{Context, Result, bail};
use clap::Args;
use lolm_models::gguf::{Gguf, Llama};
use lolm_models::spec::Tokenizer as Kind;
use lolm_models::{Spec, parameters};
use lolm_runtime::cpu::memory::map_file;
use lolm_runtime::weights::{self, Purpose, WeightFiles};
use serde::Serialize;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Make a model folder of a published model: a folder with config.json and safetensors, or a GGUF file
#[derive(Args, Debug)]
pub struct Import {
    /// A folder as Hugging Face or mamba_ssm publish it, or a .gguf file of the llama architecture
    path: PathBuf,
    /// The folder that is made
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was imported.
#[derive(Serialize)]
struct Report {
    folder: PathBuf,
    kind: &'static str,
    parameters: u64,
    /// The dtypes of the weights, as they lie on disk.
    dtypes: Vec<String>,
    bytes: u64,
    vocab_size: usize,
    tokenizer: bool,
}

impl Import {
    pub fn run(self) -> Result<()> {
        fresh(&self.output)?;
        let spec = match self.path.is_dir() {
            true => self.folder()?,
            false if is_gguf(&self.path)? => self.gguf()?,
            false => bail!("{} is neither a folder nor a GGUF file", self.path.display()),
        };
        // The spec comes last: a folder with one is whole.
        write_text(&self.output, SPEC, &spec.to_string())?;
        let needed = matches!(spec.tokenizer, Kind::File(_));
        if needed && !self.output.join("tokenizer.json").is_file() {
            note("note: there is no tokenizer.json: text needs one, or another `tokenizer` in the spec");
        }
        let files = WeightFiles::open(&self.output)?;
        let report = Report {
            folder: self.output.clone(),
            kind: spec.family.name(),
            parameters: parameters(&spec)?.iter().map(|(_, s)| s.iter().product::<usize>() as u64).sum(),
            dtypes: dtypes(&files),
            bytes: files.iter().map(|t| t.data.len() as u64).sum(),
            vocab_size: spec.vocab_size,
            tokenizer: self.output.join("tokenizer.json").is_file(),
        };
        show(self.json, &report, Report::show)
    }

    /// A folder: its files are copied as they are once they are known to belong together.
    fn folder(&self) -> Result<Spec> {
        let spec = model_folder::spec(&self.path, &[])?;
        let files = WeightFiles::open(&self.path)?;
        weights::check(&parameters(&spec)?, &files, &self.path, Purpose::Inference)?;
        if self.path.join("tokenizer.json").is_file() {
            Tokenizer::of(&spec, Some(&self.path)).context("the tokenizer does not belong to the model")?;
        }
        copy_weights(&files, &self.output)?;
        model_folder::copy_texts(&self.path, &self.output)?;
        copy_whole(&self.path, &self.output, &[CONFIG])?;
        Ok(spec)
    }

    /// A GGUF file: its weights become f32 under Hugging Face's names.
    fn gguf(&self) -> Result<Spec> {
        let what = || format!("cannot import {}", self.path.display());
        let bytes = map_file(&self.path).with_context(what)?;
        let gguf = Gguf::parse(&bytes).with_context(what)?;
        let llama = Llama::read(&gguf).with_context(what)?;
        let spec = Spec::from_hf(&self.path.display().to_string(), &llama.config, &[], &[]).with_context(what)?;
        if gguf.get("tokenizer.ggml.model").is_some() {
            let texts = tokenizer::from_gguf(&gguf).with_context(what)?;
            for (name, text) in texts.files() {
                write_text(&self.output, name, text)?;
            }
            Tokenizer::of(&spec, Some(&self.output)).context("the tokenizer does not belong to the model")?;
        }
        write_gguf(&llama, &self.output)?;
        write_text(&self.output, CONFIG, &(serde_json::to_string_pretty(&llama.config)? + "\n"))?;
        Ok(spec)
    }
}

/// True if the file begins as a GGUF file does.
fn is_gguf(path: &Path) -> Result<bool> {
    let mut head = [0; 4];
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let read = file.read(&mut head).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(read == head.len() && &head == b"GGUF" || path.extension().is_some_and(|e| e == "gguf"))
}

impl Report {
    fn show(&self) -> String {
        let folder = self.folder.display();
        format!(
            "{folder}: {}, {} parameters, {} in {}, {} tokens{}\n  lolm compile {folder}\n  lolm generate {folder} -p \"Once\" -n 64",
            self.kind,
            self.parameters,
            bytes(self.bytes),
            self.dtypes.join(" and "),
            self.vocab_size,
            if self.tokenizer { "" } else { ", no tokenizer" },
        )
    }
}
