//! LOLM, the Latent Order Language Model: a Transformer decoder and a state-space core mixed by a learned gate.
//!
//! Each part has a file; `programs` puts them together. Names of parameters are those of the published checkpoints.
mod cx;
mod decoder;
mod gate;
mod losses;
mod memory;
mod programs;
mod regime;
mod ssm;

pub use programs::{BuildError, Program, build, loss_parameters, parameters, prefill_sizes};
pub use regime::Noise;
