//! Specs, checkpoint names and one readable file a model family.
//!
//! A *spec* says what a model is; a *program* is a function of the spec and a shape. Models are written in the small
//! operations of [`lolm_ir::op::Op`]; the passes find the fused ones. Nothing here knows of passes or devices.
pub mod blocks;
pub mod gguf;
pub mod lolm;
pub mod spec;

pub use lolm::{BuildError, Noise, Program, build, loss_parameters, parameters, prefill_sizes};
pub use spec::{LolmSpec, SpecError};
