//! NVIDIA's assembler, where it is at hand: what a module takes of a processor, and what is wrong with it.
//!
//! Nothing that is compiled needs it. It is the proof that the text is PTX, and it knows what no text says: the registers
//! of a kernel, and whether they are enough.
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A `ptxas` that can be called.
#[derive(Clone, Debug)]
pub struct Assembler {
    at: PathBuf,
}

/// What an entry takes of a processor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Usage {
    pub entry: String,
    /// Of each thread.
    pub registers: u32,
    /// Bytes of a block that are known without the launch.
    pub shared: u32,
}

/// What the assembler made of a module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Assembled {
    pub entries: Vec<Usage>,
    /// Values that are not in registers, remarks, warnings and errors: it exits with 0 after much that is wrong.
    pub complaints: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    #[error("cannot write {path} for the assembler: {error}")]
    Write { path: PathBuf, error: io::Error },
    #[error("cannot run {path}: {error}")]
    Run { path: PathBuf, error: io::Error },
}

impl Assembler {
    /// The assembler in this file, if there is one.
    pub fn at(path: &Path) -> Option<Assembler> {
        path.is_file().then(|| Assembler { at: path.into() })
    }

    /// Assembles a module for a chip such as `sm_80`; the text goes through a file of this name, which is left there.
    pub fn assemble(&self, text: &str, chip: &str, through: &Path) -> Result<Assembled, AssembleError> {
        std::fs::write(through, text).map_err(|error| AssembleError::Write { path: through.into(), error })?;
        let out = through.with_extension(format!("{chip}.cubin"));
        let run = Command::new(&self.at).args(["-v", "-arch", chip]).arg(through).arg("-o").arg(&out).output();
        let run = run.map_err(|error| AssembleError::Run { path: self.at.clone(), error })?;
        let mut done = understand(&String::from_utf8_lossy(&run.stderr));
        if !run.status.success() && done.complaints.is_empty() {
            done.complaints.push(format!("the assembler gave up: {}", run.status));
        }
        Ok(done)
    }
}

/// Reads what `ptxas -v` says.
fn understand(said: &str) -> Assembled {
    let mut out = Assembled::default();
    let mut entry = "";
    for line in said.lines() {
        if let Some(name) = line.split('\'').nth(1).filter(|_| line.contains("Compiling entry function")) {
            entry = name;
        }
        if line.contains("Used ") && line.contains(" registers") {
            let (registers, shared) = (number_before(line, " registers"), number_before(line, " bytes smem"));
            let (registers, shared) = (registers.unwrap_or(0), shared.unwrap_or(0));
            out.entries.push(Usage { entry: entry.into(), registers, shared });
        }
        if is_complaint(line) {
            out.complaints.push(format!("{entry}: {}", line.trim()));
        }
    }
    out
}

/// The number that stands before this word.
fn number_before(line: &str, word: &str) -> Option<u32> {
    let digits = line.split(word).next().filter(|_| line.contains(word))?;
    digits.rsplit([' ', ',']).next()?.parse().ok()
}

fn is_complaint(line: &str) -> bool {
    let in_registers = line.trim() == "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads";
    let memory = line.contains("bytes stack frame") && !in_registers;
    let remark = ["(C75", "warning", "error", "fatal", "lmem"].iter().any(|word| line.contains(word));
    memory || remark
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_assembler_says_is_understood() {
        let said = "ptxas info    : 0 bytes gmem\n\
            ptxas info    : Compiling entry function 'add_0' for 'sm_80'\n\
            ptxas info    : Function properties for add_0\n\
            \x20   0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
            ptxas info    : Used 24 registers, used 1 barriers, 1024 bytes smem, 376 bytes cmem[0]\n\
            ptxas info    : Compiling entry function 'dot_1' for 'sm_80'\n\
            ptxas info    : Used 255 registers, 376 bytes cmem[0]\n";
        let usage = |entry: &str, registers, shared| Usage { entry: entry.into(), registers, shared };
        let entries = vec![usage("add_0", 24, 1024), usage("dot_1", 255, 0)];
        assert_eq!(understand(said), Assembled { entries, complaints: vec![] });
    }

    #[test]
    fn complaints_are_heard() {
        for bad in [
            "    16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads",
            "    10 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads",
            "    0 bytes stack frame, 8 bytes spill stores, 8 bytes spill loads",
            "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized",
            "ptxas fatal   : Unresolved extern function 'f'",
        ] {
            assert_eq!(understand(bad).complaints, [format!(": {}", bad.trim())]);
        }
    }
}
