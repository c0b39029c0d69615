//! `lolm tokenizer`: trains one, and shows what one does.
use crate::commands::compile::write_whole;
use crate::output::{grouped, note, say, show, write_bytes};
use crate::tokenizer::{Tokenizer, Training, train};
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Train a tokenizer, or see what one makes of a text
#[derive(Args, Debug)]
pub struct Tokenize {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Train byte pairs on texts
    Train {
        /// Text files
        #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
        data: Vec<PathBuf>,
        /// Tokens, the 256 bytes and the special ones included
        #[arg(long, value_name = "N")]
        vocab_size: usize,
        /// Where the tokenizer goes
        #[arg(short, long, default_value = "tokenizer.json", value_name = "FILE")]
        out: PathBuf,
        /// Tokens that are no text
        #[arg(long, num_args = 0.., default_value = "<|endoftext|>", value_name = "TOKEN")]
        special: Vec<String>,
    },
    /// The tokens of a text
    Encode {
        #[command(flatten)]
        which: Which,
        /// The text
        #[arg(required_unless_present = "file", conflicts_with = "file")]
        text: Option<String>,
        /// A file with the text
        #[arg(short, long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Without the tokens that the model expects around a text
        #[arg(long)]
        bare: bool,
        /// Print JSON: ids and the bytes of each
        #[arg(long)]
        json: bool,
    },
    /// The text of tokens
    Decode {
        #[command(flatten)]
        which: Which,
        /// Tokens by number
        #[arg(required = true)]
        tokens: Vec<u32>,
    },
    /// What a tokenizer is
    Show {
        #[command(flatten)]
        which: Which,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug)]
struct Which {
    /// A tokenizer.json, a folder with one, `bytes` or `gpt2`
    tokenizer: String,
}

impl Which {
    fn open(&self) -> Result<Tokenizer> {
        let path = Path::new(&self.tokenizer);
        match self.tokenizer.as_str() {
            "bytes" => Ok(Tokenizer::bytewise()),
            "gpt2" => Tokenizer::gpt2(),
            _ if path.is_dir() => Tokenizer::open(&path.join("tokenizer.json")),
            _ => Tokenizer::open(path),
        }
    }
}

#[derive(Serialize)]
struct Token {
    id: u32,
    text: String,
}

#[derive(Serialize)]
struct Shown {
    tokens: usize,
    special: Vec<Token>,
    bos: Option<u32>,
    eos: Option<u32>,
    stops: Vec<u32>,
}

impl Tokenize {
    pub fn run(self) -> Result<()> {
        match self.what {
            What::Train { data, vocab_size, out, special } => train_on(&data, Training { vocab_size, special }, &out),
            What::Encode { which, text, file, bare, json } => encode(&which.open()?, text, file, !bare, json),
            What::Decode { which, tokens } => {
                write_bytes(&which.open()?.decode(&tokens)?);
                Ok(())
            }
            What::Show { which, json } => show(json, &shown(&which.open()?), people),
        }
    }
}

fn train_on(data: &[PathBuf], how: Training, out: &Path) -> Result<()> {
    let mut texts = vec![];
    for path in data {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        texts.push((path.display().to_string(), bytes));
    }
    let json = train(&texts, &how)?;
    write_whole(out, json.as_bytes())?;
    let t = Tokenizer::parse(json.as_bytes())?;
    if t.size() < how.vocab_size {
        note(format_args!("note: the texts give {} tokens and no more", grouped(t.size() as u64)));
    }
    say(format_args!(
        "{}: {} tokens\n\nIn a spec beside it: tokenizer = \"{}\" and vocab_size = {}",
        out.display(),
        grouped(t.size() as u64),
        out.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned()),
        t.size()
    ));
    Ok(())
}

fn encode(t: &Tokenizer, text: Option<String>, file: Option<PathBuf>, around: bool, json: bool) -> Result<()> {
    let (bytes, name) = match file {
        Some(path) => (std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?, path),
        None => (text.unwrap_or_default().into_bytes(), "the text".into()),
    };
    let ids = t.encode(&bytes, around, &name.display().to_string())?;
    let mut tokens = vec![];
    for id in &ids {
        tokens.push(Token { id: *id, text: String::from_utf8_lossy(t.bytes(*id)?).into_owned() });
    }
    show(json, &tokens, |_| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" "))
}

fn shown(t: &Tokenizer) -> Shown {
    let special = (0..t.size() as u32).filter(|id| t.is_special(*id));
    let special = special.filter_map(|id| Some(Token { id, text: t.name(id)? })).collect();
    Shown {
        tokens: t.size(),
        special,
        bos: t.special.bos.as_ref().map(|b| b.id),
        eos: t.special.eos.as_ref().map(|e| e.id),
        stops: t.special.stops.clone(),
    }
}

fn people(s: &Shown) -> String {
    let special: Vec<String> = s.special.iter().map(|t| format!("  {:>7} {}", t.id, t.text)).collect();
    let number = |id: Option<u32>| id.map_or("none".into(), |id| id.to_string());
    let stops: Vec<String> = s.stops.iter().map(u32::to_string).collect();
    let stops = if stops.is_empty() { "nothing".into() } else { stops.join(", ") };
    format!(
        "{} tokens; first {}, last {}; generation ends at {stops}\nspecial tokens:\n{}",
        grouped(s.tokens as u64),
        number(s.bos),
        number(s.eos),
        special.join("\n")
    )
}
