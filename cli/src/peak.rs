//! The most memory that this process has had, as the kernel counts it.

/// Peak resident bytes since the start or the last [`reset`]; `None` where the system does not say.
pub fn bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Starts to count from what is resident now. A system that cannot goes on counting from the start, which only makes the
/// figure larger.
pub fn reset() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

pub fn show(peak: Option<u64>) -> String {
    peak.map_or("unknown".into(), crate::output::bytes)
}
