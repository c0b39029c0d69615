//! What bad input gets: one sentence that says what, where and what to do, exit code 1, and nothing lost.
use crate::support::{Folder, SMALL, prose};

#[test]
fn specs_that_are_wrong() {
    let f = Folder::new("specs");
    f.lolm("inspect lolm-20n").fails(&["no built-in spec", "did you mean `lolm-20m`?"]);
    f.lolm("inspect missing.toml").fails(&["there is no spec file or model folder `missing.toml`"]);
    f.write("syntax.toml", "kind = \"lolm\"\nd_model = = 3\n");
    f.lolm("inspect syntax.toml").fails(&["syntax.toml:2:", "not valid TOML"]);
    let demo = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/specs/lolm-demo.toml")).unwrap();
    f.write("key.toml", demo.replace("d_state", "d_stat"));
    f.lolm("compile key.toml").fails(&["key.toml:17:1", "`ssm.d_stat`", "did you mean `d_state`?"]);
    f.write("type.toml", demo.replace("n_layers = 3", "n_layers = \"three\""));
    f.lolm("compile type.toml").fails(&["type.toml:6:", "found \"three\", expected an integer"]);
    f.write("dim.toml", demo.replace("n_heads = 4", "n_heads = 3"));
    f.lolm("compile dim.toml").fails(&["`n_heads`: found 3, expected a divisor of d_model = 128"]);
    f.lolm("inspect lolm-demo --trainin.steps 3").fails(&["did you mean `training`?"]);
    f.lolm("inspect lolm-demo --training.steps many").fails(&["found \"many\", expected an integer"]);
    f.lolm("inspect lolm-demo --seq 9999").fails(&["9999", "max_seq_len = 256"]);
    f.write("binary.toml", [0xff, 0xfe, 0, 1]);
    f.lolm("inspect binary.toml").fails(&["binary.toml", "cannot be read"]);
}

#[test]
fn usage_errors_have_their_own_code() {
    let f = Folder::new("usage");
    for args in [
        "nonsense",
        "compile",
        "train lolm-demo",
        "inspect lolm-demo --stage colour",
        "--colour",
        "inspect lolm-demo --set d_model",
        "inspect lolm-demo --d_model",
        "eval x --data y --gate 2",
        "generate x",
    ] {
        let ran = f.lolm(args);
        assert_eq!(ran.code(), Some(2), "{args}: {}", ran.stderr());
        assert!(ran.stderr().contains("error: ") && !ran.stderr().contains("panicked"), "{args}: {}", ran.stderr());
    }
    assert!(f.lolm("--help").ok().contains("Usage: lolm"));
    assert!(f.lolm("--version").ok().starts_with("lolm "));
}

#[test]
fn devices_that_are_not_there() {
    let f = Folder::new("devices");
    // No machine has so many; one without a driver says that.
    for args in [
        "bench decode --device cuda:99",
        "verify x --device cuda:99",
        "generate x -p a --device cuda:99",
        "bench gpu --device cuda:99",
    ] {
        let ran = f.lolm(args);
        assert_eq!(ran.code(), Some(2), "{args}: {}", ran.stderr());
        let said = ran.stderr();
        assert_eq!(said.lines().count(), 1, "{args}: {said}");
        assert!(said.contains("no NVIDIA driver") || said.contains("no device cuda:99"), "{args}: {said}");
    }
    let ran = f.lolm("generate x -p a --device gpu");
    assert_eq!(ran.code(), Some(2));
    assert!(ran.stderr().contains("expected cpu, cuda, cuda:N"), "{}", ran.stderr());
}

#[test]
fn artifacts_of_another_target() {
    let f = Folder::new("targets");
    f.write("text.txt", prose(600));
    f.lolm(&format!("compile lolm-demo {SMALL} --target cuda -o gpu.lolm")).ok();
    let said = ["the artifact is for cuda:sm_80", "--device cuda", "--target cpu"];
    f.lolm("train gpu.lolm --data text.txt --out run").fails(&said);
    let ran = f.lolm("compile lolm-demo --target cuda:sm_12");
    assert_eq!(ran.code(), Some(2));
    assert!(ran.stderr().contains("no target `cuda:sm_12`"), "{}", ran.stderr());
}

#[test]
fn texts_that_do_not_fit() {
    let f = Folder::new("texts");
    f.write("short.txt", "abc");
    f.write("good.txt", prose(500));
    f.lolm(&format!("train lolm-demo {SMALL} --data short.txt")).fails(&["3 tokens are too few", "17"]);
    f.lolm(&format!("train lolm-demo {SMALL} --data missing.txt")).fails(&["cannot read missing.txt"]);
    f.lolm(&format!("train lolm-demo {SMALL} --vocab_size 128 --data good.txt")).fails(&["256 tokens", "128 entries"]);
    f.write("latin1.txt", b"caf\xe9 au lait");
    let gpt2 = "--set tokenizer=gpt2 --vocab_size 50257";
    f.lolm(&format!("train lolm-demo {SMALL} {gpt2} --data latin1.txt")).fails(&["latin1.txt is not UTF-8"]);
    f.lolm("demo --data short.txt").fails(&["short.txt", "too few"]);
    f.lolm("demo --data missing.txt").fails(&["cannot read missing.txt"]);
}

#[test]
fn folders_are_not_overwritten() {
    let f = Folder::new("folders");
    f.lolm("init here").ok();
    let before = f.read("here/model.toml");
    f.lolm("init here --from lolm-20m").fails(&["is there already"]);
    assert_eq!(f.read("here/model.toml"), before);
    f.lolm("init there --from lolm-20").fails(&["no built-in spec `lolm-20`", "did you mean"]);
    f.lolm("demo --out here --steps 1").fails(&["is not a demo"]);
    assert_eq!(f.read("here/model.toml"), before);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    use std::io::Read;
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_lolm"))
        .args(["inspect", "lolm-demo", "--stage", "expand", "--text"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
}
