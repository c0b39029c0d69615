//! Work that is shared out among threads, with results that do not depend on them.
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Passes walk graphs by recursion, as deep as a kernel's longest chain of operations.
const STACK: usize = 32 << 20;

/// The results of `work(0)`, `work(1)`, … in this order. Each thread takes the next piece of work when it is done with one.
pub fn in_order<T: Send>(n: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let threads = thread::available_parallelism().map_or(1, |n| n.get()).min(n);
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = vec![];
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= n {
                return done;
            }
            done.push((i, work(i)));
        }
    };
    let mut all = thread::scope(|s| {
        let start = |_| thread::Builder::new().stack_size(STACK).spawn_scoped(s, take);
        // Where no thread can be started, this one does all of the work.
        let others: Vec<_> = (1..threads).map_while(|i| start(i).ok()).collect();
        let mut all = take();
        for t in others {
            all.extend(t.join().unwrap_or_else(|e| std::panic::resume_unwind(e)));
        }
        all
    });
    all.sort_by_key(|(i, _)| *i);
    all.into_iter().map(|(_, t)| t).collect()
}

#[cfg(test)]
mod tests {
    use super::in_order;

    #[test]
    fn results_stand_in_the_order_of_the_work() {
        let slow_first = |i: usize| {
            std::thread::sleep(std::time::Duration::from_millis(if i == 0 { 20 } else { 0 }));
            i * i
        };
        assert_eq!(in_order(50, slow_first), (0..50).map(|i| i * i).collect::<Vec<_>>());
        assert!(in_order(0, slow_first).is_empty());
    }
}
