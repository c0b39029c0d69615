//! The rules of the house that a compiler does not check: which crate knows which, and what every file looks like.
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The crates of the road and those of ours that each may depend on.
const EDGES: &[(&str, &[&str])] = &[
    ("lolm-ir", &[]),
    ("lolm-models", &["lolm-ir"]),
    ("lolm-passes", &["lolm-ir"]),
    ("lolm-codegen", &["lolm-ir"]),
    ("lolm-runtime", &["lolm-ir", "lolm-ptx-emu"]),
    ("lolm", &["lolm-ir", "lolm-models", "lolm-passes", "lolm-codegen", "lolm-runtime"]),
    ("lolm-ptx-emu", &[]),
    ("lolm-tests", &["lolm-ir", "lolm-models", "lolm-passes", "lolm-codegen", "lolm-runtime", "lolm"]),
];

/// Crates of others that belong to one crate of ours, or to a few: nobody else may depend on them.
const OWNED: &[(&str, &[&str])] = &[
    ("egg", &["lolm-passes"]),
    ("petgraph", &["lolm-passes"]),
    ("cranelift-codegen", &["lolm-codegen"]),
    ("cranelift-frontend", &["lolm-codegen"]),
    ("memmap2", &["lolm-runtime", "lolm-tests"]),
    ("libc", &["lolm-runtime", "lolm-tests"]),
    ("toml", &["lolm-models"]),
    ("cudarc", &["lolm-runtime"]),
    ("anyhow", &["lolm"]),
    ("clap", &["lolm"]),
];

/// All that `ir` may depend on; so it stays the small thing that everyone shares.
const IR_MAY_USE: &[&str] = &["serde", "half", "libm", "thiserror"];

/// Where `unsafe` may stand: the two device folders of the runtime, tests that call code which they just compiled, and the
/// allocator of a test that counts.
const UNSAFE: &[&str] =
    &["runtime/src/cpu", "runtime/src/cuda", "codegen/tests", "tests/src/jit.rs", "runtime/tests/hostile/counting.rs"];

/// Files that may be longer, because each is one table or one list of cases.
const LONG: &[&str] = &["codegen/tests/kernels.rs"];
const LONGEST: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// The crates of the workspace: name, and the names of what they depend on outside of tests.
fn crates() -> Vec<(String, BTreeSet<String>)> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let out = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let json: Value = serde_json::from_slice(&out.stdout).unwrap();
    let text = |v: &Value| v.as_str().unwrap().to_string();
    let dependencies = |p: &Value| {
        let all = p["dependencies"].as_array().unwrap().iter();
        all.filter(|d| d["kind"].as_str() != Some("dev")).map(|d| text(&d["name"])).collect()
    };
    json["packages"].as_array().unwrap().iter().map(|p| (text(&p["name"]), dependencies(p))).collect()
}

#[test]
fn crates_depend_in_one_direction_only() {
    let crates = crates();
    let names: BTreeSet<&str> = crates.iter().map(|c| c.0.as_str()).collect();
    assert_eq!(names, EDGES.iter().map(|e| e.0).collect(), "a crate is missing in EDGES, or there is one too many");
    for (name, dependencies) in &crates {
        let allowed = EDGES.iter().find(|e| e.0 == name).unwrap().1;
        for d in dependencies {
            if names.contains(d.as_str()) {
                assert!(allowed.contains(&d.as_str()), "{name} must not know {d}");
            }
            if let Some((_, owners)) = OWNED.iter().find(|o| o.0 == d) {
                assert!(owners.contains(&name.as_str()), "{name} must not know {d}: it belongs to {owners:?}");
            }
            if name == "lolm-ir" {
                assert!(IR_MAY_USE.contains(&d.as_str()), "lolm-ir must not know {d}");
            }
        }
    }
}

/// All source files of the workspace, relative to its root, with their text.
fn sources() -> Vec<(String, String)> {
    let root = root();
    let mut out = vec![];
    for (folder, _) in EDGES.iter().map(|e| (folder_of(e.0), e.1)) {
        walk(&root.join(folder), &mut out);
    }
    let relative = |p: PathBuf| p.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
    let mut files: Vec<_> =
        out.into_iter().map(|p| (relative(p.clone()), std::fs::read_to_string(p).unwrap())).collect();
    files.sort();
    // The emulator lies in the folder of the tests, so it was met twice.
    files.dedup();
    assert!(files.len() > 100, "the sources were not found");
    files
}

fn folder_of(name: &str) -> &str {
    match name {
        "lolm-ptx-emu" => "tests/ptx-emu",
        _ => name.strip_prefix("lolm-").unwrap_or("cli"),
    }
}

fn walk(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true if path.file_name().is_some_and(|n| n == "target") => {}
            true => walk(&path, out),
            false if path.extension().is_some_and(|e| e == "rs") => out.push(path),
            false => {}
        }
    }
}

#[test]
fn every_file_says_what_it_is_and_is_short() {
    let mut faults = vec![];
    for (path, text) in sources() {
        if !text.starts_with("//! ") {
            faults.push(format!("{path} does not open with a `//!` line"));
        }
        let lines = text.lines().count();
        if lines > LONGEST && !LONG.contains(&path.as_str()) {
            faults.push(format!("{path} has {lines} lines, expected at most {LONGEST}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// True if the line has this word, outside of a comment, with nothing of a name around it, such as that of a policy's word.
fn has_word(line: &str, word: &str) -> bool {
    let code = line.split("//").next().unwrap_or("");
    let name = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
    code.match_indices(word).any(|(i, _)| {
        let (before, after) = (code[..i].chars().next_back(), code[i + word.len()..].chars().next());
        !name(before) && !name(after)
    })
}

#[test]
fn unsafe_code_lives_with_the_devices() {
    for (path, text) in sources() {
        let allowed =
            UNSAFE.iter().any(|u| path == *u || path.starts_with(&format!("{u}/")) || path == format!("{u}.rs"));
        let this = path == "tests/tests/tidy.rs";
        if let Some((i, line)) = text.lines().enumerate().find(|(_, l)| has_word(l, "unsafe")) {
            assert!(allowed || this, "{path}:{}: unsafe code outside of {UNSAFE:?}: {line}", i + 1);
        }
    }
}

#[test]
fn nothing_is_left_for_later_and_no_machine_is_named() {
    // Spelt in pieces, so that this file does not find itself.
    let words = [
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("#[ig", "nore"),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("dbg", "!("),
        concat!("/wo", "rk/"),
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
    ];
    for (path, text) in sources() {
        for (i, line) in text.lines().enumerate() {
            let found = words.iter().find(|w| line.contains(**w));
            assert!(found.is_none(), "{path}:{}: `{}` has no place here", i + 1, found.unwrap_or(&""));
        }
    }
}

#[test]
fn documents_name_no_machine() {
    for path in ["README.md", "ARCHITECTURE.md", ".ci/run", "Cargo.toml"] {
        let text = std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        for word in [concat!("/wo", "rk"), concat!("/ro", "ot"), concat!("/ho", "me")] {
            assert!(!text.contains(word), "{path} names {word}");
        }
    }
}

#[test]
fn words_are_found_as_words() {
    assert!(has_word("let x = unsafe { f() };", "unsafe"));
    assert!(!has_word("// unsafe", "unsafe") && !has_word("deny(unsafe_code)", "unsafe"));
}
