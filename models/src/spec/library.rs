//! The specs that come with the compiler.
use super::{Override, Spec, SpecError};

macro_rules! specs {
    ($($name:literal),* $(,)?) => {
        /// Every spec by name, with its text.
        pub const LIBRARY: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../specs/", $name, ".toml")))),*];
    };
}

specs! {
    "lolm-demo",
    "lolm-20m",
    "lolm-149m",
    "lolm-304m",
    "lolm-304m-native",
    "lolm-1.6b",
    "ablation-decoder",
    "ablation-memory",
    "ablation-ssm",
    "ablation-ssm-memory",
    "ablation-ssm-memory-regime",
    "transformer-demo",
    "mamba-demo",
    "jamba-demo",
    "griffin-demo",
    "samba-demo",
    "smollm2-135m",
    "mamba-130m",
    "recurrentgemma-2b",
}

/// The spec of this name, if there is one.
pub fn library(name: &str) -> Option<Result<Spec, SpecError>> {
    library_with(name, &[])
}

/// The spec of this name with other values for these keys.
pub fn library_with(name: &str, overrides: &[Override]) -> Option<Result<Spec, SpecError>> {
    let (_, text) = LIBRARY.iter().find(|(n, _)| *n == name)?;
    Some(Spec::parse_with(&format!("{name}.toml"), text, overrides))
}
