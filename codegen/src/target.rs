//! What code is made for.
use crate::ptx::Sm;
use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Target {
    /// x86-64 with AVX2 and FMA.
    #[default]
    Cpu,
    /// This GPU of NVIDIA and later ones.
    Cuda(Sm),
}

/// A target that does not exist.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no target `{0}`; there are cpu, cuda (the same as cuda:sm_80) and cuda:sm_90a")]
pub struct UnknownTarget(pub String);

impl FromStr for Target {
    type Err = UnknownTarget;

    fn from_str(s: &str) -> Result<Self, UnknownTarget> {
        let sm = |name: &str| Sm::ALL.into_iter().find(|sm| sm.name() == name).map(Target::Cuda);
        match s {
            "cpu" => Ok(Target::Cpu),
            "cuda" => Ok(Target::Cuda(Sm::Sm80)),
            _ => s.strip_prefix("cuda:").and_then(sm).ok_or_else(|| UnknownTarget(s.into())),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Cpu => f.write_str("x86-64-v3"),
            Target::Cuda(sm) => write!(f, "cuda:{sm}"),
        }
    }
}
