//! Specs as arguments: a file, or the name of a built-in one, with keys that have other values.
use crate::model_folder;
use anyhow::{Context, Result, bail};
use clap::Args;
use lolm_ir::artifact::MAGIC;
use lolm_models::Spec;
use lolm_models::spec::{LIBRARY, Override, library_with, near_name};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Keys of the spec with other values.
#[derive(Args, Clone, Debug, Default)]
pub struct Overrides {
    /// Give a key of the spec another value; `--training.steps 1000` is short for `--set training.steps=1000`
    #[arg(long, value_name = "KEY=VALUE", value_parser = read_override)]
    pub set: Vec<Override>,
}

fn read_override(text: &str) -> Result<Override, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok(Override::new(key.trim(), value.trim())),
        _ => Err("expected KEY=VALUE, such as training.steps=1000".into()),
    }
}

/// A spec with the name that its artifact gets.
#[derive(Clone, PartialEq, Debug)]
pub struct Named {
    pub name: String,
    pub spec: Spec,
    /// Where its tokenizer lies, if the spec is not a built-in one.
    pub folder: Option<PathBuf>,
}

/// The spec that an argument means.
pub fn find(arg: &str, overrides: &Overrides) -> Result<Named> {
    if let Some(spec) = library_with(arg, &overrides.set) {
        return Ok(Named { name: arg.into(), spec: spec?, folder: None });
    }
    let path = Path::new(arg);
    if path.is_dir() {
        let spec = model_folder::spec(path, &overrides.set)?;
        return Ok(Named { name: model_folder::name(path), spec, folder: Some(path.into()) });
    }
    if !path.is_file() {
        let names: Vec<&str> = LIBRARY.iter().map(|(n, _)| *n).collect();
        let near = near_name(arg, names.iter().copied()).map_or(String::new(), |n| format!("; did you mean `{n}`?"));
        bail!(
            "there is no spec file or model folder `{arg}`, and no built-in spec of this name: these are {}{near}",
            names.join(", ")
        );
    }
    if is_artifact(path)? {
        bail!("`{arg}` is an artifact, and a spec is needed here");
    }
    let name = path.file_stem().map_or_else(|| arg.to_string(), |s| s.to_string_lossy().into_owned());
    let spec = Spec::load_with(path, &overrides.set)?;
    Ok(Named { name, spec, folder: Some(model_folder::folder_of(path)) })
}

/// True if the file begins as an artifact does.
pub fn is_artifact(path: &Path) -> Result<bool> {
    let mut head = [0; MAGIC.len()];
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let read = file.read(&mut head).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(read == head.len() && head == MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_specs_have_a_near_name() {
        let e = find("lolm-20n", &Overrides::default()).unwrap_err().to_string();
        assert!(
            e.contains("no spec file or model folder `lolm-20n`") && e.ends_with("did you mean `lolm-20m`?"),
            "{e}"
        );
    }

    #[test]
    fn overrides_are_pairs() {
        assert_eq!(read_override("a.b = 1"), Ok(Override::new("a.b", "1")));
        assert!(read_override("a.b").is_err() && read_override("=1").is_err() && read_override("a=").is_err());
    }
}
