//! Copies between this memory and a device's through pages that the device may read by itself, so that a copy runs while
//! the program that asked for it goes on.
use super::context::Context;
use crate::cuda::device::DeviceError;
use cudarc::driver::sys::{CUdeviceptr, CUevent, CUstream};
use std::sync::Arc;

/// Bytes of a buffer: large enough for the bus, small enough that two of them cost nothing.
const BUFFER: usize = 8 << 20;
/// Events that are only waited for.
const NO_TIMING: u32 = 2;

/// Pinned memory of this machine. It is cached, so it may be read here.
struct Pinned {
    context: Arc<Context>,
    at: *mut u8,
}

impl Pinned {
    fn new(context: &Arc<Context>) -> Result<Pinned, DeviceError> {
        context.enter()?;
        let mut at = std::ptr::null_mut();
        // SAFETY: the context is current; writes an address. No flags: not write-combined.
        let code = unsafe { (context.api.cuMemHostAlloc)(&mut at, BUFFER, 0) };
        context.api.check("cuMemHostAlloc", code)?;
        Ok(Pinned { context: context.clone(), at: at.cast() })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: allocated by `new`; copies that use it were waited for by the owner.
            unsafe { (self.context.api.cuMemFreeHost)(self.at.cast()) };
        }
    }
}

/// An event of a device.
pub struct Event {
    context: Arc<Context>,
    handle: CUevent,
}

// SAFETY: the handle may be used from any thread in which the context is current, which every call sees to.
unsafe impl Send for Event {}

impl Event {
    pub fn new(context: &Arc<Context>, timed: bool) -> Result<Event, DeviceError> {
        context.enter()?;
        let mut handle = std::ptr::null_mut();
        let flags = if timed { 0 } else { NO_TIMING };
        // SAFETY: the context is current; writes a handle.
        context.api.check("cuEventCreate", unsafe { (context.api.cuEventCreate)(&mut handle, flags) })?;
        Ok(Event { context: context.clone(), handle })
    }
    /// Marks the place in the stream that it has come to.
    pub fn record(&self, stream: CUstream) -> Result<(), DeviceError> {
        self.context.enter()?;
        // SAFETY: an event and a stream of this context.
        self.context.api.check("cuEventRecord", unsafe { (self.context.api.cuEventRecord)(self.handle, stream) })
    }
    /// Waits until the stream has come to the mark; at once if there is none.
    pub fn wait(&self) -> Result<(), DeviceError> {
        self.context.enter()?;
        // SAFETY: an event of this context.
        self.context.api.check("cuEventSynchronize", unsafe { (self.context.api.cuEventSynchronize)(self.handle) })
    }
    /// Lets another stream wait for the mark.
    pub fn hold(&self, stream: CUstream) -> Result<(), DeviceError> {
        self.context.enter()?;
        // SAFETY: an event and a stream of this context.
        let code = unsafe { (self.context.api.cuStreamWaitEvent)(stream, self.handle, 0) };
        self.context.api.check("cuStreamWaitEvent", code)
    }
    /// Nanoseconds from an earlier mark to this one; both were waited for.
    pub fn since(&self, earlier: &Event) -> Result<u64, DeviceError> {
        self.context.enter()?;
        let mut milliseconds = 0.0;
        // SAFETY: two events of this context that were made to be timed; writes a float.
        let code = unsafe { (self.context.api.cuEventElapsedTime)(&mut milliseconds, earlier.handle, self.handle) };
        self.context.api.check("cuEventElapsedTime", code)?;
        Ok((milliseconds as f64 * 1e6) as u64)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: made by `new`; the driver frees it when it is not waited for any more.
            unsafe { (self.context.api.cuEventDestroy_v2)(self.handle) };
        }
    }
}

/// Two pinned buffers for one stream, used in turn.
pub struct Staging {
    context: Arc<Context>,
    stream: CUstream,
    buffers: [Pinned; 2],
    /// Of each buffer, the end of the copies that use it.
    done: [Event; 2],
    /// The buffer in use, and its bytes that are taken.
    current: usize,
    taken: usize,
}

// SAFETY: the buffers are this value's own, and are only touched through `&mut self`; the stream and the events may be
// used from any thread in which the context is current.
unsafe impl Send for Staging {}

impl Staging {
    pub fn new(context: &Arc<Context>, stream: CUstream) -> Result<Staging, DeviceError> {
        let buffers = [Pinned::new(context)?, Pinned::new(context)?];
        let done = [Event::new(context, false)?, Event::new(context, false)?];
        Ok(Staging { context: context.clone(), stream, buffers, done, current: 0, taken: 0 })
    }

    /// Puts copies into the stream; the bytes may change when it returns.
    pub fn upload(&mut self, to: CUdeviceptr, bytes: &[u8]) -> Result<(), DeviceError> {
        let mut to = to;
        for chunk in bytes.chunks(BUFFER) {
            let from = self.room(chunk.len())?;
            // SAFETY: room for the chunk in a pinned buffer that no copy uses any more; the two do not overlap.
            unsafe { std::ptr::copy_nonoverlapping(chunk.as_ptr(), from, chunk.len()) };
            let api = self.context.api;
            // SAFETY: the destination is the caller's memory on the device; the source stays as it is until its event.
            let code = unsafe { (api.cuMemcpyHtoDAsync_v2)(to, from.cast(), chunk.len(), self.stream) };
            api.check("cuMemcpyHtoDAsync", code)?;
            to += chunk.len() as u64;
        }
        Ok(())
    }

    /// Copies from the device, and waits.
    pub fn download(&mut self, from: CUdeviceptr, to: &mut [u8]) -> Result<(), DeviceError> {
        let starts: Vec<usize> = (0..to.len()).step_by(BUFFER).collect();
        let len = |at: usize| BUFFER.min(to.len() - at);
        let lens: Vec<usize> = starts.iter().map(|at| len(*at)).collect();
        let mut coming: Option<(usize, usize, usize)> = None;
        for (at, len) in starts.into_iter().zip(lens) {
            self.turn()?;
            let (buffer, api) = (self.current, self.context.api);
            // SAFETY: the source is the caller's memory on the device; the buffer is not used by any copy.
            let code = unsafe {
                let pinned = self.buffers[buffer].at;
                (api.cuMemcpyDtoHAsync_v2)(pinned.cast(), from + at as u64, len, self.stream)
            };
            api.check("cuMemcpyDtoHAsync", code)?;
            self.done[buffer].record(self.stream)?;
            self.taken = BUFFER;
            // While this chunk is on its way, the one before is taken out.
            if let Some((buffer, at, len)) = coming.replace((buffer, at, len)) {
                self.take(buffer, &mut to[at..at + len])?;
            }
        }
        match coming {
            Some((buffer, at, len)) => self.take(buffer, &mut to[at..at + len]),
            None => Ok(()),
        }
    }

    /// Waits for a chunk and takes it out of its buffer.
    fn take(&mut self, buffer: usize, to: &mut [u8]) -> Result<(), DeviceError> {
        self.done[buffer].wait()?;
        // SAFETY: the copy into the buffer has ended, and put at least so many bytes there.
        unsafe { std::ptr::copy_nonoverlapping(self.buffers[buffer].at, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    /// Room for so many bytes, at most a buffer, which no copy uses.
    fn room(&mut self, bytes: usize) -> Result<*mut u8, DeviceError> {
        if self.taken + bytes > BUFFER {
            self.turn()?;
        }
        let at = self.buffers[self.current].at.wrapping_add(self.taken);
        // Copies start at whole cache lines.
        self.taken = (self.taken + bytes).next_multiple_of(64);
        Ok(at)
    }

    /// Goes on with the other buffer, when the copies that use it have ended.
    fn turn(&mut self) -> Result<(), DeviceError> {
        self.context.enter()?;
        self.done[self.current].record(self.stream)?;
        self.current = 1 - self.current;
        self.done[self.current].wait()?;
        self.taken = 0;
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // The buffers are freed next, so that nothing may still copy; a stream that failed copies nothing.
        let _ = self.context.wait(self.stream);
    }
}
