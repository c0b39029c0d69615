//! `ir::artifact`: the file that holds compiled programs. A header, a table of hashed sections, page-aligned contents.
//!
//! Hashing is given by the caller, so that this crate stays free of it; writer and reader share the layout here. The
//! manifest is [`Manifest`] in postcard's binary form, a tenth of what JSON takes, since a deep model has thousands of
//! launches; `lolm inspect` prints it. The code is position-independent text without relocations.
pub mod container;

use crate::dtype::DType;
use crate::graph::{Init, Table};
use crate::plan::Plan;
use serde::{Deserialize, Serialize};

pub const MAGIC: [u8; 8] = *b"LOLMART\n";
pub const FORMAT: u32 = 2;
pub const PAGE: usize = 4096;
pub const MANIFEST: &str = "manifest";
pub const CODE: &str = "code.x86-64-v3";

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

/// A compiled kernel: its code at `offset` of the code section.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KernelRecord {
    pub name: String,
    pub offset: u64,
    pub len: u64,
    /// Units of the whole kernel, the product of `unit_dims`.
    pub units: u64,
    pub unit_dims: Vec<u32>,
    pub operands: u32,
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
    pub shape: Vec<usize>,
    /// The parameter it starts as a copy of (repeated over leading dimensions), or zero.
    pub init: Option<String>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TableRecord {
    pub name: String,
    pub shape: Vec<usize>,
    pub table: Table,
}
