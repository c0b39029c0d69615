//! Attention: a tile of rows with their scores, softmax and results in registers, while keys and values pass by.
use super::Cx;
use super::copy::Matrix;
use super::plan::{ROWS, plan};
use super::range::bounds;
use super::rows::Row;
use super::shape::{Shape, shape};
use super::softmax::Running;
use super::store::Elements;
use crate::emit::{Bin, Emit};
use crate::eval::{Fail, Gives, SLOTS};
use crate::ptx::compile::{Body, Code, tile_entry};
use crate::ptx::coord::{self, C};
use crate::ptx::inst::*;
use crate::ptx::simt::V;
use lolm_ir::DType;
use lolm_ir::kernel::Kernel;

/// The code of a kernel that is an attention.
pub fn attention(k: &Kernel, name: &str) -> Result<Option<(String, Code)>, Fail> {
    let Some(s) = shape(k) else { return Ok(None) };
    let Some(p) = plan(k, &s) else { return Ok(None) };
    let made = tile_entry(k, name, |g| {
        let mut cx = Cx::new(g, &s.scores, p);
        block(&mut cx, &s)?;
        let schedule = format!("attention {{ {p} }}");
        Ok(Body { threads: p.threads(), shared: p.bytes, unit_dims: p.unit_dims(), schedule })
    })?;
    Ok(Some(made))
}

fn block(cx: &mut Cx, shape: &Shape) -> Gives<()> {
    let (s, p) = (cx.s, cx.p);
    // The last rows see the most keys, so they are begun first.
    let tile = cx.fix_batch()?;
    let tile = coord::mul(&mut cx.g.e.b, tile, -1);
    let tile = coord::add(&mut cx.g.e.b, tile, C::Const(p.tiles - 1));
    let first = coord::mul(&mut cx.g.e.b, tile, p.block());
    let q = cx.matrix_of(&s.q, &s.rows, &s.over, p.line_over);
    let k = cx.matrix_of(&s.k, &[s.keys], &s.over, p.walked_over);
    let v = cx.matrix_of(&shape.v, &[s.keys], &s.wide, p.walked_wide);
    let bounds = bounds(cx.g.k, s.visible, s.keys);
    let rows = cx.rows(first, &bounds)?;
    let running = cx.running();
    let range = cx.range(&rows, &bounds);
    let shared = cx.shared;
    cx.bring(&q, first, p.block(), shared);
    cx.bring(&k, range.lo, p.tile, shared);
    cx.g.e.b.op(Op::CpCommit);
    cx.landed();
    let [queries, keys, values] = [p.line_over, p.walked_over, p.walked_wide].map(|r| cx.lines(r));
    // Queries stay in registers if there are enough of these.
    let held = (p.narrow && p.line_over.padded * p.fragments <= 128).then(|| cx.held(queries));
    let scores = cx.fragments(p.tile);
    let results = cx.fragments(p.walked_wide.padded);
    let idle = idle(cx, first);
    let (key, _) = cx.g.e.begin(range.lo, range.hi, p.tile, false, false, &[]);
    cx.landed();
    cx.bring(&v, key, p.tile, shared);
    cx.g.e.b.op(Op::CpCommit);
    let over = skip(cx, idle);
    cx.scores(queries, held.as_ref(), keys, &scores);
    cx.hide(&scores, &rows, key, &range)?;
    let mut weights = cx.softmax(&scores, &running, &results);
    cx.keep(&mut weights, &rows, key)?;
    end_skip(cx, over);
    cx.landed();
    next_keys(cx, &k, key, range.hi);
    let over = skip(cx, idle);
    cx.values(&weights, values, &results);
    end_skip(cx, over);
    cx.g.e.end(&[]);
    cx.g.e.b.op(Op::CpWait(0));
    for (i, (row, running)) in rows.iter().zip(&running).enumerate() {
        finish(cx, shape, row, running, &cx.of_line(&results, i))?;
    }
    Ok(())
}

/// The keys of the next tile, if there is one.
fn next_keys(cx: &mut Cx, k: &Matrix, key: C, end: C) {
    let b = &mut cx.g.e.b;
    let next = coord::add(b, key, C::Const(cx.p.tile));
    let none = b.label();
    let (at, end) = (coord::int(b, next), coord::int(b, end));
    let over = b.compare(Cmp::Ge, Type::S32, at, end);
    b.bra(none, Some((over, true)));
    b.open();
    cx.bring(k, next, cx.p.tile, cx.shared);
    let b = &mut cx.g.e.b;
    b.op(Op::CpCommit);
    b.close();
    b.place(none);
}

/// Whether a warp has no row, if that can be.
fn idle(cx: &mut Cx, first: C) -> Option<Reg> {
    let of_warp = ROWS * cx.p.fragments;
    if (cx.p.lines - 1) % cx.p.block() >= cx.p.block() - of_warp {
        return None;
    }
    let b = &mut cx.g.e.b;
    let warp = coord::mul(b, cx.warp, of_warp);
    let row = coord::add(b, first, warp);
    let row = coord::int(b, row);
    Some(b.setp(Cmp::Ge, Type::S32, row, Src::Int(cx.p.lines)))
}

fn skip(cx: &mut Cx, idle: Option<Reg>) -> Option<Label> {
    let idle = idle?;
    let over = cx.g.e.b.label();
    cx.g.e.b.bra(over, Some((idle, true)));
    cx.g.e.b.open();
    Some(over)
}
fn end_skip(cx: &mut Cx, over: Option<Label>) {
    if let Some(over) = over {
        cx.g.e.b.close();
        cx.g.e.b.place(over);
    }
}

/// Stores what a row gives: its results are these, still to be divided by the sum.
fn finish(cx: &mut Cx, shape: &Shape, row: &Row, running: &Running, results: &[Reg]) -> Gives<()> {
    let s = cx.s;
    cx.enter(row, s.lines());
    let (max, sum) = (cx.finite(running.max), cx.total(running.sum));
    cx.g.set(shape.max, &[0; SLOTS], max);
    cx.g.set(shape.sum, &[0; SLOTS], sum);
    cx.store_whole(&shape.lines, row.exists)?;
    let denominator = cx.g.eval(shape.denominator, &[0; SLOTS])?;
    let inverse = cx.g.e.binary(Bin::Div, DType::F32, V::F32(1.0), denominator);
    let quotient = |r: &Reg| cx.g.e.binary(Bin::Mul, DType::F32, V::Reg(*r), inverse);
    let results: Vec<V> = results.iter().map(quotient).collect();
    let width = cx.p.walked_wide.width;
    let elements = Elements { axes: &s.wide, width, value: shape.result, stores: &shape.elements };
    cx.store_elements(&elements, row.exists, &results)?;
    cx.g.scopes.pop();
    Ok(())
}
