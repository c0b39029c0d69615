//! Loads an artifact, runs its plans, trains and generates.
//!
//! Knows nothing of specs, passes or code generation: an artifact holds all that it needs. All unsafe code is in [`cpu`]
//! and [`cuda`].
pub mod artifact;
pub mod bench;
pub mod cpu;
pub mod cuda;
pub mod eval;
pub mod generate;
mod machine;
pub mod model;
pub mod rows;
pub mod serve;
pub mod store;
pub mod tensor;
pub mod tensors;
#[cfg(test)]
mod testing;
pub mod trace;
pub mod train;
pub mod weights;

pub use artifact::{Artifact, ArtifactError};
pub use model::{Input, Model, ModelError, Output, ProgramId};
pub use rows::{Meter, RowError, RowSnapshot};
pub use tensor::{Data, Tensor};
