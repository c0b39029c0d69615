//! What the CPU must have for an artifact's code.
use super::ArtifactError;

/// Refuses, by name, every feature that this CPU lacks or that this runtime does not know.
pub fn check(needed: &[String]) -> Result<(), ArtifactError> {
    if !cfg!(target_arch = "x86_64") {
        return Err(ArtifactError::Machine { found: std::env::consts::ARCH });
    }
    let missing = missing(needed.iter().map(String::as_str));
    if missing.is_empty() { Ok(()) } else { Err(ArtifactError::CpuFeatures { missing }) }
}

/// Of these features, those that this CPU lacks or that this runtime does not know.
pub fn missing<'a>(needed: impl Iterator<Item = &'a str>) -> Vec<String> {
    needed.filter(|f| !has(f)).map(String::from).collect()
}

#[cfg(target_arch = "x86_64")]
fn has(feature: &str) -> bool {
    macro_rules! detect {
        ($($name:tt),*) => {
            match feature {
                $($name => is_x86_feature_detected!($name),)*
                _ => false,
            }
        };
    }
    detect!(
        "sse",
        "sse2",
        "sse3",
        "ssse3",
        "sse4.1",
        "sse4.2",
        "popcnt",
        "lzcnt",
        "movbe",
        "bmi1",
        "bmi2",
        "avx",
        "avx2",
        "fma",
        "f16c",
        "avx512f",
        "avx512bw",
        "avx512cd",
        "avx512dq",
        "avx512vl",
        "avx512vnni",
        "avx512vbmi",
        "avx512bf16",
        "avx512fp16"
    )
}

#[cfg(not(target_arch = "x86_64"))]
fn has(_: &str) -> bool {
    false
}
