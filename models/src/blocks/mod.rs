//! The functions that models are made of, written out in small operations; the passes raise them again.
mod attention;
mod elementwise;
mod loss;
mod mamba;
mod mlp;
mod moe;
mod rg_lru;
mod rows;
mod sequence;

pub use attention::{Names, Shared, attention, shared};
pub use elementwise::{clamp, gelu, gelu_tanh, sigmoid, silu, soft_cap, softplus, sqrt_bounded};
pub use loss::{mean_over_targets, token_loss};
pub use mamba::{Axes as MambaAxes, Channels, MambaWeights, Norms, mamba, mamba_weights, selective_scan};
pub use mlp::{MlpNames, gated_mlp, swiglu};
pub use moe::{ExpertAxes, Experts, moe};
pub use rg_lru::{RgLru, rg_lru};
pub use rows::{Gain, entropy, layer_norm, log_sum_exp, rms_norm, softmax, unit};
pub use sequence::{causal_conv, concat, joined, linear, one_hot, rope_interleaved, slice_or_rename, stack, sum_of};
