//! The functions that models are made of, written out in small operations; the passes raise them again.
mod elementwise;
mod rows;
mod sequence;

pub use elementwise::{clamp, gelu, sigmoid, silu, softplus};
pub use rows::{entropy, layer_norm, log_sum_exp, softmax, unit};
pub use sequence::{concat, joined, linear, one_hot, rope_interleaved, slice_or_rename, stack, sum_of};
