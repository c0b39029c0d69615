//! Weights and files on their way from one folder of a model to another.
use anyhow::{Context, Result, bail};
use lolm_models::gguf::{Llama, Placed};
use lolm_runtime::weights::{FILE, INDEX, WeightFiles, header, ours};
use safetensors::Dtype;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

/// What makes a folder that of a model already.
const MARKS: [&str; 4] = [FILE, INDEX, crate::model_folder::SPEC, crate::model_folder::CONFIG];

/// Makes a folder, which must not hold a model already.
pub fn fresh(folder: &Path) -> Result<()> {
    if let Some(there) = MARKS.iter().map(|name| folder.join(name)).find(|p| p.exists()) {
        bail!("{} is there already; nothing is overwritten", there.display());
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// The dtypes of the weights, sorted.
pub fn dtypes(files: &WeightFiles) -> Vec<String> {
    let all: BTreeSet<String> = files.iter().map(|t| format!("{:?}", t.dtype)).collect();
    all.into_iter().collect()
}

pub fn write_text(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Copies files that are there, byte for byte.
pub fn copy_whole(from: &Path, to: &Path, names: &[&str]) -> Result<()> {
    for (from, to) in names.iter().map(|n| (from.join(n), to.join(n))).filter(|(from, _)| from.is_file()) {
        fs::copy(&from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

/// Copies the files of weights to a folder, byte for byte.
pub fn copy_weights(files: &WeightFiles, folder: &Path) -> Result<()> {
    let copy = |from: &Path, name: &OsStr| {
        let to = folder.join(name);
        fs::copy(from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display())).map(drop)
    };
    let Some(index) = files.index() else {
        return files.paths().try_for_each(|path| copy(path, FILE.as_ref()));
    };
    files.paths().try_for_each(|path| copy(path, path.file_name().unwrap_or(FILE.as_ref())))?;
    copy(index, INDEX.as_ref())
}

/// Copies the files of weights if all names in them are ours, and else writes one file under ours.
pub fn copy_as_ours(files: &WeightFiles, folder: &Path) -> Result<()> {
    match files.iter().all(|t| ours(t.name) == t.name) {
        true => copy_weights(files, folder),
        false => write_renamed(files, folder),
    }
}

/// Writes all tensors to one file under our names, in their order.
fn write_renamed(files: &WeightFiles, folder: &Path) -> Result<()> {
    let mut all: Vec<_> = files.iter().map(|t| (ours(t.name), t)).collect();
    all.sort_by_key(|(name, _)| *name);
    let head = header(all.iter().map(|(name, t)| (*name, t.dtype, t.shape, t.data.len())));
    written(folder, |to| {
        to.write_all(&head)?;
        all.iter().try_for_each(|(_, t)| to.write_all(t.data))
    })
}

/// Writes the tensors of a llama as f32, row by row, so that no tensor is in memory as a whole.
pub fn write_gguf(llama: &Llama, folder: &Path) -> Result<()> {
    let mut all: Vec<(Placed, Vec<usize>)> =
        llama.tensors().map(|t| (t.tensor.shape(), t)).map(|(s, t)| (t, s)).collect();
    all.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    let head = header(all.iter().map(|(t, s)| (t.name.as_str(), Dtype::F32, s.as_slice(), 4 * t.tensor.elements())));
    written(folder, |to| {
        to.write_all(&head)?;
        for (t, _) in &all {
            let mut row = vec![0.0f32; t.tensor.row_len()];
            let mut bytes = vec![0; 4 * row.len()];
            for i in 0..t.tensor.rows() {
                t.row(i, &mut row);
                bytes.chunks_exact_mut(4).zip(&row).for_each(|(to, x)| to.copy_from_slice(&x.to_le_bytes()));
                to.write_all(&bytes)?;
            }
        }
        Ok(())
    })
}

/// Writes the weights of a folder.
fn written(folder: &Path, write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) -> Result<()> {
    let path = folder.join(FILE);
    let put = || {
        let mut to = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        write(&mut to)?;
        to.into_inner().map_err(|e| e.into_error())?.sync_all()
    };
    put().with_context(|| format!("cannot write {}", path.display()))
}
