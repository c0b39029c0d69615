//! The prefix cache in use: a hit gives what a cold run gives, and memory stays within its budget.
use super::answers::{by_hand, request};
use super::toy::*;
use crate::serve::{Options, Request};
use std::sync::atomic::Ordering;

fn cached(bytes: usize) -> Options {
    Options { state_cache_bytes: bytes, ..Options::new(1000) }
}

#[test]
fn a_prompt_that_was_read_is_not_read_again() {
    let (engine, control) = engine(2, cached(1 << 20));
    let r = Request { trace: true, logprobs: Some(2), ..request(77, 1, 5) };
    let cold = whole(&engine, r.clone());
    let reads = control.reads.load(Ordering::SeqCst);
    let hit = whole(&engine, r.clone());
    assert_eq!((cold.cached, hit.cached), (Some(0), Some(77)));
    assert_eq!((&cold.tokens, control.reads.load(Ordering::SeqCst)), (&hit.tokens, reads));
    assert_eq!(cold.ids(), by_hand(&r));
    // Another gate is another text; and who wants no cache gets none.
    let forced = Request { gate: Some(0.0), ..r.clone() };
    assert_eq!((whole(&engine, forced.clone()).cached, whole(&engine, forced).cached), (Some(0), Some(77)));
    assert_eq!(whole(&engine, Request { cached: false, ..r }).cached, Some(0));
    let c = engine.stats().cache;
    assert_eq!((c.queries, c.hits, c.queried_tokens, c.hit_tokens), (4, 2, 4 * 77, 2 * 77));
}

#[test]
fn a_chat_goes_on_from_its_last_answer() {
    let (engine, _) = engine(2, cached(1 << 20));
    let mut r = request(30, 1, 12);
    let first = whole(&engine, r.clone());
    // The last token that came out did not go in.
    r.prompt.extend(first.ids());
    r.prompt.extend([1, 2, 3]);
    let second = whole(&engine, r.clone());
    assert_eq!((second.cached, second.ids()), (Some(30 + 11), by_hand(&r)));
    // Also if it was the client who ended it, after five tokens.
    let mut r = request(30, 2, 12);
    let mut left = 6;
    let sink = move |_| {
        left -= 1;
        left > 0
    };
    let _ticket = engine.submit(r.clone(), Box::new(sink)).unwrap();
    assert!(engine.wait_idle(std::time::Duration::from_secs(60)));
    r.prompt.extend(&by_hand(&r)[..5]);
    r.prompt.push(3);
    let third = whole(&engine, r.clone());
    assert_eq!((third.cached, third.ids()), (Some(30 + 4), by_hand(&r)));
}

#[test]
fn where_prompts_part_states_are_kept() {
    let (engine, _) = engine(2, cached(1 << 20));
    let system = request(59, 9, 1).prompt;
    let ask = |user: u32| {
        let mut r = request(20, user, 6);
        r.prompt.splice(0..0, system.clone());
        let a = whole(&engine, r.clone());
        assert_eq!(a.ids(), by_hand(&r), "user {user}");
        a.cached.unwrap()
    };
    // The second knows what a copy after twice the longest chunk holds, and leaves one where the two part.
    assert_eq!([ask(1), ask(2), ask(3), ask(4)], [0, 32, 56, 56]);
}

#[test]
fn the_cache_keeps_to_its_budget_and_gives_all_back() {
    let budget = 6000;
    let (engine, control) = engine(3, cached(budget));
    for i in 0..200u32 {
        let r = request(10 + (i as usize / 3 * 7) % 60, i / 3 % 13, 3 + (i as usize) % 5);
        assert_eq!(whole(&engine, r.clone()).ids(), by_hand(&r));
        let c = engine.stats().cache;
        assert!(c.bytes <= budget && c.entries <= control.snapshots.load(Ordering::SeqCst) + 1, "{c:?}");
    }
    let c = engine.stats().cache;
    assert!(c.evicted > 50 && c.hits > 10 && c.inserted == c.evicted + c.entries as u64, "{c:?}");
    drop(engine);
    assert_eq!(control.snapshots.load(Ordering::SeqCst), 0);
}
