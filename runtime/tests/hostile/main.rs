//! Files that somebody damaged or forged: no parser panics, none allocates beyond twice the file, and what it gives is whole.
//!
//! Each test mutates valid files. `LOLM_FUZZ_SECONDS=600 cargo test --release -p lolm-runtime --test hostile NAME -- --nocapture`
//! goes on for that long and says how many files were tried.
mod counting;
mod gguf;
mod mutate;
mod sets;
mod single;
mod specs;

use counting::Counting;
use mutate::mutate;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What an error may take beside the file.
const SLACK: usize = 16 << 10;

/// Runs a parser and asserts that what it allocated at any moment is at most twice the file, which has `len` bytes.
fn bounded<T>(what: &str, len: usize, parse: impl FnOnce() -> T) -> T {
    let (result, peak) = counting::peak(parse);
    assert!(peak <= 2 * len + SLACK, "{what}: {peak} bytes were allocated for a file of {len}");
    result
}

/// Mutates these files and checks each: a few hundred times, or as long as the environment says.
fn hostile(name: &str, bases: &[Vec<u8>], check: impl Fn(&[u8])) {
    bases.iter().for_each(|base| check(base));
    let case = |which: usize, numbers: &[u32]| {
        let mut bytes = bases[which % bases.len()].clone();
        mutate(&mut bytes, numbers);
        check(&bytes);
    };
    if let Ok(seconds) = std::env::var("LOLM_FUZZ_SECONDS") {
        let seconds = Duration::from_secs(seconds.parse().expect("LOLM_FUZZ_SECONDS is a number of seconds"));
        return fuzz(name, seconds, case);
    }
    let numbers = prop::collection::vec(any::<u32>(), 4..24);
    let config = ProptestConfig {
        cases: 400,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::default()
    };
    proptest!(config, |(which in 0..bases.len(), numbers in numbers)| case(which, &numbers));
}

/// Goes on with random numbers, which the seed alone determines.
fn fuzz(name: &str, time: Duration, case: impl Fn(usize, &[u32])) {
    let seed: u32 = std::env::var("LOLM_FUZZ_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let (start, mut done) = (Instant::now(), 0u32);
    while start.elapsed() < time {
        for _ in 0..64 {
            let draw = |block: u32| lolm_ir::philox::philox4x32_10([done, block, 0, 0], [seed, 0x4c4f_4c4d]);
            let head = draw(0);
            let numbers: Vec<u32> = (1..2 + head[1] % 5).flat_map(draw).collect();
            case(head[0] as usize, &numbers);
            done += 1;
        }
    }
    println!("{name}: {done} files in {:.0} s, none of them harmful", start.elapsed().as_secs_f64());
}
