//! Training, going on, evaluating and generating.
use crate::support::{Folder, SMALL, prose};
use serde_json::Value;

fn trained(f: &Folder, out: &str, more: &str) -> Value {
    f.lolm(&format!("train lolm-demo {SMALL} --data text.txt --steps 6 --interval 3 --out {out} --json {more}")).json()
}

fn metrics(f: &Folder, out: &str) -> Vec<Value> {
    f.text(&format!("{out}/metrics.jsonl")).lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// The loss of each step, as it stands in the file.
fn losses(f: &Folder, out: &str) -> Vec<String> {
    metrics(f, out).iter().map(|m| m["loss.total"].to_string()).collect()
}

#[test]
fn a_run_that_was_stopped_goes_on_as_if_it_had_not() {
    let f = Folder::new("resume");
    f.write("text.txt", prose(2000));
    let first = trained(&f, "whole", "--threads 1");
    assert_eq!((first["finished"].as_bool(), first["steps"].as_u64()), (Some(true), Some(6)));
    trained(&f, "cut", "--threads 2");
    let last = |out: &str| f.read(&format!("{out}/checkpoints/step-00000006/model.safetensors"));
    assert!(last("whole") == last("cut"), "the number of threads changed the weights");
    // As after a crash between the two checkpoints.
    std::fs::remove_dir_all(f.path("cut/checkpoints/step-00000006")).unwrap();
    f.lolm(&format!("train lolm-demo {SMALL} --data text.txt --steps 6 --out cut")).fails(&["earlier run", "--resume"]);
    trained(&f, "cut", "--resume");
    assert!(last("whole") == last("cut"), "resuming changed the weights");
    assert_eq!(losses(&f, "whole"), losses(&f, "cut"));
    assert!(f.text("cut/curves.svg").contains("loss.total"));
    // The folder stands for its spec, and another text or spec is refused.
    f.write("other.txt", prose(1900));
    f.lolm("train cut --resume --data text.txt --steps 6").ok();
    f.lolm("train cut --resume --data other.txt --steps 6").fails(&["is of another number of tokens"]);
    f.lolm("train cut --resume --data text.txt --d_ff 64").fails(&["is compiled"]);
    f.lolm("train cut --resume --data text.txt --batch 3").fails(&["cut/model.lolm is compiled"]);
    f.lolm("train lolm-149m --data text.txt --out new").fails(&["`training.accumulate` is 4"]);
    assert!(!f.path("new").exists());
    f.lolm("train lolm-demo --resume --data text.txt --out cut").fails(&["compiled from another spec"]);
}

#[test]
fn a_trained_model_is_evaluated_and_generates() {
    let f = Folder::new("use");
    f.write("text.txt", prose(2000));
    trained(&f, "run", "");
    let steps = metrics(&f, "run");
    assert_eq!(steps.len(), 6);
    for key in ["loss.total", "loss.tok", "gate.mean", "grad_norm", "lr", "tau", "tokens_per_second"] {
        assert!(steps.iter().all(|m| m[key].is_number()), "{key}");
    }
    // The same weights, rounded to bf16, are nearly the same model.
    f.lolm(&format!("compile lolm-demo {SMALL} --weights-dtype bf16 -o half.lolm")).ok();
    let weights = "--weights run/checkpoints/step-00000006";
    let half = f.lolm(&format!("eval half.lolm {weights} --data text.txt --json")).json();
    let whole = f.lolm("eval run --data text.txt --json").json();
    let (half, whole) = [half, whole].map(|e| e["loss"].as_f64().or(e[0]["loss"].as_f64()).unwrap()).into();
    assert!(half != whole && (half / whole - 1.0).abs() < 1e-2, "{half} and {whole}");
    f.lolm(&format!("generate half.lolm {weights} -p abc -n 4")).ok();
    let found = f.lolm("eval run --data text.txt --ablation --json").json();
    let gates: Vec<Option<f64>> = found.as_array().unwrap().iter().map(|e| e["gate_forced"].as_f64()).collect();
    assert_eq!(gates, [None, Some(0.0), Some(0.5), Some(1.0)]);
    let loss = found[0]["loss"].as_f64().unwrap();
    assert!((3.0..6.0).contains(&loss), "{loss}");
    assert!((found[0]["perplexity"].as_f64().unwrap() / loss.exp() - 1.0).abs() < 1e-9);
    let bits = loss / std::f64::consts::LN_2;
    assert!((found[0]["bits_per_byte"].as_f64().unwrap() / bits - 1.0).abs() < 1e-9, "a byte is a token here");
    assert_eq!(found[3]["gate_mean"].as_f64(), Some(1.0));
    assert_eq!(found[0]["gate_histogram"].as_array().unwrap().len(), 16);
    assert!(f.lolm("eval run --data text.txt --per-dimension").ok().contains("feature"));

    let text = |args: &str| f.lolm(&format!("generate run -n 20 {args}")).ok();
    assert_eq!(text("-p Cum --seed 3"), text("-p Cum --seed 3"));
    assert_ne!(text("-p Cum --seed 3 --temp 2"), text("-p Cum --seed 4 --temp 2"));
    assert!(text("-p Cum").starts_with("Cum"));
    let json = f.lolm("generate run -n 5 -p Cum --json --gate 0").json();
    assert_eq!(json["tokens"].as_array().unwrap().len(), 5);
    assert!(json["gate"].as_array().unwrap().iter().all(|g| g.as_f64() == Some(0.0)));
    f.lolm_args(&["generate", "run", "-p", ""]).fails(&["the prompt is empty"]);
    f.lolm("generate run -p x -n 40").fails(&["the context is full", "32"]);
    f.lolm("generate run -p x -n 4 --temp -1").fails(&["temperature", "0 or more"]);
    f.lolm("eval run --data run/missing.txt").fails(&["cannot read run/missing.txt"]);
    f.write("short.txt", "abc");
    f.lolm("eval run --data short.txt").fails(&["too few"]);
}

#[test]
fn weights_that_do_not_fit_are_named_all_at_once() {
    let f = Folder::new("weights");
    f.write("text.txt", prose(2000));
    trained(&f, "run", "");
    trained(&f, "wide", "--d_ff 64 --memory.enabled false");
    let wide = "wide/checkpoints/step-00000006";
    let ran = f.lolm(&format!("eval run --data text.txt --weights {wide}"));
    ran.fails(&[
        "missing: `memory.combine.weight`",
        "wrong shape: `decoder.layers.0.ff.w1.weight` is [64, 16], expected [32, 16]",
    ]);
    f.lolm("eval wide --data text.txt --weights run/checkpoints/step-00000006").fails(&["unexpected: `memory."]);
    f.lolm("eval run --data text.txt --weights text.txt").fails(&["is not a safetensors file"]);
    f.lolm("eval run --data text.txt --weights nowhere").fails(&["cannot read nowhere"]);
    f.lolm("eval run/model.lolm --data text.txt --weights run/checkpoints/step-00000006").ok();
    // A damaged checkpoint is passed over for the one before it, and says so.
    let path = "run/checkpoints/step-00000006/model.safetensors";
    let mut bytes = f.read(path);
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(f.path(path), bytes).unwrap();
    let ran = f.lolm("eval run --data text.txt");
    ran.ok();
    assert!(ran.stderr().contains("passed over") && ran.stderr().contains("hash"), "{}", ran.stderr());
}

#[test]
fn the_demo_does_it_all() {
    let f = Folder::new("demo");
    f.write("text.txt", prose(3000));
    let small = format!("--steps 4 --data text.txt {SMALL}");
    let said = f.lolm(&format!("{small} --out d"));
    let shown = said.ok();
    assert!(
        shown.contains("as learned") && shown.contains("surface only") && shown.contains("lolm generate d"),
        "{shown}"
    );
    assert!(said.stderr().contains("step 4/4"));
    for name in
        ["model.lolm", "metrics.jsonl", "curves.svg", "held-out.txt", "checkpoints/step-00000004/model.safetensors"]
    {
        assert!(f.path("d").join(name).is_file(), "{name}");
    }
    // Again in the same place, and what it proposes works.
    let json = f.lolm(&format!("demo {small} --out d --json")).json();
    assert_eq!(json["held_out"].as_array().unwrap().len(), 4);
    f.lolm("eval d --data d/held-out.txt --per-dimension").ok();
    f.lolm("generate d -p Cum -n 5 --gate 1").ok();
}

#[test]
fn benches_report_what_they_measured() {
    let f = Folder::new("bench");
    let train = f.lolm(&format!("bench train {SMALL} --steps 2 --json")).json();
    let kinds = train["kinds"].as_array().unwrap();
    let shares: f64 = kinds.iter().map(|k| k["share"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-6 && train["gflops_per_second"].as_f64() > Some(0.0));
    let compile = f.lolm(&format!("bench compile {SMALL} --repeat 2 --json")).json();
    assert_eq!(compile["runs"].as_u64(), Some(2));
    assert!(compile["peak_bytes"].as_u64() > Some(1 << 20));
}
