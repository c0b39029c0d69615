//! Layout: the order in which the axes of each value are laid out, should it lie in memory.
//!
//! A value keeps the order of what it is made from: rows of activations stay rows, and what a weight adds comes behind
//! them in the weight's order. So products read and write matrices whose dimensions merge. A value that meets a tensor of
//! memory element by element, as a gradient meets its parameter, lies as that tensor does.
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::graph::{Args, LeafKind};
use lolm_ir::list::List;
use lolm_ir::op::Op;
use lolm_ir::{Graph, Node, ValueId};

/// Axes, outermost first.
type Order = List<AxisId, 8>;

/// For each value, the order of each of its results.
pub struct Layouts {
    all: Vec<Order>,
    /// Where the orders of each value begin.
    first: Vec<usize>,
    /// The order of the tensor that the value meets.
    met: Vec<Option<Order>>,
}

impl Layouts {
    pub fn of(g: &Graph) -> Self {
        let n = g.nodes.len();
        let mut all = Layouts { all: Vec::with_capacity(n), first: Vec::with_capacity(n), met: vec![None; n] };
        let mut weight = vec![false; g.nodes.len()];
        for v in g.ids() {
            let n = g.node(v);
            weight[v.0 as usize] = match n.op {
                Op::Leaf(l) => matches!(g.leaf(l).kind, LeafKind::Param(_)),
                _ => !n.args.is_empty() && n.args.iter().all(|a| weight[a.0 as usize] || g.axes_of(*a).is_empty()),
            };
            let first = all.all.len();
            for (i, t) in n.types.iter().enumerate() {
                let order = fit(t.axes, all.guess(g, n, i, &weight));
                all.all.push(order);
            }
            all.first.push(first);
        }
        all.meet(g);
        all.scan(g);
        all
    }

    /// The order of a result that is kept in memory.
    pub fn kept(&self, v: ValueId, result: usize) -> Vec<AxisId> {
        let met = self.met[v.0 as usize].as_ref().filter(|_| result == 0);
        met.unwrap_or_else(|| self.result(v, result)).to_vec()
    }

    /// The rates of a selective scan lie channel beside channel, as its inputs do, if they are computed at all.
    fn scan(&mut self, g: &Graph) {
        for v in g.ids() {
            let n = g.node(v);
            let (Op::SelectiveScan { state, .. } | Op::SelectiveScanGrad { state, .. }) = n.op else { continue };
            let a = n.args[1];
            self.met[a.0 as usize] = Some([state].into_iter().chain(g.axes_of(a).without(state).iter()).collect());
        }
    }

    /// Hands the order of leaves to what they meet, from the last operation to the first.
    fn meet(&mut self, g: &Graph) {
        for v in g.ids().rev().filter(|v| g.node(*v).op.is_elementwise()) {
            let axes = g.axes_of(v);
            if axes.len() < 2 {
                continue;
            }
            let alike: Args = g.node(v).args.iter().copied().filter(|a| g.axes_of(*a) == axes).collect();
            let leaf = alike.iter().find(|a| matches!(g.node(**a).op, Op::Leaf(_)));
            let order = self.met[v.0 as usize].clone().or_else(|| leaf.map(|l| self.order(*l).into()));
            for a in alike {
                let slot = &mut self.met[a.0 as usize];
                if slot.is_none() {
                    slot.clone_from(&order);
                }
            }
        }
    }

    fn order(&self, v: ValueId) -> &[AxisId] {
        self.result(v, 0)
    }
    fn result(&self, v: ValueId, i: usize) -> &Order {
        &self.all[self.first[v.0 as usize] + i]
    }

    /// An order that has at least the axes of the operands that matter; `fit` adds and drops what is needed.
    fn guess(&self, g: &Graph, n: &Node, result: usize, weight: &[bool]) -> Order {
        let renamed = |from: AxisId, to: AxisId| -> Order {
            self.order(n.args[0]).iter().map(|a| if *a == from { to } else { *a }).collect()
        };
        match &n.op {
            Op::Leaf(l) => g.leaf(*l).order().collect(),
            Op::Part(i) => self.result(n.args[0], *i).clone(),
            Op::Rename { from, to } => renamed(*from, *to),
            Op::Slice { axis, to, .. } | Op::Pad { axis, to, .. } => renamed(*axis, *to),
            Op::Concat { axis, parts } => renamed(parts[0], *axis),
            Op::Gather { .. } => join(&[self.order(n.args[1]), self.order(n.args[0])]),
            Op::ScatterAdd { axis, .. } => join(&[&[*axis], self.order(n.args[1])]),
            Op::Update { .. } => self.order(n.args[0]).into(),
            Op::Dot { .. } => {
                let (a, b) = (n.args[0], n.args[1]);
                let (a, b) = if weight[a.0 as usize] && !weight[b.0 as usize] { (b, a) } else { (a, b) };
                join(&[self.order(a), self.order(b)])
            }
            // Gradients lie as the operands they belong to.
            Op::AttentionGrad(_) | Op::SelectiveScanGrad { .. } => self.order(n.args[result]).into(),
            Op::CrossEntropyGrad { .. } | Op::GatedRecurrenceGrad { .. } => self.order(n.args[result]).into(),
            Op::RoutedDot { .. } => join(&[self.order(n.args[2]), self.order(n.args[1])]),
            // A matrix maps x to y, and lies as weights of the published form do: rows for y.
            Op::RoutedDotGrad { .. } => {
                let rows = g.axes_of(n.args[2]);
                let own = |a: ValueId| g.axes_of(a).minus(rows).iter().collect::<Vec<_>>();
                let expert = n.types[0].axes.minus(g.axes_of(n.args[0])).minus(g.axes_of(n.args[1]));
                join(&[&expert.iter().collect::<Vec<_>>(), &own(n.args[1]), &own(n.args[0])])
            }
            Op::Attention(_) => join(&[self.order(n.args[0]), self.order(n.args[2])]),
            Op::SelectiveScan { .. } => join(&[self.order(n.args[4]), self.order(n.args[1])]),
            _ => {
                let mut widest = n.args.clone();
                widest.sort_by_key(|a| std::cmp::Reverse(self.order(*a).len()));
                let mut out = Order::default();
                widest.iter().for_each(|a| add(&mut out, self.order(*a)));
                out
            }
        }
    }
}

/// The first order, then what the next ones add.
fn join(orders: &[&[AxisId]]) -> Order {
    let mut out = Order::default();
    orders.iter().for_each(|o| add(&mut out, o));
    out
}

fn add(out: &mut Order, more: &[AxisId]) {
    for a in more {
        if !out.contains(a) {
            out.push(*a);
        }
    }
}

/// The order with exactly these axes; an axis it lacks goes before the first one declared after it.
fn fit(axes: AxisSet, order: Order) -> Order {
    let mut out: Order = order.into_iter().filter(|a| axes.has(*a)).collect();
    for a in axes.iter() {
        if !out.contains(&a) {
            let at = out.iter().position(|x| *x > a).unwrap_or(out.len());
            out.insert(at, a);
        }
    }
    out
}
