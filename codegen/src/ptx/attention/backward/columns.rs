//! What is known of the rows that pass by. While the next tile comes, each thread computes it for one row, and leaves it in
//! shared memory for all of them.
use super::plan::Staged;
use super::shape::Shape;
use super::slopes::{Known, reference};
use super::{Stages, shape};
use crate::eval::{Gives, SLOTS};
use crate::ptx::attention::Cx;
use crate::ptx::attention::products::Lines;
use crate::ptx::coord::{self, C};
use crate::ptx::inst::*;
use crate::ptx::simt::V;
use lolm_ir::DType;
use lolm_ir::kernel::{KAxes, KOp, KValue, Kernel};

/// A value of a row.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Column {
    /// What weights are relative to.
    Reference,
    Delta(KValue),
    /// What masks need to know, f32 or i32.
    Mask(KValue, DType),
}

/// The values of a row; nothing if they are no words.
pub fn columns(k: &Kernel, s: &shape::Shape) -> Option<Vec<Column>> {
    if !s.by_keys {
        return Some(vec![]);
    }
    let mut out: Vec<Column> = [Column::Reference].into_iter().chain(s.delta.map(Column::Delta)).collect();
    for v in frontier(k, s) {
        let dtype = k.value(v).dtype;
        let word = matches!(dtype, DType::F32 | DType::I32);
        out.push(word.then_some(Column::Mask(v, dtype))?);
    }
    Some(out)
}

/// What masks take of a row whatever the key.
fn frontier(k: &Kernel, s: &Shape) -> Vec<KValue> {
    let masks = s.scores.masks(k);
    let rows: KAxes = s.scores.rows.iter().copied().collect();
    let of_row = |v: KValue| {
        let value = k.value(v);
        value.axes.0 & rows.0 != 0 && !value.axes.has(s.scores.keys) && !matches!(value.op, KOp::Const(_))
    };
    let of_key = |v: KValue| k.value(v).axes.has(s.scores.keys);
    let taken = |v: &KValue| {
        let root = s.scores.visible == Some(*v) || s.scores.kept == Some(*v);
        root || masks.iter().any(|u| of_key(*u) && k.uses(*u).contains(v))
    };
    masks.iter().copied().filter(|v| of_row(*v)).filter(taken).collect()
}

/// The values of this thread's row in the tile that begins there.
pub fn compute(cx: &mut Cx, shape: &Shape, all: &[Column], first: C) -> Gives<Vec<Reg>> {
    let rows = cx.s.rows.clone();
    let (_, column) = coord::divmod(&mut cx.g.e.b, cx.tid, cx.p.tile);
    let row = coord::add(&mut cx.g.e.b, first, column);
    let exists = cx.below(row, cx.p.walked);
    let row = coord::either(&mut cx.g.e.b, row, C::Const(cx.p.walked - 1), BinOp::Min);
    cx.g.open_scope(rows.iter().copied().collect());
    for (a, c) in cx.digits(&rows, row) {
        cx.fix(a, c);
    }
    let mut out = vec![];
    for c in all {
        let of = match c {
            Column::Reference => shape.lse,
            Column::Delta(v) | Column::Mask(v, _) => *v,
        };
        let x = cx.g.eval(of, &[0; SLOTS])?;
        out.push(match (c, exists) {
            (Column::Reference, exists) => reference(cx, x, exists),
            (Column::Delta(_), Some(p)) => {
                let x = cx.g.e.reg(x);
                cx.g.e.b.selp(Type::F32, p, x, Src::F32(0))
            }
            (Column::Delta(_) | Column::Mask(..), _) => cx.g.e.reg(x),
        });
    }
    cx.g.scopes.pop();
    cx.unfix(&rows);
    Ok(out)
}

fn word(x: Reg) -> Type {
    if x.class == Class::F32 { Type::F32 } else { Type::B32 }
}

/// Leaves this thread's values in the stage that begins there.
pub fn leave(cx: &mut Cx, staged: &Staged, values: &[Reg], stage: Reg) {
    let lines = Lines { from: stage, region: staged.columns };
    let mine = cx.below(cx.tid, cx.p.tile);
    let byte = coord::mul(&mut cx.g.e.b, cx.tid, 4);
    let base = cx.place(lines, C::Const(0), byte);
    for (i, a) in values.iter().enumerate() {
        let at = Address { base, offset: (i as i64 * staged.columns.pitch) as i32 };
        cx.g.e.b.guarded(mine.map(|p| (p, true)), Op::St { space: Space::Shared, ty: word(*a), a: *a, at });
    }
}

/// The values of the rows of this lane's columns: for every eight columns those of two neighbours.
pub struct Loaded(Vec<Vec<(Column, [Reg; 2])>>);

pub fn load(cx: &mut Cx, staged: &Staged, all: &[Column], stages: &Stages) -> Loaded {
    let byte = coord::mul(&mut cx.g.e.b, cx.quad, 8);
    let base = cx.place(stages.lines(staged.columns), C::Const(0), byte);
    let mut pair = |n: i64, i: usize, c: &Column| {
        let class = if matches!(c, Column::Mask(_, DType::I32)) { Class::B32 } else { Class::F32 };
        let d = [cx.g.e.b.reg(class), cx.g.e.b.reg(class)];
        let at = Address { base, offset: (n * 32 + i as i64 * staged.columns.pitch) as i32 };
        cx.g.e.b.op(Op::Ld2 { space: Space::Shared, ty: word(d[0]), d, at });
        (*c, d)
    };
    let eight = |n: i64| all.iter().enumerate().map(|(i, c)| pair(n, i, c)).collect();
    Loaded((0..staged.plan.tile / 8).map(eight).collect())
}

impl Loaded {
    /// What is known of a column's row.
    pub fn known(&self, n: usize, e: usize) -> Option<Known> {
        let of = |is: fn(&Column) -> bool| self.0[n].iter().find(|(c, _)| is(c)).map(|(_, d)| d[e]);
        let delta = of(|c| matches!(c, Column::Delta(_)));
        Some(Known { reference: of(|c| *c == Column::Reference)?, delta, kept: None })
    }

    /// A value of masks at a column's row and at a key.
    pub fn at_key(&self, cx: &mut Cx, v: KValue, n: usize, e: usize, key: C) -> Gives<V> {
        let (rows, keys): (KAxes, _) = (cx.s.rows.iter().copied().collect(), cx.s.keys);
        cx.g.open_scope(rows.with(keys));
        cx.fix(keys, key);
        for (c, d) in &self.0[n] {
            if let Column::Mask(v, _) = c {
                cx.g.set(*v, &[0; SLOTS], V::Reg(d[e]));
            }
        }
        let x = cx.g.eval(v, &[0; SLOTS]);
        cx.g.scopes.pop();
        cx.unfix(&[keys]);
        x
    }
}
