//! The manifestation gate and the fusion of the two paths.
use super::Cx;
use super::memory::Memory;
use super::regime::Regime;
use crate::blocks::{concat, gelu, layer_norm, linear, sigmoid, sum_of};
use crate::spec::GateSpec;
use lolm_ir::graph::{Dim, Init};
use lolm_ir::{AxisId, DType, ValueId};

/// What the parts before the fusion gave; an absent part is switched off.
#[derive(Clone, Copy)]
pub struct Paths {
    /// `[b, t, d]`
    pub h: ValueId,
    /// `[b, t, d]`
    pub z: Option<ValueId>,
    pub memory: Option<Memory>,
    pub regime: Option<Regime>,
}

/// `g = σ(fc2 · GELU(fc1 · [z; h; m; r]) + b)`; if `forced`, the input `gate.force` takes its place where it is 0 or
/// more: one for all sequences, or one for each where tokens go on from states. `[b, t, d]`
pub fn gate(cx: &mut Cx, spec: &GateSpec, paths: &Paths, forced: bool) -> ValueId {
    cx.scope("gate");
    let (d, width) = (cx.ax.d, cx.spec.d_model);
    let (all, y) = (cx.axis("zhmr", 3 * width + spec.d_regime), cx.axis("y", 2 * width));
    let fc1 = cx.map("gate.fc1.weight", vec![y], vec![all]);
    let fc2 = cx.map("gate.fc2.weight", vec![d], vec![y]);
    let bias = cx.param("gate.fc2.bias", Init::Constant(spec.init_bias as f32), &[vec![d]]);
    let x = first_map(cx, paths, fc1, all); // [b, t, y]
    let x = gelu(cx, x); // [b, t, y]
    let x = linear(cx, &[y], x, fc2, Some(bias)); // [b, t, d]
    let g = sigmoid(cx, x); // [b, t, d]
    if !forced {
        return g;
    }
    let dims: Vec<Dim> = if cx.pos.is_some() { vec![vec![cx.ax.b]] } else { vec![] };
    let force = cx.input("gate.force", DType::F32, &dims); // [] or [b]
    let zero = cx.num(0.0);
    let learned = cx.lt(force, zero);
    cx.select(learned, g, force)
}

/// `fc1 · [z; h; m; r]`. A stream that is off stands as zeros there, so its columns of fc1 take no part.
fn first_map(cx: &mut Cx, paths: &Paths, fc1: ValueId, all: AxisId) -> ValueId {
    let (d, width) = (cx.ax.d, cx.spec.d_model);
    let streams = [
        paths.z.map(|x| (x, d)),
        Some((paths.h, d)),
        paths.memory.map(|m| (m.read, d)),
        paths.regime.map(|r| (r.r, r.g)),
    ];
    let present: Vec<(ValueId, AxisId)> = streams.iter().copied().flatten().collect();
    if present.len() == streams.len() {
        let x = concat(cx, all, &present); // [b, t, zhmr]
        return linear(cx, &[all], x, fc1, None);
    }
    let part = |(i, stream): (usize, Option<(ValueId, AxisId)>)| {
        let (x, axis) = stream?;
        let columns = cx.slice(fc1, all, i * width, axis); // [y, d] or [y, g]
        Some(linear(cx, &[axis], x, columns, None)) // [b, t, y]
    };
    let parts: Vec<ValueId> = streams.into_iter().enumerate().filter_map(part).collect();
    sum_of(cx, &parts)
}

/// `g ⊙ LN(proj_h·h) + (1 - g) ⊙ LN(proj_z·z) + proj_m·m + proj_r·r`, or the sum of the projections without a gate.
/// `[b, t, d]`
pub fn fuse(cx: &mut Cx, paths: &Paths, gate: Option<ValueId>) -> ValueId {
    cx.scope("fusion");
    let mut o = square_map(cx, "proj_h.weight", paths.h); // [b, t, d]
    if let Some(z) = paths.z {
        let z = square_map(cx, "proj_z.weight", z); // [b, t, d]
        o = match gate {
            Some(g) => mixed(cx, g, o, z),
            None => cx.add(o, z),
        };
        if cx.spec.spare_branch_norms {
            // Declared, so that the checkpoint's tensors have their place; nothing uses them.
            cx.norm("ln_h_gate");
            cx.norm("ln_z_gate");
        }
    }
    if let Some(m) = paths.memory {
        let m = square_map(cx, "proj_m.weight", m.read); // [b, t, d]
        o = cx.add(o, m);
    }
    if let Some(regime) = paths.regime {
        let proj_r = cx.map("proj_r.weight", vec![cx.ax.d], vec![regime.g]);
        let isolated = cx.spec.regime.as_ref().is_some_and(|r| r.gradient_isolation);
        let r = if isolated { cx.stop_gradient(regime.r) } else { regime.r }; // [b, t, g]
        let r = linear(cx, &[regime.g], r, proj_r, None); // [b, t, d]
        o = cx.add(o, r);
    }
    o
}

fn square_map(cx: &mut Cx, name: &str, x: ValueId) -> ValueId {
    let (d, width) = (cx.ax.d, cx.spec.d_model);
    let c = cx.axis("c", width);
    let w = cx.map(name, vec![d], vec![c]);
    let x = cx.rename(x, d, c); // [b, t, c]
    linear(cx, &[c], x, w, None)
}

/// `g ⊙ h + (1 - g) ⊙ z`, each branch under its own norm if the spec says so. `[b, t, d]`
fn mixed(cx: &mut Cx, g: ValueId, mut h: ValueId, mut z: ValueId) -> ValueId {
    let d = cx.ax.d;
    if cx.spec.gate.as_ref().is_some_and(|g| g.normalize_branches) {
        let (ln_h, ln_z) = (cx.norm("ln_h_gate"), cx.norm("ln_z_gate"));
        h = layer_norm(cx, d, h, ln_h);
        z = layer_norm(cx, d, z, ln_z);
    }
    let one = cx.num(1.0);
    let rest = cx.sub(one, g);
    let (h, z) = (cx.mul(g, h), cx.mul(rest, z));
    cx.add(h, z)
}
