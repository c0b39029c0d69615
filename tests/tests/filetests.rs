//! Runs every file below `filetests/`, a test for each of its folders, and finds snapshots that belong to nothing.
use insta::Settings;
use lolm_tests::filetest::FileTest;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("filetests")
}

/// All files below a folder with this extension, in order.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut out = vec![];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            out.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            out.push(path);
        }
    }
    out.sort();
    out
}

/// Every stage of a file gives its snapshot, or an error.
fn file(path: &Path) -> Result<(), String> {
    let test = FileTest::load(path)?;
    for stage in &test.stages {
        let text = test.perform(*stage).map_err(|e| format!("{}: {e}", stage.name()))?;
        let mut settings = Settings::new();
        settings.set_snapshot_path(path.parent().unwrap());
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.remove_snapshot_suffix();
        let name = test.snapshot(*stage);
        // A snapshot that differs panics, after it has said how.
        let same = catch_unwind(AssertUnwindSafe(|| settings.bind(|| insta::assert_snapshot!(name, text))));
        same.map_err(|_| format!("{}: not the text of the snapshot", stage.name()))?;
    }
    Ok(())
}

/// Runs a folder's files, all of them, before it fails.
fn folder(name: &str) {
    let inputs = files(&root().join(name), "ir");
    assert!(!inputs.is_empty(), "{name} has no tests");
    let faults: Vec<String> = inputs
        .iter()
        .filter_map(|path| {
            let tried = catch_unwind(|| file(path)).unwrap_or(Err("it panicked".into()));
            tried.err().map(|e| format!("{}: {e}", path.strip_prefix(root()).unwrap().display()))
        })
        .collect();
    assert!(faults.is_empty(), "{} of {} failed:\n{}", faults.len(), inputs.len(), faults.join("\n"));
}

macro_rules! folders {
    ($($name:ident)*) => {
        const FOLDERS: &[&str] = &[$(stringify!($name)),*];
        $(#[test]
        fn $name() {
            folder(stringify!($name));
        })*
    };
}

folders! {
    canonicalize
    codegen
    differentiate
    expand
    kernels
    lowering
    raise
    rewrite
}

#[test]
fn every_folder_is_run() {
    let there: Vec<String> =
        std::fs::read_dir(root()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    let there: BTreeSet<&str> = there.iter().map(String::as_str).collect();
    assert_eq!(there, FOLDERS.iter().copied().collect());
}

#[test]
fn every_snapshot_belongs_to_a_stage() {
    let expected: BTreeSet<PathBuf> = files(&root(), "ir")
        .iter()
        .flat_map(|path| {
            let test = FileTest::load(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let snapshot = |s| path.with_file_name(format!("{}.snap", test.snapshot(s)));
            test.stages.iter().map(|s| snapshot(*s)).collect::<Vec<_>>()
        })
        .collect();
    let found: BTreeSet<PathBuf> = files(&root(), "snap").into_iter().collect();
    let orphans: Vec<_> = found.difference(&expected).collect();
    let missing: Vec<_> = expected.difference(&found).collect();
    assert!(orphans.is_empty(), "snapshots of nothing: {orphans:#?}");
    assert!(missing.is_empty(), "stages without a snapshot: {missing:#?}");
}
