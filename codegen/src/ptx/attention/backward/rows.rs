//! The gradient of queries: rows are the lines, and keys pass by.
use super::shape::Shape;
use super::slopes::{Known, reference, slopes};
use super::{Staged, Stages, next_tile};
use crate::emit::Emit;
use crate::eval::{Fail, Gives, SLOTS};
use crate::ptx::attention::Cx;
use crate::ptx::attention::range::bounds;
use crate::ptx::attention::rows::Row;
use crate::ptx::attention::store::Elements;
use crate::ptx::coord::{self, C};
use crate::ptx::inst::*;
use crate::ptx::simt::V;

/// Makes the block's code, and says what it is.
pub fn block(cx: &mut Cx, shape: &Shape, staged: Staged) -> Gives<&'static str> {
    let (s, p) = (cx.s, cx.p);
    let (Some(v), Some(of_over)) = (&shape.v, &shape.of_over) else {
        return Err(Fail::Bug("a gradient of queries without slopes".into()));
    };
    // The last rows see the most keys, so they are begun first.
    let tile = cx.fix_batch()?;
    let tile = coord::mul(&mut cx.g.e.b, tile, -1);
    let tile = coord::add(&mut cx.g.e.b, tile, C::Const(p.tiles - 1));
    let first = coord::mul(&mut cx.g.e.b, tile, p.block());
    let q = cx.matrix_of(&s.q, &s.rows, &s.over, p.line_over);
    let d_o = cx.matrix_of(&shape.d_o, &s.rows, &s.wide, p.line_wide);
    let k = cx.matrix_of(&s.k, &[s.keys], &s.over, p.walked_over);
    let v = cx.matrix_of(v, &[s.keys], &s.wide, p.walked_wide);
    let bounds = bounds(cx.g.k, s.visible, s.keys);
    let rows = cx.rows(first, &bounds)?;
    let range = cx.range(&rows, &bounds);
    let shared = cx.shared;
    cx.bring(&q, first, p.block(), shared);
    cx.bring(&d_o, first, p.block(), shared);
    cx.bring(&k, range.lo, p.tile, shared);
    cx.bring(&v, range.lo, p.tile, shared);
    cx.g.e.b.op(Op::CpCommit);
    let known = rows.iter().map(|r| known(cx, shape, r)).collect::<Gives<Vec<_>>>()?;
    let [queries, d_results] = [p.line_over, p.line_wide].map(|r| cx.lines(r));
    let (scores, d_weights) = (cx.fragments(p.tile), cx.fragments(p.tile));
    let results = cx.fragments(p.walked_over.padded);
    let stages = Stages::new(cx, &staged);
    let (keys, values) = (stages.lines(p.walked_over), stages.lines(p.walked_wide));
    let (key, _) = cx.g.e.begin(range.lo, range.hi, p.tile, false, false, &[]);
    cx.landed();
    next_tile(cx, key, range.hi, |cx, next| {
        cx.bring(&k, next, p.tile, stages.next);
        cx.bring(&v, next, p.tile, stages.next);
        Ok(())
    })?;
    cx.scores(queries, None, keys, &scores);
    cx.hide(&scores, &rows, key, &range)?;
    cx.scores(d_results, None, values, &d_weights);
    let (_, slopes) = slopes(cx, &scores, &d_weights, |cx, f, n, e| {
        let row = f * 2 + e / 2;
        let key = cx.column(key, n, e % 2);
        let kept = s.kept.map(|kept| cx.at_key(kept, &rows[row], key)).transpose()?;
        Ok(Known { kept, ..known[row] })
    })?;
    cx.values(&slopes, keys, &results);
    stages.turn(cx);
    cx.g.e.end(&[]);
    cx.g.e.b.op(Op::CpWait(0));
    for (i, row) in rows.iter().enumerate() {
        cx.enter(row, s.lines());
        let elements: Vec<V> = cx.of_line(&results, i).into_iter().map(|x| V::Reg(cx.times(x, s.scale))).collect();
        let e = Elements { axes: &s.over, width: p.line_over.width, value: of_over.value, stores: &of_over.stores };
        cx.store_elements(&e, row.exists, &elements)?;
        cx.g.scopes.pop();
    }
    Ok("rows by keys")
}

/// What is known of a row whatever the key.
fn known(cx: &mut Cx, shape: &Shape, row: &Row) -> Gives<Known> {
    cx.enter(row, cx.s.lines());
    let lse = cx.g.eval(shape.lse, &[0; SLOTS])?;
    let delta = shape.delta.map(|d| cx.g.eval(d, &[0; SLOTS])).transpose()?;
    cx.g.scopes.pop();
    let reference = reference(cx, lse, None);
    let delta = delta.map(|d| cx.g.e.reg(d));
    Ok(Known { reference, delta, kept: None })
}
