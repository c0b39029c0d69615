//! An allocator that counts what a thread has allocated.
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes now, and the most there were since the last reset.
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

pub struct Counting;

// SAFETY: every call goes to the system's allocator with the arguments that it came with. The counters are of the thread,
// need no initialisation and no destructor, and so allocate nothing themselves.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.get().saturating_add(layout.size());
        LIVE.set(live);
        PEAK.set(PEAK.get().max(live));
        // SAFETY: the caller keeps the contract of this method, which is the same.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get().saturating_sub(layout.size()));
        // SAFETY: the pointer came from `alloc`, which took it from the same allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The result of a call, and the most bytes that it had allocated at any moment beyond those that were there before.
pub fn peak<T>(call: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = call();
    (result, PEAK.get() - before)
}

#[test]
fn what_is_allocated_is_counted() {
    assert_eq!(peak(|| drop(vec![0u8; 1000])).1, 1000);
    assert_eq!(peak(|| (vec![0u8; 1000], vec![0u64; 10])).1, 1080);
}
