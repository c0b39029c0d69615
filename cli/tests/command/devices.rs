//! What a machine has, and models on an emulated GPU.
use crate::support::{Folder, SMALL, prose};

#[test]
fn doctor_says_what_is_there_and_what_is_missing() {
    let f = Folder::new("doctor");
    let json = f.lolm("doctor --json").json();
    assert!(json["cpu"]["threads"].as_u64() > Some(0) && json["cpu"]["read_bytes_per_second"].as_f64() > Some(1e6));
    let targets = json["targets"].as_array().unwrap();
    let names: Vec<&str> = targets.iter().map(|t| t["target"].as_str().unwrap()).collect();
    assert_eq!(names, ["cpu", "cuda:sm_80", "cuda:sm_90a"]);
    // Without a driver, the reason is said; with one, its version.
    let (driver, problem) = (json["cuda"]["driver"].as_str(), json["cuda"]["problem"].as_str());
    assert!(driver.is_some() != problem.is_some(), "{json}");
    let text = f.lolm("doctor").ok();
    assert!(text.contains("CPU: ") && text.contains("runs on") && problem.is_none_or(|p| text.contains(p)), "{text}");
}

#[test]
fn a_model_is_trained_evaluated_and_asked_on_the_emulator() {
    let f = Folder::new("emulated");
    f.write("text.txt", prose(600));
    let device = "--device emulator --threads 1";
    f.lolm(&format!("train lolm-demo {SMALL} --steps 2 --data text.txt --out run {device}")).ok();
    let loss = |args: &str| f.lolm(&format!("eval run --data text.txt --windows 2 --json {args}")).json();
    let here = loss(device)[0]["loss"].as_f64().unwrap();
    assert!(here.is_finite() && here > 0.0);
    f.lolm(&format!("generate run -p Nam -n 3 --temp 0 {device}")).ok();
    f.lolm("generate run -p Nam -n 3").fails(&["the artifact is for cuda:sm_80 and cannot run on the CPU"]);
}

#[test]
fn an_emulated_gpu_is_measured_launch_by_launch() {
    let f = Folder::new("bench-gpu");
    let args =
        format!("bench gpu --device emulator --spec lolm-demo {SMALL} --programs decode --steps 1 --json g.json");
    let text = f.lolm(&args).ok();
    assert!(text.starts_with("the emulator") && text.contains("of the roofline"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&f.text("g.json")).unwrap();
    let decode = &json["models"][0]["programs"][0];
    assert_eq!((decode["program"].as_str(), decode["tokens"].as_u64()), (Some("decode"), Some(1)));
    let launches = decode["launches"].as_array().unwrap();
    assert!(!launches.is_empty() && launches.iter().all(|l| l["seconds"].as_f64() > Some(0.0)), "{decode}");
}

#[test]
fn a_prompt_is_measured_on_either() {
    let f = Folder::new("bench-prefill");
    let measured =
        |device: &str| f.lolm(&format!("bench prefill {SMALL} -p 8 --prefill 8 --device {device} --json")).json();
    let (cpu, gpu) = (measured("cpu"), measured("emulator"));
    for report in [&cpu, &gpu] {
        assert_eq!(report["chunks"], serde_json::json!(["prefill_8"]));
        assert!(report["tokens_per_second"].as_f64() > Some(0.0), "{report}");
    }
    // Products are stages of their own on the CPU alone.
    assert!(cpu["products"].is_u64() && gpu.get("products").is_none(), "{cpu} {gpu}");
}
