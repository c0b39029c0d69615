//! The engine over a toy whose answers are known.
mod answers;
mod crowds;
mod life;
mod prefixes;
mod toy;
