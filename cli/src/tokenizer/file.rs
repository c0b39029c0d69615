//! A `tokenizer.json` of Hugging Face's tokenizers: checked, read, and asked for tokens.
use super::affix::Affix;
use super::check::{added, check};
use super::decoder::Decoder;
use super::pieces::Pieces;
use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Map, Value};
use std::path::Path;

/// The largest file that is read; the largest of published models have 40 MB.
const LARGEST: u64 = 1 << 28;

/// The library, with what it is not asked for: decoding, and the tokens around a text.
pub struct File {
    library: tokenizers::Tokenizer,
    pub decoder: Decoder,
    /// What the file itself puts around a text; none if it says nothing about that.
    pub affix: Option<Affix>,
    pub pieces: Pieces,
}

impl File {
    pub fn open(path: &Path) -> Result<File> {
        File::parse(&read(path)?).with_context(|| format!("{} is not a tokenizer that can be used", path.display()))
    }

    pub fn parse(text: &[u8]) -> Result<File> {
        let mut file: Map<String, Value> = serde_json::from_slice(text)?;
        let greatest = check(&file)?;
        let null = Value::Null;
        let part = |name: &str| file.get(name).unwrap_or(&null);
        let decoder = Decoder::read(part("decoder"))?;
        let affix = Affix::read(part("post_processor"))?;
        let ids: Vec<(u32, String)> = added(part("added_tokens"))?.into_iter().map(|(i, t)| (i, t.into())).collect();
        for done_here in ["decoder", "post_processor", "truncation", "padding"] {
            file.insert(done_here.into(), Value::Null);
        }
        let library: tokenizers::Tokenizer = serde_json::from_value(Value::Object(file))?;
        for (id, token) in &ids {
            let found = library.token_to_id(token);
            ensure!(
                found == Some(*id),
                "the added token `{token}` has the id {id}, but its place in the vocabulary is {found:?}"
            );
        }
        let pieces = pieces(&library, &decoder, greatest);
        Ok(File { library, decoder, affix, pieces })
    }

    /// The tokens of a text, special ones in it included, nothing added around it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.library.encode_fast(text, false).map_err(|e| anyhow!("{e}"))?;
        Ok(encoding.get_ids().to_vec())
    }

    pub fn id(&self, token: &str) -> Option<u32> {
        self.library.token_to_id(token)
    }
    /// A token as the file spells it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.library.id_to_token(id)
    }
}

/// The bytes of all tokens.
fn pieces(library: &tokenizers::Tokenizer, decoder: &Decoder, greatest: u32) -> Pieces {
    let added = library.get_added_vocabulary().get_added_tokens_decoder();
    let mut out = Pieces::default();
    for id in 0..=greatest {
        let special = added.get(&id).is_some_and(|t| t.special);
        match library.id_to_token(id) {
            Some(token) => out.push(&decoder.bytes(&token), special),
            None => out.push(b"", true),
        }
    }
    out
}

/// The bytes of a file of a size that such files have, or of one in the executable that runs.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    if let Some(bytes) = crate::bundle::find(path)? {
        return Ok(bytes);
    }
    let cannot = || format!("cannot read {}", path.display());
    let size = std::fs::metadata(path).with_context(cannot)?.len();
    ensure!(size <= LARGEST, "{} has {size} bytes, which is more than any tokenizer has", path.display());
    std::fs::read(path).with_context(cannot)
}
