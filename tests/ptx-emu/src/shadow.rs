//! Who touched what last, for the race detector.

/// The shadow of some memory.
#[derive(Debug, Default)]
pub(crate) struct Shadow {}
