//! `lolm compile --exe`: this program with an artifact behind it, and perhaps its weights.
use crate::bundle::{self, Contents};
use crate::run_folder::{RunFolder, newest};
use anyhow::{Context, Result};
use lolm_runtime::Artifact;
use lolm_runtime::weights::{Purpose, Stored, WeightFiles, check, header};
use std::io::Write;
use std::path::Path;

/// Writes it, and gives its bytes.
pub fn write(artifact: &[u8], weights: Option<&Path>, texts: Vec<(String, Vec<u8>)>, out: &Path) -> Result<u64> {
    let program = std::env::current_exe().context("this program does not know where it lies")?;
    let Some(path) = weights else {
        return bundle::write(&program, &Contents { artifact, steps: None, weights: None, texts }, out);
    };
    let run = path.is_dir().then(|| newest(&RunFolder(path.into()))).transpose()?;
    let (path, steps) = run.unwrap_or((path.to_path_buf(), None));
    let files = WeightFiles::open(&path)?;
    let opened = Artifact::from_bytes(artifact.to_vec()).context("bug: the artifact just compiled is refused")?;
    let params: Vec<_> = opened.manifest.params.iter().map(|p| (p.name.clone(), p.shape.clone())).collect();
    check(&params, &files, &path, Purpose::Inference)?;
    let put = |to: &mut dyn Write| put_weights(to, &files);
    bundle::write(&program, &Contents { artifact, steps, weights: Some(&put), texts }, out)
}

/// All tensors in one file, by name.
fn put_weights(to: &mut dyn Write, files: &WeightFiles) -> Result<()> {
    let all: Vec<Stored> = files.iter().collect();
    to.write_all(&header(all.iter().map(|t| (t.name, t.dtype, t.shape, t.data.len()))))?;
    all.iter().try_for_each(|t| Ok(to.write_all(t.data)?))
}
