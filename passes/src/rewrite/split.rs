//! The move *split*: a dot of a concat with a weight becomes a sum of dots with slices of the weight.
//!
//!     dot {k} (concat {k} a, b), w  =  dot {p} a, (slice {k, 0, p} w)  +  dot {q} b, (slice {k, len p, q} w)
//!
//! for the parts p of a and q of b. The slices are views; the concat need not be written.
use super::Move;
use crate::egraph::extract::Choice;
use crate::egraph::{EGraph, Enode, Fun, Head, Known};
use egg::Id;
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::op::Binary;

/// A dot of a concat.
struct Site {
    class: Id,
    dot: Enode,
    /// Contracted axes without that of the concat.
    rest: AxisSet,
    axis: AxisId,
    parts: Vec<AxisId>,
    values: Vec<Id>,
    weight: Id,
}

/// All splits of a region; their sums are added to the e-graph.
pub fn moves(eg: &mut EGraph) -> Vec<Move> {
    let mut classes: Vec<Id> = eg.classes().map(|c| c.id).collect();
    classes.sort();
    let sites: Vec<Site> = classes.iter().flat_map(|c| sites(eg, *c)).collect();
    let sums: Vec<(Site, Id, Enode)> = sites
        .into_iter()
        .map(|s| {
            let (id, node) = sum(eg, &s);
            eg.union(id, s.class);
            (s, id, node)
        })
        .collect();
    eg.rebuild();
    let now = |n: Enode| egg::Language::map_children(n, |c| eg.find(c));
    let one = |(s, id, node): (Site, Id, Enode)| {
        let class = eg.find(id);
        Move { name: "split", made: Choice::from([(class, now(node))]), left: Choice::from([(class, now(s.dot))]) }
    };
    sums.into_iter().map(one).collect()
}

fn sites(eg: &EGraph, class: Id) -> Option<Site> {
    let dots = eg[class].nodes.iter().filter(|n| n.as_fun() == Some(Fun::Dot));
    dots.flat_map(|dot| [(dot, 1, 2), (dot, 2, 1)])
        .find_map(|(dot, cat, w)| site(eg, class, dot, dot.children[cat], dot.children[w]))
}

fn site(eg: &EGraph, class: Id, dot: &Enode, cat: Id, weight: Id) -> Option<Site> {
    let over = eg[dot.children[0]].data.known.axes()?;
    let concat = eg[cat].nodes.iter().find(|n| n.as_fun() == Some(Fun::Concat))?;
    let axis = eg[concat.children[0]].data.known.axes()?.single()?;
    let Known::List(parts) = eg[concat.children[1]].data.known.clone() else { return None };
    let w = &eg[weight].data;
    let free = AxisSet::of(&parts).disjoint(w.axes()) && AxisSet::of(&parts).disjoint(over);
    if !over.has(axis) || !w.fixed || !free {
        return None;
    }
    let values = concat.split().1.to_vec();
    // A part may lack an axis that another part gives to the concat; then it cannot be contracted over it.
    if !values.iter().all(|v| eg[*v].data.axes().contains(over.without(axis))) {
        return None;
    }
    Some(Site { class, dot: dot.clone(), rest: over.without(axis), axis, parts, values, weight })
}

/// Adds the sum; the answer is its class and its last node.
fn sum(eg: &mut EGraph, s: &Site) -> (Id, Enode) {
    let axis = eg.add(Enode::leaf(Head::Axes(s.axis.into())));
    let (mut start, mut total) = (0, None);
    for (part, value) in s.parts.iter().zip(&s.values) {
        let at = eg.add(Enode::leaf(Head::Int(start as i64)));
        let to = eg.add(Enode::leaf(Head::Axes((*part).into())));
        let slice = eg.add(Enode::fun(Fun::Slice, vec![axis, at, to, s.weight]));
        let over = eg.add(Enode::leaf(Head::Axes(s.rest.with(*part))));
        let dot = Enode::fun(Fun::Dot, vec![over, *value, slice]);
        let term = eg.add(dot.clone());
        total = Some(match total {
            None => (term, dot),
            Some((sum, _)) => {
                let add = Enode::fun(Fun::Binary(Binary::Add), vec![sum, term]);
                (eg.add(add.clone()), add)
            }
        });
        start += eg.analysis.graph.len(*part);
    }
    total.unwrap_or((s.class, s.dot.clone()))
}
