//! A fixed team of threads that run one job together and meet at barriers. Nothing is allocated once it stands.
use super::float::FlushDenormals;
use std::cell::UnsafeCell;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

/// How often a waiting thread looks before it sleeps: about the time that waking it would cost.
const SPINS: u32 = 1000;

/// The threads. The caller of [`Pool::run`] is thread 0 of the team; a team of one runs everything in the caller.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// A job, as the workers see it: only valid between the two barriers of [`Pool::run`].
type Job = *const (dyn Fn(&Member) + Sync);

struct Shared {
    barrier: Barrier,
    job: UnsafeCell<Option<Job>>,
    stop: AtomicBool,
}

// SAFETY: `job` is written by thread 0 before the barrier that starts a job and after the one that ends it, and read by
// the others in between; the barrier orders these.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is to something Sync.
unsafe impl Send for Shared {}

/// One thread of the team at work.
pub struct Member<'a> {
    pub index: usize,
    pub count: usize,
    barrier: &'a Barrier,
}

impl Member<'_> {
    /// Returns when every member has come here; what they wrote before is then seen by all.
    pub fn meet(&self) {
        self.barrier.wait();
    }

    /// This member's part of `units`: a fixed partition, so that a unit's computer is known in advance.
    pub fn share(&self, units: u64) -> (u64, u64) {
        let cut = |w: usize| (units as u128 * w as u128 / self.count as u128) as u64;
        (cut(self.index), cut(self.index + 1))
    }
}

impl Pool {
    /// A team of this many threads, at least one.
    pub fn new(threads: usize) -> io::Result<Pool> {
        let count = threads.max(1);
        let shared = Arc::new(Shared {
            barrier: Barrier::new(count as u32),
            job: UnsafeCell::new(None),
            stop: AtomicBool::new(false),
        });
        let mut pool = Pool { shared, workers: vec![] };
        for index in 1..count {
            let shared = pool.shared.clone();
            let name = format!("lolm-{index}");
            match std::thread::Builder::new().name(name).spawn(move || work(&shared, index, count)) {
                Ok(handle) => pool.workers.push(handle),
                Err(e) => {
                    // Those that run wait for the whole team; stand in for the missing ones so that they can leave.
                    pool.shared.barrier.shrink(pool.workers.len() as u32 + 1);
                    return Err(e);
                }
            }
        }
        Ok(pool)
    }

    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Every thread runs the job once, with denormals flushed; returns when all are done.
    pub fn run(&mut self, job: &(dyn Fn(&Member) + Sync)) {
        let _mode = FlushDenormals::new();
        let _abort = AbortOnPanic;
        let me = Member { index: 0, count: self.threads(), barrier: &self.shared.barrier };
        if self.workers.is_empty() {
            return job(&me);
        }
        // SAFETY: only the lifetime changes; the job is taken back below before this call, and so the borrow, ends.
        let job_ptr = unsafe { std::mem::transmute::<*const (dyn Fn(&Member) + Sync), Job>(job) };
        // SAFETY: the workers wait at the barrier and do not read it yet.
        unsafe { *self.shared.job.get() = Some(job_ptr) };
        self.shared.barrier.wait();
        job(&me);
        self.shared.barrier.wait();
        // SAFETY: the workers are done with it and wait at the next barrier.
        unsafe { *self.shared.job.get() = None };
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if !self.workers.is_empty() {
            self.shared.barrier.wait();
        }
        for handle in self.workers.drain(..) {
            // A worker that panicked has already ended the process.
            let _ = handle.join();
        }
    }
}

fn work(shared: &Shared, index: usize, count: usize) {
    #[cfg(test)]
    super::watch::join_team();
    let _mode = FlushDenormals::new();
    let _abort = AbortOnPanic;
    let me = Member { index, count, barrier: &shared.barrier };
    loop {
        shared.barrier.wait();
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        // SAFETY: thread 0 wrote the job before this barrier and keeps what it points to until the next one.
        if let Some(job) = unsafe { (*shared.job.get()).map(|job| &*job) } {
            job(&me);
        }
        shared.barrier.wait();
    }
}

/// A thread that unwinds would leave the others at a barrier for ever, or let them use what it owned.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("bug: a compute thread panicked; ending the process");
            std::process::abort();
        }
    }
}

/// A barrier that spins for a while and then sleeps.
struct Barrier {
    count: AtomicU32,
    arrived: AtomicU32,
    round: AtomicU32,
    sleepers: AtomicU32,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Barrier {
    fn new(count: u32) -> Self {
        let zero = || AtomicU32::new(0);
        Barrier {
            count: AtomicU32::new(count),
            arrived: zero(),
            round: zero(),
            sleepers: zero(),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        }
    }

    /// Expects fewer threads from now on; the caller still has to come itself.
    fn shrink(&self, count: u32) {
        self.count.store(count, Ordering::SeqCst);
    }

    fn wait(&self) {
        let round = self.round.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 >= self.count.load(Ordering::SeqCst) {
            self.arrived.store(0, Ordering::Relaxed);
            self.round.store(round.wrapping_add(1), Ordering::SeqCst);
            // A sleeper counts itself before it looks at the round a last time, so either we see it or it sees us.
            if self.sleepers.load(Ordering::SeqCst) > 0 {
                drop(self.lock.lock().unwrap_or_else(|e| e.into_inner()));
                self.wake.notify_all();
            }
            return;
        }
        for _ in 0..SPINS {
            if self.round.load(Ordering::Acquire) != round {
                return;
            }
            std::hint::spin_loop();
        }
        let mut held = self.lock.lock().unwrap_or_else(|e| e.into_inner());
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while self.round.load(Ordering::SeqCst) == round {
            held = self.wake.wait(held).unwrap_or_else(|e| e.into_inner());
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn shares_cover_all_units_once_in_order() {
        let barrier = Barrier::new(1);
        for count in [1, 2, 3, 7] {
            for units in [0, 1, 2, 5, 1000, u64::MAX] {
                let share = |index| Member { index, count, barrier: &barrier }.share(units);
                assert_eq!((share(0).0, share(count - 1).1), (0, units));
                assert!((1..count).all(|w| share(w - 1).1 == share(w).0));
            }
        }
    }

    #[test]
    fn members_meet_and_see_each_others_work() {
        for threads in 1..=4 {
            let mut pool = Pool::new(threads).unwrap();
            let counts: Vec<AtomicU64> = (0..64).map(|_| AtomicU64::new(0)).collect();
            for _ in 0..50 {
                pool.run(&|me: &Member| {
                    for c in &counts {
                        c.fetch_add(1, Ordering::Relaxed);
                        me.meet();
                        assert_eq!(c.load(Ordering::Relaxed) % me.count as u64, 0);
                        me.meet();
                    }
                });
            }
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 50 * threads as u64));
        }
    }

    #[test]
    fn sleeping_members_wake() {
        let mut pool = Pool::new(2).unwrap();
        for _ in 0..3 {
            pool.run(&|me: &Member| {
                if me.index == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                me.meet();
            });
        }
    }
}
