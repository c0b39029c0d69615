//! Loops along the lanes of a machine that can mask them: whole tiles, and one in which the lanes beyond the end rest.
use crate::emit::{Bin, Emit};
use crate::eval::{Gen, Tile};
use crate::nest::{Part, Tail};
use crate::partial::Shape;
use lolm_ir::DType;

impl<E: Emit> Gen<'_, E> {
    /// All of a tile: as many whole steps as fit, and the rest.
    pub fn whole_masked(&mut self, parts: &mut Vec<Part<E::C>>, tile: Tile<E::C>, masked: bool) {
        let Tile { lo, size, multiple } = tile;
        let all = Shape::Vectors(self.s.vectors as usize);
        let step = self.step(all);
        let range = self.e.range(size);
        let full = match range {
            _ if multiple % step == 0 => size,
            Some((_, most)) if most <= step => self.e.coord(0),
            _ => {
                let zero = self.e.coord(0);
                self.whole_steps(zero, size, step)
            }
        };
        let (middle, hi) = (self.e.coord_add(lo, full), self.e.coord_add(lo, size));
        let count = self.e.known(full).map(|n| n / step);
        parts.push(Part { lo, hi: middle, shape: all, accs: all, masked, tail: Tail::None, count });
        if multiple % step != 0 {
            // Vectors that no lane needs are left out where that is known.
            let most = range.map_or(step, |(_, most)| most.min(step));
            let rest = self.e.known(size).map_or(most, |n| n % step);
            let shape = Shape::Vectors((rest as usize).div_ceil(self.e.lanes()));
            let count = match (self.e.known(size), range) {
                (Some(n), _) => Some((n % step != 0) as i64),
                (None, Some((least, most))) if least > 0 && most <= step => Some(1),
                _ => None,
            };
            let tail = self.e.known(size).map_or(Tail::Unknown, |n| Tail::After(n % step));
            parts.push(Part { lo: middle, hi, shape, accs: all, masked, tail, count });
        }
        parts.retain(|p| p.count != Some(0));
        if let [only] = &mut parts[..] {
            only.accs = only.shape;
        }
    }

    /// An axis cut to from..to. Steps stay where they are, so the first and last may be partial.
    pub fn clipped_masked(
        &mut self,
        parts: &mut Vec<Part<E::C>>,
        size: E::C,
        multiple: i64,
        (from, to): (E::C, E::C),
        has_lo: bool,
    ) {
        let shape = Shape::Vectors(self.s.vectors as usize);
        let step = self.step(shape);
        let zero = self.e.coord(0);
        let mut push = |lo: E::C, hi: E::C, masked: bool, tail: Tail| {
            parts.push(Part { lo, hi, shape, accs: shape, masked, tail, count: None });
        };
        let to = self.e.coord_min(size, to);
        let to = self.e.coord_max(zero, to);
        // The range itself masks what lies beyond its end, but for what lies beyond the end of the axis.
        let tail = if multiple % step != 0 { Tail::Unknown } else { Tail::None };
        if has_lo {
            let start = self.whole_steps(zero, from, step);
            return push(start, to, true, tail);
        }
        let full = self.whole_steps(zero, to, step);
        push(zero, full, false, Tail::None);
        push(full, to, true, tail);
    }

    /// The lanes whose coordinate, so far from the first, lies before the end; nothing if all of them do.
    pub fn before(&mut self, tail: Tail, coord: E::C, offset: i64, end: E::C) -> Option<E::V> {
        let lanes = self.e.lanes() as i64;
        let left = match tail {
            Tail::None => return None,
            Tail::After(n) if n - offset >= lanes => return None,
            Tail::After(n) => self.e.coord(n - offset),
            Tail::Unknown => {
                let minus = self.e.coord_mul(coord, -1);
                let left = self.e.coord_add(end, minus);
                let offset = self.e.coord(-offset);
                self.e.coord_add(left, offset)
            }
        };
        let (lane, left) = (self.e.iota(), self.e.index(left));
        Some(self.e.binary(Bin::Lt, DType::I32, lane, left))
    }
}
