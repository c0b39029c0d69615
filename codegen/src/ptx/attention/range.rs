//! Which keys the rows of a block see, as far as bounds on their positions say it: other keys are not even read.
use super::Cx;
use super::plan::Region;
use super::products::Lines;
use super::rows::Row;
use crate::ptx::coord::{self, C};
use crate::ptx::inst::*;
use lolm_ir::Scalar;
use lolm_ir::kernel::{KAxis, KOp, KValue, Kernel};
use lolm_ir::op::Binary;

/// A bound of the keys that a row sees: none after the value plus a number, or none before it.
pub struct Bound {
    pub value: KValue,
    add: i64,
    pub is_last: bool,
}

/// Which keys a row sees, as far as bounds say it.
pub struct Bounds {
    pub all: Vec<Bound>,
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
    pub exact: bool,
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
            (KOp::Binary(Binary::Le), [age, now]) => {
                // In the first round of a ring nothing was written beyond the position.
                out.exact = false;
                age_from(k, *age, *now, keys).map(|from| (from, 0, true))
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

/// What a key is taken from in `(now - key) mod keys`: the position; or less the start of a segment of a ring of several,
/// which the key counts from.
fn age_from(k: &Kernel, age: KValue, now: KValue, keys: KAxis) -> Option<KValue> {
    let int = |v: KValue| if let KOp::Const(Scalar::I32(n)) = k.value(v).op { Some(n as u32) } else { None };
    let binary = |v: KValue, op: Binary| match k.value(v).args.as_slice() {
        [a, b] if k.value(v).op == KOp::Binary(op) => Some((*a, *b)),
        _ => None,
    };
    let (past, slots) = binary(age, Binary::Rem)?;
    let (from, _) = binary(past, Binary::Sub).filter(|(_, key)| k.value(*key).op == KOp::Index(keys))?;
    let whole = |segments: u32| int(slots) == Some(segments * k.axis(keys).len);
    if from == now {
        return whole(1).then_some(from);
    }
    let (position, start) = binary(from, Binary::Sub)?;
    let (segment, length) = binary(start, Binary::Mul)?;
    let KOp::Index(segment) = k.value(segment).op else { return None };
    let sound = position == now && int(length) == Some(k.axis(keys).len) && whole(k.axis(segment).len);
    sound.then_some(from)
}

impl Cx<'_> {
    /// The keys that some row of the block sees, and those that all see. All threads call this; where the values of a tile
    /// will lie, the warps tell each other what their rows see.
    pub fn range(&mut self, rows: &[Row], bounds: &Bounds) -> Range {
        let keys = self.p.walked;
        let mut out = Range { lo: C::Const(0), hi: C::Const(keys), first: None, last: None, exact: bounds.exact };
        if bounds.all.is_empty() {
            return out;
        }
        let ends = |i| self.of_warp(rows, i).into_iter().zip([BinOp::Min, BinOp::Max]);
        let of_warp: Vec<(Reg, BinOp)> = (0..bounds.all.len()).flat_map(ends).collect();
        let of_block = self.of_block(&of_warp);
        for (bound, ends) in bounds.all.iter().zip(of_block.chunks(2)) {
            let [min, max] = [ends[0], ends[1]].map(|x| self.end_of(bound, x, keys));
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

    /// The last key that this bound leaves, or the first. Far outside of the keys it is clear of where numbers end.
    pub fn end_of(&mut self, bound: &Bound, x: Reg, keys: i64) -> Reg {
        let x = self.int(BinOp::Max, x, Src::Int(-1));
        let x = self.int(BinOp::Min, x, Src::Int(keys));
        self.int(BinOp::Add, x, Src::Int(bound.add))
    }
    pub fn int(&mut self, op: BinOp, a: Reg, b: Src) -> Reg {
        self.g.e.b.binary(op, Type::S32, a, b)
    }
    /// A bound within the keys.
    fn nearer(&mut self, op: BinOp, x: Reg, before: C) -> C {
        let before = coord::int(&mut self.g.e.b, before);
        let x = self.int(op, x, before);
        let x = self.int(BinOp::Max, x, Src::Int(0));
        let reg = self.int(BinOp::Min, x, Src::Int(self.p.walked));
        C::Int { reg, lo: 0, hi: self.p.walked }
    }

    /// The least and the greatest of the bound number i among the warp's rows.
    fn of_warp(&mut self, rows: &[Row], i: usize) -> [Reg; 2] {
        [BinOp::Min, BinOp::Max].map(|op| {
            let first = rows[0].bounds[i];
            let x = rows[1..].iter().fold(first, |x, r| self.int(op, x, r.bounds[i].into()));
            self.over_lanes(op, x, &[4, 8, 16])
        })
    }

    /// The least or the greatest among lanes whose numbers differ in these bits.
    pub fn over_lanes(&mut self, op: BinOp, x: Reg, distances: &[i64]) -> Reg {
        distances.iter().fold(x, |x, distance| {
            let other = self.g.e.b.shfl(Shuffle::Bfly, x, Src::Int(*distance));
            self.int(op, x, other.into())
        })
    }

    /// What the warps have, joined by these functions. All threads call this.
    pub fn of_block(&mut self, of_warp: &[(Reg, BinOp)]) -> Vec<Reg> {
        let exchange = Lines { from: self.shared, region: Region::default().at(self.p.exchange) };
        let warp = coord::mul(&mut self.g.e.b, self.warp, 4);
        let mine = self.place(exchange, C::Const(0), warp);
        let first = self.g.e.first_lane();
        let warps = self.p.warps;
        let at = |i: usize, warp: i64| ((i as i64 * warps + warp) * 4) as i32;
        for (i, (a, _)) in of_warp.iter().enumerate() {
            let at = Address { base: mine, offset: at(i, 0) };
            self.g.e.b.guarded(Some((first, true)), Op::St { space: Space::Shared, ty: Type::B32, a: *a, at });
        }
        self.g.e.b.op(Op::SyncBlock);
        let base = self.place(exchange, C::Const(0), C::Const(0));
        let joined = |(i, (_, op)): (usize, &(Reg, BinOp))| {
            let all: Vec<Reg> = (0..warps)
                .map(|w| {
                    let d = self.g.e.b.reg(Class::B32);
                    let at = Address { base, offset: at(i, w) };
                    self.g.e.b.op(Op::Ld { space: Space::Shared, ty: Type::B32, d, at });
                    d
                })
                .collect();
            all[1..].iter().fold(all[0], |x, y| self.int(*op, x, (*y).into()))
        };
        of_warp.iter().enumerate().map(joined).collect()
    }

    /// Whether some row does not see some key of the tile.
    pub fn hides_some(&mut self, first: C, range: &Range) -> Reg {
        let (tile, keys) = (self.p.tile, self.p.walked);
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
}
