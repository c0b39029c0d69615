//! Rewrite: another form of the same graph, chosen by numeric cost on each region's DAG.
//!
//! Before: a raised graph, with its backward pass if it has one. After: an equal graph that moves less memory. A *move* puts another
//! node into a class of the e-graph; the gain of a move depends on the others (a concat is gone only when nothing reads it any
//! more), so moves are switched while the cost of the whole region falls, starting from none and from all.
//!
//! The cost does not depend on how many rows a program has, so that programs of one model, whatever their batch and
//! number of tokens, sum in the same order ([`cost`]).
use crate::egraph::extract::{self, Choice};
use crate::egraph::region::{Distinct, RegionError, Regions, read_back, replay};
use crate::egraph::{Body, EGraph};
use egg::Id;
use lolm_ir::Graph;
use std::fmt;
use std::sync::Arc;

pub mod cost;
mod split;
pub use cost::{Cost, Machine};

/// Why a graph could not be rewritten; always a bug in the compiler.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RewriteError {
    #[error("rewrite: {0}")]
    Region(#[from] RegionError),
}

/// Another node for a class.
pub struct Move {
    pub name: &'static str,
    /// The node of each class if the move is made, and if it is not.
    pub made: Choice,
    pub left: Choice,
}

/// What was moved in the regions of one kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Moved {
    /// The scope of the first of them.
    pub scope: String,
    /// How many regions are of this kind.
    pub regions: usize,
    /// Moves made, and moves there were.
    pub made: Vec<&'static str>,
    pub offered: usize,
    /// Cost before and after.
    pub cost: (u64, u64),
}

/// What was moved, by distinct region; regions without a possible move are not listed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RewriteReport {
    pub moved: Vec<Moved>,
}

/// The rewritten graph, and what was moved.
pub fn rewrite(g: &Graph, machine: Machine) -> Result<(Graph, RewriteReport), RewriteError> {
    let g = &*g.sweep();
    let regions = Regions::of(g);
    let bare = Arc::new(g.bare());
    let cost = Cost::new(g, machine);
    let (mut bodies, mut report) = (vec![], RewriteReport::default());
    for (kind, d) in regions.distinct.iter().enumerate() {
        let Outcome { body, made, offered, cost } = improve(d, &bare, &cost)?;
        bodies.push(body);
        if offered > 0 {
            let of = || regions.list.iter().filter(|r| r.kind == kind);
            let scope = of().next().map_or("", |r| g.scope(r.scope)).to_string();
            report.moved.push(Moved { scope, regions: of().count(), made, offered, cost });
        }
    }
    Ok((replay(g, &regions, &bodies)?, report))
}

struct Outcome {
    body: Body,
    made: Vec<&'static str>,
    offered: usize,
    cost: (u64, u64),
}

fn improve(d: &Distinct, bare: &Arc<Graph>, cost: &Cost) -> Result<Outcome, RewriteError> {
    let (mut eg, roots) = d.egraph(bare)?;
    let moves = split::moves(&mut eg);
    if moves.is_empty() {
        return Ok(Outcome { body: d.body.clone(), made: vec![], offered: 0, cost: (0, 0) });
    }
    let climb = Climb { cost, eg: &eg, roots: &roots, moves: &moves };
    let none = climb.score(&vec![false; moves.len()])?;
    let (mut on, mut best) = climb.from(vec![false; moves.len()])?;
    let all = climb.from(vec![true; moves.len()])?;
    if all.1.0 < best.0 {
        (on, best) = all;
    }
    let made = moves.iter().zip(&on).filter(|(_, on)| **on).map(|(m, _)| m.name).collect();
    let body = read_back(&eg, &best.1, &roots)?;
    Ok(Outcome { body, made, offered: moves.len(), cost: (none.0, best.0) })
}

/// A search over which moves to make.
struct Climb<'a> {
    cost: &'a Cost,
    eg: &'a EGraph,
    roots: &'a [Id],
    moves: &'a [Move],
}

impl Climb<'_> {
    /// The cost of the region with these moves, and the choice that has it.
    fn score(&self, on: &[bool]) -> Result<(u64, Choice), RewriteError> {
        let mut force = Choice::new();
        for (m, on) in self.moves.iter().zip(on) {
            force.extend(if *on { m.made.clone() } else { m.left.clone() });
        }
        let own = |eg: &EGraph, id: Id, n: &crate::egraph::Enode| self.cost.own(eg, id, n);
        let choice = extract::greedy_dag(self.eg, &own, &force);
        let total = extract::total(self.eg, &own, &choice, self.roots);
        let total = total.ok_or_else(|| RegionError::Broken("a root cannot be extracted".into()))?;
        Ok((total, choice))
    }

    /// Switches one move at a time while the cost falls.
    fn from(&self, mut on: Vec<bool>) -> Result<(Vec<bool>, (u64, Choice)), RewriteError> {
        let mut best = self.score(&on)?;
        let mut again = true;
        while again {
            again = false;
            for i in 0..on.len() {
                on[i] = !on[i];
                let next = self.score(&on)?;
                if next.0 < best.0 {
                    (best, again) = (next, true);
                } else {
                    on[i] = !on[i];
                }
            }
        }
        Ok((on, best))
    }
}

impl fmt::Display for RewriteReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for m in &self.moved {
            let (made, before, after) = (m.made.join(", "), m.cost.0, m.cost.1);
            let times = if m.regions == 1 { String::new() } else { format!(" ({} times)", m.regions) };
            let made = if made.is_empty() { "nothing".into() } else { made };
            writeln!(f, "{}{times}: {made} of {} moves; cost {before} to {after}", m.scope, m.offered)?;
        }
        Ok(())
    }
}
