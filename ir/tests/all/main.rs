//! Tests of the graph language from outside: interpreter, expansions, text, verifier.
mod case;
mod expand;
mod gradients;
mod interp;
mod verify;
