//! Partial results of folds: one for each lane and vector of a loop's tile, brought from shape to shape, and joined pairwise.
use crate::emit::{Bin, Emit};
use crate::eval::{Acc, Fail, Gen, Gives, Inst, Key, Keyed, with};
use lolm_ir::DType;
use lolm_ir::kernel::{Fold, KAxis, KOp, KValue};
use std::collections::BTreeMap;

/// How many elements an iteration takes: some vectors, or one element.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Shape {
    Vectors(usize),
    Single,
}

/// The partial results of the folds of a loop, and their shape.
pub struct Partial<V> {
    pub shape: Shape,
    pub accs: BTreeMap<Key, Acc<V>>,
}

impl<E: Emit> Gen<'_, E> {
    /// Partial results brought into the shape that the next part works in, or fresh ones.
    pub fn partial(
        &mut self,
        x: KAxis,
        folds: &[KValue],
        from: Option<Partial<E::V>>,
        to: Shape,
    ) -> Gives<Partial<E::V>> {
        let mut accs = BTreeMap::new();
        for f in folds {
            if let Some(p) = from.as_ref().filter(|p| p.shape != Shape::Single && to == Shape::Single)
                && self.joins_together(*f)
            {
                self.narrow_all(x, p, *f, &mut accs)?;
                continue;
            }
            for i in self.insts(self.k.value(*f).axes) {
                match &from {
                    None => self.fresh(x, (*f, i), to, &mut accs)?,
                    Some(p) if p.shape == to => accs.extend(self.of(x, p, (*f, i))),
                    Some(p) => {
                        let acc = self.narrow(x, p, (*f, i), to)?;
                        accs.insert((*f, i), acc);
                    }
                }
            }
        }
        Ok(Partial { shape: to, accs })
    }

    /// The partial results of one fold at one instance: several along the lane axis while it is looped over in tiles.
    fn of(&self, x: KAxis, p: &Partial<E::V>, key: Key) -> Keyed<Acc<E::V>> {
        let keys = self.tile_keys(x, p.shape, key);
        keys.into_iter().filter_map(|k| p.accs.get(&k).map(|acc| (k, *acc))).collect()
    }

    fn tile_keys(&self, x: KAxis, shape: Shape, (f, i): Key) -> Vec<Key> {
        match (shape, self.s.slot(x)) {
            (Shape::Vectors(n), Some(slot)) => (0..n as u8).map(|q| (f, with(i, slot, q))).collect(),
            _ => vec![(f, i)],
        }
    }

    fn fresh(&mut self, x: KAxis, key: Key, shape: Shape, accs: &mut BTreeMap<Key, Acc<E::V>>) -> Gives<()> {
        let (f, i) = key;
        let lanes = shape != Shape::Single;
        let first = self.first_index(x, &i)?;
        // Along the lanes, and in a team, the accumulator of a dot is added at the end.
        let later = lanes || self.team_along(x).is_some();
        let mut acc = match later && !matches!(self.k.value(f).op, KOp::ArgMax(_)) {
            true => self.fold_start(f),
            false => self.fold_seed(f, &i, first)?,
        };
        if lanes || self.varies(self.k.value(f).axes) {
            acc = Acc { x: self.e.vary(acc.x), at: acc.at.map(|at| self.e.vary(at)) };
        }
        accs.extend(self.tile_keys(x, shape, key).into_iter().map(|k| (k, acc)));
        Ok(())
    }

    /// The index that an argmax over nothing gives.
    fn first_index(&mut self, x: KAxis, inst: &Inst) -> Gives<E::V> {
        let zero = self.e.i32(0);
        let Some(lo) = self.k.axis(x).lo else { return Ok(zero) };
        let len = self.e.i32(self.k.axis(x).len as i32);
        let lo = self.eval(lo, inst)?;
        let lo = self.e.binary(Bin::Max, DType::I32, lo, zero);
        Ok(self.e.binary(Bin::Min, DType::I32, lo, len))
    }

    /// Joins the vectors of a tile pairwise, and then, for single elements, the lanes.
    fn narrow(&mut self, x: KAxis, p: &Partial<E::V>, key: Key, to: Shape) -> Gives<Acc<E::V>> {
        let mut acc = self.join_vectors(x, p, key)?;
        if to == Shape::Single && p.shape != Shape::Single {
            acc = self.join_lanes(key.0, acc);
            acc = self.with_start(x, key, acc)?;
        }
        Ok(acc)
    }

    fn join_vectors(&mut self, x: KAxis, p: &Partial<E::V>, key: Key) -> Gives<Acc<E::V>> {
        let mut accs: Vec<Acc<E::V>> = self.of(x, p, key).into_iter().map(|a| a.1).collect();
        while accs.len() > 1 {
            let joined = accs.chunks(2).map(|c| if c.len() == 2 { self.fold_join(key.0, c[0], c[1]) } else { c[0] });
            accs = joined.collect();
        }
        accs.first().copied().ok_or_else(|| Fail::Bug(format!("the fold %{} has no partial", key.0.0)))
    }

    /// The accumulator of a dot, where lanes alone have summed so far.
    fn with_start(&mut self, x: KAxis, key: Key, acc: Acc<E::V>) -> Gives<Acc<E::V>> {
        match (&self.k.value(key.0).op, self.k.value(key.0).args.get(2)) {
            (KOp::Dot(_), Some(c)) if self.team_along(x).is_none() => {
                let c = self.eval(*c, &key.1)?;
                Ok(self.fold_join(key.0, Acc { x: c, at: None }, acc))
            }
            _ => Ok(acc),
        }
    }

    /// Several sums, of lanes that can exchange values: these are joined together.
    fn joins_together(&self, f: KValue) -> bool {
        let sum = matches!(self.k.value(f).op, KOp::Reduce(Fold::Sum, _) | KOp::Dot(_));
        sum && self.e.lanes_exchange() && self.insts(self.k.value(f).axes).len() > 1
    }

    /// Joins vectors and lanes of all instances of a sum.
    fn narrow_all(&mut self, x: KAxis, p: &Partial<E::V>, f: KValue, accs: &mut BTreeMap<Key, Acc<E::V>>) -> Gives<()> {
        let insts = self.insts(self.k.value(f).axes);
        let mut sums = insts.iter().map(|i| self.join_vectors(x, p, (f, *i))).collect::<Gives<Vec<_>>>()?;
        let mut rest = &mut sums[..];
        while !rest.is_empty() {
            let (some, others) = rest.split_at_mut(1 << rest.len().min(self.e.lanes()).ilog2());
            self.join_lanes_of(f, some);
            rest = others;
        }
        for (i, acc) in insts.into_iter().zip(sums) {
            let acc = self.with_start(x, (f, i), acc)?;
            accs.insert((f, i), acc);
        }
        Ok(())
    }

    /// Sums the lanes of a power of two of values in the order of `join_lanes`. At each distance a lane gives half of its
    /// values away and goes on with the other half, until each has the sum of one; then all get all of them.
    fn join_lanes_of(&mut self, f: KValue, sums: &mut [Acc<E::V>]) {
        let (lanes, count) = (self.e.lanes(), sums.len());
        let mut left = sums.to_vec();
        let mut distance = lanes / 2;
        while distance > 0 {
            let half = left.len() / 2;
            if half > 0 {
                let upper = self.in_upper_half(distance);
                for j in 0..half {
                    let (a, b) = (left[j].x, left[j + half].x);
                    let (give, keep) = (self.e.select(upper, a, b), self.e.select(upper, b, a));
                    left[j].x = give;
                    left[j + half].x = keep;
                }
                let keep = left.split_off(half);
                for (give, keep) in left.iter_mut().zip(keep) {
                    if let Some(got) = self.swapped(*give, distance) {
                        *give = self.fold_join(f, keep, got);
                    }
                }
            } else if let Some(got) = self.swapped(left[0], distance) {
                left[0] = self.fold_join(f, left[0], got);
            }
            distance /= 2;
        }
        for (n, sum) in sums.iter_mut().enumerate() {
            sum.x = self.e.extract(left[0].x, n * (lanes / count));
        }
    }

    /// The lanes whose number has the bit of this distance.
    fn in_upper_half(&mut self, distance: usize) -> E::V {
        let (lane, bit) = (self.e.iota(), self.e.i32(distance as i32));
        let bits = self.e.binary(Bin::And, DType::I32, lane, bit);
        self.e.binary(Bin::Eq, DType::I32, bits, bit)
    }

    /// (0 + 2) + (1 + 3) for four lanes: halves are joined until one is left. Lanes that can exchange values do so in the
    /// same order, all of them at once.
    fn join_lanes(&mut self, f: KValue, acc: Acc<E::V>) -> Acc<E::V> {
        let mut distance = self.e.lanes() / 2;
        let mut all = acc;
        while distance > 0
            && let Some(other) = self.swapped(all, distance)
        {
            all = self.fold_join(f, all, other);
            distance /= 2;
        }
        if distance == 0 {
            return all;
        }
        let mut lanes: Vec<Acc<E::V>> = (0..self.e.lanes())
            .map(|l| Acc { x: self.e.extract(acc.x, l), at: acc.at.map(|at| self.e.extract(at, l)) })
            .collect();
        while lanes.len() > 1 {
            let half = lanes.len() / 2;
            lanes = (0..half).map(|l| self.fold_join(f, lanes[l], lanes[l + half])).collect();
        }
        lanes[0]
    }

    fn swapped(&mut self, acc: Acc<E::V>, distance: usize) -> Option<Acc<E::V>> {
        let x = self.e.swap(acc.x, distance)?;
        let at = match acc.at {
            Some(at) => Some(self.e.swap(at, distance)?),
            None => None,
        };
        Some(Acc { x, at })
    }
}
