//! The tokenizer in a GGUF file, as the files that Hugging Face's models have.
//!
//! `tokenizer.ggml.model` is `gpt2` for byte-level pairs with their merges, or `llama` for SentencePiece's pairs, where
//! the scores say which merge comes first. Both become a `tokenizer.json`; special tokens and the chat template become a
//! `tokenizer_config.json`, and the tokens that end generation a `generation_config.json`.
use super::pre;
use anyhow::{Context, Result, bail, ensure};
use lolm_models::gguf::Gguf;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Names and contents of the files.
pub struct TokenizerFiles {
    pub tokenizer: String,
    pub tokenizer_config: String,
    /// None if the file names no token that ends a text.
    pub generation_config: Option<String>,
}

impl TokenizerFiles {
    /// The files as they lie in a model's folder.
    pub fn files(&self) -> Vec<(&'static str, &str)> {
        let mut out = vec![
            ("tokenizer.json", self.tokenizer.as_str()),
            ("tokenizer_config.json", self.tokenizer_config.as_str()),
        ];
        out.extend(self.generation_config.as_deref().map(|text| ("generation_config.json", text)));
        out
    }
}

/// The kinds of token in `tokenizer.ggml.token_type`.
const NORMAL: u32 = 1;
const UNKNOWN: u32 = 2;
const CONTROL: u32 = 3;
const USER_DEFINED: u32 = 4;

/// Control tokens that end a turn or a text under these names, in files that do not name them by number.
const ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "<EOT>",
];
/// SentencePiece makes no piece longer than some dozen bytes.
const LONGEST_PIECE: usize = 512;

/// The files for the tokenizer of a GGUF file.
pub fn from_gguf(gguf: &Gguf) -> Result<TokenizerFiles> {
    let v = Vocabulary::read(gguf)?;
    let model = gguf.text("tokenizer.ggml.model")?.context("there is no key tokenizer.ggml.model")?;
    let parts = match model {
        "gpt2" => byte_level(gguf, &v)?,
        "llama" => spaces(gguf, &v)?,
        other => bail!("tokenizer.ggml.model is `{other}`, which is not supported: these are gpt2, llama"),
    };
    let special = Special::read(gguf, &v, model == "llama", parts.add_bos)?;
    let tokenizer = serde_json::to_string(&Json {
        version: "1.0",
        truncation: None,
        padding: None,
        added_tokens: v.added(&special),
        normalizer: &parts.normalizer,
        pre_tokenizer: &parts.pre_tokenizer,
        post_processor: special.post_processor(&v),
        decoder: &parts.decoder,
        model: Model {
            kind: "BPE",
            dropout: None,
            unk_token: special.unk.filter(|_| parts.unk).map(|id| v.tokens[id as usize]),
            continuing_subword_prefix: None,
            end_of_word_suffix: None,
            fuse_unk: parts.unk,
            byte_fallback: parts.byte_fallback,
            ignore_merges: parts.ignore_merges,
            vocab: Ordered(&v.tokens),
            merges: parts.merges,
        },
    })?;
    // What was made here is read here, so that a fault in the file is found where the file is named.
    super::Tokenizer::parse(tokenizer.as_bytes())?;
    let template = gguf.text("tokenizer.chat_template")?;
    Ok(TokenizerFiles {
        tokenizer,
        tokenizer_config: serde_json::to_string_pretty(&special.config(&v, template))? + "\n",
        generation_config: special.generation()?,
    })
}

/// Tokens in the order of their ids.
struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    /// As many as tokens.
    kinds: Vec<u32>,
    ids: BTreeMap<&'a str, u32>,
}

impl<'a> Vocabulary<'a> {
    fn read(gguf: &Gguf<'a>) -> Result<Vocabulary<'a>> {
        let tokens = gguf.texts("tokenizer.ggml.tokens")?.context("there is no key tokenizer.ggml.tokens")?;
        let kinds = gguf.integers("tokenizer.ggml.token_type")?.unwrap_or(vec![NORMAL; tokens.len()]);
        ensure!(
            kinds.len() == tokens.len(),
            "tokenizer.ggml.token_type has {} entries for {} tokens",
            kinds.len(),
            tokens.len()
        );
        let mut ids = BTreeMap::new();
        for (id, token) in tokens.iter().enumerate() {
            if let Some(other) = ids.insert(*token, id as u32) {
                bail!("the tokens {other} and {id} are both `{token}`");
            }
        }
        Ok(Vocabulary { tokens, kinds, ids })
    }

    /// The tokens that are found in a text before anything else, special ones among them.
    fn added(&self, special: &Special) -> Vec<Value> {
        let named = [special.bos, special.eos, special.pad, special.unk];
        let one = |(id, kind): (usize, &u32)| {
            let steers = matches!(*kind, CONTROL | UNKNOWN) || named.contains(&Some(id as u32));
            let text = self.tokens[id];
            (!text.is_empty() && (steers || *kind == USER_DEFINED)).then(|| {
                json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": steers})
            })
        };
        self.kinds.iter().enumerate().filter_map(one).collect()
    }
}

/// What the two kinds of vocabulary make of a `tokenizer.json`.
struct Parts<'a> {
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    merges: Vec<(&'a str, &'a str)>,
    /// Characters without a token become the unknown one.
    unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    add_bos: bool,
}

fn byte_level<'a>(gguf: &Gguf<'a>, v: &Vocabulary<'a>) -> Result<Parts<'a>> {
    let name = gguf.text("tokenizer.ggml.pre")?;
    if name.is_none() {
        crate::output::note("note: the file has no tokenizer.ggml.pre; texts are cut by `default`, as llama.cpp does");
    }
    let pre = pre::named(name.unwrap_or("default"))?;
    let merges = gguf.texts("tokenizer.ggml.merges")?.context("there is no key tokenizer.ggml.merges")?;
    let merge = |(i, text): (usize, &&'a str)| {
        // A token may begin with a space in vocabularies that are not byte-level, so the first is never the border.
        let first = text.chars().next().map_or(0, char::len_utf8);
        let border = text[first..].find(' ').map(|at| at + first);
        let pair = border.map(|at| (&text[..at], &text[at + 1..]));
        let pair = pair.filter(|(a, b)| v.ids.contains_key(a) && v.ids.contains_key(b));
        pair.with_context(|| format!("merge {i} is `{text}`, expected two tokens with a space between them"))
    };
    Ok(Parts {
        normalizer: Value::Null,
        pre_tokenizer: pre.pre_tokenizer,
        decoder: json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        merges: merges.iter().enumerate().map(merge).collect::<Result<_>>()?,
        unk: false,
        byte_fallback: false,
        ignore_merges: pre.ignore_merges,
        add_bos: pre.add_bos,
    })
}

fn spaces<'a>(gguf: &Gguf<'a>, v: &Vocabulary<'a>) -> Result<Parts<'a>> {
    ensure!(
        gguf.flag("tokenizer.ggml.remove_extra_whitespaces")? != Some(true),
        "tokenizer.ggml.remove_extra_whitespaces is not supported"
    );
    let prefix = gguf.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let prepend = prefix.then(|| json!({"type": "Prepend", "prepend": "▁"}));
    let normalizers: Vec<Value> = prepend.into_iter().chain([replace]).collect();
    let strip = prefix.then(|| json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    decoders.extend(strip);
    Ok(Parts {
        normalizer: json!({"type": "Sequence", "normalizers": normalizers}),
        pre_tokenizer: Value::Null,
        decoder: json!({"type": "Sequence", "decoders": decoders}),
        merges: merges_of_scores(gguf, v)?,
        unk: true,
        byte_fallback: (0..=255u8).all(|b| v.ids.contains_key(format!("<0x{b:02X}>").as_str())),
        ignore_merges: false,
        add_bos: true,
    })
}

/// The merges that scores mean: all pairs of tokens that make a token, the greatest score first, as transformers orders
/// them.
fn merges_of_scores<'a>(gguf: &Gguf<'a>, v: &Vocabulary<'a>) -> Result<Vec<(&'a str, &'a str)>> {
    let scores = gguf.floats("tokenizer.ggml.scores")?.context("there is no key tokenizer.ggml.scores")?;
    let n = v.tokens.len();
    ensure!(scores.len() == n, "tokenizer.ggml.scores has {} entries for {n} tokens", scores.len());
    let mut all = vec![];
    for (id, token) in v.tokens.iter().enumerate().filter(|(id, _)| v.kinds[*id] == NORMAL) {
        ensure!(!scores[id].is_nan(), "the score of token {id} is not a number");
        ensure!(token.len() <= LONGEST_PIECE, "token {id} has {} bytes, expected {LONGEST_PIECE} at most", token.len());
        let mut pairs = vec![];
        for (at, _) in token.char_indices().skip(1) {
            let (a, b) = token.split_at(at);
            if let (Some(i), Some(j)) = (v.ids.get(a), v.ids.get(b)) {
                pairs.push((*i, *j, a, b));
            }
        }
        pairs.sort_unstable();
        all.extend(pairs.into_iter().map(|(_, _, a, b)| (scores[id], a.chars().count(), b.chars().count(), a, b)));
    }
    all.sort_by(|x, y| y.0.total_cmp(&x.0).then(y.1.cmp(&x.1)).then(y.2.cmp(&x.2)));
    Ok(all.into_iter().map(|m| (m.3, m.4)).collect())
}

/// The special tokens, by number.
struct Special {
    bos: Option<u32>,
    eos: Option<u32>,
    pad: Option<u32>,
    unk: Option<u32>,
    /// Other tokens that end a turn.
    ends: Vec<u32>,
    add_bos: bool,
    add_eos: bool,
}

impl Special {
    fn read(gguf: &Gguf, v: &Vocabulary, spaces: bool, add_bos: bool) -> Result<Special> {
        let token = |key: &str, usual: Option<u32>| -> Result<Option<u32>> {
            let key = format!("tokenizer.ggml.{key}_token_id");
            let Some(id) = gguf.unsigned(&key)? else { return Ok(usual.filter(|id| (*id as usize) < v.tokens.len())) };
            ensure!(id < v.tokens.len() as u64, "{key} is {id}, but there are {} tokens", v.tokens.len());
            Ok(Some(id as u32))
        };
        let usual = |id: u32| spaces.then_some(id);
        let (bos, eos) = (token("bos", usual(1))?, token("eos", usual(2))?);
        let mut ends: Vec<u32> = [token("eot", None)?, token("eom", None)?].into_iter().flatten().collect();
        let named = ENDS.iter().filter_map(|name| v.ids.get(name)).filter(|id| v.kinds[**id as usize] == CONTROL);
        ends.extend(named.copied());
        let flag = |key: &str, usual: bool| anyhow::Ok(gguf.flag(key)?.unwrap_or(usual));
        let s = Special {
            bos,
            eos,
            pad: token("padding", None)?,
            unk: token("unknown", usual(0))?,
            ends,
            add_bos: flag("tokenizer.ggml.add_bos_token", add_bos && bos.is_some())?,
            add_eos: flag("tokenizer.ggml.add_eos_token", false)?,
        };
        ensure!(!s.add_bos || bos.is_some(), "tokenizer.ggml.add_bos_token is true, but there is no such token");
        ensure!(!s.add_eos || eos.is_some(), "tokenizer.ggml.add_eos_token is true, but there is no such token");
        Ok(s)
    }

    /// What puts the first and the last token around a text.
    fn post_processor(&self, v: &Vocabulary) -> Value {
        let on = |on: bool, id: Option<u32>| id.filter(|_| on);
        let (bos, eos) = (on(self.add_bos, self.bos), on(self.add_eos, self.eos));
        if bos.is_none() && eos.is_none() {
            return Value::Null;
        }
        let name = |id: u32| v.tokens[id as usize];
        let piece = |id: u32, of: u32| json!({"SpecialToken": {"id": name(id), "type_id": of}});
        let around = |letter: &str, of: u32| {
            let text = json!({"Sequence": {"id": letter, "type_id": of}});
            let begin = bos.map(|id| piece(id, of));
            begin.into_iter().chain([text]).chain(eos.map(|id| piece(id, of))).collect::<Vec<Value>>()
        };
        let entry = |id: u32| (name(id).to_string(), json!({"id": name(id), "ids": [id], "tokens": [name(id)]}));
        let tokens: Map<String, Value> = bos.into_iter().chain(eos).map(entry).collect();
        let pair = [around("A", 0), around("B", 1)].concat();
        json!({"type": "TemplateProcessing", "single": around("A", 0), "pair": pair, "special_tokens": tokens})
    }

    fn config(&self, v: &Vocabulary, template: Option<&str>) -> Value {
        let mut out = Map::new();
        for (key, id) in
            [("bos_token", self.bos), ("eos_token", self.eos), ("pad_token", self.pad), ("unk_token", self.unk)]
        {
            out.extend(id.map(|id| (key.into(), json!(v.tokens[id as usize]))));
        }
        out.insert("add_bos_token".into(), json!(self.add_bos));
        out.insert("add_eos_token".into(), json!(self.add_eos));
        out.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
        out.extend(template.map(|text| ("chat_template".into(), json!(text))));
        Value::Object(out)
    }

    fn generation(&self) -> Result<Option<String>> {
        let mut ends: Vec<u32> = self.eos.into_iter().chain(self.ends.iter().copied()).collect();
        let mut seen = std::collections::BTreeSet::new();
        ends.retain(|id| seen.insert(*id));
        if ends.is_empty() {
            return Ok(None);
        }
        let mut out = Map::new();
        out.extend(self.bos.map(|id| ("bos_token_id".into(), json!(id))));
        out.insert("eos_token_id".into(), json!(ends));
        out.extend(self.pad.map(|id| ("pad_token_id".into(), json!(id))));
        Ok(Some(serde_json::to_string_pretty(&out)? + "\n"))
    }
}

/// A `tokenizer.json`, with its keys in their usual order.
#[derive(Serialize)]
struct Json<'a> {
    version: &'static str,
    truncation: Option<()>,
    padding: Option<()>,
    added_tokens: Vec<Value>,
    normalizer: &'a Value,
    pre_tokenizer: &'a Value,
    post_processor: Value,
    decoder: &'a Value,
    model: Model<'a>,
}

#[derive(Serialize)]
struct Model<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    dropout: Option<()>,
    unk_token: Option<&'a str>,
    continuing_subword_prefix: Option<()>,
    end_of_word_suffix: Option<()>,
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    vocab: Ordered<'a>,
    merges: Vec<(&'a str, &'a str)>,
}

/// Tokens and their ids, in the order of the ids.
struct Ordered<'a>(&'a [&'a str]);

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.0.iter().enumerate().map(|(id, token)| (token, id)))
    }
}
