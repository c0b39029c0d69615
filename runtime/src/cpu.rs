//! Everything that touches raw memory or executes generated code: the only module of the runtime with unsafe code.
pub mod code;
pub mod exec;
pub mod float;
pub mod gemm;
pub mod machine;
pub mod memory;
pub mod pool;
#[cfg(feature = "gemm-reference")]
pub mod reference;
pub mod rows;
#[cfg(test)]
mod watch;
