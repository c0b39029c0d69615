//! Opens an artifact and checks all of it before anything in it is used: it is executable code and is treated so.
//!
//! Order: container (mark, version, bounds, every hash), CPU, manifest, plans, and only then the code becomes executable.
//! The copy of the code that runs is hashed again, so a file that changes under its mapping changes nothing.
use crate::cpu::code::{CodeError, Text};
use crate::cpu::memory::map_file;
use lolm_ir::artifact::container::{self, ContainerError, Section};
use lolm_ir::artifact::{CODE, MANIFEST, Manifest, PTX, architecture};
use lolm_ir::plan::Plan;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

mod bounds;
mod check;
mod features;
pub use check::{MAX_DIMS, MAX_OPERANDS, PlanError, elements};
pub use features::missing;

/// A checked artifact, ready to run.
pub struct Artifact {
    pub manifest: Manifest,
    hash: [u8; 32],
    pub(crate) code: Code,
    file: File,
    sections: Vec<(String, Range<usize>)>,
}

/// What the programs run.
pub(crate) enum Code {
    /// Machine code of the CPU, in pages of its own.
    Cpu(Text),
    /// A module for a GPU of this architecture.
    Ptx { architecture: String, text: String },
}

enum File {
    Owned(Vec<u8>),
    Mapped(memmap2::Mmap),
}

impl File {
    fn bytes(&self) -> &[u8] {
        match self {
            File::Owned(b) => b,
            File::Mapped(m) => m,
        }
    }
}

/// Why a file is not an artifact that this machine can run.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("not a whole artifact: {0}")]
    Container(#[from] ContainerError),
    #[error("the artifact has no section `{name}`")]
    MissingSection { name: String },
    #[error("the manifest cannot be read: {what}")]
    Manifest { what: String },
    #[error("the artifact is for x86-64, and this machine is {found}")]
    Machine { found: &'static str },
    #[error("this CPU lacks {}, which the artifact's code uses", missing.join(", "))]
    CpuFeatures { missing: Vec<String> },
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("section `{name}` is not text: {what}")]
    NotText { name: String, what: String },
    #[error("the artifact changed while it was read: the code does not have its hash any more")]
    Changed,
    #[error("no memory for the code: {0}")]
    Memory(io::Error),
}

impl Artifact {
    /// Opens and checks a file.
    pub fn open(path: &Path) -> Result<Artifact, ArtifactError> {
        let file = map_file(path).map_err(|source| ArtifactError::Read { path: path.into(), source })?;
        Artifact::new(File::Mapped(file))
    }

    /// Checks an artifact in memory.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Artifact, ArtifactError> {
        Artifact::new(File::Owned(bytes))
    }

    fn new(file: File) -> Result<Artifact, ArtifactError> {
        let bytes = file.bytes();
        let found = container::decode(bytes, hash)?;
        let section =
            |name: String| found.iter().find(|s| s.name == name).ok_or(ArtifactError::MissingSection { name });
        let manifest = read_manifest(section(MANIFEST.into())?.data)?;
        let code = match architecture(&manifest.target) {
            None => cpu_code(&manifest, section(CODE.into())?)?,
            Some(architecture) => ptx(&manifest, architecture, section(format!("{PTX}{architecture}"))?)?,
        };
        let whole: Vec<u8> = found.iter().flat_map(|s| s.name.bytes().chain([0]).chain(s.hash)).collect();
        let sections = found.iter().map(|s| (s.name.to_string(), s.offset..s.offset + s.data.len())).collect();
        Ok(Artifact { hash: hash(&whole), manifest, code, sections, file })
    }

    /// A hash over the names and hashes of all sections, in hexadecimal: what this artifact is.
    pub fn id(&self) -> String {
        self.hash.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The contents of a section, such as embedded weights.
    pub fn section(&self, name: &str) -> Option<&[u8]> {
        let range = self.sections.iter().find(|s| s.0 == name)?.1.clone();
        self.file.bytes().get(range)
    }

    pub fn program(&self, name: &str) -> Option<&Plan> {
        self.manifest.programs.iter().find(|p| p.program == name)
    }
}

impl std::fmt::Debug for Artifact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Artifact").field("name", &self.manifest.name).field("id", &self.id()).finish_non_exhaustive()
    }
}

/// Machine code, checked and made executable.
fn cpu_code(m: &Manifest, code: &Section) -> Result<Code, ArtifactError> {
    features::check(&m.features)?;
    check::manifest(m, code.data.len() as u64)?;
    let text = Text::new(code.data, |copy| match hash(copy) == code.hash {
        true => Ok(()),
        false => Err(ArtifactError::Changed),
    });
    text.map(Code::Cpu).map_err(|e| match e {
        CodeError::Memory(e) => ArtifactError::Memory(e),
        CodeError::Refused(e) => e,
    })
}

/// A module of PTX. What the device compiles is this copy, whose hash is looked at once more.
fn ptx(m: &Manifest, architecture: &str, code: &Section) -> Result<Code, ArtifactError> {
    check::manifest(m, code.data.len() as u64)?;
    let text = String::from_utf8(code.data.to_vec());
    let text = text.map_err(|e| ArtifactError::NotText { name: code.name.into(), what: e.to_string() })?;
    match hash(text.as_bytes()) == code.hash {
        true => Ok(Code::Ptx { architecture: architecture.into(), text }),
        false => Err(ArtifactError::Changed),
    }
}

/// The manifest, and nothing behind it.
fn read_manifest(data: &[u8]) -> Result<Manifest, ArtifactError> {
    let (manifest, rest) =
        postcard::take_from_bytes(data).map_err(|e| ArtifactError::Manifest { what: e.to_string() })?;
    match rest.len() {
        0 => Ok(manifest),
        n => Err(ArtifactError::Manifest { what: format!("{n} bytes stand behind it") }),
    }
}

/// The hash of the container.
pub fn hash(data: &[u8]) -> [u8; 32] {
    *blake3::hash(data).as_bytes()
}

#[cfg(test)]
mod tests;
