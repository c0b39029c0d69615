//! Tokenizers, chat and the ends of texts, as a user meets them.
use crate::support::{Folder, golden, prose};
use serde_json::{Value, json};

const SMALL: &str = "--num_hidden_layers 1 --intermediate_size 16 --hidden_size 16 --max_seq_len 128 --training.seq 24 \
     --training.batch 2 --training.steps 2 --training.warmup 1";
const TEMPLATE: &str = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}\
     {% if messages[0].role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}<|assistant|>";

/// A folder with a tokenizer of its own and a spec that names it.
fn with_tokenizer(test: &str) -> Folder {
    let f = Folder::new(test);
    f.write("text.txt", prose(4000));
    std::fs::create_dir_all(f.path("model")).unwrap();
    f.lolm("tokenizer train --data text.txt --vocab-size 300 -o model/tokenizer.json --special <|endoftext|> <|user|> <|assistant|>")
        .ok();
    f.lolm("init start --from transformer-demo").ok();
    let spec = f.text("start/model.toml");
    assert!(spec.contains("tokenizer = \"bytes\"") && spec.contains("vocab_size = 256"), "{spec}");
    let spec = spec.replace("\"bytes\"", "\"tokenizer.json\"").replace("vocab_size = 256", "vocab_size = 320");
    f.write("model/spec.toml", spec);
    f.write(
        "model/tokenizer_config.json",
        json!({"eos_token": "<|endoftext|>", "chat_template": TEMPLATE}).to_string(),
    );
    f
}

#[test]
fn a_tokenizer_is_trained_and_used() {
    let f = with_tokenizer("tokenizer");
    let text = prose(200);
    let tokens = f.lolm_args(&["tokenizer", "encode", "model", &text]).ok();
    let ids: Vec<&str> = tokens.split_whitespace().collect();
    assert!(ids.len() * 4 < text.len() * 3, "{} tokens", ids.len());
    assert_eq!(f.lolm_args(&[&["tokenizer", "decode", "model"], &ids[..]].concat()).ok(), text);
    let shown = f.lolm("tokenizer show model --json").json();
    assert_eq!((shown["tokens"].as_u64(), shown["eos"].as_u64(), &shown["stops"]), (Some(300), Some(0), &json!([0])));
    f.lolm("tokenizer encode gpt2 Hello").ok();
    f.lolm("tokenizer encode nowhere.json x").fails(&["cannot read nowhere.json"]);
    f.lolm("tokenizer decode model 300").fails(&["token 300", "300 entries"]);
    f.write("bad.json", "{\"model\":");
    f.lolm("tokenizer show bad.json").fails(&["bad.json is not a tokenizer that can be used"]);
    f.lolm("tokenizer train --data text.txt --vocab-size 20").fails(&["too small: 257 at least"]);
}

#[test]
fn a_model_with_a_tokenizer_trains_generates_and_chats() {
    let f = with_tokenizer("chat");
    f.lolm(&format!("train model {SMALL} --data text.txt --out run --json")).ok();
    // The folder of the run is whole by itself.
    std::fs::remove_dir_all(f.path("model")).unwrap();
    let json = f.lolm("generate run -p Lorem -n 12 --temp 0 --ignore-eos --json").json();
    let tokens = |v: &Value| v["tokens"].as_array().unwrap().clone();
    assert_eq!((tokens(&json).len(), json["end"].as_str()), (12, Some("length")));
    let all = json["text"].as_str().unwrap().to_string();
    // What is generated ends before a stop text.
    let Some((at, stop)) = all.char_indices().nth(all.chars().count() / 2) else { panic!("no text: {json}") };
    let cut = f.lolm_args(&[
        "generate",
        "run",
        "-p",
        "Lorem",
        "-n",
        "12",
        "--temp",
        "0",
        "--ignore-eos",
        "--json",
        "--stop",
        &all[at..at + stop.len_utf8()],
    ]);
    let cut = cut.json();
    assert_eq!(cut["end"], "stop");
    assert!(all.starts_with(cut["text"].as_str().unwrap()) && tokens(&cut).len() < 12, "{cut}");
    let chat =
        f.lolm_args(&["generate", "run", "--chat", "--system", "Be brief.", "-p", "Salve", "-n", "4", "--json"]).json();
    let prompt: Vec<String> = chat["prompt_tokens"].as_array().unwrap().iter().map(Value::to_string).collect();
    // `user` and the end are tokens of their own, `system` is spelt out.
    assert_eq!(prompt.iter().filter(|t| *t == "0").count(), 2);
    assert_eq!((prompt.iter().filter(|t| *t == "1").count(), prompt.last().map(String::as_str)), (1, Some("2")));
    f.write("run/chat_template.jinja", "{{ bos_token }}\n{{ raise_exception('not today') }}");
    f.lolm("generate run --chat -p Salve")
        .fails(&["chat_template.jinja, line 2, `{{ raise_exception('not today') }}`: not today"]);
    std::fs::remove_file(f.path("run/chat_template.jinja")).unwrap();
    f.write("run/tokenizer_config.json", "{}");
    f.lolm("generate run --chat -p Salve").fails(&["has no chat template", "without --chat"]);
    f.lolm("generate run --chat").fails(&["there is no prompt"]);
    f.lolm("generate run --system x -p y").code().filter(|c| *c == 2).expect("--system needs --chat");
}

#[test]
fn a_tokenizer_that_is_too_large_for_its_model_is_refused() {
    let f = with_tokenizer("large");
    f.lolm(&format!("train model {SMALL} --vocab_size 290 --data text.txt --out run"))
        .fails(&["the tokenizer has 300 tokens, but the model's vocabulary has 290 entries"]);
}

/// SmolLM2 goes on as transformers does with the same weights in f32. The file is not part of this; scripts/smollm2.sh
/// fetches it.
#[test]
fn smollm2_goes_on_as_its_reference() {
    let place = std::env::var_os("LOLM_SMOLLM2").map(std::path::PathBuf::from);
    let usual = || golden("").join("../../out/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    let file = place.unwrap_or_else(usual);
    if !file.is_file() {
        println!("skipped: 1 test, as there is no SmolLM2; scripts/smollm2.sh fetches it");
        return;
    }
    let reference = std::fs::read_to_string(golden("smollm2_greedy.json")).unwrap();
    let reference: Value = serde_json::from_str(&reference).unwrap();
    let f = Folder::new("smollm2");
    f.lolm_args(&["import", &file.display().to_string(), "-o", "smollm2"]).ok();
    let prompt = "Explain in a few sentences why the sky is blue during the day and red in the evening.";
    let out = f.lolm_args(&[
        "generate",
        "smollm2",
        "--chat",
        "-p",
        prompt,
        "--temp",
        "0",
        "-n",
        "64",
        "--ignore-eos",
        "--json",
    ]);
    let out = out.json();
    assert_eq!(out["prompt_tokens"], reference["prompt"]);
    assert_eq!(out["tokens"], reference["greedy"]);
}

/// Each token with what the model was like inside, as the server tells it.
#[test]
fn tokens_are_traced() {
    let f = Folder::new("trace");
    f.write("text.txt", prose(1000));
    f.lolm(&format!("train lolm-demo {} --data text.txt --steps 2 --out run", crate::support::SMALL)).ok();
    let out = f.lolm("generate run -p Lorem -n 6 --seed 3 --gate 0.25 --trace trace.json --json").json();
    let all: Value = serde_json::from_str(&f.text("trace.json")).unwrap();
    assert_eq!((&all["text"], &all["prompt_tokens"], &all["end"]), (&out["text"], &out["prompt_tokens"], &out["end"]));
    let tokens = all["tokens"].as_array().unwrap();
    let ids: Vec<&Value> = tokens.iter().map(|t| &t["id"]).collect();
    assert_eq!(ids, out["tokens"].as_array().unwrap().iter().collect::<Vec<_>>());
    let features = |t: &Value| t["gate"]["histogram"].as_array().unwrap().iter().filter_map(Value::as_u64).sum::<u64>();
    for t in tokens {
        assert_eq!((t["gate"]["mean"].as_f64(), t["gate"]["std"].as_f64(), features(t)), (Some(0.25), Some(0.0), 16));
        assert!(t["logprob"].as_f64().is_some_and(|x| x < 0.0) && t["regime"].is_u64(), "{t}");
        assert!(t["memory"]["weight"].as_f64().is_some_and(|x| (0.0..=1.0).contains(&x)), "{t}");
    }
    let text: String = tokens.iter().filter_map(|t| t["text"].as_str()).collect();
    assert!(all["text"].as_str().unwrap().starts_with(&text), "{all}");
    f.lolm("generate run -p Lorem -n 1 --trace nowhere/there/trace.json").ok();
    f.write("file", "");
    f.lolm("generate run -p Lorem -n 1 --trace file/trace.json").fails(&["cannot write file/trace.json"]);
}
