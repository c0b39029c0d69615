//! What the kernels of an artifact take of a GPU's processor: NVIDIA's assembler knows, where there is one.
use anyhow::{Context, Result, ensure};
use lolm_codegen::ptx::Assembler;
use lolm_ir::artifact::{KernelRecord, entry};
use lolm_ir::threads::in_order;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Where the assembler is if `PTXAS` does not say so and it is not among the commands.
const FETCHED: &str = ".ptx-tools/ptxas";

/// Kernels that are assembled in one call.
const TOGETHER: usize = 16;

/// A kernel of an artifact, with what it takes where that is known.
#[derive(Clone, Debug, Serialize)]
pub struct Record<'a> {
    #[serde(flatten)]
    pub kernel: &'a KernelRecord,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Usage {
    /// Of each thread.
    pub registers: u32,
    /// Bytes of a block, those that the launch gives included.
    pub shared: u32,
    /// What the assembler has to say against the kernel.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub complaints: Vec<String>,
}

/// The kernels as they are, of which nobody knows what they take.
pub fn bare(kernels: &[KernelRecord]) -> Vec<Record<'_>> {
    kernels.iter().map(|kernel| Record { kernel, usage: None }).collect()
}

/// The assembler: the one that `PTXAS` names, one of the commands, or the one that was fetched.
pub fn assembler() -> Result<Option<Assembler>> {
    if let Some(path) = std::env::var_os("PTXAS").filter(|p| !p.is_empty()).map(PathBuf::from) {
        let found = Assembler::at(&path);
        ensure!(found.is_some(), "PTXAS names {}, which is no file", path.display());
        return Ok(found);
    }
    let commands = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&commands).map(|p| p.join("ptxas")).chain([PathBuf::from(FETCHED)]);
    Ok(places.find_map(|p| Assembler::at(&p)))
}

/// Assembles the kernels, whose text this is, for a chip.
pub fn of<'a>(ptxas: &Assembler, kernels: &'a [KernelRecord], text: &str, chip: &str) -> Result<Vec<Record<'a>>> {
    let folder = std::env::temp_dir().join(format!("lolm-inspect-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let batches: Vec<&[KernelRecord]> = kernels.chunks(TOGETHER).collect();
    let work = |i: usize| batch(ptxas, (i * TOGETHER, batches[i]), text, chip, &folder.join(format!("{i}.ptx")));
    let done: Result<Vec<Vec<Record>>> = in_order(batches.len(), work).into_iter().collect();
    // What is left there is nobody's result.
    let _ = std::fs::remove_dir_all(&folder);
    Ok(done?.concat())
}

fn batch<'a>(
    ptxas: &Assembler,
    (first, kernels): (usize, &'a [KernelRecord]),
    text: &str,
    chip: &str,
    file: &Path,
) -> Result<Vec<Record<'a>>> {
    let part = |from: u64, len: u64| text.get(from as usize..(from + len) as usize);
    let preamble = text.find(".visible .entry").and_then(|end| text.get(..end));
    let mut module = preamble.context("bug: the PTX of an artifact has no entry")?.to_owned();
    for k in kernels {
        module += part(k.offset, k.len).with_context(|| format!("bug: kernel {} lies outside of the text", k.name))?;
        module.push('\n');
    }
    let done = ptxas.assemble(&module, chip, file)?;
    let record = |(i, kernel): (usize, &'a KernelRecord)| {
        let name = entry(first + i, &kernel.name);
        let used = done.entries.iter().find(|u| u.entry == name);
        let against = format!("{name}: ");
        let complaints: Vec<String> =
            done.complaints.iter().filter_map(|c| Some(c.strip_prefix(&against)?.to_owned())).collect();
        let dynamic = kernel.block.map_or(0, |b| b.shared);
        let usage = used.map(|u| Usage { registers: u.registers, shared: u.shared + dynamic, complaints });
        Record { kernel, usage }
    };
    ensure!(done.entries.len() == kernels.len(), "ptxas does not take the PTX: {}", done.complaints.join("; "));
    Ok(kernels.iter().enumerate().map(record).collect())
}
