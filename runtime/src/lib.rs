//! Loads an artifact, runs its plans, trains and generates.
pub mod cpu;
