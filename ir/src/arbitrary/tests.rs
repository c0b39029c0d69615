//! The generator makes every operation, and finite values; expansions keep the value of what it makes.
use super::*;
use crate::expand::expand;
use crate::interp::{run, values};
use crate::verify::verify;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn choices(seed: u32, n: u64) -> Vec<u32> {
    (0..n).map(|i| philox::bits(seed, 0, 0, i)).collect()
}

#[test]
fn every_operation_is_made() {
    let graphs = (0..300).map(|seed| graph(&choices(seed, 300), Options::ALL).unwrap());
    let made: BTreeSet<&str> = graphs.flat_map(|g| g.nodes.into_iter().map(|n| n.op.mnemonic())).collect();
    assert_eq!(made, crate::text::mnemonics().collect());
}

#[test]
fn no_choice_makes_an_empty_graph() {
    assert_eq!(graph(&[], Options::ALL).unwrap().nodes, []);
}

proptest! {
    #[test]
    fn random_values_are_finite(choices in proptest::collection::vec(any::<u32>(), 0..300), seed in any::<u32>()) {
        let g = graph(&choices, Options::ALL).unwrap();
        for (node, results) in g.nodes.iter().zip(values(&g, &feeds(&g, seed)).unwrap()) {
            for x in results.iter().flat_map(|x| &x.data) {
                prop_assert!(x.is_finite(), "{} of {:?}", x, node.op);
            }
        }
    }

    #[test]
    fn random_graphs_and_their_expansions_keep_the_rules(choices in proptest::collection::vec(any::<u32>(), 0..300)) {
        let g = graph(&choices, Options::ALL).unwrap();
        prop_assert_eq!(verify(&g), Ok(()));
        prop_assert_eq!(verify(&expand(&g, &|_| true).unwrap()), Ok(()));
    }

    #[test]
    fn expansions_keep_the_value_of_random_graphs(choices in proptest::collection::vec(any::<u32>(), 0..300)) {
        let g = graph(&choices, Options::SMOOTH).unwrap();
        let small = expand(&g, &|_| true).unwrap();
        let (a, b) = (run(&g, &feeds(&g, 1)).unwrap(), run(&small, &feeds(&g, 1)).unwrap());
        for (name, x) in a.outputs.iter().chain(&a.writes) {
            let y = b.outputs.get(name).unwrap_or_else(|| &b.writes[name]);
            for (x, y) in x.iter().zip(y) {
                prop_assert!(x == y || (x - y).abs() <= 1e-9 * (1.0 + x.abs()), "{}: {} {}", name, x, y);
            }
        }
    }
}
