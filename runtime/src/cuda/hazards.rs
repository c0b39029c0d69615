//! Which launches wait for which: two that touch the same bytes, one of them writing, keep their order; all others may run
//! side by side, as the branches of a model do.
//!
//! Launches are numbered along *chains*: each comes after the one before it in its chain. What a launch has behind it is
//! then one number a chain (a vector clock: Mattern 1989), and of what it must wait for, only that is said which nothing
//! else of it has behind it.
use super::device::Address;
use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes that a launch reads or writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Touch {
    pub bytes: Range<Address>,
    pub writes: bool,
}

/// Chains at most: more launches than that are never side by side.
const CHAINS: usize = 16;

/// How many launches of each chain are behind one, itself included.
type Clock = [u32; CHAINS];

/// A launch: its chain, and its clock.
struct Placed {
    chain: usize,
    clock: Clock,
}

/// The last launches that touched some bytes.
#[derive(Clone, Default)]
struct Last {
    end: Address,
    write: Option<u32>,
    reads: Vec<u32>,
}

/// What the launches of a sequence so far have touched.
#[derive(Default)]
pub struct Hazards {
    launches: Vec<Placed>,
    /// The last launch of each chain.
    tails: Vec<u32>,
    /// By where the bytes start; no two overlap.
    memory: BTreeMap<Address, Last>,
}

impl Hazards {
    /// The launches that the next one waits for, which touches these bytes.
    pub fn next(&mut self, touches: &[Touch]) -> Vec<u32> {
        let mut before: Vec<u32> = vec![];
        let number = self.launches.len() as u32;
        for t in touches.iter().filter(|t| !t.bytes.is_empty()) {
            self.split(t.bytes.start);
            self.split(t.bytes.end);
            self.fill(&t.bytes);
            for (_, last) in self.memory.range_mut(t.bytes.clone()) {
                before.extend(last.write);
                match t.writes {
                    true => {
                        before.append(&mut last.reads);
                        last.write = Some(number);
                    }
                    false => last.reads.push(number),
                }
            }
        }
        // Of its own operands, it touches some bytes twice.
        before.retain(|b| *b != number);
        before.sort_unstable();
        before.dedup();
        self.place(self.needed(&before))
    }

    /// Cuts what holds this address in two.
    fn split(&mut self, at: Address) {
        let Some((start, last)) = self.memory.range_mut(..at).next_back() else { return };
        if *start < at && at < last.end {
            let rest = last.clone();
            last.end = at;
            self.memory.insert(at, rest);
        }
    }

    /// Bytes that nobody has touched yet stand for themselves too.
    fn fill(&mut self, bytes: &Range<Address>) {
        let mut at = bytes.start;
        let mut holes = vec![];
        for (start, last) in self.memory.range(bytes.clone()) {
            if at < *start {
                holes.push((at, *start));
            }
            at = last.end;
        }
        if at < bytes.end {
            holes.push((at, bytes.end));
        }
        self.memory.extend(holes.into_iter().map(|(start, end)| (start, Last { end, ..Last::default() })));
    }

    /// True if a launch has another behind it, or is it.
    fn follows(&self, launch: u32, other: u32) -> bool {
        let (l, o) = (&self.launches[launch as usize], &self.launches[other as usize]);
        l.clock[o.chain] >= o.clock[o.chain]
    }

    /// Those that none of the others has behind it.
    fn needed(&self, before: &[u32]) -> Vec<u32> {
        let implied = |b: u32| before.iter().any(|other| *other > b && self.follows(*other, b));
        before.iter().copied().filter(|b| !implied(*b)).collect()
    }

    /// Puts the next launch into a chain, whose last one it then waits for.
    fn place(&mut self, mut before: Vec<u32>) -> Vec<u32> {
        let number = self.launches.len() as u32;
        let ends = |b: &&u32| self.tails[self.launches[**b as usize].chain] == **b;
        let chain = match before.iter().rev().find(ends) {
            Some(b) => self.launches[*b as usize].chain,
            None if self.tails.len() < CHAINS => {
                self.tails.push(number);
                self.tails.len() - 1
            }
            None => {
                // Chains are used up: it waits for the one that ended first.
                let (chain, tail) = self.tails.iter().copied().enumerate().min_by_key(|t| t.1).unwrap_or_default();
                before.push(tail);
                before.sort_unstable();
                before = self.needed(&before);
                chain
            }
        };
        let mut clock = [0; CHAINS];
        for b in &before {
            let other = &self.launches[*b as usize].clock;
            clock.iter_mut().zip(other).for_each(|(c, o)| *c = (*c).max(*o));
        }
        clock[chain] += 1;
        self.tails[chain] = number;
        self.launches.push(Placed { chain, clock });
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: Range<Address>) -> Touch {
        Touch { bytes, writes: false }
    }
    fn write(bytes: Range<Address>) -> Touch {
        Touch { bytes, writes: true }
    }
    fn waits(launches: &[Vec<Touch>]) -> Vec<Vec<u32>> {
        let mut h = Hazards::default();
        launches.iter().map(|l| h.next(l)).collect()
    }

    #[test]
    fn branches_wait_for_their_own_part_and_the_join_for_both() {
        let launches = [
            vec![write(0..8)],
            vec![read(0..8), write(8..16)],
            vec![read(0..8), write(16..24)],
            vec![read(8..16), write(24..32)],
            vec![read(16..24), read(24..32), write(0..8)],
        ];
        assert_eq!(waits(&launches), [vec![], vec![0], vec![0], vec![1], vec![2, 3]]);
    }

    #[test]
    fn a_write_waits_for_readers_and_for_writes_of_a_part() {
        let launches = [
            vec![write(0..100)],
            vec![read(10..20)],
            vec![read(50..60)],
            vec![write(15..18)],
            vec![write(90..95)],
            vec![read(0..100)],
        ];
        assert_eq!(waits(&launches), [vec![], vec![0], vec![0], vec![1], vec![0], vec![3, 4]]);
    }

    #[test]
    fn what_waits_for_nothing_is_side_by_side_as_long_as_there_are_chains() {
        let all: Vec<Vec<Touch>> = (0..40).map(|i| vec![write(i * 8..i * 8 + 8)]).collect();
        let waits = waits(&all);
        assert!(waits[..CHAINS].iter().all(Vec::is_empty) && waits[CHAINS..].iter().all(|w| w.len() == 1));
    }

    fn touch() -> impl Strategy<Value = Touch> {
        (0..40u64, 0..12u64, 0..3).prop_map(|(start, len, kind)| Touch { bytes: start..start + len, writes: kind == 0 })
    }

    fn meet(a: &Touch, b: &Touch) -> bool {
        let both = a.bytes.start.max(b.bytes.start)..a.bytes.end.min(b.bytes.end);
        (a.writes || b.writes) && !both.is_empty()
    }

    proptest! {
        /// Two launches with a conflict are in order, and no wait follows from the others.
        #[test]
        fn every_conflict_is_in_order(launches in prop::collection::vec(prop::collection::vec(touch(), 1..4), 1..60)) {
            let waits = waits(&launches);
            let mut behind: Vec<Vec<bool>> = vec![];
            for (i, (l, w)) in launches.iter().zip(&waits).enumerate() {
                let mut mine = vec![false; launches.len()];
                for b in w.iter().map(|b| *b as usize) {
                    prop_assert!(w.iter().all(|o| !behind[*o as usize][b]), "{i} waits for {b} twice");
                    mine.iter_mut().zip(&behind[b]).for_each(|(x, y)| *x |= y);
                }
                w.iter().for_each(|b| mine[*b as usize] = true);
                for (j, k) in launches[..i].iter().enumerate() {
                    let conflict = l.iter().any(|a| k.iter().any(|b| meet(a, b)));
                    prop_assert!(!conflict || mine[j], "{j} and {i} meet");
                }
                behind.push(mine);
            }
        }
    }
}
