//! Named tensors on a device and their copies here: fetched when they are looked at, uploaded when they were written.
use super::device::{Address, Device, DeviceError};
use super::health::Health;
use crate::cpu::memory::Element;
use crate::store::Store;
use crate::tensors::{Fetch, Tensors};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

/// What stands for bytes that could not be fetched: NaN in every float, -1 in every integer.
const LOST: u8 = 0xff;

/// A store that lies on a device.
pub struct Mirror {
    store: Store,
    device: Arc<dyn Device>,
    health: Arc<Health>,
    /// Where each slot lies.
    addresses: Vec<Address>,
    /// Of each slot, the bytes of the copy that are those of the device, or newer. No slice of the copy is handed out that
    /// reaches beyond them.
    fresh: Mutex<Vec<Range<usize>>>,
    /// Of each slot, the bytes of the copy that are newer; then all of it is fresh.
    dirty: Vec<Range<usize>>,
}

impl Mirror {
    /// A mirror of zeros: the caller makes the device's memory zero too.
    pub fn new(store: Store, device: Arc<dyn Device>, health: Arc<Health>, addresses: Vec<Address>) -> Mirror {
        let n = store.slots().len();
        let fresh = Mutex::new((0..n).map(|i| 0..store.slot_bytes(i)).collect());
        Mirror { store, device, health, addresses, fresh, dirty: vec![0..0; n] }
    }

    pub fn tensors(&self) -> Tensors<'_> {
        Tensors::elsewhere(&self.store, self)
    }
    /// Names and shapes; the contents may be old.
    pub fn layout(&self) -> &Store {
        &self.store
    }
    pub fn address(&self, slot: usize) -> Address {
        self.addresses[slot]
    }
    pub fn find(&self, name: &str) -> Option<Address> {
        self.store.find(name).map(|slot| self.addresses[slot])
    }
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The elements of a slot, for writing.
    pub fn view_mut<T: Element>(&mut self, slot: usize) -> &mut [T] {
        self.touch(slot, 0..self.store.slot_bytes(slot));
        self.store.view_mut(slot)
    }
    pub fn raw_mut(&mut self, slot: usize) -> &mut [u8] {
        self.touch(slot, 0..self.store.slot_bytes(slot));
        self.store.raw_mut(slot)
    }
    /// Writes floats from element `at` on, as [`Store::write`] does.
    pub fn write(&mut self, slot: usize, at: usize, values: impl Iterator<Item = f32>) {
        let mut count = 0;
        self.touch(slot, 0..0);
        self.store.write(slot, at, values.inspect(|_| count += 1));
        let s = &self.store.slots()[slot];
        let (size, end) = (s.dtype.bytes(), (at + count).min(s.len));
        self.touch(slot, at * size..end * size);
    }

    /// Fetches a slot that is not fresh, and counts these bytes among the dirty ones.
    fn touch(&mut self, slot: usize, bytes: Range<usize>) {
        self.fetch(slot, 0..self.store.slot_bytes(slot));
        self.dirty[slot] = hull(&self.dirty[slot], &bytes);
    }

    /// Uploads what was written.
    pub fn flush(&mut self) -> Result<(), DeviceError> {
        (0..self.dirty.len()).try_for_each(|slot| self.flush_slot(slot))
    }

    pub fn flush_slot(&mut self, slot: usize) -> Result<(), DeviceError> {
        let dirty = std::mem::replace(&mut self.dirty[slot], 0..0);
        if dirty.is_empty() {
            return Ok(());
        }
        let bytes = &self.store.raw(slot)[dirty.clone()];
        self.device.upload(self.addresses[slot] + dirty.start as u64, bytes)
    }

    /// The device's contents have changed, and what was written here and not uploaded is void.
    pub fn outdate(&mut self, slot: usize) {
        self.dirty[slot] = 0..0;
        self.fresh.get_mut().unwrap_or_else(|e| e.into_inner())[slot] = 0..0;
    }

    fn ranges(&self) -> MutexGuard<'_, Vec<Range<usize>>> {
        // The ranges are changed after the bytes, so they hold whatever happened to another thread.
        self.fresh.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn download(&self, slot: usize, bytes: Range<usize>) {
        if bytes.is_empty() {
            return;
        }
        let to = self.store.slot_address(slot).wrapping_add(bytes.start);
        // SAFETY: bytes of the slot, in memory that the store owns. They are not fresh, so no slice that was handed out
        // reaches them, and the caller holds the lock under which alone they are written through a shared reference.
        let to = unsafe { std::slice::from_raw_parts_mut(to, bytes.len()) };
        let done =
            self.health.check().and_then(|()| self.device.download(self.addresses[slot] + bytes.start as u64, to));
        if let Err(e) = done {
            to.fill(LOST);
            self.health.fail(e);
        }
    }
}

impl Fetch for Mirror {
    fn fetch(&self, slot: usize, bytes: Range<usize>) {
        let mut ranges = self.ranges();
        let fresh = ranges[slot].clone();
        if bytes.is_empty() || (fresh.start <= bytes.start && bytes.end <= fresh.end && !fresh.is_empty()) {
            return;
        }
        assert!(bytes.end <= self.store.slot_bytes(slot), "bug: bytes {bytes:?} of slot {slot}");
        if fresh.is_empty() {
            self.download(slot, bytes.clone());
        } else {
            self.download(slot, bytes.start.min(fresh.start)..fresh.start);
            self.download(slot, fresh.end..bytes.end.max(fresh.end));
        }
        ranges[slot] = hull(&fresh, &bytes);
    }
}

/// The least range that holds both.
fn hull(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => b.clone(),
        (_, true) => a.clone(),
        _ => a.start.min(b.start)..a.end.max(b.end),
    }
}
