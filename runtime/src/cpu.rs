//! Everything that touches raw memory or executes generated code: the only module of the runtime with unsafe code.
pub mod gemm;
