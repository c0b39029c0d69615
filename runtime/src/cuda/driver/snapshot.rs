//! A copy of device memory at one moment, read over a stream beside the one on which programs go on.
use super::context::Context;
use super::staging::{Event, Staging};
use crate::cuda::device::{Address, DeviceError, Snapshot};
use cudarc::driver::sys::CUdeviceptr;
use std::sync::Arc;

/// Memory of its own on the device, and where each part lies in it.
pub struct Copied {
    context: Arc<Context>,
    at: CUdeviceptr,
    parts: Vec<(CUdeviceptr, usize)>,
    staging: Staging,
}

impl Copied {
    /// Puts the copies into the stream of programs, and lets the stream beside it wait for them.
    pub fn new(context: &Arc<Context>, from: &[(Address, usize)]) -> Result<Copied, DeviceError> {
        let whole: usize = from.iter().map(|(_, bytes)| bytes.next_multiple_of(64)).sum();
        let staging = Staging::new(context, context.beside)?;
        let at = context.alloc(whole)?;
        // From here on the memory is freed whatever happens.
        let mut copied = Copied { context: context.clone(), at, parts: vec![], staging };
        let mut to = at;
        for (from, bytes) in from {
            // SAFETY: the caller's memory, and room for it in the new one; both on this device.
            let code = unsafe { (context.api.cuMemcpyDtoDAsync_v2)(to, *from, *bytes, context.stream) };
            context.api.check("cuMemcpyDtoDAsync", code)?;
            copied.parts.push((to, *bytes));
            to += bytes.next_multiple_of(64) as u64;
        }
        let done = Event::new(context, false)?;
        done.record(context.stream)?;
        done.hold(context.beside)?;
        Ok(copied)
    }
}

impl Snapshot for Copied {
    fn read(&mut self, i: usize, to: &mut [u8]) -> Result<(), DeviceError> {
        match self.parts.get(i) {
            Some((at, bytes)) if *bytes == to.len() => self.staging.download(*at, to),
            other => Err(DeviceError::Call {
                call: "reading a snapshot",
                what: format!("bug: {} bytes of part {i}, which is {other:?}", to.len()),
            }),
        }
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        // The driver waits for copies that use the memory. What cannot be freed is freed with the context.
        let _ = self.context.free(self.at);
    }
}
