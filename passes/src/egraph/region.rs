//! Regions of a graph: cut, told apart by their structure, turned into e-graphs, and put back.
//!
//! A region is a run of nodes of one scope. What it uses from outside are its inputs, what the rest of the graph uses
//! of it are its roots. Two regions with equal [`Body`] and equal operands differ in names only, so 24 equal layers are
//! worked on once. Values made of indices and constants alone (positions, masks) belong to no region: every region that uses one
//! holds its own copy, so that a mask shared by all layers is seen in each. A dot whose values are exponentiated or
//! picked from is seen through in the same way, and so is the cap between: the logits of a head belong to the loss,
//! wherever they are written.
use super::analysis::{Context, Facts, Known, Operand};
use super::encode::{Encoded, QPOS, encode};
use super::language::{Enode, Fun, Head};
use super::{EGraph, extract};
use egg::Id;
use lolm_ir::graph::{Args, GraphError, LeafKind, Output, ScopeId, Write};
use lolm_ir::hash::{QuickMap, quick};
use lolm_ir::list::List;
use lolm_ir::op::{Binary, Reduction, Unary};
use lolm_ir::{Builder, DType, Graph, Op, ValueId};
use std::sync::Arc;

/// A value as a region names it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Ref {
    Input(u32),
    Node(u32),
}

/// The nodes of a region in topological order, without names: inputs, nodes and random sites are numbered in the order
/// in which a walk from the roots meets them.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Body {
    pub nodes: Vec<(Op, List<Ref, 4>)>,
    pub roots: Vec<Ref>,
}

/// Where a body stands in the graph.
#[derive(Clone, Debug)]
pub struct Region {
    pub scope: ScopeId,
    /// Index into [`Regions::distinct`].
    pub kind: usize,
    pub roots: Vec<ValueId>,
    pub inputs: Vec<ValueId>,
    pub sites: Vec<u32>,
}

/// A body with what is known of its inputs.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Distinct {
    pub body: Body,
    pub operands: Vec<Operand>,
}

/// A graph cut into regions.
pub struct Regions {
    pub list: Vec<Region>,
    pub distinct: Vec<Distinct>,
}

/// A region could not be made into an e-graph or back; always a bug.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RegionError {
    #[error("bug: {0}")]
    Broken(String),
    #[error(transparent)]
    Graph(#[from] GraphError),
}

impl Regions {
    pub fn of(g: &Graph) -> Regions {
        Cutter::new(g).cut()
    }
}

/// Depends on parameters, tables and constants alone.
pub fn fixed(g: &Graph) -> Vec<bool> {
    let mut out: Vec<bool> = vec![];
    for n in &g.nodes {
        out.push(match &n.op {
            Op::Leaf(l) => match g.leaf(*l).kind {
                LeafKind::Param(_) | LeafKind::Table(_) => true,
                LeafKind::Input | LeafKind::State { .. } => false,
            },
            _ => n.args.iter().all(|a| out[a.0 as usize]),
        });
    }
    out
}

/// Made of indices, integers and constants alone, by elementwise operations.
fn ambient(g: &Graph) -> Vec<bool> {
    let mut out: Vec<bool> = vec![];
    for n in &g.nodes {
        let seen = |a: &ValueId| {
            let integer = matches!(g.ty(*a).dtype, DType::I32 | DType::Bool);
            out[a.0 as usize] || (integer && matches!(g.node(*a).op, Op::Leaf(_)))
        };
        let here =
            matches!(n.op, Op::Const(_) | Op::Iota(_) | Op::Cast(_) | Op::Rename { .. }) || n.op.is_elementwise();
        out.push(here && n.args.iter().all(seen));
    }
    out
}

/// Dots whose values, perhaps capped, are exponentiated or picked from by some other node, and what caps them.
fn logits(g: &Graph) -> Vec<bool> {
    let mut out = vec![false; g.nodes.len()];
    for n in &g.nodes {
        let exponentiates = matches!(n.op, Op::Unary(Unary::Exp) | Op::Reduce { kind: Reduction::Max, .. });
        let picks = exponentiates || matches!(n.op, Op::Softmax { .. } | Op::LogSumExp { .. } | Op::Gather { .. });
        if picks {
            capped_dot(g, n.args[0]).into_iter().for_each(|v| out[v.0 as usize] = true);
        }
    }
    out
}

/// From a value down to the dot that it is, or is a cap (a tanh, scaled by constants) of; nothing if it is neither.
fn capped_dot(g: &Graph, mut v: ValueId) -> Vec<ValueId> {
    let mut chain = vec![];
    loop {
        let n = g.node(v);
        chain.push(v);
        v = match n.op {
            Op::Dot { .. } => return chain,
            Op::Unary(Unary::Tanh) => n.args[0],
            Op::Binary(Binary::Mul) if g.constant(n.args[0]).is_some() => n.args[1],
            Op::Binary(Binary::Mul | Binary::Div) if g.constant(n.args[1]).is_some() => n.args[0],
            _ => return vec![],
        };
    }
}

struct Cutter<'a> {
    g: &'a Graph,
    fixed: Vec<bool>,
    ambient: Vec<bool>,
    logits: Vec<bool>,
    /// The run that a node belongs to.
    home: Vec<Option<usize>>,
    scopes: Vec<ScopeId>,
}

impl<'a> Cutter<'a> {
    fn new(g: &'a Graph) -> Self {
        let ambient = ambient(g);
        let (mut home, mut scopes) = (vec![None; g.nodes.len()], vec![]);
        for v in g.ids() {
            let n = g.node(v);
            if ambient[v.0 as usize] || matches!(n.op, Op::Leaf(_)) {
                continue;
            }
            if scopes.last() != Some(&n.scope) {
                scopes.push(n.scope);
            }
            home[v.0 as usize] = Some(scopes.len() - 1);
        }
        Cutter { g, fixed: fixed(g), ambient, logits: logits(g), home, scopes }
    }

    /// The roots of every run, and of the ambient values that the graph itself gives away, as a last one.
    fn roots(&self) -> Vec<Vec<ValueId>> {
        let mut outside = vec![false; self.g.nodes.len()];
        for v in self.g.ids().rev() {
            // A run that sees through a value reads what the value is made of.
            let seen_through = self.logits[v.0 as usize] && outside[v.0 as usize];
            for a in &self.g.node(v).args {
                if seen_through || self.home[a.0 as usize] != self.home[v.0 as usize] {
                    outside[a.0 as usize] |= !self.ambient[a.0 as usize];
                }
            }
        }
        let given = self.g.outputs.iter().map(|o| o.value).chain(self.g.writes.iter().map(|w| w.value));
        given.for_each(|v| outside[v.0 as usize] = true);
        let mut roots = vec![vec![]; self.scopes.len() + 1];
        for v in self.g.ids().filter(|v| outside[v.0 as usize] && !matches!(self.g.node(*v).op, Op::Leaf(_))) {
            roots[self.home[v.0 as usize].unwrap_or(self.scopes.len())].push(v);
        }
        roots
    }

    fn cut(&self) -> Regions {
        let (mut list, mut distinct) = (vec![], vec![]);
        let mut known: QuickMap<u64, Vec<usize>> = QuickMap::default();
        let mut memo = Memo { run: vec![usize::MAX; self.g.nodes.len()], of: vec![Ref::Input(0); self.g.nodes.len()] };
        for (run, roots) in self.roots().into_iter().enumerate().filter(|(_, r)| !r.is_empty()) {
            let scope = self.scopes.get(run).copied().unwrap_or(self.g.node(roots[0]).scope);
            let (inputs, sites) = (vec![], vec![]);
            let mut walk = Walk { cx: self, run, memo: &mut memo, body: Body::default(), inputs, sites };
            roots.iter().for_each(|r| walk.visit(*r));
            let Walk { mut body, inputs, sites, .. } = walk;
            body.roots = roots.iter().map(|r| memo.of[r.0 as usize]).collect();
            let operand =
                |v: &ValueId| Operand { types: self.g.node(*v).types.clone(), fixed: self.fixed[v.0 as usize] };
            let one = Distinct { body, operands: inputs.iter().map(operand).collect() };
            let alike = known.entry(quick(&one)).or_default();
            let kind = match alike.iter().find(|k| distinct[**k] == one) {
                Some(k) => *k,
                None => {
                    alike.push(distinct.len());
                    distinct.push(one);
                    distinct.len() - 1
                }
            };
            list.push(Region { scope, kind, roots, inputs, sites });
        }
        Regions { list, distinct }
    }
}

/// What each value is called in the run that met it last.
struct Memo {
    run: Vec<usize>,
    of: Vec<Ref>,
}

impl Memo {
    fn get(&self, run: usize, v: ValueId) -> Option<Ref> {
        (self.run[v.0 as usize] == run).then(|| self.of[v.0 as usize])
    }
    fn insert(&mut self, run: usize, v: ValueId, r: Ref) {
        (self.run[v.0 as usize], self.of[v.0 as usize]) = (run, r);
    }
}

/// A walk over one region from its roots.
struct Walk<'a> {
    cx: &'a Cutter<'a>,
    run: usize,
    memo: &'a mut Memo,
    body: Body,
    inputs: Vec<ValueId>,
    sites: Vec<u32>,
}

impl Walk<'_> {
    fn inside(&self, v: ValueId) -> bool {
        let v = v.0 as usize;
        self.cx.home[v] == Some(self.run) || self.cx.ambient[v] || self.cx.logits[v]
    }

    /// Numbers a value after its operands.
    fn visit(&mut self, v: ValueId) {
        let mut stack = vec![v];
        while let Some(&v) = stack.last() {
            if self.memo.get(self.run, v).is_some() {
                stack.pop();
                continue;
            }
            if !self.inside(v) {
                self.memo.insert(self.run, v, Ref::Input(self.inputs.len() as u32));
                self.inputs.push(v);
                continue;
            }
            let node = self.cx.g.node(v);
            let before = stack.len();
            stack.extend(node.args.iter().rev().copied().filter(|a| self.memo.get(self.run, *a).is_none()));
            if stack.len() > before {
                continue;
            }
            let args = node.args.iter().filter_map(|a| self.memo.get(self.run, *a)).collect();
            let op = with_site(&node.op, |s| self.local(s));
            self.memo.insert(self.run, v, Ref::Node(self.body.nodes.len() as u32));
            self.body.nodes.push((op, args));
        }
    }

    fn local(&mut self, site: u32) -> u32 {
        let i = self.sites.iter().position(|s| *s == site).unwrap_or_else(|| {
            self.sites.push(site);
            self.sites.len() - 1
        });
        i as u32
    }
}

/// The operation with the identity of its randomness mapped.
fn with_site(op: &Op, mut f: impl FnMut(u32) -> u32) -> Op {
    match op {
        Op::Random { axes, site } => Op::Random { axes: axes.clone(), site: f(*site) },
        Op::Attention(a) => Op::Attention(attention_site(*a, f)),
        Op::AttentionGrad(a) => Op::AttentionGrad(attention_site(*a, f)),
        other => other.clone(),
    }
}

fn attention_site(a: lolm_ir::op::Attention, mut f: impl FnMut(u32) -> u32) -> lolm_ir::op::Attention {
    let dropout = a.dropout.map(|d| lolm_ir::op::Dropout { site: f(d.site), ..d });
    lolm_ir::op::Attention { dropout, ..a }
}

impl Distinct {
    /// The region as an e-graph, and the classes of its roots.
    pub fn egraph(&self, g: &Arc<Graph>) -> Result<(EGraph, Vec<Id>), RegionError> {
        let mut eg = EGraph::new(Context { graph: g.clone(), inputs: self.operands.clone() });
        let mut inputs = vec![];
        for (i, o) in self.operands.iter().enumerate() {
            let leaf = eg.add(Enode::leaf(Head::Input(i as u32)));
            inputs.push((leaf, if o.types.len() > 1 { first(&mut eg, leaf) } else { leaf }));
        }
        // The bundle and the first result of every node; they are one unless it has several results.
        let mut nodes: Vec<(Id, Id)> = vec![];
        for (op, args) in &self.body.nodes {
            let pick = |r: &Ref| match r {
                Ref::Input(i) => inputs[*i as usize],
                Ref::Node(i) => nodes[*i as usize],
            };
            let pair = add(&mut eg, op, &args.iter().map(pick).collect::<Vec<_>>())?;
            if eg[pair.0].data.types.is_empty() {
                return Err(RegionError::Broken(format!("{} is ill-typed as an e-node", op.mnemonic())));
            }
            nodes.push(pair);
        }
        let root = |r: &Ref| match r {
            Ref::Input(i) => inputs[*i as usize].1,
            Ref::Node(i) => nodes[*i as usize].1,
        };
        let roots = self.body.roots.iter().map(root).collect();
        eg.rebuild();
        Ok((eg, roots))
    }
}

fn first(eg: &mut EGraph, bundle: Id) -> Id {
    let zero = eg.add(Enode::leaf(Head::Int(0)));
    eg.add(Enode::fun(Fun::Part, vec![zero, bundle]))
}

/// Adds an operation; the answer is its bundle and its first result.
pub fn add(eg: &mut EGraph, op: &Op, args: &[(Id, Id)]) -> Result<(Id, Id), RegionError> {
    let (fun, heads) = match encode(op) {
        Encoded::Leaf => return Err(RegionError::Broken("a leaf inside a region".into())),
        Encoded::Num(s) => {
            let id = eg.add(Enode::leaf(Head::Num(s)));
            return Ok((id, id));
        }
        Encoded::Fun(f, heads) => (f, heads),
    };
    let mut children: Vec<Id> = heads.into_iter().map(|h| eg.add(Enode::leaf(h))).collect();
    let mut operands: Vec<Id> = args.iter().map(|a| if fun == Fun::Part { a.0 } else { a.1 }).collect();
    let none = eg.add(Enode::leaf(Head::None));
    if let Op::Attention(a) | Op::AttentionGrad(a) = op {
        if !a.has_qpos() {
            operands.insert(QPOS.min(operands.len()), none);
        }
        if a.dropout.is_none() {
            let at = (QPOS + 1).min(operands.len());
            operands.splice(at..at, [none, none]);
        }
    }
    if let Some(n) = fun.row().operands {
        operands.resize(n, none);
    }
    children.extend(operands);
    let bundle = eg.add(Enode::fun(fun, children));
    Ok((bundle, if fun.is_bundle() { first(eg, bundle) } else { bundle }))
}

/// What a choice of nodes makes of the roots.
pub fn read_back(eg: &EGraph, choice: &extract::Choice, roots: &[Id]) -> Result<Body, RegionError> {
    let mut body = Body::default();
    let mut memo: QuickMap<Id, Ref> = QuickMap::default();
    for root in roots {
        let mut stack = vec![(eg.find(*root), false)];
        while let Some((id, done)) = stack.pop() {
            if memo.contains_key(&id) {
                continue;
            }
            let node = choice
                .get(&id)
                .ok_or_else(|| RegionError::Broken(format!("class {id} has no node that can be extracted")))?;
            let (attrs, operands) = node.split();
            let operands: Vec<Id> = operands.iter().map(|c| eg.find(*c)).collect();
            let there: Vec<Id> = operands.iter().copied().filter(|c| eg[*c].data.known != Known::Absent).collect();
            if !done {
                stack.push((id, true));
                stack.extend(there.iter().rev().map(|c| (*c, false)));
                continue;
            }
            let args: Option<Vec<Ref>> = there.iter().map(|c| memo.get(c).copied()).collect();
            let args = args.ok_or_else(|| RegionError::Broken("the extraction has a cycle".into()))?;
            let facts = |ids: &[Id]| ids.iter().map(|c| &eg[*c].data).collect::<Vec<&Facts>>();
            let op = match &node.head {
                Head::Input(i) => {
                    memo.insert(id, Ref::Input(*i));
                    continue;
                }
                Head::Num(s) => Some(Op::Const(*s)),
                Head::Fun(f) => Context::op(*f, &facts(attrs), &facts(&operands)),
                _ => None,
            };
            let op = op.ok_or_else(|| RegionError::Broken(format!("`{node}` is no operation")))?;
            if op == Op::Part(0) {
                memo.insert(id, args[0]);
                continue;
            }
            memo.insert(id, Ref::Node(body.nodes.len() as u32));
            body.nodes.push((op, args.into()));
        }
        body.roots.push(memo[&eg.find(*root)]);
    }
    Ok(body)
}

/// The graph with every region replaced by what became of its kind; `bodies[k]` has the roots of kind k.
pub fn replay(g: &Graph, regions: &Regions, bodies: &[Body]) -> Result<Graph, RegionError> {
    let bare = g.bare();
    let mut b = Builder::extend(bare);
    let mut map: Vec<Option<ValueId>> = vec![None; g.nodes.len()];
    for v in g.ids() {
        if let Op::Leaf(_) = g.node(v).op {
            b.set_scope(g.node(v).scope);
            map[v.0 as usize] = Some(b.op(g.node(v).op.clone(), &[]));
        }
    }
    let missing = |v: ValueId| RegionError::Broken(format!("value %{} is used before it is made", v.0));
    for r in &regions.list {
        b.set_scope(r.scope);
        let inputs: Vec<ValueId> =
            r.inputs.iter().map(|v| map[v.0 as usize].ok_or_else(|| missing(*v))).collect::<Result<_, _>>()?;
        let body = &bodies[r.kind];
        let mut made: Vec<ValueId> = vec![];
        let pick = |made: &[ValueId], r: &Ref| match r {
            Ref::Input(i) => inputs[*i as usize],
            Ref::Node(i) => made[*i as usize],
        };
        for (op, args) in &body.nodes {
            let args: Args = args.iter().map(|a| pick(&made, a)).collect();
            made.push(b.op(with_site(op, |s| r.sites[s as usize]), &args));
        }
        for (v, new) in r.roots.iter().zip(&body.roots) {
            map[v.0 as usize] = Some(pick(&made, new));
        }
    }
    let mut out = b.finish()?;
    let at = |v: ValueId| map[v.0 as usize].ok_or_else(|| missing(v));
    for o in &g.outputs {
        out.outputs.push(Output { value: at(o.value)?, ..o.clone() });
    }
    for w in &g.writes {
        out.writes.push(Write { value: at(w.value)?, ..w.clone() });
    }
    Ok(out.swept())
}
