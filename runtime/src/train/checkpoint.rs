//! Checkpoints: a folder a step, whole or not there at all.
//!
//! `step-00001000/` holds `model.safetensors` (the weights under their published names), `state.safetensors` (the
//! optimizer's moments) and `trainer.json` (where the run stands, of which artifact and data, and the hash of every
//! file). It is written under another name, synced to disk, and renamed; a process killed or a disk filled at any moment
//! leaves the earlier checkpoints as they were. Resuming takes the newest one whose hashes are right.
use super::{Progress, Trainer};
use crate::cpu::machine::MachineError;
use crate::cuda::device::DeviceError;
use crate::model::Model;
use crate::tensors::Tensors;
use crate::weights::{self, Entry, FILE, Purpose, WeightsError, entries, weights, write_safetensors};
use lolm_ir::plan::Place;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

const STATES: &str = "state.safetensors";
const RECORD: &str = "trainer.json";
const PREFIX: &str = "step-";
const UNFINISHED: &str = ".unfinished-";
const FORMAT: u32 = 1;

/// Where checkpoints go and how many stay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoints {
    pub folder: PathBuf,
    /// Steps between checkpoints; 0 for none but the last.
    pub interval: u64,
    /// How many stay; 0 for all.
    pub keep_latest_k: usize,
}

/// A whole checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Saved {
    pub path: PathBuf,
    pub progress: Progress,
    record: Record,
}

/// How like the saved run the one that resumes must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Match {
    /// The same artifact, data and seed: the run goes on bit for bit.
    Exact,
    /// The same parameters; the rest may differ.
    Weights,
}

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("cannot write the checkpoint {path}: {source}; earlier ones are untouched")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the checkpoint {path} is damaged: {what}")]
    Damaged { path: PathBuf, what: String },
    #[error("the checkpoint {path} is of another {what}: it says {found}, this run has {expected}")]
    Other { path: PathBuf, what: &'static str, expected: String, found: String },
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error("the checkpoint cannot be taken: {0}")]
    Device(#[from] DeviceError),
    #[error("the checkpoint cannot be brought here: {0}")]
    Copy(#[from] MachineError),
}

/// `trainer.json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Record {
    format: u32,
    progress: Progress,
    seed: u64,
    artifact: String,
    tokens: usize,
    data: String,
    files: Vec<FileRecord>,
    /// The hash of this record with an empty string here.
    check: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct FileRecord {
    name: String,
    bytes: u64,
    blake3: String,
}

impl Record {
    /// Where a run stands; its files come later.
    fn of(t: &Trainer) -> Record {
        Record {
            format: FORMAT,
            progress: t.progress,
            seed: t.config.seed,
            artifact: t.model.artifact().id(),
            tokens: t.tokens.len(),
            data: t.data_hash.clone(),
            files: vec![],
            check: String::new(),
        }
    }
    fn json(&self) -> Vec<u8> {
        // A record has no maps and no floats, so this cannot fail; an empty file would be refused on reading.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }
    fn sum(&self) -> String {
        blake3::hash(&Record { check: String::new(), ..self.clone() }.json()).to_hex().to_string()
    }
}

impl Checkpoints {
    /// Saves where a run stands. Returns the new folder.
    pub fn save(&self, t: &Trainer) -> Result<PathBuf, CheckpointError> {
        let touched = trained_states(t);
        let states = entries(t.model.states(), |n| touched.contains(n));
        let params = weights(t.model.params());
        // What could not be fetched is no checkpoint.
        t.model.check()?;
        self.keep(Record::of(t), &params, &states)
    }

    /// Saves where a run stands while it goes on, if it runs on a device: a copy is taken there, and brought here, written
    /// and published by a thread of its own. Elsewhere it is saved when this returns.
    pub fn begin(&self, t: &mut Trainer) -> Result<Saving, CheckpointError> {
        let touched = trained_states(t);
        let Some(copied) = t.model.copied(|name| touched.contains(name))? else {
            return self.save(t).map(Saving::done);
        };
        let (to, record) = (self.clone(), Record::of(t));
        let write = move || {
            let [params, states] = copied.read()?;
            to.keep(record, &weights(Tensors::here(&params)), &entries(Tensors::here(&states), |_| true))
        };
        let failed = |source| CheckpointError::Write { path: self.folder.clone(), source };
        let thread = std::thread::Builder::new().name("lolm-checkpoint".into()).spawn(write).map_err(failed)?;
        Ok(Saving { path: None, thread: Some(thread) })
    }

    /// Writes a checkpoint of these tensors under another name, and publishes it.
    fn keep(&self, record: Record, params: &[Entry], states: &[Entry]) -> Result<PathBuf, CheckpointError> {
        let step = record.progress.step;
        let name = format!("{PREFIX}{step:08}");
        let (path, unfinished) = (self.folder.join(&name), self.folder.join(format!("{UNFINISHED}{name}")));
        let written = write_folder(record, params, states, &unfinished);
        if let Err(source) = written.and_then(|()| self.publish(&unfinished, &path)) {
            // What is left of it only takes space; if even that cannot be removed, the next save will try again.
            let _ = fs::remove_dir_all(&unfinished);
            return Err(CheckpointError::Write { path, source });
        }
        self.prune(step).map_err(|source| CheckpointError::Write { path: path.clone(), source })?;
        Ok(path)
    }

    /// Gives a finished folder its name. A folder of that name, from a run that was resumed earlier, makes way.
    fn publish(&self, unfinished: &Path, path: &Path) -> io::Result<()> {
        let old = unfinished.with_extension("old");
        if path.exists() {
            fs::rename(path, &old)?;
        }
        fs::rename(unfinished, path)?;
        sync_folder(&self.folder)?;
        if old.exists() { fs::remove_dir_all(&old) } else { Ok(()) }
    }

    /// Removes what is older than the `keep_latest_k` newest up to this step, and what earlier runs left unfinished.
    fn prune(&self, step: u64) -> io::Result<()> {
        let older: Vec<PathBuf> = self.list()?.into_iter().filter(|(s, _)| *s <= step).map(|(_, p)| p).collect();
        let keep = if self.keep_latest_k == 0 { older.len() } else { self.keep_latest_k };
        older.iter().skip(keep).try_for_each(fs::remove_dir_all)?;
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    /// All checkpoints by step, newest first, whole or not.
    fn list(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut found = vec![];
        let entries = match fs::read_dir(&self.folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            if let Some(step) = entry.file_name().to_string_lossy().strip_prefix(PREFIX).and_then(|s| s.parse().ok()) {
                found.push((step, entry.path()));
            }
        }
        found.sort_by(|a, b| b.cmp(a));
        Ok(found)
    }

    /// The newest whole checkpoint, if there is one, and what is wrong with those that are newer.
    pub fn latest(&self) -> Result<(Option<Saved>, Vec<CheckpointError>), CheckpointError> {
        let list = self.list().map_err(|source| CheckpointError::Read { path: self.folder.clone(), source })?;
        let mut broken = vec![];
        for (_, path) in list {
            match Saved::open(&path) {
                Ok(saved) => return Ok((Some(saved), broken)),
                Err(e) => broken.push(e),
            }
        }
        Ok((None, broken))
    }
}

/// A checkpoint that may still be on its way.
pub struct Saving {
    path: Option<PathBuf>,
    thread: Option<JoinHandle<Result<PathBuf, CheckpointError>>>,
}

impl Saving {
    pub(super) fn done(path: PathBuf) -> Saving {
        Saving { path: Some(path), thread: None }
    }
    /// True if waiting for it takes no time.
    pub fn is_done(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
    /// Waits for it. Returns the new folder.
    pub fn finish(mut self) -> Result<PathBuf, CheckpointError> {
        match (self.path.take(), self.thread.take()) {
            (_, Some(thread)) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            (Some(path), None) => Ok(path),
            (None, None) => Ok(PathBuf::new()),
        }
    }
}

impl Drop for Saving {
    fn drop(&mut self) {
        // A run that ends with an error says that one; what was begun before is still brought to its end.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Saved {
    /// Opens a checkpoint and checks the hash of every file.
    pub fn open(path: &Path) -> Result<Saved, CheckpointError> {
        let damaged = |what: String| CheckpointError::Damaged { path: path.into(), what };
        let read = |name: &str| {
            let path = path.join(name);
            fs::read(&path).map_err(|source| CheckpointError::Read { path, source })
        };
        let record: Record = serde_json::from_slice(&read(RECORD)?).map_err(|e| damaged(format!("{RECORD}: {e}")))?;
        if record.format != FORMAT {
            return Err(damaged(format!("{RECORD}: format {}, expected {FORMAT}", record.format)));
        }
        if record.check != record.sum() {
            return Err(damaged(format!("{RECORD} does not have its hash")));
        }
        for name in [FILE, STATES] {
            let known = record.files.iter().find(|f| f.name == name);
            let known = known.ok_or_else(|| damaged(format!("{RECORD} does not name {name}")))?;
            let found = hash_file(&path.join(name));
            let found = found.map_err(|source| CheckpointError::Read { path: path.join(name), source })?;
            if found != (known.bytes, known.blake3.clone()) {
                return Err(damaged(format!("{name} does not have its hash")));
            }
        }
        Ok(Saved { path: path.into(), progress: record.progress, record })
    }

    /// The folder's weights, for use without training.
    pub fn weights(&self) -> PathBuf {
        self.path.join(FILE)
    }

    /// Refuses a run that would not go on as the saved one.
    fn compare(&self, t: &Trainer) -> Result<(), CheckpointError> {
        let r = &self.record;
        let same = |what, found: String, expected: String| match found == expected {
            true => Ok(()),
            false => Err(CheckpointError::Other { path: self.path.clone(), what, expected, found }),
        };
        same("artifact", r.artifact.clone(), t.model.artifact().id())?;
        same("number of tokens", r.tokens.to_string(), t.tokens.len().to_string())?;
        same("data set", r.data.clone(), t.data_hash.clone())?;
        same("seed", r.seed.to_string(), t.config.seed.to_string())
    }
}

impl Trainer {
    /// Goes on from a checkpoint.
    pub fn restore(&mut self, saved: &Saved, how: Match) -> Result<(), CheckpointError> {
        if how == Match::Exact {
            saved.compare(self)?;
        }
        weights::load(&mut self.model, &saved.weights(), Purpose::Training)?;
        let path = saved.path.join(STATES);
        let bytes = fs::read(&path).map_err(|source| CheckpointError::Read { path: path.clone(), source })?;
        let damaged = |what: String| CheckpointError::Damaged { path: path.clone(), what };
        let file = SafeTensors::deserialize(&bytes).map_err(|e| damaged(e.to_string()))?;
        for name in trained_states(self) {
            match (file.tensor(&name), how) {
                (Ok(x), _) => restore_state(&mut self.model, &name, x.shape(), x.data()).map_err(damaged)?,
                (Err(_), Match::Weights) => (),
                (Err(e), Match::Exact) => return Err(damaged(e.to_string())),
            }
        }
        self.progress = saved.progress;
        Ok(())
    }
}

fn restore_state(model: &mut Model, name: &str, shape: &[usize], data: &[u8]) -> Result<(), String> {
    let slot = model.states().find(name).ok_or(format!("this model has no state `{name}`"))?;
    let expected = &model.states().slots()[slot];
    if expected.shape != shape || model.states().raw(slot).len() != data.len() {
        return Err(format!("state `{name}` is {shape:?}, expected {}{:?}", expected.dtype, expected.shape));
    }
    model.state_bytes_mut(slot).copy_from_slice(data);
    Ok(())
}

/// The states that the train program reads or writes; those of serving are not part of a run.
fn trained_states(t: &Trainer) -> BTreeSet<String> {
    let place = |p: &Place| match p {
        Place::State(name) => Some(name.clone()),
        Place::Arena(_) | Place::Scratch(_) | Place::Param(_) => None,
        Place::Table(_) | Place::Input(_) | Place::Output(_) => None,
    };
    t.model.plan(t.program).buffers.iter().filter_map(|b| place(&b.place)).collect()
}

fn write_folder(mut record: Record, params: &[Entry], states: &[Entry], folder: &Path) -> io::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    for (name, tensors) in [(FILE, params), (STATES, states)] {
        record.files.push(write_file(folder, name, |to| write_safetensors(to, tensors))?);
    }
    record.check = record.sum();
    let mut file = File::create(folder.join(RECORD))?;
    file.write_all(&record.json())?;
    file.sync_all()?;
    sync_folder(folder)
}

/// Writes a file, hashing it on the way, and syncs it.
fn write_file(folder: &Path, name: &str, write: impl FnOnce(&mut Hashed) -> io::Result<()>) -> io::Result<FileRecord> {
    let file = BufWriter::with_capacity(1 << 20, File::create(folder.join(name))?);
    let mut to = Hashed { to: file, hash: blake3::Hasher::new(), bytes: 0 };
    write(&mut to)?;
    let file = to.to.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(FileRecord { name: name.into(), bytes: to.bytes, blake3: to.hash.finalize().to_hex().to_string() })
}

struct Hashed {
    to: BufWriter<File>,
    hash: blake3::Hasher,
    bytes: u64,
}

impl Write for Hashed {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = self.to.write(data)?;
        self.hash.update(&data[..n]);
        self.bytes += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn hash_file(path: &Path) -> io::Result<(u64, String)> {
    let (mut file, mut hash) = (File::open(path)?, blake3::Hasher::new());
    let mut block = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        match file.read(&mut block)? {
            0 => return Ok((bytes, hash.finalize().to_hex().to_string())),
            n => {
                hash.update(&block[..n]);
                bytes += n as u64;
            }
        }
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
