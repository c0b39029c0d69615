//! Attention to many kept keys, in segments: each segment is an attention of its own, so that one token keeps the whole
//! machine busy, and a second kernel joins what they gave.
//!
//! A segment leaves its results and the logarithm of its sum of exponentials. Relative to the greatest of these, the
//! segments' weights are their exponentials, and the results are the weighted mean. How many segments there are follows
//! from the number of keys alone, so a prompt and a token that is decoded have the same bits.
use lolm_ir::DType;
use lolm_ir::Scalar;
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::graph::{Builder, Graph, GraphError, Leaf, LeafId, LeafKind, Output};
use lolm_ir::kernel::{KAxis, KOp, KValue, Kernel, Range, View};
use lolm_ir::op::{Binary, Op};
use std::sync::Arc;

/// Keys of a segment at least, and segments at most.
const SHORTEST: usize = 256;
const MOST: usize = 16;
/// Segments hold whole tiles of keys.
const TILE: usize = 64;

/// Segments of so many keys; fewer than two are none.
pub fn segments(keys: usize) -> Option<usize> {
    let n = (keys / SHORTEST).min(MOST);
    let n = if n == 0 { 0 } else { 1 << n.ilog2() };
    (n > 1 && keys.is_multiple_of(n * TILE)).then_some(n)
}

/// The kernel for each of so many segments of an axis; what it stores of each lies behind what it stores of the one before.
pub fn in_segments(k: &Kernel, keys: KAxis, count: usize) -> Kernel {
    let mut axes = k.axes.clone();
    let length = axes[keys.0 as usize].len / count as u32;
    axes[keys.0 as usize].len = length;
    let segment = KAxis(axes.len() as u8);
    axes.push(Range { name: "segment".into(), len: count as u32, lo: None, hi: None });
    let out = Kernel { axes, values: vec![], ..k.clone() };
    let mut cut = Cut { out, segment, keys, length, start: None, within: None, map: vec![] };
    for v in k.ids() {
        let to = cut.value(k, v);
        cut.map.push(to);
    }
    cut.out
}

struct Cut {
    out: Kernel,
    segment: KAxis,
    /// Within a segment, of this length.
    keys: KAxis,
    length: u32,
    /// Where the segment starts, and the number of a key in it, once they are there.
    start: Option<KValue>,
    within: Option<KValue>,
    /// The new value of each old one.
    map: Vec<KValue>,
}

impl Cut {
    fn push(&mut self, op: KOp, args: &[KValue], dtype: DType) -> KValue {
        self.out.push(op, args, dtype)
    }
    fn start(&mut self) -> KValue {
        if let Some(v) = self.start {
            return v;
        }
        let i = self.push(KOp::Index(self.segment), &[], DType::I32);
        let n = self.push(KOp::Const(Scalar::I32(self.length as i32)), &[], DType::I32);
        let v = self.push(KOp::Binary(Binary::Mul), &[i, n], DType::I32);
        *self.start.insert(v)
    }
    fn within(&mut self) -> KValue {
        match self.within {
            Some(v) => v,
            None => {
                let v = self.push(KOp::Index(self.keys), &[], DType::I32);
                *self.within.insert(v)
            }
        }
    }
    fn less_start(&mut self, x: KValue) -> KValue {
        let start = self.start();
        self.push(KOp::Binary(Binary::Sub), &[x, start], DType::I32)
    }

    fn value(&mut self, k: &Kernel, v: KValue) -> KValue {
        let value = k.value(v);
        let keys = self.keys;
        let is_key = |v: KValue| k.value(v).op == KOp::Index(keys);
        let args: Vec<KValue> = value.args.iter().map(|a| self.map[a.0 as usize]).collect();
        match (&value.op, value.args.as_slice()) {
            (KOp::Index(a), _) if *a == self.keys => {
                let within = self.within();
                let start = self.start();
                self.push(KOp::Binary(Binary::Add), &[start, within], DType::I32)
            }
            // What a key is compared with moves instead: so the keys that a row sees stay a range of the segment's.
            (KOp::Binary(op @ (Binary::Le | Binary::Lt)), [a, b]) if is_key(*a) != is_key(*b) => {
                let within = self.within();
                let moved = self.less_start(args[is_key(*a) as usize]);
                let args = if is_key(*a) { [within, moved] } else { [moved, within] };
                self.push(KOp::Binary(*op), &args, DType::Bool)
            }
            (KOp::Binary(Binary::Sub), [_, b]) if is_key(*b) => {
                let within = self.within();
                let moved = self.less_start(args[0]);
                self.push(KOp::Binary(Binary::Sub), &[moved, within], DType::I32)
            }
            (KOp::Load(o, view), _) => {
                let view = self.view(view, None);
                self.push(KOp::Load(*o, view), &args, value.dtype)
            }
            (KOp::Store(o, view), _) => {
                let one = k.operand(*o).len / self.out.axis(self.segment).len as u64;
                let view = self.view(view, Some(one));
                self.push(KOp::Store(*o, view), &args, value.dtype)
            }
            (op, _) => self.push(op.clone(), &args, value.dtype),
        }
    }

    /// The view within a segment; segments of what is stored are so far apart.
    fn view(&self, view: &View, apart: Option<u64>) -> View {
        let mut out = view.clone();
        let along = apart.map_or(view.stride(self.keys) * self.length as i64, |n| n as i64);
        if along != 0 {
            out.terms.push((self.segment, along));
        }
        out.dynamic.iter_mut().for_each(|(v, _)| *v = self.map[v.0 as usize]);
        out.guard = view.guard.map(|v| self.map[v.0 as usize]);
        out
    }
}

/// A graph that joins what segments gave: its leaves are their results and logarithms, its outputs those of all keys.
pub fn joining(g: &Graph, results: AxisSet, rows: AxisSet, count: usize) -> Result<(Graph, AxisId), GraphError> {
    let bare = g.bare();
    let mut b = Builder::extend(bare);
    let segment = b.axis("segment", count);
    let with = b.finish()?;
    let leaf = |name: &str, axes: AxisSet| {
        let dims = axes.with(segment).iter().map(|a| vec![a]).collect();
        Leaf { name: name.into(), kind: LeafKind::Input, dtype: DType::F32, dims }
    };
    let leaves = Arc::new(vec![leaf("results", results), leaf("lse", rows)]);
    let mut b = Builder::extend(Graph { leaves, ..with });
    let [o, lse] = [0, 1].map(|i| b.op(Op::Leaf(LeafId(i)), &[]));
    let (zero, one, inf) = (b.num(0.0), b.num(1.0), b.num(f32::INFINITY));
    let greatest = b.reduce_max(&[segment], lse); // [rows]
    let size = b.unary(lolm_ir::op::Unary::Abs, greatest);
    let infinite = b.eq(size, inf);
    let max = b.select(infinite, zero, greatest);
    let shifted = b.sub(lse, max);
    let e = b.exp(shifted); // [segment, rows]
    let sum = b.sum(&[segment], e);
    // A segment that a row sees has a term exp(0) if it is the greatest, so the sum is below 1 only where there is none.
    let denominator = b.max(sum, one);
    let w = b.div(e, denominator);
    let joined = b.dot(&[segment], w, o); // [rows, values]
    let log = b.log(sum);
    let lse = b.add(max, log);
    let mut out = b.finish()?;
    out.outputs = [joined, lse].map(|value| Output { name: String::new(), value, dims: vec![] }).into();
    Ok((out, segment))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lolm_ir::kernel::{interp, text};

    /// Keys in a ring of eight, of which a row sees the last six.
    const RING: &str = "kernel @ring {
  axis t 3
  axis s 8
  axis j 2
  in $x f32 24
  in $now i32 3
  in $v f32 16
  out $o f32 12
  out $lse f32 6
  %0 f32[t s] = load $x[8*t + s]
  %1 i32[t] = load $now[t]
  %2 i32[s] = index s
  %3 i32[t s] = sub %1 %2
  %4 i32[] = const 8
  %5 i32[t s] = rem %3 %4
  %6 i32[] = const 6
  %7 bool[t s] = lt %5 %6
  %8 bool[t s] = le %2 %1
  %9 bool[t s] = and %7 %8
  %10 f32[] = const -inf
  %11 f32[t s] = select %9 %0 %10
  %12 f32[t] = max.s %11
  %13 f32[t s] = sub %11 %12
  %14 f32[t s] = exp %13
  %15 f32[t] = sum.s %14
  %16 f32[t s] = div %14 %15
  %17 f32[s j] = load $v[2*s + j]
  %18 f32[t j] = dot.s %16 %17
  %19 f32[t j] = store $o[2*t + j] %18
  %20 f32[t] = log %15
  %21 f32[t] = add %12 %20
  %22 f32[t] = store $lse[t] %21
}";

    #[test]
    fn segments_joined_are_the_whole() {
        let whole = text::parse(RING).unwrap();
        let parts = in_segments(&whole, KAxis(1), 2);
        parts.verify().unwrap_or_else(|e| panic!("{e}\n{parts}"));
        let numbers = |n: usize| (0..n).map(|i| ((i * 37 + 11) % 19) as f64 / 5.0).collect::<Vec<f64>>();
        let data = vec![numbers(24), vec![9.0, 12.0, 23.0], numbers(16), vec![0.0; 12], vec![0.0; 6]];
        let run = |k: &Kernel| {
            let mut data = data.clone();
            interp::run(k, &mut data).unwrap_or_else(|e| panic!("{e}\n{k}"));
            (data[3].clone(), data[4].clone())
        };
        let ((o, lse), (parts, logs)) = (run(&whole), run(&parts));
        for t in 0..3 {
            let weights = [logs[t], logs[3 + t]].map(|l| (l - lse[t]).exp());
            assert!((weights[0] + weights[1] - 1.0).abs() < 1e-9, "{weights:?}");
            for j in 0..2 {
                let joined = weights[0] * parts[2 * t + j] + weights[1] * parts[6 + 2 * t + j];
                assert!((joined - o[2 * t + j]).abs() < 1e-9, "{joined} {o:?}");
            }
        }
    }

    /// Segments hold whole tiles, and are no more than what keeps a machine busy.
    #[test]
    fn lengths() {
        let all = [256, 500, 512, 1024, 2048, 3000, 4096, 32768].map(segments);
        assert_eq!(all, [None, None, Some(2), Some(4), Some(8), None, Some(16), Some(16)]);
    }
}
