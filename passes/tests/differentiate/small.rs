//! The small operations.
use super::{Case, POSITIVE, case, check, indices, param};
use lolm_ir::graph::{Builder, ValueId};
use lolm_ir::op::{Binary, Op, Reduction, Unary};
use lolm_ir::{AxisId, AxisSet, DType};

fn axes(b: &mut Builder) -> [AxisId; 3] {
    [("t", 3), ("d", 4), ("e", 2)].map(|(n, l)| b.axis(n, l))
}

fn unary(b: &mut Builder, u: Unary) -> ValueId {
    let [t, d, _] = axes(b);
    let x = param(b, "x", &[t, d]);
    b.unary(u, x)
}

#[test]
fn unary_operations() {
    for u in Unary::ALL.into_iter().filter(|u| *u != Unary::Not) {
        let build: fn(&mut Builder) -> ValueId = match u {
            Unary::Neg => |b| unary(b, Unary::Neg),
            Unary::Abs => |b| unary(b, Unary::Abs),
            Unary::Exp => |b| unary(b, Unary::Exp),
            Unary::Log => |b| unary(b, Unary::Log),
            Unary::Sqrt => |b| unary(b, Unary::Sqrt),
            Unary::Rsqrt => |b| unary(b, Unary::Rsqrt),
            Unary::Erf => |b| unary(b, Unary::Erf),
            Unary::Tanh => |b| unary(b, Unary::Tanh),
            Unary::Sigmoid => |b| unary(b, Unary::Sigmoid),
            Unary::Silu => |b| unary(b, Unary::Silu),
            Unary::Gelu => |b| unary(b, Unary::Gelu),
            Unary::GeluTanh => |b| unary(b, Unary::GeluTanh),
            Unary::Softplus => |b| unary(b, Unary::Softplus),
            Unary::Not => continue,
        };
        let positive = matches!(u, Unary::Log | Unary::Sqrt | Unary::Rsqrt);
        check(&Case { name: u.name(), range: if positive { POSITIVE } else { (-3.0, 3.0) }, feeds: &[], build });
    }
}

/// x\[t, d\] and y\[d, e\], which lack an axis of each other.
fn binary(b: &mut Builder, op: Binary) -> ValueId {
    let [t, d, e] = axes(b);
    let (x, y) = (param(b, "x", &[t, d]), param(b, "y", &[d, e]));
    b.binary(op, x, y)
}

#[test]
fn binary_operations_sum_over_what_an_operand_lacks() {
    check(&case("add", |b| binary(b, Binary::Add)));
    check(&case("sub", |b| binary(b, Binary::Sub)));
    check(&case("mul", |b| binary(b, Binary::Mul)));
    check(&Case { range: POSITIVE, ..case("div", |b| binary(b, Binary::Div)) });
    check(&case("max", |b| binary(b, Binary::Max)));
    check(&case("min", |b| binary(b, Binary::Min)));
    check(&case("mul of a value with itself", |b| {
        let [t, d, _] = axes(b);
        let x = param(b, "x", &[t, d]);
        b.mul(x, x)
    }));
}

#[test]
fn selections_casts_and_stops() {
    check(&case("select", |b| {
        let [t, d, e] = axes(b);
        let (x, y) = (param(b, "x", &[t, d]), param(b, "y", &[d, e]));
        let (i, j) = (b.iota(t), b.iota(e));
        let cond = b.lt(j, i);
        b.select(cond, x, y)
    }));
    check(&case("cast", |b| {
        let [t, d, _] = axes(b);
        let x = param(b, "x", &[t, d]);
        let i = b.iota(d);
        let i = b.cast(i, DType::F32);
        b.mul(x, i)
    }));
    check(&case("mix", |b| {
        let [t, d, e] = axes(b);
        let (g, x, y) = (param(b, "g", &[d]), param(b, "x", &[t, d]), param(b, "y", &[d, e]));
        b.op(Op::Mix, &[g, x, y])
    }));
}

#[test]
fn reductions() {
    check(&case("sum", |b| {
        let [t, d, e] = axes(b);
        let x = param(b, "x", &[t, d, e]);
        b.sum(&[d, e], x)
    }));
    check(&case("mean", |b| {
        let [t, d, e] = axes(b);
        let x = param(b, "x", &[t, d, e]);
        b.mean(&[t, e], x)
    }));
    check(&case("reduce_max", |b| {
        let [t, d, e] = axes(b);
        let x = param(b, "x", &[t, d, e]);
        b.op(Op::Reduce { kind: Reduction::Max, axes: AxisSet::of(&[t, d]) }, &[x])
    }));
}

#[test]
fn dots() {
    check(&case("linear", |b| {
        let [t, d, e] = axes(b);
        let (x, w) = (param(b, "x", &[t, d]), param(b, "w", &[e, d]));
        b.dot(&[d], x, w)
    }));
    check(&case("dot with a batch axis", |b| {
        let [t, d, e] = axes(b);
        let (x, y) = (param(b, "x", &[t, d, e]), param(b, "y", &[t, d]));
        b.dot(&[d], x, y)
    }));
    check(&case("dot over two axes", |b| {
        let [t, d, e] = axes(b);
        let h = b.axis("h", 2);
        let (x, y) = (param(b, "x", &[t, d, h]), param(b, "y", &[d, h, e]));
        b.dot(&[d, h], x, y)
    }));
    check(&case("dot of a value with itself", |b| {
        let [t, d, _] = axes(b);
        let x = param(b, "x", &[t, d]);
        b.dot(&[d], x, x)
    }));
    check(&case("dot whose adjoint lacks an axis", |b| {
        let [t, d, e] = axes(b);
        let (x, w) = (param(b, "x", &[t, d]), param(b, "w", &[e, d]));
        let y = b.dot(&[d], x, w);
        b.mean(&[e], y)
    }));
}

fn recurrence(b: &mut Builder, reverse: bool, constant_decay: bool, init: bool) -> ValueId {
    let [t, d, e] = axes(b);
    let a = if constant_decay { param(b, "a", &[d]) } else { param(b, "a", &[t, d]) };
    let mut args = vec![a, param(b, "b", &[t, d, e])];
    if init {
        args.push(param(b, "init", &[e]));
    }
    b.op(Op::Recurrence { axis: t, reverse }, &args)
}

#[test]
fn recurrences() {
    check(&case("recurrence", |b| recurrence(b, false, false, false)));
    check(&case("recurrence from a state", |b| recurrence(b, false, false, true)));
    check(&case("recurrence with constant decay", |b| recurrence(b, false, true, true)));
    check(&case("reverse recurrence", |b| recurrence(b, true, false, false)));
    check(&case("reverse recurrence from a state", |b| recurrence(b, true, false, true)));
    check(&case("reverse recurrence with constant decay", |b| recurrence(b, true, true, true)));
    check(&case("recurrence of constant input", |b| {
        let [t, d, _] = axes(b);
        let (a, x) = (param(b, "a", &[t, d]), param(b, "x", &[d]));
        b.op(Op::Recurrence { axis: t, reverse: false }, &[a, x])
    }));
}

#[test]
fn names_elements_and_slices() {
    check(&case("rename", |b| {
        let [t, d, _] = axes(b);
        let s = b.axis("s", 3);
        let x = param(b, "x", &[t, d]);
        let y = b.rename(x, t, s);
        b.dot(&[d], x, y)
    }));
    check(&case("one element of a long axis", |b| {
        let t = b.axis("t", 5);
        let d = b.axis("d", 2);
        let x = param(b, "x", &[t, d]);
        b.at(x, t, 3)
    }));
    check(&case("elements", |b| {
        let [t, d, _] = axes(b);
        let x = param(b, "x", &[t, d]);
        let (first, last) = (b.at(x, t, 0), b.at(x, t, 2));
        let y = b.mul(first, last);
        b.add(y, first)
    }));
    check(&case("slices that tile", |b| {
        let d = b.axis("d", 5);
        let (e, f) = (b.axis("e", 2), b.axis("f", 3));
        let x = param(b, "x", &[d]);
        let (y, z) = (b.slice(x, d, 0, e), b.slice(x, d, 2, f));
        b.mul(y, z)
    }));
    check(&case("slices that overlap", |b| {
        let d = b.axis("d", 5);
        let (e, f) = (b.axis("e", 3), b.axis("f", 3));
        let x = param(b, "x", &[d]);
        let (y, z) = (b.slice(x, d, 0, e), b.slice(x, d, 1, f));
        b.mul(y, z)
    }));
    check(&case("slices beside a whole use", |b| {
        let d = b.axis("d", 4);
        let e = b.axis("e", 2);
        let x = param(b, "x", &[d]);
        let (y, z) = (b.slice(x, d, 0, e), b.slice(x, d, 2, e));
        let y = b.mul(y, z);
        b.add(x, y)
    }));
    check(&case("pad", |b| {
        let [_, d, e] = axes(b);
        let x = param(b, "x", &[e]);
        b.op(Op::Pad { axis: e, start: 1, to: d }, &[x])
    }));
}

#[test]
fn stacks_concats_and_shifts() {
    check(&case("stack", |b| {
        let [t, d, e] = axes(b);
        let (x, y) = (param(b, "x", &[t]), param(b, "y", &[d]));
        b.op(Op::Stack { axis: e }, &[x, y])
    }));
    check(&case("concat", |b| {
        let [t, d, e] = axes(b);
        let c = b.axis("c", 6);
        let (x, y) = (param(b, "x", &[t, d]), param(b, "y", &[e]));
        b.op(Op::Concat { axis: c, parts: vec![d, e] }, &[x, y])
    }));
    for build in [|b: &mut Builder| shift(b, 2), |b: &mut Builder| shift(b, -1), |b: &mut Builder| shift(b, 5)] {
        check(&case("shift", build));
    }
}

fn shift(b: &mut Builder, by: i64) -> ValueId {
    let [t, d, _] = axes(b);
    let x = param(b, "x", &[t, d]);
    b.shift(x, t, by)
}

#[test]
fn rows_by_index() {
    let gather = |b: &mut Builder| {
        let [t, d, _] = axes(b);
        let v = b.axis("v", 4);
        let (x, i) = (param(b, "x", &[v, d]), indices(b, "i", &[t]));
        b.gather(x, v, i)
    };
    check(&Case { feeds: &[("i", &[2.0, -1.0, 2.0])], ..case("gather", gather) });
    let shared = |b: &mut Builder| {
        let [t, d, _] = axes(b);
        let (x, i) = (param(b, "x", &[t, d]), indices(b, "i", &[t]));
        b.gather(x, d, i)
    };
    check(&Case { feeds: &[("i", &[3.0, 0.0, 9.0])], ..case("gather within a row", shared) });
    let scatter = |b: &mut Builder| {
        let [t, d, _] = axes(b);
        let v = b.axis("v", 4);
        let (i, x, base) = (indices(b, "i", &[t]), param(b, "x", &[t, d]), param(b, "base", &[v, d]));
        b.op(Op::ScatterAdd { axis: v, over: t.into() }, &[i, x, base])
    };
    check(&Case { feeds: &[("i", &[1.0, -1.0, 1.0])], ..case("scatter_add", scatter) });
    let update = |b: &mut Builder| {
        let [t, d, e] = axes(b);
        let v = b.axis("v", 4);
        let (base, i, x) = (param(b, "base", &[v, d, e]), indices(b, "i", &[t]), param(b, "x", &[t, d]));
        b.op(Op::Update { axis: v }, &[base, i, x])
    };
    check(&Case { feeds: &[("i", &[3.0, 0.0, -1.0])], ..case("update", update) });
}
