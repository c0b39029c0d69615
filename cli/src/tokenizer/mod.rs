//! Text to tokens and back: bytes, GPT-2's byte pairs, or a `tokenizer.json`.
//!
//! Every kind knows the exact bytes of each of its tokens, so a text that comes token by token is joined from bytes and
//! given on by whole characters ([`Characters`]), wherever a tokenizer cuts them.
mod affix;
mod characters;
mod check;
mod decoder;
mod file;
mod gguf;
#[cfg(test)]
mod gguf_tests;
mod long;
mod pieces;
mod pre;
mod special;
mod stop;
#[cfg(test)]
mod tests;
mod text;
mod train;

pub use characters::Characters;
pub use file::read as read_file;
pub use gguf::{TokenizerFiles, from_gguf};
pub use special::{Named, Special, object};
pub use stop::Stop;
pub use text::{Seen, Text};
pub use train::{Training, train};

use affix::Affix;
use anyhow::{Context, Result, ensure};
use file::File;
use lolm_models::Spec;
use lolm_models::spec::Tokenizer as Kind;
use pieces::Pieces;
use std::path::Path;
use tiktoken_rs::CoreBPE;

/// The greatest gap between a tokenizer and its model's vocabulary that padding explains.
const USUAL_PADDING: usize = 1024;
/// The patterns of byte pairs look at runs of white space in a way that ends at about a million characters.
const LONGEST_SPACE: usize = 500_000;

/// A tokenizer of a model.
pub struct Tokenizer {
    kind: Encoder,
    /// The special tokens that the files beside it name.
    pub special: Special,
    /// What stands around a text.
    affix: Affix,
    /// The entries of the model's vocabulary: the tokenizer's, and what pads them.
    vocab: usize,
}

enum Encoder {
    Bytes(Pieces),
    Gpt2(&'static CoreBPE, Pieces),
    File(Box<File>),
}

impl Tokenizer {
    /// The tokenizer of a spec, whose files lie in this folder.
    pub fn of(spec: &Spec, folder: Option<&Path>) -> Result<Tokenizer> {
        let t = match &spec.tokenizer {
            Kind::Bytes => Tokenizer::bytewise(),
            Kind::Gpt2 => Tokenizer::gpt2()?,
            Kind::File(path) => Tokenizer::open(&folder.unwrap_or(Path::new("")).join(path))?,
        };
        t.within(spec.vocab_size)
    }

    pub fn bytewise() -> Tokenizer {
        let mut pieces = Pieces::default();
        (0..=255u8).for_each(|b| pieces.push(&[b], false));
        Tokenizer::new(Encoder::Bytes(pieces), Special::default(), Affix::default())
    }

    pub fn gpt2() -> Result<Tokenizer> {
        let bpe = tiktoken_rs::r50k_base_singleton();
        let mut pieces = Pieces::default();
        for id in 0..=GPT2_END {
            let bytes = bpe.decode_bytes(&[id]).with_context(|| format!("bug: GPT-2's token {id} has no bytes"))?;
            pieces.push(&bytes, id == GPT2_END);
        }
        Ok(Tokenizer::new(Encoder::Gpt2(bpe, pieces), Special::default(), Affix::default()))
    }

    /// A `tokenizer.json`, with what the files beside it say about special tokens.
    pub fn open(path: &Path) -> Result<Tokenizer> {
        let file = File::open(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Tokenizer::from_file(file, special::Files::read(folder)?)
    }

    /// A `tokenizer.json` by itself.
    pub fn parse(text: &[u8]) -> Result<Tokenizer> {
        Tokenizer::from_file(File::parse(text)?, special::Files::default())
    }

    fn from_file(file: File, beside: special::Files) -> Result<Tokenizer> {
        let special = beside.special(&|token| file.id(token))?;
        let affix = file.affix.clone().unwrap_or_else(|| special.affix());
        Ok(Tokenizer::new(Encoder::File(file.into()), special, affix))
    }

    fn new(kind: Encoder, special: Special, affix: Affix) -> Tokenizer {
        let mut t = Tokenizer { kind, special, affix, vocab: 0 };
        t.vocab = t.pieces().len();
        t
    }

    /// The same for a model whose vocabulary has `vocab` entries: no fewer than there are tokens.
    pub fn within(mut self, vocab: usize) -> Result<Tokenizer> {
        let size = self.size();
        ensure!(
            size <= vocab,
            "the tokenizer has {size} tokens, but the model's vocabulary has {vocab} entries: they do not belong together"
        );
        if vocab - size > USUAL_PADDING && matches!(self.kind, Encoder::File(_)) {
            crate::output::note(format_args!(
                "note: the tokenizer has {size} tokens, and the model's vocabulary has {vocab} entries"
            ));
        }
        self.vocab = vocab;
        Ok(self)
    }

    fn pieces(&self) -> &Pieces {
        match &self.kind {
            Encoder::Bytes(pieces) | Encoder::Gpt2(_, pieces) => pieces,
            Encoder::File(file) => &file.pieces,
        }
    }

    /// Tokens, from id 0 to the greatest.
    pub fn size(&self) -> usize {
        self.pieces().len()
    }

    /// The tokens of a text, with those around it that the model expects (a first one, for many) if `special`; `name` is
    /// what errors call the text. Byte pairs need UTF-8, bytes take anything. As with Hugging Face's, special tokens that
    /// are spelt out in a text are read as such by a `tokenizer.json`.
    pub fn encode(&self, text: &[u8], special: bool, name: &str) -> Result<Vec<u32>> {
        let tokens = match &self.kind {
            Encoder::Bytes(_) => text.iter().map(|b| *b as u32).collect(),
            Encoder::Gpt2(bpe, _) => bpe.encode_ordinary(readable(text, name, "gpt2")?),
            Encoder::File(file) => {
                let text = readable(text, name, "of the model")?;
                let one = |part: &str| file.encode(part).with_context(|| format!("{name} cannot be encoded"));
                long::encode_long(text, &one)?
            }
        };
        Ok(if special { self.affix.around(tokens) } else { tokens })
    }

    /// The bytes that a token stands for within a text. As with Hugging Face's, an id that the tokenizer does not have
    /// stands for nothing, if the model's vocabulary has it: it is there for a round number. Other ids are errors.
    pub fn bytes(&self, token: u32) -> Result<&[u8]> {
        ensure!((token as usize) < self.vocab, "token {token} is not of a vocabulary of {} entries", self.vocab);
        Ok(self.pieces().get(token).unwrap_or_default())
    }

    /// The bytes of a token as a reader sees it: none of a special one.
    pub fn shown(&self, token: u32) -> Result<&[u8]> {
        let bytes = self.bytes(token)?;
        Ok(if self.pieces().special(token) { b"" } else { bytes })
    }

    /// True of a token that steers a model and is no text.
    pub fn is_special(&self, token: u32) -> bool {
        self.pieces().special(token)
    }

    /// The bytes of a whole text as a reader sees it. Some tokenizers put a space before a text, which is dropped again.
    pub fn decode(&self, tokens: &[u32]) -> Result<Vec<u8>> {
        let mut out = vec![];
        let mut first = true;
        for token in tokens {
            let bytes = self.shown(*token)?;
            match (&self.kind, first && !self.is_special(*token)) {
                (Encoder::File(file), true) => {
                    first = false;
                    out.extend(file.token(*token).map_or(vec![], |t| file.decoder.first_bytes(&t)));
                }
                _ => out.extend_from_slice(bytes),
            }
        }
        if let Encoder::File(file) = &self.kind {
            file.decoder.head.cut(&mut out);
        }
        Ok(out)
    }

    /// A token by its name in the vocabulary, and the name of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        match &self.kind {
            Encoder::File(file) => file.id(token),
            Encoder::Bytes(_) | Encoder::Gpt2(..) => None,
        }
    }
    pub fn name(&self, id: u32) -> Option<String> {
        match &self.kind {
            Encoder::File(file) => file.token(id),
            Encoder::Bytes(_) | Encoder::Gpt2(..) => self.pieces().get(id).map(|b| b.escape_ascii().to_string()),
        }
    }
}

/// `<|endoftext|>`, the last of GPT-2's tokens.
const GPT2_END: u32 = 50256;

/// A text in UTF-8 that a pattern can go over.
fn readable<'a>(text: &'a [u8], name: &str, tokenizer: &str) -> Result<&'a str> {
    let text = std::str::from_utf8(text);
    let text = text.with_context(|| format!("{name} is not UTF-8, which the tokenizer {tokenizer} needs"))?;
    let longest = text.split(|c: char| !c.is_whitespace()).map(str::len).max().unwrap_or(0);
    ensure!(
        longest < LONGEST_SPACE,
        "{name} has {longest} bytes of white space in a row, expected fewer than {LONGEST_SPACE}"
    );
    Ok(text)
}
