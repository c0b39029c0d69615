//! The contract generator: kernels whose work is one product, by tiles of shared memory.
//!
//! A block makes a tile of the product: the factors come to shared memory in stages along the depth (`stage`), threads add
//! up products in registers (`fma`, `mma`), and the rest of the kernel is evaluated where the sums are (`finish`). What
//! the factors are of memory, and what is made of the sums, is evaluated by the shared evaluator.
//!
//! **Order of summation** (`tiling::order`): the depth is cut in four parts of equal length, or is one part if it is less
//! than 512, or if factors are bf16 and both rows and columns are 1024 or more. The elements of a part are added in
//! ascending order, as one chain of fma, or sixteen at a time by matrix instructions; the sums of the parts are added in
//! ascending order. So below 1024 rows the order depends on the depth and the factors, never on rows, columns, batch or
//! tiles: where few rows leave processors idle, the parts are done at once, by other threads, and joined in that order.
mod finish;
mod fma;
mod mma;
mod product;
mod stage;
mod tile;
mod tiling;

use super::compile::{Body, Code, shared_start, tile_entry};
use super::coord::C;
use super::inst::*;
use super::simt::Simt;
use crate::eval::{Fail, Gen, Gives};
use lolm_ir::kernel::Kernel;
use product::{Factor, Product, cone, count, product};
use tile::{Cx, Layout, Side, Sums};
use tiling::{Tiling, tiling};

/// The code of a kernel that is a product.
pub fn contract(k: &Kernel, name: &str) -> Result<Option<(String, Code)>, Fail> {
    let Some(p) = product(k) else { return Ok(None) };
    let t = tiling(k, &p);
    let blocks = count(k, &p.batch).saturating_mul(t.tiles.0).saturating_mul(t.tiles.1);
    if blocks > i32::MAX as i64 {
        return Ok(None);
    }
    tile_entry(k, name, |g| body(g, &p, t)).map(Some)
}

fn body(g: Gen<Simt>, p: &Product, t: Tiling) -> Gives<Body> {
    let k = g.k;
    let b = &mut g.e.b;
    let tid = b.at_head(|b| b.mov(Type::U32, Src::Special(Special::Tid)));
    let shared = b.reg(Class::B32);
    let mut cx = Cx { g, p, t, tid: C::Int { reg: tid, lo: 0, hi: 1023 }, shared };
    let threads = cx.threads();
    cx.tid = C::Int { reg: tid, lo: 0, hi: threads - 1 };
    let (row, col) = cx.place_block();
    let mut sides = [tile::side(&cx.g, p, &t, true, row), tile::side(&cx.g, p, &t, false, col)];
    sides[1].offset = sides[0].part_bytes * t.at_once;
    let layout = tile::layout(&cx.g, p, &t, &sides[0], &sides[1]);
    let bytes = layout.bytes(&t);
    cx.g.e.b.at_head(|b| b.op(Op::Mov { ty: Type::U32, d: shared, a: shared_start(bytes) }));
    cx.hoist(&cone(k, &[p.a, p.b], |_| false))?;
    let sums = match p.factor {
        Factor::F32 => with_fma(&mut cx, &sides, &layout)?,
        Factor::Bf16 => with_mma(&mut cx, &sides, &layout)?,
    };
    cx.finish(&sums, &layout, &sides)?;
    let fills = sides.each_ref().map(|s| s.fill.name()).join(" and ");
    let factor = if p.factor == Factor::F32 { "f32" } else { "bf16" };
    let schedule = format!("contract {{ {factor} {fills}; {t}; stages {}; threads {threads} }}", layout.stages);
    let unit_dims = vec![count(k, &p.batch) as u32, t.tiles.0 as u32, t.tiles.1 as u32];
    Ok(Body { threads, shared: bytes, unit_dims, schedule })
}

fn with_fma(cx: &mut Cx, sides: &[Side; 2], layout: &Layout) -> Gives<Sums> {
    let fma = fma::prepare(cx, sides);
    let totals = totals(cx, &fma.sums);
    cx.main_loop(sides, layout, &fma, |cx| total(cx, &fma.sums, &totals))?;
    Ok(joined(fma.sums, totals))
}

fn with_mma(cx: &mut Cx, sides: &[Side; 2], layout: &Layout) -> Gives<Sums> {
    let mma = mma::prepare(cx, sides);
    let totals = totals(cx, &mma.sums);
    cx.main_loop(sides, layout, &mma, |cx| total(cx, &mma.sums, &totals))?;
    Ok(joined(mma.sums, totals))
}

/// Registers for the sums of all parts, where a thread does several.
fn totals(cx: &mut Cx, sums: &Sums) -> Vec<Reg> {
    match cx.t.order.parts > 1 && cx.t.at_once == 1 {
        true => sums.registers.iter().map(|_| cx.g.e.b.variable(Type::F32, Src::F32(0))).collect(),
        false => vec![],
    }
}

/// Adds the sums of a part to the others, and starts again from 0.
fn total(cx: &mut Cx, sums: &Sums, totals: &[Reg]) {
    for (sum, total) in sums.registers.iter().zip(totals) {
        let b = &mut cx.g.e.b;
        b.op(Op::Binary { op: BinOp::AddRn, ty: Type::F32, d: *total, a: (*total).into(), b: (*sum).into() });
        b.op(Op::Mov { ty: Type::F32, d: *sum, a: Src::F32(0) });
    }
}

fn joined(sums: Sums, totals: Vec<Reg>) -> Sums {
    if totals.is_empty() { sums } else { Sums { registers: totals, ..sums } }
}
