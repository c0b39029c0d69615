//! `lolm completions`: what a shell needs to complete the command's arguments.
use crate::output::write;
use crate::typed::Cli;
use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Print the completions of this command for a shell
#[derive(Args, Debug)]
pub struct Completions {
    /// bash, elvish, fish, powershell or zsh
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> Result<()> {
        let mut out = vec![];
        clap_complete::generate(self.shell, &mut Cli::command(), "lolm", &mut out);
        write(&String::from_utf8(out).context("bug: completions are not UTF-8")?);
        Ok(())
    }
}
