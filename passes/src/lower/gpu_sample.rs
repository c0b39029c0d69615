//! Draws from rows of logits for a GPU: one kernel, whose code is a block of threads for each row.
use super::Lowering;
use super::stream::Stream;
use lolm_ir::axis::AxisId;
use lolm_ir::kernel::{KOp, KValue};
use lolm_ir::plan::Kind;
use lolm_ir::{DType, ValueId};

impl Lowering<'_> {
    pub(super) fn sample_kernel(&mut self, v: ValueId, axis: AxisId) -> Result<(), String> {
        let g = self.cx.g;
        let n = g.node(v);
        let out = self.cx.storage_of(v).ok_or("bug: a draw without storage")?;
        let mut s = Stream::new(&self.cx, None);
        let map = s.identity(g.axes_of(v).with(axis));
        let along = s.axis(axis);
        let args: Vec<KValue> = n.args.iter().map(|a| s.value(*a, &map, None)).collect();
        let y = s.push(KOp::Sample(along), &args, DType::I32);
        s.store(&out, &map, y);
        let lowered = s.finish();
        let name = format!("sample_{}x{}", g.elements(g.axes_of(v)), g.len(axis));
        self.launch(name, Kind::Reduce, lowered);
        Ok(())
    }
}
