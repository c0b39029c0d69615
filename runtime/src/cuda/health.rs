//! The first failure of a device. After it nothing runs any more, and what is read is NaN, until somebody asks.
use super::device::DeviceError;
use std::sync::{Mutex, MutexGuard};

/// Whether a machine's device still does what it is told.
#[derive(Debug, Default)]
pub struct Health {
    failure: Mutex<Option<DeviceError>>,
}

impl Health {
    /// The first failure, if there was one.
    pub fn check(&self) -> Result<(), DeviceError> {
        self.lock().clone().map_or(Ok(()), Err)
    }
    /// Keeps a failure, unless there is an earlier one.
    pub fn fail(&self, e: DeviceError) {
        self.lock().get_or_insert(e);
    }
    fn lock(&self) -> MutexGuard<'_, Option<DeviceError>> {
        // A thread that panicked here has not left the value half written.
        self.failure.lock().unwrap_or_else(|e| e.into_inner())
    }
}
