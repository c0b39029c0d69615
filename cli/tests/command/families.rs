//! Every family goes the same road: compile, train, evaluate, generate; and a published folder is taken as it is. These
//! are the cells of the table in the README.
use crate::support::{Folder, SMALL, golden, prose};
use std::path::Path;

/// The families, each with what makes its demo small enough for a test. Windows are shorter than the texts.
const FAMILIES: [(&str, &str); 5] = [
    ("transformer", "--num_hidden_layers 2 --intermediate_size 48 --hidden_size 32"),
    ("mamba", "--num_hidden_layers 2 --hidden_size 16 --time_step_rank 2 --state_size 4"),
    (
        "jamba",
        "--num_hidden_layers 4 --hidden_size 32 --intermediate_size 24 --mamba_dt_rank 2 --mamba_d_state 4 --num_experts 3",
    ),
    (
        "griffin",
        "--num_hidden_layers 3 --hidden_size 24 --lru_width 32 --intermediate_size 40 --head_dim 8 --attention_window_size 6",
    ),
    (
        "samba",
        "--num_hidden_layers 4 --hidden_size 32 --intermediate_size 24 --time_step_rank 2 --state_size 4 --sliding_window 6",
    ),
];
const SHORT: &str = "--max_seq_len 64 --training.seq 24 --training.batch 2 --training.steps 3 --training.warmup 1";

#[test]
fn every_family_trains_evaluates_and_generates() {
    for (family, small) in FAMILIES {
        let f = Folder::new(family);
        f.write("book.txt", prose(600));
        let report = f.lolm(&format!("train {family}-demo {small} {SHORT} --data book.txt --out run --json")).json();
        assert_eq!(report["finished"], true, "{family}: {report}");
        let found = f.lolm("eval run --data book.txt --json").json();
        let loss = found[0]["loss"].as_f64().unwrap();
        // Three steps from random weights: close to the logarithm of the vocabulary.
        assert!((4.0..6.5).contains(&loss), "{family}: a loss of {loss}");
        let generated = f.lolm("generate run -p Lorem -n 20 --temp 0 --json").json();
        assert_eq!(generated["tokens"].as_array().map(Vec::len), Some(20), "{family}: {generated}");
        // The same seed, the same text: and 25 tokens are past the windows and around their rings.
        assert_eq!(f.lolm("generate run -p Lorem -n 20 --temp 0 --json").json()["tokens"], generated["tokens"]);
    }
}

/// The programs of every family, compiled for a GPU and emulated, train to the same loss and go on with the same tokens.
#[test]
fn every_family_runs_on_an_emulated_gpu() {
    for (family, small) in FAMILIES.into_iter().chain([("lolm", SMALL)]) {
        let f = Folder::new(&format!("gpu-{family}"));
        f.write("book.txt", prose(100));
        let run = |device: &str| {
            let short = if family == "lolm" { "--training.steps 2" } else { SHORT };
            let train =
                format!("train {family}-demo {small} {short} --data book.txt --out {device} --device {device} --json");
            let loss = f.lolm(&train).json()["last"]["loss.total"].as_f64().unwrap();
            let generated =
                f.lolm(&format!("generate {device} -p Lorem -n 4 --temp 0 --device {device} --json")).json();
            (loss, generated["tokens"].clone())
        };
        let (cpu, gpu) = (run("cpu"), run("emulator"));
        assert!((cpu.0 - gpu.0).abs() <= 1e-4 * cpu.0, "{family}: losses {} and {}", cpu.0, gpu.0);
        assert_eq!(cpu.1, gpu.1, "{family}");
    }
}

#[test]
fn published_folders_are_compiled_and_run() {
    for (family, _) in FAMILIES.iter().filter(|(family, _)| *family != "samba") {
        let f = Folder::new(&format!("published-{family}"));
        let folder = golden(family).display().to_string();
        let keys = "--set tokenizer=bytes --max_seq_len 64 --training.seq 16 --programs prefill,decode,eval";
        f.lolm(&format!("compile {folder} {keys} -o m.lolm")).ok();
        f.write("book.txt", prose(100));
        let found = f.lolm(&format!("eval m.lolm --weights {folder} --data book.txt --json")).json();
        assert!(found[0]["loss"].as_f64().unwrap().is_finite(), "{family}: {found}");
        let generated = f.lolm(&format!("generate m.lolm --weights {folder} -p Lorem -n 8 --temp 0 --json")).json();
        assert_eq!(generated["tokens"].as_array().map(Vec::len), Some(8), "{family}: {generated}");
    }
}

/// What a configuration says and we do not implement is refused by its name.
#[test]
fn unknown_features_are_refused_by_name() {
    let f = Folder::new("features");
    let refused = [
        ("transformer", r#""hidden_act": "silu""#, r#""hidden_act": "relu""#, "hidden_act"),
        ("transformer", r#""rope_type": "default""#, r#""rope_type": "yarn""#, "rope_type"),
        ("transformer", r#""vocab_size""#, r#""qk_norm": true, "vocab_size""#, "qk_norm"),
        ("transformer", r#""model_type": "llama""#, r#""model_type": "qwen3""#, "model_type"),
        ("transformer", r#""num_key_value_heads": 2"#, r#""num_key_value_heads": 3"#, "num_key_value_heads"),
        ("mamba", r#""intermediate_size": 64"#, r#""intermediate_size": 65"#, "intermediate_size"),
        ("jamba", r#""attn_layer_offset": 2"#, r#""attn_layer_offset": 9"#, "attn_layer_offset"),
        ("griffin", r#""gelu_pytorch_tanh""#, r#""gelu""#, "hidden_activation"),
        ("griffin", r#""lru_width": 32"#, r#""lru_width": 30"#, "lru_width"),
        ("griffin", r#""recurrent""#, r#""convolution""#, "block_types"),
    ];
    for (family, from, to, key) in refused {
        let config = std::fs::read_to_string(golden(family).join("config.json")).unwrap();
        assert!(config.contains(from), "{family} does not say {from}");
        f.write("config.json", config.replace(from, to));
        f.lolm("compile . --dry-run").fails(&["config.json", key]);
    }
}

/// The table of the README has a row for every family, and its cells say what the tests here show.
#[test]
fn the_readme_says_what_is_shown_here() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let table = readme.split("| family | compile | CPU | GPU | train | generate | import |").nth(1).unwrap();
    let rows = table.lines().skip(2).take_while(|l| l.starts_with('|'));
    let rows: Vec<Vec<&str>> = rows.map(|l| l.trim_matches('|').split('|').map(str::trim).collect()).collect();
    let published = |family: &str| golden(family).join("config.json").is_file();
    for family in FAMILIES.iter().map(|(family, _)| *family).chain(["lolm"]) {
        let row = rows.iter().find(|r| r[0].split(' ').next() == Some(family)).unwrap_or_else(|| panic!("no {family}"));
        assert_eq!(row[1..6], ["yes", "yes", "emulator", "yes", "yes"], "{family}");
        assert_eq!(row[6] == "own format", !published(family), "{family}: {}", row[6]);
    }
    assert_eq!(rows.len(), FAMILIES.len() + 1);
}
