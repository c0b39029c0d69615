//! Teams: several warps that do one unit together. Each has a part of one long axis that is folded, and every loop along that
//! axis runs over the part alone; what the members have folded is exchanged and joined in their order.
//!
//! Parts follow from the length of the axis and from how much a kernel reads, so the order of a sum does as well. What is stored outside of these loops is
//! stored by the first member.
use crate::emit::Emit;
use crate::eval::{Acc, Gen, Gives, Key, Tile};
use crate::schedule::Team;
use lolm_ir::kernel::{KAxis, KOp};
use std::collections::BTreeMap;

impl<E: Emit> Gen<'_, E> {
    /// The team, if its members share the loops along this axis.
    pub fn team_along(&self, x: KAxis) -> Option<Team> {
        self.s.team.filter(|t| t.axis == x)
    }

    /// This member's part of the axis.
    pub fn member_tile(&mut self, t: Team) -> Tile<E::C> {
        let len = self.k.axis(t.axis).len as i64;
        let member = self.e.member();
        self.tile(member, len, t.share as i64)
    }

    /// What of from..to lies in this member's part.
    pub fn member_clip(&mut self, t: Team, (from, to): (E::C, E::C)) -> (E::C, E::C) {
        let Tile { lo, size, .. } = self.member_tile(t);
        let hi = self.e.coord_add(lo, size);
        (self.e.coord_max(from, lo), self.e.coord_min(to, hi))
    }

    /// Joins what the members have folded; all of them get it.
    pub fn join_team(&mut self, accs: BTreeMap<Key, Acc<E::V>>) -> Gives<BTreeMap<Key, Acc<E::V>>> {
        let mine: Vec<E::V> = accs.values().flat_map(|a| [Some(a.x), a.at]).flatten().collect();
        let mut members = self.e.exchange(&mine).into_iter().map(Vec::into_iter).collect::<Vec<_>>();
        let mut out = BTreeMap::new();
        for (key, acc) in accs {
            let mut joined: Option<Acc<E::V>> = None;
            for m in &mut members {
                let x = m.next().ok_or_else(|| self.nowhere(key.0))?;
                let at = acc.at.and_then(|_| m.next());
                let next = Acc { x, at };
                joined = Some(joined.map_or(next, |j| self.fold_join(key.0, j, next)));
            }
            let mut joined = joined.unwrap_or(acc);
            // Each member started from nothing, so the accumulator of a dot comes last.
            if let (KOp::Dot(_), Some(c)) = (&self.k.value(key.0).op, self.k.value(key.0).args.get(2)) {
                let c = self.eval(*c, &key.1)?;
                joined = self.fold_join(key.0, Acc { x: c, at: None }, joined);
            }
            out.insert(key, joined);
        }
        Ok(out)
    }

    /// Where a store is not in a loop that the members share, the first of them does it.
    pub fn one_of_team(&mut self) -> Option<E::V> {
        let t = self.s.team?;
        if self.at[t.axis.0 as usize].is_some() { None } else { self.e.first_member() }
    }
}
