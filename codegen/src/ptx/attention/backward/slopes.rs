//! Weights and slopes of a tile, element by element.
use crate::emit::{Bin, Emit};
use crate::eval::Gives;
use crate::ptx::attention::{Cx, Fragments};
use crate::ptx::inst::*;
use crate::ptx::simt::V;
use lolm_ir::DType;

/// What is known of the row of an element, and what dropout multiplies its weight by.
#[derive(Clone, Copy)]
pub struct Known {
    /// What [`reference`] made of the logarithm of the row's sum.
    pub reference: Reg,
    pub delta: Option<Reg>,
    pub kept: Option<V>,
}

/// What is added to an exponent, or taken from a score, to make a weight of its exponential. Rows that see nothing have a
/// logarithm of -∞; they, and rows that do not exist, get weights of 0.
pub fn reference(cx: &mut Cx, lse: V, exists: Option<Reg>) -> Reg {
    let lse = cx.g.e.reg(lse);
    let narrow = cx.p.narrow;
    let b = &mut cx.g.e.b;
    let nothing = b.setp(Cmp::Eq, Type::F32, lse, Src::F32(f32::NEG_INFINITY.to_bits()));
    let base = match narrow {
        true => b.binary(BinOp::MulRn, Type::F32, lse, Src::F32((-std::f32::consts::LOG2_E).to_bits())),
        false => lse,
    };
    let never = if narrow { f32::NEG_INFINITY } else { f32::INFINITY };
    let never = b.mov(Type::F32, Src::F32(never.to_bits()));
    let base = b.selp(Type::F32, nothing, never, base);
    match exists {
        Some(p) => b.selp(Type::F32, p, base, never),
        None => base,
    }
}

/// Weights and slopes, where `known` tells what is known of an element's row: from scores that are -∞ where they are hidden,
/// and gradients of weights; without these slopes are not wanted.
pub fn slopes<'a>(
    cx: &mut Cx<'a>,
    scores: &Fragments,
    d_weights: &Fragments,
    mut known: impl FnMut(&mut Cx<'a>, usize, usize, usize) -> Gives<Known>,
) -> Gives<(Fragments, Fragments)> {
    let (mut weights, mut slopes) = (scores.clone(), d_weights.clone());
    for (f, n, e) in cx.elements(scores) {
        let at = known(cx, f, n, e)?;
        let p = weight(cx, scores[f][n][e], at.reference);
        let times = |cx: &mut Cx<'a>, x: Reg| match at.kept {
            None => x,
            Some(by) => {
                let product = cx.g.e.binary(Bin::Mul, DType::F32, V::Reg(x), by);
                cx.g.e.reg(product)
            }
        };
        weights[f][n][e] = times(cx, p);
        if let Some(delta) = at.delta {
            let d = times(cx, d_weights[f][n][e]);
            let b = &mut cx.g.e.b;
            let difference = b.binary(BinOp::SubRn, Type::F32, d, delta);
            slopes[f][n][e] = b.binary(BinOp::MulRn, Type::F32, p, difference);
        }
    }
    Ok((weights, slopes))
}

/// The weight of a score.
fn weight(cx: &mut Cx, score: Reg, reference: Reg) -> Reg {
    let x = match cx.p.narrow {
        true => {
            let factor = cx.factor();
            cx.g.e.b.fma(score.into(), Src::F32(factor.to_bits()), reference.into())
        }
        false => {
            let scaled = cx.times(score, cx.s.scale);
            cx.g.e.b.binary(BinOp::SubRn, Type::F32, scaled, reference)
        }
    };
    cx.exp(x)
}
