//! Specs, checkpoint names and one readable file a model family.
//!
//! A *spec* says what a model is; a *program* is a function of the spec and a shape. Models are written in the small
//! operations of [`lolm_ir::op::Op`]; the passes find the fused ones. Nothing here knows of passes or devices.
pub mod blocks;
mod choice;
mod cx;
pub mod gguf;
mod griffin;
pub mod hf;
mod jamba;
mod language_model;
mod lolm;
mod mamba;
mod program;
mod samba;
pub mod spec;
mod transformer;

pub use choice::choosing;
pub use lolm::Noise;
pub use program::{BuildError, Program, build, kept_keys, loss_parameters, parameters, prefill_sizes, window};
pub use spec::{Family, Spec, SpecError};
