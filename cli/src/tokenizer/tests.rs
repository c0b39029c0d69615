//! Tokenizers of each kind: bytes of tokens, texts that come back, files that are refused.
use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// A byte-level vocabulary of the 256 bytes, some merges, and two special tokens.
pub fn byte_level_json() -> Value {
    let mut vocab = serde_json::Map::new();
    for (byte, c) in decoder::byte_level() {
        vocab.insert(c.to_string(), json!(byte));
    }
    let merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n"), ("ð", "Ł")];
    for (i, (a, b)) in merges.iter().enumerate() {
        vocab.insert(format!("{a}{b}"), json!(256 + i));
    }
    let added = |id: u32, text: &str, special: bool| {
        json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": special})
    };
    json!({
        "version": "1.0",
        "added_tokens": [added(261, "<|begin|>", true), added(262, "<|end|>", true), added(263, "<tool>", false)],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    })
}

/// A vocabulary as Llama 2's: ▁ for a space, bytes for what it lacks.
pub fn spaces_json() -> Value {
    let mut vocab = serde_json::Map::new();
    ["<unk>", "<s>", "</s>"].iter().enumerate().for_each(|(i, t)| drop(vocab.insert(t.to_string(), json!(i))));
    (0..256).for_each(|b| drop(vocab.insert(format!("<0x{b:02X}>"), json!(3 + b))));
    ["▁", "a", "b", "é", "▁a", "ab"]
        .iter()
        .enumerate()
        .for_each(|(i, t)| drop(vocab.insert(t.to_string(), json!(259 + i))));
    let special = |id: u32, text: &str| {
        json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    json!({
        "version": "1.0",
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "vocab": vocab,
            "merges": ["▁ a", "a b"]},
    })
}

fn parse(json: &Value) -> Result<Tokenizer> {
    Tokenizer::parse(json.to_string().as_bytes())
}

static ALL: LazyLock<[Tokenizer; 4]> = LazyLock::new(|| {
    let read = |json: Value| parse(&json).unwrap();
    [Tokenizer::bytewise(), Tokenizer::gpt2().unwrap(), read(byte_level_json()), read(spaces_json())]
});

/// The text that comes out token by token.
fn streamed(t: &Tokenizer, tokens: &[u32]) -> String {
    let mut c = Characters::default();
    let mut out: String = tokens.iter().map(|id| c.push(t.shown(*id).unwrap())).collect();
    out += &c.finish();
    out
}

#[test]
fn texts_come_back() {
    let text = "Non eram nescius, Brute — 漢字 🦀\n\n  the inn ";
    for t in &*ALL {
        let tokens = t.encode(text.as_bytes(), true, "text").unwrap();
        assert!(tokens.iter().all(|id| (*id as usize) < t.size()));
        assert_eq!(String::from_utf8(t.decode(&tokens).unwrap()).unwrap(), text);
        assert!(streamed(t, &tokens).ends_with(text));
        assert!(t.encode(b"", false, "text").unwrap().is_empty());
    }
    let gpt2 = Tokenizer::gpt2().unwrap();
    assert_eq!(gpt2.encode(b"Hello world", true, "text").unwrap(), [15496, 995]);
    assert!(gpt2.encode(b"\xff", true, "prose.txt").unwrap_err().to_string().starts_with("prose.txt is not UTF-8"));
}

#[test]
fn a_character_cut_over_tokens_comes_out_whole() {
    // The crab is f0 9f a6 80: one merge and two bytes, or four bytes.
    let t = parse(&byte_level_json()).unwrap();
    let tokens = t.encode("🦀".as_bytes(), false, "text").unwrap();
    assert_eq!(tokens.len(), 3);
    let mut c = Characters::default();
    let out: Vec<String> = tokens.iter().map(|id| c.push(t.shown(*id).unwrap())).collect();
    assert_eq!(out, ["", "", "🦀"]);
    let t = parse(&spaces_json()).unwrap();
    let tokens = t.encode("a🦀".as_bytes(), true, "text").unwrap();
    assert_eq!(tokens, [1, 263, 3 + 0xf0, 3 + 0x9f, 3 + 0xa6, 3 + 0x80]);
    assert_eq!(t.decode(&tokens).unwrap(), "a🦀".as_bytes());
    // Within a text the space of the first token stays.
    assert_eq!(streamed(&t, &tokens), " a🦀");
}

#[test]
fn special_tokens_are_read_and_not_shown() {
    let t = parse(&byte_level_json()).unwrap();
    let tokens = t.encode(b"<|begin|>the<tool><|end|>", true, "text").unwrap();
    assert_eq!(tokens, [261, b't' as u32, 257, 263, 262]);
    assert_eq!(t.decode(&tokens).unwrap(), b"the<tool>");
    assert_eq!((t.bytes(261).unwrap(), t.shown(261).unwrap()), (&b"<|begin|>"[..], &b""[..]));
    assert_eq!((t.id("<|end|>"), t.name(258).as_deref()), (Some(262), Some("Ġthe")));
}

#[test]
fn ids_of_padding_stand_for_nothing_and_others_are_errors() {
    let t = parse(&byte_level_json()).unwrap();
    assert_eq!(t.size(), 264);
    assert_eq!(t.bytes(264).unwrap_err().to_string(), "token 264 is not of a vocabulary of 264 entries");
    let t = t.within(320).unwrap();
    assert_eq!((t.bytes(319).unwrap(), t.decode(&[300, 97]).unwrap()), (&b""[..], b"a".to_vec()));
    assert!(t.bytes(320).is_err());
    let e = t.within(200).err().unwrap().to_string();
    assert!(e.contains("264 tokens") && e.contains("200 entries"), "{e}");
    assert_eq!(Tokenizer::gpt2().unwrap().within(50304).unwrap().bytes(50303).unwrap(), b"");
}

#[test]
fn tokens_without_a_decoder_are_words() {
    let mut json = byte_level_json();
    json["decoder"] = Value::Null;
    let t = parse(&json).unwrap();
    assert_eq!(t.decode(&[97, 98]).unwrap(), b"a b");
}

#[test]
fn metaspace_drops_the_mark_of_the_first_token_only() {
    let mut json = spaces_json();
    json["decoder"] = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    let t = parse(&json).unwrap();
    assert_eq!(t.decode(&[1, 263, 263]).unwrap(), b"a a");
    json["decoder"]["prepend_scheme"] = json!("never");
    assert_eq!(parse(&json).unwrap().decode(&[263]).unwrap(), b" a");
}

/// What a change of a good file makes of it.
fn fault(base: Value, change: impl FnOnce(&mut Value)) -> String {
    let mut json = base;
    change(&mut json);
    format!("{:#}", parse(&json).err().expect("refused"))
}

#[test]
fn faults_are_refused_by_name() {
    let b = byte_level_json;
    let check = |e: String, part: &str| assert!(e.contains(part), "{e}");
    check(fault(b(), |j| j["model"]["vocab"]["a"] = json!(98)), "same id 98");
    check(fault(b(), |j| j["model"]["vocab"]["a"] = json!(-1)), "`a` has the id -1");
    check(fault(b(), |j| j["model"]["vocab"]["a"] = json!(4_000_000_000u32)), "expected a number below");
    check(fault(b(), |j| j["model"]["vocab"] = json!([])), "vocab is not a map");
    check(fault(b(), |j| j["model"]["merges"] = json!([["a", "b"]])), "needs the token `ab`");
    check(fault(b(), |j| j["model"]["merges"] = json!(["a b c"])), "expected two tokens");
    check(fault(b(), |j| j["model"]["dropout"] = json!(0.1)), "dropout");
    check(fault(b(), |j| j["model"]["continuing_subword_prefix"] = json!("##")), "continuing_subword_prefix");
    check(fault(b(), |j| j["model"]["type"] = json!("WordPiece")), "model of the type `WordPiece` is not supported");
    check(fault(b(), |j| j["model"] = Value::Null), "no `model`");
    check(
        fault(b(), |j| j["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "AA"})),
        "Precompiled",
    );
    check(fault(b(), |j| j["pre_tokenizer"] = json!({"type": "FixedLength", "length": 0})), "FixedLength");
    check(fault(b(), |j| j["pre_tokenizer"] = json!({"type": "Sequence"})), "without a list `pretokenizers`");
    check(fault(b(), |j| j["decoder"] = json!({"type": "WordPiece"})), "decoder of the type `WordPiece`");
    check(fault(b(), |j| j["decoder"] = json!(7)), "decoder has no text `type`");
    check(fault(b(), |j| j["added_tokens"][0]["id"] = json!(300)), "but its place in the vocabulary is");
    check(fault(spaces_json(), |j| j["post_processor"]["special_tokens"] = json!({})), "no ids for `<s>`");
    assert!(Tokenizer::parse(b"{\"model\": ").is_err() && Tokenizer::parse(b"[]").is_err());
    assert!(Tokenizer::parse(&vec![b'['; 1 << 20]).is_err());
    let e = Tokenizer::gpt2().unwrap().encode(&[b' '; 600_000], true, "blank.txt").unwrap_err().to_string();
    assert!(e.contains("600000 bytes of white space in a row"), "{e}");
}

#[test]
fn long_texts_are_encoded_in_parts_with_the_same_tokens() {
    let line = "The inn — the third one — in 1849.\nthe other\n\n    the end\n";
    for t in &*ALL {
        let whole = |text: &str| t.encode(text.as_bytes(), false, "text");
        let text = line.repeat(40);
        assert_eq!(long::encode_in_parts(&text, 100, &whole).unwrap(), whole(&text).unwrap());
    }
}

#[test]
fn special_tokens_come_from_the_files_beside() {
    let folder = tempfile();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("tokenizer.json", &byte_level_json().to_string());
    write(
        "tokenizer_config.json",
        r#"{"bos_token": {"content": "<|begin|>"}, "eos_token": "<|end|>", "add_bos_token": true}"#,
    );
    write("generation_config.json", r#"{"eos_token_id": [262, 263]}"#);
    let t = Tokenizer::open(&folder.join("tokenizer.json")).unwrap();
    assert_eq!(t.special.stops, [262, 263]);
    assert_eq!(t.encode(b"a", true, "text").unwrap(), [261, 97]);
    assert_eq!(t.encode(b"a", false, "text").unwrap(), [97]);
    write("tokenizer_config.json", r#"{"bos_token": "<|none|>"}"#);
    let e = Tokenizer::open(&folder.join("tokenizer.json")).err().unwrap().to_string();
    assert!(e.contains("`<|none|>`, which is no token"), "{e}");
    std::fs::remove_dir_all(folder).unwrap();
}

fn tempfile() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("lolm-tokenizer-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A JSON value with one place changed: removed, or of another kind.
fn mutated(json: &mut Value, path: &mut impl Iterator<Item = usize>, new: &Value) {
    let at = path.next();
    match (json, at) {
        (Value::Object(map), Some(i)) if !map.is_empty() => {
            let key = map.keys().nth(i % map.len()).unwrap().clone();
            mutated(map.get_mut(&key).unwrap(), path, new);
        }
        (Value::Array(list), Some(i)) if !list.is_empty() => {
            let i = i % list.len();
            mutated(&mut list[i], path, new);
        }
        (place, _) => *place = new.clone(),
    }
}

/// A few hundred cases, or as many as PROPTEST_CASES says.
fn cases() -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(200),
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_text_comes_back(text in "\\PC{0,40}|[ \\t\\na🦀é漢]{0,30}|(<\\|end\\|>|the | t|he){0,8}") {
        for t in &ALL[2..] {
            let tokens = t.encode(text.as_bytes(), false, "text").unwrap();
            let shown = if t.id("<|end|>").is_some() { text.replace("<|end|>", "") } else { text.clone() };
            prop_assert_eq!(String::from_utf8(t.decode(&tokens).unwrap()).unwrap(), shown);
        }
    }

    #[test]
    fn any_tokens_have_bytes(tokens in prop::collection::vec(0u32..256, 0..40)) {
        for t in &*ALL {
            let bytes: Vec<u8> = tokens.iter().flat_map(|id| t.shown(*id).unwrap().to_vec()).collect();
            prop_assert_eq!(streamed(t, &tokens), String::from_utf8_lossy(&bytes));
            t.decode(&tokens).unwrap();
        }
    }

    /// A file that is changed anywhere is read or refused, and what is read works.
    #[test]
    fn changed_files_do_no_harm(
        path in prop::collection::vec(0usize..400, 1..5),
        spaces in any::<bool>(),
        new in prop_oneof![
            Just(Value::Null), Just(json!(true)), Just(json!(-1)), Just(json!(1e300)), Just(json!("")), Just(json!([])),
            Just(json!({})), Just(json!("▁")), Just(json!(["a", "b"])), Just(json!({"type": "Sequence"})),
            Just(json!({"type": "Split", "pattern": {"Regex": "(a*)*b|"}, "behavior": "Isolated", "invert": true})),
            Just(json!({"type": "Strip", "content": "a", "start": 1u64 << 60, "stop": 1u64 << 60})),
        ],
    ) {
        let mut json = if spaces { spaces_json() } else { byte_level_json() };
        mutated(&mut json, &mut path.into_iter(), &new);
        if let Ok(t) = parse(&json) {
            // Refusing to encode is fine too.
            if let Ok(tokens) = t.encode("<s> the 漢b aab\n\u{301}".as_bytes(), true, "text") {
                let t = t.within(1 << 24).unwrap();
                t.decode(&tokens).unwrap();
            }
        }
    }
}
