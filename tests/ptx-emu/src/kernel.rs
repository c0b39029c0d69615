//! A module and its kernels: what the text became.
use crate::decode;
use crate::inst::Slot;
use crate::op::Inst;
use crate::parse::{ParseError, parse};
use std::sync::Arc;

/// Where static shared memory starts in its window, so that an address nobody computed is not taken for one.
pub const SHARED_BASE: u32 = 1024;

/// The generic windows of the spaces that are not global.
pub const SHARED_WINDOW: u64 = 0x0100_0000_0000;
pub const LOCAL_WINDOW: u64 = 0x0200_0000_0000;
pub const CONST_WINDOW: u64 = 0x0300_0000_0000;
pub const WINDOW: u64 = 1 << 32;

/// A parameter of a kernel, as it lies in the bytes of a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    pub name: String,
    pub offset: usize,
    pub bytes: usize,
    pub align: usize,
}

/// A register that the hardware fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    NwarpId,
    SmId,
    NsmId,
    MaskEq,
    MaskLt,
    MaskLe,
    MaskGt,
    MaskGe,
    DynamicShared,
    TotalShared,
    /// The address of dynamic shared memory and an offset.
    DynamicAddress(u32),
}

/// What a 64-bit constant is: known from the text, or the address of a variable that lives in global memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wide {
    Bits(u64),
    Global {
        variable: u32,
        offset: u64,
    },
    /// The address of dynamic shared memory and an offset.
    Dynamic {
        offset: u64,
    },
}

/// A `.global` array of the module.
#[derive(Clone, Debug)]
pub struct GlobalVariable {
    pub bytes: usize,
    /// What it starts with; without an initialiser it is zero.
    pub init: Vec<u8>,
}

/// What all kernels of a module share.
#[derive(Debug)]
pub struct Common {
    /// Tells modules apart in a device's memory.
    pub identity: u64,
    pub lines: Vec<String>,
    pub consts: Vec<u8>,
    pub globals: Vec<GlobalVariable>,
}

/// A kernel, decoded.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) name: String,
    pub(crate) params: Vec<Param>,
    pub(crate) param_bytes: usize,
    pub(crate) max_threads: Option<u32>,
    pub(crate) required: Option<[u32; 3]>,
    pub(crate) code: Vec<Inst>,
    /// How many slots each file has: 32 bits, 64 bits, predicates.
    pub(crate) slots: [usize; 3],
    /// The declared names of the slots, for messages.
    pub(crate) names: [Vec<String>; 3],
    pub(crate) narrow_constants: Vec<(Slot, u32)>,
    pub(crate) wide_constants: Vec<(Slot, Wide)>,
    pub(crate) specials: Vec<(Slot, Special)>,
    pub(crate) shared_bytes: usize,
    /// The alignment of dynamic shared memory, where the kernel has such.
    pub(crate) dynamic_align: Option<usize>,
    pub(crate) local_bytes: usize,
    /// The least size of an access of shared and of global memory: the granule of the race detector.
    pub(crate) granules: [u32; 2],
    pub(crate) common: Arc<Common>,
}

impl Kernel {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The parameters in order, with their places in the bytes of a launch.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// How many bytes of parameters a launch gives.
    pub fn param_bytes(&self) -> usize {
        self.param_bytes
    }

    /// Bytes of static shared memory.
    pub fn shared_bytes(&self) -> usize {
        self.shared_bytes
    }

    /// True if the kernel declares shared memory whose size the launch gives.
    pub fn has_dynamic_shared(&self) -> bool {
        self.dynamic_align.is_some()
    }

    /// Bytes of local memory of a thread; a kernel of ours has none.
    pub fn local_bytes(&self) -> usize {
        self.local_bytes
    }

    /// The product of `.maxntid` or `.reqntid`.
    pub fn max_threads(&self) -> Option<u32> {
        self.max_threads
    }

    /// How many instructions the text has.
    pub fn instructions(&self) -> usize {
        self.code.len()
    }

    pub(crate) fn text_of(&self, line: u32) -> String {
        self.common.lines.get(line.saturating_sub(1) as usize).map_or(String::new(), |l| l.trim().to_string())
    }

    /// Where dynamic shared memory starts, from the start of the block's shared memory.
    pub(crate) fn dynamic_start(&self) -> usize {
        self.shared_bytes.next_multiple_of(self.dynamic_align.unwrap_or(1))
    }
}

/// A parsed and resolved text.
#[derive(Debug)]
pub struct Module {
    pub(crate) kernels: Vec<Kernel>,
    pub(crate) target: String,
}

impl Module {
    pub fn parse(text: &str) -> Result<Module, ParseError> {
        let file = parse(text)?;
        decode::module(text, &file)
    }

    /// What `.target` says, such as `sm_80`.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The names of the kernels, in the order of the text.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.kernels.iter().map(|k| k.name.as_str())
    }

    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|k| k.name == name)
    }
}
