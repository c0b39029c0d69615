//! Greedy extraction that counts a shared class once.
//!
//! Every class keeps the set of classes that its best node needs; a node costs the sum over the union of its children's
//! sets. Costs are positive integers that only fall, so the choice has no cycle and does not depend on rounding. (The
//! cost of a tree doubles along a residual stream and sees no sharing.)
use super::EGraph;
use super::language::Enode;
use egg::Id;
use std::collections::BTreeMap;

/// The node chosen for each class.
pub type Choice = BTreeMap<Id, Enode>;

/// The cost of a node without its children, at least 1, or `None` if it must not be chosen. Leaves are free.
pub type Cost<'a> = dyn Fn(&EGraph, Id, &Enode) -> Option<u64> + 'a;

#[derive(Clone)]
struct Best {
    cost: u64,
    node: usize,
    /// Bits of the classes that are needed, this one included.
    set: Vec<u64>,
}

/// Chooses a node for every class that can be extracted; `force` fixes the node of some classes.
pub fn greedy_dag(eg: &EGraph, cost: &Cost, force: &Choice) -> Choice {
    let mut ids: Vec<Id> = eg.classes().map(|c| c.id).collect();
    ids.sort();
    let index: BTreeMap<Id, usize> = ids.iter().enumerate().map(|(i, id)| (*id, i)).collect();
    let nodes: Vec<Vec<Candidate>> = ids.iter().map(|id| candidates(eg, *id, cost, force, &index)).collect();
    let mut state = State { own: vec![0; ids.len()], best: vec![None; ids.len()] };
    let mut again = true;
    while again {
        again = false;
        for (i, list) in nodes.iter().enumerate() {
            for c in list {
                again |= state.improve(i, c);
            }
        }
    }
    let chosen = ids.iter().zip(&state.best).filter_map(|(id, b)| Some((*id, eg[*id].nodes[b.as_ref()?.node].clone())));
    chosen.collect()
}

/// What the roots cost together: every class that they need, once.
pub fn total(eg: &EGraph, cost: &Cost, choice: &Choice, roots: &[Id]) -> Option<u64> {
    let mut seen = std::collections::BTreeSet::new();
    let mut stack: Vec<Id> = roots.iter().map(|r| eg.find(*r)).collect();
    let mut sum = 0;
    while let Some(id) = stack.pop() {
        if !seen.insert(id) {
            continue;
        }
        let node = choice.get(&id)?;
        if node.as_fun().is_some() {
            sum += cost(eg, id, node)?;
        }
        stack.extend(node.split().1.iter().map(|c| eg.find(*c)));
    }
    Some(sum)
}

struct Candidate {
    node: usize,
    own: u64,
    children: Vec<usize>,
}

fn candidates(eg: &EGraph, id: Id, cost: &Cost, force: &Choice, index: &BTreeMap<Id, usize>) -> Vec<Candidate> {
    let mut out = vec![];
    for (node, n) in eg[id].nodes.iter().enumerate() {
        if force.get(&id).is_some_and(|f| f != n) {
            continue;
        }
        let own = if n.as_fun().is_none() { Some(0) } else { cost(eg, id, n).map(|c| c.max(1)) };
        if let Some(own) = own {
            let mut children: Vec<usize> = n.split().1.iter().map(|c| index[&eg.find(*c)]).collect();
            children.sort_unstable();
            children.dedup();
            out.push(Candidate { node, own, children });
        }
    }
    // The cheapest first, so that equal totals keep the earlier, and the order of the table never matters.
    out.sort_by(|a, b| (a.own, &eg[id].nodes[a.node]).cmp(&(b.own, &eg[id].nodes[b.node])));
    out
}

struct State {
    own: Vec<u64>,
    best: Vec<Option<Best>>,
}

impl State {
    /// Takes the candidate if it makes class i cheaper.
    fn improve(&mut self, i: usize, c: &Candidate) -> bool {
        let bound = self.best[i].as_ref().map_or(u64::MAX, |b| b.cost);
        let mut at_least = c.own;
        for k in &c.children {
            match &self.best[*k] {
                Some(b) if *k != i => at_least = at_least.max(b.cost + c.own),
                _ => return false,
            }
        }
        if at_least >= bound {
            return false;
        }
        let mut set = vec![0u64; self.best.len().div_ceil(64)];
        for k in &c.children {
            if let Some(b) = &self.best[*k] {
                set.iter_mut().zip(&b.set).for_each(|(x, y)| *x |= y);
            }
        }
        if set[i / 64] >> (i % 64) & 1 == 1 {
            return false;
        }
        // More than each child, whatever became of a child's own node since: so no choice can come back to itself.
        let cost = at_least.max(c.own + bits(&set).map(|k| self.own[k]).sum::<u64>());
        if cost >= bound {
            return false;
        }
        set[i / 64] |= 1 << (i % 64);
        self.own[i] = c.own;
        self.best[i] = Some(Best { cost, node: c.node, set });
        true
    }
}

fn bits(set: &[u64]) -> impl Iterator<Item = usize> + '_ {
    set.iter().enumerate().flat_map(|(w, bits)| (0..64).filter(move |b| bits >> b & 1 == 1).map(move |b| w * 64 + b))
}
