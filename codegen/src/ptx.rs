//! The CUDA back end: PTX from kernels, for any GPU from sm_80 on.
//!
//! `inst` has the instructions and registers, `print` the one printer, `build` a small builder; `simt` is the shared
//! [`crate::emit::Emit`] over warps: a unit of the schedule is done by one warp, and its 32 threads are the lanes.
mod arith;
mod assembler;
mod attention;
mod build;
mod compile;
mod contract;
mod coord;
mod flow;
mod inst;
mod memory;
mod print;
mod sample;
mod scan;
mod simt;

pub use assembler::{AssembleError, Assembled, Assembler, Usage};
pub use attention::{attention, attention_grad};
pub use compile::{Code, Sm, compile, preamble};
pub use contract::contract;
pub use sample::sample;
pub use scan::{scan, scan_grad};
