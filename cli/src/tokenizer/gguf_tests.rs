//! Tokenizers of GGUF files: what they become, and what is refused.
use super::*;
use crate::tokenizer::decoder::byte_level;
use lolm_models::gguf::testing::Writer;
use lolm_models::gguf::{Gguf, Value, ValueType};
use std::collections::BTreeMap;

/// A byte-level vocabulary: two control tokens, a user's, the bytes, and some merges.
fn byte_level_file(pre: &str) -> Writer {
    let merges = ["Ġ t", "h e", "Ġt he", "1 2", "12 3", "' S", "Ġ Ġ"];
    let mut tokens: Vec<String> = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool>"].map(String::from).to_vec();
    tokens.extend(byte_level().into_iter().map(|(_, c)| c.to_string()));
    tokens.extend(merges.iter().map(|m| m.replace(' ', "")));
    let kinds: Vec<Value> = (0..tokens.len()).map(|i| Value::I32([3, 3, 3, 4].get(i).copied().unwrap_or(1))).collect();
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    Writer::default()
        .key("tokenizer.ggml.model", Value::Text("gpt2"))
        .key("tokenizer.ggml.pre", Value::Text(pre))
        .texts("tokenizer.ggml.tokens", &tokens)
        .array("tokenizer.ggml.token_type", ValueType::I32, &kinds)
        .texts("tokenizer.ggml.merges", &merges)
        .key("tokenizer.ggml.bos_token_id", Value::U32(1))
        .key("tokenizer.ggml.eos_token_id", Value::U32(2))
        .key("tokenizer.chat_template", Value::Text("{{ messages }}"))
}

/// A vocabulary of SentencePiece, with scores.
fn spaces_file() -> Writer {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).to_vec();
    tokens.extend((0..256).map(|b| format!("<0x{b:02X}>")));
    tokens.extend(["▁t", "he", "▁the", "er", "▁", "t", "h", "e", "r"].map(String::from));
    let kind = |i: usize| {
        Value::I32(if i == 0 {
            2
        } else if i < 3 {
            3
        } else if i < 259 {
            6
        } else {
            1
        })
    };
    let score = |i: usize| Value::F32(if i < 259 { 0.0 } else { 259.0 - i as f32 });
    let all = 0..tokens.len();
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    Writer::default()
        .key("tokenizer.ggml.model", Value::Text("llama"))
        .texts("tokenizer.ggml.tokens", &tokens)
        .array("tokenizer.ggml.token_type", ValueType::I32, &all.clone().map(kind).collect::<Vec<_>>())
        .array("tokenizer.ggml.scores", ValueType::F32, &all.map(score).collect::<Vec<_>>())
}

fn files(w: &Writer) -> Result<TokenizerFiles> {
    let bytes = w.bytes();
    from_gguf(&Gguf::parse(&bytes)?)
}

/// The texts of the tokens of a text.
fn cut(w: &Writer, text: &str) -> Vec<String> {
    let t = Tokenizer::parse(files(w).unwrap().tokenizer.as_bytes()).unwrap();
    let tokens = t.encode(text.as_bytes(), false, "text").unwrap();
    assert_eq!(t.decode(&tokens).unwrap(), text.as_bytes());
    tokens.iter().map(|id| String::from_utf8_lossy(t.bytes(*id).unwrap()).into_owned()).collect()
}

#[test]
fn byte_pairs_are_cut_as_the_name_says() {
    let text = " the1234'S  x";
    assert_eq!(cut(&byte_level_file("gpt-2"), text).join("|"), " the|123|4|'|S| | |x");
    assert_eq!(cut(&byte_level_file("smollm"), text).join("|"), " the|1|2|3|4|'|S| | |x");
    assert_eq!(cut(&byte_level_file("llama-bpe"), text).join("|"), " the|123|4|'S| | |x");
    assert_eq!(cut(&byte_level_file("qwen2"), text).join("|"), " the|1|2|3|4|'S| | |x");
    assert_eq!(cut(&byte_level_file("default"), text).join("|"), " the|123|4|'|S| | |x");
    assert_eq!(cut(&byte_level_file("smollm"), "a   b").join("|"), "a|  | |b");
    for name in ["tekken", "gpt-4o", "falcon", "mpt", "starcoder", "dbrx"] {
        assert!(!cut(&byte_level_file(name), "Who's there? I'm the 2nd.\r\n\n  — 漢字 🦀").is_empty());
    }
    let e = format!("{:#}", files(&byte_level_file("klingon")).err().unwrap());
    assert!(e.contains("tokenizer.ggml.pre is `klingon`") && e.contains("smollm"), "{e}");
}

#[test]
fn scores_become_merges() {
    let f = files(&spaces_file()).unwrap();
    let t = Tokenizer::parse(f.tokenizer.as_bytes()).unwrap();
    let names = |text: &str| -> Vec<String> {
        t.encode(text.as_bytes(), true, "text").unwrap().iter().map(|id| t.name(*id).unwrap()).collect()
    };
    // `▁t` comes first, so that `▁the` is made of it and `he`; `er` would have been another way to go on.
    assert_eq!(names("the ther\n"), ["<s>", "▁the", "▁the", "r", "<0x0A>"]);
    assert_eq!(t.decode(&t.encode("the é\n".as_bytes(), true, "text").unwrap()).unwrap(), "the é\n".as_bytes());
    let json: serde_json::Value = serde_json::from_str(&f.tokenizer).unwrap();
    assert_eq!(json["model"]["merges"][0], serde_json::json!(["▁", "t"]));
    assert_eq!(json["model"]["byte_fallback"], true);
    assert!(f.generation_config.unwrap().contains("\"eos_token_id\": [\n    2\n  ]"));
}

#[test]
fn special_tokens_and_template_are_kept() {
    let f = files(&byte_level_file("smollm")).unwrap();
    let config: BTreeMap<String, serde_json::Value> = serde_json::from_str(&f.tokenizer_config).unwrap();
    assert_eq!(config["bos_token"], "<|im_start|>");
    assert_eq!(config["eos_token"], "<|im_end|>");
    assert_eq!(config["add_bos_token"], false);
    assert_eq!(config["chat_template"], "{{ messages }}");
    let generation: serde_json::Value = serde_json::from_str(f.generation_config.as_ref().unwrap()).unwrap();
    // The end of a turn, and the end of a text, which is a control token of that name.
    assert_eq!(generation["eos_token_id"], serde_json::json!([2, 0]));
    let t = Tokenizer::parse(f.tokenizer.as_bytes()).unwrap();
    let tokens = t.encode(b"<|im_start|>t<tool><|im_end|>", true, "text").unwrap();
    assert_eq!((tokens[0], tokens[2], tokens[3], tokens.len()), (1, 3, 2, 4));
    assert_eq!(t.decode(&tokens).unwrap(), b"t<tool>");
    // Llama 3's files begin texts with the first token unless they say otherwise.
    let begins = |w: Writer| Tokenizer::parse(files(&w).unwrap().tokenizer.as_bytes()).unwrap().encode(b"t", true, "t");
    assert_eq!(begins(byte_level_file("llama-bpe")).unwrap()[0], 1);
    let off = byte_level_file("llama-bpe").key("tokenizer.ggml.add_bos_token", Value::Bool(false));
    assert_eq!(begins(off).unwrap().len(), 1);
    let end = byte_level_file("smollm").key("tokenizer.ggml.add_eos_token", Value::Bool(true));
    assert_eq!(begins(end).unwrap()[1], 2);
}

#[test]
fn faults_name_the_key() {
    let fault = |w: Writer| format!("{:#}", files(&w).err().expect("refused"));
    let model = |name| Writer::default().key("tokenizer.ggml.model", Value::Text(name));
    let check = |e: String, part: &str| assert!(e.contains(part), "{e}");
    check(fault(model("gpt2")), "no key tokenizer.ggml.tokens");
    check(fault(model("bert").texts("tokenizer.ggml.tokens", &["a"])), "`bert`, which is not supported");
    check(fault(model("gpt2").texts("tokenizer.ggml.tokens", &["a", "a"])), "tokens 0 and 1 are both `a`");
    check(fault(model("gpt2").texts("tokenizer.ggml.tokens", &["a"])), "no key tokenizer.ggml.merges");
    let two =
        |merge| model("gpt2").texts("tokenizer.ggml.tokens", &["a", "b"]).texts("tokenizer.ggml.merges", &[merge]);
    check(fault(two("a c")), "merge 0 is `a c`");
    check(fault(two("")), "merge 0 is ``");
    check(fault(two("a b")), "needs the token `ab`");
    let long = "x".repeat(600);
    let long = model("llama").texts("tokenizer.ggml.tokens", &[&long]).array(
        "tokenizer.ggml.scores",
        ValueType::F32,
        &[Value::F32(0.0)],
    );
    check(fault(long), "token 0 has 600 bytes");
    let one = || model("llama").texts("tokenizer.ggml.tokens", &["a"]);
    check(fault(one()), "no key tokenizer.ggml.scores");
    check(fault(one().array("tokenizer.ggml.scores", ValueType::F32, &[])), "0 entries for 1 tokens");
    check(fault(one().array("tokenizer.ggml.token_type", ValueType::I32, &[])), "0 entries for 1 tokens");
    let scored = || one().array("tokenizer.ggml.scores", ValueType::F32, &[Value::F32(0.0)]);
    check(
        fault(scored().key("tokenizer.ggml.bos_token_id", Value::U32(9))),
        "bos_token_id is 9, but there are 1 tokens",
    );
}
