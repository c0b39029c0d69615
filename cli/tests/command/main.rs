//! The command as a user meets it: the binary in a folder of its own, what it prints and how it ends.
mod artifacts;
mod bad_input;
mod devices;
mod exchange;
mod executable;
mod families;
#[cfg(feature = "serve")]
mod process;
mod runs;
mod serve;
mod support;
mod text;
mod verify;
