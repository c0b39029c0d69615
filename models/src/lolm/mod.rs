//! LOLM, the Latent Order Language Model: a Transformer decoder and a state-space core mixed by a learned gate.
//!
//! Each part has a file; `programs` puts them together. Names of parameters are those of the published checkpoints.
mod decoder;
mod gate;
mod losses;
mod memory;
mod programs;
mod regime;
mod ssm;

pub use programs::build;
pub use regime::Noise;

/// A program of a LOLM under construction.
type Cx<'a> = crate::cx::Cx<'a, crate::spec::LolmSpec>;
