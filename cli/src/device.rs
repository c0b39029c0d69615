//! What a model runs on: the CPU, a GPU, or the emulator of one.
use anyhow::Result;
use clap::Args;
use lolm_codegen::Target;
use lolm_codegen::ptx::Sm;
use lolm_runtime::cuda::device::{Device, DeviceError};
use lolm_runtime::{Artifact, Model};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

/// Where a command runs its model.
#[derive(Args, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Where {
    /// What the model runs on: cpu, cuda, cuda:N, or emulator
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub device: Choice,
    /// Threads, on which the results do not depend
    #[arg(long, default_value_t = crate::threads(), value_name = "N")]
    pub threads: usize,
}

/// A device, as it was typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice {
    Cpu,
    /// A GPU by its number.
    Cuda(usize),
    /// A GPU in software.
    Emulator,
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Choice, String> {
        match text {
            "cpu" => Ok(Choice::Cpu),
            "cuda" => Ok(Choice::Cuda(0)),
            "emulator" => Ok(Choice::Emulator),
            _ => match text.strip_prefix("cuda:").map(str::parse) {
                Some(Ok(ordinal)) => Ok(Choice::Cuda(ordinal)),
                _ => Err("expected cpu, cuda, cuda:N with the number of a GPU, or emulator".into()),
            },
        }
    }
}

/// What a command runs its model on, found to be there.
pub struct Opened {
    device: Option<Arc<dyn Device>>,
    pub threads: usize,
}

impl Where {
    /// Finds it, before anything is compiled or read for it.
    pub fn open(self) -> Result<Opened> {
        Ok(Opened { device: self.device.open()?, threads: self.threads })
    }
}

impl Opened {
    /// What code is compiled for that is to run here, if nothing else is asked for.
    pub fn target(&self) -> Target {
        match self.device {
            None => Target::Cpu,
            Some(_) => Target::Cuda(Sm::Sm80),
        }
    }

    /// The CPU, with so many threads.
    pub fn cpu(threads: usize) -> Opened {
        Opened { device: None, threads }
    }

    /// Loads a model there.
    pub fn load(&self, artifact: Artifact) -> Result<Model> {
        self.load_rows(artifact, 0)
    }

    /// Loads a model there that decodes up to so many sequences side by side.
    pub fn load_rows(&self, artifact: Artifact, rows: usize) -> Result<Model> {
        Ok(match &self.device {
            None => Model::load_rows(artifact, self.threads, rows)?,
            Some(device) => Model::load_rows_on(artifact, device.clone(), rows)?,
        })
    }
}

impl Choice {
    /// The device, unless it is the CPU.
    pub fn open(self) -> Result<Option<Arc<dyn Device>>, DeviceError> {
        match self {
            Choice::Cpu => Ok(None),
            Choice::Cuda(ordinal) => gpu(ordinal).map(Some),
            Choice::Emulator => emulator().map(Some),
        }
    }
}

#[cfg(feature = "cuda")]
fn gpu(ordinal: usize) -> Result<Arc<dyn Device>, DeviceError> {
    Ok(Arc::new(lolm_runtime::cuda::driver::Driver::open(ordinal, cache().as_deref())?))
}

#[cfg(not(feature = "cuda"))]
fn gpu(_: usize) -> Result<Arc<dyn Device>, DeviceError> {
    Err(DeviceError::NotBuilt { what: "GPUs; build it with the feature `cuda`" })
}

#[cfg(feature = "emulator")]
fn emulator() -> Result<Arc<dyn Device>, DeviceError> {
    Ok(Arc::new(lolm_runtime::cuda::emulator::Emulator::default()))
}

#[cfg(not(feature = "emulator"))]
fn emulator() -> Result<Arc<dyn Device>, DeviceError> {
    Err(DeviceError::NotBuilt { what: "the emulator of a GPU; build it with the feature `emulator`" })
}

/// Where kernels are kept as the driver assembled them: in the user's cache, if there is one.
#[cfg_attr(not(feature = "cuda"), expect(dead_code))]
pub fn cache() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = folder("XDG_CACHE_HOME").filter(|p| p.is_absolute());
    Some(cache.or_else(|| Some(folder("HOME")?.join(".cache")))?.join("lolm").join("kernels"))
}

/// True for an error that says that the machine lacks what was asked for.
pub fn is_missing(e: &anyhow::Error) -> bool {
    let missing = |e: &DeviceError| match e {
        DeviceError::NoDriver { .. } | DeviceError::OldDriver { .. } => true,
        DeviceError::NoDevice { .. } | DeviceError::NotBuilt { .. } => true,
        DeviceError::Architecture { .. } | DeviceError::Memory { .. } | DeviceError::Module { .. } => false,
        DeviceError::Entry { .. } | DeviceError::Call { .. } => false,
        DeviceError::Fault { .. } | DeviceError::Cache { .. } => false,
    };
    e.chain().filter_map(|e| e.downcast_ref()).any(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read() {
        let read = |s: &str| s.parse::<Choice>().ok();
        assert_eq!(read("cpu"), Some(Choice::Cpu));
        assert_eq!((read("cuda"), read("cuda:3")), (Some(Choice::Cuda(0)), Some(Choice::Cuda(3))));
        assert_eq!(read("emulator"), Some(Choice::Emulator));
        assert!([("cuda:"), "cuda:x", "gpu", "CPU", "cuda:-1", ""].iter().all(|s| read(s).is_none()));
    }
}
