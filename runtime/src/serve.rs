//! Serving: many sequences on one model. Requests wait in a fair, bounded queue, prompts go in by chunks between the steps
//! of those that answer already, and what comes of each equals what it would be alone, bit for bit.
mod request;

pub use request::{Event, Finish, Gate, Memory, Penalties, Refused, Request, Token, Trace};
