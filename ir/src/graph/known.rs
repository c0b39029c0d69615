//! Which operations a graph holds: a table of the graph's own nodes, so that no operation is kept twice.
use super::{Node, ValueId};
use crate::hash::quick;
use crate::op::Op;

/// Slots of (hash, value), a power of two of them, at most half of them taken; a value is looked for from its hash on.
#[derive(Default)]
pub struct Known {
    slots: Vec<Option<(u32, ValueId)>>,
    len: usize,
}

fn hash(op: &Op, args: &[ValueId]) -> u32 {
    (quick((op, args)) >> 32) as u32
}

impl Known {
    /// The nodes of a graph; of equal ones the last.
    pub fn of(nodes: &[Node]) -> Self {
        let mut known = Known::default();
        known.grow(nodes.len());
        for (i, n) in nodes.iter().enumerate() {
            let (h, v) = (hash(&n.op, &n.args), ValueId(i as u32));
            let at = known.slot(nodes, h, &n.op, &n.args);
            known.len += known.slots[at].is_none() as usize;
            known.slots[at] = Some((h, v));
        }
        known
    }

    /// Where the operation is, or where it belongs.
    fn slot(&self, nodes: &[Node], hash: u32, op: &Op, args: &[ValueId]) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while let Some((h, v)) = self.slots[at] {
            let n = &nodes[v.0 as usize];
            if h == hash && n.op == *op && *n.args == *args {
                break;
            }
            at = (at + 1) & mask;
        }
        at
    }

    /// Makes room for one more than `len`.
    fn grow(&mut self, len: usize) {
        let size = (2 * (len + 1)).next_power_of_two().max(64);
        let old = std::mem::replace(&mut self.slots, vec![None; size]);
        for (h, v) in old.into_iter().flatten() {
            let mut at = h as usize & (size - 1);
            while self.slots[at].is_some() {
                at = (at + 1) & (size - 1);
            }
            self.slots[at] = Some((h, v));
        }
    }

    /// The operation's value, if the graph holds it. If not, the answer is where [`Known::insert`] may put it.
    pub fn find(&mut self, nodes: &[Node], op: &Op, args: &[ValueId]) -> Result<ValueId, Place> {
        if 2 * (self.len + 1) > self.slots.len() {
            self.grow(2 * self.len);
        }
        let hash = hash(op, args);
        let at = self.slot(nodes, hash, op, args);
        match self.slots[at] {
            Some((_, v)) => Ok(v),
            None => Err(Place { at, hash }),
        }
    }

    pub fn insert(&mut self, place: Place, v: ValueId) {
        self.slots[place.at] = Some((place.hash, v));
        self.len += 1;
    }
}

/// A free slot for an operation that was looked for, until the next one is inserted.
pub struct Place {
    at: usize,
    hash: u32,
}

#[cfg(test)]
mod tests {
    use crate::graph::Builder;
    use crate::op::{Op, Unary};
    use crate::{DType, ValueId};

    #[test]
    fn every_operation_is_found_again_however_many_there_are() {
        let mut b = Builder::new("many");
        let x = b.input("x", DType::F32, &[]);
        let chain = |b: &mut Builder| {
            let mut v = x;
            let next = |_| {
                v = b.unary(Unary::Neg, v);
                v
            };
            (0..1000).map(next).collect::<Vec<ValueId>>()
        };
        let first = chain(&mut b);
        assert_eq!(chain(&mut b), first);
        let g = b.finish().unwrap();
        assert_eq!(g.nodes.len(), 1001);
        let mut again = Builder::extend(g.clone());
        assert_eq!(chain(&mut again), first);
        assert_eq!(again.op(Op::Unary(Unary::Exp), &[x]), ValueId(1001));
    }
}
