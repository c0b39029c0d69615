//! Merge axes: two axes that a kernel always walks together, as one dimension of memory, become one.
//!
//! Before: one axis a named axis of the graph. After: the same mathematics over fewer and longer axes; the order in which
//! a reduction over a merged pair runs is that of the pair, outer before inner.
use lolm_ir::kernel::{KAxes, KAxis, KOp, KValue, Kernel, Value, View};

/// Merges pairs until none is left.
pub fn merge_axes(mut k: Kernel) -> Kernel {
    if !k.units.is_empty() {
        return k;
    }
    while let Some((outer, inner)) = pair(&k) {
        k = merged(&k, outer, inner);
    }
    k
}

fn pair(k: &Kernel) -> Option<(KAxis, KAxis)> {
    let axes = || (0..k.axes.len() as u8).map(KAxis);
    axes().flat_map(|o| axes().map(move |i| (o, i))).find(|(o, i)| o != i && mergeable(k, *o, *i))
}

fn view_of(op: &KOp) -> Option<&View> {
    match op {
        KOp::Load(_, v) | KOp::Store(_, v) | KOp::Accumulate(_, v) => Some(v),
        _ => None,
    }
}

fn mergeable(k: &Kernel, outer: KAxis, inner: KAxis) -> bool {
    let (o, i) = (k.axis(outer), k.axis(inner));
    if o.lo.is_some() || o.hi.is_some() || i.lo.is_some() || i.hi.is_some() {
        return false;
    }
    let stride = |v: &View, a: KAxis| v.terms.iter().find(|t| t.0 == a).map_or(0, |t| t.1);
    let mut used = false;
    for (n, v) in k.values.iter().enumerate() {
        if let Some(view) = view_of(&v.op)
            && stride(view, outer) != stride(view, inner) * i.len as i64
        {
            return false;
        }
        if v.axes.has(outer) != v.axes.has(inner) && !is_first_fold(k, n, outer, inner) {
            return false;
        }
        used |= v.axes.has(inner);
        match v.op {
            KOp::Index(a)
            | KOp::ArgMax(a)
            | KOp::Sample(a)
            | KOp::Scan { axis: a, .. }
            | KOp::Prev(a)
            | KOp::Last(a)
                if a == outer || a == inner =>
            {
                return false;
            }
            // The outer axis folds only what the inner fold gives.
            KOp::Reduce(_, a) if a == outer && !is_first_fold(k, v.args[0].0 as usize, outer, inner) => return false,
            KOp::Dot(a) if a == outer => return false,
            _ => {}
        }
    }
    used && o.len as u64 * i.len as u64 <= u32::MAX as u64
}

/// True if value n folds the inner axis away, and its only user folds the outer one in the same way.
fn is_first_fold(k: &Kernel, n: usize, outer: KAxis, inner: KAxis) -> bool {
    let v = &k.values[n];
    if !v.axes.has(outer) || v.axes.has(inner) {
        return false;
    }
    let fold = match v.op {
        KOp::Reduce(f, a) if a == inner => f,
        KOp::Dot(a) if a == inner && v.args.len() == 2 => lolm_ir::kernel::Fold::Sum,
        _ => return false,
    };
    let id = KValue(n as u32);
    let mut users = k.values.iter().filter(|u| u.args.contains(&id));
    let ok = users.next().is_some_and(|u| u.op == KOp::Reduce(fold, outer));
    let in_views = k.values.iter().filter_map(|u| view_of(&u.op));
    ok && users.next().is_none()
        && !in_views.flat_map(|w| w.dynamic.iter().map(|d| d.0).chain(w.guard)).any(|d| d == id)
}

/// The kernel with `inner` grown to the pair's length and `outer` gone; the outer folds vanish.
fn merged(k: &Kernel, outer: KAxis, inner: KAxis) -> Kernel {
    let mut out = Kernel { name: k.name.clone(), operands: k.operands.clone(), ..Kernel::default() };
    let place = |a: KAxis| KAxis(a.0 - (a.0 > outer.0) as u8);
    for (n, a) in k.axes.iter().enumerate() {
        let mut a = a.clone();
        if n == inner.0 as usize {
            a.name = format!("{}_{}", k.axis(outer).name, a.name);
            a.len *= k.axis(outer).len;
        }
        if n != outer.0 as usize {
            out.axes.push(a);
        }
    }
    let mut map: Vec<KValue> = vec![];
    for v in &k.values {
        let args: Vec<KValue> = v.args.iter().map(|a| map[a.0 as usize]).collect();
        if matches!(v.op, KOp::Reduce(_, a) if a == outer) {
            map.push(args[0]);
            continue;
        }
        let op = renamed(&v.op, &map, outer, &place);
        let axes: KAxes = v.axes.iter().filter(|a| *a != outer).map(place).collect();
        let axes = if folds(&v.op, inner) { axes.without(place(inner)) } else { axes };
        out.values.push(Value { op, args, dtype: v.dtype, axes });
        map.push(KValue(out.values.len() as u32 - 1));
    }
    for a in &mut out.axes {
        a.lo = a.lo.map(|v| map[v.0 as usize]);
        a.hi = a.hi.map(|v| map[v.0 as usize]);
    }
    out
}

fn folds(op: &KOp, axis: KAxis) -> bool {
    matches!(op, KOp::Reduce(_, a) | KOp::Dot(a) if *a == axis)
}

fn renamed(op: &KOp, map: &[KValue], outer: KAxis, place: &impl Fn(KAxis) -> KAxis) -> KOp {
    let view = |v: &View| View {
        terms: v.terms.iter().filter(|t| t.0 != outer).map(|(a, s)| (place(*a), *s)).collect(),
        dynamic: v.dynamic.iter().map(|(d, s)| (map[d.0 as usize], *s)).collect(),
        base: v.base,
        guard: v.guard.map(|g| map[g.0 as usize]),
    };
    match op {
        KOp::Load(o, v) => KOp::Load(*o, view(v)),
        KOp::Store(o, v) => KOp::Store(*o, view(v)),
        KOp::Accumulate(o, v) => KOp::Accumulate(*o, view(v)),
        KOp::Index(a) => KOp::Index(place(*a)),
        KOp::Reduce(f, a) => KOp::Reduce(*f, place(*a)),
        KOp::ArgMax(a) => KOp::ArgMax(place(*a)),
        KOp::Sample(a) => KOp::Sample(place(*a)),
        KOp::Dot(a) => KOp::Dot(place(*a)),
        KOp::Scan { axis, reverse } => KOp::Scan { axis: place(*axis), reverse: *reverse },
        KOp::Prev(a) => KOp::Prev(place(*a)),
        KOp::Last(a) => KOp::Last(place(*a)),
        KOp::Const(_) | KOp::Random { .. } | KOp::Unary(_) | KOp::Binary(_) => op.clone(),
        KOp::Fma | KOp::Select | KOp::Cast(_) => op.clone(),
    }
}
