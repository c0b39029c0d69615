//! Cost: floating-point operations and bytes moved by a kernel, for rooflines.
use super::is_arithmetic;
use lolm_ir::kernel::{KAxes, KOp, Kernel};

/// (flops, bytes): each element of an operand counts once a direction, however often it is read.
pub fn of(k: &Kernel) -> (u64, u64) {
    let elements = |s: KAxes| s.iter().map(|a| k.axis(a).len as u64).product::<u64>();
    let mut flops = 0;
    let mut bytes = 0;
    for v in &k.values {
        let walked = v.args.iter().fold(v.axes, |s, a| s.union(k.value(*a).axes));
        let twice = matches!(v.op, KOp::Dot(_) | KOp::Scan { .. } | KOp::Fma) as u64 + 1;
        if is_arithmetic(&v.op) && v.dtype.is_float() {
            flops += twice * elements(walked);
        }
        if let KOp::Load(o, _) | KOp::Store(o, _) | KOp::Accumulate(o, _) = &v.op {
            bytes += elements(walked).min(k.operand(*o).len) * k.operand(*o).dtype.bytes() as u64;
        }
    }
    (flops, bytes)
}
