//! The gradients of keys and values: keys are the lines, and the rows that share them pass by.
use super::columns::{Column, Loaded, compute, leave, load};
use super::seen::rows_that_see;
use super::shape::{Outcome, Shape};
use super::slopes::{Known, slopes};
use super::{Staged, Stages, next_tile};
use crate::emit::Emit;
use crate::eval::{Fail, Gives};
use crate::ptx::attention::copy::Matrix;
use crate::ptx::attention::range::bounds;
use crate::ptx::attention::store::Elements;
use crate::ptx::attention::{Cx, Fragments};
use crate::ptx::coord::{self, C};
use crate::ptx::inst::*;
use crate::ptx::simt::V;

/// The keys of this lane: where they stand, and whether they exist.
type Keys = Vec<(C, Option<Reg>)>;

/// What passes by, and what becomes of the lines.
struct Walk<'a> {
    shape: &'a Shape,
    staged: Staged,
    /// What is known of each row.
    values: &'a [Column],
    q: Matrix,
    d_o: Matrix,
    keys: Keys,
    stages: Stages,
    of_over: Option<(&'a Outcome, Fragments)>,
    of_wide: Option<(&'a Outcome, Fragments)>,
}

/// Makes the block's code, and says what it is.
pub fn block(cx: &mut Cx, shape: &Shape, staged: Staged, values: &[Column]) -> Gives<&'static str> {
    let (s, p) = (cx.s, cx.p);
    let tile = cx.fix_batch()?;
    let first = coord::mul(&mut cx.g.e.b, tile, p.block());
    let k = cx.matrix_of(&s.k, &[s.keys], &s.over, p.line_over);
    let v = shape.v.as_ref().map(|v| cx.matrix_of(v, &[s.keys], &s.wide, p.line_wide));
    let q = cx.matrix_of(&s.q, &s.rows, &s.over, p.walked_over);
    let d_o = cx.matrix_of(&shape.d_o, &s.rows, &s.wide, p.walked_wide);
    let keys = cx.numbers(first);
    let bounds = bounds(cx.g.k, s.visible, s.keys);
    let (lo, hi) = rows_that_see(cx, &bounds, first)?;
    let shared = cx.shared;
    for m in [Some(&k), v.as_ref()].into_iter().flatten() {
        cx.bring(m, first, p.block(), shared);
    }
    cx.bring(&q, lo, p.tile, shared);
    cx.bring(&d_o, lo, p.tile, shared);
    cx.g.e.b.op(Op::CpCommit);
    let known = compute(cx, shape, values, lo)?;
    leave(cx, &staged, &known, shared);
    // The values of the next rows, while they come.
    let zero = |cx: &mut Cx, r: &Reg| match r.class {
        Class::F32 => cx.g.e.b.variable(Type::F32, Src::F32(0)),
        _ => cx.g.e.b.variable(Type::B32, Src::Int(0)),
    };
    let coming: Vec<Reg> = known.iter().map(|r| zero(cx, r)).collect();
    let of_over = shape.of_over.as_ref().map(|o| (o, cx.fragments(p.line_over.padded)));
    let of_wide = shape.of_wide.as_ref().map(|o| (o, cx.fragments(p.walked_wide.padded)));
    let stages = Stages::new(cx, &staged);
    let walk = Walk { shape, staged, values, q, d_o, keys, stages, of_over, of_wide };
    let (scores, d_weights) = (cx.fragments(p.tile), cx.fragments(if v.is_some() { p.tile } else { 0 }));
    let (row, _) = cx.g.e.begin(lo, hi, p.tile, false, false, &[]);
    cx.landed();
    walk.bring_next(cx, row, hi, &coming)?;
    walk.add_tile(cx, &scores, &d_weights)?;
    leave(cx, &staged, &coming, walk.stages.next);
    walk.stages.turn(cx);
    cx.g.e.end(&[]);
    cx.g.e.b.op(Op::CpWait(0));
    walk.finish(cx)?;
    Ok("keys by rows")
}

impl Walk<'_> {
    fn bring_next(&self, cx: &mut Cx, row: C, end: C, coming: &[Reg]) -> Gives<()> {
        next_tile(cx, row, end, |cx, next| {
            cx.bring(&self.q, next, cx.p.tile, self.stages.next);
            cx.bring(&self.d_o, next, cx.p.tile, self.stages.next);
            let values = compute(cx, self.shape, self.values, next)?;
            let moved: Vec<V> = values.into_iter().map(V::Reg).collect();
            cx.g.e.move_all(coming, &moved);
            Ok(())
        })
    }

    /// Adds what the tile in use gives to the results.
    fn add_tile(&self, cx: &mut Cx, scores: &Fragments, d_weights: &Fragments) -> Gives<()> {
        let (s, p) = (cx.s, cx.p);
        let [line_keys, line_values] = [p.line_over, p.line_wide].map(|r| cx.lines(r));
        let [queries, d_results] = [p.walked_over, p.walked_wide].map(|r| self.stages.lines(r));
        let loaded = load(cx, &self.staged, self.values, &self.stages);
        cx.scores(line_keys, None, queries, scores);
        hide(cx, scores, &loaded, &self.keys)?;
        if self.of_over.is_some() {
            cx.scores(line_values, None, d_results, d_weights);
        }
        let (weights, slopes) = slopes(cx, scores, d_weights, |cx, f, n, e| {
            let known = loaded.known(n, e % 2).ok_or_else(|| Fail::Bug("a row without a logarithm".into()))?;
            let key = self.keys[f * 2 + e / 2].0;
            let kept = s.kept.map(|kept| loaded.at_key(cx, kept, n, e % 2, key)).transpose()?;
            Ok(Known { kept, ..known })
        })?;
        if let Some((_, sums)) = &self.of_wide {
            cx.values(&weights, d_results, sums);
        }
        if let Some((_, sums)) = &self.of_over {
            cx.values(&slopes, queries, sums);
        }
        Ok(())
    }

    /// Stores the gradients of this lane's keys.
    fn finish(&self, cx: &mut Cx) -> Gives<()> {
        let s = cx.s;
        for (i, key) in self.keys.iter().enumerate() {
            cx.g.open_scope([s.keys].into_iter().collect());
            cx.fix(s.keys, key.0);
            if let Some((o, sums)) = &self.of_over {
                let scaled: Vec<V> = cx.of_line(sums, i).into_iter().map(|x| V::Reg(cx.times(x, s.scale))).collect();
                let e = Elements { axes: &s.over, width: cx.p.line_over.width, value: o.value, stores: &o.stores };
                cx.store_elements(&e, key.1, &scaled)?;
            }
            if let Some((o, sums)) = &self.of_wide {
                let plain: Vec<V> = cx.of_line(sums, i).into_iter().map(V::Reg).collect();
                let e = Elements { axes: &s.wide, width: cx.p.walked_wide.width, value: o.value, stores: &o.stores };
                cx.store_elements(&e, key.1, &plain)?;
            }
            cx.g.scopes.pop();
        }
        Ok(())
    }
}

/// Hides scores of keys that a row does not see. Rows that do not exist see none, and keys that do not exist are not stored.
fn hide(cx: &mut Cx, scores: &Fragments, loaded: &Loaded, keys: &Keys) -> Gives<()> {
    let Some(visible) = cx.s.visible else { return Ok(()) };
    let hidden = Src::F32(f32::NEG_INFINITY.to_bits());
    for (f, n, e) in cx.elements(scores) {
        let sees = loaded.at_key(cx, visible, n, e % 2, keys[f * 2 + e / 2].0)?;
        let p = cx.g.e.reg(sees);
        let d = scores[f][n][e];
        cx.g.e.b.op(Op::Selp { ty: Type::F32, d, a: d.into(), b: hidden, p });
    }
    Ok(())
}
