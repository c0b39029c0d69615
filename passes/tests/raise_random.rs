//! Random graphs of every operation: raising and rewriting keep the interpreter's answer and the rules of a graph.
use lolm_ir::arbitrary::{Options, feeds, graph};
use lolm_ir::expand::expand;
use lolm_ir::interp::run;
use lolm_ir::op::Class;
use lolm_ir::verify::verify;
use lolm_passes::raise::raise;
use lolm_passes::rewrite::{Machine, rewrite};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

mod raise_util;
use raise_util::gap;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, rng_seed: RngSeed::Fixed(3), ..ProptestConfig::default() })]

    #[test]
    fn answers_of_random_graphs_stay(choices in prop::collection::vec(any::<u32>(), 0..500), seed in 0u32..100) {
        let written = graph(&choices, Options::SMOOTH).unwrap();
        // Every second graph is written in small operations, among which there is more to find.
        let g = if seed % 2 == 0 { written } else { expand(&written, &|op| op.info().class == Class::Fused).unwrap() };
        let (raised, report) = raise(&g).unwrap();
        verify(&raised).unwrap();
        let (moved, _) = rewrite(&raised, Machine { accumulates: true }).unwrap();
        verify(&moved).unwrap();
        prop_assert_eq!(report.limited, 0);
        let feeds = feeds(&g, seed);
        let before = run(&g, &feeds).unwrap();
        for (pass, out) in [("raise", &raised), ("rewrite", &moved)] {
            let worst = gap(&run(out, &feeds).unwrap(), &before);
            prop_assert!(worst < 1e-5, "{} changed the answer by {:e}", pass, worst);
        }
    }
}
