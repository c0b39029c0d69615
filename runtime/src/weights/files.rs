//! The files of a set of weights: one, or shards with an index, mapped and checked.
use super::header::{self, Record};
use super::{FILE, INDEX, PICKLES, WeightsError, index};
use safetensors::Dtype;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// Tensors by name, wherever they lie.
pub struct WeightFiles<'a> {
    files: Vec<Shard<'a>>,
    /// File and position in it of each tensor, sorted by name.
    order: Vec<(u32, u32)>,
    /// The index that names the files, if there is one.
    index: Option<PathBuf>,
}

/// One file, and the tensors in it.
struct Shard<'a> {
    path: PathBuf,
    bytes: Bytes<'a>,
    records: Vec<Record>,
}

/// A file as bytes.
enum Bytes<'a> {
    Mapped(memmap2::Mmap),
    Given(&'a [u8]),
}

impl Deref for Bytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Given(bytes) => bytes,
        }
    }
}

/// A tensor of a file.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    pub name: &'a str,
    pub dtype: Dtype,
    pub shape: &'a [usize],
    pub data: &'a [u8],
    pub path: &'a Path,
}

impl<'a> WeightFiles<'a> {
    /// Opens a file of safetensors, an index of shards, or the weights of a folder.
    pub fn open(path: &Path) -> Result<WeightFiles<'static>, WeightsError> {
        let path = if path.is_dir() { of_folder(path)? } else { path.to_path_buf() };
        if is_pickle(&path) {
            return Err(WeightsError::Pickle { path });
        }
        if path.extension().is_none_or(|e| e != "json") {
            return WeightFiles::of(vec![Shard::map(&path)?], &path);
        }
        let wrong = |what| WeightsError::Index { path: path.clone(), what };
        let text = map(&path)?;
        let text = std::str::from_utf8(&text).map_err(|e| wrong(e.to_string()))?;
        let names = index::shards(text).map_err(wrong)?;
        let mut files = vec![];
        for name in &names {
            let shard = path.with_file_name(name);
            if !shard.is_file() {
                return Err(wrong(format!("it names the shard `{name}`, and there is no such file")));
            }
            files.push(Shard::map(&shard)?);
        }
        check_listed(text, &names, &mut files).map_err(wrong)?;
        Ok(WeightFiles { index: Some(path.clone()), ..WeightFiles::of(files, &path)? })
    }

    /// The tensors of a file in memory; `path` is for messages.
    pub fn from_bytes(bytes: &'a [u8], path: &Path) -> Result<WeightFiles<'a>, WeightsError> {
        WeightFiles::of(vec![Shard::new(Bytes::Given(bytes), path)?], path)
    }

    fn of(files: Vec<Shard<'a>>, path: &Path) -> Result<WeightFiles<'a>, WeightsError> {
        let mut order = Vec::with_capacity(files.iter().map(|f| f.records.len()).sum());
        for (i, f) in files.iter().enumerate() {
            order.extend((0..f.records.len()).map(|r| (i as u32, r as u32)));
        }
        let set = WeightFiles { files, order: vec![], index: None };
        order.sort_unstable_by(|a, b| set.at(*a).name.cmp(set.at(*b).name));
        if let Some(w) = order.windows(2).find(|w| set.at(w[0]).name == set.at(w[1]).name) {
            let [a, b] = [set.at(w[0]), set.at(w[1])];
            let what = format!("tensor `{}` is in {} and in {}", a.name, a.path.display(), b.path.display());
            return Err(WeightsError::Index { path: path.into(), what });
        }
        Ok(WeightFiles { order, ..set })
    }

    fn at(&self, (file, record): (u32, u32)) -> Stored<'_> {
        let f = &self.files[file as usize];
        let r = &f.records[record as usize];
        let data = &f.bytes[r.bytes()];
        Stored { name: r.name(&f.bytes), dtype: r.dtype, shape: r.shape(), data, path: &f.path }
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
    /// The `i`-th tensor by name.
    pub fn get(&self, i: usize) -> Stored<'_> {
        self.at(self.order[i])
    }
    /// The position of a tensor in the order of names.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.order.binary_search_by(|at| self.at(*at).name.cmp(name)).ok()
    }
    pub fn find(&self, name: &str) -> Option<Stored<'_>> {
        self.position(name).map(|i| self.get(i))
    }
    /// All tensors, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = Stored<'_>> {
        self.order.iter().map(|at| self.at(*at))
    }
    /// The index of the shards, if there are any.
    pub fn index(&self) -> Option<&Path> {
        self.index.as_deref()
    }
    /// The files, without the index.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|f| f.path.as_path())
    }
}

impl Shard<'_> {
    fn map(path: &Path) -> Result<Shard<'static>, WeightsError> {
        Shard::new(Bytes::Mapped(map(path)?), path)
    }

    fn new<'a>(bytes: Bytes<'a>, path: &Path) -> Result<Shard<'a>, WeightsError> {
        let wrong = |what| WeightsError::Format { path: path.into(), what };
        let records = header::read(&bytes).map_err(wrong)?;
        Ok(Shard { path: path.into(), bytes, records })
    }
}

fn map(path: &Path) -> Result<memmap2::Mmap, WeightsError> {
    crate::cpu::memory::map_file(path).map_err(|source| WeightsError::Read { path: path.into(), source })
}

/// True for what PyTorch writes, and for an index of it.
fn is_pickle(path: &Path) -> bool {
    let named = path.file_name().and_then(|n| n.to_str()).is_some_and(|n| PICKLES.contains(&n));
    named || path.extension().is_some_and(|e| ["bin", "pt", "pth", "ckpt"].iter().any(|p| e == *p))
}

/// The file of a folder that says where its weights are.
fn of_folder(folder: &Path) -> Result<PathBuf, WeightsError> {
    let found = [FILE, INDEX].iter().chain(&PICKLES).map(|name| folder.join(name)).find(|p| p.is_file());
    found.ok_or_else(|| WeightsError::Read {
        path: folder.into(),
        source: io::Error::new(io::ErrorKind::NotFound, format!("it has neither {FILE} nor {INDEX}")),
    })
}

/// Checks that every tensor of the index is in the shard that it says, and every tensor of a shard in the index.
fn check_listed(text: &str, names: &[&str], files: &mut [Shard]) -> Result<(), String> {
    index::each(text, |name, shard| {
        let missing = || format!("it says that tensor `{name}` is in `{shard}`, and that file has no such tensor");
        let file = &mut files[names.binary_search(&shard).map_err(|_| missing())?];
        let record = file.records.binary_search_by(|r| r.name(&file.bytes).cmp(name)).map_err(|_| missing())?;
        let record = &mut file.records[record];
        if record.listed {
            return Err(format!("it names tensor `{name}` twice"));
        }
        record.listed = true;
        Ok(())
    })?;
    for (file, shard) in files.iter().zip(names) {
        if let Some(r) = file.records.iter().find(|r| !r.listed) {
            return Err(format!("the shard `{shard}` holds tensor `{}`, which it does not name", r.name(&file.bytes)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
