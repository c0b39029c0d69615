//! The lolm command.
fn main() {}
