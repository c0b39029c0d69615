//! Kernels of every kind that lowering makes, against the interpreter.
#[allow(dead_code)]
#[path = "../common/mod.rs"]
mod common;
mod elements;
mod memory;
mod rows;
mod scans;
