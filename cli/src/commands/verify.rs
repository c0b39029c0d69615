//! `lolm verify`: a golden case, compiled and run, against the numbers in its folder.
use crate::compiler::To;
use crate::device::Where;
use crate::output::show;
use crate::programs::PrecisionArg;
use crate::verify::{Case, Results};
use anyhow::{Result, bail};
use clap::Args;
use lolm_codegen::Target;
use std::path::PathBuf;

/// Compile and run a golden case, and compare every number with those in its folder
#[derive(Args, Debug)]
pub struct Verify {
    /// A folder with case.json, model.safetensors, io.safetensors and grads.safetensors
    folder: PathBuf,
    /// What the case is compiled for: cpu, cuda, cuda:sm_80 or cuda:sm_90a [default: what the device runs]
    #[arg(long, value_name = "TARGET")]
    target: Option<Target>,
    /// What products compute in, for a GPU; with bf16 the bounds are wider
    #[arg(long, value_name = "DTYPE", default_value = "f32")]
    precision: PrecisionArg,
    #[command(flatten)]
    on: Where,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub fn run(self) -> Result<()> {
        let on = self.on.open()?;
        let case = Case::load(&self.folder)?;
        let target = self.target.unwrap_or_else(|| on.target());
        let to = To { precision: self.precision.into(), ..To::run_on(target) };
        let results = crate::verify::run(&case, &on, to)?;
        show(self.json, &results, Results::show)?;
        let wrong: Vec<String> = results.wrong().map(|r| format!("{} {}", r.kind, r.name)).collect();
        match wrong.len() {
            0 => Ok(()),
            n => bail!("{n} of {} numbers are wrong: {}", results.rows.len(), wrong.join(", ")),
        }
    }
}
