//! The functions that models are made of, written out in small operations; the passes raise them again.
mod elementwise;
mod moe;
mod rg_lru;
mod rows;
mod sequence;

pub use elementwise::{clamp, gelu, gelu_tanh, sigmoid, silu, soft_cap, softplus, sqrt_bounded};
pub use moe::{ExpertAxes, Experts, moe};
pub use rg_lru::{RgLru, rg_lru};
pub use rows::{Gain, entropy, layer_norm, log_sum_exp, rms_norm, softmax, unit};
pub use sequence::{causal_conv, concat, joined, linear, one_hot, rope_interleaved, slice_or_rename, stack, sum_of};
