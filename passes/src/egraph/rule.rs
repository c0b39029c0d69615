//! Rules as rows: a name, two patterns and conditions; and the loop that applies them.
//!
//! A row applies only where both sides have the same type, so a rule can neither lose an axis nor make an ill-typed
//! operation. The loop is bounded by iterations and nodes, never by the clock, and says why it stopped.
use super::EGraph;
use super::analysis::Facts;
use super::language::Enode;
use egg::{ENodeOrVar, Id, Pattern, PatternAst, RecExpr, SearchMatches, Searcher, Subst, Var};
use lolm_ir::Scalar;
use lolm_ir::axis::AxisSet;
use std::fmt;

/// A condition on what the variables of a row are bound to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Cond {
    /// The value depends on none of the axes.
    Absent(&'static str, &'static str),
    /// The value depends on all of the axes.
    Has(&'static str, &'static str),
    /// The value depends on no other axes than these.
    Within(&'static str, &'static str),
    /// `(n, a, x)`: of the axes of a, x depends on those in n only.
    Shares(&'static str, &'static str, &'static str),
    /// `(y, x)`: the axes of y are among those of x.
    Narrower(&'static str, &'static str),
    /// It is a set of one axis.
    Single(&'static str),
    Constant(&'static str),
    /// A constant close to this number.
    Near(&'static str, f64),
    /// A constant of at least this number.
    AtLeast(&'static str, f64),
    /// `(c, d)`: a constant close to one over the number of elements along the axes d.
    RecipSize(&'static str, &'static str),
    /// `(d, c)`: constants with d close to 2c.
    Twice(&'static str, &'static str),
    /// `(r, c)`: constants with r close to 1/c.
    Recip(&'static str, &'static str),
    /// `(c, r)`: constants with c close to 1/(1 - r).
    Keeps(&'static str, &'static str),
    /// It varies over some axis.
    Varies(&'static str),
    /// Parameter-only.
    Fixed(&'static str),
    /// Not parameter-only.
    Fed(&'static str),
    NonNegative(&'static str),
    /// `(j, k, by)`: tap j of axis k reads `by` steps back.
    Tap(&'static str, &'static str, &'static str),
    /// `(j, k)`: j is the last index of axis k.
    IsLast(&'static str, &'static str),
    /// The bit masks share no bit.
    Disjoint(&'static str, &'static str),
    /// `(m, j)`: the bit mask lacks bit j.
    Unset(&'static str, &'static str),
    /// `(m, k)`: the bit mask holds all indices of axis k.
    AllTaps(&'static str, &'static str),
    /// A positive i32 constant.
    Counts(&'static str),
    /// `(n, s)`: an i32 constant that is the length of axis s.
    Length(&'static str, &'static str),
}

/// A rule: where `lhs` matches and all conditions hold, `left` (if there is one, else `lhs`) equals `rhs`.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    pub name: &'static str,
    pub lhs: &'static str,
    pub left: Option<&'static str>,
    pub rhs: &'static str,
    pub when: Vec<Cond>,
}

/// A row of the table; aligned by its author.
pub fn row<const N: usize>(name: &'static str, lhs: &'static str, rhs: &'static str, when: [Cond; N]) -> Row {
    Row { name, lhs, left: None, rhs, when: when.to_vec() }
}

/// A row whose two sides are both built where `given` matches.
pub fn given(name: &'static str, given: &'static str, left: &'static str, rhs: &'static str) -> Row {
    Row { name, lhs: given, left: Some(left), rhs, when: vec![] }
}

/// A row that cannot be read; a bug in the table.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("bug: rule `{name}`: {fault}")]
pub struct RowError {
    pub name: &'static str,
    pub fault: String,
}

/// A row with its patterns compiled.
pub struct Rule {
    pub row: Row,
    lhs: Pattern<Enode>,
    left: Option<PatternAst<Enode>>,
    rhs: PatternAst<Enode>,
}

/// A table of rules, ready to run.
pub struct Rules(pub Vec<Rule>);

/// How far to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    pub iterations: usize,
    pub nodes: usize,
    /// Of one rule in one iteration: a product of a class with itself may match more often than there is memory.
    pub matches: usize,
}

/// Why the loop ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// No rule adds anything; this says nothing about what was found.
    Saturated,
    Iterations,
    Nodes,
    Matches,
}

/// What the loop did.
#[derive(Clone, Debug)]
pub struct Run {
    pub iterations: usize,
    pub nodes: usize,
    pub stop: Stop,
    /// How often each rule joined two classes, in the order of the table.
    pub hits: Vec<usize>,
}

impl Rules {
    pub fn new(rows: Vec<Row>) -> Result<Rules, RowError> {
        rows.into_iter().map(Rule::new).collect::<Result<_, _>>().map(Rules)
    }

    /// Applies the rules until nothing changes or a limit is reached.
    pub fn run(&self, eg: &mut EGraph, limits: Limits) -> Run {
        let mut run = Run { iterations: 0, nodes: 0, stop: Stop::Iterations, hits: vec![0; self.0.len()] };
        eg.rebuild();
        while run.iterations < limits.iterations {
            run.iterations += 1;
            let found: Vec<_> = self.0.iter().map(|r| r.lhs.search_with_limit(eg, limits.matches)).collect();
            let count = |all: &Vec<SearchMatches<Enode>>| all.iter().map(|m| m.substs.len()).sum::<usize>();
            let full = found.iter().any(|all| count(all) >= limits.matches);
            let before = eg.total_number_of_nodes();
            let mut joined = 0;
            for ((rule, matches), hits) in self.0.iter().zip(found).zip(&mut run.hits) {
                for m in matches {
                    for s in &m.substs {
                        let n = rule.apply(eg, m.eclass, s) as usize;
                        *hits += n;
                        joined += n;
                    }
                }
                if eg.total_number_of_nodes() > limits.nodes {
                    break;
                }
            }
            eg.rebuild();
            run.nodes = eg.total_number_of_nodes();
            if joined == 0 && run.nodes == before {
                run.stop = Stop::Saturated;
                return run;
            }
            if run.nodes > limits.nodes || full {
                run.stop = if full { Stop::Matches } else { Stop::Nodes };
                return run;
            }
        }
        run
    }
}

impl Rule {
    fn new(row: Row) -> Result<Rule, RowError> {
        let fail = |fault: String| RowError { name: row.name, fault };
        let parse = |text: &str| -> Result<PatternAst<Enode>, RowError> {
            text.parse::<RecExpr<ENodeOrVar<Enode>>>().map_err(|e| fail(e.to_string()))
        };
        let lhs = parse(row.lhs)?;
        let left = row.left.map(parse).transpose()?;
        let rhs = parse(row.rhs)?;
        let bound = vars(&lhs);
        let used = row.when.iter().flat_map(|c| c.vars()).map(|v| v.parse::<Var>().map_err(|e| fail(e.to_string())));
        let used: Vec<Var> = used.collect::<Result<_, _>>()?;
        let rest = left.iter().flat_map(vars).chain(vars(&rhs)).chain(used);
        if let Some(v) = rest.into_iter().find(|v| !bound.contains(v)) {
            return Err(fail(format!("{v} is not bound by the left side")));
        }
        Ok(Rule { lhs: Pattern::new(lhs), left, rhs, row })
    }

    /// Joins the two sides if the conditions hold; true if that is news.
    pub fn apply(&self, eg: &mut EGraph, class: Id, s: &Subst) -> bool {
        if !self.row.when.iter().all(|c| c.holds(eg, s)) {
            return false;
        }
        let left = match &self.left {
            None => class,
            Some(l) => build(eg, l, s),
        };
        let rhs = build(eg, &self.rhs, s);
        let same = eg[left].data.types == eg[rhs].data.types && !eg[left].data.types.is_empty();
        same && eg.union(left, rhs)
    }

    pub fn search(&self, eg: &EGraph) -> Vec<egg::SearchMatches<'_, Enode>> {
        self.lhs.search(eg)
    }
    pub fn lhs(&self) -> &PatternAst<Enode> {
        &self.lhs.ast
    }
    pub fn left(&self) -> Option<&PatternAst<Enode>> {
        self.left.as_ref()
    }
    pub fn rhs(&self) -> &PatternAst<Enode> {
        &self.rhs
    }
}

fn vars(p: &PatternAst<Enode>) -> Vec<Var> {
    let of = |n: &ENodeOrVar<Enode>| match n {
        ENodeOrVar::Var(v) => Some(*v),
        ENodeOrVar::ENode(_) => None,
    };
    p.as_ref().iter().filter_map(of).collect()
}

/// Adds an instance of a pattern.
pub fn build(eg: &mut EGraph, p: &PatternAst<Enode>, s: &Subst) -> Id {
    let mut ids: Vec<Id> = vec![];
    for n in p.as_ref() {
        let id = match n {
            ENodeOrVar::Var(v) => s[*v],
            ENodeOrVar::ENode(n) => {
                let children = n.children.iter().map(|c| ids[usize::from(*c)]).collect();
                eg.add(Enode { head: n.head.clone(), children })
            }
        };
        ids.push(id);
    }
    ids[ids.len() - 1]
}

impl Cond {
    fn vars(&self) -> Vec<&'static str> {
        use Cond::*;
        match *self {
            Absent(a, b) | Has(a, b) | Within(a, b) | Narrower(a, b) | RecipSize(a, b) | Keeps(a, b) => vec![a, b],
            IsLast(a, b) | Disjoint(a, b) | Unset(a, b) | AllTaps(a, b) | Length(a, b) => vec![a, b],
            Recip(a, b) | Twice(a, b) => vec![a, b],
            Shares(a, b, c) | Tap(a, b, c) => vec![a, b, c],
            Near(a, _) | AtLeast(a, _) => vec![a],
            Single(a) | Constant(a) | Varies(a) | Fixed(a) | Fed(a) | NonNegative(a) | Counts(a) => vec![a],
        }
    }

    /// True if the condition holds; a variable of the wrong kind makes it false.
    pub fn holds(&self, eg: &EGraph, s: &Subst) -> bool {
        self.check(eg, s).unwrap_or(false)
    }

    fn check(&self, eg: &EGraph, s: &Subst) -> Option<bool> {
        let at = |v: &str| -> Option<&Facts> { Some(&eg[*s.get(v.parse().ok()?)?].data) };
        let axes = |v: &str| -> Option<AxisSet> { at(v)?.known.axes() };
        let sup = |v: &str| -> Option<AxisSet> { at(v).map(|f| f.axes()) };
        let int = |v: &str| -> Option<i64> { at(v)?.known.int() };
        let num = |v: &str| -> Option<f64> {
            match at(v)?.known.num()? {
                Scalar::F32(b) => Some(f32::from_bits(b) as f64),
                Scalar::I32(_) | Scalar::Bool(_) => None,
            }
        };
        let len = |v: &str| -> Option<i64> { Some(eg.analysis.graph.len(axes(v)?.single()?) as i64) };
        let close = |x: f64, y: f64| (x - y).abs() <= 1e-6 * y.abs();
        Some(match *self {
            Cond::Absent(k, x) => axes(k)?.disjoint(sup(x)?),
            Cond::Has(k, x) => sup(x)?.contains(axes(k)?),
            Cond::Within(k, x) => axes(k)?.contains(sup(x)?),
            Cond::Shares(n, a, x) => sup(a)?.minus(axes(n)?).disjoint(sup(x)?),
            Cond::Narrower(y, x) => sup(x)?.contains(sup(y)?),
            Cond::Single(k) => axes(k)?.len() == 1,
            Cond::Constant(x) => num(x).is_some(),
            Cond::Near(x, c) => close(num(x)?, c),
            Cond::AtLeast(x, c) => num(x)? >= c,
            Cond::RecipSize(c, d) => close(num(c)? * eg.analysis.elements(axes(d)?) as f64, 1.0),
            Cond::Twice(d, c) => close(num(c)? * 2.0, num(d)?),
            Cond::Recip(r, c) => num(c)? != 0.0 && close(num(c)? * num(r)?, 1.0),
            Cond::Keeps(c, r) => num(r)? < 1.0 && close(num(c)? * (1.0 - num(r)?), 1.0),
            Cond::Varies(x) => !sup(x)?.is_empty(),
            Cond::Fixed(x) => at(x)?.fixed,
            Cond::Fed(x) => !at(x)?.fixed,
            Cond::NonNegative(x) => at(x)?.nonnegative,
            Cond::Tap(j, k, by) => int(j)? + int(by)? == len(k)? - 1,
            Cond::IsLast(j, k) => int(j)? == len(k)? - 1,
            Cond::Disjoint(m, n) => int(m)? & int(n)? == 0,
            Cond::Unset(m, j) => int(m)?.checked_shr(int(j)? as u32)? & 1 == 0,
            Cond::AllTaps(m, k) => Some(int(m)?) == 1i64.checked_shl(len(k)? as u32).map(|b| b - 1),
            Cond::Length(n, s) => at(n)?.known.num()?.as_f64() == len(s)? as f64,
            Cond::Counts(x) => matches!(at(x)?.known.num()?, Scalar::I32(n) if n > 0),
        })
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stop::Saturated => "saturated",
            Stop::Iterations => "limit of iterations",
            Stop::Nodes => "limit of nodes",
            Stop::Matches => "limit of matches",
        })
    }
}
