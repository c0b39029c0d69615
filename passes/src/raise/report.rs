//! What raising found: fused operations per scope, and the small ones that nobody claimed.
use crate::egraph::region::{Regions, fixed};
use crate::egraph::{Rules, Run, Stop};
use lolm_ir::op::{Class, Unary};
use lolm_ir::{Graph, Op};
use std::collections::BTreeMap;
use std::fmt;

/// Counts within one scope, by mnemonic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScopeCount {
    pub scope: String,
    pub fused: BTreeMap<&'static str, usize>,
    pub residue: BTreeMap<&'static str, usize>,
}

/// What was found in a graph, and what it took.
#[derive(Clone, Debug)]
pub struct RaiseReport {
    /// Scopes in the order of the graph; a scope without either kind is not listed.
    pub scopes: Vec<ScopeCount>,
    pub regions: usize,
    pub distinct: usize,
    /// E-nodes over all distinct regions.
    pub nodes: usize,
    /// The most iterations that a region took.
    pub iterations: usize,
    /// Distinct regions that stopped at a limit.
    pub limited: usize,
    /// How often each rule joined two classes.
    pub hits: Vec<(&'static str, usize)>,
}

/// True for operations that a fused one usually claims, where they work on more than parameters.
pub fn is_residue(op: &Op) -> bool {
    matches!(op, Op::Unary(Unary::Exp | Unary::Log | Unary::Erf) | Op::Recurrence { .. })
}

impl RaiseReport {
    pub fn new(g: &Graph, regions: &Regions, runs: Vec<Run>, rules: &Rules) -> Self {
        let sum = |f: &dyn Fn(&Run) -> usize| runs.iter().map(f).sum();
        let hits = rules.0.iter().enumerate().map(|(i, r)| (r.row.name, runs.iter().map(|x| x.hits[i]).sum()));
        RaiseReport {
            scopes: count(g),
            regions: regions.list.len(),
            distinct: regions.distinct.len(),
            nodes: sum(&|r| r.nodes),
            iterations: runs.iter().map(|r| r.iterations).max().unwrap_or(0),
            limited: runs.iter().filter(|r| r.stop != Stop::Saturated).count(),
            hits: hits.collect(),
        }
    }

    /// How many operations of this name the whole graph has.
    pub fn fused(&self, mnemonic: &str) -> usize {
        self.scopes.iter().filter_map(|s| s.fused.get(mnemonic)).sum()
    }
    /// How many operations of this name nobody claimed.
    pub fn residue(&self, mnemonic: &str) -> usize {
        self.scopes.iter().filter_map(|s| s.residue.get(mnemonic)).sum()
    }
    /// All fused operations by name.
    pub fn totals(&self) -> BTreeMap<&'static str, usize> {
        add_up(self.scopes.iter().map(|s| &s.fused))
    }
    /// All unclaimed operations by name.
    pub fn residues(&self) -> BTreeMap<&'static str, usize> {
        add_up(self.scopes.iter().map(|s| &s.residue))
    }
}

fn add_up<'a>(maps: impl Iterator<Item = &'a BTreeMap<&'static str, usize>>) -> BTreeMap<&'static str, usize> {
    let mut out = BTreeMap::new();
    for (k, n) in maps.flatten() {
        *out.entry(*k).or_insert(0) += n;
    }
    out
}

fn count(g: &Graph) -> Vec<ScopeCount> {
    let fixed = fixed(g);
    let mut by: BTreeMap<u32, ScopeCount> = BTreeMap::new();
    for v in g.ids() {
        let n = g.node(v);
        let fused = n.op.info().class == Class::Fused;
        let residue = is_residue(&n.op) && !fixed[v.0 as usize];
        if !fused && !residue {
            continue;
        }
        let new = || ScopeCount { scope: g.scope(n.scope).into(), fused: BTreeMap::new(), residue: BTreeMap::new() };
        let entry = by.entry(n.scope.0).or_insert_with(new);
        let map = if fused { &mut entry.fused } else { &mut entry.residue };
        *map.entry(n.op.mnemonic()).or_insert(0) += 1;
    }
    by.into_values().collect()
}

/// `6 softmax, 2 exp`.
fn list(counts: &BTreeMap<&'static str, usize>) -> String {
    if counts.is_empty() {
        return "-".into();
    }
    counts.iter().map(|(k, n)| format!("{n} {k}")).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for RaiseReport {
    /// A table with a row a scope, equal neighbours as one row.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows: Vec<(String, String, String)> = vec![];
        let mut i = 0;
        while i < self.scopes.len() {
            let s = &self.scopes[i];
            let same = |t: &&ScopeCount| (&t.fused, &t.residue) == (&s.fused, &s.residue);
            let n = self.scopes[i..].iter().take_while(same).count();
            let name = if n == 1 { s.scope.clone() } else { format!("{} ({n} times)", s.scope) };
            rows.push((name, list(&s.fused), list(&s.residue)));
            i += n;
        }
        rows.push(("total".into(), list(&self.totals()), list(&self.residues())));
        let wide = |get: &dyn Fn(&(String, String, String)) -> usize| rows.iter().map(get).max().unwrap_or(0);
        let (a, b) = (wide(&|r| r.0.len()).max(5), wide(&|r| r.1.len()).max(5));
        writeln!(f, "{:a$}  {:b$}  unclaimed", "scope", "fused")?;
        for (scope, fused, residue) in &rows {
            writeln!(f, "{scope:a$}  {fused:b$}  {residue}")?;
        }
        write!(f, "{} regions, {} distinct; {} e-nodes, ", self.regions, self.distinct, self.nodes)?;
        match self.limited {
            0 => writeln!(f, "all saturated within {} iterations", self.iterations),
            n => writeln!(f, "{n} stopped at a limit"),
        }
    }
}
