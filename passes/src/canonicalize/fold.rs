//! Operations on constants, folded by the reference interpreter, so that their meaning is stated once.
use lolm_ir::dtype::{DType, Scalar};
use lolm_ir::graph::{Graph, ScopeId, ValueId};
use lolm_ir::interp::{self, Feeds};
use lolm_ir::op::Op;

/// The value of an elementwise operation on constants, if it is a finite one that the language can write.
pub(super) fn constant(g: &Graph, op: &Op, args: &[ValueId]) -> Option<Scalar> {
    if !op.is_elementwise() || args.is_empty() {
        return None;
    }
    let operands: Vec<Scalar> = args.iter().map(|a| g.constant(*a)).collect::<Option<_>>()?;
    let mut small = Graph::new("constant");
    let mut ids = Vec::new();
    for s in operands {
        ids.push(small.push(Op::Const(s), &[], ScopeId(0)).ok()?);
    }
    let v = small.push(op.clone(), &ids, ScopeId(0)).ok()?;
    let x = *interp::values(&small, &Feeds::new()).ok()?[v.0 as usize][0].data.first()?;
    match small.ty(v).dtype {
        DType::F32 => Some(x as f32).filter(|x| x.is_finite()).map(Scalar::f32),
        DType::I32 => Some(Scalar::I32(x as i32)),
        DType::Bool => Some(Scalar::Bool(x != 0.0)),
        // There are no constants of this type: rounding stays visible as a cast.
        DType::Bf16 => None,
    }
}
