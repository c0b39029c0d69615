//! Serving: many sequences on one model. Requests wait in a fair, bounded queue, prompts go in by chunks between the steps
//! of those that answer already, and what comes of each equals what it would be alone, bit for bit.
//!
//! An [`Engine`] is a handle; a thread of its own runs the model, behind a [`Backend`], by the `scheduler`.
mod backend;
mod cache;
mod engine;
mod prefixes;
mod request;
mod rows;
mod scheduler;
mod sequence;
mod shared;
mod stats;
#[cfg(test)]
mod tests;

pub use crate::trace::{Gate, Memory, Trace};
pub use backend::{Backend, Facts, Lane, Steps};
pub use engine::{Engine, Options, StartError, Ticket};
pub use request::{Event, Finish, Penalties, Refused, Request, Sink, Token};
pub use rows::ModelRows;
pub use stats::{Cache, Finished, Histogram, Stats};
