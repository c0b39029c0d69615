//! The lolm command as a library: what was typed, what it means, and one file a subcommand.
//!
//! The only place that reads arguments and the environment, and the only one that uses `anyhow`. An error is one
//! sentence on stderr and exit code 1; a usage error is clap's, with exit code 2, and so is a device that is not there.
pub mod bundle;
pub mod chart;
pub mod chat;
pub mod commands;
pub mod compiler;
pub mod convert;
pub mod data;
pub mod device;
pub mod draw;
pub mod inspect;
pub mod model_folder;
mod output;
pub mod peak;
pub mod programs;
pub mod progress;
pub mod run_folder;
#[cfg(feature = "serve")]
pub mod serve;
pub mod spec;
pub mod table;
pub mod tokenizer;
pub mod trace;
pub mod training;
pub mod typed;
pub mod verify;

use clap::Parser;
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the command that these arguments say. An executable with a model behind it serves that, and the arguments are those
/// of `lolm serve`.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    output::explain_panics();
    if let Err(e) = bundle::check_own() {
        output::complain(&e);
        return ExitCode::FAILURE;
    }
    let args: Vec<OsString> = match bundle::own() {
        None => args.collect(),
        Some(b) => typed::serving(b.path(), args),
    };
    let cli = match typed::Cli::try_parse_from(typed::arguments(args.into_iter())) {
        Ok(cli) => cli,
        Err(e) => {
            let code = if e.use_stderr() { 2 } else { 0 };
            // There is nobody to tell if stderr is closed.
            let _ = e.print();
            return ExitCode::from(code);
        }
    };
    match commands::run(cli.chosen()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            output::complain(&e);
            if device::is_missing(&e) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// Threads to use if none are asked for: as many as the machine runs at once.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}
