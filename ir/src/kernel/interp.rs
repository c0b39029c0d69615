//! What a kernel means: every value materialised over its axes by plain loops in f64, casts to bf16 and i32 rounded.
//!
//! A value lies row-major over its axes in ascending order; i32 and bool are whole numbers in f64. All loads see the
//! operands as they were before the kernel.
use super::{Fold, KAxes, KAxis, KOp, KValue, Kernel, OperandId, View};
use crate::dtype::DType;
use crate::interp::{binary_scalar, cast_scalar, choose, maximum, unary_scalar};
use crate::philox;
use std::ops::Range;

/// Why a kernel could not be run on these operands.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RunError {
    #[error("{found} operands, expected {expected}")]
    Operands { expected: usize, found: usize },
    #[error("operand ${name} has {found} elements, expected {expected}")]
    Length { name: String, expected: u64, found: usize },
    #[error("`{line}` touches element {element} of {len}")]
    OutOfBounds { line: String, element: i64, len: usize },
}

/// Runs a verified kernel on operands given as numbers.
pub fn run(k: &Kernel, operands: &mut [Vec<f64>]) -> Result<(), RunError> {
    if operands.len() != k.operands.len() {
        return Err(RunError::Operands { expected: k.operands.len(), found: operands.len() });
    }
    for (o, data) in k.operands.iter().zip(&*operands) {
        if data.len() as u64 != o.len {
            return Err(RunError::Length { name: o.name.clone(), expected: o.len, found: data.len() });
        }
    }
    let mut r = Run { k, values: vec![], before: operands.to_vec() };
    for v in k.ids() {
        let data = match &k.value(v).op {
            KOp::Store(o, view) => r.write(v, view, &mut operands[o.0 as usize], |_, x| x)?,
            KOp::Accumulate(o, view) => r.write(v, view, &mut operands[o.0 as usize], |sum, x| sum + x)?,
            _ => r.value(v)?,
        };
        r.values.push(data);
    }
    Ok(())
}

struct Run<'a> {
    k: &'a Kernel,
    values: Vec<Vec<f64>>,
    before: Vec<Vec<f64>>,
}

impl Run<'_> {
    fn len(&self, a: KAxis) -> usize {
        self.k.axis(a).len as usize
    }

    /// The distance between neighbours along `a` of a value over `axes`; 0 where it does not vary.
    fn stride(&self, axes: KAxes, a: KAxis) -> usize {
        if !axes.has(a) {
            return 0;
        }
        axes.iter().filter(|b| *b > a).map(|b| self.len(b)).product()
    }

    /// For each element of the space `over`, row-major: `Σ stride(axis) · index`.
    fn walk(&self, over: KAxes, stride: impl Fn(KAxis) -> i64) -> Vec<i64> {
        let mut out = vec![0];
        for a in over.iter() {
            let s = stride(a);
            out = out.iter().flat_map(|o| (0..self.len(a) as i64).map(move |i| o + s * i)).collect();
        }
        out
    }

    /// Where the value of `v` lies at each element of the space.
    fn places(&self, v: KValue, over: KAxes) -> Vec<usize> {
        let axes = self.k.value(v).axes;
        self.walk(over, |a| self.stride(axes, a) as i64).into_iter().map(|o| o as usize).collect()
    }

    /// The value of `v` at each element of the space, which has all of its axes.
    fn over(&self, v: KValue, space: KAxes) -> Vec<f64> {
        let data = &self.values[v.0 as usize];
        self.places(v, space).into_iter().map(|o| data[o]).collect()
    }

    /// The element that a view addresses at each point of the space; nothing where the guard is false.
    fn elements(&self, view: &View, space: KAxes) -> Vec<Option<i64>> {
        let mut at = self.walk(space, |a| view.stride(a));
        for (d, s) in &view.dynamic {
            at.iter_mut().zip(self.over(*d, space)).for_each(|(e, x)| *e += s * x as i64);
        }
        let guard = view.guard.map(|g| self.over(g, space));
        let on = |i: usize| guard.as_ref().is_none_or(|g| g[i] != 0.0);
        at.into_iter().enumerate().map(|(i, e)| on(i).then_some(e + view.base)).collect()
    }

    fn out_of_bounds(&self, v: KValue, element: i64, len: usize) -> RunError {
        RunError::OutOfBounds { line: self.k.line(v), element, len }
    }

    fn load(&self, v: KValue, o: OperandId, view: &View) -> Result<Vec<f64>, RunError> {
        let data = &self.before[o.0 as usize];
        let read = |e: Option<i64>| match e {
            None => Ok(0.0),
            Some(e) => match usize::try_from(e).ok().and_then(|e| data.get(e)) {
                Some(x) => Ok(*x),
                None => Err(self.out_of_bounds(v, e, data.len())),
            },
        };
        self.elements(view, self.k.value(v).axes).into_iter().map(read).collect()
    }

    fn write(
        &self,
        v: KValue,
        view: &View,
        data: &mut [f64],
        combine: impl Fn(f64, f64) -> f64,
    ) -> Result<Vec<f64>, RunError> {
        let space = self.k.value(v).axes;
        let xs = self.over(self.k.value(v).args[0], space);
        for (e, x) in self.elements(view, space).into_iter().zip(xs) {
            let Some(e) = e else { continue };
            let len = data.len();
            match usize::try_from(e).ok().and_then(|e| data.get_mut(e)) {
                Some(place) => *place = combine(*place, x),
                None => return Err(self.out_of_bounds(v, e, len)),
            }
        }
        Ok(vec![])
    }

    fn value(&self, v: KValue) -> Result<Vec<f64>, RunError> {
        let k = self.k;
        let value = k.value(v);
        let space = value.axes;
        let arg = |i: usize| self.over(value.args[i], space);
        let dtype = |i: usize| k.value(value.args[i]).dtype;
        Ok(match &value.op {
            KOp::Load(o, view) => self.load(v, *o, view)?,
            KOp::Store(..) | KOp::Accumulate(..) => vec![],
            KOp::Const(c) => vec![c.as_f64()],
            KOp::Index(a) => self.walk(space, |b| (b == *a) as i64).into_iter().map(|i| i as f64).collect(),
            KOp::Random { site } => {
                let draw = |(s, (t, i)): (&f64, (&f64, &f64))| {
                    philox::uniform(*s as i32 as u32, *site, *t as i32 as u32, *i as i32 as u32 as u64) as f64
                };
                arg(0).iter().zip(arg(1).iter().zip(&arg(2))).map(draw).collect()
            }
            KOp::Unary(u) => arg(0).into_iter().map(|x| unary_scalar(*u, dtype(0), x)).collect(),
            KOp::Binary(b) => {
                let f = |(x, y)| binary_scalar(*b, dtype(0), x, y);
                arg(0).into_iter().zip(arg(1)).map(f).collect()
            }
            KOp::Fma => arg(0).iter().zip(&arg(1)).zip(&arg(2)).map(|((a, b), c)| a * b + c).collect(),
            KOp::Select => {
                let pick = |((c, x), y): ((&f64, &f64), &f64)| if *c != 0.0 { *x } else { *y };
                arg(0).iter().zip(&arg(1)).zip(&arg(2)).map(pick).collect()
            }
            KOp::Cast(to) => arg(0).into_iter().map(|x| cast_scalar(*to, x)).collect(),
            KOp::Reduce(Fold::Sum, a) => self.fold(v, *a, |_| 0.0, |s, x, _| s + x[0]),
            KOp::Reduce(Fold::Max, a) => {
                let least = if value.dtype == DType::I32 { i32::MIN as f64 } else { f64::NEG_INFINITY };
                self.fold(v, *a, |_| least, |s, x, _| maximum(s, x[0]))
            }
            KOp::Dot(a) => {
                let start = value.args.get(2).map(|acc| self.over(*acc, space));
                let start = |i: usize| start.as_ref().map_or(0.0, |s| s[i]);
                self.fold(v, *a, start, |s, x, _| s + x[0] * x[1])
            }
            KOp::ArgMax(a) => self.argmax(v, *a),
            KOp::Sample(a) => self.sample(v, *a),
            KOp::Scan { axis, reverse } => self.scan(v, *axis, *reverse, false),
            KOp::Prev(_) => {
                let KOp::Scan { axis, reverse } = k.value(value.args[0]).op else { return Ok(vec![]) };
                self.scan(value.args[0], axis, reverse, true)
            }
            KOp::Last(a) => self.last(v, *a),
        })
    }

    /// The indices along an axis at each point of a space that lacks it.
    fn ranges(&self, a: KAxis, space: KAxes) -> Vec<Range<usize>> {
        let len = self.len(a) as i64;
        let cut = |x: f64| (x as i64).clamp(0, len) as usize;
        let bound = |b: Option<KValue>| b.map(|b| self.over(b, space));
        let (lo, hi) = (bound(self.k.axis(a).lo), bound(self.k.axis(a).hi));
        let points: usize = space.iter().map(|a| self.len(a)).product();
        let lo = |i: usize| lo.as_ref().map_or(0, |l| cut(l[i]));
        let hi = |i: usize| hi.as_ref().map_or(len as usize, |h| cut(h[i]));
        (0..points).map(|i| lo(i)..hi(i).max(lo(i))).collect()
    }

    /// Folds the first two operands, which is all that any fold takes along the axis.
    fn fold(
        &self,
        v: KValue,
        a: KAxis,
        start: impl Fn(usize) -> f64,
        step: impl Fn(f64, [f64; 2], usize) -> f64,
    ) -> Vec<f64> {
        let value = self.k.value(v);
        let along: Vec<(Vec<usize>, usize, &Vec<f64>)> = value
            .args
            .iter()
            .take(2)
            .map(|x| (self.places(*x, value.axes), self.stride(self.k.value(*x).axes, a), &self.values[x.0 as usize]))
            .collect();
        let at = |n: usize, i: usize, j: usize| along.get(n).map_or(0.0, |(at, s, data)| data[at[i] + s * j]);
        let ranges = self.ranges(a, value.axes).into_iter().enumerate();
        ranges.map(|(i, r)| r.fold(start(i), |s, j| step(s, [at(0, i, j), at(1, i, j)], j))).collect()
    }

    fn argmax(&self, v: KValue, a: KAxis) -> Vec<f64> {
        let value = self.k.value(v);
        let x = value.args[0];
        let (at, s) = (self.places(x, value.axes), self.stride(self.k.value(x).axes, a));
        let data = &self.values[x.0 as usize];
        let first = |(i, r): (usize, Range<usize>)| {
            let best = r.clone().fold((f64::NEG_INFINITY, r.start), |(best, place), j| {
                let x = data[at[i] + s * j];
                if x > best { (x, j) } else { (best, place) }
            });
            best.1 as f64
        };
        self.ranges(a, value.axes).into_iter().enumerate().map(first).collect()
    }

    fn sample(&self, v: KValue, a: KAxis) -> Vec<f64> {
        let value = self.k.value(v);
        let x = value.args[0];
        let (at, s) = (self.places(x, value.axes), self.stride(self.k.value(x).axes, a));
        let data = &self.values[x.0 as usize];
        let settings: Vec<Vec<f64>> = value.args[1..].iter().map(|x| self.over(*x, value.axes)).collect();
        let one = |(i, r): (usize, Range<usize>)| {
            let row: Vec<f64> = r.clone().map(|j| data[at[i] + s * j]).collect();
            (r.start + choose(&row, std::array::from_fn(|n| settings[n][i]))) as f64
        };
        self.ranges(a, value.axes).into_iter().enumerate().map(one).collect()
    }

    /// The states after each step of the scan `v`, or before it.
    fn scan(&self, v: KValue, axis: KAxis, reverse: bool, before: bool) -> Vec<f64> {
        let value = self.k.value(v);
        let rest = value.axes.without(axis);
        let (a, b) = (self.over(value.args[0], value.axes), self.over(value.args[1], value.axes));
        let init = self.over(value.args[2], rest);
        let step = self.stride(value.axes, axis);
        let starts = self.walk(rest, |b| self.stride(value.axes, b) as i64);
        let mut out = vec![0.0; a.len()];
        for ((start, range), h) in starts.into_iter().zip(self.ranges(axis, rest)).zip(init) {
            let mut h = h;
            for t in 0..self.len(axis) {
                let t = if reverse { self.len(axis) - 1 - t } else { t };
                let i = start as usize + t * step;
                let next = if range.contains(&t) { a[i] * h + b[i] } else { h };
                out[i] = if before { h } else { next };
                h = next;
            }
        }
        out
    }

    fn last(&self, v: KValue, a: KAxis) -> Vec<f64> {
        let scan = self.k.value(v).args[0];
        let end = match self.k.value(scan).op {
            KOp::Scan { reverse: true, .. } => 0,
            _ => self.len(a) - 1,
        };
        let step = self.stride(self.k.value(scan).axes, a);
        let data = &self.values[scan.0 as usize];
        self.places(scan, self.k.value(v).axes).into_iter().map(|o| data[o + end * step]).collect()
    }
}
