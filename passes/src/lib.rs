//! Graph to graph, graph to kernels and plan: one pass, one file.
//!
//! `pipeline` is the list of passes in order. Nothing here knows of machine code, files or devices.
pub mod canonicalize;
pub mod cluster;
pub mod differentiate;
pub mod egraph;
pub mod fuse;
pub mod lower;
pub mod memory;
pub mod narrow;
pub mod narrow_states;
pub mod optimizer;
pub mod pipeline;
pub mod precision;
pub mod raise;
pub mod rewrite;
pub mod schedule;
pub mod split_reductions;
