//! `lolm init`: a spec to start from.
use crate::output::say;
use anyhow::{Context, Result, bail};
use clap::Args;
use lolm_models::spec::{LIBRARY, near_name};
use std::path::PathBuf;

/// Write a spec to start from, and say what to do with it
#[derive(Args, Debug)]
pub struct Init {
    /// The folder, which is made if it is not there
    folder: PathBuf,
    /// The built-in spec that is copied
    #[arg(long, value_name = "NAME", default_value = "lolm-demo")]
    from: String,
}

impl Init {
    pub fn run(self) -> Result<()> {
        let names = || LIBRARY.iter().map(|(name, _)| *name);
        let Some((_, text)) = LIBRARY.iter().find(|(name, _)| *name == self.from) else {
            let near = near_name(&self.from, names()).map_or(String::new(), |n| format!("; did you mean `{n}`?"));
            bail!("no built-in spec `{}`: there are {}{near}", self.from, names().collect::<Vec<_>>().join(", "));
        };
        let path = self.folder.join("model.toml");
        if path.exists() {
            bail!("{} is there already; nothing is overwritten", path.display());
        }
        std::fs::create_dir_all(&self.folder).with_context(|| format!("cannot make {}", self.folder.display()))?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        let (spec, folder) = (path.display(), self.folder.display());
        say(format_args!("{spec} is a copy of the built-in spec {}. Next:\n", self.from));
        say(format_args!("  lolm inspect {spec}                              parameters, programs"));
        say(format_args!("  lolm train {spec} --data FILE --out {folder}/run      compile and train"));
        say(format_args!("  lolm eval {folder}/run --data FILE                    loss, gate, codes"));
        say(format_args!("  lolm generate {folder}/run -p \"Once\" -n 64            text"));
        Ok(())
    }
}
