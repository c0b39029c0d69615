//! Operations of a graph by part of the model.
use crate::table::Table;
use lolm_ir::Graph;
use lolm_passes::raise::RaiseReport;
use serde::Serialize;
use std::collections::BTreeMap;

/// The operations of a graph.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Operations {
    pub program: String,
    pub operations: usize,
    pub axes: usize,
    pub parts: Vec<Part>,
}

/// The operations of equal parts that follow one another, such as the layers of a decoder, by name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Part {
    pub scope: String,
    pub times: usize,
    /// Of each of them.
    pub operations: BTreeMap<&'static str, usize>,
}

impl Operations {
    pub fn of(g: &Graph) -> Self {
        let mut by_scope: BTreeMap<u32, BTreeMap<&'static str, usize>> = BTreeMap::new();
        for n in &g.nodes {
            *by_scope.entry(n.scope.0).or_default().entry(n.op.mnemonic()).or_default() += 1;
        }
        let mut parts: Vec<Part> = vec![];
        for (scope, operations) in by_scope {
            let scope = g.scopes[scope as usize].clone();
            match parts.last_mut() {
                Some(last) if last.operations == operations && siblings(&last.scope, &scope) => last.times += 1,
                _ => parts.push(Part { scope, times: 1, operations }),
            }
        }
        Operations { program: g.name.clone(), operations: g.nodes.len(), axes: g.axes.len(), parts }
    }

    pub fn show(&self) -> String {
        let mut t = Table::new(&["scope", ">times", ">operations", "of each"]);
        for p in &self.parts {
            let n: usize = p.operations.values().sum();
            let scope = if p.scope.is_empty() { "-" } else { &p.scope };
            t.row(&[scope.into(), p.times.to_string(), n.to_string(), list(&p.operations)]);
        }
        format!("{}: {} operations over {} axes\n\n{t}", self.program, self.operations, self.axes)
    }
}

/// True if the names differ in numbers only.
fn siblings(a: &str, b: &str) -> bool {
    let bare = |s: &str| s.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    bare(a) == bare(b)
}

/// `6 softmax, 2 exp`, the most frequent first.
fn list(counts: &BTreeMap<&'static str, usize>) -> String {
    let mut all: Vec<_> = counts.iter().collect();
    all.sort_by_key(|(name, n)| (std::cmp::Reverse(**n), **name));
    all.into_iter().map(|(name, n)| format!("{n} {name}")).collect::<Vec<_>>().join(", ")
}

/// What raising found, for JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Raised {
    pub program: String,
    pub fused: BTreeMap<&'static str, usize>,
    /// Small operations that nobody claimed.
    pub residue: BTreeMap<&'static str, usize>,
    pub regions: usize,
    pub distinct: usize,
    pub nodes: usize,
    pub iterations: usize,
    pub limited: usize,
    pub rules: BTreeMap<&'static str, usize>,
    #[serde(skip)]
    text: String,
}

impl Raised {
    pub fn of(program: &str, r: &RaiseReport) -> Self {
        Raised {
            program: program.into(),
            fused: r.totals(),
            residue: r.residues(),
            regions: r.regions,
            distinct: r.distinct,
            nodes: r.nodes,
            iterations: r.iterations,
            limited: r.limited,
            rules: r.hits.iter().copied().filter(|(_, n)| *n > 0).collect(),
            text: r.to_string(),
        }
    }

    pub fn show(&self) -> String {
        format!("{}\n\n{}", self.program, self.text)
    }
}
