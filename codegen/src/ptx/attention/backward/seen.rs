//! The rows that see some key of a block, as far as bounds on their positions say it: other rows do not pass by.
use crate::emit::Emit;
use crate::eval::{Fail, Gives, SLOTS};
use crate::ptx::attention::Cx;
use crate::ptx::attention::plan::count;
use crate::ptx::attention::range::Bounds;
use crate::ptx::coord::{self, C};
use crate::ptx::inst::*;
use lolm_ir::kernel::{KAxes, KAxis};

/// The first of them, on a multiple of the tile, and the end of them, of the keys that begin there. Positions are data, in
/// no order, so all of them are looked at; threads share them.
pub fn rows_that_see(cx: &mut Cx, bounds: &Bounds, first: C) -> Gives<(C, C)> {
    let all = cx.p.walked;
    if bounds.all.is_empty() {
        return Ok((C::Const(0), C::Const(all)));
    }
    let seen: KAxes = bounds.all.iter().fold(KAxes::EMPTY, |s, b| s.union(cx.g.k.value(b.value).axes));
    // Axes that positions do not vary over are the inner ones.
    let outer = cx.s.rows.iter().rposition(|a| seen.has(*a)).map_or(0, |i| i + 1);
    let outer: Vec<KAxis> = cx.s.rows[..outer].to_vec();
    let number = count(cx.g.k, &outer);
    let inner = all / number;
    let b = &mut cx.g.e.b;
    let from = b.variable(Type::B32, Src::Int(number));
    let last = b.variable(Type::B32, Src::Int(-1));
    let threads = cx.p.threads();
    let (round, _) = cx.g.e.begin(C::Const(0), C::Const((number + threads - 1) / threads), 1, false, true, &[]);
    let b = &mut cx.g.e.b;
    let id = coord::mul(b, round, threads);
    let id = coord::add(b, id, cx.tid);
    let id = coord::either(b, id, C::Const(number - 1), BinOp::Min);
    let sees = sees(cx, bounds, &outer, id, first)?;
    let b = &mut cx.g.e.b;
    let id = coord::int(b, id);
    for (to, op, none) in [(from, BinOp::Min, number), (last, BinOp::Max, -1)] {
        let x = b.selp(Type::B32, sees, id, Src::Int(none));
        b.op(Op::Binary { op, ty: Type::S32, d: to, a: to.into(), b: x.into() });
    }
    cx.g.e.end(&[]);
    let lanes = [1, 2, 4, 8, 16];
    let of_warp = [(from, BinOp::Min), (last, BinOp::Max)].map(|(x, op)| (cx.over_lanes(op, x, &lanes), op));
    let of_block = cx.of_block(&of_warp);
    let b = &mut cx.g.e.b;
    let end = b.binary(BinOp::Add, Type::S32, of_block[1], Src::Int(1));
    let [lo, hi] = [of_block[0], end].map(|reg| coord::mul(b, C::Int { reg, lo: 0, hi: number }, inner));
    let lo = coord::int(b, lo);
    let reg = b.binary(BinOp::And, Type::B32, lo, Src::Int(-cx.p.tile));
    Ok((C::Int { reg, lo: 0, hi: all }, hi))
}

/// Whether a row sees one of the keys that begin there.
fn sees(cx: &mut Cx, bounds: &Bounds, axes: &[KAxis], row: C, first: C) -> Gives<Reg> {
    let keys = cx.p.lines;
    let last = coord::add(&mut cx.g.e.b, first, C::Const(cx.p.block() - 1));
    let (first, last) = (coord::int(&mut cx.g.e.b, first), coord::int(&mut cx.g.e.b, last));
    cx.g.open_scope(axes.iter().copied().collect());
    for (a, c) in cx.digits(axes, row) {
        cx.fix(a, c);
    }
    let mut all: Option<Reg> = None;
    for bound in &bounds.all {
        let x = cx.g.eval(bound.value, &[0; SLOTS])?;
        let x = cx.g.e.reg(x);
        let end = cx.end_of(bound, x, keys);
        let b = &mut cx.g.e.b;
        let p = match bound.is_last {
            true => b.setp(Cmp::Ge, Type::S32, end, first),
            false => b.setp(Cmp::Le, Type::S32, end, last),
        };
        all = Some(all.map_or(p, |q| b.binary(BinOp::And, Type::Pred, p, q)));
    }
    cx.g.scopes.pop();
    cx.unfix(axes);
    all.ok_or_else(|| Fail::Bug("rows without bounds".into()))
}
