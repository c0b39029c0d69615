//! An executable with a model behind it: `lolm compile --exe` writes one, and it serves.
//!
//! Behind the program, at a multiple of a page, stand files one after the other: the artifact, the weights if they were given,
//! and what says how text becomes tokens. Then a list of them as JSON, each with its hash, and at the very end where the
//! list lies, and its own hash. To the rest of the command such an executable is a folder with these files:
//! `PROGRAM/tokenizer.json` is in it. Nothing of it is used before its hash was looked at.
use anyhow::{Context, Result, anyhow, bail, ensure};
use blake3::{Hash, Hasher};
use lolm_runtime::cpu::memory::map_part;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The last bytes of an executable with a model.
const MARK: [u8; 8] = *b"LOLMEXE\n";
/// Where the list lies, how long it is, its hash, and the mark.
const END: usize = 56;
const PAGE: u64 = 4096;
/// The longest list.
const LONGEST: u64 = 1 << 20;

/// The artifact.
pub const ARTIFACT: &str = "model.lolm";
/// The weights.
pub const WEIGHTS: &str = "model.safetensors";

/// What stands behind the program.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    /// Bytes of the program itself.
    program: u64,
    /// Steps of training of the weights, where they are known.
    steps: Option<u64>,
    files: Vec<Entry>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    at: u64,
    len: u64,
    /// BLAKE3, in hexadecimal.
    hash: String,
}

/// An executable with a model behind it.
pub struct Bundle {
    path: PathBuf,
    list: List,
}

/// A file of it, mapped as long as this lives: pages that were read count as memory in use.
pub struct Part<'a> {
    bundle: &'a Path,
    entry: &'a Entry,
    map: Box<dyn Deref<Target = [u8]> + Send + Sync>,
}

impl Deref for Part<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl Part<'_> {
    /// Refuses what is not what was put there.
    pub fn check(&self) -> Result<()> {
        let same = Hash::from_hex(&self.entry.hash).is_ok_and(|hash| hash == blake3::hash(self));
        let (path, name) = (self.bundle.display(), &self.entry.name);
        ensure!(same, "{path} is damaged: `{name}` in it does not have its hash any more");
        Ok(())
    }
}

impl Bundle {
    /// Opens an executable; none if no model stands behind it.
    pub fn open(path: &Path) -> Result<Option<Bundle>> {
        let cannot = || format!("cannot read {}", path.display());
        let mut file = File::open(path).with_context(cannot)?;
        let Some(list) = read_list(&mut file).with_context(cannot)? else { return Ok(None) };
        let len = file.metadata().with_context(cannot)?.len();
        for f in &list.files {
            let end = f.at.checked_add(f.len).filter(|end| *end <= len);
            ensure!(end.is_some(), "{}: `{}` reaches beyond its end: the file is damaged", path.display(), f.name);
        }
        Ok(Some(Bundle { path: path.into(), list }))
    }

    /// A file, after a look at its hash.
    pub fn file(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(part) = self.unchecked(name)? else { return Ok(None) };
        part.check()?;
        Ok(Some(part.to_vec()))
    }
    /// A file whose hash somebody else looks at, by [`Part::check`].
    pub fn unchecked(&self, name: &str) -> Result<Option<Part<'_>>> {
        let Some(entry) = self.entry(name) else { return Ok(None) };
        let map = map_part(&self.path, entry.at..entry.at + entry.len);
        let map = Box::new(map.with_context(|| format!("cannot read {}", self.path.display()))?);
        Ok(Some(Part { bundle: &self.path, entry, map }))
    }
    fn entry(&self, name: &str) -> Option<&Entry> {
        self.list.files.iter().find(|f| f.name == name)
    }
    /// Steps of training of the weights, where they are known.
    pub fn steps(&self) -> Option<u64> {
        self.list.steps
    }
    /// Where the executable lies, which is the folder of its files.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The list at the end of an executable, if there is one.
fn read_list(file: &mut File) -> Result<Option<List>> {
    let len = file.metadata()?.len();
    let Some(at) = len.checked_sub(END as u64) else { return Ok(None) };
    let mut end = [0; END];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut end)?;
    let number = |i: usize| end[i..i + 8].iter().rev().fold(0u64, |n, b| n << 8 | *b as u64);
    if end[48..] != MARK {
        let whole = program_bytes(file)?.is_none_or(|bytes| bytes == len);
        ensure!(whole, "more than a program is in it, but not a whole model: it is damaged, or was cut short");
        return Ok(None);
    }
    let (from, bytes) = (number(0), number(8));
    ensure!(bytes <= LONGEST && from.checked_add(bytes) == Some(at), "its list of files is not in it: it is damaged");
    let mut text = vec![0; bytes as usize];
    file.seek(SeekFrom::Start(from))?;
    file.read_exact(&mut text)?;
    ensure!(blake3::hash(&text).as_bytes()[..] == end[16..48], "its list of files is damaged");
    let list: List = serde_json::from_slice(&text).context("its list of files is damaged")?;
    Ok(Some(list))
}

/// Where a program ends, by its own account: behind the table of its sections, which linkers put last. None if it does not
/// say so.
fn program_bytes(file: &mut File) -> Result<Option<u64>> {
    let mut head = [0; 64];
    file.seek(SeekFrom::Start(0))?;
    // What is shorter is no program.
    if file.take(64).read(&mut head)? < 64 || head[..6] != *b"\x7fELF\x02\x01" {
        return Ok(None);
    }
    let number = |at: usize, bytes: usize| head[at..at + bytes].iter().rev().fold(0u64, |n, b| n << 8 | *b as u64);
    let (table, size, count) = (number(0x28, 8), number(0x3a, 2), number(0x3c, 2));
    Ok((table > 0).then(|| table.checked_add(size * count)).flatten())
}

fn looked() -> &'static Result<Option<Bundle>, String> {
    static OWN: OnceLock<Result<Option<Bundle>, String>> = OnceLock::new();
    OWN.get_or_init(|| {
        // A program that cannot learn where it lies has nothing behind it that it could find.
        let Ok(path) = std::env::current_exe() else { return Ok(None) };
        Bundle::open(&path).map_err(|e| format!("{e:#}"))
    })
}

/// Refuses to run an executable whose model is damaged.
pub fn check_own() -> Result<()> {
    looked().as_ref().map(drop).map_err(|e| anyhow!("{e}"))
}

/// The executable that runs, if a model stands behind it. It is looked at once; one that is damaged ends by [`check_own`]
/// before anybody asks.
pub fn own() -> Option<&'static Bundle> {
    looked().as_ref().ok().and_then(Option::as_ref)
}

/// The file of this path in the executable that runs, which counts as a folder.
pub fn find(path: &Path) -> Result<Option<Vec<u8>>> {
    match at(path) {
        Some((bundle, name)) => bundle.file(name),
        None => Ok(None),
    }
}

/// The executable that runs, if this path is in it, and the name of the file.
fn at(path: &Path) -> Option<(&'static Bundle, &str)> {
    let name = path.file_name()?.to_str()?;
    // Most paths are not in it, so the executable is looked at last.
    Some((own().filter(|b| path.parent() == Some(b.path()))?, name))
}

/// True if there is such a file, or the executable that runs holds it.
pub fn is_file(path: &Path) -> bool {
    path.is_file() || at(path).is_some_and(|(bundle, name)| bundle.entry(name).is_some())
}

/// What is put behind a program.
pub struct Contents<'a> {
    pub artifact: &'a [u8],
    pub steps: Option<u64>,
    /// Writes the weights.
    pub weights: Option<&'a WriteWeights<'a>>,
    /// Names and contents of other files.
    pub texts: Vec<(String, Vec<u8>)>,
}

pub type WriteWeights<'a> = dyn Fn(&mut dyn Write) -> Result<()> + 'a;

/// Writes the program `from` with these contents to `out`, which becomes executable. A model behind `from` is left out.
pub fn write(from: &Path, contents: &Contents, out: &Path) -> Result<u64> {
    let mut program = File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
    let bytes = match read_list(&mut program)? {
        Some(list) => list.program,
        None => program.metadata()?.len(),
    };
    let name = out.file_name().with_context(|| format!("{} is not the name of a file", out.display()))?;
    let unfinished = out.with_file_name(format!(".{}.unfinished", name.to_string_lossy()));
    let put = || -> Result<u64> {
        program.seek(SeekFrom::Start(0))?;
        let mut to = Counted { to: BufWriter::new(File::create(&unfinished)?), at: 0, hasher: Hasher::new() };
        if std::io::copy(&mut program.take(bytes), &mut to)? != bytes {
            bail!("{} is shorter than it says", from.display());
        }
        put_files(&mut to, bytes, contents)?;
        to.flush()?;
        std::fs::set_permissions(&unfinished, std::fs::metadata(from)?.permissions())?;
        std::fs::rename(&unfinished, out)?;
        Ok(to.at)
    };
    put().with_context(|| format!("cannot write {}", out.display()))
}

fn put_files(to: &mut Counted, program: u64, contents: &Contents) -> Result<()> {
    let mut list = List { program, steps: contents.steps, files: vec![] };
    let mut put = |to: &mut Counted, name: &str, give: &WriteWeights| -> Result<()> {
        let at = to.at.next_multiple_of(PAGE);
        to.write_all(&vec![0; (at - to.at) as usize])?;
        to.hasher.reset();
        give(to)?;
        let hash = to.hasher.finalize().to_hex().to_string();
        list.files.push(Entry { name: name.into(), at, len: to.at - at, hash });
        Ok(())
    };
    put(to, ARTIFACT, &|to| Ok(to.write_all(contents.artifact)?))?;
    for (name, text) in &contents.texts {
        put(to, name, &|to| Ok(to.write_all(text)?))?;
    }
    if let Some(weights) = contents.weights {
        put(to, WEIGHTS, weights)?;
    }
    let (at, text) = (to.at, serde_json::to_vec(&list)?);
    to.write_all(&text)?;
    to.write_all(&at.to_le_bytes())?;
    to.write_all(&(text.len() as u64).to_le_bytes())?;
    to.write_all(blake3::hash(&text).as_bytes())?;
    Ok(to.write_all(&MARK)?)
}

/// A file, how much was written to it, and a hash of what was written last.
struct Counted {
    to: BufWriter<File>,
    at: u64,
    hasher: Hasher,
}

impl Write for Counted {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let n = self.to.write(data)?;
        self.hasher.update(&data[..n]);
        self.at += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_behind_a_program_is_found_there_and_replaced() {
        let folder = std::env::temp_dir().join(format!("lolm-bundle-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let [program, one, two] = ["program", "one", "two"].map(|n| folder.join(n));
        std::fs::write(&program, [7; 5000]).unwrap();
        assert!(Bundle::open(&program).unwrap().is_none());
        let weights = |to: &mut dyn Write| Ok(to.write_all(&[9; 10_000])?);
        let texts = vec![("tokenizer.json".to_string(), b"{}".to_vec())];
        let full = Contents { artifact: b"code", steps: Some(3), weights: Some(&weights), texts };
        let bytes = write(&program, &full, &one).unwrap();
        assert_eq!(bytes, std::fs::metadata(&one).unwrap().len());
        let b = Bundle::open(&one).unwrap().unwrap();
        let file = |b: &Bundle, name: &str| b.file(name).unwrap();
        assert_eq!(file(&b, ARTIFACT), Some(b"code".to_vec()));
        assert_eq!(file(&b, "tokenizer.json"), Some(b"{}".to_vec()));
        assert_eq!((file(&b, WEIGHTS), file(&b, "x"), b.steps()), (Some(vec![9; 10_000]), None, Some(3)));
        assert_eq!(std::fs::read(&one).unwrap()[..5000], [7; 5000]);

        let bare = Contents { artifact: b"other", steps: None, weights: None, texts: vec![] };
        write(&one, &bare, &two).unwrap();
        let b = Bundle::open(&two).unwrap().unwrap();
        assert_eq!((file(&b, ARTIFACT), file(&b, WEIGHTS)), (Some(b"other".to_vec()), None));
        assert!(std::fs::metadata(&two).unwrap().len() < 13_000, "the program alone, and one page");

        // Any bit of what stands behind the program, beside what fills pages.
        let whole = std::fs::read(&two).unwrap();
        for at in (8192..8197).chain(8197..whole.len()).map(|i| i * 8 + i % 8) {
            let mut bytes = whole.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            std::fs::write(&one, bytes).unwrap();
            let found = Bundle::open(&one).and_then(|b| b.map_or(Ok(None), |b| b.file(ARTIFACT)));
            // Without its mark it is a program, unless that says how long it is.
            assert!(found.as_ref().map_or(true, Option::is_none), "bit {at}: {found:?}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_program_that_says_where_it_ends_is_not_taken_for_whole_with_half_a_model() {
        let path = std::env::temp_dir().join(format!("lolm-half-{}", std::process::id()));
        let mut program = vec![0; 5000];
        program[..6].copy_from_slice(b"\x7fELF\x02\x01");
        program[0x28..0x30].copy_from_slice(&4872u64.to_le_bytes());
        program[0x3a..0x3e].copy_from_slice(&[64, 0, 2, 0]);
        for (bytes, says) in [(5000, None), (5001, Some("cut short")), (9000, Some("cut short"))] {
            program.resize(bytes, 1);
            std::fs::write(&path, &program).unwrap();
            let found = Bundle::open(&path).map(|b| b.is_some()).map_err(|e| format!("{e:#}"));
            match says {
                None => assert_eq!(found, Ok(false)),
                Some(says) => assert!(found.unwrap_err().contains(says)),
            }
        }
        std::fs::remove_file(&path).unwrap();
    }
}
