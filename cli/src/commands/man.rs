//! `lolm man`: the manual pages, one for the command and one for each subcommand.
use crate::output::say;
use crate::typed::Cli;
use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use std::path::PathBuf;

/// Write the manual pages of this command
#[derive(Args, Debug)]
pub struct Man {
    /// The folder to write them to, such as /usr/local/share/man/man1
    folder: PathBuf,
}

impl Man {
    pub fn run(self) -> Result<()> {
        let folder = &self.folder;
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        clap_mangen::generate_to(Cli::command(), folder)
            .with_context(|| format!("cannot write manual pages to {}", folder.display()))?;
        say(format_args!("manual pages are in {}", folder.display()));
        Ok(())
    }
}
