//! Steps that choose the next token themselves.
use crate::program::BuildError;
use lolm_ir::graph::Builder;
use lolm_ir::{DType, Graph, Op};

/// A step of a program for a GPU: beside its logits it gives `token i32[b]`, drawn under `sample.temperature f32[b]`,
/// `sample.top_k i32[b]`, `sample.top_p f32[b]`, `sample.min_p f32[b]` and `sample.uniform f32[b]` (see
/// [`lolm_ir::op::Op::Sample`]), so that nobody has to fetch the logits. Programs that do not give the logits of one token a
/// sequence stay as they are.
pub fn choosing(g: Graph) -> Result<Graph, BuildError> {
    let Some(logits) = g.find_output("logits").cloned() else { return Ok(g) };
    let [slots, vocab] = &logits.dims[..] else { return Ok(g) };
    let [axis] = vocab[..] else { return Ok(g) };
    let mut b = Builder::extend(g);
    b.scope("sample");
    let ports = [
        ("temperature", DType::F32),
        ("top_k", DType::I32),
        ("top_p", DType::F32),
        ("min_p", DType::F32),
        ("uniform", DType::F32),
    ];
    let mut args = vec![logits.value]; // [b, v]
    args.extend(ports.map(|(name, dtype)| b.input(&format!("sample.{name}"), dtype, std::slice::from_ref(slots)))); // [b]
    let token = b.op(Op::Sample { axis }, &args); // i32[b]
    b.output("token", token, std::slice::from_ref(slots));
    Ok(b.finish()?)
}
