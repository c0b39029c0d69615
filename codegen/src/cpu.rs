//! The CPU back end: Cranelift, 128-bit vectors, position-independent code without relocations for x86-64-v3.
mod access;
mod arith;
mod clif;
mod compile;
pub use compile::{Code, FEATURES, compile};
