//! `ir::artifact`: the file that holds compiled programs. A header, a table of hashed sections, page-aligned contents.
//!
//! Hashing is given by the caller, so that this crate stays free of it; writer and reader share the layout here. The
//! manifest is [`Manifest`] in postcard's binary form, a tenth of what JSON takes, since a deep model has thousands of
//! launches; `lolm inspect` prints it. Code for the CPU is position-independent text without relocations; code for a GPU is
//! one module of PTX, whose entries take an address for each operand and nothing else.
pub mod container;

use crate::dtype::DType;
use crate::graph::{Init, RowKind, Table};
use crate::kernel::Mode;
use crate::plan::Plan;
use serde::{Deserialize, Serialize};

pub const MAGIC: [u8; 8] = *b"LOLMART\n";
pub const FORMAT: u32 = 5;
pub const PAGE: usize = 4096;
pub const MANIFEST: &str = "manifest";
pub const CODE: &str = "code.x86-64-v3";
/// What a target for a GPU starts with; behind it stands the architecture, as in `cuda:sm_80`.
pub const CUDA: &str = "cuda:";
/// What a section of PTX starts with; behind it stands the architecture, as in `ptx.sm_80`.
pub const PTX: &str = "ptx.";

/// The architecture of a target for a GPU: `sm_80` of `cuda:sm_80`, and nothing of a target for the CPU.
pub fn architecture(target: &str) -> Option<&str> {
    target.strip_prefix(CUDA)
}

/// The entry of a kernel in a module of PTX: its name as PTX has names, and its number, which tells equal names apart.
pub fn entry(index: usize, name: &str) -> String {
    let word: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let letter = if word.starts_with(|c: char| c.is_ascii_alphabetic()) { "" } else { "k" };
    format!("{letter}{word}_{index}")
}

/// What the name of a program starts with that decodes in lanes; behind it stands how many, as in `decode_8`.
const LANES: &str = "decode_";

/// The name of the program that decodes a token of each of so many sequences.
pub fn lanes_program(lanes: usize) -> String {
    format!("{LANES}{lanes}")
}

/// How many sequences a program decodes side by side, whose states are the first rows of pools; nothing if the program's
/// states are its own.
pub fn lanes(program: &str) -> Option<usize> {
    program.strip_prefix(LANES)?.parse().ok().filter(|n| *n > 0)
}

/// Everything but code: what the runtime must know to run the programs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// The spec as it was compiled, TOML.
    pub spec: String,
    pub name: String,
    pub target: String,
    /// CPU features that the code uses, as `is_x86_feature_detected` names them.
    pub features: Vec<String>,
    pub programs: Vec<Plan>,
    pub kernels: Vec<KernelRecord>,
    pub params: Vec<ParamRecord>,
    pub states: Vec<StateRecord>,
    pub tables: Vec<TableRecord>,
}

/// A compiled kernel: its code, or its text, at `offset` of the section of code.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KernelRecord {
    pub name: String,
    pub offset: u64,
    pub len: u64,
    /// Units of the whole kernel, the product of `unit_dims`.
    pub units: u64,
    pub unit_dims: Vec<u32>,
    /// Which of its operands it reads and writes.
    pub operands: Vec<Mode>,
    /// How a GPU runs it; none on a CPU.
    pub block: Option<Block>,
}

/// The blocks of a kernel on a GPU: in a row, as many as its units need.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Block {
    pub threads: u32,
    /// Units that a block does.
    pub units: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ParamRecord {
    pub name: String,
    /// What its elements are stored as: f32 or bf16.
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub init: Init,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StateRecord {
    pub name: String,
    pub dtype: DType,
    /// If it has rows, the first dimension is that of the programs that work on one sequence.
    pub shape: Vec<usize>,
    pub rows: RowKind,
    /// The parameter it starts as a copy of (repeated over leading dimensions), or zero.
    pub init: Option<String>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TableRecord {
    pub name: String,
    pub shape: Vec<usize>,
    pub table: Table,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_names_of_ptx() {
        assert_eq!(entry(3, "rms_norm.bwd/w"), "rms_norm_bwd_w_3");
        assert_eq!(entry(0, "2x"), "k2x_0");
        assert_eq!(entry(7, ""), "k_7");
        assert_eq!((lanes(&lanes_program(8)), lanes("decode"), lanes("decode_x")), (Some(8), None, None));
        assert_eq!((architecture("cuda:sm_80"), architecture("x86-64-v3")), (Some("sm_80"), None));
    }
}
