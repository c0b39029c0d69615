//! The stream generator: a loop nest for any kernel.
//!
//! It is pulled from the stores. At each level, with some axes fixed, it asks what the remaining stores need: folds whose
//! result is fixed here become loops here, in as many *phases* as they depend on each other; folds of one phase along one
//! axis share a loop with each other and with the stores that run along it. Before a loop is opened, everything that it
//! uses and that does not vary along it is computed. A scan's state is carried by the loop along its axis.
use crate::emit::Emit;
use crate::eval::{At, Fail, Gen, Gives, Tile};
use crate::level::Level;
use crate::schedule::Schedule;
use crate::sink::Sink;
use lolm_ir::kernel::{KAxes, KAxis, KOp, KValue, Kernel};

/// Emits the whole kernel.
pub fn stream<E: Emit>(k: &Kernel, s: &Schedule, e: &mut E) -> Gives<()> {
    let mut g = Gen::new(k, s, e);
    g.open_scope(KAxes::EMPTY);
    let (unit, end) = g.e.begin_units();
    g.open_scope(KAxes::EMPTY);
    let done = g.fix_units(unit, end);
    g.fix_unrolled();
    let sinks: Vec<Sink> = k.ids().filter(|v| k.value(*v).is_sink()).map(Sink::Write).collect();
    g.prepare(&[], &sinks)?;
    g.leaf(&sinks)?;
    g.e.end_units(done);
    Ok(())
}

/// A loop to be opened, and what it is for.
struct Group {
    axis: KAxis,
    folds: Vec<KValue>,
    sinks: Vec<Sink>,
}

impl<E: Emit> Gen<'_, E> {
    /// Cuts the number of the unit into coordinates and tiles, and gives the number of units that are done together: where
    /// the lanes run along the last unit axis, all up to its end.
    fn fix_units(&mut self, unit: E::C, end: E::C) -> E::C {
        let mut rest = unit;
        let mut done = self.e.coord(1);
        let dims = self.s.unit_dims(self.k);
        for (n, (a, tile)) in self.s.units.iter().enumerate().rev() {
            let count = dims[n] as i64;
            let mut number = rest;
            if n > 0 {
                (rest, number) = self.e.coord_divmod(rest, count);
            }
            if self.s.runs() && n == dims.len() - 1 {
                let tile = self.run(number, count, unit, end);
                done = tile.size;
                self.tiles[a.0 as usize] = Some(tile);
            } else if *tile == 1 {
                let depth = self.depth() - 1;
                let at = At { coord: number, offsets: vec![0], vector: false, masked: false, tail: vec![], depth };
                self.at[a.0 as usize] = Some(at);
            } else if count > 1 {
                self.tiles[a.0 as usize] = Some(self.tile(number, self.k.axis(*a).len as i64, *tile as i64));
            }
        }
        done
    }

    /// The units from here to the end of the axis or of this call's share.
    fn run(&mut self, number: E::C, count: i64, unit: E::C, end: E::C) -> Tile<E::C> {
        if let Some(share) = self.e.whole_share() {
            return Tile { lo: number, size: self.e.coord(share), multiple: share };
        }
        let (minus_number, minus_unit) = (self.e.coord_mul(number, -1), self.e.coord_mul(unit, -1));
        let count = self.e.coord(count);
        let (row, share) = (self.e.coord_add(count, minus_number), self.e.coord_add(end, minus_unit));
        Tile { lo: number, size: self.e.coord_min(row, share), multiple: 1 }
    }

    /// Part `number` of an axis that is cut in tiles; the last one may be shorter.
    pub fn tile(&mut self, number: E::C, len: i64, tile: i64) -> Tile<E::C> {
        let lo = self.e.coord_mul(number, tile);
        let mut size = self.e.coord(tile);
        if len % tile != 0 {
            let minus = self.e.coord_mul(lo, -1);
            let end = self.e.coord(len);
            let left = self.e.coord_add(end, minus);
            size = self.e.coord_min(size, left);
        }
        Tile { lo, size, multiple: gcd(len, tile) }
    }

    fn fix_unrolled(&mut self) {
        for a in &self.s.unroll {
            let range = self.k.axis(*a);
            let at = At {
                coord: self.e.coord(0),
                offsets: (0..range.len as i64).collect(),
                vector: false,
                masked: range.lo.is_some() || range.hi.is_some(),
                tail: vec![],
                depth: 0,
            };
            self.at[a.0 as usize] = Some(at);
        }
    }

    /// Emits every loop that these values and sinks need, so that the values can be computed and the sinks whose axes are
    /// fixed can be performed here; the other sinks are done.
    pub fn prepare(&mut self, values: &[KValue], sinks: &[Sink]) -> Gives<()> {
        let fixed = self.fixed();
        let deep: Vec<Sink> = sinks.iter().copied().filter(|s| !fixed.contains(self.sink_axes(*s))).collect();
        let level = self.level(values, sinks, deep);
        for p in 0..level.phases() {
            let folds = level.folds_of(p);
            let sinks = level.sinks_of(p);
            if folds.is_empty() && sinks.is_empty() {
                continue;
            }
            self.hoist(&folds, &sinks)?;
            for g in self.groups(&level, folds, sinks)? {
                self.open(g.axis, &g.folds, &g.sinks)?;
            }
        }
        Ok(())
    }

    /// Computes what the loops to come use and do not change.
    fn hoist(&mut self, folds: &[KValue], sinks: &[Sink]) -> Gives<()> {
        let fixed = self.fixed();
        for v in self.slice(folds, sinks) {
            let value = self.k.value(v);
            let constant = matches!(value.op, KOp::Const(_));
            if fixed.contains(value.axes) && !constant && !self.needs_loop(v) {
                for i in self.insts(value.axes) {
                    self.eval(v, &i)?;
                }
            }
            self.touch(v)?;
        }
        for s in sinks {
            if let Sink::Write(v) = s {
                self.touch(*v)?;
            }
        }
        Ok(())
    }

    /// Which loops to open for the folds and sinks of one phase, in an order in which nothing is overwritten too early.
    fn groups(&self, level: &Level, folds: Vec<KValue>, mut sinks: Vec<Sink>) -> Gives<Vec<Group>> {
        let mut groups: Vec<Group> = vec![];
        for f in folds {
            let axis = self.k.value(f).op.folds().ok_or_else(|| Fail::Bug(format!("%{} is no fold", f.0)))?;
            match groups.iter_mut().find(|g| g.axis == axis) {
                Some(g) => g.folds.push(f),
                None => groups.push(Group { axis, folds: vec![f], sinks: vec![] }),
            }
        }
        while !sinks.is_empty() {
            let (axis, mine) = self.next_loop(level, &sinks)?;
            sinks.retain(|s| !mine.contains(s));
            // A fold runs over all of an axis, a store over the unit's part of it.
            let shares = self.tiles[axis.0 as usize].is_none();
            match groups.iter_mut().find(|g| g.axis == axis && shares) {
                Some(g) => g.sinks.extend(mine),
                None => groups.push(Group { axis, folds: vec![], sinks: mine }),
            }
        }
        groups.sort_by_key(|g| g.sinks.iter().any(|s| self.overwrites(*s).is_some()));
        Ok(groups)
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
