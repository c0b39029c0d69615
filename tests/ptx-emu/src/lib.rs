//! An emulator of PTX: runs the text of a kernel on the CPU, strictly, so that a kernel is proven where there is no GPU.
//!
//! [`Module::parse`] resolves a text once, [`Memory`] is what the device holds, and [`launch`] runs a kernel to its end or to
//! its first [`Fault`]. A fault names the line of the text, the block, warp and lane, and what to look for. These are faults:
//!
//! - accesses out of bounds, or not aligned to their own size (the whole vector's);
//! - reads of registers, shared, local or global bytes that were never written on the way there;
//! - reads of shared bytes that a `cp.async` under way will write: copies land at the wait that covers them, not before;
//! - barriers that some lanes of a warp do not reach, exchanges with lanes that are not there, and deadlocks;
//! - two accesses that nothing orders, one of them a write, of shared or of global memory (`shadow.rs` and `order.rs` say what
//!   orders, and how a kernel legally passes data from block to block);
//! - integer division by zero, `trap`, and more steps than the options allow.
//!
//! Lanes of a warp diverge and meet again lowest place first. Warps of a block, and a few blocks at once, run in an order that
//! the seed of the [`Options`] gives. Approximate functions are computed in f64 and rounded, which lies inside the documented
//! errors (`exec/approx.rs` lists them); an option moves them about inside of these.
#![forbid(unsafe_code)]
mod ast;
mod counts;
mod decode;
mod exec;
mod fault;
mod inst;
mod kernel;
mod lanes;
mod launch;
mod lex;
mod memory;
mod op;
mod order;
mod parse;
mod random;
mod shadow;
mod ty;
mod warp;

pub use counts::{Counts, LineCounts};
pub use fault::{Fault, FaultKind, Place};
pub use inst::Class;
pub use kernel::{Kernel, Module, Param};
pub use launch::{Launch, Options, launch};
pub use memory::{Address, Memory};
pub use parse::ParseError;
