//! Log-probabilities of tokens, as OpenAI writes them in its two forms.
use crate::tokenizer::Tokenizer;
use crate::trace::{LEAST, logprob};
use anyhow::Result;
use lolm_runtime::serve::Token;
use serde_json::{Map, Value, json};

/// A token as it is told.
pub struct Entry {
    text: Spelling,
    /// The first token of a prompt has none.
    logprob: Option<f32>,
    /// The most probable ones, the greatest first.
    top: Vec<(Spelling, f32)>,
    /// Characters before it.
    offset: usize,
}

/// A token as a text, and its bytes.
struct Spelling {
    text: String,
    bytes: Vec<u8>,
}

impl Entry {
    /// With up to `top` of the most probable tokens.
    pub fn of(tokenizer: &Tokenizer, token: &Token, top: usize, offset: usize) -> Result<Entry> {
        let spelt = |(id, x): &(u32, f32)| Ok((spelling(tokenizer, *id)?, *x));
        Ok(Entry {
            text: spelling(tokenizer, token.id)?,
            logprob: token.logprob,
            top: token.top.iter().take(top).map(spelt).collect::<Result<_>>()?,
            offset,
        })
    }
}

/// Tokens that are no whole characters are told by their bytes, so that no two of them look the same.
fn spelling(tokenizer: &Tokenizer, id: u32) -> Result<Spelling> {
    let bytes = tokenizer.bytes(id)?.to_vec();
    let text = match (std::str::from_utf8(&bytes), bytes.is_empty()) {
        (Ok(text), false) => text.to_string(),
        // Nothing is written for it within a text: it steers, or it only fills the vocabulary.
        (_, true) => tokenizer.name(id).unwrap_or_else(|| format!("token_id:{id}")),
        (Err(_), _) => bytes.iter().fold("bytes:".to_string(), |out, b| out + &format!("\\x{b:02x}")),
    };
    Ok(Spelling { text, bytes })
}

/// vLLM's form of a prompt's tokens: each an object of its number, and those of the most probable ones, to what is known of
/// them. The first token has none.
pub fn prompt(tokenizer: &Tokenizer, tokens: &[Token], top: usize) -> Result<Value> {
    let one = |token: &Token| {
        let Some(own) = token.logprob else { return Ok(Value::Null) };
        let ranked = token.top.iter().take(top).zip(1..).map(|((id, x), rank)| (*id, *x, Some(rank)));
        let mut out = Map::new();
        for (id, x, rank) in [(token.id, own, token.rank)].into_iter().chain(ranked) {
            let known = json!({"logprob": logprob(x), "rank": rank, "decoded_token": spelling(tokenizer, id)?.text});
            out.entry(id.to_string()).or_insert(known);
        }
        Ok(Value::Object(out))
    };
    tokens.iter().map(one).collect::<Result<Vec<Value>>>().map(Value::from)
}

/// The form of completions: lists by token, and the most probable ones as an object, which also holds the token itself.
pub fn completion(entries: Vec<Entry>) -> Value {
    let (mut tokens, mut logprobs, mut tops, mut offsets) = (vec![], vec![], vec![], vec![]);
    for e in entries {
        let top = e.logprob.map(|own| {
            let mut map = Map::new();
            // Two tokens may look the same; the greater one stays, so that the greatest is always there.
            for (text, x) in e.top.iter().map(|(t, x)| (&t.text, *x)).chain([(&e.text.text, own)]) {
                map.entry(text.clone()).or_insert_with(|| logprob(x));
            }
            Value::Object(map)
        });
        tokens.push(Value::from(e.text.text));
        logprobs.push(e.logprob.map_or(Value::Null, logprob));
        tops.push(top.unwrap_or(Value::Null));
        offsets.push(Value::from(e.offset));
    }
    json!({"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": tops, "text_offset": offsets})
}

/// The form of chats: an object a token.
pub fn chat(entries: Vec<Entry>) -> Value {
    let one = |t: &Spelling, x: f32| json!({"token": t.text, "logprob": logprob(x), "bytes": t.bytes});
    let all: Vec<Value> = entries
        .iter()
        .map(|e| {
            let mut out = one(&e.text, e.logprob.unwrap_or(LEAST));
            out["top_logprobs"] = e.top.iter().map(|(t, x)| one(t, *x)).collect();
            out
        })
        .collect();
    json!({"content": all, "refusal": null})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: u32, logprob: Option<f32>, top: &[(u32, f32)]) -> Token {
        Token { id, logprob, rank: logprob.map(|_| 3), top: top.to_vec(), trace: None }
    }

    #[test]
    fn both_forms_hold_the_same_numbers() {
        let t = Tokenizer::bytewise();
        let entries = || {
            vec![
                Entry::of(&t, &token(b'a'.into(), None, &[]), 2, 0).unwrap(),
                Entry::of(
                    &t,
                    &token(b'b'.into(), Some(-0.1), &[(b'b'.into(), -0.1), (b'c'.into(), f32::NEG_INFINITY)]),
                    2,
                    1,
                )
                .unwrap(),
                Entry::of(&t, &token(0xe6, Some(-2.5), &[(b'x'.into(), -0.3), (b'y'.into(), -9.0)]), 1, 2).unwrap(),
            ]
        };
        let c = completion(entries());
        assert_eq!(c["tokens"], json!(["a", "b", "bytes:\\xe6"]));
        assert_eq!(c["token_logprobs"], json!([null, -0.1f32, -2.5]));
        assert_eq!(c["top_logprobs"], json!([null, {"b": -0.1f32, "c": -9999.0}, {"x": -0.3f32, "bytes:\\xe6": -2.5}]));
        assert_eq!(c["text_offset"], json!([0, 1, 2]));
        // The greatest of `top` and the token's own number are equal as text, as harnesses compare them.
        assert_eq!(c["top_logprobs"][1]["b"].to_string(), c["token_logprobs"][1].to_string());
        let c = chat(entries());
        assert_eq!(c["content"][2]["bytes"], json!([0xe6]));
        assert_eq!(c["content"][1]["top_logprobs"][1]["token"], "c");
        assert!(Entry::of(&t, &token(256, None, &[]), 0, 0).is_err());
    }

    #[test]
    fn a_prompt_is_told_by_numbers() {
        let t = Tokenizer::bytewise();
        let tokens = [
            token(b'a'.into(), None, &[]),
            token(b'b'.into(), Some(-2.5), &[(b'x'.into(), -0.25), (b'y'.into(), -1.0)]),
        ];
        let own = json!({"logprob": -2.5, "rank": 3, "decoded_token": "b"});
        let x = json!({"logprob": -0.25, "rank": 1, "decoded_token": "x"});
        assert_eq!(prompt(&t, &tokens, 1).unwrap(), json!([null, {"98": own, "120": x}]));
    }
}
