//! The special tokens of a model, from the files beside its tokenizer: `tokenizer_config.json`,
//! `special_tokens_map.json`, `generation_config.json`, `config.json`.
use super::affix::Affix;
use super::file::read;
use anyhow::{Context, Result};
use serde_json::{Map, Value};
use std::path::Path;

/// The tokens at the beginning and end of texts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Special {
    pub bos: Option<Named>,
    pub eos: Option<Named>,
    pub pad: Option<Named>,
    pub unk: Option<Named>,
    /// Whether the first and the last token stand around a text, if the tokenizer itself says nothing.
    pub add: (bool, bool),
    /// Generation ends at each of these: the end of a text, of a turn, of a message.
    pub stops: Vec<u32>,
}

/// A token and its id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named {
    pub id: u32,
    pub text: String,
}

impl Special {
    pub fn affix(&self) -> Affix {
        let one = |on: bool, token: &Option<Named>| token.iter().filter(|_| on).map(|t| t.id).collect();
        Affix { before: one(self.add.0, &self.bos), after: one(self.add.1, &self.eos) }
    }
}

/// The files, those that are there.
#[derive(Default)]
pub struct Files {
    tokenizer: Map<String, Value>,
    map: Map<String, Value>,
    generation: Map<String, Value>,
    model: Map<String, Value>,
}

impl Files {
    pub fn read(folder: &Path) -> Result<Files> {
        Ok(Files {
            tokenizer: object(&folder.join("tokenizer_config.json"))?,
            map: object(&folder.join("special_tokens_map.json"))?,
            generation: object(&folder.join("generation_config.json"))?,
            model: object(&folder.join("config.json"))?,
        })
    }

    /// What they say, with ids by `id`.
    pub fn special(&self, id: &dyn Fn(&str) -> Option<u32>) -> Result<Special> {
        let token = |key: &str| -> Result<Option<Named>> {
            let found = self.tokenizer.get(key).filter(|v| !v.is_null()).or_else(|| self.map.get(key));
            let Some(text) = found.filter(|v| !v.is_null()) else { return Ok(None) };
            let text = text.as_str().or_else(|| text.get("content").and_then(Value::as_str));
            let text = text.with_context(|| format!("{key} of tokenizer_config.json is not a token"))?;
            let id = id(text);
            let id = id.with_context(|| format!("{key} of tokenizer_config.json is `{text}`, which is no token"))?;
            Ok(Some(Named { id, text: text.into() }))
        };
        let flag = |key: &str| match self.tokenizer.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(v) => v.as_bool().with_context(|| format!("{key} of tokenizer_config.json is neither true nor false")),
        };
        let mut special = Special {
            bos: token("bos_token")?,
            eos: token("eos_token")?,
            pad: token("pad_token")?,
            unk: token("unk_token")?,
            add: (flag("add_bos_token")?, flag("add_eos_token")?),
            stops: vec![],
        };
        special.stops.extend(special.eos.iter().map(|t| t.id));
        special.stops.extend(ids(&self.generation, "generation_config.json")?);
        special.stops.extend(ids(&self.model, "config.json")?);
        special.stops.sort_unstable();
        special.stops.dedup();
        Ok(special)
    }
}

/// `eos_token_id`: a number, a list, or nothing.
fn ids(file: &Map<String, Value>, name: &str) -> Result<Vec<u32>> {
    let one = |v: &Value| -> Result<u32> {
        let id = v.as_u64().and_then(|id| u32::try_from(id).ok());
        id.with_context(|| format!("eos_token_id of {name} holds {v}, expected a token's number"))
    };
    match file.get("eos_token_id") {
        None | Some(Value::Null) => Ok(vec![]),
        Some(Value::Array(list)) => list.iter().map(one).collect(),
        Some(v) => Ok(vec![one(v)?]),
    }
}

/// A JSON file with an object, or nothing if there is no such file.
pub fn object(path: &Path) -> Result<Map<String, Value>> {
    if !crate::bundle::is_file(path) {
        return Ok(Map::new());
    }
    serde_json::from_slice(&read(path)?).with_context(|| format!("{} is not a JSON object", path.display()))
}
