//! What is drawn of a graph, and of a plan.
use super::{Class, Drawing, Node};
use lolm_ir::plan::{BufferId, Extent, Launch, Plan, Stage};
use lolm_ir::{Graph, Op, Scalar, ValueId, op};
use std::collections::BTreeMap;

/// The operations of a graph whose scope starts with `scope`, and what they read. Constants stand in the boxes of the
/// operations that read them.
pub fn of_graph(g: &Graph, scope: &str) -> Drawing {
    let inside = |v: ValueId| g.scope(g.node(v).scope).starts_with(scope);
    let constant = |v: ValueId| g.constant(v).is_some();
    let mut shown = vec![false; g.nodes.len()];
    for v in g.ids().filter(|v| inside(*v) && !constant(*v)) {
        shown[v.0 as usize] = true;
        // What comes from another part is shown where it enters.
        for a in g.node(v).args.iter().filter(|a| !constant(**a)) {
            shown[a.0 as usize] = true;
        }
    }
    let mut d = Drawing { title: g.name.clone(), ..Drawing::default() };
    let mut box_of = vec![None; g.nodes.len()];
    for v in g.ids().filter(|v| shown[v.0 as usize]) {
        box_of[v.0 as usize] = Some(d.nodes.len());
        d.nodes.push(operation(g, v));
        if inside(v) {
            let from = g.node(v).args.iter().filter_map(|a| box_of[a.0 as usize]);
            let to = d.nodes.len() - 1;
            d.edges.extend(from.map(|f| (f, to)));
        }
    }
    let ends = g.outputs.iter().map(|o| (o.name.clone(), o.value));
    let writes = g.writes.iter().map(|w| (format!("write {}", g.leaf(w.leaf).name), w.value));
    for (name, value) in ends.chain(writes) {
        if let Some(from) = box_of[value.0 as usize].filter(|_| inside(value)) {
            d.edges.push((from, d.nodes.len()));
            d.nodes.push(Node { lines: vec![name.clone()], note: name, class: Class::Output });
        }
    }
    d
}

fn operation(g: &Graph, v: ValueId) -> Node {
    let n = g.node(v);
    let (ty, scope) = (n.ty(), g.scope(n.scope));
    let class = match n.op.info().class {
        op::Class::Leaf => Class::Leaf,
        op::Class::Elementwise => Class::Elementwise,
        op::Class::Reduction => Class::Reduction,
        op::Class::Index => Class::Index,
        op::Class::Fused => Class::Fused,
    };
    let name = match &n.op {
        Op::Leaf(l) => g.leaf(*l).name.clone(),
        op => {
            let constants = n.args.iter().filter_map(|a| g.constant(*a)).map(number);
            std::iter::once(op.mnemonic().to_string()).chain(constants).collect::<Vec<_>>().join(" ")
        }
    };
    let ty = format!("{}[{}]", ty.dtype, g.show_axes(ty.axes));
    Node { note: format!("%{} {name}: {ty} in {scope}", v.0), lines: vec![name, ty], class }
}

fn number(s: Scalar) -> String {
    match s {
        Scalar::F32(b) => f32::from_bits(b).to_string(),
        Scalar::I32(i) => i.to_string(),
        Scalar::Bool(b) => b.to_string(),
    }
}

/// The launches of a plan; an arrow is a buffer that one writes and a later one reads.
pub fn of_plan(p: &Plan, kernels: &[lolm_ir::kernel::Kernel]) -> Drawing {
    let mut d = Drawing { title: p.program.clone(), ..Drawing::default() };
    let mut last_writer: BTreeMap<BufferId, usize> = BTreeMap::new();
    for (i, (l, _)) in crate::inspect::plan::launches(p).enumerate() {
        let (reads, writes) = touched(l, kernels);
        let mut from: Vec<usize> = reads.iter().filter_map(|b| last_writer.get(b).copied()).collect();
        from.sort_unstable();
        from.dedup();
        d.edges.extend(from.into_iter().filter(|f| *f != i).map(|f| (f, i)));
        last_writer.extend(writes.into_iter().map(|b| (b, i)));
        let kind = crate::inspect::plan::word(&l.kind);
        let class = match l.kind {
            lolm_ir::plan::Kind::Contract | lolm_ir::plan::Kind::Attention => Class::Fused,
            lolm_ir::plan::Kind::CrossEntropy | lolm_ir::plan::Kind::Scan => Class::Fused,
            lolm_ir::plan::Kind::Row | lolm_ir::plan::Kind::Reduce => Class::Reduction,
            lolm_ir::plan::Kind::Gather | lolm_ir::plan::Kind::Scatter => Class::Index,
            lolm_ir::plan::Kind::Map => Class::Elementwise,
            lolm_ir::plan::Kind::Optimizer => Class::Output,
        };
        d.nodes.push(Node { note: format!("launch {i}: {}", l.name), lines: vec![l.name.clone(), kind], class });
    }
    d
}

/// The buffers that a launch reads, and those that it writes.
fn touched(l: &Launch, kernels: &[lolm_ir::kernel::Kernel]) -> (Vec<BufferId>, Vec<BufferId>) {
    use lolm_ir::kernel::Mode;
    let (mut reads, mut writes) = (vec![], vec![]);
    for s in &l.stages {
        match s {
            Stage::Gemm(m) => {
                reads.extend([m.a.buffer, m.b.buffer]);
                reads.extend([&m.m, &m.n, &m.k].into_iter().filter_map(|e| match e {
                    Extent::Seen { position, .. } => Some(position.buffer),
                    Extent::Fixed(_) | Extent::Tile { .. } => None,
                }));
                writes.push(m.c.buffer);
            }
            Stage::Group(g) => {
                reads.extend(g.touched().0);
                writes.extend(g.touched().1);
            }
            Stage::Routed(r) => {
                reads.extend(r.touched().0);
                writes.extend(r.touched().1);
            }
            Stage::Kernel(k) => {
                let modes = kernels.get(k.kernel as usize).map(|k| k.operands.iter().map(|o| o.mode));
                for (a, mode) in k.operands.iter().zip(modes.into_iter().flatten()) {
                    match mode {
                        Mode::In => reads.push(a.buffer),
                        Mode::Out => writes.push(a.buffer),
                        Mode::InOut => {
                            reads.push(a.buffer);
                            writes.push(a.buffer);
                        }
                    }
                }
            }
        }
    }
    (reads, writes)
}
