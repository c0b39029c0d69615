//! Which kernels are a product: one dot, with sums around it, between functions of loads and stores of functions of it.
use lolm_ir::DType;
use lolm_ir::kernel::{Fold, KAxes, KAxis, KOp, KValue, Kernel, Mode, View};

/// What the elements that are multiplied are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Factor {
    F32,
    /// Both are bf16 numbers, so their products are exact in f32.
    Bf16,
}

/// A kernel as a product of A [batch, rows, depth] and B [batch, cols, depth]; each list of axes is one index, the last
/// axis changing fastest.
#[derive(Clone, Debug)]
pub struct Product {
    pub batch: Vec<KAxis>,
    pub rows: Vec<KAxis>,
    pub cols: Vec<KAxis>,
    pub depth: Vec<KAxis>,
    /// The two factors; of bf16 the values before they are widened.
    pub a: KValue,
    pub b: KValue,
    pub factor: Factor,
    /// What the epilogue knows: the dot after its sums.
    pub result: KValue,
    pub sinks: Vec<KValue>,
}

/// Products that are shorter are done well by anybody.
const LEAST_DEPTH: i64 = 32;
/// Coordinates, padded to whole tiles, fit 32 bits.
const LONGEST: i64 = 1 << 30;

/// How many numbers an index over these axes takes.
pub fn count(k: &Kernel, axes: &[KAxis]) -> i64 {
    axes.iter().map(|a| k.axis(*a).len as i64).fold(1, i64::saturating_mul)
}

/// Everything that the values are computed from, those at which `stop` holds included but not gone beyond.
pub fn cone(k: &Kernel, from: &[KValue], stop: impl Fn(KValue) -> bool) -> Vec<KValue> {
    let mut seen = vec![false; k.values.len()];
    let mut open = from.to_vec();
    while let Some(v) = open.pop() {
        if !std::mem::replace(&mut seen[v.0 as usize], true) && !stop(v) {
            open.extend(k.uses(v));
        }
    }
    k.ids().filter(|v| seen[v.0 as usize]).collect()
}

/// Functions of coordinates and of memory at them.
fn is_elementwise(op: &KOp) -> bool {
    match op {
        KOp::Const(_) | KOp::Index(_) | KOp::Load(..) | KOp::Random { .. } | KOp::Unary(_) | KOp::Binary(_) => true,
        KOp::Fma | KOp::Select | KOp::Cast(_) => true,
        KOp::Reduce(..) | KOp::ArgMax(_) | KOp::Dot(_) | KOp::Scan { .. } | KOp::Prev(_) | KOp::Last(_) => false,
        KOp::Sample(_) | KOp::Store(..) | KOp::Accumulate(..) => false,
    }
}

/// The kernel as a product, if it is one. The answer depends on the depth and on what is multiplied, never on the number
/// of rows, columns or products.
pub fn product(k: &Kernel) -> Option<Product> {
    if !k.units.is_empty() || k.axes.iter().any(|a| a.lo.is_some() || a.hi.is_some()) {
        return None;
    }
    let mut dots = k.ids().filter(|v| matches!(k.value(*v).op, KOp::Dot(_)));
    let (dot, None) = (dots.next()?, dots.next()) else { return None };
    let [x, y] = k.value(dot).args[..] else { return None };
    let (result, depth) = sums(k, dot);
    let sinks: Vec<KValue> = k.ids().filter(|v| k.value(*v).is_sink()).collect();
    let out = k.value(result).axes;
    if !sinks.iter().all(|s| matches!(k.value(*s).op, KOp::Store(..)) && k.value(*s).axes == out) {
        return None;
    }
    let (factor, a, b) = factors(k, x, y);
    let prologue = cone(k, &[a, b], |_| false);
    let overwritten = |v: &KValue| matches!(k.value(*v).op, KOp::Load(o, _) if k.operand(o).mode != Mode::In);
    let inner: Vec<KValue> = sinks.iter().flat_map(|s| k.uses(*s)).collect();
    let epilogue = cone(k, &inner, |v| v == result);
    let plain = |v: &KValue| *v == result || is_elementwise(&k.value(*v).op);
    if !prologue.iter().chain(&epilogue).all(plain) || prologue.iter().any(overwritten) {
        return None;
    }
    let (in_a, in_b) = (k.value(x).axes, k.value(y).axes);
    let both = KAxes(in_a.0 & in_b.0);
    let pick = |set: KAxes, by: KValue| ordered(k, KAxes(set.0 & out.0), by);
    let (rows, cols) = (pick(KAxes(in_a.0 & !both.0), a), pick(KAxes(in_b.0 & !both.0), b));
    let batch: Vec<KAxis> = out.iter().filter(|a| both.has(*a)).collect();
    let p = Product { batch, rows, cols, depth, a, b, factor, result, sinks };
    (p.fits(k) && !(p.rows.is_empty() && p.cols.is_empty())).then_some(p)
}

impl Product {
    fn fits(&self, k: &Kernel) -> bool {
        let depth = count(k, &self.depth);
        let all = [&self.batch, &self.rows, &self.cols];
        let tiles = all.iter().map(|a| count(k, a)).fold(1, i64::saturating_mul);
        (LEAST_DEPTH..LONGEST).contains(&depth) && all.iter().all(|a| count(k, a) < LONGEST) && tiles < 1 << 40
    }
}

/// The value after the sums around a dot that nothing else uses, and all summed axes, the innermost last.
fn sums(k: &Kernel, dot: KValue) -> (KValue, Vec<KAxis>) {
    let mut depth: Vec<KAxis> = k.value(dot).op.folds().into_iter().collect();
    let mut result = dot;
    loop {
        let mut users = k.ids().filter(|v| k.uses(*v).contains(&result));
        let (Some(user), None) = (users.next(), users.next()) else { return (result, depth) };
        let KOp::Reduce(Fold::Sum, axis) = k.value(user).op else { return (result, depth) };
        depth.insert(0, axis);
        result = user;
    }
}

/// What is multiplied: bf16 where both sides are.
fn factors(k: &Kernel, x: KValue, y: KValue) -> (Factor, KValue, KValue) {
    let narrow = |v: KValue| match &k.value(v).op {
        _ if k.value(v).dtype == DType::Bf16 => Some(v),
        KOp::Cast(DType::F32) => Some(k.value(v).args[0]).filter(|u| k.value(*u).dtype == DType::Bf16),
        _ => None,
    };
    match (narrow(x), narrow(y)) {
        (Some(a), Some(b)) => (Factor::Bf16, a, b),
        _ => (Factor::F32, x, y),
    }
}

/// The axes in the order in which the first load of a value has them in memory.
fn ordered(k: &Kernel, axes: KAxes, by: KValue) -> Vec<KAxis> {
    let mut axes: Vec<KAxis> = axes.iter().collect();
    if let Some(view) = main_view(k, by) {
        axes.sort_by_key(|a| (std::cmp::Reverse(view.stride(*a).unsigned_abs().wrapping_sub(1)), *a));
    }
    axes
}

/// The view of the load that varies over most axes.
pub fn main_view(k: &Kernel, v: KValue) -> Option<&View> {
    let loads = cone(k, &[v], |_| false).into_iter().filter_map(|v| match &k.value(v).op {
        KOp::Load(_, view) => Some((k.value(v).axes.iter().count(), view)),
        _ => None,
    });
    loads.reduce(|a, b| if b.0 > a.0 { b } else { a }).map(|l| l.1)
}
