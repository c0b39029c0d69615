//! The gradient of an attention, without a matrix of all weights: tiles of them are recomputed from the logarithms of their
//! sums, as the forward pass left these.
//!
//! With P the weights, `dP = dO·Vᵀ`, and `delta` the sum of a row's results times their gradients, the slopes of the scores
//! are `dS = P · (dP - delta)`. There are two kernels, and both are the same walk: a block keeps lines and what becomes of
//! them while others pass by in tiles, two products give P and dP of a tile, and further products add to the results.
//!
//! | lines | pass by | products of a tile | results |
//! |---|---|---|---|
//! | rows: Q, dO | keys: K, V | Q·Kᵀ, dO·Vᵀ | dQ += dS·K |
//! | keys: K, V | rows: Q, dO | K·Qᵀ, V·dOᵀ | dK += dSᵀ·Q, dV += Pᵀ·dO |
//!
//! Rows that share keys pass by one after the other, so the gradient of shared keys adds up in one block, in one order.
//!
//! **Order of summation.** Along what passes by in ascending order, from the first line on: in f32 as one chain of fma, in
//! bf16 sixteen lines at a time. What nobody sees adds nothing, so tiles that nobody sees are left out.
//!
//! **Rounding.** With bf16 operands weights and slopes are rounded to bf16 before they are multiplied, slopes before they are
//! scaled. Scores, exponentials and sums are f32.
mod columns;
mod keys;
mod plan;
mod rows;
mod seen;
mod shape;
mod slopes;

use super::products::Lines;
use super::{Cx, Plan, Region};
use crate::eval::Fail;
use crate::ptx::compile::{Body, Code, tile_entry};
use crate::ptx::coord::{self, C};
use crate::ptx::inst::*;
use columns::columns;
use lolm_ir::kernel::Kernel;
use plan::{Staged, plan};
use shape::shape;

/// The code of a kernel that is a gradient of an attention.
pub fn attention_grad(k: &Kernel, name: &str) -> Result<Option<(String, Code)>, Fail> {
    let Some(s) = shape(k) else { return Ok(None) };
    let Some(values) = columns(k, &s) else { return Ok(None) };
    let Some(staged) = plan(k, &s, values.len() as i64) else { return Ok(None) };
    let p = staged.plan;
    let made = tile_entry(k, name, |g| {
        let mut cx = Cx::new(g, &s.scores, p);
        let what = match s.by_keys {
            true => keys::block(&mut cx, &s, staged, &values)?,
            false => rows::block(&mut cx, &s, staged)?,
        };
        let schedule = format!("attention_grad {{ {what}; {p} }}");
        Ok(Body { threads: p.threads(), shared: p.bytes, unit_dims: p.unit_dims(), schedule })
    })?;
    Ok(Some(made))
}

/// The two stages of what passes by: where the one in use begins, and the one that is filled.
struct Stages {
    used: Reg,
    next: Reg,
    /// Both of them added up.
    sum: Reg,
}

impl Stages {
    fn new(cx: &mut Cx, staged: &Staged) -> Self {
        let shared = cx.shared;
        let b = &mut cx.g.e.b;
        let second = b.binary(BinOp::Add, Type::S32, shared, Src::Int(staged.stage));
        let sum = b.binary(BinOp::Add, Type::S32, shared, second);
        Stages { used: b.variable(Type::B32, shared), next: b.variable(Type::B32, second), sum }
    }
    fn lines(&self, region: Region) -> Lines {
        Lines { from: self.used, region }
    }
    /// What was filled is used, and the other way round.
    fn turn(&self, cx: &mut Cx) {
        for r in [self.used, self.next] {
            let op = Op::Binary { op: BinOp::Sub, ty: Type::S32, d: r, a: self.sum.into(), b: r.into() };
            cx.g.e.b.op(op);
        }
    }
}

/// Emits code that the block skips if there is no tile after this line, and tells where that tile begins.
fn next_tile(cx: &mut Cx, line: C, end: C, f: impl FnOnce(&mut Cx, C) -> Result<(), Fail>) -> Result<(), Fail> {
    let Plan { tile, .. } = cx.p;
    let b = &mut cx.g.e.b;
    let next = coord::add(b, line, C::Const(tile));
    let none = b.label();
    let (at, end) = (coord::int(b, next), coord::int(b, end));
    let over = b.compare(Cmp::Ge, Type::S32, at, end);
    b.bra(none, Some((over, true)));
    b.open();
    f(cx, next)?;
    cx.g.e.b.op(Op::CpCommit);
    cx.g.e.b.close();
    cx.g.e.b.place(none);
    Ok(())
}
