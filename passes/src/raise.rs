//! Raise: the small operations that a model is written in are recognised as fused ones.
//!
//! Before: any valid graph. After: an equal graph, with the same outputs and writes, in which softmax, norms, attention,
//! scans and the other fused operations stand for the small ones that spelled them. Each distinct region is saturated
//! with the rules of [`rules`] and extracted by a rank cost without dimensions (what is fused is cheaper than what it
//! is made of; a wrong estimate of sizes would once have kept attention apart at the large shape only).
//!
//! Saturation proves nothing, so the report counts what was found and what nobody claimed.
use crate::egraph::region::{RegionError, Regions, read_back, replay};
use crate::egraph::rule::{RowError, Rules};
use crate::egraph::{Body, Limits};
use lolm_ir::Graph;
use std::sync::Arc;

mod cost;
mod report;
pub mod rules;
pub use report::{RaiseReport, ScopeCount};

/// Why a graph could not be raised; always a bug in the compiler.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RaiseError {
    #[error("raise: {0}")]
    Rules(#[from] RowError),
    #[error("raise: {0}")]
    Region(#[from] RegionError),
}

/// Enough for a block of a few hundred operations; a region that reaches them is reported.
pub const LIMITS: Limits = Limits { iterations: 24, nodes: 60_000, matches: 100_000 };

/// The raised graph, and what was found in it.
pub fn raise(g: &Graph) -> Result<(Graph, RaiseReport), RaiseError> {
    let rules = Rules::new(rules::all())?;
    // A dead use would keep the inside of a fused operation alive.
    let g = &*g.sweep();
    let regions = Regions::of(g);
    let bare = Arc::new(g.bare());
    let (mut bodies, mut runs) = (vec![], vec![]);
    for d in &regions.distinct {
        let (mut eg, roots) = d.egraph(&bare)?;
        let original = cost::Original::of(&eg);
        let run = rules.run(&mut eg, LIMITS);
        let original = original.now(&eg);
        let body: Body = cost::choose(&eg, &roots, &original).and_then(|choice| read_back(&eg, &choice, &roots))?;
        bodies.push(body);
        runs.push(run);
    }
    let out = replay(g, &regions, &bodies)?;
    let report = RaiseReport::new(&out, &regions, runs, &rules);
    Ok((out, report))
}
