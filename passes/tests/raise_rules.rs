//! Every row of the table of rules, on random tensors: within its conditions both sides have the same value, and a row that
//! never applies fails.
use egg::{ENodeOrVar, Id, PatternAst, Subst, Var};
use lolm_ir::axis::AxisSet;
use lolm_ir::interp::run;
use lolm_ir::op::{Binary, Unary};
use lolm_ir::{AxisId, Builder, DType, Graph, Op, Scalar, Type, ValueId};
use lolm_passes::egraph::encode::decode;
use lolm_passes::egraph::rule::{Rule, build};
use lolm_passes::egraph::{Cond, Context, EGraph, Enode, Facts, Fun, Head, Known, Operand, Rules};
use lolm_passes::raise::rules;
use std::collections::BTreeMap;
use std::sync::Arc;

#[path = "raise_util/kinds.rs"]
mod kinds;
mod raise_util;
use kinds::{Kind, kinds, narrow};
use raise_util::{Draw, feeds, gap};

/// The axes of all instances.
fn bare() -> Graph {
    let mut b = Builder::new("rule");
    for (name, len) in [("p", 2), ("q", 2), ("u", 3), ("w", 3), ("x", 4)] {
        b.axis(name, len);
    }
    b.finish().unwrap()
}

const AXES: u64 = 5;

/// One choice for every variable.
struct Instance {
    context: Context,
    heads: BTreeMap<Var, Head>,
    names: BTreeMap<u32, Var>,
}

fn random_axes(d: &mut Draw) -> AxisSet {
    (0..AXES as u8).map(AxisId).filter(|_| d.below(2) == 0).collect()
}

fn instance(rule: &Rule, kinds: &BTreeMap<Var, Kind>, d: &mut Draw) -> Instance {
    let mut it = Instance {
        context: Context { graph: Arc::new(bare()), inputs: vec![] },
        heads: BTreeMap::new(),
        names: BTreeMap::new(),
    };
    for (v, kind) in kinds {
        let head = match fixed_by(rule, *v, d) {
            Some(h) => h,
            None => it.draw(*v, *kind, d),
        };
        it.heads.insert(*v, head);
    }
    // A constant that is one over a size follows the axes that were drawn.
    for c in &rule.row.when {
        if let Cond::RecipSize(c, axes) = c
            && let Some(Head::Axes(a)) = it.heads.get(&axes.parse::<Var>().unwrap())
        {
            let n = it.context.graph.elements(*a);
            it.heads.insert(c.parse().unwrap(), Head::Num(Scalar::f32(1.0 / n as f32)));
        }
        if let Cond::Length(n, s) = c
            && let Some(Head::Axes(a)) = it.heads.get(&s.parse::<Var>().unwrap())
        {
            let len = it.context.graph.elements(*a);
            it.heads.insert(n.parse().unwrap(), Head::Num(Scalar::I32(len as i32)));
        }
    }
    it
}

/// The value that a condition asks for.
fn fixed_by(rule: &Rule, v: Var, d: &mut Draw) -> Option<Head> {
    let is = |name: &&str| name.parse::<Var>().unwrap() == v;
    rule.row.when.iter().find_map(|c| match c {
        Cond::Near(x, value) if is(x) => Some(Head::Num(Scalar::f32(*value as f32))),
        Cond::AtLeast(x, value) if is(x) => Some(Head::Num(Scalar::f32(*value as f32 + d.below(2) as f32))),
        Cond::Constant(x) if is(x) => Some(Head::Num(Scalar::f32([0.5, 2.0, 0.25, 4.0][d.below(4) as usize]))),
        Cond::Counts(x) if is(x) => Some(Head::Num(Scalar::I32(1 + d.below(3) as i32))),
        Cond::Twice(d, _) if is(d) => Some(Head::Num(Scalar::f32(-4.0))),
        Cond::Twice(_, c) if is(c) => Some(Head::Num(Scalar::f32(-2.0))),
        Cond::Recip(r, _) if is(r) => Some(Head::Num(Scalar::f32(0.25))),
        Cond::Recip(_, c) if is(c) => Some(Head::Num(Scalar::f32(4.0))),
        Cond::Keeps(c, _) if is(c) => Some(Head::Num(Scalar::f32(2.0))),
        Cond::Keeps(_, r) if is(r) => Some(Head::Num(Scalar::f32(0.5))),
        _ => None,
    })
}

impl Instance {
    fn input(&mut self, v: Var, dtype: DType, d: &mut Draw) -> Head {
        let types = vec![Type::new(dtype, random_axes(d))];
        self.context.inputs.push(Operand { types: types.into(), fixed: d.below(2) == 0 });
        let i = self.context.inputs.len() as u32 - 1;
        self.names.insert(i, v);
        Head::Input(i)
    }

    fn draw(&mut self, v: Var, kind: Kind, d: &mut Draw) -> Head {
        match kind {
            Kind::Axis => Head::Axes(AxisId(d.below(AXES) as u8).into()),
            Kind::Axes if d.below(3) > 0 => Head::Axes(AxisId(d.below(AXES) as u8).into()),
            Kind::Axes => Head::Axes(random_axes(d)),
            Kind::List => Head::List(random_axes(d).iter().collect()),
            Kind::Index => Head::Int(d.below(5) as i64),
            Kind::Site => Head::Site(0),
            Kind::MaybeInteger | Kind::MaybeFloat | Kind::MaybeCount if d.below(3) == 0 => Head::None,
            Kind::Seed => Head::Num(Scalar::I32(d.below(100) as i32)),
            Kind::Number => Head::Num(Scalar::f32([0.5, 2.0, 0.25, 1e-3][d.below(4) as usize])),
            Kind::MaybeCount if d.below(2) == 0 => Head::Ring(1 + d.below(3) as i64),
            Kind::MaybeCount => Head::Num(Scalar::I32(1 + d.below(3) as i32)),
            Kind::Boolean => self.input(v, DType::Bool, d),
            Kind::Integer | Kind::MaybeInteger if d.below(4) == 0 => Head::Num(Scalar::I32(d.below(2) as i32)),
            Kind::Integer | Kind::MaybeInteger => self.input(v, DType::I32, d),
            Kind::Float | Kind::MaybeFloat => self.input(v, DType::F32, d),
        }
    }
}

/// A pattern made into a graph: what each of its nodes became.
#[derive(Clone)]
enum Made {
    Attr(Facts),
    Value(ValueId),
    Absent,
}

struct Realizer<'a> {
    it: &'a Instance,
    b: Builder,
}

impl Realizer<'_> {
    fn graph(it: &Instance, p: &PatternAst<Enode>) -> Option<Graph> {
        let mut r = Realizer { it, b: Builder::extend(bare()) };
        let mut made: Vec<Made> = vec![];
        for n in p.as_ref() {
            let one = match n {
                ENodeOrVar::Var(v) => r.leaf(*v, &it.heads[v]),
                ENodeOrVar::ENode(n) => {
                    let children: Vec<Made> = n.children.iter().map(|c| made[usize::from(*c)].clone()).collect();
                    r.node(&n.head, &children)?
                }
            };
            made.push(one);
        }
        let Some(Made::Value(y)) = made.last() else { return None };
        let dims: Vec<Vec<AxisId>> = r.b.graph().axes_of(*y).iter().map(|a| vec![a]).collect();
        r.b.output("y", *y, &dims);
        r.b.finish().ok()
    }

    fn attr(&self, head: &Head, children: &[&Facts]) -> Facts {
        let ids = children.iter().map(|_| Id::from(0)).collect();
        self.it.context.facts(&Enode { head: head.clone(), children: ids }, children)
    }

    fn leaf(&mut self, v: Var, head: &Head) -> Made {
        match head {
            Head::Input(i) => {
                let ty = self.it.context.inputs[*i as usize].types[0];
                let dims: Vec<Vec<AxisId>> = ty.axes.iter().map(|a| vec![a]).collect();
                // The name says which integers may be -1.
                Made::Value(self.b.input(&format!("target{v}"), ty.dtype, &dims))
            }
            Head::Num(s) => Made::Value(self.b.op(Op::Const(*s), &[])),
            Head::None => Made::Absent,
            other => Made::Attr(self.attr(other, &[])),
        }
    }

    fn known(&self, m: &Made) -> Known {
        match m {
            Made::Attr(f) => f.known.clone(),
            Made::Absent => Known::Absent,
            Made::Value(v) => self.b.graph().constant(*v).map_or(Known::Value, Known::Num),
        }
    }

    fn node(&mut self, head: &Head, children: &[Made]) -> Option<Made> {
        let Head::Fun(fun) = head else {
            return Some(match head {
                Head::Num(s) => Made::Value(self.b.op(Op::Const(*s), &[])),
                Head::None => Made::Absent,
                other => Made::Attr(self.attr(other, &[])),
            });
        };
        let (attrs, operands) = children.split_at(fun.row().attrs);
        let known: Vec<Known> = attrs.iter().map(|a| self.known(a)).collect();
        if let (Fun::Ring, Some(w)) = (fun, known.first().and_then(|k| k.int())) {
            return Some(Made::Attr(self.attr(&Head::Ring(w), &[])));
        }
        if let Fun::Last | Fun::Union | Fun::Bit = fun {
            let facts: Vec<Facts> =
                attrs.iter().map(|a| if let Made::Attr(f) = a { f.clone() } else { unreachable!() }).collect();
            return Some(Made::Attr(self.attr(head, &facts.iter().collect::<Vec<_>>())));
        }
        let args: Vec<ValueId> =
            operands.iter().filter_map(|o| if let Made::Value(v) = o { Some(*v) } else { None }).collect();
        let present: Vec<bool> = operands.iter().map(|o| !matches!(o, Made::Absent)).collect();
        let refs: Vec<&Known> = known.iter().collect();
        let v = match fun {
            Fun::Part if known[0] == Known::Int(0) => args[0],
            Fun::Visible => self.visible(&known, operands)?,
            Fun::Age => self.age(&known, args[0])?,
            Fun::Weights => self.weights(&known, operands)?,
            Fun::Dropped => self.dropped(&known, &args)?,
            Fun::Taps => self.taps(&known, &args)?,
            Fun::SqrtBounded => self.b.unary(Unary::Sqrt, args[0]),
            Fun::Capped => self.capped(&known, &args)?,
            _ => {
                let op = decode(*fun, &refs, &present)?;
                self.b.op(op, &args)
            }
        };
        Some(Made::Value(v))
    }

    fn value(m: &Made) -> Option<ValueId> {
        if let Made::Value(v) = m { Some(*v) } else { None }
    }

    /// `(qpos - s) mod len(s)`.
    fn age(&mut self, known: &[Known], p: ValueId) -> Option<ValueId> {
        let axis = known[0].axes()?.single()?;
        let (s, n) = (self.b.iota(axis), self.b.int(self.b.graph().len(axis) as i32));
        let before = self.b.sub(p, s);
        Some(self.b.binary(Binary::Rem, before, n))
    }

    /// `s <= qpos`, and `qpos - window < s`; in a ring `age < window` and `age <= qpos`.
    fn visible(&mut self, known: &[Known], operands: &[Made]) -> Option<ValueId> {
        let (s, p) = (self.b.iota(known[0].axes()?.single()?), Self::value(&operands[0])?);
        if let Known::Ring(w) = self.known(&operands[1]) {
            let (age, w) = (self.age(known, p)?, self.b.int(w as i32));
            let (near, past) = (self.b.lt(age, w), self.b.le(age, p));
            return Some(self.b.binary(Binary::And, near, past));
        }
        let m = self.b.le(s, p);
        let Some(w) = Self::value(&operands[1]) else { return Some(m) };
        let from = self.b.sub(p, w);
        let near = self.b.lt(from, s);
        Some(self.b.binary(Binary::And, m, near))
    }

    fn weights(&mut self, known: &[Known], operands: &[Made]) -> Option<ValueId> {
        let [q, k] = [Self::value(&operands[0])?, Self::value(&operands[1])?];
        let over: Vec<AxisId> = known[1].axes()?.iter().collect();
        let a = self.b.dot(&over, q, k);
        let c = self.b.op(Op::Const(known[2].num()?), &[]);
        let mut a = self.b.mul(c, a);
        if let Made::Value(_) = operands[2] {
            let window = match &known[3] {
                Known::Num(n) => Made::Value(self.b.op(Op::Const(*n), &[])),
                Known::Ring(w) => Made::Attr(self.attr(&Head::Ring(*w), &[])),
                _ => Made::Absent,
            };
            let m = self.visible(&known[..1], &[operands[2].clone(), window])?;
            let inf = self.b.num(f32::NEG_INFINITY);
            a = self.b.select(m, a, inf);
        }
        Some(self.b.op(Op::Softmax { axis: known[0].axes()?.single()? }, &[a]))
    }

    fn dropped(&mut self, known: &[Known], args: &[ValueId]) -> Option<ValueId> {
        let (Known::Num(rate), Known::List(axes), [seed, step, x]) = (&known[0], &known[1], args) else { return None };
        let u = self.b.op(Op::Random { axes: axes.clone(), site: 0 }, &[*seed, *step]);
        let (r, zero) = (self.b.op(Op::Const(*rate), &[]), self.b.num(0.0));
        let (m, x) = (self.b.le(r, u), self.b.scale(*x, 1.0 / (1.0 - rate.as_f64() as f32)));
        Some(self.b.select(m, x, zero))
    }

    fn capped(&mut self, known: &[Known], args: &[ValueId]) -> Option<ValueId> {
        let Known::Num(cap) = &known[0] else { return None };
        let cap = self.b.op(Op::Const(*cap), &[]);
        let part = self.b.div(args[0], cap);
        let tanh = self.b.unary(Unary::Tanh, part);
        Some(self.b.mul(cap, tanh))
    }

    fn taps(&mut self, known: &[Known], args: &[ValueId]) -> Option<ValueId> {
        let (t, k, mask) = (known[0].axes()?.single()?, known[1].axes()?.single()?, known[2].int()?);
        let mut sum = self.b.num(0.0);
        for j in 0..self.b.graph().len(k) {
            if mask >> j & 1 == 1 {
                let by = self.b.graph().len(k) - 1 - j;
                let (x, w) = (self.b.shift(args[0], t, by as i64), self.b.at(args[1], k, j));
                let term = self.b.mul(x, w);
                sum = self.b.add(sum, term);
            }
        }
        Some(sum)
    }
}

/// True if the rule applies to the instance.
fn applies(rule: &Rule, it: &Instance) -> bool {
    let mut eg = EGraph::new(it.context.clone());
    let mut s = Subst::with_capacity(it.heads.len());
    for (v, head) in &it.heads {
        let id = eg.add(Enode::leaf(head.clone()));
        s.insert(*v, id);
    }
    let class = build(&mut eg, rule.lhs(), &s);
    eg.rebuild();
    !eg[class].data.types.is_empty() && rule.apply(&mut eg, class, &s)
}

/// Finite everywhere.
fn tame(r: &lolm_ir::interp::Results) -> bool {
    r.outputs.values().flatten().all(|x| x.is_finite())
}

fn check(rule: &Rule) -> Result<(), String> {
    let mut all = kinds(rule.lhs());
    for p in rule.left().iter().chain([&rule.rhs()]) {
        for (v, k) in kinds(p) {
            narrow(all.entry(v).or_insert(k), k);
        }
    }
    let mut d = Draw::new(7);
    let (mut applied, mut compared) = (0, 0);
    for tries in 0..600_000 {
        if tries > 30_000 && compared > 0 {
            break;
        }
        let it = instance(rule, &all, &mut d);
        if !applies(rule, &it) {
            continue;
        }
        applied += 1;
        let left = Realizer::graph(&it, rule.left().unwrap_or(rule.lhs())).ok_or("the left side makes no graph")?;
        let right = Realizer::graph(&it, rule.rhs()).ok_or("the right side makes no graph")?;
        let mut data = feeds(&left, d.bits());
        data.extend(feeds(&right, 1).into_iter().filter(|(k, _)| !left.leaves.iter().any(|l| l.name == *k)));
        if d.below(2) == 0 {
            let floats = left.leaves.iter().filter(|l| l.dtype == DType::F32).map(|l| l.name.clone());
            floats.for_each(|n| data.get_mut(&n).unwrap().iter_mut().for_each(|x| *x = x.abs()));
        }
        let (Ok(a), Ok(b)) = (run(&left, &data), run(&right, &data)) else { continue };
        if !tame(&a) {
            continue;
        }
        let distance = gap(&b, &a);
        if distance > 1e-6 {
            return Err(format!("the sides differ by {distance:e} where {:?}", it.heads));
        }
        compared += 1;
        if compared == 15 {
            return Ok(());
        }
    }
    match compared {
        0 => Err(format!("never compared; it applied {applied} times")),
        _ => Ok(()),
    }
}

#[test]
fn every_row_of_raise_is_true_and_applies() {
    let rules = Rules::new(rules::all()).unwrap();
    let faults: Vec<String> =
        rules.0.iter().filter_map(|r| check(r).err().map(|e| format!("{}: {e}", r.row.name))).collect();
    assert!(faults.is_empty(), "{} of {} rows:\n{}", faults.len(), rules.0.len(), faults.join("\n"));
}

#[test]
fn names_of_rows_are_unique() {
    let mut names: Vec<&str> = rules::all().iter().map(|r| r.name).collect();
    names.sort();
    let n = names.len();
    names.dedup();
    assert_eq!(names.len(), n);
}

/// A row that moves a term past an axis without saying that the axis must be absent is caught.
#[test]
fn a_false_row_is_caught() {
    use lolm_passes::egraph::rule::row;
    let bad = [
        row("shift", "(softmax ?k (sub ?x ?c))", "(softmax ?k ?x)", []),
        row("loss", "(sub (logsumexp ?v ?x) (gather ?v ?x ?t))", "(neg (gather ?v (sub ?x (logsumexp ?v ?x)) ?t))", []),
        row("typo", "(div ?x ?y)", "(mul ?x ?y)", []),
    ];
    for r in bad {
        let rules = Rules::new(vec![r]).unwrap();
        assert!(check(&rules.0[0]).is_err(), "{}", rules.0[0].row.name);
    }
    let typo = row("word", "(softmx ?k ?x)", "?x", []);
    assert!(Rules::new(vec![typo]).is_err());
    let unbound = row("unbound", "(neg ?x)", "?y", []);
    assert!(Rules::new(vec![unbound]).is_err());
}
