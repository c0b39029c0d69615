//! Runs generated PTX: on an NVIDIA GPU through its driver, or on an emulator.
//!
//! Parameters and states live on the device. The host has a copy of each ([`mirror`]) that is fetched where it is looked at
//! and uploaded where it was written. A program is resolved to launches once and then replayed. All unsafe code for GPUs is
//! in here.
pub mod ceiling;
pub mod device;
#[cfg(feature = "cuda")]
pub mod driver;
#[cfg(feature = "emulator")]
pub mod emulator;
mod exec;
mod hazards;
mod health;
pub mod machine;
mod mirror;
mod rows;

#[cfg(all(test, feature = "emulator"))]
mod tests;
