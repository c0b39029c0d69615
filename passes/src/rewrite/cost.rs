//! The numeric cost: elements read and written, and the work of contractions.
//!
//! Axes of integer inputs (sequences, tokens), and what is cut from them or named after them, number rows. They count
//! with one fixed length each: the choice, and with it the order of sums, is the same for a program over one token and
//! over a thousand.
use crate::egraph::{EGraph, Enode, Fun};
use egg::Id;
use lolm_ir::axis::{AxisId, AxisSet};
use lolm_ir::graph::LeafKind;
use lolm_ir::op::{Binary, Reduction};
use lolm_ir::{DType, Graph, Leaf, Op};

/// What the machine's lowering can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Machine {
    /// A sum of dots is made in one buffer, each dot adding to it.
    pub accumulates: bool,
}

/// The length that an axis of rows counts with.
const ROWS: u64 = 8;
/// What starting a kernel costs, in elements.
const LAUNCH: u64 = 500;
/// Multiply-adds that cost as much as one element moved.
const WORK: u64 = 50;

/// The cost of the nodes of one graph.
pub struct Cost {
    lengths: Vec<u64>,
    machine: Machine,
}

impl Cost {
    pub fn new(g: &Graph, machine: Machine) -> Self {
        let rows = rows(g);
        let length = |(i, a): (usize, &lolm_ir::Axis)| if rows.has(AxisId(i as u8)) { ROWS } else { a.len as u64 };
        Cost { lengths: g.axes.iter().enumerate().map(length).collect(), machine }
    }

    fn elements(&self, axes: AxisSet) -> u64 {
        axes.iter().fold(1u64, |n, a| n.saturating_mul(self.lengths[a.0 as usize]))
    }

    /// The cost of a node by itself.
    pub fn own(&self, eg: &EGraph, id: Id, node: &Enode) -> Option<u64> {
        let fun = node.as_fun()?;
        let (attrs, operands) = node.split();
        let size = |c: &Id| self.elements(eg[*c].data.axes());
        let out = size(&id);
        let moved = |list: &[Id]| list.iter().map(size).fold(out, u64::saturating_add);
        let over = || attrs.iter().filter_map(|a| eg[*a].data.known.axes()).fold(AxisSet::EMPTY, AxisSet::union);
        Some(match fun {
            Fun::Visible | Fun::Age | Fun::Weights | Fun::Dropped | Fun::Taps => return None,
            Fun::Last | Fun::Union | Fun::Bit | Fun::Ring => return None,
            Fun::SqrtBounded | Fun::Capped => return None,
            // Views of memory.
            Fun::Part | Fun::Rename | Fun::At | Fun::Slice | Fun::StopGradient | Fun::Iota => 1,
            Fun::Binary(Binary::Add) if self.machine.accumulates && operands.iter().any(|c| is_dot(eg, *c)) => 1,
            Fun::Dot => {
                let all = operands.iter().fold(AxisSet::EMPTY, |s, c| s.union(eg[*c].data.axes()));
                moved(operands).saturating_add(self.elements(all.union(over())) / WORK).saturating_add(LAUNCH)
            }
            // Elementwise work is done where its operands are read.
            Fun::Unary(_) | Fun::Binary(_) | Fun::Select | Fun::Cast | Fun::Mix => {
                1 + operands.iter().filter(|c| kept(eg, **c)).map(size).sum::<u64>()
            }
            Fun::Random | Fun::Reduce(Reduction::Sum | Reduction::Mean | Reduction::Max) | Fun::ArgMax => {
                moved(operands) + LAUNCH
            }
            Fun::Recurrence | Fun::Pad | Fun::Stack | Fun::Concat | Fun::Shift | Fun::Gather => {
                moved(operands) + LAUNCH
            }
            Fun::ScatterAdd | Fun::Update | Fun::Softmax | Fun::LogSumExp | Fun::LayerNorm => moved(operands) + LAUNCH,
            Fun::RmsNorm | Fun::Rope | Fun::CausalConv => moved(operands) + LAUNCH,
            Fun::Attention | Fun::AttentionGrad | Fun::SelectiveScan | Fun::SelectiveScanGrad => {
                moved(operands) + LAUNCH
            }
            Fun::GatedRecurrence | Fun::GatedRecurrenceGrad => moved(operands) + LAUNCH,
            Fun::CrossEntropy | Fun::CrossEntropyGrad | Fun::TopK | Fun::Sample => moved(operands) + LAUNCH,
            Fun::RoutedDot | Fun::RoutedDotGrad => moved(operands) + LAUNCH,
        })
    }
}

/// The axes that number rows.
fn rows(g: &Graph) -> AxisSet {
    let data = |l: &&Leaf| l.kind == LeafKind::Input && l.dtype == DType::I32;
    let mut rows = g.leaves.iter().filter(data).fold(AxisSet::EMPTY, |s, l| s.union(l.axes()));
    for n in &g.nodes {
        match &n.op {
            Op::Rename { from, to } if rows.has(*from) => rows = rows.with(*to),
            Op::Slice { axis, to, .. } | Op::Pad { axis, to, .. } if rows.has(*axis) => rows = rows.with(*to),
            Op::Concat { axis, parts } if parts.iter().any(|p| rows.has(*p)) => rows = rows.with(*axis),
            _ => {}
        }
    }
    rows
}

fn is_dot(eg: &EGraph, id: Id) -> bool {
    eg[id].nodes.iter().any(|n| n.as_fun() == Some(Fun::Dot))
}

/// True if the value stands in memory: it is no constant and not made by elementwise operations alone.
fn kept(eg: &EGraph, id: Id) -> bool {
    let elementwise = |n: &Enode| {
        matches!(n.as_fun(), Some(Fun::Unary(_) | Fun::Binary(_) | Fun::Select | Fun::Cast | Fun::Mix | Fun::Iota))
    };
    let data = &eg[id].data;
    data.known.num().is_none() && (is_dot(eg, id) || !eg[id].nodes.iter().any(elementwise))
}
