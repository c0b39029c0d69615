//! Lowering for a GPU: every launch is one kernel over all its units, in plain mathematics.
//!
//! What a kernel's body says is what it computes; tiles, stages of memory and instructions for matrices are schedules of
//! it, which code generation chooses. So a product is a `dot` over the kernel's axes, and groups that share tiles on the
//! CPU stay apart here.
use super::Lowering;
use super::index::Index;
use super::stream::Stream;
use lolm_ir::axis::AxisId;
use lolm_ir::kernel::KOp;
use lolm_ir::op::{Binary, Op};
use lolm_ir::plan::Kind;
use lolm_ir::{DType, ValueId};

/// True for operations that have kernels of their own where others are expanded.
pub(super) fn has_kernel(op: &Op) -> bool {
    let scan = matches!(op, Op::SelectiveScan { .. } | Op::SelectiveScanGrad { .. });
    let gated = matches!(op, Op::GatedRecurrence { .. } | Op::GatedRecurrenceGrad { .. });
    let head = matches!(op, Op::CrossEntropy { .. } | Op::CrossEntropyGrad { .. });
    let attention = matches!(op, Op::Attention(_) | Op::AttentionGrad(_));
    let routed = matches!(op, Op::RoutedDot { .. } | Op::RoutedDotGrad { .. });
    scan || gated || head || attention || routed || matches!(op, Op::Sample { .. })
}

impl Lowering<'_> {
    /// A fused operation as one kernel, or as a few.
    pub(super) fn fused_kernel(&mut self, v: ValueId) -> Result<(), String> {
        match self.cx.g.node(v).op {
            Op::SelectiveScan { .. } => self.selective_scan(v),
            Op::SelectiveScanGrad { .. } => self.selective_scan_grad(v),
            Op::RoutedDot { expert, over } => self.routed_rows(v, expert, over),
            Op::RoutedDotGrad { expert } => self.routed_sums(v, expert),
            Op::Attention(_) => self.attention_kernel(v),
            Op::AttentionGrad(_) => self.attention_grad_kernels(v),
            Op::CrossEntropy { .. } => self.head_losses(v),
            Op::CrossEntropyGrad { .. } => self.head_gradient(v),
            Op::Sample { axis } => self.sample_kernel(v, axis),
            ref op => Err(format!("bug: {} has no kernel", op.mnemonic())),
        }
    }

    /// The same of a few rows: each finds its matrix by itself.
    pub(super) fn routed_kernel(&mut self, v: ValueId, expert: AxisId, over: AxisId) -> Result<(), String> {
        let g = self.cx.g;
        let n = g.node(v);
        let out = self.cx.storage_of(v).ok_or("bug: a routed product without storage")?;
        let mut s = Stream::new(&self.cx, None);
        let map = s.identity(g.axes_of(v).with(over));
        let over = s.axis(over);
        let index = s.value(n.args[2], &map, None);
        let x = s.value(n.args[0], &map, None);
        let (zero, end) = (s.int(0), s.int(g.len(expert) as i64));
        let (low, high) = (s.binary(Binary::Le, zero, index), s.binary(Binary::Lt, index, end));
        let is_one = s.binary(Binary::And, low, high);
        let w = s.value(n.args[1], &map.with(expert, Index::value(index)), Some(is_one));
        let y = s.push(KOp::Dot(over), &[x, w], DType::F32);
        s.store(&out, &map, y);
        let lowered = s.finish();
        let name = format!("routed_dot_{}", g.elements(g.axes_of(v)));
        self.launch(name, Kind::Contract, lowered);
        Ok(())
    }
}
