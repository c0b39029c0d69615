//! The lolm command: a thin binary over the library of the same name.
use std::process::ExitCode;

fn main() -> ExitCode {
    lolm::main(std::env::args_os())
}
