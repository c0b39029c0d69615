//! `lolm export`: a model becomes a folder that Hugging Face's classes read, where they have one for it.
use crate::convert::{copy_as_ours, dtypes, fresh, write_text};
use crate::model_folder::{self, CONFIG, SPEC, folder_of};
use crate::output::{bytes, note, show};
use crate::run_folder::{RunFolder, newest, open, spec_of};
use anyhow::{Context, Result, ensure};
use clap::Args;
use lolm_models::spec::read_text;
use lolm_models::{Spec, hf, parameters};
use lolm_runtime::weights::{self, Purpose, WeightFiles};
use serde::Serialize;
use serde_json::Value;
use std::path::PathBuf;

/// Write a model as Hugging Face publishes it: config.json, safetensors under its names, tokenizer
#[derive(Args, Debug)]
pub struct Export {
    /// The folder of a run, whose newest whole checkpoint is taken, or of an imported model
    model: PathBuf,
    /// The folder that is made
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// The weights: a file of safetensors or a folder [default: those of the folder]
    #[arg(long, value_name = "PATH")]
    weights: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was exported.
#[derive(Serialize)]
struct Report {
    folder: PathBuf,
    /// Hugging Face's class, if it has one.
    class: Option<String>,
    /// Where the weights came from.
    weights: PathBuf,
    dtypes: Vec<String>,
    bytes: u64,
}

impl Export {
    pub fn run(self) -> Result<()> {
        ensure!(self.model.is_dir(), "{} is not the folder of a run or of a model", self.model.display());
        fresh(&self.output)?;
        let folder = RunFolder(self.model.clone());
        let spec = match folder.artifact().is_file() {
            true => spec_of(&open(&folder.artifact())?)?,
            false => model_folder::spec(&self.model, &[])?,
        };
        let from = self.weights.clone().map_or_else(|| newest(&folder).map(|(path, _)| path), Ok)?;
        let files = WeightFiles::open(&from)?;
        weights::check(&parameters(&spec)?, &files, &from, Purpose::Inference)?;
        copy_as_ours(&files, &self.output)?;
        model_folder::copy_texts(&folder_of(&self.model), &self.output)?;
        let config = self.config(&spec, &files)?;
        match &config {
            Some(config) => write_text(&self.output, CONFIG, config)?,
            None => {
                note(format_args!(
                    "note: Hugging Face has no class for this {}: {SPEC} says what it is",
                    spec.family.name()
                ));
                write_text(&self.output, SPEC, &spec.to_string())?;
            }
        }
        let class = config.as_deref().map(class_of).transpose()?.flatten();
        let report = Report {
            folder: self.output,
            class,
            weights: from,
            dtypes: dtypes(&files),
            bytes: files.iter().map(|t| t.data.len() as u64).sum(),
        };
        show(self.json, &report, Report::show)
    }

    /// The configuration that the model came with, if it still says the same and in Hugging Face's form; or a new one.
    fn config(&self, spec: &Spec, files: &WeightFiles) -> Result<Option<String>> {
        let path = self.model.join(CONFIG);
        if path.is_file() {
            let text = read_text(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let json: Value = serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
            let theirs = Spec::from_hf(&path.display().to_string(), &json, &[], &[])?;
            let same = theirs.family == spec.family && theirs.vocab_size == spec.vocab_size;
            if same && json.get("model_type").is_some() {
                return Ok(Some(text));
            }
        }
        let dtype = match dtypes(files).as_slice() {
            [one] if one == "BF16" => "bfloat16",
            [one] if one == "F16" => "float16",
            _ => "float32",
        };
        let config = hf::config(spec, dtype).map(|c| serde_json::to_string_pretty(&c)).transpose()?;
        Ok(config.map(|text| text + "\n"))
    }
}

/// The class that a configuration names.
fn class_of(config: &str) -> Result<Option<String>> {
    let json: Value = serde_json::from_str(config)?;
    Ok(json["architectures"][0].as_str().map(String::from))
}

impl Report {
    fn show(&self) -> String {
        let class = self.class.as_ref().map_or(String::new(), |c| format!("{c}, "));
        let (folder, weights) = (self.folder.display(), self.weights.display());
        format!("{folder}: {class}{} in {}, from {weights}", bytes(self.bytes), self.dtypes.join(" and "))
    }
}
