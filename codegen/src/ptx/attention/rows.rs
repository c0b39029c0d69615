//! The rows of a lane: where they stand, and which keys they see.
use super::plan::ROWS;
use super::range::{Bounds, Range};
use super::{Cx, Fragments};
use crate::emit::{Bin, Emit};
use crate::eval::{At, Gives, SLOTS};
use crate::ptx::coord::{self, C};
use crate::ptx::inst::*;
use crate::ptx::simt::V;
use lolm_ir::DType;
use lolm_ir::kernel::{KAxes, KAxis, KOp, KValue};

/// One row of this lane.
pub struct Row {
    pub coords: Vec<(KAxis, C)>,
    /// Whether it exists; nothing if it always does. The coordinates are those of a row that does.
    pub exists: Option<Reg>,
    /// What does not depend on the key.
    values: Vec<(KValue, V)>,
    /// The bounds of the keys that it sees.
    pub bounds: Vec<Reg>,
}

impl Cx<'_> {
    pub fn fix(&mut self, a: KAxis, coord: C) {
        self.fix_from(a, coord, 0);
    }
    /// So many elements after this coordinate.
    pub fn fix_from(&mut self, a: KAxis, coord: C, offset: i64) {
        let depth = self.g.depth() - 1;
        let at = At { coord, offsets: vec![offset], vector: false, masked: false, tail: vec![None], depth };
        self.g.at[a.0 as usize] = Some(at);
    }
    /// A coordinate along several axes as one along each.
    pub fn digits(&mut self, axes: &[KAxis], mut c: C) -> Vec<(KAxis, C)> {
        let mut out = vec![];
        for (i, a) in axes.iter().enumerate().rev() {
            let len = self.g.k.axis(*a).len as i64;
            let (outer, inner) = if i == 0 { (c, c) } else { coord::divmod(&mut self.g.e.b, c, len) };
            out.push((*a, inner));
            c = outer;
        }
        out
    }
    /// Computes those of the values that are known with these axes fixed.
    pub fn hoist(&mut self, values: &[KValue], axes: KAxes) -> Gives<Vec<(KValue, V)>> {
        let mut out = vec![];
        for v in values {
            let value = self.g.k.value(*v);
            if axes.contains(value.axes) && !value.is_sink() && !matches!(value.op, KOp::Const(_)) {
                out.push((*v, self.g.eval(*v, &[0; SLOTS])?));
            }
        }
        Ok(out)
    }
    /// The coordinates are those of another row or key from here on, so that nobody takes these for his.
    pub fn unfix(&mut self, axes: &[KAxis]) {
        axes.iter().for_each(|a| self.g.at[a.0 as usize] = None);
    }

    /// The lines of this lane in the tile of the block, whose first line this is: the number of each, or of the last one
    /// there is, and whether it exists; nothing if it always does.
    pub fn numbers(&mut self, first: C) -> Vec<(C, Option<Reg>)> {
        let of_warp = coord::mul(&mut self.g.e.b, self.warp, ROWS * self.p.fragments);
        let first = coord::add(&mut self.g.e.b, first, of_warp);
        let first = coord::add(&mut self.g.e.b, first, self.group);
        let count = 2 * self.p.fragments;
        let number = |i: i64| {
            let number = coord::add(&mut self.g.e.b, first, C::Const(i * 8));
            let exists = self.below(number, self.p.lines);
            (coord::either(&mut self.g.e.b, number, C::Const(self.p.lines - 1), BinOp::Min), exists)
        };
        (0..count).map(number).collect()
    }

    /// The lines of this lane where they are rows.
    pub fn rows(&mut self, first: C, b: &Bounds) -> Gives<Vec<Row>> {
        let needed = self.s.masks(self.g.k);
        self.numbers(first).into_iter().map(|(number, exists)| self.row(number, exists, &needed, b)).collect()
    }

    fn row(&mut self, number: C, exists: Option<Reg>, needed: &[KValue], b: &Bounds) -> Gives<Row> {
        let axes = self.s.rows.clone();
        let coords = self.digits(&axes, number);
        self.g.open_scope(axes.iter().copied().collect());
        coords.iter().for_each(|(a, c)| self.fix(*a, *c));
        let values = self.hoist(needed, self.s.lines())?;
        let mut bounds = vec![];
        for bound in &b.all {
            let x = self.g.eval(bound.value, &[0; SLOTS])?;
            bounds.push(self.g.e.reg(x));
        }
        self.g.scopes.pop();
        Ok(Row { coords, exists, values, bounds })
    }

    /// Enters a scope in which the row is fixed.
    pub fn enter(&mut self, row: &Row, hides: KAxes) {
        self.g.open_scope(hides);
        row.coords.iter().for_each(|(a, c)| self.fix(*a, *c));
        row.values.iter().for_each(|(v, x)| self.g.set(*v, &[0; SLOTS], *x));
    }

    /// A value at a row and a key.
    pub fn at_key(&mut self, v: KValue, row: &Row, key: C) -> Gives<V> {
        let keys = self.s.keys;
        self.enter(row, self.s.lines().with(keys));
        self.fix(keys, key);
        let x = self.g.eval(v, &[0; SLOTS]);
        self.g.scopes.pop();
        x
    }

    /// Hides scores of keys that a row does not see, or that do not exist. The tile begins with this key.
    pub fn hide(&mut self, s: &Fragments, rows: &[Row], first: C, range: &Range) -> Gives<()> {
        let tail = self.p.walked % self.p.tile != 0;
        if self.s.visible.is_none() && !tail {
            return Ok(());
        }
        let skip = self.g.e.b.label();
        if range.exact {
            let some = self.hides_some(first, range);
            self.g.e.b.bra(skip, Some((some, false)));
        }
        self.g.e.b.open();
        let hidden = Src::F32(f32::NEG_INFINITY.to_bits());
        for (f, n, e) in self.elements(s) {
            let key = self.column(first, n, e % 2);
            let exists = if tail { self.below(key, self.p.walked).map(V::Reg) } else { None };
            let sees = match self.s.visible {
                Some(v) => Some(self.at_key(v, &rows[f * 2 + e / 2], key)?),
                None => None,
            };
            let Some(seen) = self.g.and(sees, exists) else { continue };
            let p = self.g.e.reg(seen);
            let d = s[f][n][e];
            self.g.e.b.op(Op::Selp { ty: Type::F32, d, a: d.into(), b: hidden, p });
        }
        self.g.e.b.close();
        self.g.e.b.place(skip);
        Ok(())
    }

    /// What the weights of a tile are multiplied by before they meet the values.
    pub fn keep(&mut self, weights: &mut Fragments, rows: &[Row], first: C) -> Gives<()> {
        let Some(kept) = self.s.kept else { return Ok(()) };
        for (f, n, e) in self.elements(weights) {
            let key = self.column(first, n, e % 2);
            let by = self.at_key(kept, &rows[f * 2 + e / 2], key)?;
            let w = self.g.e.binary(Bin::Mul, DType::F32, V::Reg(weights[f][n][e]), by);
            weights[f][n][e] = self.g.e.reg(w);
        }
        Ok(())
    }

    pub fn elements(&self, s: &Fragments) -> Vec<(usize, usize, usize)> {
        let n = s[0].len();
        (0..s.len()).flat_map(|f| (0..n).flat_map(move |n| (0..4).map(move |e| (f, n, e)))).collect()
    }
    /// A lane's column, of those that begin here.
    pub fn column(&mut self, first: C, n: usize, e: usize) -> C {
        let b = &mut self.g.e.b;
        let column = coord::mul(b, self.quad, 2);
        let column = coord::add(b, first, column);
        coord::add(b, column, C::Const((n * 8 + e) as i64))
    }
}
