//! The lolm command.
