//! The subcommands, one file each: its arguments and what they make it do.
pub mod bench;
pub mod compile;
pub mod completions;
pub mod demo;
pub mod doctor;
pub mod eval;
pub mod export;
pub mod generate;
pub mod import;
pub mod init;
pub mod inspect;
pub mod man;
pub mod opt;
#[cfg(feature = "serve")]
pub mod serve;
pub mod tokenizer;
pub mod train;
pub mod verify;

use crate::typed::Command;

/// Runs a command.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Demo(c) => c.run(),
        Command::Init(c) => c.run(),
        Command::Import(c) => c.run(),
        Command::Export(c) => c.run(),
        Command::Compile(c) => c.run(),
        Command::Train(c) => c.run(),
        Command::Eval(c) => c.run(),
        Command::Generate(c) => c.run(),
        #[cfg(feature = "serve")]
        Command::Serve(c) => c.run(),
        Command::Inspect(c) => c.run(),
        Command::Verify(c) => c.run(),
        Command::Bench(c) => c.run(),
        Command::Doctor(c) => c.run(),
        Command::Completions(c) => c.run(),
        Command::Man(c) => c.run(),
        Command::Opt(c) => c.run(),
        Command::Tokenizer(c) => c.run(),
    }
}
