//! The floating-point mode of generated code: denormals are flushed to zero, which costs no time where they occur.

/// Flushes denormals on this thread until it is dropped; then the mode is what it was.
pub struct FlushDenormals {
    before: u32,
}

/// Flush-to-zero (results) and denormals-are-zero (operands) of MXCSR.
const FLUSH: u32 = 1 << 15 | 1 << 6;

impl FlushDenormals {
    pub fn new() -> Self {
        let before = mode();
        set_mode(before | FLUSH);
        FlushDenormals { before }
    }
}

impl Default for FlushDenormals {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for FlushDenormals {
    fn drop(&mut self) {
        set_mode(self.before);
    }
}

#[cfg(target_arch = "x86_64")]
fn mode() -> u32 {
    let mut mode = 0u32;
    // SAFETY: writes four bytes to `mode`.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut mode, options(nostack, preserves_flags)) };
    mode
}

#[cfg(target_arch = "x86_64")]
fn set_mode(mode: u32) {
    // SAFETY: reads four bytes; the bits are those of a mode read before, with flushing added, so no exception is
    // unmasked and the rounding is unchanged.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const mode, options(nostack, preserves_flags, readonly)) };
}

#[cfg(not(target_arch = "x86_64"))]
fn mode() -> u32 {
    0
}

#[cfg(not(target_arch = "x86_64"))]
fn set_mode(_: u32) {}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use std::hint::black_box;

    #[test]
    fn denormals_are_flushed_only_within_the_guard() {
        let half = || black_box(f32::MIN_POSITIVE) * black_box(0.5);
        assert!(half() > 0.0);
        {
            let _guard = FlushDenormals::new();
            assert_eq!(black_box(half()).to_bits(), 0);
        }
        assert!(half() > 0.0);
    }
}
