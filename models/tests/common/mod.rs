//! Golden cases for the tests of this crate, and graphs run on them.
#![allow(dead_code, unused_imports)]
use lolm_ir::graph::LeafKind;
use lolm_ir::interp::{Feeds, Results, run};
use lolm_ir::{DType, Graph};

#[path = "../../../tests/src/golden.rs"]
mod golden;
pub use golden::{CASES, Case, Tensors, distance};

/// Runs a graph; the error of a missing feed names the leaf.
pub fn go(g: &Graph, feeds: &Feeds) -> Results {
    run(g, feeds).unwrap_or_else(|e| panic!("@{}: {e}", g.name))
}

/// The states of a program as they are before the first token, from the weights where they start as a copy of one.
pub fn fresh_states(g: &Graph, weights: &Tensors) -> Feeds {
    let mut out = Feeds::new();
    for leaf in g.leaves.iter() {
        let LeafKind::State { init, .. } = &leaf.kind else { continue };
        assert_eq!(leaf.dtype, DType::F32);
        let len: usize = leaf.shape(g).iter().product();
        let one = init.as_ref().map_or(vec![0.0], |name| weights[name].1.clone());
        out.insert(leaf.name.clone(), one.iter().copied().cycle().take(len).collect());
    }
    out
}
