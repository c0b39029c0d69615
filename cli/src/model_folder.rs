//! The folder of a model: its spec, its weights and its text files, as `lolm import` writes it or as Hugging Face
//! publishes it.
use anyhow::{Context, Result, ensure};
use lolm_models::Spec;
use lolm_models::spec::{Override, read_text};
use std::path::{Path, PathBuf};

/// The spec of an imported model.
pub const SPEC: &str = "spec.toml";
/// The configuration of a published one.
pub const CONFIG: &str = "config.json";
/// Files of weights, of which one is there: all in one, or the index of shards.
const WEIGHTS: [&str; 2] = ["model.safetensors", "model.safetensors.index.json"];
/// What says how text becomes tokens and back.
const TEXTS: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "generation_config.json",
];

/// True if the folder says what its model is.
pub fn is_model(folder: &Path) -> bool {
    folder.join(SPEC).is_file() || folder.join(CONFIG).is_file()
}

/// True if the folder holds weights.
pub fn has_weights(folder: &Path) -> bool {
    WEIGHTS.iter().any(|file| folder.join(file).is_file())
}

/// The spec of a folder, with other values for these keys.
pub fn spec(folder: &Path, overrides: &[Override]) -> Result<Spec> {
    let toml = folder.join(SPEC);
    if toml.is_file() {
        return Ok(Spec::load_with(&toml, overrides)?);
    }
    let path = folder.join(CONFIG);
    ensure!(path.is_file(), "{} is not the folder of a model: it has neither {SPEC} nor {CONFIG}", folder.display());
    let text = read_text(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let json = serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
    Ok(Spec::from_hf(&path.display().to_string(), &json, &[], overrides)?)
}

/// The name of a model, which is that of its folder.
pub fn name(folder: &Path) -> String {
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    whole.file_name().map_or_else(|| "model".into(), |n| n.to_string_lossy().into_owned())
}

/// What says how text becomes tokens: the name of each file of a folder, and what is in it.
pub fn texts(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let there = TEXTS.into_iter().filter(|name| folder.join(name).is_file());
    there.map(|name| Ok((name.to_string(), crate::tokenizer::read_file(&folder.join(name))?))).collect()
}

/// Copies what says how text becomes tokens from one folder to another, so that the other stands on its own.
pub fn copy_texts(from: &Path, to: &Path) -> Result<()> {
    let there = TEXTS.iter().map(|file| (from.join(file), to.join(file))).filter(|(from, _)| from.is_file());
    for (from, to) in there.filter(|(from, to)| from != to) {
        let copy = || {
            to.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::copy(&from, &to).map(|_| ())
        };
        copy().with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

/// The folder in which the text files of a model lie: its own, or that of the file which says what it is.
pub fn folder_of(path: &Path) -> PathBuf {
    match path.is_dir() {
        true => path.into(),
        false => path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_without_a_model_are_refused() {
        let empty = std::env::temp_dir().join(format!("lolm-no-model-{}", std::process::id()));
        std::fs::create_dir_all(&empty).unwrap();
        let e = spec(&empty, &[]).unwrap_err().to_string();
        assert!(e.ends_with("is not the folder of a model: it has neither spec.toml nor config.json"), "{e}");
        assert!(!is_model(&empty) && !has_weights(&empty));
        std::fs::remove_dir_all(empty).unwrap();
    }

    #[test]
    fn a_folder_with_a_configuration_is_a_model() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/mamba");
        assert!(is_model(&folder) && has_weights(&folder));
        let s = spec(&folder, &[Override::new("max_seq_len", "64"), Override::new("training.seq", "32")]).unwrap();
        assert_eq!((s.family.name(), s.vocab_size, s.max_seq_len), ("mamba", 256, 64));
        assert_eq!(name(&folder), "mamba");
        assert_eq!(folder_of(&folder.join(CONFIG)), folder);
    }
}
