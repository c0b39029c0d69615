//! Counts allocations in tests: running a program must make none.
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static ARMED: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Threads of other tests in this process do not count.
    static IN_TEAM: Cell<bool> = const { Cell::new(false) };
}

/// This thread's allocations count from now on, while the counter is armed.
pub fn join_team() {
    IN_TEAM.set(true);
}

/// Allocations that the team makes during `f`.
pub fn allocations(f: impl FnOnce()) -> usize {
    join_team();
    let before = COUNT.load(Ordering::SeqCst);
    ARMED.store(true, Ordering::SeqCst);
    f();
    ARMED.store(false, Ordering::SeqCst);
    COUNT.load(Ordering::SeqCst) - before
}

// SAFETY: everything is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if ARMED.load(Ordering::Relaxed) && IN_TEAM.get() {
            COUNT.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[test]
fn running_a_program_allocates_nothing() {
    use crate::testing::{linear, model};
    // Rows enough for packing, few rows in place, and a scratch tile.
    for (m, n, k) in [(40, 70, 300), (3, 64, 64), (1, 200, 520)] {
        for threads in [1, 3] {
            let mut model = model(&linear(m, n, k), threads);
            let p = model.program("linear").unwrap();
            model.run(p);
            assert_eq!(allocations(|| (0..10).for_each(|_| model.run(p))), 0, "{m}x{n}x{k}, {threads} threads");
        }
    }
    assert!(allocations(|| drop(std::hint::black_box(vec![1u8; 100]))) > 0);
}

#[test]
fn a_training_step_allocates_nothing() {
    let mut t = crate::train::tests::toy_trainer();
    t.step();
    assert_eq!(allocations(|| (0..10).for_each(|_| assert!(t.step().step > 0))), 0);
}
