//! The languages of the house: graph, kernel, plan and artifact.
//!
//! Knows nothing of passes, code generation or devices.
#[cfg(any(test, feature = "arbitrary"))]
pub mod arbitrary;
pub mod artifact;
pub mod axis;
pub mod dtype;
pub mod expand;
pub mod graph;
pub mod hash;
pub mod interp;
pub mod kernel;
pub mod list;
pub mod op;
pub mod philox;
pub mod plan;
pub mod text;
pub mod threads;
pub mod verify;

pub use axis::{Axis, AxisId, AxisSet};
pub use dtype::{DType, Scalar};
pub use graph::{Builder, Graph, GraphError, Leaf, LeafId, LeafKind, Node, Type, ValueId};
pub use op::Op;
