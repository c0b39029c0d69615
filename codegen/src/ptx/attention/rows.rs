//! The rows of a lane: where they stand, which keys they see, and what is stored of them.
use super::plan::{ROWS, WARPS};
use super::shape::cone;
use super::{Cx, Fragments};
use crate::emit::{Bin, Emit};
use crate::eval::{At, Gives, SLOTS};
use crate::place::Base;
use crate::ptx::coord::{self, C};
use crate::ptx::inst::*;
use crate::ptx::simt::V;
use lolm_ir::kernel::{KAxes, KAxis, KOp, KValue, Kernel};
use lolm_ir::op::Binary;
use lolm_ir::{DType, Scalar};

/// One row of this lane.
pub struct Row {
    pub coords: Vec<(KAxis, C)>,
    /// Whether it exists; nothing if it always does. The coordinates are those of a row that does.
    pub exists: Option<Reg>,
    /// What does not depend on the key.
    values: Vec<(KValue, V)>,
    /// The bounds of the keys that it sees.
    bounds: Vec<Reg>,
    /// The greatest score so far, and the sum of exponentials relative to it.
    pub max: Reg,
    pub sum: Reg,
}

/// A bound of the keys that a row sees: none after the value plus a number, or none before it.
pub struct Bound {
    value: KValue,
    add: i64,
    is_last: bool,
}

/// Which keys a row sees, as far as bounds say it.
pub struct Bounds {
    all: Vec<Bound>,
    /// Nothing else hides a key.
    exact: bool,
}

/// The keys of a block.
pub struct Range {
    pub lo: C,
    pub hi: C,
    /// All rows see these keys, the first and the last of them, as far as bounds say it.
    first: Option<Reg>,
    last: Option<Reg>,
    exact: bool,
}

/// The bounds that a condition says about an axis.
pub fn bounds(k: &Kernel, visible: Option<KValue>, keys: KAxis) -> Bounds {
    let mut out = Bounds { all: vec![], exact: true };
    let mut open: Vec<KValue> = visible.into_iter().collect();
    let index = |v: KValue| k.value(v).op == KOp::Index(keys);
    let free = |v: KValue| !k.value(v).axes.has(keys);
    while let Some(v) = open.pop() {
        let value = k.value(v);
        let bound = match (&value.op, value.args.as_slice()) {
            (KOp::Binary(Binary::And), args) => {
                open.extend(args);
                continue;
            }
            (KOp::Binary(Binary::Le), [a, b]) if index(*a) && free(*b) => Some((*b, 0, true)),
            (KOp::Binary(Binary::Lt), [a, b]) if index(*a) && free(*b) => Some((*b, -1, true)),
            (KOp::Binary(Binary::Le), [a, b]) if free(*a) && index(*b) => Some((*a, 0, false)),
            (KOp::Binary(Binary::Lt), [a, b]) if free(*a) && index(*b) => Some((*a, 1, false)),
            (KOp::Binary(Binary::Le), [age, now]) if is_age(k, *age, *now, keys) => {
                // In the first round of a ring nothing was written beyond the position.
                out.exact = false;
                Some((*now, 0, true))
            }
            _ => None,
        };
        match bound {
            Some((value, add, is_last)) => out.all.push(Bound { value, add, is_last }),
            None => out.exact = false,
        }
    }
    out
}

/// `(now - key) mod keys`.
fn is_age(k: &Kernel, age: KValue, now: KValue, keys: KAxis) -> bool {
    let value = k.value(age);
    let (KOp::Binary(Binary::Rem), [past, slots]) = (&value.op, value.args.as_slice()) else { return false };
    let past = k.value(*past);
    let whole = k.value(*slots).op == KOp::Const(Scalar::I32(k.axis(keys).len as i32));
    let (KOp::Binary(Binary::Sub), [a, b]) = (&past.op, past.args.as_slice()) else { return false };
    whole && *a == now && k.value(*b).op == KOp::Index(keys)
}

impl Cx<'_> {
    pub fn fix(&mut self, a: KAxis, coord: C) {
        let depth = self.g.depth() - 1;
        let at = At { coord, offsets: vec![0], vector: false, masked: false, tail: vec![None], depth };
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
    fn lines(&self) -> KAxes {
        self.s.batch.iter().chain(&self.s.rows).copied().collect()
    }

    /// The rows of this lane in the tile of the block, whose first row this is.
    pub fn rows(&mut self, first: C, b: &Bounds) -> Gives<Vec<Row>> {
        let of_warp = coord::mul(&mut self.g.e.b, self.warp, ROWS * self.p.fragments);
        let first = coord::add(&mut self.g.e.b, first, of_warp);
        let first = coord::add(&mut self.g.e.b, first, self.group);
        let roots: Vec<KValue> = self.s.visible.into_iter().chain(self.s.kept).collect();
        let needed = cone(self.g.k, &roots, &[]);
        (0..2 * self.p.fragments).map(|i| self.row(first, i * 8, &needed, b)).collect()
    }

    fn row(&mut self, first: C, offset: i64, needed: &[KValue], b: &Bounds) -> Gives<Row> {
        let count = self.p.rows;
        let number = coord::add(&mut self.g.e.b, first, C::Const(offset));
        let exists = match number.range() {
            Some((_, hi)) if hi < count => None,
            _ => {
                let x = coord::int(&mut self.g.e.b, number);
                Some(self.g.e.b.setp(Cmp::Lt, Type::S32, x, Src::Int(count)))
            }
        };
        let number = coord::either(&mut self.g.e.b, number, C::Const(count - 1), BinOp::Min);
        let axes = self.s.rows.clone();
        let coords = self.digits(&axes, number);
        self.g.open_scope(axes.iter().copied().collect());
        coords.iter().for_each(|(a, c)| self.fix(*a, *c));
        let values = self.hoist(needed, self.lines())?;
        let mut bounds = vec![];
        for bound in &b.all {
            let x = self.g.eval(bound.value, &[0; SLOTS])?;
            bounds.push(self.g.e.reg(x));
        }
        self.g.scopes.pop();
        let start = f32::NEG_INFINITY.to_bits();
        let max = self.g.e.b.variable(Type::F32, Src::F32(start));
        let sum = self.g.e.b.variable(Type::F32, Src::F32(0));
        Ok(Row { coords, exists, values, bounds, max, sum })
    }

    /// Enters a scope in which the row is fixed.
    fn enter(&mut self, row: &Row, hides: KAxes) {
        self.g.open_scope(hides);
        row.coords.iter().for_each(|(a, c)| self.fix(*a, *c));
        row.values.iter().for_each(|(v, x)| self.g.set(*v, &[0; SLOTS], *x));
    }

    /// A value at a row and a key.
    pub fn at_key(&mut self, v: KValue, row: &Row, key: C) -> Gives<V> {
        let keys = self.s.keys;
        self.enter(row, self.lines().with(keys));
        self.fix(keys, key);
        let x = self.g.eval(v, &[0; SLOTS]);
        self.g.scopes.pop();
        x
    }

    /// The keys that some row of the block sees, and those that all see. All threads call this; where the values of a tile
    /// will lie, the warps tell each other what their rows see.
    pub fn range(&mut self, rows: &[Row], bounds: &Bounds) -> Range {
        let keys = self.p.keys;
        let mut out = Range { lo: C::Const(0), hi: C::Const(keys), first: None, last: None, exact: bounds.exact };
        if bounds.all.is_empty() {
            return out;
        }
        let of_warp: Vec<[Reg; 2]> = (0..bounds.all.len()).map(|i| self.of_warp(rows, i)).collect();
        let of_block = self.of_block(&of_warp);
        for (bound, ends) in bounds.all.iter().zip(of_block) {
            // Far outside of the keys they are clear of where their numbers end.
            let [min, max] = ends.map(|x| {
                let x = self.int(BinOp::Max, x, Src::Int(-1));
                let x = self.int(BinOp::Min, x, Src::Int(keys));
                self.int(BinOp::Add, x, Src::Int(bound.add))
            });
            if bound.is_last {
                let end = self.int(BinOp::Add, max, Src::Int(1));
                out.hi = self.nearer(BinOp::Min, end, out.hi);
                out.last = Some(out.last.map_or(min, |l| self.int(BinOp::Min, l, min.into())));
            } else {
                out.lo = self.nearer(BinOp::Max, min, out.lo);
                out.first = Some(out.first.map_or(max, |f| self.int(BinOp::Max, f, max.into())));
            }
        }
        if let C::Int { reg, hi, .. } = out.lo {
            let reg = self.g.e.b.binary(BinOp::And, Type::B32, reg, Src::Int(-self.p.tile));
            out.lo = C::Int { reg, lo: 0, hi };
        }
        out
    }

    fn int(&mut self, op: BinOp, a: Reg, b: Src) -> Reg {
        self.g.e.b.binary(op, Type::S32, a, b)
    }
    /// A bound within the keys.
    fn nearer(&mut self, op: BinOp, x: Reg, before: C) -> C {
        let before = coord::int(&mut self.g.e.b, before);
        let x = self.int(op, x, before);
        let x = self.int(BinOp::Max, x, Src::Int(0));
        let reg = self.int(BinOp::Min, x, Src::Int(self.p.keys));
        C::Int { reg, lo: 0, hi: self.p.keys }
    }

    /// The least and the greatest of the bound number i among the warp's rows.
    fn of_warp(&mut self, rows: &[Row], i: usize) -> [Reg; 2] {
        [BinOp::Min, BinOp::Max].map(|op| {
            let mut x = rows[0].bounds[i];
            for r in &rows[1..] {
                x = self.int(op, x, r.bounds[i].into());
            }
            for distance in [4, 8, 16] {
                let other = self.g.e.b.shfl(Shuffle::Bfly, x, Src::Int(distance));
                x = self.int(op, x, other.into());
            }
            x
        })
    }

    fn of_block(&mut self, of_warp: &[[Reg; 2]]) -> Vec<[Reg; 2]> {
        let warp = coord::mul(&mut self.g.e.b, self.warp, 4);
        let mine = self.place(self.p.v_at, C::Const(0), 0, warp);
        let first = self.g.e.first_lane();
        for (i, a) in of_warp.iter().flatten().enumerate() {
            let at = Address { base: mine, offset: i as i32 * WARPS as i32 * 4 };
            self.g.e.b.guarded(Some((first, true)), Op::St { space: Space::Shared, ty: Type::B32, a: *a, at });
        }
        self.g.e.b.op(Op::SyncBlock);
        let base = self.place(self.p.v_at, C::Const(0), 0, C::Const(0));
        let mut at = 0;
        let mut next = |cx: &mut Self, op: BinOp| {
            let mut all: Option<Reg> = None;
            for _ in 0..WARPS {
                let d = cx.g.e.b.reg(Class::B32);
                cx.g.e.b.op(Op::Ld { space: Space::Shared, ty: Type::B32, d, at: Address { base, offset: at } });
                all = Some(all.map_or(d, |x| cx.int(op, x, d.into())));
                at += 4;
            }
            all.unwrap_or(base)
        };
        of_warp.iter().map(|_| [next(self, BinOp::Min), next(self, BinOp::Max)]).collect()
    }

    /// Hides scores of keys that a row does not see, or that do not exist. The tile begins with this key.
    pub fn hide(&mut self, s: &Fragments, rows: &[Row], first: C, range: &Range) -> Gives<()> {
        let tail = self.p.keys % self.p.tile != 0;
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
            let key = self.key(first, n, e % 2);
            let exists = if tail { self.below(key, self.p.keys).map(V::Reg) } else { None };
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

    /// Whether some row does not see some key of the tile.
    fn hides_some(&mut self, first: C, range: &Range) -> Reg {
        let (tile, keys) = (self.p.tile, self.p.keys);
        let end = coord::add(&mut self.g.e.b, first, C::Const(tile));
        let b = &mut self.g.e.b;
        let (first, end) = (coord::int(b, first), coord::int(b, end));
        let mut some = b.setp(Cmp::Gt, Type::S32, end, Src::Int(keys));
        if let Some(last) = range.last {
            let after = b.binary(BinOp::Add, Type::S32, last, Src::Int(1));
            let p = b.setp(Cmp::Gt, Type::S32, end, after);
            some = b.binary(BinOp::Or, Type::Pred, some, p);
        }
        if let Some(start) = range.first {
            let p = b.setp(Cmp::Lt, Type::S32, first, start);
            some = b.binary(BinOp::Or, Type::Pred, some, p);
        }
        some
    }

    /// What the weights of a tile are multiplied by before they meet the values.
    pub fn keep(&mut self, weights: &mut Fragments, rows: &[Row], first: C) -> Gives<()> {
        let Some(kept) = self.s.kept else { return Ok(()) };
        for (f, n, e) in self.elements(weights) {
            let key = self.key(first, n, e % 2);
            let by = self.at_key(kept, &rows[f * 2 + e / 2], key)?;
            let w = self.g.e.binary(Bin::Mul, DType::F32, V::Reg(weights[f][n][e]), by);
            weights[f][n][e] = self.g.e.reg(w);
        }
        Ok(())
    }

    fn elements(&self, s: &Fragments) -> Vec<(usize, usize, usize)> {
        let n = s[0].len();
        (0..s.len()).flat_map(|f| (0..n).flat_map(move |n| (0..4).map(move |e| (f, n, e)))).collect()
    }
    /// The key of a lane's column.
    fn key(&mut self, first: C, n: usize, e: usize) -> C {
        let b = &mut self.g.e.b;
        let column = coord::mul(b, self.quad, 2);
        let column = coord::add(b, first, column);
        coord::add(b, column, C::Const((n * 8 + e) as i64))
    }

    /// Stores what a row gives: its results are these, still to be divided by the sum.
    pub fn finish(&mut self, row: &Row, results: &[[Reg; 2]]) -> Gives<()> {
        let lines = self.lines();
        self.enter(row, lines);
        let (max, sum) = (self.finite(row.max), self.total(row.sum));
        self.g.set(self.s.max, &[0; SLOTS], max);
        self.g.set(self.s.sum, &[0; SLOTS], sum);
        let quad = coord::int(&mut self.g.e.b, self.quad);
        let first = self.g.e.b.setp(Cmp::Eq, Type::S32, quad, Src::Int(0));
        let exists = row.exists.map(V::Reg);
        self.g.only = self.g.and(exists, Some(V::Reg(first)));
        for s in self.s.lines.clone() {
            self.store(s)?;
        }
        let denominator = self.g.eval(self.s.denominator, &[0; SLOTS])?;
        let inverse = self.g.e.binary(Bin::Div, DType::F32, V::F32(1.0), denominator);
        let wide = self.s.wide.clone();
        for (i, r) in results.iter().flatten().enumerate() {
            self.g.open_scope(wide.iter().copied().collect());
            let column = self.key(C::Const(0), i / 2, i % 2);
            let inside = self.below(column, self.p.wide).map(V::Reg);
            let column = coord::either(&mut self.g.e.b, column, C::Const(self.p.wide - 1), BinOp::Min);
            for (a, c) in self.digits(&wide, column) {
                self.fix(a, c);
            }
            let x = self.g.e.binary(Bin::Mul, DType::F32, V::Reg(*r), inverse);
            self.g.set(self.s.result, &[0; SLOTS], x);
            self.g.only = self.g.and(exists, inside);
            for s in self.s.elements.clone() {
                self.store(s)?;
            }
            self.g.scopes.pop();
        }
        self.g.only = None;
        self.g.scopes.pop();
        Ok(())
    }

    fn store(&mut self, s: KValue) -> Gives<()> {
        let stored = self.g.stored(s);
        let x = self.g.eval(stored, &[0; SLOTS])?;
        let k = self.g.k;
        let Some((o, view)) = k.value(s).access() else { return Err(self.g.nowhere(s)) };
        self.g.e.note(s.0);
        let access = self.g.access(s, Base::Operand(o), view, &[0; SLOTS])?;
        self.g.e.store(&access, x);
        Ok(())
    }

    /// The greatest scaled score, 0 where it is infinite.
    fn finite(&mut self, max: Reg) -> V {
        let scale = self.s.scale;
        let b = &mut self.g.e.b;
        let max = if self.p.narrow { b.binary(BinOp::MulRn, Type::F32, max, Src::F32(scale.to_bits())) } else { max };
        let size = b.unary(UnOp::Abs, Type::F32, max);
        let infinite = b.setp(Cmp::Eq, Type::F32, size, Src::F32(f32::INFINITY.to_bits()));
        V::Reg(b.selp(Type::F32, infinite, Src::F32(0), max))
    }

    /// The sum of a row's four lanes.
    fn total(&mut self, sum: Reg) -> V {
        let b = &mut self.g.e.b;
        let pair = b.shfl(Shuffle::Bfly, sum, Src::Int(1));
        let pair = b.binary(BinOp::AddRn, Type::F32, sum, pair);
        let other = b.shfl(Shuffle::Bfly, pair, Src::Int(2));
        V::Reg(b.binary(BinOp::AddRn, Type::F32, pair, other))
    }
}
