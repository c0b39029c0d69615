//! The sample generator: a draw from a row of logits, by a block of threads that sorts nothing.
//!
//! Logits become keys, u32 in the same order, with 0 for what is not a number; and weights, whole multiples of 2^-35 of the
//! greatest one. Sums of these are integers, so they are the same in every order, and the same as on the host.
//!
//! 1. The greatest key. If nothing is drawn, its index is the answer.
//! 2. `top_k`, if it leaves anything out: the least key that is kept, and of how many equals (`select`). It is found digit
//!    by digit, by counting keys in buckets of shared memory, in three walks over the row.
//! 3. `top_p`, likewise, by adding up weights in the buckets.
//! 4. What is kept is added up in segments, the segment that the uniform number falls into is found, and the element in it
//!    (`draw`), in the order of indices.
//!
//! A row is read from the L2 cache after the first walk. What the settings do not ask for is not done.
mod asm;
mod block;
mod draw;
mod select;
mod weight;

use super::compile::{Body, Code, shared_start, tile_entry};
use super::coord::{self, C};
use super::inst::*;
use super::simt::{Simt, V};
use crate::emit::Emit;
use crate::eval::{At, Fail, Gen, Gives, SLOTS};
use crate::place::Base;
use lolm_ir::DType;
use lolm_ir::kernel::{KAxes, KAxis, KOp, KValue, Kernel, OperandId, View};
use select::Amount;

/// A kernel that is a draw.
struct Shape<'a> {
    value: KValue,
    along: KAxis,
    /// The axes that number the rows, and how many these are.
    rows: Vec<KAxis>,
    count: i64,
    logits: (OperandId, &'a View),
    /// Temperature, top-k, top-p, min-p and the uniform number.
    settings: &'a [KValue],
    stores: Vec<KValue>,
}

const MOST_THREADS: i64 = 1024;

/// Buckets of keys: eleven bits of them.
const BUCKETS: i64 = 1 << 11;
/// Where in shared memory lie the low and high words of the buckets, what warps tell each other, and what was found.
const LOW: i32 = 0;
const HIGH: i32 = LOW + 4 * BUCKETS as i32;
const OF_WARPS: i32 = HIGH + 4 * BUCKETS as i32;
const FOUND: i32 = OF_WARPS + 8 * 32;
const BYTES: i64 = FOUND as i64 + 32;

/// Segments lie where the buckets lay: their sums, and the numbers of elements that equal the least key.
const SUMS: i32 = 0;
const MOST_SEGMENTS: i64 = 1024;
const EQUALS: i32 = SUMS + 8 * MOST_SEGMENTS as i32;

/// The code of a kernel that is a draw.
pub fn sample(k: &Kernel, name: &str) -> Result<Option<(String, Code)>, Fail> {
    let mut draws = k.ids().filter(|v| matches!(k.value(*v).op, KOp::Sample(_)));
    let Some(value) = draws.next() else { return Ok(None) };
    let limit = |what: &str| Fail::Limit(format!("a draw {what}"));
    let s = shape(k, value).filter(|_| draws.next().is_none());
    let s = s.ok_or_else(|| limit("that is not a kernel of its own, from logits in memory"))?;
    let len = k.axis(s.along).len as i64;
    let of_segment = (len as u64).div_ceil(MOST_SEGMENTS as u64 * 32).next_power_of_two().max(8) as i64;
    if of_segment > 32 {
        return Err(limit(&format!("from {len} elements, more than {}", MOST_SEGMENTS * 32 * 32)));
    }
    let threads = (len as u64).div_ceil(4).next_power_of_two().clamp(32, MOST_THREADS as u64) as i64;
    let made = tile_entry(k, name, |g| {
        Cx::new(g, &s, len, threads, of_segment)?.block(&s)?;
        let schedule = format!("sample {{ threads {threads}; segments of {} }}", of_segment * 32);
        Ok(Body { threads, shared: BYTES, unit_dims: vec![s.count as u32], schedule })
    })?;
    Ok(Some(made))
}

fn shape(k: &Kernel, value: KValue) -> Option<Shape<'_>> {
    let KOp::Sample(along) = k.value(value).op else { return None };
    let [x, settings @ ..] = k.value(value).args.as_slice() else { return None };
    let KOp::Load(o, view) = &k.value(*x).op else { return None };
    let plain = view.dynamic.is_empty() && view.guard.is_none() && k.operand(*o).dtype == DType::F32;
    let stores: Vec<KValue> = k.ids().filter(|v| k.value(*v).is_sink()).collect();
    let all = stores.iter().fold(KAxes::EMPTY, |s, v| s.union(k.value(*v).axes));
    let same = stores.iter().all(|v| matches!(k.value(*v).op, KOp::Store(..)) && k.value(*v).axes == all);
    let free = k.axes.iter().all(|a| a.lo.is_none() && a.hi.is_none()) && !all.has(along);
    let rows: Vec<KAxis> = all.iter().collect();
    let count = rows.iter().map(|a| k.axis(*a).len as i64).product::<i64>();
    let fits = plain && same && free && k.units.is_empty() && count <= i32::MAX as i64;
    fits.then_some(Shape { value, along, rows, count, logits: (*o, view), settings, stores })
}

/// A block at its row.
struct Cx<'a> {
    g: Gen<'a, Simt>,
    tid: Reg,
    lane: Reg,
    warp: Reg,
    /// Where shared memory starts.
    shared: Reg,
    /// Where the row starts, and the bytes from element to element.
    row: Reg,
    step: i64,
    len: i64,
    threads: i64,
    /// Times 32 elements.
    of_segment: i64,
    settings: [Reg; 5],
}

/// What is known of a row once its greatest element is.
#[derive(Clone, Copy)]
struct Top {
    key: Reg,
    /// The greatest element, if it is finite, and what differences from it are multiplied with.
    x: Reg,
    scale: Reg,
    finite: Reg,
}

/// What is kept: keys above this one, and so many of those that equal it.
#[derive(Clone, Copy)]
struct Bar {
    key: Reg,
    equals: Reg,
}

impl<'a> Cx<'a> {
    fn new(mut g: Gen<'a, Simt>, s: &Shape, len: i64, threads: i64, of_segment: i64) -> Gives<Self> {
        let (lane, warp) = (g.e.lane(), g.e.warp());
        let b = &mut g.e.b;
        let tid = b.at_head(|b| b.mov(Type::U32, Src::Special(Special::Tid)));
        let shared = b.at_head(|b| b.mov(Type::U32, shared_start(BYTES)));
        let block = b.mov(Type::U32, Src::Special(Special::Block));
        let mut row = C::Int { reg: block, lo: 0, hi: s.count - 1 };
        for (i, a) in s.rows.iter().enumerate().rev() {
            let length = g.k.axis(*a).len as i64;
            let (outer, inner) = if i == 0 { (row, row) } else { coord::divmod(&mut g.e.b, row, length) };
            let depth = g.depth() - 1;
            let at = At { coord: inner, offsets: vec![0], vector: false, masked: false, tail: vec![None], depth };
            g.at[a.0 as usize] = Some(at);
            row = outer;
        }
        let (operand, view) = s.logits;
        let mut base = g.e.operand(operand);
        base = coord::add(&mut g.e.b, base, C::Const(view.base * 4));
        for a in &s.rows {
            let Some(at) = g.at[a.0 as usize].as_ref().map(|a| a.coord) else { continue };
            let part = coord::mul(&mut g.e.b, at, view.stride(*a) * 4);
            base = coord::add(&mut g.e.b, base, part);
        }
        let C::Global(row, _) = base else { return Err(Fail::Bug("a row that lies nowhere".into())) };
        let mut settings = [lane; 5];
        for (to, v) in settings.iter_mut().zip(s.settings) {
            let x = g.eval(*v, &[0; SLOTS])?;
            *to = g.e.reg(x);
        }
        let step = view.stride(s.along) * 4;
        Ok(Cx { g, tid, lane, warp, shared, row, step, len, threads, of_segment, settings })
    }

    fn block(mut self, s: &Shape) -> Gives<()> {
        self.g.e.note(s.value.0);
        let (done, exit) = (self.g.e.b.label(), self.g.e.b.label());
        let (key, first) = self.greatest();
        let answer = self.var(Type::B32, first);
        let [temperature, top_k, top_p, min_p, uniform] = self.settings;
        let warm = self.cmp(Cmp::Gt, Type::F32, temperature, Src::F32(0));
        let number = self.cmp(Cmp::Ne, Type::U32, key, Src::Int(0));
        let draws = self.bin(BinOp::And, Type::Pred, warm, number);
        self.g.e.b.bra(done, Some((draws, false)));
        self.g.e.b.open();
        let top = self.top(key, temperature);
        let bar = self.bar(top, top_k, top_p);
        self.drawn(top, bar, min_p, uniform, answer, exit);
        self.g.e.b.close();
        self.g.e.b.place(done);
        let writes = self.cmp(Cmp::Eq, Type::U32, self.tid, Src::Int(0));
        self.store(s, answer, writes)?;
        self.g.e.b.place(exit);
        Ok(())
    }

    /// What `top_k` and `top_p` leave.
    fn bar(&mut self, top: Top, top_k: Reg, top_p: Reg) -> Bar {
        let bar = Bar { key: self.var(Type::B32, Src::Int(0)), equals: self.var(Type::B32, Src::Int(0)) };
        let floor = self.var(Type::B32, Src::Int(1));
        // The weight of equals of the bar that `top_k` leaves out.
        let excess = self.var(Type::B64, Src::Int(0));
        let before = self.bin(BinOp::Sub, Type::U32, top_k, Src::Int(1));
        let all = self.cmp(Cmp::Ge, Type::U32, before, Src::Int(self.len - 1));
        self.unless(all, |cx| {
            let found = cx.select(Amount::One, floor, |cx, total| {
                let k = cx.cvt(Type::U64, Type::U32, Rounding::None, top_k);
                cx.bin(BinOp::Min, Type::U64, k, total)
            });
            let kept = cx.low(found.left);
            cx.set(Type::B32, bar.key, found.key);
            cx.set(Type::B32, bar.equals, kept);
            cx.set(Type::B32, floor, found.key);
            let out = cx.bin(BinOp::Sub, Type::U64, found.sum, found.left);
            let weight = cx.weight_of_key(top, found.key);
            let out = cx.bin(BinOp::MulLo, Type::U64, out, weight);
            cx.set(Type::B64, excess, out);
        });
        let all = self.cmp(Cmp::Lt, Type::F32, top_p, Src::F32(1f32.to_bits()));
        let all = self.not(all);
        self.unless(all, |cx| {
            let found = cx.select(Amount::Weight(top), floor, |cx, total| {
                let total = cx.bin(BinOp::Sub, Type::U64, total, excess);
                cx.part(top_p, total)
            });
            cx.set(Type::B32, bar.key, found.key);
            let weight = cx.weight_of_key(top, found.key);
            // So many of this weight as reach what is left.
            let most = cx.bin(BinOp::Sub, Type::U64, weight, Src::Int(1));
            let most = cx.bin(BinOp::Add, Type::U64, most, found.left);
            let equals = cx.bin(BinOp::Div, Type::U64, most, weight);
            let equals = cx.low(equals);
            cx.set(Type::B32, bar.equals, equals);
        });
        bar
    }

    fn store(&mut self, s: &Shape, answer: Reg, writes: Reg) -> Gives<()> {
        self.g.set(s.value, &[0; SLOTS], V::Reg(answer));
        self.g.only = Some(V::Reg(writes));
        for v in &s.stores {
            let stored = self.g.stored(*v);
            let x = self.g.eval(stored, &[0; SLOTS])?;
            let Some((o, view)) = self.g.k.value(*v).access() else { return Err(self.g.nowhere(*v)) };
            self.g.e.note(v.0);
            let access = self.g.access(*v, Base::Operand(o), view, &[0; SLOTS])?;
            self.g.e.store(&access, x);
        }
        self.g.only = None;
        Ok(())
    }
}
