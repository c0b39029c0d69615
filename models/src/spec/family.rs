//! A whole spec: the keys that every family has, and the dispatch to the family that `kind` names.
use super::reader::{Result, Section};
use super::source::{Node, Value};
use super::{Family, Spec, Tokenizer, griffin, jamba, lolm, mamba, run, samba, transformer};

const COMMON: &[&str] = &["kind", "tokenizer", "vocab_size", "max_seq_len", "optimizer", "training"];

/// Layers are unrolled, so their number is bounded more tightly than a length.
pub const MAX_LAYERS: usize = 1024;
/// Taps of a convolution are unrolled too.
pub const MAX_TAPS: usize = 64;

/// What reads the keys of a family; `max_seq_len` is at hand.
type Body = fn(&Section, usize) -> Result<Family>;

const KINDS: [(&str, (&[&str], Body)); 6] = [
    ("lolm", (lolm::KEYS, lolm::read)),
    ("transformer", (transformer::KEYS, transformer::read)),
    ("mamba", (mamba::KEYS, mamba::read)),
    ("jamba", (jamba::KEYS, jamba::read)),
    ("griffin", (griffin::KEYS, griffin::read)),
    ("samba", (samba::KEYS, samba::read)),
];

/// Reads a whole spec.
pub fn read(root: Node) -> Result<Spec> {
    let (keys, body) = Section::whole(root.clone())?.choice("kind", &KINDS)?;
    let s = Section::open("", root, &[COMMON, keys].concat())?;
    let (vocab_size, max_seq_len) = (s.length("vocab_size")?, s.length("max_seq_len")?);
    Ok(Spec {
        tokenizer: tokenizer(&s)?,
        vocab_size,
        max_seq_len,
        family: body(&s, max_seq_len)?,
        optimizer: run::optimizer(&s)?,
        training: run::training(&s, max_seq_len)?,
    })
}

/// `bytes`, `gpt2`, or the path of a `tokenizer.json`.
fn tokenizer(s: &Section) -> Result<Tokenizer> {
    match s.find("tokenizer").map(|n| &n.value) {
        Some(Value::Text(path)) if path.ends_with(".json") => Ok(Tokenizer::File(path.clone())),
        _ => {
            match s.choice("tokenizer", &[("bytes", true), ("gpt2", false), ("the path of a tokenizer.json", false)])? {
                true => Ok(Tokenizer::Bytes),
                false => Ok(Tokenizer::Gpt2),
            }
        }
    }
}
