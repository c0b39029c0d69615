//! The names that GGUF has for the ways to cut a text before byte pairs are merged (`tokenizer.ggml.pre`), as
//! `pre_tokenizer` of a `tokenizer.json`.
use anyhow::{Result, bail};
use serde_json::{Value, json};

/// How a text is cut, and what goes with it.
pub struct Pre {
    pub pre_tokenizer: Value,
    /// A word that is a token need not be made by merges.
    pub ignore_merges: bool,
    /// Texts begin with the first token unless the file says otherwise.
    pub add_bos: bool,
}

/// GPT-2's pattern without the last alternative, which only takes what is left over anyway.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";
/// Llama 3's: numbers of up to three digits, line breaks with what stands before them.
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// Qwen 2's: as Llama 3's, with single digits.
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// Mistral's tekken: words in which capitals come first.
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|",
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// GPT-4o's: as tekken's, with endings such as 's at their words and numbers of up to three digits.
const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// Names, the patterns that cut one after the other, whether merges are ignored for whole words, and whether texts begin
/// with the first token.
type Row = (&'static [&'static str], &'static [&'static str], bool, bool);
const ROWS: &[Row] = &[
    (&["gpt-2", "phi-2", "olmo", "mpt", "jais", "gigachat", "mellum", "trillion", "exaone4"], &[GPT2], false, false),
    (
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        &[r"\p{N}", GPT2],
        false,
        false,
    ),
    (
        &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        &[LLAMA3],
        true,
        true,
    ),
    (&["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], &[LLAMA3], false, false),
    (
        &["qwen2", "deepseek-r1-qwen", "kormo", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2"],
        &[QWEN2],
        false,
        false,
    ),
    (&["tekken"], &[TEKKEN], true, true),
    (&["gpt-4o", "llama4", "kanana2"], &[GPT4O], false, false),
    (&["falcon"], &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"], false, false),
    (&["default"], &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"], false, false),
];

/// What a name means.
pub fn named(name: &str) -> Result<Pre> {
    let Some((_, patterns, ignore_merges, add_bos)) = ROWS.iter().find(|row| row.0.contains(&name)) else {
        let known: Vec<&str> = ROWS.iter().flat_map(|row| row.0).copied().collect();
        bail!("tokenizer.ggml.pre is `{name}`, which is not supported: these are {}", known.join(", "));
    };
    let split = |p: &&str| json!({"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": false});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let parts: Vec<Value> = patterns.iter().map(split).chain([bytes]).collect();
    let pre_tokenizer = json!({"type": "Sequence", "pretokenizers": parts});
    Ok(Pre { pre_tokenizer, ignore_merges: *ignore_merges, add_bos: *add_bos })
}
