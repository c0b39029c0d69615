//! Models in and out: folders as published, shards, GGUF files; and that what comes out is what went in, byte for byte.
use crate::support::{Folder, golden, prose};
use lolm_models::gguf::testing::Writer;
use lolm_models::gguf::{TensorType, Value};
use lolm_runtime::weights::{FILE, INDEX, WeightFiles, header};
use safetensors::Dtype;
use std::path::Path;

const HF: [&str; 4] = ["transformer", "mamba", "jamba", "griffin"];

fn copy(from: &Path, f: &Folder, to: &str) {
    std::fs::create_dir_all(f.path(to)).unwrap();
    for name in ["config.json", FILE] {
        std::fs::copy(from.join(name), f.path(to).join(name)).unwrap();
    }
}

#[test]
fn published_folders_come_back_byte_for_byte() {
    for family in HF {
        let f = Folder::new(&format!("exchange-{family}"));
        let published = golden(family);
        let report = f.lolm_args(&["import", &published.display().to_string(), "-o", "m", "--json"]).json();
        assert_eq!((&report["kind"], &report["vocab_size"]), (&family.into(), &256.into()));
        assert_eq!(report["dtypes"], serde_json::json!(["F32"]));
        f.lolm("export m -o out").ok();
        for name in ["config.json", FILE] {
            assert_eq!(
                f.read(&format!("out/{name}")),
                std::fs::read(published.join(name)).unwrap(),
                "{family}: {name}"
            );
        }
        f.lolm("import out -o m").fails(&["m/model.safetensors is there already; nothing is overwritten"]);
        f.lolm("export m -o out").fails(&["is there already; nothing is overwritten"]);
    }
}

/// Writes tensors to a file, each as BF16.
fn halved(tensors: &[(String, Vec<usize>, Vec<u8>)]) -> Vec<u8> {
    let rows = tensors.iter().map(|(n, s, d)| (n.as_str(), Dtype::BF16, s.as_slice(), d.len()));
    [header(rows), tensors.iter().flat_map(|t| t.2.clone()).collect()].concat()
}

#[test]
fn shards_in_half_precision_stay_as_they_are() {
    let f = Folder::new("exchange-shards");
    copy(&golden("jamba"), &f, "hf");
    let files = WeightFiles::open(&f.path("hf")).unwrap();
    let upper = |data: &[u8]| data.chunks(4).flat_map(|b| [b[2], b[3]]).collect::<Vec<u8>>();
    let all: Vec<_> = files.iter().map(|t| (t.name.to_string(), t.shape.to_vec(), upper(t.data))).collect();
    drop(files);
    std::fs::remove_file(f.path("hf").join(FILE)).unwrap();
    let (mut map, mut names) = (serde_json::Map::new(), vec![]);
    for (i, part) in all.chunks(all.len().div_ceil(3)).enumerate() {
        let name = format!("model-{:05}-of-00003.safetensors", i + 1);
        f.write(&format!("hf/{name}"), halved(part));
        part.iter().for_each(|(tensor, ..)| drop(map.insert(tensor.clone(), name.clone().into())));
        names.push(name);
    }
    f.write(&format!("hf/{INDEX}"), serde_json::json!({"metadata": {}, "weight_map": map}).to_string());
    names.push(INDEX.into());
    let report = f.lolm("import hf -o m --json").json();
    assert_eq!(report["dtypes"], serde_json::json!(["BF16"]));
    f.lolm("export m -o out").ok();
    for name in &names {
        assert_eq!(f.read(&format!("hf/{name}")), f.read(&format!("out/{name}")), "{name}");
    }
    // What is missing is named.
    std::fs::remove_file(f.path("hf").join(&names[1])).unwrap();
    f.lolm("import hf -o m2").fails(&["index.json cannot be followed", "it names the shard `model-00002-of-00003"]);
}

#[test]
fn what_was_trained_is_exported() {
    for (family, class) in [("mamba", Some("MambaForCausalLM")), ("samba", None)] {
        let f = Folder::new(&format!("exchange-trained-{family}"));
        f.write("book.txt", prose(2000));
        let small = "--hidden_size 16 --num_hidden_layers 4 --max_seq_len 32 --training.batch 2 --training.seq 16 --training.warmup 1";
        f.lolm(&format!("train {family}-demo {small} --training.steps 2 --data book.txt --out run")).ok();
        let ran = f.lolm("export run -o out --json");
        let report = ran.json();
        assert_eq!(report["class"], serde_json::json!(class), "{family}");
        let step = report["weights"].as_str().unwrap().to_string();
        assert_eq!(f.read(&format!("out/{FILE}")), f.read(&format!("{step}/{FILE}")));
        match class {
            // What was written is a model again.
            Some(_) => f.lolm("import out -o m --json").json(),
            None => {
                assert!(ran.stderr().contains("Hugging Face has no class for this samba: spec.toml says what it is"));
                f.lolm("import out -o m --json").json()
            }
        };
        assert_eq!(f.read(&format!("m/{FILE}")), f.read(&format!("out/{FILE}")));
    }
}

#[test]
fn checkpoints_of_mamba_ssm_are_known() {
    let f = Folder::new("exchange-ssm");
    copy(&golden("mamba"), &f, "hf");
    let files = WeightFiles::open(&f.path("hf")).unwrap();
    let theirs = |name: &str| name.replace("backbone.embeddings.", "backbone.embedding.");
    let rows: Vec<_> = files.iter().map(|t| (theirs(t.name), t)).collect();
    let head = header(rows.iter().map(|(n, t)| (n.as_str(), t.dtype, t.shape, t.data.len())));
    std::fs::create_dir_all(f.path("ssm")).unwrap();
    f.write(&format!("ssm/{FILE}"), [head, rows.iter().flat_map(|(_, t)| t.data.to_vec()).collect()].concat());
    let config = serde_json::json!({"d_model": 32, "n_layer": 2, "vocab_size": 253, "rms_norm": true,
        "residual_in_fp32": true, "fused_add_norm": true, "pad_vocab_size_multiple": 8,
        "ssm_cfg": {"d_state": 8, "dt_rank": 4}});
    f.write("ssm/config.json", config.to_string());
    f.lolm("import ssm -o m").ok();
    f.lolm("export m -o out").ok();
    let out = WeightFiles::open(&f.path("out")).unwrap();
    assert_eq!(out.len(), files.len());
    assert!(
        files
            .iter()
            .zip(out.iter())
            .all(|(a, b)| (a.name, a.dtype, a.shape, a.data) == (b.name, b.dtype, b.shape, b.data))
    );
    let written: serde_json::Value = serde_json::from_str(&f.text("out/config.json")).unwrap();
    assert_eq!((&written["model_type"], &written["vocab_size"]), (&"mamba".into(), &256.into()));
    f.write("ssm/config.json", config.to_string().replace("true,\"ssm_cfg\"", "false,\"ssm_cfg\""));
    f.lolm("import ssm -o m2").fails(&["`rms_norm`: found false, expected true"]);
}

/// A llama of two layers whose weights count up, as GGUF.
fn gguf() -> Writer {
    let mut w = Writer::default().key("general.architecture", Value::Text("llama"));
    for (key, n) in [("embedding_length", 32), ("block_count", 2), ("context_length", 64), ("feed_forward_length", 64)]
    {
        w = w.key(&format!("llama.{key}"), Value::U32(n));
    }
    w = w.key("llama.attention.head_count", Value::U32(4)).key("llama.attention.head_count_kv", Value::U32(2));
    w = w.key("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
    let weights = |n: usize| (0..n).map(|i| (i % 13) as f32 / 50.0 - 0.12).collect::<Vec<f32>>();
    w = w.floats("token_embd.weight", &[256, 32], &weights(256 * 32)).floats("output_norm.weight", &[32], &[1.0; 32]);
    for n in 0..2 {
        for name in ["attn_norm", "ffn_norm"] {
            w = w.floats(&format!("blk.{n}.{name}.weight"), &[32], &[1.0; 32]);
        }
        let shapes = [
            ("attn_q", [32, 32]),
            ("attn_k", [16, 32]),
            ("attn_v", [16, 32]),
            ("attn_output", [32, 32]),
            ("ffn_gate", [64, 32]),
            ("ffn_up", [64, 32]),
        ];
        for (name, shape) in shapes {
            w = w.floats(&format!("blk.{n}.{name}.weight"), &shape, &weights(shape[0] * shape[1]));
        }
        // A scale of 1/256 and quants that count up.
        let block = || [0x00, 0x1c].into_iter().chain(0..32u8).collect::<Vec<u8>>();
        let data = (0..32 * 2).flat_map(|_| block()).collect();
        w = w.tensor(&format!("blk.{n}.ffn_down.weight"), TensorType::Q8_0, &[32, 64], data);
    }
    w
}

#[test]
fn a_gguf_file_becomes_a_model_that_runs() {
    let f = Folder::new("exchange-gguf");
    f.write("tiny.gguf", gguf().bytes());
    let report = f.lolm("import tiny.gguf -o m --json").json();
    assert_eq!((&report["kind"], &report["dtypes"]), (&"transformer".into(), &serde_json::json!(["F32"])));
    let files = WeightFiles::open(&f.path("m")).unwrap();
    let down = files.find("model.layers.1.mlp.down_proj.weight").unwrap();
    let floats: Vec<f32> = down.data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(
        (down.shape, &floats[..3], floats[33]),
        (&[32, 64][..], &[0.0, 1.0 / 256.0, 2.0 / 256.0][..], 1.0 / 256.0)
    );
    f.lolm("export m -o out").ok();
    assert_eq!(f.read(&format!("out/{FILE}")), f.read(&format!("m/{FILE}")));
    let config: serde_json::Value = serde_json::from_str(&f.text("out/config.json")).unwrap();
    assert_eq!((&config["architectures"][0], &config["num_key_value_heads"]), (&"LlamaForCausalLM".into(), &2.into()));
    let whole = gguf().bytes();
    f.write("cut.gguf", &whole[..whole.len() - 99]);
    f.lolm("import cut.gguf -o m2").fails(&[
        "cannot import cut.gguf",
        "the file ends at byte",
        "within the data of tensor `blk.1.ffn_down.weight`",
    ]);
    f.write("other.gguf", gguf().key("llama.logit_scale", Value::F32(0.5)).bytes());
    f.lolm("import other.gguf -o m3").fails(&["key `llama.logit_scale` = 0.5 is not known"]);
}

#[test]
fn folders_that_are_not_models_are_refused() {
    let f = Folder::new("exchange-refused");
    copy(&golden("mamba"), &f, "hf");
    std::fs::rename(f.path("hf").join(FILE), f.path("hf").join("pytorch_model.bin")).unwrap();
    f.lolm("import hf -o m").fails(&["a Python pickle, which runs code when it is loaded"]);
    copy(&golden("griffin"), &f, "other");
    std::fs::copy(golden("griffin").join(FILE), f.path("hf").join(FILE)).unwrap();
    f.lolm("import hf -o m")
        .fails(&["does not hold the weights of this model", "missing: `backbone.embeddings.weight`"]);
    f.write("text.txt", "no model");
    f.lolm("import text.txt -o m").fails(&["text.txt is neither a folder nor a GGUF file"]);
    f.lolm("import nothing -o m").fails(&["cannot open nothing"]);
    f.lolm("export text.txt -o m").fails(&["text.txt is not the folder of a run or of a model"]);
}
